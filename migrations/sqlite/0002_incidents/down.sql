DROP TABLE decision;
DROP TABLE timeline;
DROP TABLE evidence;
DROP TABLE incident_fingerprint;
DROP TABLE incident_text;
DROP TABLE incident;
DROP TABLE alert;
