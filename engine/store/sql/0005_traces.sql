-- The trace that a task belongs to, as the value of a W3C traceparent header; null where none is recorded.

ALTER TABLE tasks ADD COLUMN traceparent text;
