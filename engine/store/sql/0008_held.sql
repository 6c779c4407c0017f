-- Tasks that are held have places among each other, by the rule that also orders the line (lua/put.lua). The indexes find
-- who is next without passing by the others, of which there may be tens of thousands.

ALTER TABLE tasks ADD COLUMN held_place float8; -- kept when it is let go: it has had its turn, and is not sent back

UPDATE tasks SET held_place = 0 WHERE held_at IS NOT NULL;

CREATE TABLE held_clocks (
    tenant           text NOT NULL,
    concurrent_limit integer NOT NULL,
    priority         task_priority NOT NULL,
    place            float8 NOT NULL, -- of the last task of this priority that was held
    PRIMARY KEY (tenant, concurrent_limit, priority)
);

DROP INDEX tasks_held;
CREATE INDEX tasks_held ON tasks (tenant, concurrent_limit, held_place, priority DESC) WHERE held_at IS NOT NULL;

DROP INDEX tasks_queued;
CREATE INDEX tasks_in_line ON tasks (due_at, task_id) WHERE status = 'queued' AND held_at IS NULL;

-- How far a task puts the clock of its priority forward; the same as COSTS in engine/queue/queue.py.
CREATE FUNCTION flow_step(task_priority) RETURNS float8 LANGUAGE sql IMMUTABLE
RETURN CASE $1 WHEN 'high' THEN 0.5 WHEN 'low' THEN 4 ELSE 1 END;

-- Hold a queued task, with its tenant's lock in hand. One that was held before keeps its place; one that ran before, and
-- was given back or lost, goes to the front.
CREATE FUNCTION hold(which uuid) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
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
    UPDATE tasks SET held_at = now(), held_place = own WHERE task_id = which AND status = 'queued';
END $$;

-- As in 0006, but what comes up while others are held does not overtake them.
CREATE OR REPLACE FUNCTION claim_limited(which uuid, worker uuid, lease_s double precision)
RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    asked record;
BEGIN
    SELECT tenant, concurrent_limit, held_place, attempts INTO asked FROM tasks
    WHERE task_id = which AND status = 'queued' AND concurrent_limit IS NOT NULL;
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
    WHERE task_id = which AND status = 'queued';
    RETURN FOUND;
END $$;

-- Let held tasks back into the line, in the order of their places: of each tenant (or of this one) as many as may now
-- run. Goes from one tenant and limit to the next, however many tasks each has.
CREATE FUNCTION let_go(whose text) RETURNS TABLE (task_id uuid, tenant text, priority task_priority)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    who  text := coalesce(whose, '');
    most integer := 0;
    room bigint;
BEGIN
    LOOP
        SELECT tenant, concurrent_limit INTO who, most FROM tasks
        WHERE held_at IS NOT NULL AND (tenant, concurrent_limit) > (who, most)
        ORDER BY tenant, concurrent_limit LIMIT 1;
        EXIT WHEN NOT FOUND OR who <> whose;
        SELECT most - count(*) INTO room FROM tasks WHERE tenant = who AND status = 'running';
        IF room > 0 THEN
            RETURN QUERY UPDATE tasks SET held_at = NULL, due_at = greatest(due_at, now())
            WHERE task_id = ANY (ARRAY(
                SELECT task_id FROM tasks WHERE tenant = who AND concurrent_limit = most AND held_at IS NOT NULL
                ORDER BY held_place, priority DESC LIMIT room FOR UPDATE SKIP LOCKED
            )) AND status = 'queued'
            RETURNING task_id, tenant, priority;
        END IF;
    END LOOP;
END $$;
