-- Capture by triggers, for those who have no other writer for the buffer: each change of a captured table is written to
-- philotes.cdc_events in the same transaction, with the types of its columns.
--
-- Run by the action `capture` of the source postgres-buffer, which then calls philotes.capture per table; with psql:
--   \i capture.sql
--   SELECT philotes.capture('public.orders', 'shop');
--   SELECT philotes.uncapture('public.orders');
-- Needs init.sql. Everything here may be run again.
--
-- The trigger functions run as the owner of the schema philotes, whoever changes the table. So they
-- believe nothing that a session can set, and run nothing of a user's: no function, operator or
-- cast, also not by way of to_jsonb, which calls a cast to json of a user's type. Values of such
-- types are taken by their output functions, which format('%s', …) calls; only superusers can make
-- those.

BEGIN;

-- Nothing of a user's is found in place of what is meant.
SET LOCAL search_path = pg_catalog, pg_temp;

-- What is executed here or believed later belongs to the role that runs this, to a role that it is
-- a member of, or to a superuser. A superuser is a member of every role, so only its own and other
-- superusers' things count for it.
DO $$
DECLARE
    strangers text;
BEGIN
    SELECT string_agg(format('%s (%s)', thing, coalesce(quote_ident(r.rolname), 'PUBLIC')), ', ' ORDER BY thing) INTO strangers
    FROM (
        SELECT n.nspowner, 'schema philotes' FROM pg_namespace n WHERE n.nspname = 'philotes'
        UNION ALL
        SELECT c.relowner, format('relation philotes.%I', c.relname)
        FROM pg_class c WHERE c.relnamespace = to_regnamespace('philotes')
        UNION ALL
        SELECT p.proowner, format('function philotes.%I', p.proname)
        FROM pg_proc p WHERE p.pronamespace = to_regnamespace('philotes')
        UNION ALL
        SELECT t.typowner, format('type philotes.%I', t.typname)
        FROM pg_type t WHERE t.typnamespace = to_regnamespace('philotes') AND t.typrelid = 0 AND t.typelem = 0
        UNION ALL
        SELECT p.proowner, format('function of trigger %I on philotes.%I', t.tgname, c.relname)
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
        WHERE c.relnamespace = to_regnamespace('philotes') AND NOT t.tgisinternal
        UNION ALL
        SELECT a.grantee, 'right to create in schema philotes'
        FROM pg_namespace n, aclexplode(n.nspacl) a WHERE n.nspname = 'philotes' AND a.privilege_type = 'CREATE'
        UNION ALL
        SELECT a.grantee, format('right to create triggers on philotes.%I', c.relname)
        FROM pg_class c, aclexplode(c.relacl) a
        WHERE c.relnamespace = to_regnamespace('philotes') AND a.privilege_type = 'TRIGGER'
    ) things (role, thing)
    LEFT JOIN pg_roles r ON r.oid = role
    CROSS JOIN (SELECT * FROM pg_roles WHERE rolname = current_user) me
    WHERE role <> me.oid AND r.rolsuper IS NOT TRUE AND (role = 0 OR me.rolsuper OR NOT pg_has_role(me.oid, role, 'USAGE'));
    IF strangers IS NOT NULL THEN
        RAISE EXCEPTION 'schema philotes holds what is not of %: %; whoever has these could run code as the role that captures. '
            'Look at them, then run this as their owner, give them to the role that runs it (ALTER ... OWNER TO), revoke the '
            'rights, or drop what nobody knows', quote_ident(current_user), left(strangers, 1000)
            USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;

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

-- Whether values of a type, or its elements, are told to be given as their own text; see
-- philotes.value_json.
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

-- The JSON of a value that is given as PostgreSQL prints it: what to_jsonb makes of it, but
-- exactly, and without calling a cast. to_jsonb loses the sign of a float's zero, and of json the
-- text (and refuses some: the escape of a NUL). A null of jsonb would look like NULL, so that it
-- and strings are given as their text, too.
CREATE OR REPLACE FUNCTION philotes.value_json(value text, type oid) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    base pg_type%ROWTYPE;
    element pg_type%ROWTYPE;
    as_text boolean;
    fields text[];
    json jsonb;
