-- The server of an instance that is held.

INSERT INTO held_server (address, run_id, instance_id)
SELECT '10.0.0.7:6379', '00112233445566778899aabbccddeeff00112233', instance_id FROM hold
WHERE instance_id = (SELECT MIN(instance_id) FROM hold);
