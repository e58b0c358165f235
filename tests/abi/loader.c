/*
 * A small host for c-counter and c-lines, to be run under valgrind and the sanitizers, which the real host is too big for.
 *
 *     loader SOURCE_LIBRARY [SINK_LIBRARY]
 *
 * It drives the source through its whole life, several times, and checks every value; with a sink it then moves the
 * source's batches into it and reads the file. It ends with `rows N`, the rows of the source's first run. Anything that is
 * not as the header says is printed and ends it with 1. Batches and schemas are kept beyond the life of the instance that
 * made them, and no library is ever unloaded.
 */
#define _POSIX_C_SOURCE 200809L

#include <philotes_plugin.h>

#include "descriptor.h"
#include "json.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

#define ROWS 1000
#define BATCH 64
#define START_OF_2026 INT64_C(1767225600000000)

/* Ends the program where something is not as it must be. What is still allocated then does not matter. */
#define MUST(condition, ...) ((condition) ? (void)0 : deviation(__LINE__, #condition, __VA_ARGS__))

__attribute__((format(printf, 3, 4))) static _Noreturn void deviation(int line, const char *condition,
                                                                      const char *what, ...)
{
    va_list arguments;
    va_start(arguments, what);
    fprintf(stderr, "loader.c:%d: ", line);
    vfprintf(stderr, what, arguments);
    fprintf(stderr, " (%s)\n", condition);
    va_end(arguments);
    _exit(1); /* runs no handlers: a leak check would only hide the message */
}

static philotes_text text_of(const char *characters)
{
    return (philotes_text){characters, strlen(characters)};
}

static int is_text(philotes_text text, const char *expected)
{
    return text.length == strlen(expected) && (text.length == 0 || memcmp(text.data, expected, text.length) == 0);
}

/* The plugins call this fsync instead of the system's, because the loader is linked with -rdynamic. */
static int folders_fail;

int fsync(int descriptor)
{
    struct stat status;
    if (folders_fail && fstat(descriptor, &status) == 0 && S_ISDIR(status.st_mode)) {
        errno = EIO;
        return -1;
    }
    return fdatasync(descriptor);
}

/* ---- The host ------------------------------------------------------------------------------------------------ */

#define MAX_ITEMS 8

/* What a call emitted: the slot. */
struct outputs {
    int count;
    int streams;
    char items[MAX_ITEMS][1024];
    struct ArrowSchema schema; /* of the last stream */
};

/* What arrived in the host. Only one thread at a time calls into it. */
static int events;
static double counted;
static struct outputs *running; /* the slot of the running call */

static void host_log(const philotes_host *host, uint32_t level, philotes_text target, philotes_text message,
                     philotes_text fields)
{
    MUST(host->context == &events, "a callback got another host");
    MUST(level >= PHILOTES_LOG_ERROR && level <= PHILOTES_LOG_TRACE, "level %u", level);
    MUST(is_utf8(target) && target.length > 0 && is_utf8(message) && message.length > 0, "an event without text");
    MUST(fields.length == 0 || json_is(fields, '{'), "fields of an event are no JSON object");
    events++;
}

static uint32_t host_log_enabled(const philotes_host *host, uint32_t level, philotes_text target)
{
    (void)host;
    (void)target;
    return level <= PHILOTES_LOG_INFO;
}

static void host_metric(const philotes_host *host, uint32_t kind, philotes_text name, double value,
                        philotes_text labels)
{
    MUST(host->context == &events, "a callback got another host");
    MUST(kind == PHILOTES_METRIC_COUNTER && value >= 0, "kind %u of metric", kind);
    MUST(name.length > 9 && memcmp(name.data, "philotes_", 9) == 0 && is_utf8(name), "name of a metric");
    MUST(labels.length == 0 || json_is(labels, '{'), "labels of a metric are no JSON object");
    counted += value;
}

static void host_emit(const philotes_host *host, void *slot, philotes_text item)
{
    struct outputs *outputs = slot;
    MUST(host->context == &events, "a callback got another host");
    MUST(outputs == running, "an item for a slot that is not the running call's");
    MUST(outputs->count < MAX_ITEMS && item.length < sizeof outputs->items[0], "too much output");
    MUST(is_utf8(item), "an item is no UTF-8");
    if (item.length > 0)
        memcpy(outputs->items[outputs->count], item.data, item.length);
    outputs->items[outputs->count++][item.length] = '\0';
}

