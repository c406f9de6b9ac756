-- Tokens for those who sign in with a password, and the signatures of calls that must not be repeated.

CREATE TABLE token (
    -- SHA-256: what is kept here opens nothing.
    hash BYTEA NOT NULL PRIMARY KEY,
    account_id TEXT NOT NULL REFERENCES account (id) ON DELETE CASCADE,
    project_id TEXT NOT NULL REFERENCES project (id) ON DELETE CASCADE,
    issued_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL CHECK (expires_at > issued_at)
);

CREATE INDEX token_by_account ON token (account_id);
CREATE INDEX token_by_project ON token (project_id);
CREATE INDEX token_by_end ON token (expires_at);

CREATE TABLE seen_signature (
    signature BYTEA NOT NULL PRIMARY KEY,
    expires_at BIGINT NOT NULL
);

CREATE INDEX seen_signature_by_end ON seen_signature (expires_at);
