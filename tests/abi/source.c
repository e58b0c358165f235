/*
 * c-counter: a complete source in C, written against philotes_plugin.h alone.
 *
 * It counts from 1 to `rows` in batches of `batch` rows, as the stream c.counter. It needs no server, so that what is
 * left is what every source does: check a configuration, announce its stream, resume after an offset, hand out Arrow arrays
 * and their schema, honour cancel, and let go of everything. Build it as a shared library:
 *
 *     gcc -std=c11 -Wall -Wextra -fPIC -shared -I sdk/include tests/abi/source.c -o libc_counter.so
 *
 * error.h fills in errors, json.h reads the configuration, rows.h builds the Arrow structs by hand.
 */
#include <philotes_plugin.h>

#include "error.h"
#include "json.h"
#include "rows.h"

#include <stdlib.h>
#include <string.h>
#include <threads.h>
#include <time.h>

#define SCHEMA_ID 1 /* there is one schema, and it never changes */
#define ROW_BYTES 96 /* roughly what a row holds in memory */

/* ---- The configuration --------------------------------------------------------------------------------------- */

struct settings {
    int64_t rows;
    int64_t batch;
    int idle; /* after the last row wait for more, which never comes, instead of ending */
};

static const char config_spec[] =
    "{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"rows\"],\"properties\":{"
    "\"rows\":{\"type\":\"integer\",\"description\":\"How far to count.\"},"
    "\"batch\":{\"type\":\"integer\",\"default\":100,\"description\":\"Rows per batch, 1 to 65536.\"},"
    "\"idle\":{\"type\":\"boolean\",\"default\":false,\"description\":\"Stay after the last row.\"}}}";

/* Reads one integer. Writes a fault, which begins with the key's path, and returns 0 where it is not allowed. */
static int read_integer(philotes_text config, const char *key, int64_t least, int64_t most, int64_t *value,
                        char fault[128])
{
    philotes_text found;
    if (!json_member(config, key, &found)) {
        if (*value >= least)
            return 1; /* the default */
        snprintf(fault, 128, "%s: missing; %lld to %lld is allowed", key, (long long)least, (long long)most);
        return 0;
    }
    if (json_integer(found, value) && *value >= least && *value <= most)
        return 1;
    snprintf(fault, 128, "%s: found %.*s; %lld to %lld is allowed", key, found.length < 24 ? (int)found.length : 24,
             found.data, (long long)least, (long long)most);
    return 0;
}

/* Fills the settings and returns how many faults there are; the texts of up to three stand in `faults`. */
static int read_settings(philotes_text config, struct settings *settings, char faults[3][128])
{
    philotes_text found;
    int count = 0;
    *settings = (struct settings){.rows = -1, .batch = 100, .idle = 0};
    count += !read_integer(config, "rows", 0, INT64_C(1000000000000), &settings->rows, faults[count]);
    count += !read_integer(config, "batch", 1, 65536, &settings->batch, faults[count]);
    if (json_member(config, "idle", &found) && !json_boolean(found, &settings->idle))
        snprintf(faults[count++], 128, "idle: only true or false is allowed");
    return count;
}

static philotes_text text_of(const char *characters)
{
    return (philotes_text){characters, strlen(characters)};
}

static uint32_t counter_validate(const philotes_host *host, philotes_text config, void *slot, philotes_error *error)
{
    (void)error;
    struct settings settings;
    char faults[3][128];
    int count = read_settings(config, &settings, faults);
    for (int i = 0; i < count; i++)
        host->emit(host, slot, text_of(faults[i]));
    return PHILOTES_OK;
}

/* ---- The stream ---------------------------------------------------------------------------------------------- */

static const philotes_text stream_parts[] = {PHILOTES_TEXT("c"), PHILOTES_TEXT("counter")};

/* Static, so that it may be lent for as long as anybody likes. */
static const philotes_partition partition = {
    .struct_size = sizeof(philotes_partition),
    .part_count = 2,
    .parts = stream_parts,
    .partition = PHILOTES_TEXT("0"),
};
static const philotes_partition *const partitions[] = {&partition};

/* ---- An instance --------------------------------------------------------------------------------------------- */

struct counter {
    const philotes_host *host; /* the host's, valid until destroy returns */
    struct settings settings;
    int announced;
    int resumed;
    int schema_sent;
    int64_t delivered; /* the last row that was handed out; the first is 1 */
    int64_t durable;   /* the last row that the sink holds, as far as the host said */
    char offset[32]; /* of the last batch; lent until the next call */

