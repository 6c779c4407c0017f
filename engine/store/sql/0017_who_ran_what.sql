-- Who ran what, under which grant, and what was denied: what an auditor asks, and the ways to find it.

ALTER TABLE attempts ADD COLUMN policy_digest text; -- of the policy's file; null where the attempt had no run

-- What an attempt was denied. Most are denied nothing, and have no row.
CREATE TABLE denials (
    task_id   uuid NOT NULL REFERENCES tasks ON DELETE CASCADE,
    attempt   integer NOT NULL,
    tenant    text NOT NULL,
    policy    text NOT NULL,
    denied_at timestamptz NOT NULL DEFAULT now(),
    denied    text NOT NULL, -- JSON as text: what a run wrote may name a NUL, which jsonb refuses
    PRIMARY KEY (task_id, attempt)
);
CREATE INDEX denials_of_policy ON denials (policy, tenant, denied_at DESC);

-- Tasks are found by their key and by the hash of their source. Prefixes of a hash are ranges, in the order of its bytes.
CREATE INDEX tasks_of_key ON tasks (tenant, key_id, created_at DESC, task_id DESC) WHERE key_id IS NOT NULL;
CREATE INDEX tasks_of_source ON tasks (tenant, source_sha256 COLLATE "C", created_at DESC, task_id DESC)
WHERE source_sha256 IS NOT NULL;

CREATE INDEX callbacks_dead ON callbacks (created_at DESC) WHERE state = 'dead';
