-- Files that clients upload and name in tasks, and files that tasks leave behind.

CREATE TABLE files (
    file_id    text PRIMARY KEY,
    name       text NOT NULL,
    media_type text NOT NULL,
    size_bytes bigint NOT NULL,
    sha256     text NOT NULL,
    content    bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
ALTER TABLE files ALTER COLUMN content SET STORAGE EXTERNAL;
CREATE INDEX files_expiring ON files (expires_at);

CREATE TABLE artifacts (
    task_id    uuid NOT NULL REFERENCES tasks ON DELETE CASCADE,
    name       text NOT NULL,
    size_bytes bigint NOT NULL,
    sha256     text NOT NULL,
    content    bytea NOT NULL,
    PRIMARY KEY (task_id, name)
);
ALTER TABLE artifacts ALTER COLUMN content SET STORAGE EXTERNAL;

ALTER TABLE tasks ADD COLUMN file_ids text[] NOT NULL DEFAULT '{}';
