/*
 * c-lines: a complete sink in C, written against philotes_plugin.h alone.
 *
 * It keeps a file of JSON lines, {"stream":["c","counter"],"partition":"0","row":{…}} per row, and after the rows of each
 * flush {"stream":…,"partition":…,"rows":n,"offset":"…"} per partition. Rows and offset become durable in one step: the old
 * file and what is new are written beside it, and a rename swaps them. That copies the file at every flush, and nothing
 * keeps a second host off it: it is there to be read and tested. Build it as a shared library:
 *
 *     gcc -std=c11 -Wall -Wextra -fPIC -shared -I sdk/include tests/abi/sink.c -o libc_lines.so
 */
#define _POSIX_C_SOURCE 200809L

#include <philotes_plugin.h>

#include "error.h"
#include "json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- The configuration --------------------------------------------------------------------------------------- */

static const char config_spec[] =
    "{\"type\":\"object\",\"additionalProperties\":false,\"required\":[\"path\"],\"properties\":{"
    "\"path\":{\"type\":\"string\",\"description\":\"The file, in a folder that exists.\"}}}";

static const char *const path_fault = "path: a file name of 1 to 4000 bytes without a zero byte is allowed";

/* The path, which the caller frees, or NULL where there is none that is allowed. */
static char *read_path(philotes_text config)
{
    philotes_text value;
    struct json_buffer path = {0};
    if (json_member(config, "path", &value) && json_unescape(value, &path) && path.length >= 1 &&
        path.length <= 4000 && !memchr(path.data, '\0', path.length)) {
        json_bytes(&path, "", 1); /* ends it with a zero byte */
        if (!path.failed)
            return path.data;
    }
    free(path.data);
    return NULL;
}

static uint32_t lines_validate(const philotes_host *host, philotes_text config, void *slot, philotes_error *error)
{
    (void)error;
    char *path = read_path(config);
    if (!path)
        host->emit(host, slot, (philotes_text){path_fault, strlen(path_fault)});
    free(path);
    return PHILOTES_OK;
}

/* Opens the folder that the file is in. */
static int open_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return open(".", O_RDONLY | O_DIRECTORY);
    char *folder = strndup(path, (size_t)(slash - path) + 1);
    if (!folder)
        return -1;
    int descriptor = open(folder, O_RDONLY | O_DIRECTORY);
    free(folder);
    return descriptor;
}

static uint32_t lines_check(const philotes_host *host, philotes_text config, philotes_text task, philotes_error *error)
{
    (void)host;
    (void)task;
    char *path = read_path(config);
    if (!path)
        return fail(error, PHILOTES_ERROR_CONFIG, "%s", path_fault);
    int folder = open_folder(path);
    uint32_t status = PHILOTES_OK;
    if (folder < 0)
        status = fail(error, PHILOTES_ERROR_UNAVAILABLE, "path: the folder of %s: %s", path, strerror(errno));
    else
        close(folder);
    free(path);
    return status;
}

/* ---- An instance --------------------------------------------------------------------------------------------- */

/* A partition that was written or is in the file. */
struct partition {
    struct partition *next;
    char *key;        /* "stream":["c","counter"],"partition":"0" */
    char *durable;    /* its offset in the file, NULL where there is none */
    char *pending;    /* its offset with the next flush, NULL where nothing is pending */
    int64_t pending_rows;
};

/* A schema that came with a batch: later batches only name it. */
struct schema {
    struct schema *next;
    char *stream; /* ["c","counter"]: ids are the stream's own */
    uint64_t id;
    struct ArrowSchema schema;
};

/* A batch that waits for the flush. */
struct pending {
    struct pending *next;
    const struct partition *partition;
    const struct schema *schema;
    struct ArrowArray array;
    uint64_t bytes;
};

struct lines {
    const philotes_host *host;
    char *path;
    struct partition *partitions;
    struct schema *schemas;
    struct pending *first, **last; /* in the order in which they came */
    int swapped; /* they are in the file, but whether the disk knows is not known */
};

/* Ends a buffer with a zero byte and gives its text away; NULL where memory ran out. */
static char *finish(struct json_buffer *buffer)
{
    json_bytes(buffer, "", 1);
    if (!buffer->failed)
        return buffer->data;
    free(buffer->data);
    return NULL;
}

