-- Every statement that the engine sends, by name. The line under a name says what it does.
--
-- :name     a parameter
-- {Name}    the columns of a Struct, or the text of a fragment; {table.Name}: the same columns of one table
-- {:Name}   the columns of a Struct as parameters

--
-- A statement about one task says `(status = …) IS TRUE`: that keeps PostgreSQL from the partial indexes of a status. While
-- its statistics are old, it believes that nearly no task has the status, and would rather read all that have than look
-- one up by its id (tests/service/test_plans.py).

-- fragment: CallbackState
-- The outbox's row of a task; all null while its task is not final.
callbacks.state AS callback_state, callbacks.attempts AS callback_attempts, callbacks.due_at AS callback_due_at,
    callbacks.ended_at AS callback_ended_at, callbacks.last_status, callbacks.last_error

-- fragment: LastSign
-- When a worker was last heard of, or was last seen to be there without saying anything.
greatest(seen_at, to_timestamp((state ->> 'stuck_at')::float8))

-- fragment: ClaimedTask
-- What a worker needs to know of the task that it has claimed, with the seconds that it waited and its age.
{tasks.Claim}, tasks.attempts AS attempt,
    greatest(0, extract(epoch FROM now() - greatest(tasks.created_at, tasks.due_at)))::float8 AS queue_s,
    greatest(0, extract(epoch FROM now() - tasks.created_at))::float8 AS age_s

-- fragment: OnPage
-- What a page of a list may hold: tasks that were made between two times, and before the last one of the page before.
-- An argument that is null leaves none out.
created_at >= coalesce(:created_after::timestamptz, '-infinity') AND created_at < coalesce(:created_before, 'infinity'::timestamptz)
    AND (created_at, task_id) < (
        coalesce(:before_time, 'infinity'::timestamptz), coalesce(:before_id, 'ffffffff-ffff-ffff-ffff-ffffffffffff'::uuid)
    )

-- fragment: InState
-- Of one of these types, and in one of these unfinished states or ended for one of these reasons.
task_type = ANY(:task_types::text[])
    AND (status = ANY(:unfinished::text[]::task_status[]) OR exit_reason = ANY(:exit_reasons::text[]::exit_reason[]))

-- fragment: Walked
-- Tasks of some tenants, the newest first, as far as they are walked through for a page.
{tasks.AuditedTask} FROM tasks WHERE tenant = whose AND {OnPage}

-- fragment: PageOfWalked
-- Those that a page shows of the tasks that were walked through, beside where the walk ended and how many it passed.
SELECT found.*, walk.walked, walk.end_time, walk.end_id, (
    SELECT policy_digest FROM attempts WHERE attempts.task_id = found.task_id AND policy_digest IS NOT NULL
    ORDER BY attempt DESC LIMIT 1
) AS policy_digest, ARRAY(
    SELECT denied FROM denials WHERE denials.task_id = found.task_id ORDER BY attempt
) AS denied
FROM (
    SELECT count(*) OVER () AS walked, created_at AS end_time, task_id AS end_id
    FROM walked ORDER BY created_at, task_id LIMIT 1
) AS walk LEFT JOIN (
    SELECT * FROM walked WHERE {InState} AND labels @> :labels::jsonb AND (:policy::text IS NULL OR policy = :policy)
        AND (NOT :only_denied OR EXISTS (SELECT FROM denials WHERE denials.task_id = walked.task_id))
    ORDER BY created_at DESC, task_id DESC LIMIT :limit
) AS found ON true
ORDER BY found.created_at DESC, found.task_id DESC

