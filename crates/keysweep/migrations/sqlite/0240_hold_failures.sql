-- Why the last round of a hold could not find or observe all servers, one sentence; NULL: it could, or no worker has reported.
ALTER TABLE hold ADD COLUMN failure TEXT;
