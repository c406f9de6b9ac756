-- An instance with labels whose primaries may be sampled, and were.

UPDATE instance SET labels = '{"env":"prod"}', sampling = 'primary', estimate_at = 1767226200000000, sample_at = 1767226200000000
WHERE id = 'b0000000000000000000000000000001';