-- name: insert_task
-- Store a new task before anybody learns of it. No row: its tenant has another task under its idempotency key.
INSERT INTO tasks ({NewTask}) VALUES ({:NewTask})
ON CONFLICT (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
RETURNING task_id, created_at

-- name: get_task_by_key
-- The task that a tenant has under an idempotency key, and the hash of the request that made it.
SELECT task_id, request_sha256 FROM tasks WHERE tenant = :tenant AND idempotency_key = :idempotency_key

-- name: list_newest_tasks
-- A tenant's newest tasks.
SELECT {tasks.ListedTask} FROM tasks WHERE tenant = :tenant AND {OnPage}
ORDER BY created_at DESC, task_id DESC LIMIT :limit

-- name: list_chosen_tasks
-- A tenant's newest tasks of these types that are in one of these unfinished states, or that ended for one of these
-- reasons. Each combination of type and state is a walk along an index that stops when a page is full. A
-- condition on all of them at once would read every task that the page does not show.
WITH chosen AS (
    SELECT found.created_at, found.task_id FROM unnest(:task_types::text[]) AS type, unnest(:unfinished::text[]) AS state, LATERAL (
        SELECT created_at, task_id FROM tasks
        WHERE tenant = :tenant AND task_type = type AND status = state::task_status
            AND status IN ('queued', 'running') AND {OnPage}
        ORDER BY created_at DESC, task_id DESC LIMIT :limit
    ) AS found
    UNION ALL
    SELECT found.created_at, found.task_id FROM unnest(:task_types::text[]) AS type, unnest(:exit_reasons::text[]) AS reason, LATERAL (
        SELECT created_at, task_id FROM tasks
        WHERE tenant = :tenant AND task_type = type AND exit_reason = reason::exit_reason AND {OnPage}
        ORDER BY created_at DESC, task_id DESC LIMIT :limit
    ) AS found
), page AS (
    SELECT task_id FROM chosen ORDER BY created_at DESC, task_id DESC LIMIT :limit
)
SELECT {tasks.ListedTask} FROM page JOIN tasks USING (task_id) ORDER BY created_at DESC, task_id DESC

-- name: list_labelled_tasks
-- The same of those with these labels, as far as they are among the newest tasks that a page may hold. Where labels are
-- frequent, that fills a page.
SELECT {tasks.ListedTask} FROM (
    SELECT * FROM tasks WHERE tenant = :tenant AND {OnPage} ORDER BY created_at DESC, task_id DESC LIMIT :newest
) AS tasks
WHERE labels @> :labels::jsonb AND {InState} ORDER BY created_at DESC, task_id DESC LIMIT :limit

-- name: list_rarely_labelled_tasks
-- The same by the index of labels, which finds all tasks that have them, those of other tenants too: for labels that the
-- newest tasks hardly have.
WITH labelled AS MATERIALIZED (
    SELECT {tasks.ListedTask}, tenant FROM tasks WHERE labels @> :labels::jsonb
)
SELECT {ListedTask} FROM labelled AS tasks
WHERE tenant = :tenant AND {OnPage} AND {InState} ORDER BY created_at DESC, task_id DESC LIMIT :limit

-- name: list_tasks_by_id
-- The same of those whose ids lie between two. The index of ids finds them, so that only ids that begin alike are read.
WITH alike AS MATERIALIZED (
    SELECT {tasks.AuditedTask} FROM tasks WHERE task_id BETWEEN :lowest_id AND :highest_id
)
SELECT {ListedTask} FROM alike AS tasks
WHERE tenant = :tenant AND labels @> :labels::jsonb AND {OnPage} AND {InState}
    AND (:key_id::text IS NULL OR key_id = :key_id)
    AND (:lowest::text IS NULL OR source_sha256 COLLATE "C" BETWEEN :lowest AND :highest)
ORDER BY created_at DESC, task_id DESC LIMIT :limit

-- name: walk_tasks
-- Who submitted which tasks of these tenants, the newest first: those of the next that the filter lets through.
WITH walked AS MATERIALIZED (
    SELECT found.* FROM unnest(:tenants::text[]) AS whose, LATERAL (
        SELECT {Walked} ORDER BY created_at DESC, task_id DESC LIMIT :walked
    ) AS found ORDER BY created_at DESC, task_id DESC LIMIT :walked
)
{PageOfWalked}

-- name: walk_tasks_of_key
-- The same of those that a key submitted.
WITH walked AS MATERIALIZED (
    SELECT found.* FROM unnest(:tenants::text[]) AS whose, LATERAL (
        SELECT {Walked} AND key_id = :key_id ORDER BY created_at DESC, task_id DESC LIMIT :walked
    ) AS found ORDER BY created_at DESC, task_id DESC LIMIT :walked
)
{PageOfWalked}

-- name: walk_tasks_of_source
-- The same of those with one of these sources (and of one key, if it is given).
WITH walked AS MATERIALIZED (
    SELECT found.* FROM unnest(:tenants::text[]) AS whose, unnest(:sources::text[]) AS source, LATERAL (
        SELECT {Walked} AND source_sha256 COLLATE "C" = source AND (:key_id::text IS NULL OR key_id = :key_id)
        ORDER BY created_at DESC, task_id DESC LIMIT :walked
    ) AS found ORDER BY created_at DESC, task_id DESC LIMIT :walked
)
{PageOfWalked}

-- name: find_sources
-- The first hashes of these tenants' sources that lie between two, each found by a step along the index.
WITH RECURSIVE step (whose, source, number) AS (
    SELECT whose, (
        SELECT min(source_sha256 COLLATE "C") FROM tasks WHERE tenant = whose AND source_sha256 COLLATE "C" >= :lowest
            AND source_sha256 COLLATE "C" <= :highest
    ), 1 FROM unnest(:tenants::text[]) AS whose
    UNION ALL
    SELECT whose, (
        SELECT min(source_sha256 COLLATE "C") FROM tasks WHERE tenant = whose AND source_sha256 COLLATE "C" > step.source
            AND source_sha256 COLLATE "C" <= :highest
    ), number + 1 FROM step WHERE source IS NOT NULL AND number < :limit
)
SELECT DISTINCT source FROM step WHERE source IS NOT NULL

-- name: get_task
-- One task as its clients see it, without its parameters.
SELECT {tasks.StoredTask}, tasks.outcome, tasks.callback_url, {CallbackState}
FROM tasks LEFT JOIN callbacks USING (task_id) WHERE task_id = :task_id AND tenant = :tenant

-- name: get_submission
-- Who submitted a tenant's task, and the digests of what was submitted; null for a file that has been deleted since.
SELECT key_id, request_id, source_sha256, parameters_sha256, file_ids, ARRAY(
    SELECT files.sha256 FROM unnest(tasks.file_ids) WITH ORDINALITY AS named (file_id, place)
    LEFT JOIN files ON files.file_id = named.file_id AND files.tenant = tasks.tenant ORDER BY place
) AS file_hashes
FROM tasks WHERE task_id = :task_id AND tenant = :tenant

-- name: get_request
-- What was submitted as a tenant's task, and by whom.
SELECT {tasks.SubmittedTask} FROM tasks WHERE task_id = :task_id AND tenant = :tenant

-- name: get_submitter
-- Who submitted a tenant's task, and the digests of what was submitted.
SELECT {tasks.Submitter} FROM tasks WHERE task_id = :task_id AND tenant = :tenant

-- name: list_attempts
-- The attempts at a tenant's task that have ended, the first one first, with what each was denied.
SELECT {attempts.AttemptFacts}, (
    SELECT denied FROM denials WHERE denials.task_id = attempts.task_id AND denials.attempt = attempts.attempt
) AS denied
FROM attempts JOIN tasks USING (task_id) WHERE task_id = :task_id AND tenant = :tenant ORDER BY attempt

-- name: list_denials
-- What runs under a policy were denied lately, of these tenants, the last one first.
SELECT found.* FROM unnest(:tenants::text[]) AS whose, LATERAL (
    SELECT task_id, attempt, tenant, denied_at, denied FROM denials WHERE policy = :policy AND tenant = whose
    ORDER BY denied_at DESC LIMIT :limit
) AS found ORDER BY denied_at DESC LIMIT :limit

-- name: keep_policy_files
-- Keep the policy files of an API that are not kept yet.
INSERT INTO policy_files (digest, name, content)
SELECT * FROM unnest(:digests::text[], :names::text[], :contents::text[]) ON CONFLICT DO NOTHING

-- name: get_policy_file
-- The text of a policy's file that an API had in force.
SELECT content FROM policy_files WHERE digest = :digest AND name = :name

-- name: list_tenants
-- The tenants that have something stored, or had, the first ones by name.
SELECT DISTINCT tenant FROM stored_bytes ORDER BY tenant LIMIT :limit

-- name: count_by_tenant
-- What these tenants have that waits, runs and lies in the store, and how many of their callbacks were given up.
SELECT tenant, coalesce(queued, 0) AS queued, coalesce(held, 0) AS held, coalesce(running, 0) AS running,
    coalesce(oldest_wait_s, 0)::float8 AS oldest_wait_s, coalesce(bytes, 0)::bigint AS stored_bytes,
    coalesce(dead, 0) AS dead_callbacks
FROM unnest(:tenants::text[]) AS asked (tenant)
LEFT JOIN (
    SELECT tenant, count(*) FILTER (WHERE status = 'queued') AS queued, count(held_at) AS held,
        count(*) FILTER (WHERE status = 'running') AS running,
        greatest(0, extract(epoch FROM now() - min(due_at) FILTER (WHERE status = 'queued' AND held_at IS NULL))) AS oldest_wait_s
    FROM tasks WHERE status IN ('queued', 'running') GROUP BY tenant
) AS unfinished USING (tenant)
LEFT JOIN (SELECT tenant, sum(bytes) AS bytes FROM stored_bytes GROUP BY tenant) AS stored USING (tenant)
LEFT JOIN (
    SELECT tenant, count(*) AS dead FROM callbacks JOIN tasks USING (task_id) WHERE state = 'dead' GROUP BY tenant
) AS callbacks USING (tenant)
ORDER BY tenant

-- name: count_ended
-- How tasks ended between two times, by the minute, of each tenant and (null) of all: how many, and the median and 95th
-- percentile of their times in seconds, from being accepted to the end, and to the start.
SELECT date_trunc('minute', finished_at, 'UTC') AS minute, tenant, count(*) AS ended,
    count(*) FILTER (WHERE status = 'failed') AS failed, count(*) FILTER (WHERE status = 'cancelled') AS cancelled,
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM finished_at - created_at)::float8) AS took_s,
    percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (
        ORDER BY extract(epoch FROM coalesce(started_at, finished_at) - created_at)::float8
    ) AS waited_s
