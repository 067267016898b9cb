-- What must reach the outside, until it did or was given up. Rows of one channel and key are delivered in order.
CREATE TABLE outbox (
    num         BIGINT  NOT NULL PRIMARY KEY,         -- the order within a channel and key
    channel     TEXT    NOT NULL,
    key         TEXT    NOT NULL,                     -- what must stay in order: the incident
    dedup       TEXT    NOT NULL,                     -- the same at every attempt; the receiver may go by it
    first_event BIGINT  NOT NULL,
    last_event  BIGINT  NOT NULL,
    subject     TEXT    NOT NULL,                     -- for people: what it is about
    body        TEXT    NOT NULL,                     -- JSON; changes only as long as attempts is 0
    created_at  BIGINT  NOT NULL,
    attempts    INTEGER NOT NULL,                     -- counted before each attempt
    next_at     BIGINT  NOT NULL,                     -- not before
    lease_until BIGINT,                               -- somebody is at it until then …
    boot        TEXT,                                 -- … in this run of the process
    error       TEXT                                  -- what went wrong last
) WITHOUT ROWID;
CREATE INDEX outbox_in_order ON outbox (channel, key, num);
