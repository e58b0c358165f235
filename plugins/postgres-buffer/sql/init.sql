-- The buffer that Philotes writers fill and Philotes Connect reads, and what Connect keeps beside it.
--
-- Run by the action `init` of the source postgres-buffer; psql runs it too. It may be run again at any time: what is
-- there stays, what is missing is added. Needs the right to create a schema in the database.

BEGIN;

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
        EXECUTE format('ALTER SEQUENCE %s CACHE 1', sequence);
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

COMMIT;