    mtx_t lock; /* guards `cancelled` alone: no other function is called concurrently */
    cnd_t wake;
    int cancelled;
};

static void log_info(const philotes_host *host, const char *message, const char *field, int64_t value)
{
    static const philotes_text target = PHILOTES_TEXT("c_counter");
    char fields[64];
    if (!host->log_enabled(host, PHILOTES_LOG_INFO, target))
        return;
    snprintf(fields, sizeof fields, "{\"%s\":%lld}", field, (long long)value);
    host->log(host, PHILOTES_LOG_INFO, target, text_of(message), text_of(fields));
}

static uint32_t counter_create(const philotes_host *host, philotes_text config, philotes_text task, void **instance,
                               philotes_error *error)
{
    (void)task; /* one stream, one task: nothing to split */
    char faults[3][128];
    struct settings settings;
    if (read_settings(config, &settings, faults) > 0)
        return fail(error, PHILOTES_ERROR_CONFIG, "%s", faults[0]);

    struct counter *counter = calloc(1, sizeof *counter);
    if (!counter)
        return fail(error, PHILOTES_ERROR_UNAVAILABLE, "out of memory");
    counter->host = host;
    counter->settings = settings;
    if (mtx_init(&counter->lock, mtx_plain) != thrd_success) {
        free(counter);
        return fail(error, PHILOTES_ERROR_UNAVAILABLE, "cannot make a mutex");
    }
    if (cnd_init(&counter->wake) != thrd_success) {
        mtx_destroy(&counter->lock);
        free(counter);
        return fail(error, PHILOTES_ERROR_UNAVAILABLE, "cannot make a condition variable");
    }
    *instance = counter;
    return PHILOTES_OK;
}

static uint32_t counter_open(void *instance, philotes_error *error)
{
    (void)error; /* where a server would be connected to, and the source claimed */
    struct counter *counter = instance;
    log_info(counter->host, "counting", "rows", counter->settings.rows);
    return PHILOTES_OK;
}

/* Waits until cancelled or until the time has passed. Returns whether it was cancelled. */
static int wait_for_cancel(struct counter *counter, uint64_t timeout_ms)
{
    struct timespec until;
    timespec_get(&until, TIME_UTC);
    uint64_t nanoseconds = (uint64_t)until.tv_nsec + timeout_ms % 1000 * 1000000;
    until.tv_sec += (time_t)(timeout_ms / 1000 + nanoseconds / 1000000000);
    until.tv_nsec = (long)(nanoseconds % 1000000000);

    mtx_lock(&counter->lock);
    int outcome = thrd_success;
    while (!counter->cancelled && timeout_ms > 0 && outcome == thrd_success)
        outcome = cnd_timedwait(&counter->wake, &counter->lock, &until);
    int cancelled = counter->cancelled;
    mtx_unlock(&counter->lock);
    return cancelled;
}

static uint32_t next_batch(struct counter *counter, uint64_t max_bytes, philotes_batch *batch, philotes_error *error)
{
    int64_t left = counter->settings.rows - counter->delivered;
    int64_t count = left < counter->settings.batch ? left : counter->settings.batch;
    if ((uint64_t)count > max_bytes / ROW_BYTES)
        count = (int64_t)(max_bytes / ROW_BYTES);
    if (count == 0)
        count = 1; /* a row has to go through, however small the limit */

    if (!counter->schema_sent && !export_schema(&batch->schema))
        return fail(error, PHILOTES_ERROR_UNAVAILABLE, "out of memory");
    if (!export_rows(&batch->array, counter->delivered + 1, count)) {
        if (batch->schema.release) /* an error leaves nothing behind for the host to release */
            batch->schema.release(&batch->schema);
        return fail(error, PHILOTES_ERROR_UNAVAILABLE, "out of memory");
    }
    counter->schema_sent = 1;
    counter->delivered += count;
    snprintf(counter->offset, sizeof counter->offset, "{\"row\":%lld}", (long long)counter->delivered);
    batch->flags = PHILOTES_BATCH_ENDS_TRANSACTION;
    batch->at = &partition;
    batch->offset = text_of(counter->offset);
    batch->schema_id = SCHEMA_ID;
    batch->bytes = (uint64_t)count * ROW_BYTES;

    static const philotes_text metric = PHILOTES_TEXT("philotes_c_counter_rows_total");
    counter->host->metric(counter->host, PHILOTES_METRIC_COUNTER, metric, (double)count, (philotes_text){NULL, 0});
    return PHILOTES_OK;
}

