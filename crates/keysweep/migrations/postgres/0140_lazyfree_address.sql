-- A process is known by its address and its run id: a server names its run id itself, and may name that of another one. So a
-- task has a row for each node that names the same.

ALTER TABLE lazyfree_hold DROP CONSTRAINT lazyfree_hold_pkey;
ALTER TABLE lazyfree_hold ADD PRIMARY KEY (run_id, address, task_id);