BEGIN
    IF value IS NULL THEN
        RETURN NULL;
    END IF;
    SELECT * INTO base FROM pg_type WHERE oid = philotes.base_type(type);
    IF base.oid IN ('int2vector'::regtype, 'oidvector'::regtype) THEN
        RETURN to_jsonb(value);
    ELSIF base.typcategory = 'A' AND base.typlen = -1 AND base.typelem <> 0 THEN
        SELECT * INTO element FROM pg_type WHERE oid = base.typelem;
        as_text := philotes.base_type(element.oid) IN ('float4'::regtype, 'float8'::regtype, 'json'::regtype, 'jsonb'::regtype);
        -- Bounds that do not begin at 1 stand before the braces. The character between elements is
        -- up to their type.
        SELECT string_agg(CASE
                WHEN token = '{' THEN '['
                WHEN token = '}' THEN ']'
                WHEN token = element.typdelim::text THEN ','
                WHEN token = 'NULL' THEN 'null'
                WHEN as_text THEN to_jsonb(item)::text
                ELSE philotes.value_json(item, element.oid)::text END, '' ORDER BY n)::jsonb INTO json
            FROM regexp_matches(regexp_replace(value, E'^\\[[^{]*=', ''),
                format(E'"(?:[^"\\\\]|\\\\.)*"|[{}]|[\\%1$s]|[^{}"\\%1$s]+', element.typdelim), 'g')
                WITH ORDINALITY AS m (parts, n)
            CROSS JOIN LATERAL (SELECT parts[1], CASE WHEN left(parts[1], 1) = '"'
                THEN regexp_replace(substr(parts[1], 2, length(parts[1]) - 2), E'\\\\(.)', E'\\1', 'g')
                ELSE parts[1] END) t (token, item);
        RETURN json;
    ELSIF base.typtype = 'c' THEN
        fields := ARRAY(SELECT CASE WHEN left(parts[1], 1) = '"'
                THEN replace(replace(substr(parts[1], 2, length(parts[1]) - 2), '""', '"'), E'\\\\', E'\\')
                ELSE nullif(parts[1], '') END
            FROM regexp_matches(substr(value, 2, length(value) - 2) || ',', '("(?:[^"]|"")*"|[^",]*),', 'g')
                WITH ORDINALITY AS m (parts, n) ORDER BY n);
        SELECT jsonb_object_agg(attname, philotes.value_json(fields[n], atttypid)) INTO json
            FROM (SELECT attname, atttypid, row_number() OVER (ORDER BY attnum) AS n, count(*) OVER () AS all_of_them
                FROM pg_attribute WHERE attrelid = base.typrelid AND attnum > 0 AND NOT attisdropped) a
            WHERE all_of_them = cardinality(fields);
        IF json IS NULL AND value <> '()' THEN
            RAISE EXCEPTION 'type % was altered after this transaction began', format_type(base.oid, NULL)
                USING ERRCODE = 'serialization_failure';
        END IF;
        -- Without fields it has no other form.
        RETURN coalesce(json, to_jsonb(value));
    END IF;
    CASE base.oid
        WHEN 'boolean'::regtype THEN RETURN to_jsonb(value::boolean);
        WHEN 'int2'::regtype, 'int4'::regtype, 'int8'::regtype THEN RETURN to_jsonb(value::int8);
        WHEN 'numeric'::regtype THEN RETURN to_jsonb(value::numeric);
        WHEN 'float4'::regtype THEN
            RETURN CASE WHEN value IN ('0', '-0') THEN to_jsonb(value) ELSE to_jsonb(value::float4) END;
        WHEN 'float8'::regtype THEN
            RETURN CASE WHEN value IN ('0', '-0') THEN to_jsonb(value) ELSE to_jsonb(value::float8) END;
        WHEN 'date'::regtype THEN RETURN to_jsonb(value::date);
        WHEN 'timestamp'::regtype THEN RETURN to_jsonb(value::timestamp);
        WHEN 'timestamptz'::regtype THEN RETURN to_jsonb(value::timestamptz);
        WHEN 'jsonb'::regtype THEN
            json := value::jsonb;
            RETURN CASE WHEN jsonb_typeof(json) IN ('string', 'null') THEN to_jsonb(value) ELSE json END;
        ELSE RETURN to_jsonb(value);
    END CASE;
END $$;

