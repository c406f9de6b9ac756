-- A survey that is done.

INSERT INTO survey (id, project_id, triggered_by, created_at, finished_at, expires_at, target_ppm, labels, instances) VALUES
    ('e0000000000000000000000000000001', '0123456789abcdef0123456789abcdef', 'ada', 1767226000000000, 1767226010000000, 1767226020000000, 100000, '{"env":"prod"}', 1);
INSERT INTO survey_row (survey_id, instance_id, version, found) VALUES
    ('e0000000000000000000000000000001', 'b0000000000000000000000000000001', 1, '[]');
