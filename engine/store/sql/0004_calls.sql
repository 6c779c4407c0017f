-- Whose a task is, how urgent it is, and what its client asked for beside running it.

CREATE TYPE task_priority AS ENUM ('low', 'normal', 'high');

ALTER TABLE tasks
    ADD COLUMN tenant          text NOT NULL DEFAULT 'default',
    ADD COLUMN priority        task_priority NOT NULL DEFAULT 'normal',
    ADD COLUMN idempotency_key text,
    ADD COLUMN request_sha256  bytea,       -- of what the key stands for; another request under it is refused
    ADD COLUMN callback_url    text,
    ADD COLUMN cancel_asked_at timestamptz; -- while it runs: its worker is to stop it

CREATE UNIQUE INDEX tasks_idempotency ON tasks (tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX tasks_listed ON tasks (tenant, created_at DESC, task_id DESC);
CREATE INDEX tasks_unfinished ON tasks (tenant, status) WHERE status IN ('queued', 'running');

ALTER TABLE files ADD COLUMN tenant text NOT NULL DEFAULT 'default';

-- The outbox: what is to be told of a final task, until it was told or given up.
CREATE TYPE callback_state AS ENUM ('due', 'delivered', 'dead');

CREATE TABLE callbacks (
    task_id      uuid PRIMARY KEY REFERENCES tasks ON DELETE CASCADE, -- also the message's stable id
    url          text NOT NULL,
    state        callback_state NOT NULL DEFAULT 'due',
    attempts     integer NOT NULL DEFAULT 0,
    due_at       timestamptz NOT NULL DEFAULT now(),
    created_at   timestamptz NOT NULL DEFAULT now(),
    ended_at     timestamptz,
    last_status  integer,
    last_error   text
);
CREATE INDEX callbacks_due ON callbacks (due_at) WHERE state = 'due';

-- Whatever statement ends a task, its callback is due in the same transaction.
CREATE FUNCTION owe_callback() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO callbacks (task_id, url) VALUES (NEW.task_id, NEW.callback_url);
    RETURN NULL;
END $$;

CREATE TRIGGER task_ended AFTER UPDATE OF status ON tasks FOR EACH ROW
WHEN (NEW.callback_url IS NOT NULL AND NEW.finished_at IS NOT NULL AND OLD.finished_at IS NULL)
EXECUTE FUNCTION owe_callback();