-- SQL that makes JSON of a column's value, which the SQL `value` has. The `known` form relies on
-- the column's type being what it is described as, where that is a type of PostgreSQL's own; the
-- other form is safe whatever the type has become.
CREATE OR REPLACE FUNCTION philotes.column_json(type oid, value text, known boolean) RETURNS text
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    base pg_type%ROWTYPE;
    is_array boolean;
    -- The value as it is printed. A row of nothing but nulls IS NULL; num_nonnulls is not misled by
    -- it.
    printed text := format('CASE WHEN num_nonnulls(%1$s) = 1 THEN format(''%%s'', %1$s) END', value);
BEGIN
    SELECT * INTO base FROM pg_type WHERE oid = philotes.base_type(type);
    is_array := base.typcategory = 'A' AND base.typlen = -1 AND base.typelem <> 0;
    IF base.oid IN ('json'::regtype, 'int2vector'::regtype, 'oidvector'::regtype) THEN
        RETURN format('to_jsonb(%s)', printed);
    ELSIF base.typtype = 'c' OR is_array AND (base.oid >= 16384 OR NOT known) THEN
        RETURN format('philotes.value_json(%s, %s::oid)', printed, base.oid);
    ELSIF base.oid >= 16384 THEN
        RETURN format('to_jsonb(%s)', printed);
    ELSIF is_array AND base.typelem IN ('float4'::regtype, 'float8'::regtype, 'json'::regtype, 'jsonb'::regtype,
            'int2vector'::regtype, 'oidvector'::regtype) THEN
        RETURN format('to_jsonb((%s)::text[])', value);
    ELSIF NOT known THEN
        IF NOT base.oid = ANY ('{bool,int2,int4,int8,numeric,float4,float8,date,timestamp,timestamptz,jsonb}'::regtype[]) THEN
            RETURN format('to_jsonb(%s)', printed);
        END IF;
        value := format('(%s)::%I.%I', printed, 'pg_catalog', base.typname);
    END IF;
    RETURN CASE
        WHEN base.oid IN ('float4'::regtype, 'float8'::regtype) THEN
            format('CASE WHEN %1$s = 0 THEN to_jsonb((%1$s)::text) ELSE to_jsonb(%1$s) END', value)
        WHEN base.oid = 'jsonb'::regtype THEN
            format('CASE WHEN jsonb_typeof(%1$s) IN (''string'', ''null'') THEN to_jsonb((%1$s)::text) ELSE %1$s END', value)
        ELSE format('to_jsonb(%s)', value) END;
END $$;

-- What a description depends on. A statement on the table holds its columns, but not what its types
-- consist of. (A set, so that it becomes a part of the query that asks.)
CREATE OR REPLACE FUNCTION philotes.shape(relation oid, comments boolean)
    RETURNS TABLE (numbers int2[], names name[], types oid[], modifiers int4[], dimensions int4[], traits text,
        primary_key text, told_comments jsonb)
    LANGUAGE sql STABLE AS $$
    SELECT coalesce(array_agg(attnum), '{}'), coalesce(array_agg(attname), '{}'), coalesce(array_agg(atttypid), '{}'),
        coalesce(array_agg(atttypmod), '{}'), coalesce(array_agg(attndims::int4), '{}'),
        coalesce(string_agg(CASE WHEN attnotnull THEN '!' ELSE '?' END || attgenerated::text, ''), ''),
        coalesce((SELECT indnkeyatts || ':' || indkey::text FROM pg_catalog.pg_index WHERE indrelid = relation AND indisprimary), ''),
        CASE WHEN comments THEN (SELECT coalesce(jsonb_object_agg(objsubid, description), '{}') FROM pg_catalog.pg_description
            WHERE objoid = relation AND classoid = 'pg_catalog.pg_class'::regclass AND objsubid > 0) ELSE '{}' END
    FROM (SELECT * FROM pg_catalog.pg_attribute
        WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped ORDER BY attnum) a
$$;

