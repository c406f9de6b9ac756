-- A process is known by its address and its run id: a server names its run id itself, and may name that of another one. So a
-- task has a row for each node that names the same.

CREATE TABLE lazyfree_hold_of_address (
    -- The server process: it starts with the setting that its configuration says.
    run_id TEXT NOT NULL,
    task_id TEXT NOT NULL REFERENCES task (id) ON DELETE CASCADE,
    -- Where that process was reached.
    address TEXT NOT NULL,
    held_at INTEGER NOT NULL,
    PRIMARY KEY (run_id, address, task_id)
) STRICT;

INSERT INTO lazyfree_hold_of_address (run_id, task_id, address, held_at)
SELECT run_id, task_id, address, held_at FROM lazyfree_hold;
DROP TABLE lazyfree_hold;
ALTER TABLE lazyfree_hold_of_address RENAME TO lazyfree_hold;

CREATE INDEX lazyfree_hold_by_task ON lazyfree_hold (task_id);
