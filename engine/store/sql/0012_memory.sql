-- The memory limit of a task, as it was accepted: with it the queue knows which worker has room for the task.

ALTER TABLE tasks ADD COLUMN memory_limit_mib integer; -- null: accepted before this column was there
