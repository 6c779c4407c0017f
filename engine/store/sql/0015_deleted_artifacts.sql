-- Names of artifacts that their tenant has deleted: whoever asks for one hears that, and no task is read for it.

CREATE TABLE deleted_artifacts (
    task_id uuid NOT NULL REFERENCES tasks ON DELETE CASCADE,
    name    text NOT NULL,
    PRIMARY KEY (task_id, name)
);