static void host_emit_stream(const philotes_host *host, void *slot, const philotes_stream *stream)
{
    struct outputs *outputs = slot;
    MUST(host->context == &events, "a callback got another host");
    MUST(outputs == running, "a stream for a slot that is not the running call's");
    MUST(stream->struct_size == sizeof *stream && stream->at && stream->schema && stream->schema->release, "a stream");
    outputs->streams++;
    outputs->schema = *stream->schema;
    stream->schema->release = NULL;
}

static uint32_t host_is_cancelled(const philotes_host *host)
{
    (void)host;
    return 0;
}

static const void *host_get_extension(const philotes_host *host, philotes_text name)
{
    (void)host;
    (void)name;
    return NULL;
}

static const philotes_host host = {
    .struct_size = sizeof(philotes_host),
    .abi_major = PHILOTES_ABI_MAJOR,
    .abi_minor = PHILOTES_ABI_MINOR,
    .capabilities = CAPABILITIES,
    .context = &events,
    .log = host_log,
    .log_enabled = host_log_enabled,
    .metric = host_metric,
    .emit = host_emit,
    .emit_stream = host_emit_stream,
    .is_cancelled = host_is_cancelled,
    .get_extension = host_get_extension,
};

static const char *const task_json = "{\"connector\":\"loader\",\"task\":0,\"tasks\":1,\"max_memory\":1048576,"
                                     "\"route\":{\"include\":[],\"exclude\":[]}}";

/* A new slot for the call that follows. */
static struct outputs *slot(struct outputs *outputs)
{
    *outputs = (struct outputs){0};
    running = outputs;
    return outputs;
}

static philotes_error no_error(void)
{
    return (philotes_error){.struct_size = sizeof(philotes_error)};
}

/* The call succeeded. */
static void ok(uint32_t status, const philotes_error *error, const char *call)
{
    running = NULL;
    MUST(status == PHILOTES_OK, "%s: error %u: %.*s", call, status, (int)error->length, error->message);
}

/* The call failed with this kind, and with a message that says `word`. */
static void failed(uint32_t status, uint32_t kind, const philotes_error *error, const char *word, const char *call)
{
    char message[PHILOTES_MESSAGE_MAX_BYTES + 1];
    running = NULL;
    MUST(status == kind, "%s: status %u instead of %u", call, status, kind);
    MUST(error->length > 0 && error->length <= PHILOTES_MESSAGE_MAX_BYTES, "%s: no message", call);
    MUST(is_utf8((philotes_text){error->message, error->length}), "%s: a message that is no UTF-8", call);
    memcpy(message, error->message, error->length);
    message[error->length] = '\0';
    MUST(strstr(message, word), "%s: message %s", call, message);
}

static const philotes_connector *load(const char *path, uint32_t kind, const char *name)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    MUST(library, "%s", dlerror());
    const philotes_plugin *(*symbol)(void);
    void *address = dlsym(library, "philotes_plugin_v1");
    MUST(address, "%s: no symbol philotes_plugin_v1", path);
    memcpy(&symbol, &address, sizeof symbol); /* C has no conversion from an object's address to a function's */
    const philotes_plugin *plugin = symbol();
    const char *fault = descriptor_fault(plugin);
    MUST(!fault, "%s: %s", path, fault);
    MUST(plugin->connector_count == 1, "%s: %u connectors", path, plugin->connector_count);
    const philotes_connector *connector = plugin->connectors[0];
    MUST(connector->kind == kind && is_text(connector->name, name), "%s is no %s", path, name);
    return connector;
}

static const philotes_text known_parts[] = {PHILOTES_TEXT("c"), PHILOTES_TEXT("counter")};
static const philotes_partition known = {sizeof known, 2, known_parts, PHILOTES_TEXT("0")};

/* ---- Checking what the source delivers ----------------------------------------------------------------------- */

static void check_partition(const philotes_partition *at)
{
    MUST(at && at->struct_size == sizeof *at && at->part_count == 2, "a partition");
    MUST(is_text(at->parts[0], "c") && is_text(at->parts[1], "counter"), "a stream's name");
    MUST(is_text(at->partition, "0"), "a partition's name");
}

