-- Tasks are listed by their labels, too.

CREATE INDEX tasks_labels ON tasks USING gin (labels jsonb_path_ops);
