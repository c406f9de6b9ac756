-- An instance that was estimated, one whose estimates fail, and a scan in the history of the first.

INSERT INTO estimate (instance_id, taken_at, version, latest, failure) VALUES
    ('b0000000000000000000000000000001', 1767225900000000, 1, '{"taken_at":"2026-01-01T00:05:00Z","total":{"keys":9,"keys_with_ttl":9,"reclaimed":0},"primaries":[]}', NULL),
    ('b0000000000000000000000000000003', NULL, NULL, NULL, 'search.example:6379 refuses INFO');
INSERT INTO estimate_point (instance_id, hour, taken_at, version, primaries) VALUES
    ('b0000000000000000000000000000001', 490896, 1767225900000000, 1, '[]');
INSERT INTO mark (instance_id, happened_at, kind, detail) VALUES
    ('b0000000000000000000000000000001', 1767225760000000, 'scan', '{"task_id":"c0000000000000000000000000000001"}');
