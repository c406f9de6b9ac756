-- Labels of instances, and how the stale keys of each are estimated in the background.

-- JSON object of strings.
ALTER TABLE instance ADD COLUMN labels TEXT NOT NULL DEFAULT '{}';
ALTER TABLE instance ADD COLUMN sampling TEXT NOT NULL DEFAULT 'replica' CHECK (sampling IN ('off', 'replica', 'primary'));
-- When the next background estimate is due, or until when a replica has claimed one; NULL: now.
ALTER TABLE instance ADD COLUMN estimate_at BIGINT;
-- When its primaries may be sampled again; NULL: now.
ALTER TABLE instance ADD COLUMN sample_at BIGINT;

-- For claims: the longest due first.
CREATE INDEX instance_by_estimate ON instance (estimate_at) WHERE sampling <> 'off';