FROM tasks WHERE finished_at >= :since AND finished_at < :until GROUP BY GROUPING SETS ((1), (1, 2))

-- name: claim_task
-- Take the lease of a queued task for a worker, for some seconds. No row: another worker has it, it is final, or its
-- tenant has a limit of running tasks.
UPDATE tasks
SET status = 'running', attempts = attempts + 1, worker_id = :worker_id, started_at = now(),
    lease_until = now() + make_interval(secs => :lease_s)
WHERE task_id = :task_id AND (status = 'queued') IS TRUE AND concurrent_limit IS NULL
RETURNING {ClaimedTask}

-- name: claim_limited_task
-- The same for a task whose tenant has a limit. False: it is held until another of the tenant's tasks ends; null: it
-- cannot be claimed.
SELECT claim_limited(:task_id, :worker_id, :lease_s) AS claimed,
    (SELECT tenant FROM tasks WHERE task_id = :task_id) AS tenant

-- name: get_claim
-- What a worker has just claimed.
SELECT {ClaimedTask} FROM tasks WHERE task_id = :task_id AND worker_id = :worker_id AND (status = 'running') IS TRUE

-- name: release_held
-- Queue held tasks again: of each tenant (of one tenant only, if it is given) as many as may now run.
SELECT task_id, freed.tenant, freed.priority, memory_limit_mib FROM let_go(:tenant) AS freed JOIN tasks USING (task_id)

