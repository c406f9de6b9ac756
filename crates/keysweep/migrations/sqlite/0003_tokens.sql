-- Tokens for those who sign in with a password, and the signatures of calls that must not be repeated.

CREATE TABLE token (
    -- SHA-256: what is kept here opens nothing.
    hash BLOB NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL REFERENCES project (id) ON DELETE CASCADE,
    issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL CHECK (expires_at > issued_at)
) STRICT;

CREATE INDEX token_by_account ON token (account_id);
CREATE INDEX token_by_project ON token (project_id);
CREATE INDEX token_by_end ON token (expires_at);

CREATE TABLE seen_signature (
    signature BLOB NOT NULL PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX seen_signature_by_end ON seen_signature (expires_at);
