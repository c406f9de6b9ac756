-- Auto-scans whose interval adapts to a target: the mean share of stale keys that scans keep.

-- In millionths; NULL: the interval is fixed.
ALTER TABLE auto_scan ADD COLUMN target_millionths BIGINT CHECK (target_millionths > 0 AND target_millionths < 1000000);
-- What scans have measured about how stale keys gather, as versioned JSON; NULL: nothing yet.
ALTER TABLE auto_scan ADD COLUMN gathering TEXT;