-- name: count_replayed
-- How many of these idempotency keys a tenant has used before.
SELECT count(*) FROM tasks WHERE tenant = :tenant AND idempotency_key = ANY(:idempotency_keys::text[])

-- name: admit
-- Whether a tenant may have more tasks accepted. A row: it may not, with the reason and how long to wait.
SELECT reason, retry_after_s FROM admit(:tenant, :tasks_per_minute, :queued_tasks, :more, :most_bytes, :more_bytes)

-- name: get_throughput
-- How long a task has kept a slot lately (null: no task ended recently), and how many slots the live workers have.
SELECT (
    SELECT avg(extract(epoch FROM finished_at - started_at))::float8 FROM (
        SELECT finished_at, started_at FROM tasks
        WHERE finished_at > now() - make_interval(secs => :within_s) ORDER BY finished_at DESC LIMIT 200
    ) AS ended WHERE started_at IS NOT NULL
) AS slot_s, (
    SELECT coalesce(sum((state ->> 'slots')::int), 0) FROM workers
    WHERE seen_at > now() - make_interval(secs => :alive_within_s) AND state ->> 'state' = 'working'
) AS slots

-- name: renew_leases
-- Renew a worker's leases on some tasks, and on those that it claimed within the last seconds. A task that does not come
-- back is no longer its own; one that comes back with cancel_asked is to be stopped.
UPDATE tasks SET lease_until = now() + make_interval(secs => :lease_s)
WHERE status = 'running' AND worker_id = :worker_id
    AND (task_id = ANY(:task_ids::uuid[]) OR started_at > now() - make_interval(secs => :unsaid_s))
