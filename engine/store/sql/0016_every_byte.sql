-- How many bytes a tenant has stored, kept up to date by triggers: files, artifacts, and every task. A task counts as its
-- parameters, labels and outcome, and one KiB for its row. Each session of PostgreSQL adds to a row of its own (nearly: 256 of
-- them), so that no transaction waits for another.

CREATE TABLE stored_bytes (
    tenant text NOT NULL,
    shard  integer NOT NULL,
    bytes  bigint NOT NULL, -- may be below zero: another session's row has what this one takes away
    PRIMARY KEY (tenant, shard)
) WITH (fillfactor = 50);

DROP TRIGGER task_is_large ON tasks;
DROP FUNCTION note_large();

-- Given columns, not a row: to pass a row PostgreSQL reads the large values in it.
CREATE FUNCTION bytes_of(parameters bytea, labels jsonb, outcome bytea) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT 1024::bigint + octet_length(parameters) + octet_length(labels::text) + coalesce(octet_length(outcome), 0)
$$;

CREATE FUNCTION add_stored(whose text, more bigint) RETURNS void LANGUAGE sql VOLATILE AS $$
    INSERT INTO stored_bytes (tenant, shard, bytes) VALUES (whose, pg_backend_pid() % 256, more)
    ON CONFLICT (tenant, shard) DO UPDATE SET bytes = stored_bytes.bytes + excluded.bytes
$$;

-- Of tasks that are new or gone, in the order of tenants, so that two sessions that share a row never wait for each other in
-- a circle.
CREATE FUNCTION note_tasks() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    sign integer := CASE TG_OP WHEN 'DELETE' THEN -1 ELSE 1 END;
BEGIN
    PERFORM add_stored(tenant, sign * bytes) FROM (
        SELECT tenant, sum(bytes_of(parameters, labels, outcome))::bigint AS bytes FROM changed GROUP BY tenant ORDER BY tenant
    ) AS sums;
    RETURN NULL;
END $$;

CREATE FUNCTION note_outcome() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM add_stored(NEW.tenant, coalesce(octet_length(NEW.outcome), 0)::bigint - coalesce(octet_length(OLD.outcome), 0));
    RETURN NULL;
END $$;

-- Of files and artifacts, which have the same two columns. What there is not, OLD of an INSERT or NEW of a DELETE, is null.
CREATE FUNCTION note_contents() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    whose text := coalesce(NEW.tenant, OLD.tenant);
    more bigint := coalesce(NEW.size_bytes, 0) - coalesce(OLD.size_bytes, 0);
BEGIN
    IF whose IS NOT NULL AND more <> 0 THEN
        PERFORM add_stored(whose, more);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER tasks_are_new AFTER INSERT ON tasks REFERENCING NEW TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION note_tasks();
CREATE TRIGGER tasks_are_gone AFTER DELETE ON tasks REFERENCING OLD TABLE AS changed
FOR EACH STATEMENT EXECUTE FUNCTION note_tasks();
CREATE TRIGGER task_has_outcome AFTER UPDATE OF outcome ON tasks FOR EACH ROW
WHEN (octet_length(OLD.outcome) IS DISTINCT FROM octet_length(NEW.outcome)) EXECUTE FUNCTION note_outcome();
CREATE TRIGGER file_contents AFTER INSERT OR DELETE OR UPDATE OF size_bytes ON files FOR EACH ROW
EXECUTE FUNCTION note_contents();
CREATE TRIGGER artifact_contents AFTER INSERT OR DELETE OR UPDATE OF size_bytes ON artifacts FOR EACH ROW
EXECUTE FUNCTION note_contents();

INSERT INTO stored_bytes (tenant, shard, bytes)
SELECT tenant, 0, sum(bytes)::bigint FROM (
    SELECT tenant, bytes_of(parameters, labels, outcome) AS bytes FROM tasks
    UNION ALL SELECT tenant, size_bytes FROM files
    UNION ALL SELECT tenant, size_bytes FROM artifacts WHERE tenant IS NOT NULL
) AS found GROUP BY tenant;

CREATE OR REPLACE FUNCTION stored_bytes_of(whose text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(bytes), 0)::bigint FROM stored_bytes WHERE tenant = whose
$$;

ALTER TABLE tasks DROP COLUMN large_bytes; -- and its index

-- As the function of four arguments, which engines before this one ask, and the bytes of tasks besides.
CREATE FUNCTION admit(
    whose text, tasks_per_minute integer, queued_tasks integer, more integer, most_bytes bigint, more_bytes bigint
) RETURNS TABLE (reason text, retry_after_s double precision) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY SELECT * FROM admit(whose, tasks_per_minute, queued_tasks, more);
    IF NOT FOUND AND most_bytes IS NOT NULL AND stored_bytes_of(whose) + more_bytes > most_bytes THEN
        RETURN QUERY SELECT 'stored_mib', 60::float8;
    END IF;
END $$;
