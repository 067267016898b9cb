-- One row for each group commit of signals, or one for each tick (count = 0).
-- The small columns come first, so that a search can skip a row without reading its data.
CREATE TABLE signal_block (
    first_seq    BIGINT  NOT NULL PRIMARY KEY,
    last_seq     BIGINT  NOT NULL,
    count        INTEGER NOT NULL,
    kinds        INTEGER NOT NULL,
    at_min       BIGINT  NOT NULL,
    at_max       BIGINT  NOT NULL,
    received_min BIGINT  NOT NULL,
    received_max BIGINT  NOT NULL,
    more_sources BOOLEAN NOT NULL,
    raw_len      BIGINT  NOT NULL,
    stored_len   BIGINT  NOT NULL,
    sources      TEXT    NOT NULL,
    filter       BLOB    NOT NULL,
    data         BLOB    NOT NULL
);

-- (source, id) pairs that were accepted, 16 bytes each, as many as one commit claimed.
CREATE TABLE claim (
    id    BIGINT  NOT NULL PRIMARY KEY,
    at    BIGINT  NOT NULL,
    count INTEGER NOT NULL,
    keys  BLOB    NOT NULL
);

-- What detectors claimed, numbered; a tick has no alert.
CREATE TABLE alert_log (
    seq        BIGINT NOT NULL PRIMARY KEY,
    at         BIGINT NOT NULL,
    alert      TEXT,
    signal_seq BIGINT,
    transition TEXT,
    body       BLOB   NOT NULL
);
CREATE UNIQUE INDEX alert_log_once ON alert_log (alert, signal_seq, transition) WHERE alert IS NOT NULL;

-- Committed facts, numbered.
CREATE TABLE event (
    seq  BIGINT NOT NULL PRIMARY KEY,
    at   BIGINT NOT NULL,
    kind TEXT   NOT NULL,
    body BLOB   NOT NULL
);

-- How far each follower has come, and what it knows.
CREATE TABLE follower_cursor (
    module TEXT   NOT NULL PRIMARY KEY,
    log    TEXT   NOT NULL,
    seq    BIGINT NOT NULL,
    live   BOOLEAN NOT NULL,
    at     BIGINT NOT NULL
);
CREATE TABLE snapshot (
    module TEXT NOT NULL,
    key    TEXT NOT NULL,
    blob   BLOB NOT NULL,
    PRIMARY KEY (module, key)
);
CREATE TABLE attempt (
    module    TEXT    NOT NULL,
    first_seq BIGINT  NOT NULL,
    last_seq  BIGINT  NOT NULL,
    count     INTEGER NOT NULL,
    at        BIGINT  NOT NULL,
    PRIMARY KEY (module, first_seq, last_seq)
);
CREATE TABLE dead_letter (
    id        TEXT    NOT NULL PRIMARY KEY,
    module    TEXT    NOT NULL,
    log       TEXT    NOT NULL,
    first_seq BIGINT  NOT NULL,
    last_seq  BIGINT  NOT NULL,
    payload   BLOB    NOT NULL,
    error     TEXT    NOT NULL,
    attempts  INTEGER NOT NULL,
    at        BIGINT  NOT NULL,
    requeued_at BIGINT
);

-- Who did what. The leaf is small and permanent, the payload may be deleted without breaking the chain.
CREATE TABLE audit_leaf (
    seq       BIGINT NOT NULL PRIMARY KEY,
    leaf      BLOB   NOT NULL,
    leaf_hash BLOB   NOT NULL
);
CREATE TABLE audit_payload (
    seq  BIGINT NOT NULL PRIMARY KEY,
    salt BLOB   NOT NULL,
    body BLOB   NOT NULL
);
CREATE TABLE audit_head (
    id        INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    size      BIGINT  NOT NULL,
    last_hash BLOB    NOT NULL,
    last_ts   BIGINT  NOT NULL
);
INSERT INTO audit_head (id, size, last_hash, last_ts) VALUES (1, 0, zeroblob(32), 0);
CREATE TRIGGER audit_leaf_no_update BEFORE UPDATE ON audit_leaf
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_leaf_no_delete BEFORE DELETE ON audit_leaf
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_leaf_in_order BEFORE INSERT ON audit_leaf
WHEN NEW.seq <> (SELECT COALESCE(MAX(seq), 0) + 1 FROM audit_leaf)
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

-- Denied attempts of the minute at hand, beyond the first of each kind.
CREATE TABLE denied (
    actor  TEXT   NOT NULL,
    what   TEXT   NOT NULL,
    minute BIGINT NOT NULL,
    count  BIGINT NOT NULL,
    PRIMARY KEY (actor, what)
);

-- One value for each name: identity of this instance, epoch, gaps, marks of starts and stops.
CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);
