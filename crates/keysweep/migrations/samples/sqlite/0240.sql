-- An instance whose servers the last round did not find.

UPDATE hold SET failure = 'cache.example:6379 cannot be reached: connection refused'
WHERE instance_id = (SELECT MIN(instance_id) FROM hold);
