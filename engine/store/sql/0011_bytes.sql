-- How many bytes a tenant has stored, counted where they lie: files, artifacts, and the large ones of the tasks. Small tasks
-- are not counted: their number has quotas of its own.

ALTER TABLE artifacts ADD COLUMN tenant text;
UPDATE artifacts SET tenant = tasks.tenant FROM tasks WHERE tasks.task_id = artifacts.task_id;

ALTER TABLE tasks
    ADD COLUMN large_bytes bigint, -- of parameters and outcome; null below 64 KiB
    ADD COLUMN stored_bytes_limit bigint; -- the quota, for the worker that stores artifacts; null: none

CREATE FUNCTION note_large() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.large_bytes := octet_length(NEW.parameters) + coalesce(octet_length(NEW.outcome), 0);
    RETURN NEW;
END $$;

CREATE TRIGGER task_is_large BEFORE INSERT OR UPDATE OF outcome ON tasks FOR EACH ROW
WHEN (octet_length(NEW.parameters) + coalesce(octet_length(NEW.outcome), 0) >= 65536)
EXECUTE FUNCTION note_large();

CREATE INDEX files_of_tenant ON files (tenant, created_at) INCLUDE (size_bytes);
CREATE INDEX artifacts_of_tenant ON artifacts (tenant) INCLUDE (size_bytes);
CREATE INDEX tasks_large ON tasks (tenant) INCLUDE (large_bytes) WHERE large_bytes IS NOT NULL;

CREATE FUNCTION stored_bytes_of(whose text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT (
        (SELECT coalesce(sum(size_bytes), 0) FROM files WHERE tenant = whose)
        + (SELECT coalesce(sum(size_bytes), 0) FROM artifacts WHERE tenant = whose)
        + (SELECT coalesce(sum(large_bytes), 0) FROM tasks WHERE tenant = whose AND large_bytes IS NOT NULL)
    )::bigint
$$;

-- Whether a tenant may store more bytes, as ``admit`` decides about tasks: what it asks and what the caller then inserts is
-- one matter, because the lock is held until the transaction ends.
CREATE FUNCTION admit_bytes(whose text, files_per_minute integer, most_bytes bigint, more_files integer, more_bytes bigint)
RETURNS TABLE (reason text, retry_after_s double precision) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    kept timestamptz;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('bytes ' || whose, 0));
    IF files_per_minute IS NOT NULL AND more_files > 0 THEN
        SELECT created_at INTO kept FROM files WHERE tenant = whose AND created_at > clock_timestamp() - interval '60 s'
        ORDER BY created_at DESC OFFSET greatest(files_per_minute - more_files, 0) LIMIT 1;
        IF kept IS NOT NULL THEN
            RETURN QUERY SELECT 'files_per_minute', extract(epoch FROM kept - clock_timestamp())::float8 + 60;
            RETURN;
        END IF;
    END IF;
    IF most_bytes IS NOT NULL AND stored_bytes_of(whose) + more_bytes > most_bytes THEN
        RETURN QUERY SELECT 'stored_mib', 60::float8;
    END IF;
END $$;
