-- Capture by triggers, for those who have no other writer for the buffer: each change of a captured table is written to
-- philotes.cdc_events in the same transaction, with the types of its columns.
--
-- Run by the action `capture` of the source postgres-buffer, which then calls philotes.capture per table; with psql:
--   \i capture.sql
--   SELECT philotes.capture('public.orders', 'shop');
--   SELECT philotes.uncapture('public.orders');
-- Needs init.sql. Everything here may be run again.

BEGIN;

-- The type beneath a domain.
CREATE OR REPLACE FUNCTION philotes.base_type(type oid) RETURNS oid
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    base oid;
BEGIN
    LOOP
        SELECT typbasetype INTO base FROM pg_type WHERE oid = type AND typtype = 'd';
        EXIT WHEN NOT FOUND;
        type := base;
    END LOOP;
    RETURN type;
END $$;

-- What the elements of an array are, the type itself where it is none, and nothing of domains.
CREATE OR REPLACE FUNCTION philotes.element_type(type oid) RETURNS oid
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    element oid;
BEGIN
    LOOP
        type := philotes.base_type(type);
        SELECT typelem INTO element FROM pg_type WHERE oid = type AND typcategory = 'A' AND typlen = -1 AND typelem <> 0;
        EXIT WHEN NOT FOUND;
        type := element;
    END LOOP;
    RETURN type;
END $$;

-- The type of a column as the buffer names it: a domain is the type beneath it, also in an array.
CREATE OR REPLACE FUNCTION philotes.column_type(type oid, modifier integer) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    base pg_type%ROWTYPE;
    element oid;
BEGIN
    LOOP
        SELECT * INTO base FROM pg_type WHERE oid = type;
        EXIT WHEN base.typtype IS DISTINCT FROM 'd';
        type := base.typbasetype;
        modifier := base.typtypmod;
    END LOOP;
    SELECT oid INTO element FROM pg_type WHERE oid = base.typelem AND typtype = 'd' AND base.typcategory = 'A';
    IF FOUND THEN
        RETURN philotes.column_type(element, -1) || '[]';
    END IF;
    RETURN format_type(type, modifier);
END $$;

-- How many dimensions arrays of a type are declared with, at the column and at domains beneath it; null where that is one or none.
CREATE OR REPLACE FUNCTION philotes.dimensions(type oid, declared integer) RETURNS integer
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found pg_type%ROWTYPE;
    dimensions integer := 0;
BEGIN
    LOOP
        SELECT * INTO found FROM pg_type WHERE oid = type;
        IF found.typtype = 'd' THEN
            declared := declared + found.typndims;
            type := found.typbasetype;
        ELSIF found.typcategory = 'A' AND found.typlen = -1 AND found.typelem <> 0 THEN
            dimensions := dimensions + greatest(declared, 1);
            declared := 0;
            type := found.typelem;
        ELSE
            RETURN CASE WHEN dimensions > 1 THEN dimensions END;
        END IF;
    END LOOP;
END $$;

-- Whether values of a type, or its elements, are told to be given as their own text; see philotes.exact_json.
CREATE OR REPLACE FUNCTION philotes.is_text(type oid) RETURNS boolean
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
        SELECT CASE WHEN philotes.element_type(type) IN ('json'::regtype, 'jsonb'::regtype) THEN true END);
END $$;

-- The fields of a composite type, also where the type is an array of it: what philotes.describe says of a column, without what
-- only columns have.
CREATE OR REPLACE FUNCTION philotes.fields(type oid) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
        SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                'name', a.attname, 'type', philotes.column_type(a.atttypid, a.atttypmod), 'text', philotes.is_text(a.atttypid),
                'dimensions', philotes.dimensions(a.atttypid, a.attndims), 'fields', philotes.fields(a.atttypid))) ORDER BY a.attnum)
        FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE t.oid = philotes.element_type(type) AND t.typtype = 'c');
END $$;

-- SQL that makes JSON of a value where to_jsonb would lose something of it; null where it does not. It loses the sign of
-- a float's zero, and of json the text (and refuses some: the escape of a NUL). A null of jsonb would look like NULL, so that it and
-- strings are given as their text, too. Types of extensions count by their text, not by what a cast of theirs makes of them.
CREATE OR REPLACE FUNCTION philotes.exact_json(type oid, value text, depth integer DEFAULT 0) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    base pg_type%ROWTYPE;
    element pg_type%ROWTYPE;
    item text := 'e' || depth;
    exact_item text;
    members text;
    inexact boolean;
