-- The part of the dependency graph that people gave through the API, replaced as a whole. What signals show is among the
-- snapshots of `enricher.topology`, what is configured in the configuration.
CREATE TABLE topology (
    id       INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    revision BIGINT  NOT NULL                          -- how often it was replaced
);
INSERT INTO topology (id, revision) VALUES (1, 0);

CREATE TABLE topology_component (
    name  TEXT NOT NULL PRIMARY KEY,
    title TEXT,
    owner TEXT
) WITHOUT ROWID;

-- One component depends on the other.
CREATE TABLE topology_edge (
    dependent  TEXT NOT NULL,
    dependency TEXT NOT NULL CHECK (dependency <> dependent),
    PRIMARY KEY (dependent, dependency)
) WITHOUT ROWID;
