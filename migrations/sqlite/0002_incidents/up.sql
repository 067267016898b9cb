-- Alerts, the incidents they belong to, and why.

-- One row per episode of an alert: from its first firing record to its resolution.
CREATE TABLE alert (
    num                INTEGER PRIMARY KEY NOT NULL,  -- the order in which they were first seen
    id                 TEXT    NOT NULL UNIQUE,
    claim              TEXT    NOT NULL,              -- the id its detector speaks of it by
    fingerprint        BIGINT  NOT NULL,              -- 64 bits, signed
    status             TEXT    NOT NULL CHECK (status IN ('firing', 'resolved')),
    severity           TEXT    NOT NULL CHECK (severity IN ('debug', 'info', 'warning', 'error', 'critical')),
    source             TEXT    NOT NULL,
    name               TEXT    NOT NULL,
    detected_by        TEXT    NOT NULL,
    title              TEXT    NOT NULL,
    description        TEXT    NOT NULL,
    labels             TEXT    NOT NULL,              -- JSON object
    occurrences        BIGINT  NOT NULL,
    first_seen_at      BIGINT  NOT NULL,              -- event time, milliseconds, like every time that says nothing else
    last_seen_at       BIGINT  NOT NULL,
    last_logged_at     BIGINT  NOT NULL,              -- our clock
    resolved_at        BIGINT,
    resolved_logged_at BIGINT,                        -- our clock
    resolved_by        TEXT,
    suppressed_by      TEXT,
    incident           TEXT                           -- the id of its incident
);
CREATE INDEX alert_by_claim       ON alert (claim);
CREATE INDEX alert_by_fingerprint ON alert (fingerprint);
CREATE INDEX alert_by_status      ON alert (status);
CREATE INDEX alert_by_severity    ON alert (severity);
CREATE INDEX alert_by_source      ON alert (source);
CREATE INDEX alert_by_incident    ON alert (incident);
CREATE INDEX alert_firing_of      ON alert (incident) WHERE status = 'firing';

CREATE TABLE incident (
    num             INTEGER PRIMARY KEY NOT NULL,     -- the order in which they were opened
    id              TEXT    NOT NULL UNIQUE,
    rev             BIGINT  NOT NULL,                 -- moves with every change
    title           TEXT    NOT NULL,
    description     TEXT    NOT NULL,
    severity        TEXT    NOT NULL CHECK (severity IN ('debug', 'info', 'warning', 'error', 'critical')),
    status          TEXT    NOT NULL CHECK (status IN ('open', 'acknowledged', 'resolved')),
    detected_by     TEXT    NOT NULL,
    rule            TEXT    NOT NULL,
    source          TEXT    NOT NULL,
    labels          TEXT    NOT NULL,                 -- JSON object
    occurrences     BIGINT  NOT NULL,
    opened_at       BIGINT  NOT NULL,
    last_seen_at    BIGINT  NOT NULL,
    acknowledged_at BIGINT,                           -- our clock, like every time below
    acknowledged_by TEXT,
    assignee        TEXT,
    snoozed_until   BIGINT,
    resolved_at     BIGINT,
    resolution      TEXT,
    quiet_at        BIGINT,                           -- when it counts as quiet long enough to be resolved
    due_at          BIGINT,                           -- the earlier of snoozed_until and quiet_at
    alert_count     BIGINT  NOT NULL,
    firing          BIGINT  NOT NULL,                 -- how many of its alerts hold
    evidence_count  BIGINT  NOT NULL,
    evidence_beyond BIGINT  NOT NULL,
    timeline_count  BIGINT  NOT NULL,
    timeline_beyond BIGINT  NOT NULL
);
-- The list is sorted by (opened_at, num), newest first; each index serves a filter without sorting.
CREATE INDEX incident_by_time            ON incident (opened_at);
CREATE INDEX incident_by_status          ON incident (status, opened_at);
CREATE INDEX incident_by_severity        ON incident (severity, opened_at);
CREATE INDEX incident_by_source          ON incident (source, opened_at);
CREATE INDEX incident_by_status_severity ON incident (status, severity, opened_at);
CREATE INDEX incident_by_source_status   ON incident (source, status, opened_at);
CREATE INDEX incident_by_source_severity ON incident (source, severity, opened_at);
CREATE INDEX incident_open               ON incident (severity) WHERE status <> 'resolved';
CREATE INDEX incident_due                ON incident (due_at, id) WHERE due_at IS NOT NULL;

-- Words of an incident; rowid is its num.
CREATE VIRTUAL TABLE incident_text USING fts5(words, content = '', tokenize = 'unicode61');

-- Which fingerprints an incident has. One that is not resolved holds each of them alone.
CREATE TABLE incident_fingerprint (
    fingerprint BIGINT  NOT NULL,
    num         BIGINT  NOT NULL REFERENCES incident (num),
    incident    TEXT    NOT NULL,
    open        BOOLEAN NOT NULL,
    PRIMARY KEY (fingerprint, num)
) WITHOUT ROWID;
CREATE UNIQUE INDEX one_open_incident_per_fingerprint ON incident_fingerprint (fingerprint) WHERE open;
CREATE INDEX incident_fingerprint_by_incident ON incident_fingerprint (num);

-- Observations copied to the incident, e1, e2, …: retention of signals cannot take them away.
CREATE TABLE evidence (
    incident BIGINT NOT NULL REFERENCES incident (num),
    n        BIGINT NOT NULL,
    alert    TEXT   NOT NULL,
    body     TEXT   NOT NULL,                         -- JSON, an observation
    PRIMARY KEY (incident, n)
) WITHOUT ROWID;

CREATE TABLE timeline (
    incident BIGINT NOT NULL REFERENCES incident (num),
    n        BIGINT NOT NULL,
    at       BIGINT NOT NULL,                         -- our clock
    kind     TEXT   NOT NULL,
    actor    TEXT   NOT NULL,                         -- JSON
    text     TEXT   NOT NULL,
    PRIMARY KEY (incident, n)
) WITHOUT ROWID;
CREATE TRIGGER timeline_keeps_what_it_says BEFORE UPDATE ON timeline
BEGIN SELECT RAISE(ABORT, 'the timeline is append-only'); END;
CREATE TRIGGER timeline_forgets_nothing BEFORE DELETE ON timeline
BEGIN SELECT RAISE(ABORT, 'the timeline is append-only'); END;

-- Every decision of each stage of the pipeline with what it was decided on.
CREATE TABLE decision (
    num       INTEGER PRIMARY KEY NOT NULL,
    first_seq BIGINT  NOT NULL,                       -- the entry of the alert log it is about
    last_seq  BIGINT  NOT NULL,                       -- the newest, where like ones are counted together
    times     BIGINT  NOT NULL,
    first_at  BIGINT  NOT NULL,                       -- our clock
    last_at   BIGINT  NOT NULL,
    stage     TEXT    NOT NULL,
    alert     TEXT,
    incident  TEXT,
    outcome   TEXT    NOT NULL,
    repeats   BOOLEAN NOT NULL,
    text      TEXT    NOT NULL,
    inputs    TEXT    NOT NULL                        -- JSON
);
CREATE INDEX decision_by_alert    ON decision (alert);
CREATE INDEX decision_by_incident ON decision (incident);
CREATE UNIQUE INDEX decision_repeats ON decision (alert, stage, outcome) WHERE repeats;
