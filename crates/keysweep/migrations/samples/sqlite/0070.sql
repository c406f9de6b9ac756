-- A first time as the Terraform provider writes it.

UPDATE auto_scan SET first_scan_text = '2026-01-02T03:00:00.000z' WHERE first_scan_at IS NOT NULL;
