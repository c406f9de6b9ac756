-- A database as the first version leaves it: one of each noun, and a task in every state. The same as SQLite's.
-- The sealed values are no real ones; nothing here opens them.

INSERT INTO project (id, name, created_at) VALUES
    ('0123456789abcdef0123456789abcdef', 'shop', 1767225600000000),
    ('6c9f1a3e-5d0b-4f27-9a64-0d5c3e9b7a12', 'search', 1767225601000000);

INSERT INTO account (id, name, password_hash, disabled, created_at) VALUES
    ('a0000000000000000000000000000001', 'ada', NULL, FALSE, 1767225602000000),
    ('a0000000000000000000000000000002', 'bob', '$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g', TRUE, 1767225603000000);

INSERT INTO role_grant (account_id, project_id, role) VALUES
    ('a0000000000000000000000000000001', '0123456789abcdef0123456789abcdef', 'admin'),
    ('a0000000000000000000000000000001', '6c9f1a3e-5d0b-4f27-9a64-0d5c3e9b7a12', 'reader'),
    ('a0000000000000000000000000000002', '0123456789abcdef0123456789abcdef', 'operator');

INSERT INTO access_key (access, account_id, secret, disabled, created_at) VALUES
    ('SAMPLESAMPLESAMPLE01', 'a0000000000000000000000000000001', '\x01a1a2a3a4a5a6a7a8', FALSE, 1767225604000000);

INSERT INTO instance (
    id, project_id, name, url, username, password, sentinel_username, sentinel_password, ca_pem, cert_pem,
    client_key, server_name, address_map, pace, off_peak_window, window_binds_manual, manage_lazyfree, paused, facts,
    facts_at, created_at
) VALUES
    ('b0000000000000000000000000000001', '0123456789abcdef0123456789abcdef', 'sessions', 'redis://cache.example:6379', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'normal', NULL, FALSE, FALSE, FALSE, NULL, NULL, 1767225605000000),
    ('b0000000000000000000000000000002', '0123456789abcdef0123456789abcdef', 'carts', 'rediss-sentinel://s1.example:26379,s2.example:26379/carts', 'sweeper', '\x01b1b2', 'watcher', '\x01c1c2', 'CA', 'CERT', '\x01d1d2', 'carts.example', '{"10.0.0.1:6379":"cache.example:7001"}', 'gentle', '02:00-05:00 Europe/Paris', TRUE, TRUE, TRUE, '{"version":1,"engine":"valkey","engine_version":"8.0.1","mode":"sentinel","keys":1200,"keys_with_ttl":1000,"used_memory":1048576,"max_memory":0,"seen_at":"2026-01-01T00:01:00Z"}', 1767225660000000, 1767225606000000),
    ('b0000000000000000000000000000003', '6c9f1a3e-5d0b-4f27-9a64-0d5c3e9b7a12', 'sessions', 'redis://search.example:6379/2', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'fast', NULL, FALSE, FALSE, FALSE, NULL, NULL, 1767225607000000);

INSERT INTO task (
    seq, id, project_id, instance_id, status, reason, reason_detail, scan_type, requested_by, created_at, started_at,
    finished_at, due_at, cancel_requested, timeout_us, used_us, attempts, keys_per_second, released, scanned, exact
) VALUES
    (1, 'c0000000000000000000000000000001', '0123456789abcdef0123456789abcdef', 'b0000000000000000000000000000001', 'success', NULL, NULL, 'manual', 'ada', 1767225700000000, 1767225700500000, 1767225760000000, NULL, FALSE, 21600000000, 59500000, 0, NULL, 250000, 1000000, TRUE),
    (2, 'c0000000000000000000000000000002', '0123456789abcdef0123456789abcdef', 'b0000000000000000000000000000001', 'failed', 'cancelled', 'cancelled before it started', 'manual', NULL, 1767225800000000, NULL, 1767225801000000, NULL, TRUE, 21600000000, 0, 0, NULL, 0, 0, TRUE),
    (3, 'c0000000000000000000000000000003', '0123456789abcdef0123456789abcdef', 'b0000000000000000000000000000001', 'running', NULL, NULL, 'auto', NULL, 1767225900000000, 1767225901000000, NULL, 1767225900000000, TRUE, 3600000000, 12000000, 2, 20000, 4000, 90000, FALSE),
    (4, 'c0000000000000000000000000000004', '0123456789abcdef0123456789abcdef', 'b0000000000000000000000000000002', 'waiting', NULL, NULL, 'manual', 'ada', 1767225902000000, NULL, NULL, NULL, FALSE, 21600000000, 0, 0, NULL, 0, 0, TRUE);
SELECT setval(pg_get_serial_sequence('task', 'seq'), (SELECT MAX(seq) FROM task));

INSERT INTO task_document (task_id, version, progress, checkpoint, report) VALUES
    ('c0000000000000000000000000000001', 1, '{"fraction":1.0}', NULL, '{"outcome":"done"}'),
    ('c0000000000000000000000000000003', 1, '{"fraction":0.1}', '{"shards":[]}', NULL);

INSERT INTO lease (instance_id, task_id, owner, epoch, expires_at, mark) VALUES
    ('b0000000000000000000000000000001', 'c0000000000000000000000000000003', 'worker-1', 7, 1767225916000000, 80000);

INSERT INTO auto_scan (
    instance_id, enabled, first_scan_at, interval_us, timeout_us, scan_keys_count, updated_at
) VALUES
    ('b0000000000000000000000000000001', TRUE, 1767225900000000, 86400000000, 3600000000, 100, 1767225650000000),
    ('b0000000000000000000000000000002', FALSE, NULL, 0, 3600000000, 10, 1767225651000000);

INSERT INTO audit (happened_at, project_id, actor, action, subject, detail) VALUES
    (1767225700000000, '0123456789abcdef0123456789abcdef', 'ada', 'task.create', 'c0000000000000000000000000000001', '{"scan_type":"manual"}'),
    (1767225601000000, NULL, NULL, 'project.add', '6c9f1a3e-5d0b-4f27-9a64-0d5c3e9b7a12', NULL);

INSERT INTO master_key_check (key_id, sealed) VALUES
    ('a1a2a3a4a5a6a7a8', '\x01a1a2a3a4a5a6a7a8');
