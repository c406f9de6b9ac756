-- When a server process may be sampled again, whichever instances it is registered as. It was a column of the instance before, so
-- that two instances on one server sampled it twice.

CREATE TABLE server_sample (
    -- IP address and port at which the process was reached, or the path of its unix socket.
    address TEXT NOT NULL,
    -- A server names its run id itself, and may name that of another one.
    run_id TEXT NOT NULL,
    next_at BIGINT NOT NULL,
    -- Id of the instance that is held and took the last sample; NULL: another sample was the last.
    holder TEXT,
    PRIMARY KEY (address, run_id)
);

-- For rows that have passed.
CREATE INDEX server_sample_by_time ON server_sample (next_at);

ALTER TABLE instance DROP COLUMN sample_at;
