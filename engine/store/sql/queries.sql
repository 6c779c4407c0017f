-- Every statement that the engine sends, by name. The line under a name says what it is for.

-- name: insert_task
-- Remember a task before anybody is told of it. $4 is the parameters' JSON text. No row: its tenant has another task
-- under its idempotency key.
INSERT INTO tasks (task_id, task_type, policy, parameters, timeout_s, labels, script_name, max_attempts, file_ids,
    memory_mib, tenant, priority, callback_url, idempotency_key, request_sha256, traceparent,
    concurrent_limit)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
ON CONFLICT (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING created_at

-- name: insert_tasks
-- The same for many: each argument is an array. Uploaded files ($9) are given as one text for each task, with commas.
INSERT INTO tasks (task_id, task_type, policy, parameters, timeout_s, labels, script_name, max_attempts, file_ids,
    memory_mib, tenant, priority, callback_url, idempotency_key, request_sha256, traceparent,
    concurrent_limit)
SELECT task_id, task_type, policy, parameters, timeout_s, labels::jsonb, script_name, max_attempts,
    string_to_array(file_ids, ','), memory_mib, tenant, priority::task_priority, callback_url, idempotency_key,
    request_sha256, traceparent, concurrent_limit
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::float8[], $6::text[], $7::text[], $8::int[],
    $9::text[], $10::int[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bytea[], $16::text[], $17::int[])
    AS new (task_id, task_type, policy, parameters, timeout_s, labels, script_name, max_attempts, file_ids, memory_mib,
        tenant, priority, callback_url, idempotency_key, request_sha256, traceparent, concurrent_limit)
ON CONFLICT (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING task_id, created_at

-- name: get_task_by_key
-- The task that tenant $1 has under an idempotency key, and the hash of the request that it was made by.
SELECT task_id, request_sha256 FROM tasks WHERE tenant = $1 AND idempotency_key = $2

-- name: list_tasks
-- The newest $9 tasks of tenant $1 that were made before ($7, $8), if that is given, and are as the other arguments say
-- (null: whatever they are).
SELECT task_id, task_type, status, exit_reason, policy, priority, labels, attempts, created_at, started_at, finished_at
FROM tasks
WHERE tenant = $1 AND ($2::text[] IS NULL OR status = ANY($2::text[]::task_status[]))
    AND ($3::text IS NULL OR task_type = $3)
    AND ($4::text[] IS NULL OR exit_reason = ANY($4::text[]::exit_reason[]))
    AND labels @> $5::jsonb
    AND ($6::timestamptz IS NULL OR created_at >= $6) AND ($10::timestamptz IS NULL OR created_at < $10)
    AND ($7::timestamptz IS NULL OR (created_at, task_id) < ($7, $8))
ORDER BY created_at DESC, task_id DESC LIMIT $9

-- name: get_task
-- One task of tenant $2 as clients see it, without its parameters.
SELECT task_id, tenant, task_type, status, policy, priority, labels, tasks.attempts, tasks.created_at, started_at,
    finished_at, outcome, callback_url, callbacks.state AS callback_state, callbacks.attempts AS callback_attempts,
    callbacks.due_at AS callback_due_at, callbacks.ended_at AS callback_ended_at, last_status, last_error
FROM tasks LEFT JOIN callbacks USING (task_id) WHERE task_id = $1 AND tenant = $2

-- name: claim_task
-- Take the lease of a queued task for worker $2, for $3 seconds. No row: somebody else has it, it is done, or its tenant
-- has a limit.
UPDATE tasks
SET status = 'running', attempts = attempts + 1, worker_id = $2, lease_until = now() + make_interval(secs => $3),
    started_at = now()
WHERE task_id = $1 AND status = 'queued' AND concurrent_limit IS NULL
RETURNING attempts, tenant, priority, task_type, policy, parameters, timeout_s, script_name, file_ids, memory_mib,
    traceparent, callback_url, concurrent_limit,
    extract(epoch FROM now() - greatest(created_at, due_at))::float8 AS queue_s,
    extract(epoch FROM now() - created_at)::float8 AS age_s

-- name: claim_limited_task
-- The same for a task whose tenant has a limit. False: it is held until another of the tenant's ends; null: it is not
-- there to be taken.
SELECT claim_limited($1, $2, $3) AS claimed, (SELECT tenant FROM tasks WHERE task_id = $1) AS tenant

-- name: get_claim
-- What worker $2 has just claimed.
SELECT attempts, tenant, priority, task_type, policy, parameters, timeout_s, script_name, file_ids, memory_mib,
    traceparent, callback_url, concurrent_limit,
    extract(epoch FROM now() - greatest(created_at, due_at))::float8 AS queue_s,
    extract(epoch FROM now() - created_at)::float8 AS age_s
FROM tasks WHERE task_id = $1 AND worker_id = $2 AND status = 'running'

-- name: let_go
-- Let tasks back into the line that were held, as many of each tenant (of $1 only, if that is given) as may now run.
SELECT task_id, tenant, priority FROM let_go($1)

-- name: replayed
-- How many of the idempotency keys $2 tenant $1 has used before.
SELECT count(*) FROM tasks WHERE tenant = $1 AND idempotency_key = ANY($2::text[])

-- name: admit
-- Whether tenant $1 may have $4 more tasks accepted. A row: it may not, and why, and how long to wait.
SELECT reason, retry_after_s FROM admit($1, $2, $3, $4)

-- name: pace
-- For how long a task has kept a slot, of late (null: none ended in the last $1 seconds), and how many slots there are,
-- of workers that were heard of in the last $2 seconds.
SELECT (
    SELECT avg(extract(epoch FROM finished_at - started_at))::float8 FROM (
        SELECT finished_at, started_at FROM tasks
        WHERE finished_at > now() - make_interval(secs => $1) ORDER BY finished_at DESC LIMIT 200
    ) AS ended WHERE started_at IS NOT NULL
) AS slot_s, (
    SELECT coalesce(sum((state ->> 'slots')::int), 0) FROM workers
    WHERE seen_at > now() - make_interval(secs => $2) AND state ->> 'state' = 'working'
) AS slots

-- name: renew_leases
-- Renew the leases of worker $1 on the tasks $2 for $3 seconds. A task that does not come back is no longer its own;
-- one that comes back with cancel_asked is to be stopped.
UPDATE tasks SET lease_until = now() + make_interval(secs => $3)
WHERE task_id = ANY($2::uuid[]) AND status = 'running' AND worker_id = $1
RETURNING task_id, cancel_asked_at IS NOT NULL AS cancel_asked

-- name: cancel_task
-- Cancel task $1 of tenant $2: with the outcome $3 while it is queued, else by asking its worker. No row: it is final,
-- or is not there.
UPDATE tasks
SET cancel_asked_at = coalesce(cancel_asked_at, now()), held_at = NULL,
    status = CASE WHEN status = 'queued' THEN 'cancelled' ELSE status END,
    exit_reason = CASE WHEN status = 'queued' THEN 'cancelled' ELSE exit_reason END,
    finished_at = CASE WHEN status = 'queued' THEN now() ELSE finished_at END,
    outcome = CASE WHEN status = 'queued' THEN $3::bytea ELSE outcome END
WHERE task_id = $1 AND tenant = $2 AND status IN ('queued', 'running')
RETURNING status, task_type, policy

-- name: finish_task
-- Store how attempt $2 of worker $3 ended, with the names ($7), hashes ($8) and contents ($9) of its artifacts.
-- No row: the lease was lost meanwhile and the result is not wanted.
WITH done AS (
    UPDATE tasks
    SET status = $4, exit_reason = $5, outcome = $6, finished_at = now(), worker_id = NULL, lease_until = NULL
    WHERE task_id = $1 AND attempts = $2 AND worker_id = $3 AND status = 'running'
    RETURNING task_id, started_at
), kept AS (
    INSERT INTO artifacts (task_id, name, sha256, content, size_bytes)
    SELECT task_id, name, sha256, content, octet_length(content)
    FROM done, unnest($7::text[], $8::text[], $9::bytea[]) AS artifact (name, sha256, content)
)
INSERT INTO attempts (task_id, attempt, worker_id, started_at, ended, exit_reason)
SELECT task_id, $2, $3, started_at, 'finished', $5 FROM done
RETURNING task_id

-- name: give_back_task
-- End attempt $2 of worker $3 without a result and queue the task again, due in $4 seconds, with $5 more attempts
-- allowed (1 when the attempt is not to be counted). $6 is how it ended, $7 why. A task that was to be cancelled ends
-- with the outcome $8 instead.
WITH given AS (
    UPDATE tasks
    SET worker_id = NULL, lease_until = NULL, max_attempts = max_attempts + $5,
        due_at = now() + make_interval(secs => $4),
        status = (CASE WHEN cancel_asked_at IS NULL THEN 'queued' ELSE 'cancelled' END)::task_status,
        exit_reason = (CASE WHEN cancel_asked_at IS NOT NULL THEN 'cancelled' END)::exit_reason,
        finished_at = CASE WHEN cancel_asked_at IS NOT NULL THEN now() END,
        outcome = CASE WHEN cancel_asked_at IS NOT NULL THEN $8::bytea END
    WHERE task_id = $1 AND attempts = $2 AND worker_id = $3 AND status = 'running'
        AND (attempts < max_attempts + $5 OR cancel_asked_at IS NOT NULL)
    RETURNING task_id, started_at, status
), noted AS (
    INSERT INTO attempts (task_id, attempt, worker_id, started_at, ended, message)
    SELECT task_id, $2, $3, started_at, $6, $7 FROM given
)
SELECT status FROM given

-- name: clock
-- What time it is here.
SELECT now()

-- name: sweep_lost_tasks
-- Tasks whose lease had run out at $2: queued again while attempts are left, else failed with the outcome $1. Those that
-- were to be cancelled are, with the outcome $3.
WITH lost AS (
    SELECT task_id, attempts, worker_id, started_at FROM tasks
    WHERE status = 'running' AND lease_until < $2
    ORDER BY lease_until LIMIT 500 FOR UPDATE SKIP LOCKED
), noted AS (
    INSERT INTO attempts (task_id, attempt, worker_id, started_at, ended, message)
    SELECT task_id, attempts, worker_id, started_at, 'worker_lost', 'the lease ran out' FROM lost
)
UPDATE tasks
SET worker_id = NULL, lease_until = NULL, due_at = now(),
    status = (CASE WHEN cancel_asked_at IS NOT NULL THEN 'cancelled' WHEN tasks.attempts < max_attempts THEN 'queued'
        ELSE 'failed' END)::task_status,
    exit_reason = (CASE WHEN cancel_asked_at IS NOT NULL THEN 'cancelled' WHEN tasks.attempts < max_attempts THEN NULL
        ELSE 'worker_lost' END)::exit_reason,
    finished_at = CASE WHEN cancel_asked_at IS NULL AND tasks.attempts < max_attempts THEN NULL ELSE now() END,
    outcome = CASE WHEN cancel_asked_at IS NOT NULL THEN $3::bytea WHEN tasks.attempts < max_attempts THEN NULL
        ELSE $1::bytea END
FROM lost WHERE tasks.task_id = lost.task_id
RETURNING tasks.task_id, tasks.status, tasks.task_type, tasks.policy, tasks.tenant, tasks.priority

-- name: overdue_tasks
-- The $2 oldest tasks after ($3, $4) that have been waiting for more than $1 seconds: Redis may have lost them.
SELECT task_id, tenant, priority, due_at FROM tasks
WHERE status = 'queued' AND held_at IS NULL AND due_at < now() - make_interval(secs => $1) AND (due_at, task_id) > ($3, $4)
ORDER BY due_at, task_id LIMIT $2

-- name: delete_old_tasks
-- Delete up to $2 tasks that ended more than $1 seconds ago and owe no callback.
DELETE FROM tasks WHERE task_id IN (
    SELECT task_id FROM tasks WHERE finished_at < now() - make_interval(secs => $1)
    AND NOT EXISTS (SELECT FROM callbacks WHERE callbacks.task_id = tasks.task_id AND state = 'due')
    LIMIT $2 FOR UPDATE SKIP LOCKED
)

-- name: insert_file
-- Keep an uploaded file of tenant $8 for $7 seconds.
INSERT INTO files (file_id, name, media_type, size_bytes, sha256, content, expires_at, tenant)
VALUES ($1, $2, $3, $4, $5, $6, now() + make_interval(secs => $7), $8)
RETURNING expires_at

-- name: known_files
-- Which of the files $1 tenant $2 has.
SELECT file_id FROM files WHERE file_id = ANY($1::text[]) AND tenant = $2 AND expires_at > now()

-- name: read_files
-- The files $1 of tenant $2, as far as they are still there. One that a task waits for is kept beyond its time.
SELECT file_id, content FROM files WHERE file_id = ANY($1::text[]) AND tenant = $2

-- name: delete_old_files
-- Delete up to $1 files whose time is over and for which no task waits.
DELETE FROM files WHERE file_id IN (
    SELECT file_id FROM files WHERE expires_at < now()
    AND NOT EXISTS (SELECT FROM tasks WHERE status IN ('queued', 'running') AND file_id = ANY(file_ids))
    LIMIT $1 FOR UPDATE OF files SKIP LOCKED
)

-- name: get_artifact
-- One artifact of a task of tenant $3, without its content.
SELECT name, size_bytes, sha256 FROM artifacts JOIN tasks USING (task_id)
WHERE task_id = $1 AND name = $2 AND tenant = $3

-- name: get_artifact_part
-- $5 bytes of an artifact of a task of tenant $3, from byte $4 on (1 is the first). It is stored uncompressed, so that
-- only the part is read.
SELECT substring(content FROM $4 FOR $5) FROM artifacts JOIN tasks USING (task_id)
WHERE task_id = $1 AND name = $2 AND tenant = $3

-- name: take_callbacks
-- Up to $3 callbacks that are due to URLs that begin with $1, for $2 seconds: nobody else tries them meanwhile.
WITH taken AS (
    UPDATE callbacks SET attempts = attempts + 1, due_at = now() + make_interval(secs => $2)
    WHERE task_id IN (
        SELECT task_id FROM callbacks WHERE state = 'due' AND due_at <= now() AND starts_with(url, $1)
        ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED
    )
    RETURNING task_id, url, attempts, created_at
)
SELECT task_id, tenant, task_type, status, policy, priority, labels, tasks.attempts, tasks.created_at, started_at,
    finished_at, outcome, callback_url, taken.url, taken.attempts AS callback_attempts,
    extract(epoch FROM now() - taken.created_at)::float8 AS age_s
FROM taken JOIN tasks USING (task_id)

-- name: retry_callback
-- Attempt $2 of the callback of task $1 failed with status $4 and for the reason $5: due again in $3 seconds.
UPDATE callbacks SET due_at = now() + make_interval(secs => $3), last_status = $4, last_error = $5
WHERE task_id = $1 AND attempts = $2 AND state = 'due'

-- name: end_callback
-- Attempt $2 of the callback of task $1 ended it in state $3, with status $4 and the reason $5.
UPDATE callbacks SET state = $3, ended_at = now(), last_status = $4, last_error = $5
WHERE task_id = $1 AND attempts = $2 AND state = 'due'

-- name: bury_callbacks
-- Give up what is owed to URLs that begin with none of $1, and was owed for a minute.
UPDATE callbacks SET state = 'dead', ended_at = now(), last_error = 'the URL is not allowed any more'
WHERE state = 'due' AND created_at < now() - interval '60 s'
AND NOT EXISTS (SELECT FROM unnest($1::text[]) AS origin WHERE starts_with(url, origin))

-- name: list_callbacks
-- The newest $3 callbacks of tenant $1 in state $2.
SELECT task_id, url, callbacks.state, callbacks.attempts, callbacks.due_at, callbacks.ended_at, last_status, last_error
FROM callbacks JOIN tasks USING (task_id) WHERE tenant = $1 AND callbacks.state = $2
ORDER BY callbacks.created_at DESC LIMIT $3

-- name: redeliver_callback
-- Owe the callback of task $1 of tenant $2 once more. No row: there is none, or its task is not final.
UPDATE callbacks SET state = 'due', due_at = now(), created_at = now(), ended_at = NULL
FROM tasks WHERE tasks.task_id = callbacks.task_id AND callbacks.task_id = $1 AND tenant = $2
RETURNING url, callbacks.state, callbacks.attempts, callbacks.due_at, callbacks.ended_at, last_status, last_error

-- name: beat
-- Worker $1 is alive and in state $2.
INSERT INTO workers (worker_id, state) VALUES ($1, $2)
ON CONFLICT (worker_id) DO UPDATE SET seen_at = now(), state = excluded.state

-- name: forget_worker
-- Worker $1 has stopped.
DELETE FROM workers WHERE worker_id = $1

-- name: forget_lost_workers
-- Workers that have been silent for more than $1 seconds.
DELETE FROM workers WHERE seen_at < now() - make_interval(secs => $1)

-- name: heartbeats
-- What the workers heard of in the last $1 seconds said last, and how long ago.
SELECT worker_id, state, extract(epoch FROM now() - seen_at)::float8 AS age_s FROM workers WHERE seen_at > now() - make_interval(secs => $1) ORDER BY started_at

-- name: queue_depth
-- How many tasks wait, how long the oldest of those that are not held has been waiting, and how many run.
SELECT (SELECT count(*) FROM tasks WHERE status = 'queued') AS queued, (
        SELECT extract(epoch FROM now() - min(due_at)) FROM tasks WHERE status = 'queued' AND held_at IS NULL
    )::float8 AS oldest_wait_s,
    (SELECT count(*) FROM tasks WHERE status = 'running') AS running