static uint32_t counter_poll(void *instance, uint64_t timeout_ms, uint64_t max_bytes, philotes_poll *poll,
                             philotes_batch *batch, philotes_error *error)
{
    struct counter *counter = instance;
    if (wait_for_cancel(counter, 0)) {
        poll->outcome = PHILOTES_POLL_IDLE;
        return PHILOTES_OK;
    }
    if (!counter->announced) {
        counter->announced = 1;
        poll->outcome = PHILOTES_POLL_ANNOUNCE;
        poll->partition_count = 1;
        poll->partitions = partitions;
        return PHILOTES_OK;
    }
    if (!counter->resumed)
        return fail(error, PHILOTES_ERROR_INTERNAL, "polled before c.counter was resumed");
    if (counter->delivered < counter->settings.rows) {
        poll->outcome = PHILOTES_POLL_BATCH;
        return next_batch(counter, max_bytes, batch, error);
    }
    if (!counter->settings.idle) {
        poll->outcome = PHILOTES_POLL_END;
        return PHILOTES_OK;
    }
    poll->outcome = PHILOTES_POLL_IDLE;
    poll->caught_up = 1;
    wait_for_cancel(counter, timeout_ms);
    return PHILOTES_OK;
}

/* The row that an offset of ours names, or -1. */
static int64_t row_of(philotes_text offset)
{
    philotes_text value;
    int64_t row;
    return json_member(offset, "row", &value) && json_integer(value, &row) && row >= 0 ? row : -1;
}

static int is_ours(const philotes_partition *at)
{
    if (at->part_count != 2 || at->partition.length != 1 || *at->partition.data != '0')
        return 0;
    for (int i = 0; i < 2; i++)
        if (at->parts[i].length != stream_parts[i].length ||
            memcmp(at->parts[i].data, stream_parts[i].data, stream_parts[i].length) != 0)
            return 0;
    return 1;
}

static uint32_t counter_resume(void *instance, const philotes_partition *at, const philotes_text *offset,
                               philotes_error *error)
{
    struct counter *counter = instance;
    if (!is_ours(at) || !counter->announced || counter->resumed)
        return fail(error, PHILOTES_ERROR_INTERNAL, "resumed a partition that was not announced");
    int64_t row = offset ? row_of(*offset) : 0;
    if (row < 0)
        return fail(error, PHILOTES_ERROR_CONFIG,
                    "the sink's offset of c.counter is not this source's; {\"row\": n} is allowed");
    /* An offset that the source cannot have given is refused: to go on would drop rows without a word. */
    if (row > counter->settings.rows)
        return fail(error, PHILOTES_ERROR_CONFIG,
                    "rows: the sink's offset of c.counter is row %lld, but there are only %lld", (long long)row,
                    (long long)counter->settings.rows);
    counter->delivered = counter->durable = row;
    counter->resumed = 1;
    log_info(counter->host, "resumed", "row", row);
    return PHILOTES_OK;
}

static uint32_t counter_commit(void *instance, const philotes_position *const *positions, uint32_t count,
                               philotes_error *error)
{
    struct counter *counter = instance;
    for (uint32_t i = 0; i < count; i++) {
        int64_t row = is_ours(positions[i]->at) ? row_of(positions[i]->offset) : -1;
        if (row < 0 || row > counter->delivered)
            return fail(error, PHILOTES_ERROR_INTERNAL, "committed an offset that was not delivered");
        counter->durable = row; /* where the rows would be acknowledged at the server, in the background */
    }
    return PHILOTES_OK;
}

static void counter_cancel(void *instance)
{
    struct counter *counter = instance;
    mtx_lock(&counter->lock);
    counter->cancelled = 1;
    cnd_broadcast(&counter->wake);
    mtx_unlock(&counter->lock);
}

static uint32_t counter_close(void *instance, uint64_t timeout_ms, philotes_error *error)
{
    (void)timeout_ms;
    (void)error;
    struct counter *counter = instance;
    log_info(counter->host, "closed", "durable", counter->durable);
    return PHILOTES_OK;
}