static void check_schema(const struct ArrowSchema *schema)
{
    static const char *const names[] = {"id", "name", "_cdc_operation", "_cdc_timestamp", "_cdc_lsn"};
    static const char *const formats[] = {"l", "u", "u", "tsu:+00:00", "u"};
    static const int64_t flags[] = {0, ARROW_FLAG_NULLABLE, 0, ARROW_FLAG_NULLABLE, ARROW_FLAG_NULLABLE};
    MUST(schema->release && strcmp(schema->format, "+s") == 0 && schema->n_children == 5, "a schema");
    for (int i = 0; i < 5; i++) {
        const struct ArrowSchema *field = schema->children[i];
        MUST(field->release && strcmp(field->name, names[i]) == 0, "column %d", i);
        MUST(strcmp(field->format, formats[i]) == 0, "column %s", names[i]);
        MUST(field->flags == flags[i] && field->n_children == 0 && !field->dictionary, "column %s", names[i]);
    }
    static const char *const entries[] = {"philotes.stream", "c.counter", "philotes.key", "[\"id\"]"};
    const char *at = schema->metadata;
    int32_t length;
    memcpy(&length, at, sizeof length);
    MUST(length == 2, "%d entries of metadata", length);
    at += sizeof length;
    for (int i = 0; i < 4; i++) {
        memcpy(&length, at, sizeof length);
        at += sizeof length;
        MUST(is_text((philotes_text){at, (uint64_t)length}, entries[i]), "metadata %s", entries[i]);
        at += length;
    }
}

static int is_null(const struct ArrowArray *column, int64_t row)
{
    const uint8_t *validity = column->buffers[0];
    return validity && !(validity[row / 8] >> (row % 8) & 1);
}

static int64_t number_at(const struct ArrowArray *column, int64_t row)
{
    MUST(!is_null(column, row), "row %lld is NULL", (long long)row);
    return ((const int64_t *)column->buffers[1])[row];
}

static philotes_text text_at(const struct ArrowArray *column, int64_t row)
{
    MUST(!is_null(column, row), "row %lld is NULL", (long long)row);
    const int32_t *offsets = column->buffers[1];
    MUST(offsets[row] >= 0 && offsets[row] <= offsets[row + 1], "offsets of row %lld", (long long)row);
    const char *bytes = column->buffers[2];
    return (philotes_text){bytes + offsets[row], (uint64_t)(offsets[row + 1] - offsets[row])};
}

/* The rows are first, first + 1 and so on. */
static void check_rows(const struct ArrowArray *array, int64_t first)
{
    static const int64_t buffers[] = {2, 3, 3, 2, 3};
    char expected[32];
    MUST(array->release && array->n_buffers == 1 && !array->buffers[0] && array->n_children == 5, "an array");
    MUST(array->length > 0 && array->offset == 0 && array->null_count == 0, "an array");
    int64_t nulls = 0;
    for (int i = 0; i < 5; i++) {
        const struct ArrowArray *column = array->children[i];
        MUST(column->release && column->length == array->length && column->offset == 0, "column %d", i);
        MUST(column->n_buffers == buffers[i] && column->n_children == 0 && !column->dictionary, "column %d", i);
    }
    for (int64_t row = 0; row < array->length; row++) {
        int64_t n = first + row;
        MUST(number_at(array->children[0], row) == n, "id %lld", (long long)n);
        snprintf(expected, sizeof expected, "row %lld", (long long)n);
        if (n % 3 == 0) {
            MUST(is_null(array->children[1], row), "name %lld is not NULL", (long long)n);
            nulls++;
        } else {
            MUST(is_text(text_at(array->children[1], row), expected), "name %lld", (long long)n);
        }
        MUST(is_text(text_at(array->children[2], row), "INSERT"), "operation %lld", (long long)n);
        MUST(number_at(array->children[3], row) == START_OF_2026 + n, "timestamp %lld", (long long)n);
        snprintf(expected, sizeof expected, "%lld", (long long)n);
        MUST(is_text(text_at(array->children[4], row), expected), "lsn %lld", (long long)n);
    }
    MUST(array->children[1]->null_count == nulls, "null_count %lld", (long long)array->children[1]->null_count);
    MUST(array->children[0]->null_count == 0, "null_count of id");
}

/* ---- Driving the source -------------------------------------------------------------------------------------- */

struct instance {
    const philotes_source *functions;
    void *self;
};

static struct instance open_source(const philotes_connector *connector, const char *config)
{
    struct instance source = {connector->source, NULL};
    philotes_error error = no_error();
    ok(source.functions->create(&host, text_of(config), text_of(task_json), &source.self, &error), &error, "create");
    ok(source.functions->open(source.self, &error), &error, "open");
    return source;
}

static void close_source(struct instance source)
{
    philotes_error error = no_error();
    ok(source.functions->close(source.self, 1000, &error), &error, "close");
    source.functions->destroy(source.self);
}

static uint32_t poll_source(struct instance source, uint64_t timeout_ms, uint64_t max_bytes, philotes_poll *result,
                            philotes_batch *batch)
{
    philotes_error error = no_error();
    *result = (philotes_poll){.struct_size = sizeof *result};
    *batch = (philotes_batch){.struct_size = sizeof *batch};
    ok(source.functions->poll(source.self, timeout_ms, max_bytes, result, batch, &error), &error, "poll");
    MUST(result->struct_size == sizeof *result && batch->struct_size == sizeof *batch, "a struct_size was overwritten");
    MUST((result->outcome == PHILOTES_POLL_BATCH) == (batch->array.release != NULL), "outcome and rows disagree");
    return result->outcome;
}

