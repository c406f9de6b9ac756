-- A server that was away at the last look.

UPDATE instance SET looked_at = 1767225660000000, unreachable = 'cannot connect to cache.example:6379: connection refused'
WHERE facts IS NULL;
