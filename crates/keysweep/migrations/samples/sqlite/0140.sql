-- The sweep that runs has a second node, which names the same run id.

INSERT INTO lazyfree_hold (run_id, task_id, address, held_at)
SELECT '00112233445566778899aabbccddeeff00112233', id, 'replica.example:6379', 1767225610000000
FROM task WHERE status = 'running';
