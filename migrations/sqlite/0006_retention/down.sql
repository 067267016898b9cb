DROP INDEX decision_by_age;
DROP TRIGGER timeline_forgets_nothing;
CREATE TRIGGER timeline_forgets_nothing BEFORE DELETE ON timeline
BEGIN SELECT RAISE(ABORT, 'the timeline is append-only'); END;
