-- One that was paused for a while.

UPDATE instance SET resumed_at = 1767225600000000 WHERE NOT paused;
