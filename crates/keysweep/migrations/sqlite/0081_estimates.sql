-- Estimates of stale keys: the latest of each instance, its history, and marks for what happened meanwhile.

CREATE TABLE estimate (
    instance_id TEXT NOT NULL PRIMARY KEY REFERENCES instance (id) ON DELETE CASCADE,
    -- NULL: none has succeeded yet.
    taken_at INTEGER,
    -- The form of `latest`.
    version INTEGER,
    -- JSON: what was found of each primary, with a verdict.
    latest TEXT,
    -- Why there is no newer one; NULL: the latest attempt succeeded.
    failure TEXT,
    CHECK ((taken_at IS NULL) = (latest IS NULL)),
    CHECK ((version IS NULL) = (latest IS NULL))
) STRICT;

-- One row an hour, after seven days one a day, for 90 days.
CREATE TABLE estimate_point (
    instance_id TEXT NOT NULL REFERENCES instance (id) ON DELETE CASCADE,
    -- Hours since the epoch.
    hour INTEGER NOT NULL,
    taken_at INTEGER NOT NULL,
    -- The form of `primaries`.
    version INTEGER NOT NULL,
    -- JSON: share, bytes, expiry rate and used memory of each primary.
    primaries TEXT NOT NULL,
    PRIMARY KEY (instance_id, hour)
) STRICT;

-- For retention.
CREATE INDEX estimate_point_by_hour ON estimate_point (hour);

CREATE TABLE mark (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    instance_id TEXT NOT NULL REFERENCES instance (id) ON DELETE CASCADE,
    happened_at INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('scan', 'config')),
    -- JSON, without key names and secrets.
    detail TEXT NOT NULL
) STRICT;

CREATE INDEX mark_by_instance ON mark (instance_id, seq);
CREATE INDEX mark_by_time ON mark (happened_at);
