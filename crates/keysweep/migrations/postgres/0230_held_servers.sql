-- Which instance holds which server: several instances may be names of one server, and their workers may be on several hosts.

CREATE TABLE held_server (
    -- IP address and port at which the process was reached, or the path of its unix socket.
    address TEXT NOT NULL PRIMARY KEY,
    -- The process that was there. A server names its run id itself, and may name that of another one.
    run_id TEXT NOT NULL,
    instance_id TEXT NOT NULL REFERENCES hold (instance_id) ON DELETE CASCADE
);

-- For those of one instance.
CREATE INDEX held_server_by_instance ON held_server (instance_id);