/* Takes the announcement, which comes before all else, and answers it. */
static uint32_t announce_and_resume(struct instance source, const char *offset, philotes_error *error)
{
    philotes_poll result;
    philotes_batch batch;
    uint32_t outcome = poll_source(source, 100, UINT64_MAX, &result, &batch);
    MUST(outcome == PHILOTES_POLL_ANNOUNCE && result.partition_count == 1, "outcome %u", outcome);
    check_partition(result.partitions[0]);
    philotes_text from = text_of(offset ? offset : "");
    return source.functions->resume(source.self, result.partitions[0], offset ? &from : NULL, error);
}

static void resume_source(struct instance source, const char *offset)
{
    philotes_error error = no_error();
    ok(announce_and_resume(source, offset, &error), &error, "resume");
}

static void release_batch(philotes_batch *batch)
{
    if (batch->schema.release)
        batch->schema.release(&batch->schema);
    if (batch->array.release)
        batch->array.release(&batch->array);
    MUST(!batch->schema.release && !batch->array.release, "release did not mark a struct as released");
}

/* A whole life: every row after `after` once and in order, each batch committed. Returns how many rows there were. */
static int64_t run(const philotes_connector *connector, const char *config, int64_t after, uint64_t max_bytes)
{
    char offset[64];
    snprintf(offset, sizeof offset, "{\"row\": %lld}", (long long)after); /* JSON with white space is the same offset */
    struct instance source = open_source(connector, config);
    resume_source(source, after > 0 ? offset : NULL);

    philotes_poll result;
    philotes_batch batch, kept = {0};
    philotes_error error = no_error();
    int64_t rows = 0;
    int batches = 0;
    double counted_before = counted;
    while (poll_source(source, 100, max_bytes, &result, &batch) == PHILOTES_POLL_BATCH) {
        check_partition(batch.at);
        MUST((batch.schema.release != NULL) == (batches == 0), "a schema with batch %d", batches);
        MUST(batch.schema_id == 1 && batch.flags == PHILOTES_BATCH_ENDS_TRANSACTION, "batch %d", batches);
        if (batch.schema.release)
            check_schema(&batch.schema);
        check_rows(&batch.array, after + rows + 1);
        rows += batch.array.length;
        snprintf(offset, sizeof offset, "{\"row\":%lld}", (long long)(after + rows));
        MUST(is_text(batch.offset, offset), "offset of batch %d", batches);
        MUST(batch.bytes > 0 && (batch.array.length == 1 || batch.bytes <= max_bytes), "bytes of batch %d", batches);

        philotes_position position = {.struct_size = sizeof position, .at = &known, .offset = text_of(offset)};
        const philotes_position *positions[] = {&position};
        ok(source.functions->commit(source.self, positions, 1, &error), &error, "commit");
        if (batches++ == 0)
            kept = batch; /* at and offset are lent and gone with the next call; schema and array are ours */
        else
            release_batch(&batch);
    }
    MUST(result.outcome == PHILOTES_POLL_END, "outcome %u", result.outcome);
    MUST(counted - counted_before == (double)rows, "the metric counted %g of %lld rows", counted - counted_before,
         (long long)rows);
    source.functions->cancel(source.self);
    close_source(source);

    if (kept.array.release) {
        check_schema(&kept.schema);
        check_rows(&kept.array, after + 1);
        /* A consumer may move a child out and release the rest first. */
        struct ArrowArray name = *kept.array.children[1];
        kept.array.children[1]->release = NULL;
        release_batch(&kept);
        MUST(is_null(&name, 0) == ((after + 1) % 3 == 0), "a column that was moved out");
        name.release(&name);
        MUST(!name.release, "release did not mark a column as released");
    }
    return rows;
}

struct waiting {
    struct instance source;
    uint32_t outcome;
};

static int wait_in_poll(void *argument)
{
    struct waiting *waiting = argument;
    philotes_poll result;
    philotes_batch batch;
    waiting->outcome = poll_source(waiting->source, 60000, UINT64_MAX, &result, &batch);
    return 0;
}