static char *stream_of(const philotes_partition *at)
{
    struct json_buffer text = {0};
    for (uint32_t i = 0; i < at->part_count; i++) {
        json_raw(&text, i == 0 ? "[" : ",");
        json_string(&text, at->parts[i].data, at->parts[i].length);
    }
    json_raw(&text, "]");
    return finish(&text);
}

static char *key_of(const philotes_partition *at)
{
    struct json_buffer text = {0};
    char *stream = stream_of(at);
    if (!stream)
        return NULL;
    json_raw(&text, "\"stream\":");
    json_raw(&text, stream);
    json_raw(&text, ",\"partition\":");
    json_string(&text, at->partition.data, at->partition.length);
    free(stream);
    return finish(&text);
}

/* Finds the partition or adds it, and takes the key. NULL where memory ran out. */
static struct partition *partition_of(struct lines *lines, char *key)
{
    struct partition *found = lines->partitions;
    while (key && found && strcmp(found->key, key) != 0)
        found = found->next;
    if (!key || found) {
        free(key);
        return found && key ? found : NULL;
    }
    found = calloc(1, sizeof *found);
    if (!found) {
        free(key);
        return NULL;
    }
    found->key = key;
    found->next = lines->partitions;
    lines->partitions = found;
    return found;
}

static void forget_pending(struct lines *lines)
{
    while (lines->first) {
        struct pending *batch = lines->first;
        lines->first = batch->next;
        batch->array.release(&batch->array);
        free(batch);
    }
    lines->last = &lines->first;
}

static uint32_t lines_create(const philotes_host *host, philotes_text config, philotes_text task, void **instance,
                             philotes_error *error)
{
    philotes_text value;
    int64_t tasks = 1;
    if (json_member(task, "tasks", &value) && json_integer(value, &tasks) && tasks > 1)
        return fail(error, PHILOTES_ERROR_CONFIG, "tasks: %lld cannot write one file; 1 is allowed", (long long)tasks);
    char *path = read_path(config);
    if (!path)
        return fail(error, PHILOTES_ERROR_CONFIG, "%s", path_fault);
    struct lines *lines = calloc(1, sizeof *lines);
    if (!lines) {
        free(path);
        return fail(error, PHILOTES_ERROR_UNAVAILABLE, "out of memory");
    }
    lines->host = host;
    lines->path = path;
    lines->last = &lines->first;
    *instance = lines;
    return PHILOTES_OK;
}

/* Remembers what a line of the file says. Returns 0 where it is none of ours, -1 where memory ran out. */
static int read_line(struct lines *lines, philotes_text line)
{
    philotes_text stream, partition, offset;
    if (!json_member(line, "stream", &stream) || !json_member(line, "partition", &partition))
        return 0;
    if (!json_member(line, "offset", &offset))
        return 1; /* a row */

    /* As the values were written by key_of, their text is the key's. */
    struct json_buffer key = {0}, unescaped = {0};
    json_raw(&key, "\"stream\":");
    json_bytes(&key, stream.data, stream.length);
    json_raw(&key, ",\"partition\":");
    json_bytes(&key, partition.data, partition.length);
    if (!json_unescape(offset, &unescaped)) {
        free(key.data);
        free(unescaped.data);
        return 0;
    }
    struct partition *found = partition_of(lines, finish(&key));
    char *durable = finish(&unescaped);
    if (!found || !durable) {
        free(durable);
        return -1;
    }
    free(found->durable);
    found->durable = durable; /* a later one replaces an earlier one */
    return 1;
}

static uint32_t lines_open(void *instance, philotes_error *error)
{
    struct lines *lines = instance;
    FILE *file = fopen(lines->path, "rb");
    if (!file && errno == ENOENT)
        return PHILOTES_OK; /* nothing is durable yet */
    if (!file)
        return fail(error, PHILOTES_ERROR_UNAVAILABLE, "path: %s: %s", lines->path, strerror(errno));

    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    int understood = 1;
    long long number = 0;
    while (understood == 1 && (length = getline(&line, &capacity, file)) > 0) {
        number++;
        understood = read_line(lines, (philotes_text){line, (uint64_t)length});
    }
    int unread = ferror(file);
    free(line);
    fclose(file);
    if (unread)
        return fail(error, PHILOTES_ERROR_UNAVAILABLE, "path: %s cannot be read", lines->path);
    if (understood < 0)
        return fail(error, PHILOTES_ERROR_UNAVAILABLE, "out of memory");
    if (understood == 0)
        return fail(error, PHILOTES_ERROR_CONFIG, "path: line %lld of %s was not written by c-lines; name another file",
                    number, lines->path);
    return PHILOTES_OK;
}

