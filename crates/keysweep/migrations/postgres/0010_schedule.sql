-- What the schedule has dealt with, when a task may start, and which host it burdens.

-- The host that the task's sweep burdens; NULL: not known, so that no limit holds.
ALTER TABLE task ADD COLUMN host TEXT;
-- Outside its instance's off-peak window a task waits until then. NULL: at any time.
ALTER TABLE task ADD COLUMN not_before BIGINT;

-- The latest due time that has led to a run, or was let go; NULL: none yet.
ALTER TABLE auto_scan ADD COLUMN handled_at BIGINT;
-- When the schedule has to be looked at next, as it was at `seen_at`; NULL: now.
ALTER TABLE auto_scan ADD COLUMN look_at BIGINT;
-- `updated_at` of the settings for which `look_at` was found.
ALTER TABLE auto_scan ADD COLUMN seen_at BIGINT;

-- For claims: who sweeps what now.
CREATE INDEX task_running ON task (project_id) WHERE status = 'running';
-- For the oldest records, which make room for new ones.
CREATE INDEX task_ended ON task (instance_id, scan_type, seq) WHERE status IN ('success', 'failed');
DROP INDEX task_by_scan_type;
