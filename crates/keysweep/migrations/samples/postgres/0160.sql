-- A server that was sampled, and one that is held.

INSERT INTO server_sample (address, run_id, next_at, holder) VALUES
    ('10.0.0.7:6379', '00112233445566778899aabbccddeeff00112233', 1767226200000000, NULL),
    ('10.0.0.8:6379', '', 1767226200000000, (SELECT MIN(id) FROM instance));
