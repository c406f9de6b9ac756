-- A run that waits for its window, and a schedule that has been looked at.

UPDATE task SET host = 'cache.example', not_before = 1767322800000000 WHERE id = 'c0000000000000000000000000000004';
UPDATE auto_scan SET handled_at = first_scan_at, look_at = first_scan_at + interval_us, seen_at = updated_at
WHERE first_scan_at IS NOT NULL;
