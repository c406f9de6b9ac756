-- A scan of a cluster, on two hosts.

INSERT INTO task_host (task_id, host)
SELECT id, '10.0.0.7' FROM task WHERE status = 'running' UNION ALL SELECT id, '10.0.0.8' FROM task WHERE status = 'running';