RETURNING task_id, cancel_asked_at IS NOT NULL AS cancel_asked

-- name: cancel_task
-- Cancel a task: end it with this outcome while it is queued, else ask its worker to. No row: it is final or does not
-- exist.
UPDATE tasks
SET cancel_asked_at = coalesce(cancel_asked_at, now()), held_at = NULL,
    status = CASE WHEN status = 'queued' THEN 'cancelled' ELSE status END,
    exit_reason = CASE WHEN status = 'queued' THEN 'cancelled' ELSE exit_reason END,
    finished_at = CASE WHEN status = 'queued' THEN now() ELSE finished_at END,
    outcome = CASE WHEN status = 'queued' THEN :outcome::bytea ELSE outcome END
WHERE task_id = :task_id AND tenant = :tenant AND (status IN ('queued', 'running')) IS TRUE
RETURNING status, task_type, policy

-- name: finish_task
-- Store how a worker's attempt ended, with the names, hashes and contents of its artifacts, the hash of the named script
-- that ran (null where the request has the source), and what it was denied (null where nothing was). No row: the worker
-- lost the lease, and nothing is stored.
WITH done AS (
    UPDATE tasks
    SET status = :status, exit_reason = :exit_reason, outcome = :outcome, finished_at = now(), worker_id = NULL,
        lease_until = NULL, source_sha256 = coalesce(source_sha256, :script_sha256)
    WHERE task_id = :task_id AND attempts = :attempt AND worker_id = :worker_id AND (status = 'running') IS TRUE
    RETURNING task_id, started_at, tenant, policy
), told AS (
    INSERT INTO denials (task_id, attempt, tenant, policy, denied)
    SELECT task_id, :attempt, tenant, policy, :denied FROM done WHERE :denied::text IS NOT NULL
), kept AS (
    INSERT INTO artifacts (task_id, tenant, name, sha256, content, size_bytes)
    SELECT task_id, tenant, name, sha256, content, octet_length(content)
    FROM done, unnest(:names::text[], :hashes::text[], :contents::bytea[]) AS artifact (name, sha256, content)
)
INSERT INTO attempts (task_id, attempt, worker_id, started_at, ended, exit_reason, policy_digest)
SELECT task_id, :attempt, :worker_id, started_at, 'finished', :exit_reason, :policy_digest FROM done
RETURNING task_id

-- name: give_back_task
-- End a worker's attempt without a result and queue the task again, due after a delay, with more attempts allowed (1
-- when the attempt does not count). A task that was to be cancelled ends with the outcome `cancelled` instead.
WITH given AS (
    UPDATE tasks
    SET worker_id = NULL, lease_until = NULL, max_attempts = max_attempts + :more_attempts,
        due_at = now() + make_interval(secs => :delay_s),
        status = (CASE WHEN cancel_asked_at IS NULL THEN 'queued' ELSE 'cancelled' END)::task_status,
        exit_reason = (CASE WHEN cancel_asked_at IS NOT NULL THEN 'cancelled' END)::exit_reason,
        finished_at = CASE WHEN cancel_asked_at IS NOT NULL THEN now() END,
        outcome = CASE WHEN cancel_asked_at IS NOT NULL THEN :cancelled::bytea END
    WHERE task_id = :task_id AND attempts = :attempt AND worker_id = :worker_id AND (status = 'running') IS TRUE
        AND (attempts < max_attempts + :more_attempts OR cancel_asked_at IS NOT NULL)
    RETURNING task_id, started_at, status
), noted AS (
    INSERT INTO attempts (task_id, attempt, worker_id, started_at, ended, message)
    SELECT task_id, :attempt, :worker_id, started_at, :ended, :message FROM given
)
SELECT status FROM given

