-- The policy files that APIs have had in force, by their digests: so an auditor sees the grant of a task that ran before its
-- policy was changed.

CREATE TABLE policy_files (
    digest  text PRIMARY KEY,
    name    text NOT NULL,
    content text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now() -- for the first time
);
