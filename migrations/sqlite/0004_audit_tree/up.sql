-- The Merkle tree over audit_leaf: every complete subtree above the leaves, whose hashes are in audit_leaf.
-- Of a log that is older than this table the service fills it in when it opens the log.
CREATE TABLE audit_node (
    level INTEGER NOT NULL,
    idx   BIGINT  NOT NULL,
    hash  BLOB    NOT NULL,
    PRIMARY KEY (level, idx)
) WITHOUT ROWID;
CREATE TRIGGER audit_node_no_update BEFORE UPDATE ON audit_node
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_node_no_delete BEFORE DELETE ON audit_node
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

-- The root, and the subtrees it is made of, the smallest first; empty in a log that is older than the tree.
ALTER TABLE audit_head ADD COLUMN root BLOB NOT NULL DEFAULT x'';
ALTER TABLE audit_head ADD COLUMN frontier BLOB NOT NULL DEFAULT x'';

-- Sizes and roots that were fixed by a checkpoint; the note is there once it is signed, and then stays.
CREATE TABLE audit_checkpoint (
    size BIGINT NOT NULL PRIMARY KEY,
    root BLOB   NOT NULL,
    at   BIGINT NOT NULL,
    note TEXT
);
CREATE TRIGGER audit_checkpoint_signed_once BEFORE UPDATE ON audit_checkpoint
WHEN OLD.note IS NOT NULL OR NEW.note IS NULL OR NEW.size <> OLD.size OR NEW.root <> OLD.root OR NEW.at <> OLD.at
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_checkpoint_no_delete BEFORE DELETE ON audit_checkpoint
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;

-- A payload may be deleted, which its leaf survives; it is never changed.
CREATE TRIGGER audit_payload_no_update BEFORE UPDATE ON audit_payload
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