-- name: get_time
-- PostgreSQL's time.
SELECT now()

-- name: sweep_lost_tasks
-- Tasks whose lease had run out at a time: queued again while attempts are left, else failed with the outcome `lost`.
-- Those that were to be cancelled end with the outcome `cancelled`. One that is lost for the first time, with others on
-- the same worker beside it, pays no attempt (`free`).
WITH lost AS (
    SELECT task_id, attempts, worker_id, started_at, losses FROM tasks
    WHERE status = 'running' AND lease_until < :now
    ORDER BY lease_until LIMIT 500 FOR UPDATE SKIP LOCKED
), judged AS (
    SELECT lost.*, (losses = 0 AND (EXISTS (
        SELECT FROM tasks AS beside
        WHERE beside.status = 'running' AND beside.worker_id = lost.worker_id AND beside.task_id <> lost.task_id
    ) OR EXISTS (
        SELECT FROM attempts AS gone
        WHERE gone.ended = 'worker_lost' AND gone.worker_id = lost.worker_id AND gone.task_id <> lost.task_id
            AND gone.ended_at > lost.started_at
    )))::int AS free FROM lost
), noted AS (
    INSERT INTO attempts (task_id, attempt, worker_id, started_at, ended, message)
    SELECT task_id, attempts, worker_id, started_at, 'worker_lost',
        CASE WHEN free = 1 THEN 'the lease ran out; not counted' ELSE 'the lease ran out' END FROM judged
)
UPDATE tasks
SET worker_id = NULL, lease_until = NULL, due_at = now(), losses = tasks.losses + 1, max_attempts = max_attempts + free,
    status = (CASE WHEN cancel_asked_at IS NOT NULL THEN 'cancelled'
        WHEN tasks.attempts < max_attempts + free THEN 'queued' ELSE 'failed' END)::task_status,
    exit_reason = (CASE WHEN cancel_asked_at IS NOT NULL THEN 'cancelled'
        WHEN tasks.attempts < max_attempts + free THEN NULL ELSE 'worker_lost' END)::exit_reason,
    finished_at = CASE WHEN cancel_asked_at IS NULL AND tasks.attempts < max_attempts + free THEN NULL ELSE now() END,
    outcome = CASE WHEN cancel_asked_at IS NOT NULL THEN :cancelled::bytea
        WHEN tasks.attempts < max_attempts + free THEN NULL ELSE :lost::bytea END
FROM judged WHERE tasks.task_id = judged.task_id
RETURNING {tasks.LostTask}

-- name: overdue_tasks
-- The oldest tasks after a time and id that have been waiting for longer than some seconds: Redis may have lost them.
SELECT task_id, tenant, priority, due_at, memory_limit_mib FROM tasks
WHERE status = 'queued' AND held_at IS NULL AND due_at < now() - make_interval(secs => :older_than_s)
    AND (due_at, task_id) > (:after_time, :after_id)
ORDER BY due_at, task_id LIMIT :limit

-- name: delete_old_tasks
-- Delete some of the tasks that ended longer ago than this and owe no callback.
DELETE FROM tasks WHERE task_id IN (
    SELECT task_id FROM tasks WHERE finished_at < now() - make_interval(secs => :ttl_s)
    AND NOT EXISTS (SELECT FROM callbacks WHERE callbacks.task_id = tasks.task_id AND state = 'due')
    LIMIT :limit FOR UPDATE SKIP LOCKED
)

-- name: get_end_of_file
-- When a file that is uploaded now expires.
SELECT now() + make_interval(secs => :ttl_s)

-- name: admit_bytes
-- Whether a tenant may store more bytes, and another file. A row: it may not, with the reason and how long to wait.
SELECT reason, retry_after_s FROM admit_bytes(:tenant, :files_per_minute, :most_bytes, :more_files, :more_bytes)

-- name: lock_stored_bytes
-- Let nobody store more for a tenant until the transaction ends.
SELECT pg_advisory_xact_lock(hashtextextended('bytes ' || :tenant, 0))

-- name: get_stored_bytes
-- How many bytes a tenant has stored.
SELECT stored_bytes_of(:tenant)

