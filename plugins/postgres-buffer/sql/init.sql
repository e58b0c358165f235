-- The buffer that Philotes writers fill and Philotes Connect reads, and what Connect keeps beside it.
--
-- Run by the action `init` of the source postgres-buffer; psql runs it too. It may be run again at any time: what is
-- there stays, what is missing is added. Needs the right to create a schema in the database.

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

CREATE SCHEMA IF NOT EXISTS philotes;

CREATE TABLE IF NOT EXISTS philotes.cdc_events (
    id             bigserial PRIMARY KEY,
    source_id      text NOT NULL,
    schema_name    text NOT NULL,
    table_name     text NOT NULL,
    operation      text NOT NULL CHECK (operation IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')),
    lsn            text,
    transaction_id bigint,
    key_columns    jsonb,
    before_data    jsonb,
    after_data     jsonb,
    metadata       jsonb,
    event_time     timestamptz,
    created_at     timestamptz NOT NULL DEFAULT now(),
    processed_at   timestamptz
);

CREATE INDEX IF NOT EXISTS cdc_events_unprocessed_idx
    ON philotes.cdc_events (source_id, created_at) WHERE processed_at IS NULL;
CREATE INDEX IF NOT EXISTS cdc_events_processed_idx
    ON philotes.cdc_events (processed_at) WHERE processed_at IS NOT NULL;
-- The index that Connect reads by: a poll costs what it returns, however many rows are processed or waiting.
CREATE INDEX IF NOT EXISTS cdc_events_unprocessed_id_idx
    ON philotes.cdc_events (source_id, id) WHERE processed_at IS NULL;

-- A sequence that hands out ids in blocks per session would make every id late.
DO $$
DECLARE
    sequence regclass := pg_get_serial_sequence('philotes.cdc_events', 'id');
BEGIN
    IF sequence IS NOT NULL AND (SELECT seqcache FROM pg_sequence WHERE seqrelid = sequence) <> 1 THEN
        EXECUTE (SELECT format('ALTER SEQUENCE %I.%I CACHE 1', n.nspname, c.relname)
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = sequence);
    END IF;
END $$;

-- Which table is the buffer: its identity goes with every offset, and a recreated table gets another one.
CREATE TABLE IF NOT EXISTS philotes.buffer (
    relation oid PRIMARY KEY,
    identity uuid NOT NULL DEFAULT gen_random_uuid()
);

-- One row per source_id: the connector that owns it and the epoch of its running task. The counter orders epochs; the
-- random bits tell two databases apart that were cloned from one.
CREATE TABLE IF NOT EXISTS philotes.connectors (
    source_id  text PRIMARY KEY,
    connector  text,
    epoch      bigint NOT NULL DEFAULT 0,
    epoch_bits bigint NOT NULL DEFAULT 0,
    claimed_at timestamptz NOT NULL DEFAULT now()
);

-- The offset last acknowledged, per stream.
CREATE TABLE IF NOT EXISTS philotes.acknowledged (
    source_id  text NOT NULL,
    stream     text NOT NULL,
    epoch      bigint NOT NULL,
    epoch_bits bigint NOT NULL,
    batch      bigint NOT NULL,
    PRIMARY KEY (source_id, stream)
);

-- Which rows a batch holds that was handed out and not acknowledged yet: exactly these ids, never a span.
CREATE TABLE IF NOT EXISTS philotes.batches (
    source_id  text NOT NULL,
    epoch      bigint NOT NULL,
    batch      bigint NOT NULL,
    epoch_bits bigint NOT NULL,
    stream     text NOT NULL,
    ids        int8multirange NOT NULL,
    PRIMARY KEY (source_id, epoch, batch)
);
CREATE INDEX IF NOT EXISTS batches_stream_idx ON philotes.batches (source_id, stream, epoch, batch);

-- A truncated buffer may hand out the same ids again (RESTART IDENTITY), and the lists of ids would then acknowledge new
-- rows. So they are emptied, and whoever reads is fenced. The batches stay known by their offsets: a table that holds
-- one of them can still resume.
CREATE OR REPLACE FUNCTION philotes.buffer_truncated() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    UPDATE philotes.connectors SET epoch = epoch + 1, epoch_bits = (random() * 4611686018427387904)::bigint;
    UPDATE philotes.batches SET ids = '{}';
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER philotes_buffer_truncated
    AFTER TRUNCATE ON philotes.cdc_events
    FOR EACH STATEMENT EXECUTE FUNCTION philotes.buffer_truncated();

-- A buffer that is new here: what was known of the one before means nothing any more.
DO $$
BEGIN
    INSERT INTO philotes.buffer (relation) VALUES ('philotes.cdc_events'::regclass::oid) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        DELETE FROM philotes.buffer WHERE relation <> 'philotes.cdc_events'::regclass::oid;
        UPDATE philotes.connectors SET epoch = epoch + 1, epoch_bits = (random() * 4611686018427387904)::bigint;
        DELETE FROM philotes.batches;
        DELETE FROM philotes.acknowledged;
    END IF;
END $$;

-- Default privileges may have given these to everybody.
REVOKE ALL ON ALL TABLES IN SCHEMA philotes FROM PUBLIC;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA philotes FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA philotes FROM PUBLIC;

COMMIT;