/* Batches may outlive the instance: they own what they hold. */
static void counter_destroy(void *instance)
{
    struct counter *counter = instance;
    cnd_destroy(&counter->wake);
    mtx_destroy(&counter->lock);
    free(counter);
}

/* ---- What works without an instance -------------------------------------------------------------------------- */

static uint32_t counter_streams(const philotes_host *host, philotes_text config, philotes_text task, void *slot,
                                philotes_error *error)
{
    (void)config;
    (void)task;
    struct ArrowSchema schema;
    if (!export_schema(&schema))
        return fail(error, PHILOTES_ERROR_UNAVAILABLE, "out of memory");
    philotes_stream stream = {.struct_size = sizeof stream, .at = &partition, .schema = &schema};
    host->emit_stream(host, slot, &stream);
    if (schema.release) /* the host moved it out, unless something went wrong there */
        schema.release(&schema);
    return PHILOTES_OK;
}

static const philotes_argument hello_name = {
    .struct_size = sizeof(philotes_argument),
    .name = PHILOTES_TEXT("name"),
    .doc = PHILOTES_TEXT("Who is greeted; world where it is left out."),
};
static const philotes_argument *const hello_arguments[] = {&hello_name};
static const philotes_action hello = {
    .struct_size = sizeof(philotes_action),
    .argument_count = 1,
    .name = PHILOTES_TEXT("hello"),
    .doc = PHILOTES_TEXT("Greets the operator."),
    .arguments = hello_arguments,
};
static const philotes_action *const actions[] = {&hello};

static uint32_t counter_act(const philotes_host *host, philotes_text config, philotes_text task, philotes_text action,
                            philotes_text arguments, void *slot, philotes_error *error)
{
    (void)config;
    (void)task;
    if (action.length != 5 || memcmp(action.data, "hello", 5) != 0)
        return fail(error, PHILOTES_ERROR_CONFIG, "no action of this name; hello is the only one");
    philotes_text name;
    struct json_buffer output = {0};
    json_raw(&output, "{\"text\":\"hello, ");
    /* Between its quotes the argument is JSON already, escapes and all. */
    if (json_member(arguments, "name", &name) && json_is(name, '"'))
        json_bytes(&output, name.data + 1, name.length - 2);
    else
        json_raw(&output, "world");
    json_raw(&output, "\"}");
    uint32_t status = PHILOTES_OK;
    if (output.failed)
        status = fail(error, PHILOTES_ERROR_UNAVAILABLE, "out of memory");
    else
        host->emit(host, slot, (philotes_text){output.data, output.length});
    free(output.data);
    return status;
}

/* ---- The descriptor ------------------------------------------------------------------------------------------ */

static const philotes_source functions = {
    .struct_size = sizeof(philotes_source),
    .create = counter_create,
    .open = counter_open,
    .poll = counter_poll,
    .resume = counter_resume,
    .commit = counter_commit,
    .cancel = counter_cancel,
    .close = counter_close,
    .destroy = counter_destroy,
};

static const philotes_connector connector = {
    .struct_size = sizeof(philotes_connector),
    .kind = PHILOTES_SOURCE,
    .name = PHILOTES_TEXT("c-counter"),
    .version = PHILOTES_TEXT("0.1.0"),
    .doc = PHILOTES_TEXT("Counts, to show how a source is written in C."),
    .config_spec = PHILOTES_TEXT(config_spec),
    .source = &functions,
    .actions = actions,
    .action_count = 1,
    .validate = counter_validate,
    .streams = counter_streams,
    .act = counter_act,
};
static const philotes_connector *const connectors[] = {&connector};

static const philotes_plugin plugin = {
    .magic = PHILOTES_MAGIC,
    .struct_size = sizeof(philotes_plugin),
    .abi_major = PHILOTES_ABI_MAJOR,
    .abi_minor = PHILOTES_ABI_MINOR,
    .pointer_bits = 8 * sizeof(void *),
    .id = PHILOTES_TEXT("c-counter"),
    .version = PHILOTES_TEXT("0.1.0"),
    .sdk = PHILOTES_TEXT("C"),
    .target = PHILOTES_TEXT("C11"),
    .connectors = connectors,
    .connector_count = 1,
};

/* All else is static, so that this is the library's only symbol. */
const philotes_plugin *philotes_plugin_v1(void)
{
    return &plugin;
}
