-- An auto-scan that adapts its interval, and one scan that has measured.

UPDATE auto_scan SET target_millionths = 50000,
    gathering = '{"version":1,"task_id":"c0000000000000000000000000000001","started_at":"2026-01-02T03:00:00Z","finished_at":"2026-01-02T03:00:10Z","scan_seconds":10.0,"keys":1000,"share":0.25,"expiry_rate":null,"growth":null,"target":{"millionths":50000}}'
WHERE first_scan_at IS NOT NULL;