BEGIN
    SELECT * INTO base FROM pg_type WHERE oid = philotes.base_type(type);
    IF base.oid IN ('float4'::regtype, 'float8'::regtype) THEN
        RETURN format('CASE WHEN %1$s = 0 THEN to_jsonb((%1$s)::text) ELSE to_jsonb(%1$s) END', value);
    ELSIF base.oid = 'jsonb'::regtype THEN
        RETURN format('CASE WHEN jsonb_typeof(%1$s) IN (''string'', ''null'') THEN to_jsonb((%1$s)::text) ELSE %1$s END', value);
    ELSIF base.oid IN ('json'::regtype, 'int2vector'::regtype, 'oidvector'::regtype)
        OR base.oid >= 16384 AND base.typtype <> 'c' AND EXISTS (SELECT FROM pg_cast
            WHERE castsource = base.oid AND casttarget IN ('json'::regtype, 'jsonb'::regtype)) THEN
        RETURN format('to_jsonb((%s)::text)', value);
    ELSIF base.typcategory = 'A' AND base.typlen = -1 AND base.typelem <> 0 THEN
        SELECT * INTO element FROM pg_type WHERE oid = philotes.base_type(base.typelem);
        exact_item := philotes.exact_json(element.oid, item, depth + 1);
        IF exact_item IS NULL THEN
            RETURN NULL;
        ELSIF element.typtype <> 'c' AND element.typcategory <> 'A' THEN
            RETURN format('to_jsonb((%s)::text[])', value);
        END IF;
        RETURN format('CASE WHEN array_ndims(%1$s) > 1 THEN to_jsonb(%1$s) WHEN %1$s IS NULL THEN NULL ELSE coalesce('
            '(SELECT jsonb_agg(%2$s ORDER BY n) FROM (SELECT n, (%1$s)[n] AS %3$s FROM generate_subscripts(%1$s, 1) n) s), '
            'jsonb_build_array()) END', value, exact_item, item);
    ELSIF base.typtype = 'c' THEN
        SELECT string_agg(format('%s AS %I', coalesce(exact, field), attname), ', ' ORDER BY attnum), bool_or(exact IS NOT NULL)
            INTO members, inexact
            FROM pg_attribute a
            CROSS JOIN LATERAL (SELECT format('(%s).%I', value, a.attname)) f (field)
            CROSS JOIN LATERAL (SELECT philotes.exact_json(a.atttypid, field, depth)) e (exact)
            WHERE attrelid = base.typrelid AND attnum > 0 AND NOT attisdropped;
        IF members IS NULL THEN
            -- Without fields it has no other form.
            RETURN format('to_jsonb((%s)::text)', value);
        ELSIF inexact THEN
            RETURN format('CASE WHEN (%1$s)::text IS NOT NULL THEN (SELECT to_jsonb(r.*) FROM (SELECT %2$s) r) END', value, members);
        END IF;
    END IF;
    RETURN NULL;
END $$;

-- What the catalog says of a table: {"key": [name...], "metadata": {"relation", "columns": [...]}, "image": SQL}. Of each
-- column there is "name", "type", "nullable", "number"; "text" where values may be given as their own text in a string,
-- "dimensions" of an array declared with several, "fields" of a composite type or an array of one; and "comment" where that is wanted.
-- The SQL makes the JSON of a row, where to_jsonb is not exact.
CREATE OR REPLACE FUNCTION philotes.describe(relation oid, comments boolean) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
        WITH attributes AS MATERIALIZED (
            SELECT *, atttypid >= 16384 AS foreign_type,
                -- Most of PostgreSQL's own types need no closer look: numbers, json, jsonb and the arrays of them do, and two vectors.
                atttypid IN (700, 701, 114, 3802, 1021, 1022, 199, 3807, 22, 30, 1006, 1013) AS special_type
            FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped),
        columns AS MATERIALIZED (
            SELECT attnum, attname,
                jsonb_strip_nulls(jsonb_build_object('name', attname, 'nullable', NOT attnotnull, 'number', attnum,
                    'type', CASE WHEN foreign_type THEN philotes.column_type(atttypid, atttypmod) ELSE format_type(atttypid, atttypmod) END,
                    'text', CASE WHEN foreign_type OR special_type THEN philotes.is_text(atttypid) END,
                    'dimensions', CASE WHEN foreign_type THEN philotes.dimensions(atttypid, attndims)
                        WHEN attndims > 1 THEN attndims END,
                    'fields', CASE WHEN foreign_type THEN philotes.fields(atttypid) END,
                    'comment', CASE WHEN comments THEN col_description(relation, attnum) END)) AS told,
                CASE WHEN foreign_type OR special_type THEN philotes.exact_json(atttypid, format('($1).%I', attname)) END AS exact
            FROM attributes)
        SELECT jsonb_build_object(
            'key', coalesce((
                SELECT jsonb_agg(a.attname ORDER BY k.position)
                FROM pg_index i
                CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
                JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                WHERE i.indrelid = relation AND i.indisprimary AND k.position <= i.indnkeyatts), '[]'),
            'metadata', jsonb_build_object(
                -- A table's numbers mean nothing in another database.
                'relation', (SELECT oid FROM pg_database WHERE datname = current_database()) || '.' || relation,
                'columns', coalesce((SELECT jsonb_agg(told ORDER BY attnum) FROM columns), '[]')),
            'image', (
                SELECT CASE WHEN bool_or(exact IS NOT NULL) THEN 'SELECT to_jsonb(r.*) FROM (SELECT '
                    || string_agg(format('%s AS %I', coalesce(exact, format('($1).%I', attname)), attname), ', ' ORDER BY attnum)
                    || ') r' END
                FROM columns)));
