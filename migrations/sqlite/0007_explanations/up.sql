-- What each incident was last explained by. An explanation takes the place of the one before.
CREATE TABLE explanation (
    incident BIGINT  NOT NULL PRIMARY KEY REFERENCES incident (num),
    basis    BIGINT  NOT NULL,                        -- every event up to this one had been committed before it was begun
    times    BIGINT  NOT NULL,                        -- how often the incident has been explained
    found    BIGINT  NOT NULL,                        -- how many pieces of evidence explanations of it have found: f1, f2, …
    body     TEXT    NOT NULL,                        -- JSON, the explanation
    similar  TEXT    NOT NULL,                        -- JSON, earlier incidents that resemble it
    evidence TEXT    NOT NULL                         -- JSON, what was found for it and cited in it
) WITHOUT ROWID;