/* An idle source waits as long as it may, and returns soon when it is cancelled. */
static void idle_and_cancel(const philotes_connector *connector)
{
    struct instance source = open_source(connector, "{\"rows\":1,\"idle\":true}");
    resume_source(source, "{\"row\":1}");
    philotes_poll result;
    philotes_batch batch;
    struct timespec start, end;
    timespec_get(&start, TIME_UTC);
    uint32_t outcome = poll_source(source, 50, UINT64_MAX, &result, &batch);
    timespec_get(&end, TIME_UTC);
    MUST(outcome == PHILOTES_POLL_IDLE && result.caught_up, "outcome %u", outcome);
    MUST(end.tv_sec - start.tv_sec > 0 || end.tv_nsec - start.tv_nsec > 40000000, "poll did not wait");

    struct waiting waiting = {source, 0};
    thrd_t thread;
    MUST(thrd_create(&thread, wait_in_poll, &waiting) == thrd_success, "no thread");
    timespec_get(&start, TIME_UTC);
    thrd_sleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    source.functions->cancel(source.self);
    source.functions->cancel(source.self);
    thrd_join(thread, NULL);
    timespec_get(&end, TIME_UTC);
    MUST(end.tv_sec - start.tv_sec < 10, "cancel did not end the poll");
    MUST(waiting.outcome == PHILOTES_POLL_IDLE, "outcome %u", waiting.outcome);
    outcome = poll_source(source, 60000, UINT64_MAX, &result, &batch);
    MUST(outcome == PHILOTES_POLL_IDLE, "outcome %u", outcome);
    close_source(source);
}