static uint32_t lines_offsets(void *instance, const philotes_partition *const *at, uint32_t count, void *slot,
                              philotes_error *error)
{
    struct lines *lines = instance;
    for (uint32_t i = 0; i < count; i++) {
        const struct partition *partition = partition_of(lines, key_of(at[i]));
        if (!partition)
            return fail(error, PHILOTES_ERROR_UNAVAILABLE, "out of memory");
        const char *offset = partition->durable ? partition->durable : "";
        lines->host->emit(lines->host, slot, (philotes_text){offset, strlen(offset)});
    }
    return PHILOTES_OK;
}

/* ---- Taking batches in --------------------------------------------------------------------------------------- */

/* Refuses a column of a type that append_value does not print. */
static uint32_t check_columns(const struct ArrowSchema *schema, const char *stream, philotes_error *error)
{
    for (int64_t i = 0; i < schema->n_children; i++) {
        const char *format = schema->children[i]->format;
        if (strcmp(format, "l") != 0 && strcmp(format, "i") != 0 && strcmp(format, "b") != 0 &&
            strcmp(format, "u") != 0 && strncmp(format, "tsu:", 4) != 0)
            return fail(error, PHILOTES_ERROR_DATA,
                        "stream %s: column %s has the Arrow format %s; l, i, b, u and tsu are allowed", stream,
                        schema->children[i]->name, format);
    }
    return PHILOTES_OK;
}

static struct schema *find_schema(const struct lines *lines, const char *stream, uint64_t id)
{
    struct schema *found = lines->schemas;
    while (found && (found->id != id || strcmp(found->stream, stream) != 0))
        found = found->next;
    return found;
}

/*
 * The schema of the batch: the one that came with it, moved out of it, or the one that it names. Takes `stream`. On an
 * error the batch is untouched.
 */
static uint32_t take_schema(struct lines *lines, philotes_batch *batch, char *stream, struct schema **schema,
                            philotes_error *error)
{
    uint32_t status = PHILOTES_OK;
    *schema = find_schema(lines, stream, batch->schema_id);
    if (!*schema && !batch->schema.release)
        status = fail(error, PHILOTES_ERROR_INTERNAL, "stream %s: a batch names a schema that was never sent", stream);
    if (!*schema && status == PHILOTES_OK)
        status = check_columns(&batch->schema, stream, error);
    if (*schema || status != PHILOTES_OK) {
        free(stream);
        return status;
    }
    *schema = calloc(1, sizeof **schema);
    if (!*schema) {
        free(stream);
        return fail(error, PHILOTES_ERROR_UNAVAILABLE, "out of memory");
    }
    **schema = (struct schema){
        .next = lines->schemas,
        .stream = stream,
        .id = batch->schema_id,
        .schema = batch->schema,
    };
    batch->schema.release = NULL; /* moved: from here on it is ours */
    lines->schemas = *schema;
    return PHILOTES_OK;
}

static uint32_t lines_write(void *instance, philotes_batch *batch, philotes_error *error)
{
    struct lines *lines = instance;
    if (lines->swapped) /* what is in doubt must not grow */
        return fail(error, PHILOTES_ERROR_INTERNAL, "written to before the flush in doubt was repeated");
    struct partition *partition = partition_of(lines, key_of(batch->at));
    char *stream = stream_of(batch->at);
    char *offset = strndup(batch->offset.data, batch->offset.length);
    struct pending *pending = calloc(1, sizeof *pending);
    struct schema *schema = NULL;
    uint32_t status = partition && stream && offset && pending
                          ? PHILOTES_OK
                          : fail(error, PHILOTES_ERROR_UNAVAILABLE, "out of memory");
    if (status == PHILOTES_OK) {
        /* Last of all that can fail, since on an error the schema must still be the batch's. */
        status = take_schema(lines, batch, stream, &schema, error);
        stream = NULL;
    }
    if (status != PHILOTES_OK) {
        free(stream);
        free(offset);
        free(pending);
        return status;
    }
    *pending = (struct pending){.partition = partition, .schema = schema, .array = batch->array, .bytes = batch->bytes};
    batch->array.release = NULL; /* moved */
    *lines->last = pending;
    lines->last = &pending->next;
    free(partition->pending);
    partition->pending = offset;
    partition->pending_rows += pending->array.length;
    return PHILOTES_OK;
}

