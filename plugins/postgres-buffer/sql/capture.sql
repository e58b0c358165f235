-- Capture by triggers, for those who have no other writer for the buffer: each change of a captured table is written to
-- philotes.cdc_events in the same transaction, with the types of its columns.
--
-- Run by the action `capture` of the source postgres-buffer, which then calls philotes.capture per table; with psql:
--   \i capture.sql
--   SELECT philotes.capture('public.orders', 'shop');
--   SELECT philotes.uncapture('public.orders');
-- Needs init.sql. Everything here may be run again.

BEGIN;

-- The type of a column as the buffer names it: a domain is the type beneath it.
CREATE OR REPLACE FUNCTION philotes.column_type(type oid, modifier integer) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    base pg_type%ROWTYPE;
BEGIN
    LOOP
        SELECT * INTO base FROM pg_type WHERE oid = type;
        EXIT WHEN base.typtype IS DISTINCT FROM 'd';
        type := base.typbasetype;
        modifier := base.typtypmod;
    END LOOP;
    RETURN format_type(type, modifier);
END $$;

-- What the catalog says of a table: {"key": [name...], "columns": [{"name", "type", "nullable"}...]}.
CREATE OR REPLACE FUNCTION philotes.describe(relation oid) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_build_object(
        'key', coalesce((
            SELECT jsonb_agg(a.attname ORDER BY k.position)
            FROM pg_index i
            CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
            WHERE i.indrelid = relation AND i.indisprimary AND k.position <= i.indnkeyatts), '[]'),
        'columns', coalesce((
            SELECT jsonb_agg(jsonb_build_object(
                'name', a.attname,
                'type', philotes.column_type(a.atttypid, a.atttypmod),
                'nullable', NOT a.attnotnull) ORDER BY a.attnum)
            FROM pg_attribute a
            WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped), '[]'))
$$;

-- Before each statement: read the catalog once and keep what it says for the rows of this statement. It cannot grow
-- stale: nothing alters a table between a statement on it and that statement's row triggers.
CREATE OR REPLACE FUNCTION philotes.capture_statement() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('philotes.table_' || TG_RELID, philotes.describe(TG_RELID)::text, true);
    PERFORM pg_notify('philotes_cdc_events', TG_ARGV[0]);
    RETURN NULL;
END $$;

-- After each row: one row of the buffer. The settings make to_jsonb print values in one way, whatever the session says.
CREATE OR REPLACE FUNCTION philotes.capture_row() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET bytea_output = 'hex'
    SET extra_float_digits = 1 SET intervalstyle = 'postgres' AS $$
DECLARE
    root oid := coalesce(pg_partition_root(TG_RELID), TG_RELID);
    schema_name text := TG_TABLE_SCHEMA;
    table_name text := TG_TABLE_NAME;
    described jsonb;
BEGIN
    IF root = TG_RELID THEN
        described := coalesce(nullif(current_setting('philotes.table_' || root, true), '')::jsonb,
                              philotes.describe(root));
    ELSE
        -- A row of a partition counts as one of its table; the statement may have named the partition itself.
        described := philotes.describe(root);
        SELECT n.nspname, c.relname INTO schema_name, table_name
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = root;
    END IF;
    INSERT INTO philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, transaction_id, key_columns,
                                     before_data, after_data, metadata, event_time)
    VALUES (TG_ARGV[0], schema_name, table_name, TG_OP, pg_current_wal_insert_lsn()::text,
            pg_current_xact_id()::text::bigint, described -> 'key',
            CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END,
            CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END,
            jsonb_build_object('columns', described -> 'columns'), clock_timestamp());
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION philotes.capture_truncate() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    described jsonb := philotes.describe(TG_RELID);
BEGIN
    INSERT INTO philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, transaction_id, key_columns,
                                     metadata, event_time)
    VALUES (TG_ARGV[0], TG_TABLE_SCHEMA, TG_TABLE_NAME, 'TRUNCATE', pg_current_wal_insert_lsn()::text,
            pg_current_xact_id()::text::bigint, described -> 'key',
            jsonb_build_object('columns', described -> 'columns'), clock_timestamp());
    PERFORM pg_notify('philotes_cdc_events', TG_ARGV[0]);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION philotes.uncapture(relation regclass) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS philotes_capture_statement ON %s', relation);
    EXECUTE format('DROP TRIGGER IF EXISTS philotes_capture_row ON %s', relation);
    EXECUTE format('DROP TRIGGER IF EXISTS philotes_capture_truncate ON %s', relation);
END $$;

-- Captures a table: every later change of it goes to the buffer under this source_id.
CREATE OR REPLACE FUNCTION philotes.capture(relation regclass, source_id text) RETURNS void
    LANGUAGE plpgsql AS $$
BEGIN
    PERFORM philotes.uncapture(relation);
    EXECUTE format('CREATE TRIGGER philotes_capture_statement BEFORE INSERT OR UPDATE OR DELETE ON %s '
        'FOR EACH STATEMENT EXECUTE FUNCTION philotes.capture_statement(%L)', relation, source_id);
    EXECUTE format('CREATE TRIGGER philotes_capture_row AFTER INSERT OR UPDATE OR DELETE ON %s '
        'FOR EACH ROW EXECUTE FUNCTION philotes.capture_row(%L)', relation, source_id);
    EXECUTE format('CREATE TRIGGER philotes_capture_truncate AFTER TRUNCATE ON %s '
        'FOR EACH STATEMENT EXECUTE FUNCTION philotes.capture_truncate(%L)', relation, source_id);
END $$;

COMMIT;
