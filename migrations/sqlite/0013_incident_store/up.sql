-- What people find incidents by, how often they came back, and how long they took.

-- Of incidents that came back, were acknowledged or were opened again.
CREATE TABLE incident_course (
    num                   INTEGER PRIMARY KEY NOT NULL REFERENCES incident (num),
    recurrence_of         TEXT,                       -- the incident before it of the same fingerprint
    recurrence            BIGINT NOT NULL DEFAULT 0,  -- how many came before it that way
    first_acknowledged_at BIGINT,                     -- what a reopening does not take away
    reopened              BIGINT NOT NULL DEFAULT 0   -- how often
);
INSERT INTO incident_course (num, first_acknowledged_at, reopened)
SELECT incident, min(at) FILTER (WHERE kind = 'acknowledged'), count(*) FILTER (WHERE kind = 'reopened')
FROM timeline WHERE kind IN ('acknowledged', 'reopened') GROUP BY incident;

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

-- Which incidents became part of which, with what it takes to undo that: a person may take them apart again.
CREATE TABLE incident_merge (
    num    INTEGER PRIMARY KEY NOT NULL REFERENCES incident (num),   -- the incident that ended
    target TEXT    NOT NULL,                          -- the id of the one that went on
    at     BIGINT  NOT NULL,
    before TEXT    NOT NULL                           -- JSON
);
CREATE INDEX incident_merge_into ON incident_merge (target);
CREATE TABLE incident_merge_alert (
    num   BIGINT NOT NULL REFERENCES incident_merge (num),
    alert TEXT   NOT NULL,
    PRIMARY KEY (num, alert)
) WITHOUT ROWID;
