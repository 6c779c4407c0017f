-- What a request may ask for, beside its time: less memory than its policy grants.

ALTER TABLE tasks ADD COLUMN memory_mib integer;
