-- Tasks are listed by type and state without reading those that the list does not show (list_chosen_tasks). A final task
-- has a reason, an unfinished one a state; the second index also counts a tenant's unfinished tasks, as the one that it
-- replaces did.

CREATE INDEX tasks_ended ON tasks (tenant, task_type, exit_reason, created_at DESC, task_id DESC)
WHERE exit_reason IS NOT NULL;

DROP INDEX tasks_unfinished;
CREATE INDEX tasks_unfinished ON tasks (tenant, status, task_type, created_at DESC, task_id DESC)
WHERE status IN ('queued', 'running');

-- As in 0008, but each finds its one task by its id, whatever the statistics say of its status (queries.sql).
--
-- Hold a queued task, with its tenant's lock in hand. One that was held before keeps its place; one that ran before, and
-- was given back or lost, goes to the front.
CREATE OR REPLACE FUNCTION hold(which uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    asked record;
    front float8;
    own   float8;
BEGIN
    SELECT tenant, concurrent_limit, priority, held_place, attempts INTO asked FROM tasks WHERE task_id = which;
    own := asked.held_place;
    IF own IS NULL THEN
        SELECT held_place - flow_step(priority) INTO front FROM tasks
        WHERE tenant = asked.tenant AND concurrent_limit = asked.concurrent_limit AND held_at IS NOT NULL
        ORDER BY held_place, priority DESC LIMIT 1;
        IF front IS NULL THEN -- nobody is held: all begin where the last has come to
            SELECT coalesce(max(place), 0) INTO front FROM held_clocks
            WHERE tenant = asked.tenant AND concurrent_limit = asked.concurrent_limit;
        END IF;
        own := front;
    END IF;
    IF asked.held_place IS NULL AND asked.attempts = 0 THEN
        INSERT INTO held_clocks AS clock (tenant, concurrent_limit, priority, place)
        VALUES (asked.tenant, asked.concurrent_limit, asked.priority, front + flow_step(asked.priority))
        ON CONFLICT (tenant, concurrent_limit, priority)
        DO UPDATE SET place = greatest(clock.place, front) + flow_step(excluded.priority)
        RETURNING clock.place INTO own;
    END IF;
    UPDATE tasks SET held_at = now(), held_place = own WHERE task_id = which AND (status = 'queued') IS TRUE;
END $$;

-- What comes up while others are held does not overtake them.
CREATE OR REPLACE FUNCTION claim_limited(which uuid, worker uuid, lease_s double precision)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    asked record;
BEGIN
    SELECT tenant, concurrent_limit, held_place, attempts INTO asked FROM tasks
    WHERE task_id = which AND (status = 'queued') IS TRUE AND concurrent_limit IS NOT NULL;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('running ' || asked.tenant, 0));
    IF (asked.held_place IS NULL AND asked.attempts = 0 AND EXISTS (
            SELECT FROM tasks
            WHERE tenant = asked.tenant AND concurrent_limit = asked.concurrent_limit AND held_at IS NOT NULL
        )) OR (
            SELECT count(*) FROM tasks WHERE tenant = asked.tenant AND status = 'running'
        ) >= asked.concurrent_limit THEN
        PERFORM hold(which);
        RETURN false;
    END IF;
    UPDATE tasks
    SET status = 'running', attempts = attempts + 1, worker_id = worker, started_at = now(), held_at = NULL,
        lease_until = now() + make_interval(secs => lease_s)
    WHERE task_id = which AND (status = 'queued') IS TRUE;
    RETURN FOUND;
END $$;
