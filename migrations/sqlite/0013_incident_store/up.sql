-- What people find incidents by, how often they came back, and how long they took.

ALTER TABLE incident ADD COLUMN recurrence_of         TEXT;                       -- the incident before it of the same fingerprint
ALTER TABLE incident ADD COLUMN recurrence            BIGINT NOT NULL DEFAULT 0;  -- how many came before it that way
ALTER TABLE incident ADD COLUMN first_acknowledged_at BIGINT;                     -- what a reopening does not take away
ALTER TABLE incident ADD COLUMN reopened              BIGINT NOT NULL DEFAULT 0;
UPDATE incident SET
    first_acknowledged_at = (SELECT min(at) FROM timeline WHERE incident = num AND kind = 'acknowledged'),
    reopened = (SELECT count(*) FROM timeline WHERE incident = num AND kind = 'reopened');
CREATE INDEX incident_by_assignee        ON incident (assignee, opened_at) WHERE assignee IS NOT NULL;
CREATE INDEX incident_by_assignee_status ON incident (assignee, status, opened_at) WHERE assignee IS NOT NULL;

-- The different words of each incident: of its own texts, its alerts' and its evidence's, up to a bound. A blank stands
-- before and behind each. Of incidents that are older than this table the service fills it in when it opens them.
CREATE TABLE incident_words (
    num   INTEGER PRIMARY KEY NOT NULL REFERENCES incident (num),
    full  BOOLEAN NOT NULL,                           -- at the bound: further words are left out
    words TEXT    NOT NULL
);
DROP TABLE incident_text;
-- The words are made by the service, and are not to be taken apart again; so are those that are looked for.
CREATE VIRTUAL TABLE incident_text USING fts5(
    words, content = 'incident_words', content_rowid = 'num', detail = none, columnsize = 0, prefix = '2 4 8',
    tokenize = "ascii tokenchars '-._:/@='"
);
