DROP TABLE incident_merge_alert;
DROP TABLE incident_merge;
DROP TABLE incident_text;
DROP TABLE incident_words;
-- As `0002_incidents` made it. What it held is not made again.
CREATE VIRTUAL TABLE incident_text USING fts5(words, content = '', tokenize = 'unicode61');
DROP INDEX incident_by_assignee_status;
DROP INDEX incident_by_assignee;
DROP TABLE incident_course;
