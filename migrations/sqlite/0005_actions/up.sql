-- Plans on their way through people's hands, the tokens of those that were approved, and their runs.

CREATE TABLE approval (
    num         INTEGER PRIMARY KEY NOT NULL,      -- the order in which they were proposed
    id          TEXT    NOT NULL UNIQUE,
    incident    TEXT    NOT NULL,
    action      TEXT    NOT NULL,
    title       TEXT    NOT NULL,
    risk        TEXT    NOT NULL CHECK (risk IN ('read', 'reversible', 'disruptive', 'destructive')),
    params      TEXT    NOT NULL,                  -- JSON object
    plan        BLOB    NOT NULL,                  -- canonical JSON: what was shown, hashed, and runs
    digest      BLOB    NOT NULL CHECK (length(digest) = 32),
    preview     TEXT    NOT NULL,                  -- JSON object
    reasoning   TEXT    NOT NULL,
    proposer    TEXT    NOT NULL,                  -- JSON object
    by_person   BOOLEAN NOT NULL,                  -- proposed by a person, not by a rule or a model
    owner       TEXT    COLLATE NOCASE,            -- the human behind the proposal
    status      TEXT    NOT NULL CHECK (status IN ('pending', 'approved', 'executing', 'succeeded', 'failed', 'unknown',
                                                   'denied', 'expired', 'lapsed', 'revoked', 'superseded', 'withdrawn')),
    clauses     TEXT    NOT NULL,                  -- who must agree, as JSON
    created_at  BIGINT  NOT NULL,
    approve_by  BIGINT  NOT NULL,
    execute_by  BIGINT,
    closed      TEXT,                              -- why it ended, where the status does not say it
    boot        TEXT,                              -- the run of the process that approved it,
    elapsed_ms  BIGINT,                            -- and that run's monotonic time then
    execution   TEXT
);
CREATE INDEX approval_by_status   ON approval (status, num);
CREATE INDEX approval_of_incident ON approval (incident, num);
CREATE INDEX approval_by_plan     ON approval (digest, num);
CREATE INDEX approval_by_rules    ON approval (created_at) WHERE NOT by_person;
CREATE INDEX approval_waits       ON approval (approve_by) WHERE status = 'pending';
CREATE INDEX approval_holds       ON approval (execute_by) WHERE status = 'approved';

-- Who agreed, once each.
CREATE TABLE approval_vote (
    approval  BIGINT NOT NULL REFERENCES approval (num),
    user_name TEXT   NOT NULL COLLATE NOCASE,
    at        BIGINT NOT NULL,
    digest    BLOB   NOT NULL,
    reason    TEXT   NOT NULL,
    PRIMARY KEY (approval, user_name)
);
CREATE INDEX approval_vote_of ON approval_vote (user_name);

-- Tokens. Only the SHA-256 is here; the row decides, the token only names it. At most one is active for an approval.
CREATE TABLE approval_token (
    jti        TEXT   NOT NULL PRIMARY KEY,
    approval   BIGINT NOT NULL REFERENCES approval (num),
    hash       BLOB   NOT NULL UNIQUE CHECK (length(hash) = 32),
    issued_to  TEXT   NOT NULL,
    epoch      TEXT   NOT NULL,
    issued_at  BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    state      TEXT   NOT NULL CHECK (state IN ('active', 'consumed', 'revoked', 'expired')),
    closed_at  BIGINT
);
CREATE UNIQUE INDEX approval_token_active ON approval_token (approval) WHERE state = 'active';
CREATE INDEX approval_token_of ON approval_token (approval);

-- Runs. A token, and an approval, starts one at most: this is the last line of that promise.
CREATE TABLE execution (
    num          INTEGER PRIMARY KEY NOT NULL,
    id           TEXT    NOT NULL UNIQUE,
    approval     BIGINT  NOT NULL UNIQUE REFERENCES approval (num),
    approval_id  TEXT    NOT NULL,
    approval_jti TEXT    NOT NULL UNIQUE REFERENCES approval_token (jti),
    status       TEXT    NOT NULL CHECK (status IN ('executing', 'succeeded', 'failed', 'timed_out', 'unknown')),
    reason       TEXT,
    exit_code    INTEGER,
    stdout       TEXT    NOT NULL,
    stderr       TEXT    NOT NULL,
    truncated    BOOLEAN NOT NULL,
    started_at   BIGINT  NOT NULL,
    finished_at  BIGINT,
    boot         TEXT    NOT NULL,
    containment  TEXT,
    sandbox      TEXT,                              -- JSON
    verified     BOOLEAN
);
CREATE INDEX execution_by_status ON execution (status);

-- What runs act on just now: one run for each target.
CREATE TABLE target_lock (
    target    TEXT NOT NULL PRIMARY KEY,
    execution TEXT NOT NULL
);
CREATE INDEX target_lock_of ON target_lock (execution);

-- While it is engaged nothing is started.
CREATE TABLE kill_switch (
    id      INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    engaged BOOLEAN NOT NULL,
    who     TEXT,
    at      BIGINT,
    reason  TEXT
);
INSERT INTO kill_switch (id, engaged) VALUES (1, FALSE);
