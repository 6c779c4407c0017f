-- How often a task's worker was lost while it ran. Once that has happened, the task may be what its workers die of: a worker
-- runs one such task at a time, so that the next loss shows which of them it is. The index holds that for every claim.

ALTER TABLE tasks ADD COLUMN losses integer NOT NULL DEFAULT 0;

CREATE UNIQUE INDEX one_suspect_per_worker ON tasks (worker_id) WHERE status = 'running' AND losses > 0;
CREATE INDEX attempts_lost ON attempts (worker_id) WHERE ended = 'worker_lost';
