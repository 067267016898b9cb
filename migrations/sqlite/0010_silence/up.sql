-- What holds alerts back from people: silences, and what is known while windows and other alerts do.

CREATE TABLE silence (
    num        INTEGER PRIMARY KEY NOT NULL,          -- the order in which they were set
    id         TEXT    NOT NULL UNIQUE,
    matchers   TEXT    NOT NULL,                      -- JSON, a list of matchers as they are written
    starts_at  BIGINT  NOT NULL,
    ends_at    BIGINT  NOT NULL,
    updated_at BIGINT  NOT NULL,
    created_by TEXT    NOT NULL,
    account    TEXT    NOT NULL,
    comment    TEXT    NOT NULL
);
CREATE INDEX silence_by_end ON silence (ends_at);

-- One row: what every alert that fires was looked at by, up to when, and how far that is.
CREATE TABLE suppression (
    id    INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    rev   BIGINT  NOT NULL,                           -- moves when a person changes what holds alerts back
    until BIGINT  NOT NULL,                           -- our clock
    plan  TEXT    NOT NULL,                           -- names the configuration it was done by
    place TEXT,                                       -- the claim of the alert it has come to, while it is under way
    again BOOLEAN NOT NULL                            -- an alert that holds others back began or ended since
);
INSERT INTO suppression (id, rev, until, plan, place, again) VALUES (1, 0, 0, '', NULL, 0);

-- Alerts that fire and hold others back, by what those must share with them.
CREATE TABLE inhibitor (
    key   TEXT    NOT NULL,
    both  BOOLEAN NOT NULL,                           -- it could be held back by the same rule
    claim TEXT    NOT NULL,                           -- of the alert
    title TEXT    NOT NULL,
    PRIMARY KEY (key, both, claim)
) WITHOUT ROWID;
CREATE INDEX inhibitor_by_claim ON inhibitor (claim);

-- JSON: what is needed to tell of the alert later, and what it holds others back by
ALTER TABLE alert ADD COLUMN aside TEXT;
CREATE INDEX alert_suppressed ON alert (suppressed_by) WHERE status = 'firing' AND suppressed_by IS NOT NULL;
CREATE INDEX alert_firing     ON alert (claim)         WHERE status = 'firing';
