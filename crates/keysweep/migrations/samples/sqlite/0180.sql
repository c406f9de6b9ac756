-- An instance whose certificate the last poll did not accept.

UPDATE instance SET unreachable = 'no encrypted connection to cache.example:6379: expired', unreachable_code = 'tls'
WHERE id = 'b0000000000000000000000000000001';
