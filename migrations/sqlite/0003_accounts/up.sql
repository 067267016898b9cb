-- People and programs that may use the service. Names differ by more than their case.
CREATE TABLE user_account (
    name          TEXT    NOT NULL PRIMARY KEY COLLATE NOCASE,
    role          TEXT    NOT NULL CHECK (role IN ('integrator', 'viewer', 'operator', 'admin')),
    groups        TEXT    NOT NULL,
    password_hash TEXT    NOT NULL,
    disabled      BOOLEAN NOT NULL,
    created_at    BIGINT  NOT NULL,
    changed_at    BIGINT  NOT NULL
);

-- A log-in. The token only names the row: without the row the token is worth nothing.
CREATE TABLE session (
    id         TEXT   NOT NULL PRIMARY KEY,
    user_name  TEXT   NOT NULL COLLATE NOCASE REFERENCES user_account (name) ON DELETE CASCADE,
    opened_at  BIGINT NOT NULL,
    seen_at    BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX session_of_user ON session (user_name, opened_at);
CREATE INDEX session_expiry ON session (expires_at);

-- Only the SHA-256 of a key is here.
CREATE TABLE api_key (
    id         TEXT   NOT NULL PRIMARY KEY,
    name       TEXT   NOT NULL,
    owner      TEXT   NOT NULL COLLATE NOCASE REFERENCES user_account (name) ON DELETE CASCADE,
    role       TEXT   NOT NULL CHECK (role IN ('integrator', 'viewer', 'operator', 'admin')),
    hash       BLOB   NOT NULL UNIQUE CHECK (length(hash) = 32),
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    used_at    BIGINT
);
CREATE INDEX api_key_of_owner ON api_key (owner, created_at);

-- Answers that a repeated request gets again. Of the request's body only a keyed hash is kept.
CREATE TABLE idempotency (
    num         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    scope       TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    status      INTEGER NOT NULL,
    body        TEXT    NOT NULL,
    at          BIGINT  NOT NULL,
    UNIQUE (scope, key)
);
CREATE INDEX idempotency_age ON idempotency (at);