/* ---- Making them durable ------------------------------------------------------------------------------------- */

static int bit(const void *bits, int64_t at)
{
    return ((const uint8_t *)bits)[at / 8] >> (at % 8) & 1;
}

/* Prints one value. `at` counts from the start of the column's buffers. */
static void append_value(struct json_buffer *out, const struct ArrowArray *column, const char *format, int64_t at)
{
    if (column->buffers[0] && !bit(column->buffers[0], at)) {
        json_raw(out, "null");
    } else if (*format == 'b') {
        json_raw(out, bit(column->buffers[1], at) ? "true" : "false");
    } else if (*format == 'i') {
        json_number(out, ((const int32_t *)column->buffers[1])[at]);
    } else if (*format == 'u') {
        const int32_t *offsets = column->buffers[1];
        const char *bytes = column->buffers[2];
        size_t length = (size_t)(offsets[at + 1] - offsets[at]);
        json_string(out, length > 0 ? bytes + offsets[at] : "", length);
    } else { /* l, and tsu as the microseconds that it counts */
        json_number(out, ((const int64_t *)column->buffers[1])[at]);
    }
}

static void append_rows(struct json_buffer *out, const struct pending *batch)
{
    const struct ArrowSchema *schema = &batch->schema->schema;
    for (int64_t row = 0; row < batch->array.length; row++) {
        json_raw(out, "{");
        json_raw(out, batch->partition->key);
        json_raw(out, ",\"row\":{");
        for (int64_t i = 0; i < schema->n_children; i++) {
            const struct ArrowArray *column = batch->array.children[i];
            if (i > 0)
                json_raw(out, ",");
            json_string(out, schema->children[i]->name, strlen(schema->children[i]->name));
            json_raw(out, ":");
            /* Both offsets count: a slice of a struct array leaves its children as they are. */
            append_value(out, column, schema->children[i]->format, column->offset + batch->array.offset + row);
        }
        json_raw(out, "}}\n");
    }
}

/* The rows and the offset of each partition, as lines. */
static struct json_buffer new_lines(const struct lines *lines, int64_t *rows)
{
    struct json_buffer text = {0};
    *rows = 0;
    for (const struct pending *batch = lines->first; batch; batch = batch->next) {
        append_rows(&text, batch);
        *rows += batch->array.length;
    }
    for (const struct partition *partition = lines->partitions; partition; partition = partition->next) {
        if (!partition->pending)
            continue;
        json_raw(&text, "{");
        json_raw(&text, partition->key);
        json_raw(&text, ",\"rows\":");
        json_number(&text, partition->pending_rows);
        json_raw(&text, ",\"offset\":");
        json_string(&text, partition->pending, strlen(partition->pending));
        json_raw(&text, "}\n");
    }
    return text;
}

/* What flush emits, one item per line: made before the commit, so that nothing can fail behind it. */
static struct json_buffer new_items(const struct lines *lines, int64_t rows, size_t bytes)
{
    struct json_buffer items = {0};
    for (const struct partition *partition = lines->partitions; partition; partition = partition->next) {
        if (!partition->pending)
            continue;
        json_raw(&items, "{\"durable\":{");
        json_raw(&items, partition->key);
        json_raw(&items, ",\"offset\":");
        json_string(&items, partition->pending, strlen(partition->pending));
        json_raw(&items, "}}\n");
    }
    json_raw(&items, "{\"commit\":{\"table\":");
    json_string(&items, lines->path, strlen(lines->path));
    json_raw(&items, ",\"rows\":");
    json_number(&items, rows);
    json_raw(&items, ",\"bytes\":");
    json_number(&items, (int64_t)bytes);
    json_raw(&items, ",\"files\":1,\"id\":\"\"}}\n");
    return items;
}

