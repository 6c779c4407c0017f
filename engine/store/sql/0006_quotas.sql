-- How many tasks of one tenant may run at the same time, and those that therefore wait outside of the line.

ALTER TABLE tasks
    ADD COLUMN concurrent_limit integer,   -- null: as many as there are slots
    ADD COLUMN held_at          timestamptz;

CREATE INDEX tasks_held ON tasks (tenant, created_at) WHERE held_at IS NOT NULL;

-- Whether a tenant may have more tasks accepted. What it asks and what the caller then inserts is one matter: the lock is
-- held until the transaction ends. Each query in here sees what was committed before it begins; now() would be when the
-- transaction began, before it waited for the lock.
CREATE FUNCTION admit(whose text, tasks_per_minute integer, queued_tasks integer, more integer)
RETURNS TABLE (reason text, retry_after_s double precision) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    accepted timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(whose, 0));
    IF tasks_per_minute IS NOT NULL THEN
        SELECT created_at INTO accepted FROM tasks WHERE tenant = whose AND created_at > clock_timestamp() - interval '60 s'
        ORDER BY created_at DESC OFFSET greatest(tasks_per_minute - more, 0) LIMIT 1;
        IF accepted IS NOT NULL OR more > tasks_per_minute THEN
            RETURN QUERY SELECT 'tasks_per_minute',
                least(60, extract(epoch FROM coalesce(accepted, clock_timestamp()) - clock_timestamp())::float8 + 60);
            RETURN;
        END IF;
    END IF;
    IF queued_tasks IS NOT NULL THEN
        IF (SELECT count(*) FROM tasks WHERE tenant = whose AND status = 'queued') + more > queued_tasks THEN
            RETURN QUERY SELECT 'queued_tasks', 5::float8;
        END IF;
    END IF;
END $$;

-- Take the lease of a queued task whose tenant has a limit. The second to ask waits for the first, and counts anew.
CREATE FUNCTION claim_limited(which uuid, worker uuid, lease_s double precision)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    asked record;
BEGIN
    SELECT tenant, concurrent_limit INTO asked FROM tasks WHERE task_id = which AND status = 'queued';
    IF asked.concurrent_limit IS NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('running ' || asked.tenant, 0));
    IF (SELECT count(*) FROM tasks WHERE tenant = asked.tenant AND status = 'running') >= asked.concurrent_limit THEN
        UPDATE tasks SET held_at = now() WHERE task_id = which AND status = 'queued';
        RETURN false;
    END IF;
    UPDATE tasks
    SET status = 'running', attempts = attempts + 1, worker_id = worker, started_at = now(), held_at = NULL,
        lease_until = now() + make_interval(secs => lease_s)
    WHERE task_id = which AND status = 'queued';
    RETURN FOUND;
END $$;
