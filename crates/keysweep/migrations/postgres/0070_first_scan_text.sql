-- The first time of an auto-scan as its client wrote it. Terraform compares texts, not times.

ALTER TABLE auto_scan ADD COLUMN first_scan_text TEXT;
