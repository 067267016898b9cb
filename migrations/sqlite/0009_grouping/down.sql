DROP INDEX incident_merged;
DROP TABLE incident_key;
ALTER TABLE incident DROP COLUMN pinned;
ALTER TABLE incident DROP COLUMN key_count;
ALTER TABLE incident DROP COLUMN look_at;
ALTER TABLE incident DROP COLUMN merged_into;
