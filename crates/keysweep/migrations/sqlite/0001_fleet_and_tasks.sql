-- Projects, people, instances and their tasks.
--
-- Times are microseconds since the epoch (UTC). Durations carry their unit in the column's name. Booleans are 0 or 1.
-- Sealed columns hold what only the master key can open. A migration is never edited once it is released: the next one
-- changes what this one made. Each has a sample beside this folder, over which the chain is replayed by a test.

CREATE TABLE project (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

-- Not "user": that is a reserved word on PostgreSQL.
CREATE TABLE account (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- argon2, in PHC notation; NULL: access keys only.
    password_hash TEXT,
    disabled INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE role_grant (
    account_id TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL REFERENCES project (id) ON DELETE CASCADE,
    role TEXT NOT NULL CHECK (role IN ('reader', 'operator', 'admin')),
    PRIMARY KEY (account_id, project_id)
) STRICT;

CREATE INDEX role_grant_by_project ON role_grant (project_id);

CREATE TABLE access_key (
    access TEXT NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    -- Sealed.
    secret BLOB NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1)),
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX access_key_by_account ON access_key (account_id);

-- A project with instances cannot be deleted; an instance takes its tasks with it.
CREATE TABLE instance (
    id TEXT NOT NULL PRIMARY KEY,
    project_id TEXT NOT NULL REFERENCES project (id),
    name TEXT NOT NULL,
    -- Without user and password.
    url TEXT NOT NULL,
    username TEXT,
    -- Sealed, as are sentinel_password and client_key.
    password BLOB,
    sentinel_username TEXT,
    sentinel_password BLOB,
    ca_pem TEXT,
    cert_pem TEXT,
    client_key BLOB,
    server_name TEXT,
    -- JSON object from announced to reachable addresses.
    address_map TEXT,
    pace TEXT NOT NULL,
    -- Not "window": that is a reserved word on PostgreSQL.
    off_peak_window TEXT,
    window_binds_manual INTEGER NOT NULL DEFAULT 0 CHECK (window_binds_manual IN (0, 1)),
    manage_lazyfree INTEGER NOT NULL DEFAULT 0 CHECK (manage_lazyfree IN (0, 1)),
    paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
    -- What the server said of itself, as versioned JSON, and when.
    facts TEXT,
    facts_at INTEGER,
    created_at INTEGER NOT NULL,
    UNIQUE (project_id, name),
    -- For the tasks' reference, which makes a task's project that of its instance.
    UNIQUE (id, project_id),
    CHECK ((facts IS NULL) = (facts_at IS NULL))
) STRICT;

CREATE TABLE task (
    -- AUTOINCREMENT, so that a number never comes back once its task is gone: lists are ordered by it.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    project_id TEXT NOT NULL,
    instance_id TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('waiting', 'running', 'success', 'failed')),
    -- Its names are checked when they are read: there will be more of them.
    reason TEXT,
    reason_detail TEXT,
    scan_type TEXT NOT NULL CHECK (scan_type IN ('manual', 'auto')),
    requested_by TEXT,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    due_at INTEGER,
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    timeout_us INTEGER NOT NULL CHECK (timeout_us >= 0),
    used_us INTEGER NOT NULL DEFAULT 0 CHECK (used_us >= 0),
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    keys_per_second INTEGER CHECK (keys_per_second > 0),
    released INTEGER NOT NULL DEFAULT 0 CHECK (released >= 0),
    scanned INTEGER NOT NULL DEFAULT 0 CHECK (scanned >= 0),
    exact INTEGER NOT NULL DEFAULT 1 CHECK (exact IN (0, 1)),
    FOREIGN KEY (instance_id, project_id) REFERENCES instance (id, project_id) ON DELETE CASCADE,
    CHECK ((status = 'failed') = (reason IS NOT NULL)),
    CHECK (reason IS NOT NULL OR reason_detail IS NULL),
    CHECK ((status IN ('success', 'failed')) = (finished_at IS NOT NULL)),
    CHECK (status <> 'waiting' OR started_at IS NULL),
    CHECK (status NOT IN ('running', 'success') OR started_at IS NOT NULL),
    CHECK (started_at >= created_at),
    CHECK (finished_at >= COALESCE(started_at, created_at)),
    CHECK (scan_type = 'auto' OR due_at IS NULL)
) STRICT;

-- At most one active task an instance.
CREATE UNIQUE INDEX task_active ON task (instance_id) WHERE status IN ('waiting', 'running');
-- For claims: the active tasks of all instances, oldest first.
CREATE INDEX task_claimable ON task (seq) WHERE status IN ('waiting', 'running');
-- For pages, whole and filtered.
CREATE INDEX task_by_instance ON task (instance_id, seq);
CREATE INDEX task_by_status ON task (instance_id, status, seq);
CREATE INDEX task_by_scan_type ON task (instance_id, scan_type, seq);

-- Apart from the row, so that lists do not read them. JSON, whose form is that of `version`.
CREATE TABLE task_document (
    task_id TEXT NOT NULL PRIMARY KEY REFERENCES task (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    progress TEXT,
    checkpoint TEXT,
    report TEXT
) STRICT;

-- One an instance, kept after its task: the epoch grows across tasks. So task_id refers to a task that may be gone.
CREATE TABLE lease (
    instance_id TEXT NOT NULL PRIMARY KEY REFERENCES instance (id) ON DELETE CASCADE,
    task_id TEXT NOT NULL,
    -- NULL: given back.
    owner TEXT,
    epoch INTEGER NOT NULL CHECK (epoch > 0),
    expires_at INTEGER NOT NULL,
    -- Keys that the task had looked at when it was claimed: a takeover sees whether the worker before got any further.
    mark INTEGER NOT NULL CHECK (mark >= 0)
) STRICT;

CREATE TABLE auto_scan (
    instance_id TEXT NOT NULL PRIMARY KEY REFERENCES instance (id) ON DELETE CASCADE,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    first_scan_at INTEGER,
    interval_us INTEGER NOT NULL CHECK (interval_us >= 0),
    timeout_us INTEGER NOT NULL CHECK (timeout_us > 0),
    -- Keys every 5 ms.
    scan_keys_count INTEGER NOT NULL CHECK (scan_keys_count > 0),
    updated_at INTEGER NOT NULL,
    CHECK (enabled = 0 OR first_scan_at IS NOT NULL)
) STRICT;

-- Who did what. It outlives what it tells of, so it refers to nothing.
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    happened_at INTEGER NOT NULL,
    project_id TEXT,
    actor TEXT,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    -- JSON, without secrets.
    detail TEXT
) STRICT;

CREATE INDEX audit_by_project ON audit (project_id, seq);

-- A value for each master key in use, which only that key can open.
CREATE TABLE master_key_check (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    key_id TEXT NOT NULL UNIQUE,
    sealed BLOB NOT NULL
) STRICT;