-- name: list_files
-- A tenant's newest files.
SELECT file_id, tenant, name, media_type, sha256, size_bytes, expires_at FROM files
WHERE tenant = :tenant AND expires_at > now() ORDER BY created_at DESC LIMIT :limit

-- name: delete_file
-- Empty a file of a tenant for which no task waits. Its row stays for a minute, in which it counts as uploaded.
UPDATE files SET expires_at = now(), content = '', size_bytes = 0
WHERE file_id = :file_id AND tenant = :tenant AND expires_at > now()
    AND NOT EXISTS (SELECT FROM tasks WHERE status IN ('queued', 'running') AND :file_id = ANY(file_ids))

-- name: get_room
-- How large the database is, and where its files lie (null where we may not know).
SELECT pg_database_size(current_database()) AS size_bytes, CASE
    WHEN pg_has_role(current_user, 'pg_read_all_settings', 'MEMBER') THEN current_setting('data_directory')
END AS folder

-- name: known_files
-- Which of these files a tenant has.
SELECT file_id FROM files WHERE file_id = ANY(:file_ids::text[]) AND tenant = :tenant AND expires_at > now()

-- name: read_files
-- A tenant's files, as far as they still exist. One that a task waits for is kept beyond its time.
SELECT file_id, content FROM files WHERE file_id = ANY(:file_ids::text[]) AND tenant = :tenant

-- name: delete_old_files
-- Delete some of the files whose time is over and for which no task waits.
DELETE FROM files WHERE file_id IN (
    SELECT file_id FROM files WHERE expires_at < now() AND (size_bytes > 0 OR created_at < now() - interval '60 s')
    AND NOT EXISTS (SELECT FROM tasks WHERE status IN ('queued', 'running') AND file_id = ANY(file_ids))
    LIMIT :limit FOR UPDATE OF files SKIP LOCKED
)

-- name: get_artifact
-- One artifact of a tenant's task, without its content.
SELECT {artifacts.ArtifactFacts} FROM artifacts JOIN tasks USING (task_id)
WHERE task_id = :task_id AND name = :name AND tasks.tenant = :tenant

-- name: get_artifact_part
-- Some bytes of an artifact of a tenant's task; byte 1 is the first. The content is stored uncompressed, so that
-- PostgreSQL reads only this part.
SELECT substring(content FROM :start FOR :length) FROM artifacts JOIN tasks USING (task_id)
WHERE task_id = :task_id AND name = :name AND tasks.tenant = :tenant

-- name: delete_artifacts
-- Delete one artifact of a tenant's task, or all of them (without a name): how many. No row: there is no such task.
WITH task AS (
    SELECT task_id FROM tasks WHERE task_id = :task_id AND tenant = :tenant
), gone AS (
    DELETE FROM artifacts USING task
    WHERE artifacts.task_id = task.task_id AND (:name::text IS NULL OR artifacts.name = :name)
    RETURNING artifacts.task_id, artifacts.name
), noted AS (
    INSERT INTO deleted_artifacts (task_id, name) SELECT task_id, name FROM gone ON CONFLICT DO NOTHING
)
SELECT (SELECT count(*) FROM gone) FROM task

-- name: was_artifact_deleted
-- Whether a tenant's task had an artifact of this name, which the tenant has deleted.
SELECT EXISTS (
    SELECT FROM deleted_artifacts JOIN tasks USING (task_id)
    WHERE task_id = :task_id AND tenant = :tenant AND name = :name
)

