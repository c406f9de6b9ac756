-- The hosts that an active task's scan puts load on, a row each instead of a list in one column, so that a claim finds full
-- hosts by an index.

CREATE TABLE task_host (
    task_id TEXT NOT NULL REFERENCES task (id) ON DELETE CASCADE,
    -- The server's IP address where it is known, otherwise the name in the instance's URL. No row: no limit applies.
    host TEXT NOT NULL,
    PRIMARY KEY (task_id, host)
) STRICT;

CREATE INDEX task_host_by_host ON task_host (host);

INSERT INTO task_host (task_id, host)
SELECT DISTINCT task.id, value FROM task, json_each('["' || replace(task.host, ' ', '","') || '"]')
WHERE task.host IS NOT NULL AND task.status IN ('waiting', 'running');

ALTER TABLE task DROP COLUMN host;
