-- Which sweeps count on `lazyfree-lazy-expire` being on in which server process. Written before the setting is changed, so
-- that it can be put back after a crash.

CREATE TABLE lazyfree_hold (
    -- The server process: it starts with the setting that its configuration says.
    run_id TEXT NOT NULL,
    task_id TEXT NOT NULL REFERENCES task (id) ON DELETE CASCADE,
    -- Where that process was reached.
    address TEXT NOT NULL,
    held_at BIGINT NOT NULL,
    PRIMARY KEY (run_id, task_id)
);

CREATE INDEX lazyfree_hold_by_task ON lazyfree_hold (task_id);