-- name: take_callbacks
-- Callbacks that are due to URLs that begin with an origin, leased for some seconds: no other worker tries them
-- meanwhile.
WITH taken AS (
    UPDATE callbacks SET attempts = attempts + 1, due_at = now() + make_interval(secs => :lease_s)
    WHERE task_id IN (
        SELECT task_id FROM callbacks WHERE state = 'due' AND due_at <= now() AND starts_with(url, :origin)
        ORDER BY due_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    RETURNING task_id, attempts, created_at, last_status
)
SELECT {tasks.StoredTask}, tasks.outcome, tasks.callback_url, taken.attempts AS callback_attempts, taken.last_status,
    tasks.traceparent, extract(epoch FROM now() - taken.created_at)::float8 AS age_s
FROM taken JOIN tasks USING (task_id)

-- name: retry_callback
-- An attempt at a callback failed: due again after a delay.
UPDATE callbacks SET due_at = now() + make_interval(secs => :delay_s), last_status = :status, last_error = :error
WHERE task_id = :task_id AND attempts = :attempts AND state = 'due'

-- name: end_callback
-- An attempt at a callback ended it, in this state.
UPDATE callbacks SET state = :state, ended_at = now(), last_status = :status, last_error = :error
WHERE task_id = :task_id AND attempts = :attempts AND state = 'due'

-- name: bury_callbacks
-- Give up callbacks to URLs that begin with none of these origins, and that have been due for a minute.
UPDATE callbacks SET state = 'dead', ended_at = now(), last_error = 'the URL is not allowed any more'
WHERE state = 'due' AND created_at < now() - interval '60 s'
AND NOT EXISTS (SELECT FROM unnest(:origins::text[]) AS origin WHERE starts_with(url, origin))

-- name: list_callbacks
-- A tenant's newest callbacks in one state, which is not `dead`.
SELECT {callbacks.Callback}, callbacks.task_id FROM callbacks JOIN tasks USING (task_id)
WHERE tenant = :tenant AND callbacks.state = :state ORDER BY callbacks.created_at DESC LIMIT :limit

-- name: list_dead_callbacks
-- A tenant's newest callbacks that were given up. They have an index of their own.
SELECT {callbacks.Callback}, callbacks.task_id FROM callbacks JOIN tasks USING (task_id)
WHERE tenant = :tenant AND callbacks.state = 'dead' ORDER BY callbacks.created_at DESC LIMIT :limit

-- name: redeliver_callback
-- Make the callback of a tenant's task due once more. No row: it has none, or its task is not final.
UPDATE callbacks SET state = 'due', due_at = now(), created_at = now(), ended_at = NULL
FROM tasks WHERE tasks.task_id = callbacks.task_id AND callbacks.task_id = :task_id AND tenant = :tenant
RETURNING {callbacks.Callback}

-- name: beat
-- A worker is alive and in this state.
INSERT INTO workers (worker_id, state) VALUES (:worker_id, :state)
ON CONFLICT (worker_id) DO UPDATE SET seen_at = now(), state = excluded.state

-- name: note_stuck
-- A worker is still there and does not answer: it is silent, and is not forgotten.
UPDATE workers SET state = jsonb_set(state, ARRAY['stuck_at'], to_jsonb(extract(epoch FROM now()))) WHERE worker_id = :worker_id

-- name: forget_worker
-- A worker has stopped.
DELETE FROM workers WHERE worker_id = :worker_id

-- name: forget_lost_workers
-- Delete the workers that have been silent for longer than this.
DELETE FROM workers WHERE {LastSign} < now() - make_interval(secs => :silent_s)

-- name: heartbeats
-- The last heartbeat of each worker that has sent one lately, and its age in seconds.
SELECT worker_id, state, greatest(0, extract(epoch FROM now() - seen_at))::float8 AS age_s
FROM workers WHERE {LastSign} > now() - make_interval(secs => :within_s) ORDER BY started_at

-- name: queue_depth
-- How many tasks wait, how long the oldest of those that are not held has waited, and how many run.
SELECT (SELECT count(*) FROM tasks WHERE status = 'queued') AS queued, greatest(0, (
        SELECT extract(epoch FROM now() - min(due_at)) FROM tasks WHERE status = 'queued' AND held_at IS NULL
    ))::float8 AS oldest_wait_s,
    (SELECT count(*) FROM tasks WHERE status = 'running') AS running

-- name: insert_session
-- Keep a browser's session for some seconds, and delete those whose time is over.
WITH over AS (DELETE FROM sessions WHERE expires_at < now())
INSERT INTO sessions (session_sha256, key_id, key_sha256, expires_at)
VALUES (:session_sha256, :key_id, :key_sha256, now() + make_interval(secs => :lasts_s))

-- name: get_session
-- The key that a session was made from.
SELECT key_id, key_sha256 FROM sessions WHERE session_sha256 = :session_sha256 AND expires_at > now()

-- name: delete_session
-- End a session.
DELETE FROM sessions WHERE session_sha256 = :session_sha256
