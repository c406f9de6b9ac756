-- Since when an instance is not paused any more, so that nobody is told that it missed scans meanwhile.

-- NULL: it never was paused, or is still.
ALTER TABLE instance ADD COLUMN resumed_at BIGINT;
