-- Sessions of browsers: made from an API key, which they never open more than. A session's id is kept as its hash only.

CREATE TABLE sessions (
    session_sha256 text PRIMARY KEY,
    key_id text NOT NULL,
    key_sha256 text NOT NULL, -- of the key's secret: a session ends when another key takes over the id
    expires_at timestamptz NOT NULL
);

CREATE INDEX sessions_that_expire ON sessions (expires_at);
