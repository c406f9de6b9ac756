-- The kind of the failure that the last poll had, beside its sentence in `unreachable`; NULL where that is NULL, and where an
-- earlier version polled.
ALTER TABLE instance ADD COLUMN unreachable_code TEXT;

-- For sums over the tasks that a project has finished lately.
CREATE INDEX task_by_end ON task (project_id, finished_at);
