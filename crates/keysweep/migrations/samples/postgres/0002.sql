-- One sweep that runs, and one that has ended and whose worker has not put the setting back.

INSERT INTO lazyfree_hold (run_id, task_id, address, held_at)
SELECT '00112233445566778899aabbccddeeff00112233', id, 'cache.example:6379', 1767225610000000
FROM task WHERE status IN ('running', 'success');
