DROP TRIGGER audit_payload_no_update;
DROP TABLE audit_checkpoint;
ALTER TABLE audit_head DROP COLUMN frontier;
ALTER TABLE audit_head DROP COLUMN root;
DROP TABLE audit_node;