-- The types that are not PostgreSQL's own among these and all that they lead to.
CREATE OR REPLACE FUNCTION philotes.reached(types oid[]) RETURNS oid[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN ARRAY(
        WITH RECURSIVE reached (oid) AS (
            SELECT unnest(types)
            UNION
            SELECT next.oid FROM reached JOIN pg_type t ON t.oid = reached.oid AND t.oid >= 16384
            CROSS JOIN LATERAL (
                SELECT t.typbasetype UNION ALL SELECT t.typelem UNION ALL
                SELECT atttypid FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped) next (oid)
            WHERE next.oid <> 0)
        SELECT oid FROM reached WHERE oid >= 16384 ORDER BY oid);
END $$;

-- What a description depends on of these types: their names and their fields.
CREATE OR REPLACE FUNCTION philotes.type_shapes(types oid[]) RETURNS text[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN ARRAY(
        SELECT format('%s %s %s %I.%I', t.oid, a.attnum, a.shape, n.nspname, t.typname)
        FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        LEFT JOIN LATERAL (
            SELECT attnum, format('%s %s %s %I', atttypid, atttypmod, attndims, attname)
            FROM pg_attribute WHERE t.typtype = 'c' AND attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped) a (attnum, shape)
            ON true
        WHERE t.oid = ANY (types) ORDER BY t.oid, a.attnum);
END $$;

-- What the catalog says of a table: {"key": [name...], "metadata": {"relation", "columns": [...]}}.
-- Of each column there is "name", "type", "nullable", "number"; "text" where values may be given as
-- their own text in a string, "dimensions" of an array declared with several, "fields" of a
-- composite type or an array of one; and "comment" where that is wanted.
CREATE OR REPLACE FUNCTION philotes.describe(relation oid, comments boolean) RETURNS jsonb
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
        WITH columns AS MATERIALIZED (
            SELECT attnum,
                jsonb_strip_nulls(jsonb_build_object('name', attname, 'nullable', NOT attnotnull, 'number', attnum,
                    'type', philotes.column_type(atttypid, atttypmod), 'text', philotes.is_text(atttypid),
                    'dimensions', philotes.dimensions(atttypid, attndims), 'fields', philotes.fields(atttypid),
                    'comment', CASE WHEN comments THEN col_description(relation, attnum) END)) AS told
            -- A virtual column's value is not there when triggers run.
            FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped AND attgenerated <> 'v')
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
                'columns', coalesce((SELECT jsonb_agg(told ORDER BY attnum) FROM columns), '[]'))));
END $$;

-- Descriptions of tables, so that each is made once and not for every row. A row of a table is
-- described by one that fits the catalog as it is when the row is captured; what does not fit is
-- left alone. Only the owner may write here.
CREATE TABLE IF NOT EXISTS philotes.descriptions (
    relation     text NOT NULL,
    numbers      int2[] NOT NULL,
    names        name[] NOT NULL,
    types        oid[] NOT NULL,
    modifiers    int4[] NOT NULL,
    dimensions   int4[] NOT NULL,
    traits       text NOT NULL,
    primary_key  text NOT NULL,
    comments     jsonb NOT NULL,
    commented    boolean NOT NULL,
    reached      oid[] NOT NULL,
    type_shapes  text[] NOT NULL,
    key_columns  jsonb NOT NULL,
    metadata     jsonb NOT NULL,
    -- SQL that makes the JSON of the row $1; null where to_jsonb does as well.
    image        text,
    -- The same, safe whatever the columns' types have become.
    careful      text NOT NULL
);
CREATE INDEX IF NOT EXISTS descriptions_relation_idx ON philotes.descriptions (relation);
-- Another version's may have other forms.
DELETE FROM philotes.descriptions;

-- Adds the description of a table. There may be two that are the same: to look for the other's
-- would be to wait for it.
CREATE OR REPLACE FUNCTION philotes.add_description(relation oid, comments boolean) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO philotes.descriptions
    SELECT d.told -> 'metadata' ->> 'relation', s.numbers, s.names, s.types, s.modifiers, s.dimensions, s.traits, s.primary_key,
        s.told_comments, comments, r.reached, philotes.type_shapes(r.reached), d.told -> 'key', d.told -> 'metadata',
        CASE WHEN c.plain THEN NULL ELSE c.image END, c.careful
    FROM philotes.shape(relation, comments) s
    CROSS JOIN LATERAL philotes.reached(s.types) r (reached)
    CROSS JOIN LATERAL philotes.describe(relation, comments) d (told)
    CROSS JOIN LATERAL (
        SELECT coalesce(bool_and(attgenerated <> 'v' AND known = format('to_jsonb(%s)', field)), true),
            format('SELECT to_jsonb(r.*) FROM (SELECT %s) r', string_agg(format('%s AS %I',
                CASE WHEN known = format('to_jsonb(%s)', field) THEN field ELSE known END, attname), ', ' ORDER BY attnum)
                FILTER (WHERE attgenerated <> 'v')),
            format('SELECT to_jsonb(r.*) FROM (SELECT %s) r', string_agg(format('%s AS %I', careful, attname), ', ' ORDER BY attnum)
                FILTER (WHERE attgenerated <> 'v'))
        FROM pg_attribute a
        CROSS JOIN LATERAL (SELECT format('($1).%I', attname)) f (field)
        CROSS JOIN LATERAL (SELECT philotes.column_json(atttypid, field, true), philotes.column_json(atttypid, field, false)) j (known, careful)
        WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped) c (plain, image, careful);
