DROP INDEX alert_firing;
DROP INDEX alert_suppressed;
ALTER TABLE alert DROP COLUMN aside;
DROP TABLE inhibitor;
DROP TABLE suppression;
DROP TABLE silence;