static void source_without_instance(const philotes_connector *connector)
{
    struct outputs outputs;
    philotes_error error = no_error();
    static const struct {
        const char *config;
        const char *fault; /* the start of the one fault, or NULL */
    } cases[] = {
        {"{\"rows\":10}", NULL},
        {"{\"rows\":0,\"batch\":65536,\"idle\":true}", NULL},
        {"{\"rows\":10,\"batch\":0}", "batch: found 0; 1 to 65536"},
        {"{\"rows\":-1}", "rows: found -1;"},
        {"{\"batch\":5}", "rows: missing;"},
        {"{\"rows\":10,\"idle\":1}", "idle:"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ok(connector->validate(&host, text_of(cases[i].config), slot(&outputs), &error), &error, "validate");
        MUST(outputs.count == (cases[i].fault != NULL), "%d faults of %s", outputs.count, cases[i].config);
        MUST(!cases[i].fault || strncmp(outputs.items[0], cases[i].fault, strlen(cases[i].fault)) == 0, "%s",
             outputs.items[0]);
    }

    philotes_text config = text_of("{\"rows\":10}"), task = text_of(task_json);
    ok(connector->streams(&host, config, task, slot(&outputs), &error), &error, "streams");
    MUST(outputs.streams == 1, "%d streams", outputs.streams);
    check_schema(&outputs.schema);
    outputs.schema.release(&outputs.schema);

    MUST(connector->action_count == 1 && is_text(connector->actions[0]->name, "hello"), "actions");
    MUST(connector->actions[0]->argument_count == 1 && connector->actions[0]->arguments[0]->flags == 0, "arguments");
    ok(connector->act(&host, config, task, text_of("hello"), text_of("{}"), slot(&outputs), &error), &error, "act");
    MUST(outputs.count == 1 && strcmp(outputs.items[0], "{\"text\":\"hello, world\"}") == 0, "%s", outputs.items[0]);
    philotes_text quoted = text_of("{\"name\":\"a \\\"b\\\"\"}");
    ok(connector->act(&host, config, task, text_of("hello"), quoted, slot(&outputs), &error), &error, "act");
    MUST(strcmp(outputs.items[0], "{\"text\":\"hello, a \\\"b\\\"\"}") == 0, "%s", outputs.items[0]);
    failed(connector->act(&host, config, task, text_of("bye"), text_of("{}"), slot(&outputs), &error),
           PHILOTES_ERROR_CONFIG, &error, "hello", "act");
}

static void source_failures(const philotes_connector *connector)
{
    const philotes_source *functions = connector->source;
    philotes_error error = no_error();
    void *self = NULL;
    failed(functions->create(&host, text_of("{\"rows\":1,\"batch\":0}"), text_of(task_json), &self, &error),
           PHILOTES_ERROR_CONFIG, &error, "batch:", "create");
    MUST(!self, "an instance in spite of an error");

    /* A shorter error of an older host: the message is cut, and nothing behind it is touched. */
    error = no_error();
    error.struct_size = offsetof(philotes_error, message) + 6;
    error.message[6] = '!';
    failed(functions->create(&host, text_of("{\"rows\":1,\"batch\":0}"), text_of(task_json), &self, &error),
           PHILOTES_ERROR_CONFIG, &error, "batch", "create");
    MUST(error.length <= 6 && error.message[6] == '!', "the error was overrun");
    error = no_error();

    ok(functions->create(&host, text_of("{\"rows\":1}"), text_of(task_json), &self, &error), &error, "create");
    functions->destroy(self); /* never opened */

    struct instance source = open_source(connector, "{\"rows\":5}");
    failed(announce_and_resume(source, "{\"row\":6}", &error), PHILOTES_ERROR_CONFIG, &error, "only 5", "resume");
    functions->destroy(source.self); /* never closed */
    source = open_source(connector, "{\"rows\":5}");
    failed(announce_and_resume(source, "{\"lsn\":1}", &error), PHILOTES_ERROR_CONFIG, &error, "c.counter", "resume");
    close_source(source);

    source = open_source(connector, "{\"rows\":5}");
    philotes_poll result = {.struct_size = sizeof result};
    philotes_batch batch = {.struct_size = sizeof batch};
    ok(functions->poll(source.self, 0, UINT64_MAX, &result, &batch, &error), &error, "poll");
    failed(functions->poll(source.self, 0, UINT64_MAX, &result, &batch, &error), PHILOTES_ERROR_INTERNAL, &error,
           "resumed", "poll");
    MUST(!batch.schema.release && !batch.array.release, "a batch in spite of an error");
    close_source(source);
}

/* ---- Driving the sink ---------------------------------------------------------------------------------------- */

static void *open_sink(const philotes_connector *connector, const char *config)
{
    philotes_error error = no_error();
    void *self = NULL;
    ok(connector->sink->create(&host, text_of(config), text_of(task_json), &self, &error), &error, "create");
    ok(connector->sink->open(self, &error), &error, "open");
    return self;
}

static void close_sink(const philotes_connector *connector, void *self)
{
    philotes_error error = no_error();
    ok(connector->sink->close(self, 1000, &error), &error, "close");
    connector->sink->destroy(self);
}

/* The sink's offset of c.counter must be this; empty for none. */
static void check_offset(const philotes_connector *connector, void *self, const char *expected)
{
    const philotes_partition unknown = {sizeof unknown, 2, known_parts, PHILOTES_TEXT("1")};
    const philotes_partition *at[] = {&unknown, &known};
    struct outputs outputs;
    philotes_error error = no_error();
    ok(connector->sink->offsets(self, at, 2, slot(&outputs), &error), &error, "offsets");
    MUST(outputs.count == 2 && outputs.items[0][0] == '\0', "%d offsets", outputs.count);
    MUST(strcmp(outputs.items[1], expected) == 0, "offset %s instead of %s", outputs.items[1], expected);
}

/* Writes a batch; what the sink left of it is the host's to release. */
static void write_batch(const philotes_connector *connector, void *self, philotes_batch *batch)
{
    philotes_error error = no_error();
    ok(connector->sink->write(self, batch, &error), &error, "write");
    release_batch(batch);
}

static void check_flush(const philotes_connector *connector, void *self, long long rows, long long to)
{
    char expected[256];
    struct outputs outputs;
    philotes_error error = no_error();
    philotes_text commit, value;
    int64_t committed;
    ok(connector->sink->flush(self, slot(&outputs), &error), &error, "flush");
    MUST(outputs.count == 2, "%d items", outputs.count);
    snprintf(expected, sizeof expected,
             "{\"durable\":{\"stream\":[\"c\",\"counter\"],\"partition\":\"0\",\"offset\":\"{\\\"row\\\":%lld}\"}}",
             to);
    MUST(strcmp(outputs.items[0], expected) == 0, "%s", outputs.items[0]);
    MUST(json_member(text_of(outputs.items[1]), "commit", &commit) && json_member(commit, "rows", &value), "%s",
         outputs.items[1]);
    MUST(json_integer(value, &committed) && committed == rows, "%s", outputs.items[1]);
    MUST(connector->sink->buffered_bytes(self) == 0, "bytes are buffered after the flush");
    ok(connector->sink->flush(self, slot(&outputs), &error), &error, "flush");
    MUST(outputs.count == 0, "an empty flush emitted something");
}

/* The file holds rows 1 to `rows` in order, and their last offset. */
static void check_file(const char *path, int64_t rows)
{
    char expected[256], name[32], line[1024];
    int64_t n = 0, covered = 0;
    FILE *file = fopen(path, "r");
    MUST(file, "%s is missing", path);
    while (fgets(line, sizeof line, file)) {
        philotes_text value, offset = text_of(line);
        if (json_member(offset, "offset", &value)) {
            snprintf(expected, sizeof expected, "\"{\\\"row\\\":%lld}\"", (long long)n);
            MUST(is_text(value, expected), "an offset that does not cover the %lld rows before it", (long long)n);
            covered = n;
            continue;
        }
        n++;
        snprintf(name, sizeof name, n % 3 == 0 ? "null" : "\"row %lld\"", (long long)n);
        snprintf(expected, sizeof expected,
                 "{\"stream\":[\"c\",\"counter\"],\"partition\":\"0\",\"row\":{\"id\":%lld,\"name\":%s,"
                 "\"_cdc_operation\":\"INSERT\",\"_cdc_timestamp\":%lld,\"_cdc_lsn\":\"%lld\"}}\n",
                 (long long)n, name, (long long)(START_OF_2026 + n), (long long)n);
        MUST(strcmp(line, expected) == 0, "line of row %lld: %s", (long long)n, line);
    }
    fclose(file);
    MUST(n == rows && covered == rows, "%lld rows and an offset that covers %lld", (long long)n, (long long)covered);
}

/* A batch of a column type that the sink does not take is refused, stays the host's, and can be given again. */
static void refused_write(const philotes_connector *sink, void *self, philotes_batch *batch)
{
    philotes_error error = no_error();
    const char *format = batch->schema.children[0]->format;
    batch->schema.children[0]->format = "L";
    failed(sink->sink->write(self, batch, &error), PHILOTES_ERROR_DATA, &error, "column id", "write");
    MUST(batch->schema.release && batch->array.release, "a refused batch was taken");
    MUST(sink->sink->buffered_bytes(self) == 0, "a refused batch is buffered");
    batch->schema.children[0]->format = format;
    check_schema(&batch->schema);
    check_rows(&batch->array, 1);

    struct ArrowSchema schema = batch->schema;
    batch->schema.release = NULL;
    failed(sink->sink->write(self, batch, &error), PHILOTES_ERROR_INTERNAL, &error, "never sent", "write");
    MUST(batch->array.release, "a refused batch was taken");
    batch->schema = schema;
}

static void sink_without_instance(const philotes_connector *sink, const philotes_connector *source, const char *config)
{
    struct outputs outputs;
    philotes_error error = no_error();
    philotes_text task = text_of(task_json);
    ok(sink->validate(&host, text_of("{\"path\":\"\"}"), slot(&outputs), &error), &error, "validate");
    MUST(outputs.count == 1 && strncmp(outputs.items[0], "path: ", 6) == 0, "%d faults", outputs.count);
    ok(sink->validate(&host, text_of(config), slot(&outputs), &error), &error, "validate");
    MUST(outputs.count == 0, "%s", outputs.items[0]);
    failed(sink->check(&host, text_of(config), task, &error), PHILOTES_ERROR_UNAVAILABLE, &error, "path:", "check");

    void *self = NULL;
    failed(sink->sink->create(&host, text_of("{}"), task, &self, &error), PHILOTES_ERROR_CONFIG, &error, "path:",
           "create");
    failed(sink->sink->create(&host, text_of(config), text_of("{\"tasks\":2}"), &self, &error), PHILOTES_ERROR_CONFIG,
           &error, "tasks:", "create");
    MUST(!self, "an instance in spite of an error");

    ok(source->streams(&host, text_of("{\"rows\":1}"), task, slot(&outputs), &error), &error, "streams");
    struct ArrowSchema schema = outputs.schema;
    ok(sink->plan(&host, text_of(config), task, &known, &schema, slot(&outputs), &error), &error, "plan");
    MUST(outputs.count == 1 && json_is(text_of(outputs.items[0]), '{'), "%s", outputs.items[0]);
    MUST(strstr(outputs.items[0], "\"change\":\"create\""), "%s", outputs.items[0]);
    MUST(strstr(outputs.items[0], "\"name\":\"_cdc_lsn\""), "%s", outputs.items[0]);
    MUST(schema.release, "plan took the schema, which it only borrows");
    schema.release(&schema);
}

static void drive_sink(const philotes_connector *sink, const philotes_connector *source)
{
    char root[] = "/tmp/philotes-loader-XXXXXX", folder[128], path[160], config[256], beside[176];
    MUST(mkdtemp(root), "no temporary folder");
    snprintf(folder, sizeof folder, "%s/later", root);
    snprintf(path, sizeof path, "%s/lines \"ä\".json", folder);
    snprintf(beside, sizeof beside, "%s.new", path);
    snprintf(config, sizeof config, "{\"path\":\"%s/lines \\\"\\u00e4\\\".json\"}", folder);
    sink_without_instance(sink, source, config);

    char source_config[64];
    snprintf(source_config, sizeof source_config, "{\"rows\":%d,\"batch\":%d}", ROWS, BATCH);
    struct instance from = open_source(source, source_config);
    resume_source(from, NULL);
    philotes_poll result;
    philotes_batch batch;
    philotes_error error = no_error();
    struct outputs outputs;
    void *self = open_sink(sink, config);
    check_offset(sink, self, "");

    MUST(poll_source(from, 100, UINT64_MAX, &result, &batch) == PHILOTES_POLL_BATCH, "no batch");
    refused_write(sink, self, &batch);
    write_batch(sink, self, &batch);
    MUST(sink->sink->buffered_bytes(self) > 0, "nothing is buffered");
    check_offset(sink, self, ""); /* written is not durable */

    /* The folder is not there yet: nothing is durable, nothing is lost, and the next flush does it. */
    failed(sink->sink->flush(self, slot(&outputs), &error), PHILOTES_ERROR_UNAVAILABLE, &error, "path:", "flush");
    MUST(outputs.count == 0 && sink->sink->buffered_bytes(self) > 0, "a failed flush emitted or dropped something");
    MUST(mkdir(folder, 0700) == 0, "no folder");
    ok(sink->check(&host, text_of(config), text_of(task_json), &error), &error, "check");

    /* The rows are in the file, but the disk may not know: to repeat the flush doubles nothing. */
    folders_fail = 1;
    failed(sink->sink->flush(self, slot(&outputs), &error), PHILOTES_ERROR_UNKNOWN, &error, "folder", "flush");
    MUST(outputs.count == 0, "a flush in doubt emitted something");
    folders_fail = 0;
    check_flush(sink, self, BATCH, BATCH);
    check_file(path, BATCH);
    check_offset(sink, self, "{\"row\":64}");

    /* A batch that is not flushed is gone with the instance, and a new one knows what is durable. */
    MUST(poll_source(from, 100, UINT64_MAX, &result, &batch) == PHILOTES_POLL_BATCH, "no batch");
    write_batch(sink, self, &batch);
    sink->sink->cancel(self);
    close_sink(sink, self);
    close_source(from);
    check_file(path, BATCH);
    self = open_sink(sink, config);
    check_offset(sink, self, "{\"row\":64}");

    from = open_source(source, source_config);
    resume_source(from, "{\"row\":64}");
    while (poll_source(from, 100, UINT64_MAX, &result, &batch) == PHILOTES_POLL_BATCH)
        write_batch(sink, self, &batch);
    close_source(from); /* before the sink flushes: its batches must live on */
    check_flush(sink, self, ROWS - BATCH, ROWS);
    check_file(path, ROWS);
    sink->sink->destroy(self); /* never closed */

    /* A file of somebody else's is refused, not continued. */
    FILE *file = fopen(path, "a");
    MUST(file && fputs("not ours\n", file) >= 0 && fclose(file) == 0, "cannot spoil the file");
    ok(sink->sink->create(&host, text_of(config), text_of(task_json), &self, &error), &error, "create");
    failed(sink->sink->open(self, &error), PHILOTES_ERROR_CONFIG, &error, "was not written by c-lines", "open");
    sink->sink->destroy(self);

    MUST(access(beside, F_OK) != 0, "a temporary file is left");
    MUST(unlink(path) == 0 && rmdir(folder) == 0 && rmdir(root) == 0, "more files than expected in %s", root);
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: loader SOURCE_LIBRARY [SINK_LIBRARY]\n");
        return 2;
    }
    char config[64];
    const philotes_connector *source = load(argv[1], PHILOTES_SOURCE, "c-counter");
    source_without_instance(source);
    source_failures(source);
    snprintf(config, sizeof config, "{\"rows\":%d,\"batch\":%d}", ROWS, BATCH);
    int64_t rows = run(source, config, 0, UINT64_MAX);
    MUST(rows == ROWS, "%lld rows", (long long)rows);
    MUST(run(source, config, 0, 4096) == ROWS, "other rows in smaller batches");
    MUST(run(source, "{\"rows\":7}", 0, 1) == 7, "other rows in batches of one");
    MUST(run(source, config, 100, UINT64_MAX) == ROWS - 100, "other rows after row 100");
    MUST(run(source, config, ROWS, UINT64_MAX) == 0, "rows after the last one");
    MUST(run(source, "{\"rows\":0}", 0, UINT64_MAX) == 0, "rows of none");
    idle_and_cancel(source);
    MUST(events > 0, "no event was logged");
    if (argc == 3)
        drive_sink(load(argv[2], PHILOTES_SINK, "c-lines"), source);
    printf("rows %lld\n", (long long)rows);
    return 0;
}
