-- An instance that is held, with one server whose effort was raised.

INSERT INTO hold (instance_id, level, policy, updated_at, changed, owner, epoch, expires_at, status, reported_at)
SELECT id, 'hold', '{"level":"hold","below":0.08}', created_at, 1, 'w', 3, created_at, NULL, NULL FROM instance WHERE name = 'sessions';
INSERT INTO hold_baseline (instance_id, address, record)
SELECT id, 'cache.example:6379', '{"target":"redis://cache.example:6379","address":"cache.example:6379","run_id":"r","effort":{"baseline":1,"written":[4]},"hz":{"baseline":10,"written":[]}}'
FROM instance WHERE name = 'sessions';