/* Writes the old file's bytes and the new lines to a file beside it, and waits until the disk has them. */
static int write_beside(const char *path, const char *beside, const struct json_buffer *text)
{
    FILE *new_file = fopen(beside, "wb");
    if (!new_file)
        return 0;
    int whole = 1;
    FILE *old_file = fopen(path, "rb");
    if (old_file) {
        char block[65536];
        size_t length;
        while (whole && (length = fread(block, 1, sizeof block, old_file)) > 0)
            whole = fwrite(block, 1, length, new_file) == length;
        whole = whole && !ferror(old_file);
        fclose(old_file);
    } else {
        whole = errno == ENOENT;
    }
    whole = whole && fwrite(text->data, 1, text->length, new_file) == text->length;
    whole = whole && fflush(new_file) == 0 && fsync(fileno(new_file)) == 0;
    int cause = errno;
    if (fclose(new_file) != 0)
        return 0;
    errno = cause;
    return whole;
}

/* Adds the text to the file in one step: all of it, or nothing and an error. */
static uint32_t swap_in(const char *path, const struct json_buffer *text, philotes_error *error)
{
    struct json_buffer name = {0};
    json_raw(&name, path);
    json_raw(&name, ".new");
    char *beside = finish(&name);
    uint32_t status = PHILOTES_OK;
    if (!beside) {
        status = fail(error, PHILOTES_ERROR_UNAVAILABLE, "out of memory");
    } else if (!write_beside(path, beside, text) || rename(beside, path) != 0) {
        status = fail(error, PHILOTES_ERROR_UNAVAILABLE, "path: %s cannot be written: %s", path, strerror(errno));
        unlink(beside); /* perhaps half of it; the file itself is as it was */
    }
    free(beside);
    return status;
}

/* Waits until the disk has the new name. Until then a power cut may bring the old file back. */
static uint32_t sync_folder(const char *path, philotes_error *error)
{
    int folder = open_folder(path);
    uint32_t status = PHILOTES_OK;
    if (folder < 0 || fsync(folder) != 0)
        status = fail(error, PHILOTES_ERROR_UNKNOWN, "path: the folder of %s: %s", path, strerror(errno));
    if (folder >= 0)
        close(folder);
    return status;
}

static uint32_t lines_flush(void *instance, void *slot, philotes_error *error)
{
    struct lines *lines = instance;
    if (!lines->first)
        return PHILOTES_OK;
    int64_t rows;
    struct json_buffer text = new_lines(lines, &rows);
    struct json_buffer items = new_items(lines, rows, text.length);
    uint32_t status = PHILOTES_OK;
    if (text.failed || items.failed)
        status = fail(error, PHILOTES_ERROR_UNAVAILABLE, "out of memory");
    else if (!lines->swapped)
        status = swap_in(lines->path, &text, error);
    if (status == PHILOTES_OK) {
        lines->swapped = 1; /* the next attempt must not add them once more */
        status = sync_folder(lines->path, error);
    }
    if (status == PHILOTES_OK) {
        lines->swapped = 0;
        for (struct partition *partition = lines->partitions; partition; partition = partition->next) {
            if (!partition->pending)
                continue;
            free(partition->durable);
            partition->durable = partition->pending;
            partition->pending = NULL;
            partition->pending_rows = 0;
        }
        forget_pending(lines);
        for (char *item = items.data, *end = items.data + items.length; item < end;) {
            char *behind = memchr(item, '\n', (size_t)(end - item));
            lines->host->emit(lines->host, slot, (philotes_text){item, (uint64_t)(behind - item)});
            item = behind + 1;
        }
    }
    free(text.data);
    free(items.data);
    return status; /* on an error all that was written is kept, and the next flush tries again */
}

static uint64_t lines_buffered_bytes(void *instance)
{
    uint64_t bytes = 0;
    for (const struct pending *batch = ((struct lines *)instance)->first; batch; batch = batch->next)
        bytes += batch->bytes;
    return bytes;
}

/* ---- The end ------------------------------------------------------------------------------------------------- */

static void lines_cancel(void *instance)
{
    (void)instance; /* no call waits for anything: each returns soon as it is */
}

