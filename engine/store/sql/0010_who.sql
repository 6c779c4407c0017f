-- Who submitted a task, and the digests of what was submitted: the audit log and receipts name them.

ALTER TABLE tasks
    ADD COLUMN key_id            text,
    ADD COLUMN request_id        text,
    ADD COLUMN client_address    text,
    ADD COLUMN source_sha256     text, -- of the source in the parameters; null where there is none
    ADD COLUMN parameters_sha256 text;
