-- The slow poll of every instance's server: when it was last somebody's turn, so that replicas share the work, and why
-- nothing was seen then, which is not a fact about the server but about now.

ALTER TABLE instance ADD COLUMN looked_at BIGINT;
-- A sentence without secrets. NULL: it was seen, or nobody has looked yet.
ALTER TABLE instance ADD COLUMN unreachable TEXT;

CREATE INDEX instance_by_look ON instance (looked_at);