END $$;

-- After each row: one row of the buffer. The settings make values and types print in one way,
-- whatever the session says.
CREATE OR REPLACE FUNCTION philotes.capture_row() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' SET datestyle = 'ISO, YMD'
    SET bytea_output = 'hex' SET extra_float_digits = 1 SET intervalstyle = 'postgres'
    SET array_nulls = on SET quote_all_identifiers = off AS $$
DECLARE
    root oid := coalesce(pg_partition_root(TG_RELID), TG_RELID);
    schema_name text := TG_TABLE_SCHEMA;
    table_name text := TG_TABLE_NAME;
    with_comments boolean := TG_ARGV[1] = 'comments';
    -- Such a transaction sees the catalog as it was when it began, and the table may have been
    -- altered since. What describes an object of the catalog sees it as it is: there must be no
    -- column after the last that is known.
    repeatable boolean := current_setting('transaction_isolation') IN ('repeatable read', 'serializable');
    key_columns jsonb;
    metadata jsonb;
    image text;
    careful text;
    before jsonb;
    after jsonb;
BEGIN
    IF root <> TG_RELID THEN
        -- A row of a partition counts as one of its table; the statement may have named the partition itself.
        SELECT n.nspname, c.relname INTO schema_name, table_name
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = root;
    END IF;
    IF repeatable THEN
        IF EXISTS (SELECT FROM unnest(ARRAY[root, TG_RELID]) t (oid) LEFT JOIN pg_class c USING (oid)
            WHERE c.oid IS NULL OR pg_describe_object('pg_class'::regclass, t.oid, c.relnatts + 1) IS NOT NULL)
        THEN
            RAISE EXCEPTION 'table %.% was altered after this transaction began', TG_TABLE_SCHEMA, TG_TABLE_NAME
                USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    FOR attempt IN 1..3 LOOP
        SELECT d.key_columns, d.metadata, d.image, d.careful INTO key_columns, metadata, image, careful
            FROM philotes.shape(root, with_comments) s
            JOIN philotes.descriptions d ON d.relation = (SELECT oid FROM pg_database WHERE datname = current_database()) || '.' || root
                AND d.types = s.types AND d.names = s.names AND d.numbers = s.numbers AND d.modifiers = s.modifiers
                AND d.dimensions = s.dimensions AND d.traits = s.traits AND d.primary_key = s.primary_key
                AND d.commented = with_comments AND d.comments = s.told_comments
                AND (d.reached = '{}' OR d.type_shapes = philotes.type_shapes(d.reached))
            LIMIT 1;
        EXIT WHEN FOUND;
        IF attempt = 3 THEN
            RAISE EXCEPTION 'the types of table %.% change while a row of it is captured', schema_name, table_name
                USING ERRCODE = 'serialization_failure';
        END IF;
        PERFORM philotes.add_description(root, with_comments);
    END LOOP;
    IF repeatable THEN
        image := careful;
    END IF;
    -- Where there is no image, all columns are of types of PostgreSQL's own, and to_jsonb calls
    -- nothing but their output.
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
            pg_current_xact_id()::text::bigint, key_columns, before, after, metadata, clock_timestamp());
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION philotes.capture_truncate() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off AS $$
DECLARE
    described jsonb := philotes.describe(TG_RELID, TG_ARGV[1] = 'comments');
BEGIN
    INSERT INTO philotes.cdc_events (source_id, schema_name, table_name, operation, lsn, transaction_id, key_columns,
                                     metadata, event_time)
    VALUES (TG_ARGV[0], TG_TABLE_SCHEMA, TG_TABLE_NAME, 'TRUNCATE', pg_current_wal_insert_lsn()::text,
            pg_current_xact_id()::text::bigint, described -> 'key',
            described -> 'metadata', clock_timestamp());
    RETURN NULL;
END $$;

