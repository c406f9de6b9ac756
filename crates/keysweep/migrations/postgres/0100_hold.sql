-- Holding the stale share of an instance below a target: the policy, the lease of the worker that does it, and the servers' own
-- settings, which are recorded before the first write.

CREATE TABLE hold (
    instance_id TEXT NOT NULL PRIMARY KEY REFERENCES instance (id) ON DELETE CASCADE,
    -- observe, advise or hold, as in the policy: claims go by it.
    level TEXT NOT NULL,
    -- JSON.
    policy TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    -- Whether a server may have other settings than its own.
    changed BOOLEAN NOT NULL,
    -- The worker that holds; NULL: none.
    owner TEXT,
    epoch BIGINT NOT NULL,
    expires_at BIGINT,
    -- JSON: what the worker has reported about each server.
    status TEXT,
    reported_at BIGINT
);

CREATE TABLE hold_baseline (
    instance_id TEXT NOT NULL REFERENCES hold (instance_id) ON DELETE CASCADE,
    address TEXT NOT NULL,
    -- JSON: the server's own settings and all values that were written over them.
    record TEXT NOT NULL,
    PRIMARY KEY (instance_id, address)
);
