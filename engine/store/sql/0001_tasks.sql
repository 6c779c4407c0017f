-- Tasks, the attempts that were made at them, and the workers that are alive.
-- Parameters and outcomes are JSON text kept as bytes: PostgreSQL's text and jsonb refuse NUL, and nothing on this
-- side of the sandbox decodes them.

CREATE TYPE task_status AS ENUM ('queued', 'running', 'succeeded', 'failed', 'cancelled');

CREATE TYPE exit_reason AS ENUM (
    'ok', 'error', 'nonzero_exit', 'no_result', 'invalid_result',
    'wall_limit', 'cpu_limit', 'memory_limit', 'output_limit', 'workspace_limit', 'process_limit',
    'signaled', 'cancelled', 'worker_lost'
);

CREATE TYPE attempt_end AS ENUM (
    'finished',       -- the sandbox answered; exit_reason says how
    'worker_lost',    -- the lease ran out: the worker died or could not be reached
    'sandbox_failed', -- the sandbox itself failed; not the task's fault
    'released'        -- the worker was told to stop and gave the task back
);

CREATE TABLE tasks (
    task_id      uuid PRIMARY KEY,
    task_type    text NOT NULL,
    status       task_status NOT NULL DEFAULT 'queued',
    policy       text NOT NULL,
    parameters   bytea NOT NULL,
    timeout_s    double precision,
    labels       jsonb NOT NULL DEFAULT '{}',
    script_name  text,
    attempts     integer NOT NULL DEFAULT 0,
    max_attempts integer NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    due_at       timestamptz NOT NULL DEFAULT now(), -- not to be queued again before
    worker_id    uuid,
    lease_until  timestamptz,
    started_at   timestamptz,
    finished_at  timestamptz,
    exit_reason  exit_reason,
    outcome      bytea,
    CONSTRAINT running_has_a_lease CHECK ((status = 'running') = (worker_id IS NOT NULL AND lease_until IS NOT NULL)),
    CONSTRAINT final_has_an_outcome CHECK (
        (status IN ('succeeded', 'failed', 'cancelled'))
        = (finished_at IS NOT NULL AND exit_reason IS NOT NULL AND outcome IS NOT NULL)
    )
);

-- Large values go out of the row as they are: compressing them would cost more time than their bytes.
ALTER TABLE tasks ALTER COLUMN parameters SET STORAGE EXTERNAL;
ALTER TABLE tasks ALTER COLUMN outcome SET STORAGE EXTERNAL;
ALTER TABLE tasks SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX tasks_queued ON tasks (due_at) WHERE status = 'queued';
CREATE INDEX tasks_running ON tasks (lease_until) WHERE status = 'running';
CREATE INDEX tasks_finished ON tasks (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE attempts (
    task_id     uuid NOT NULL REFERENCES tasks ON DELETE CASCADE,
    attempt     integer NOT NULL,
    worker_id   uuid NOT NULL,
    started_at  timestamptz NOT NULL,
    ended_at    timestamptz NOT NULL DEFAULT now(),
    ended       attempt_end NOT NULL,
    exit_reason exit_reason,
    message     text,
    PRIMARY KEY (task_id, attempt)
);

CREATE TABLE workers (
    worker_id  uuid PRIMARY KEY,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now(),
    state      jsonb NOT NULL
);