END $$;

-- Before each statement: read the catalog once and keep what it says for the rows of this statement. It cannot grow
-- stale: nothing alters a table between a statement on it and that statement's row triggers.
CREATE OR REPLACE FUNCTION philotes.capture_statement() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('philotes.table_' || TG_RELID, philotes.describe(TG_RELID, TG_ARGV[1] = 'comments')::text, true);
    PERFORM pg_notify('philotes_cdc_events', TG_ARGV[0]);
    RETURN NULL;
END $$;

-- After each row: one row of the buffer. The settings make to_jsonb print values in one way, whatever the session says.
CREATE OR REPLACE FUNCTION philotes.capture_row() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD'
    SET bytea_output = 'hex' SET extra_float_digits = 1 SET intervalstyle = 'postgres' AS $$
DECLARE
    root oid := coalesce(pg_partition_root(TG_RELID), TG_RELID);
    schema_name text := TG_TABLE_SCHEMA;
    table_name text := TG_TABLE_NAME;
    described jsonb;
    image text;
    before jsonb;
    after jsonb;
BEGIN
    IF root = TG_RELID THEN
        described := coalesce(nullif(current_setting('philotes.table_' || root, true), '')::jsonb,
                              philotes.describe(root, TG_ARGV[1] = 'comments'));
    ELSE
        -- A row of a partition counts as one of its table; the statement may have named the partition itself.
        described := philotes.describe(root, TG_ARGV[1] = 'comments');
        SELECT n.nspname, c.relname INTO schema_name, table_name
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = root;
    END IF;
    image := described ->> 'image';
    IF image IS NULL THEN
        IF TG_OP <> 'INSERT' THEN before := to_jsonb(OLD); END IF;
        IF TG_OP <> 'DELETE' THEN after := to_jsonb(NEW); END IF;
    ELSE
        IF TG_OP <> 'INSERT' THEN EXECUTE image INTO before USING OLD; END IF;
        IF TG_OP <> 'DELETE' THEN EXECUTE image INTO after USING NEW; END IF;
    END IF;
    INSERT INTO philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, transaction_id, key_columns,
                                     before_data, after_data, metadata, event_time)
    VALUES (TG_ARGV[0], schema_name, table_name, TG_OP, pg_current_wal_insert_lsn()::text,
            pg_current_xact_id()::text::bigint, described -> 'key',
            before, after, described -> 'metadata', clock_timestamp());
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION philotes.capture_truncate() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    described jsonb := philotes.describe(TG_RELID, TG_ARGV[1] = 'comments');
BEGIN
    INSERT INTO philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, transaction_id, key_columns,
                                     metadata, event_time)
    VALUES (TG_ARGV[0], TG_TABLE_SCHEMA, TG_TABLE_NAME, 'TRUNCATE', pg_current_wal_insert_lsn()::text,
            pg_current_xact_id()::text::bigint, described -> 'key',
            described -> 'metadata', clock_timestamp());
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

-- Captures a table: every later change of it goes to the buffer under this source_id. With `comments` each row of the buffer
-- carries the comments of the table's columns as well.
DROP FUNCTION IF EXISTS philotes.capture(regclass, text);
CREATE OR REPLACE FUNCTION philotes.capture(relation regclass, source_id text, comments boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql AS $$
DECLARE
    arguments text := format('%L, %L', source_id, CASE WHEN comments THEN 'comments' ELSE '' END);
BEGIN
    PERFORM philotes.uncapture(relation);
    EXECUTE format('CREATE TRIGGER philotes_capture_statement BEFORE INSERT OR UPDATE OR DELETE ON %s '
        'FOR EACH STATEMENT EXECUTE FUNCTION philotes.capture_statement(%s)', relation, arguments);
    EXECUTE format('CREATE TRIGGER philotes_capture_row AFTER INSERT OR UPDATE OR DELETE ON %s '
        'FOR EACH ROW EXECUTE FUNCTION philotes.capture_row(%s)', relation, arguments);
    EXECUTE format('CREATE TRIGGER philotes_capture_truncate AFTER TRUNCATE ON %s '
        'FOR EACH STATEMENT EXECUTE FUNCTION philotes.capture_truncate(%s)', relation, arguments);
END $$;

COMMIT;
