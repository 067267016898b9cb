-- What is over goes some day. A timeline still forgets nothing: its entries go only when their incident is gone.
DROP TRIGGER timeline_forgets_nothing;
CREATE TRIGGER timeline_forgets_nothing BEFORE DELETE ON timeline
WHEN EXISTS (SELECT 1 FROM incident WHERE num = OLD.incident)
BEGIN SELECT RAISE(ABORT, 'the timeline is append-only'); END;
CREATE INDEX decision_by_age ON decision (last_at);