static uint32_t lines_close(void *instance, uint64_t timeout_ms, philotes_error *error)
{
    (void)timeout_ms;
    (void)error;
    forget_pending(instance); /* what was not flushed is dropped */
    return PHILOTES_OK;
}

static void lines_destroy(void *instance)
{
    struct lines *lines = instance;
    forget_pending(lines);
    while (lines->partitions) {
        struct partition *partition = lines->partitions;
        lines->partitions = partition->next;
        free(partition->key);
        free(partition->durable);
        free(partition->pending);
        free(partition);
    }
    while (lines->schemas) {
        struct schema *schema = lines->schemas;
        lines->schemas = schema->next;
        schema->schema.release(&schema->schema);
        free(schema->stream);
        free(schema);
    }
    free(lines->path);
    free(lines);
}

/* ---- What works without an instance -------------------------------------------------------------------------- */

static uint32_t lines_plan(const philotes_host *host, philotes_text config, philotes_text task,
                           const philotes_partition *at, const struct ArrowSchema *schema, void *slot,
                           philotes_error *error)
{
    (void)task;
    char *path = read_path(config);
    if (!path)
        return fail(error, PHILOTES_ERROR_CONFIG, "%s", path_fault);
    char *stream = stream_of(at);
    uint32_t status = stream ? check_columns(schema, stream, error)
                             : fail(error, PHILOTES_ERROR_UNAVAILABLE, "out of memory");
    struct json_buffer plan = {0};
    json_raw(&plan, "{\"table\":");
    json_string(&plan, path, strlen(path));
    json_raw(&plan, access(path, F_OK) == 0 ? ",\"change\":\"none\"" : ",\"change\":\"create\"");
    json_raw(&plan, ",\"columns\":[");
    for (int64_t i = 0; i < schema->n_children; i++) {
        const struct ArrowSchema *column = schema->children[i];
        json_raw(&plan, i == 0 ? "{\"name\":" : ",{\"name\":");
        json_string(&plan, column->name, strlen(column->name));
        json_raw(&plan, ",\"source_type\":");
        json_string(&plan, column->format, strlen(column->format));
        json_raw(&plan, ",\"target_type\":\"json\",\"required\":");
        json_raw(&plan, column->flags & ARROW_FLAG_NULLABLE ? "false" : "true");
        json_raw(&plan, ",\"inferred\":false,\"change\":\"\"}");
    }
    json_raw(&plan, "],\"partition_by\":[],\"notes\":[]}");
    if (status == PHILOTES_OK && plan.failed)
        status = fail(error, PHILOTES_ERROR_UNAVAILABLE, "out of memory");
    if (status == PHILOTES_OK)
        host->emit(host, slot, (philotes_text){plan.data, plan.length});
    free(plan.data);
    free(stream);
    free(path);
    return status;
}

/* ---- The descriptor ------------------------------------------------------------------------------------------ */

static const philotes_sink functions = {
    .struct_size = sizeof(philotes_sink),
    .create = lines_create,
    .open = lines_open,
    .offsets = lines_offsets,
    .write = lines_write,
    .flush = lines_flush,
    .buffered_bytes = lines_buffered_bytes,
    .cancel = lines_cancel,
    .close = lines_close,
    .destroy = lines_destroy,
};

static const philotes_connector connector = {
    .struct_size = sizeof(philotes_connector),
    .kind = PHILOTES_SINK,
    .name = PHILOTES_TEXT("c-lines"),
    .version = PHILOTES_TEXT("0.1.0"),
    .doc = PHILOTES_TEXT("Writes JSON lines, to show how a sink is written in C."),
    .config_spec = PHILOTES_TEXT(config_spec),
    .sink = &functions,
    .validate = lines_validate,
    .check = lines_check,
    .plan = lines_plan,
};
static const philotes_connector *const connectors[] = {&connector};

static const philotes_plugin plugin = {
    .magic = PHILOTES_MAGIC,
    .struct_size = sizeof(philotes_plugin),
    .abi_major = PHILOTES_ABI_MAJOR,
    .abi_minor = PHILOTES_ABI_MINOR,
    .pointer_bits = 8 * sizeof(void *),
    .id = PHILOTES_TEXT("c-lines"),
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
