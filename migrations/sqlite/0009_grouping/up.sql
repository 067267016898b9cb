-- What incidents have in common, and which of them became one.

ALTER TABLE incident ADD COLUMN merged_into TEXT;     -- the id of the incident that took its alerts over
ALTER TABLE incident ADD COLUMN look_at     BIGINT;   -- when to look whether it is part of a storm
ALTER TABLE incident ADD COLUMN key_count   BIGINT  NOT NULL DEFAULT 0;
ALTER TABLE incident ADD COLUMN pinned      BOOLEAN NOT NULL DEFAULT 0;  -- a person took it apart: it stays by itself

-- What an incident that is not resolved shares with what may still come.
CREATE TABLE incident_key (
    key      TEXT    NOT NULL,                        -- kind:value
    num      BIGINT  NOT NULL REFERENCES incident (num),
    incident TEXT    NOT NULL,
    at       BIGINT  NOT NULL,                        -- our clock, when an alert last brought it
    opened   BIGINT  NOT NULL,                        -- when the incident was opened
    counts   BOOLEAN NOT NULL,                        -- whether enough incidents with it are a storm
    storm    BOOLEAN NOT NULL,                        -- whether it is what a storm has in common
    PRIMARY KEY (key, num)
) WITHOUT ROWID;
CREATE INDEX incident_key_by_incident ON incident_key (num);
CREATE INDEX incident_key_young       ON incident_key (key, opened) WHERE counts;
CREATE INDEX incident_key_of_storm    ON incident_key (key) WHERE storm;
CREATE INDEX incident_merged          ON incident (merged_into) WHERE merged_into IS NOT NULL;