-- A table's own triggers fire in the order of their names. Capture's come first: a row that another
-- AFTER trigger changes again would otherwise arrive in reverse.
CREATE OR REPLACE FUNCTION philotes.uncapture(relation regclass) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
    captured text := (SELECT format('%I.%I', n.nspname, c.relname)
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation);
BEGIN
    FOR name IN SELECT tgname FROM pg_trigger WHERE tgrelid = relation AND NOT tgisinternal AND tgparentid = 0 AND tgname IN (
        '!philotes_capture_row', '!philotes_capture_truncate',
        -- What earlier versions called theirs.
        'philotes_capture_statement', 'philotes_capture_row', 'philotes_capture_truncate')
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', name, captured);
    END LOOP;
END $$;

-- Captures a table: every later change of it goes to the buffer under this source_id. With `comments` each row of the buffer
-- carries the comments of the table's columns as well.
DROP FUNCTION IF EXISTS philotes.capture(regclass, text);
CREATE OR REPLACE FUNCTION philotes.capture(relation regclass, source_id text, comments boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    arguments text := format('%L, %L', source_id, CASE WHEN comments THEN 'comments' ELSE '' END);
    schema text;
    kind "char";
    captured text;
    first name;
BEGIN
    SELECT n.nspname, c.relkind, format('%I.%I', n.nspname, c.relname) INTO schema, kind, captured
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
    IF kind IS NULL OR kind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '% is no table', coalesce(captured, 'null') USING ERRCODE = 'wrong_object_type';
    ELSIF schema IN ('philotes', 'pg_catalog', 'information_schema') THEN
        RAISE EXCEPTION 'table % cannot be captured: it is a table of the server or of capture itself', captured
            USING ERRCODE = 'wrong_object_type';
    END IF;
    PERFORM philotes.uncapture(relation);
    EXECUTE format('CREATE TRIGGER "!philotes_capture_row" AFTER INSERT OR UPDATE OR DELETE ON %s '
        'FOR EACH ROW EXECUTE FUNCTION philotes.capture_row(%s)', captured, arguments);
    EXECUTE format('CREATE TRIGGER "!philotes_capture_truncate" AFTER TRUNCATE ON %s '
        'FOR EACH STATEMENT EXECUTE FUNCTION philotes.capture_truncate(%s)', captured, arguments);
    -- Bits of tgtype: 1 of a row, 2 before, 64 instead.
    SELECT min(tgname) INTO first FROM pg_trigger
        WHERE tgrelid = relation AND tgtype & (1 | 2 | 64) = 1 AND tgname < '!philotes_capture_row';
    IF first IS NOT NULL THEN
        RAISE EXCEPTION 'trigger % of table % would fire before capture, so that rows that it changes again would arrive in '
            'reverse: triggers fire in the order of their names, and those of capture begin with "!"; rename it with ALTER TRIGGER',
            quote_ident(first), captured USING ERRCODE = 'invalid_object_definition';
    END IF;
END $$;

-- Tables that an earlier version captures, under other names and with a trigger more. Arguments end
-- with a zero byte.
DO $$
DECLARE
    captured record;
BEGIN
    FOR captured IN
        SELECT t.tgrelid, split.source_id, split.rest = convert_to('comments', 'UTF8') || zero AS comments
        FROM pg_trigger t
        CROSS JOIN (SELECT decode('00', 'hex')) z (zero)
        CROSS JOIN LATERAL (SELECT position(zero IN t.tgargs)) p (zero_at)
        CROSS JOIN LATERAL (SELECT convert_from(substring(t.tgargs FROM 1 FOR zero_at - 1), getdatabaseencoding()),
            substring(t.tgargs FROM zero_at + 1)) split (source_id, rest)
        WHERE t.tgfoid = to_regproc('philotes.capture_row') AND t.tgname = 'philotes_capture_row' AND t.tgparentid = 0
    LOOP
        PERFORM philotes.capture(captured.tgrelid, captured.source_id, captured.comments);
    END LOOP;
END $$;
DROP FUNCTION IF EXISTS philotes.capture_statement();
DROP FUNCTION IF EXISTS philotes.exact_json(oid, text, integer);

-- To fire, a trigger needs no right of whoever changes the table; to make one with these functions
-- does.
REVOKE ALL ON ALL TABLES IN SCHEMA philotes FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA philotes FROM PUBLIC;

COMMIT;
