-- Surveys: what was found of the instances of a project.

CREATE TABLE survey (
    -- AUTOINCREMENT, so that the newest ones are known whatever the clock does.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    project_id TEXT NOT NULL REFERENCES project (id) ON DELETE CASCADE,
    triggered_by TEXT,
    created_at INTEGER NOT NULL,
    -- NULL: it runs, or its process has ended.
    finished_at INTEGER,
    -- Until when it counts as running without another row.
    expires_at INTEGER NOT NULL,
    -- Stale share to stay below, in millionths.
    target_ppm INTEGER NOT NULL,
    -- JSON object of strings.
    labels TEXT NOT NULL,
    instances INTEGER NOT NULL
) STRICT;

CREATE INDEX survey_by_project ON survey (project_id, seq);

-- An instance that is removed keeps its rows, so they refer to none.
CREATE TABLE survey_row (
    survey_id TEXT NOT NULL REFERENCES survey (id) ON DELETE CASCADE,
    instance_id TEXT NOT NULL,
    -- The form of `found`.
    version INTEGER NOT NULL,
    -- JSON: a row for each primary.
    found TEXT NOT NULL,
    PRIMARY KEY (survey_id, instance_id)
) STRICT;
