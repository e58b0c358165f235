/*
 * The rows of c-counter and their schema, built by hand for the Arrow C Data Interface.
 *
 * Row n is {id: n, name: "row n" or NULL where 3 divides n}, an INSERT that happened n microseconds into 2026. Whoever
 * receives a struct owns it and calls its release, from any thread and perhaps after the instance is gone, so nothing in
 * here points into one.
 */
#ifndef ROWS_H
#define ROWS_H

#include <philotes_plugin.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 32 /* no text of a row is longer */
#define START_OF_2026 INT64_C(1767225600000000) /* microseconds */

/* ---- The schema: one allocation, released as one ------------------------------------------------------------- */

#define COLUMNS 5

/* Names, formats and order of the reserved columns are as the sdk fixes them; they close every change batch. */
static const struct {
    const char *name;
    const char *format;
    int64_t flags;
} columns[COLUMNS] = {
    {"id", "l", 0},
    {"name", "u", ARROW_FLAG_NULLABLE},
    {"_cdc_operation", "u", 0},
    {"_cdc_timestamp", "tsu:+00:00", ARROW_FLAG_NULLABLE},
    {"_cdc_lsn", "u", ARROW_FLAG_NULLABLE},
};

struct schema {
    struct ArrowSchema children[COLUMNS];
    struct ArrowSchema *pointers[COLUMNS];
    char metadata[128];
};

/* Appends a text in Arrow's encoding of metadata: its length as a native 32-bit integer, then its bytes. */
static char *put_metadata(char *at, const char *text)
{
    int32_t length = (int32_t)strlen(text);
    memcpy(at, &length, sizeof length);
    memcpy(at + sizeof length, text, (size_t)length);
    return at + sizeof length + length;
}

/* A child owns nothing: its texts are static and its struct is the parent's. It is released all the same. */
static void release_field(struct ArrowSchema *field)
{
    field->release = NULL;
}

static void release_schema(struct ArrowSchema *root)
{
    struct schema *schema = root->private_data;
    for (int i = 0; i < COLUMNS; i++)
        if (schema->children[i].release) /* a consumer may have moved it out */
            schema->children[i].release(&schema->children[i]);
    free(schema);
    root->release = NULL;
}

static int export_schema(struct ArrowSchema *root)
{
    struct schema *schema = calloc(1, sizeof *schema);
    if (!schema)
        return 0;
    for (int i = 0; i < COLUMNS; i++) {
        schema->children[i] = (struct ArrowSchema){
            .format = columns[i].format,
            .name = columns[i].name,
            .flags = columns[i].flags,
            .release = release_field,
        };
        schema->pointers[i] = &schema->children[i];
    }
    int32_t entries = 2;
    memcpy(schema->metadata, &entries, sizeof entries);
    char *at = schema->metadata + sizeof entries;
    at = put_metadata(put_metadata(at, "philotes.stream"), "c.counter");
    put_metadata(put_metadata(at, "philotes.key"), "[\"id\"]");
    *root = (struct ArrowSchema){
        .format = "+s",
        .name = "",
        .metadata = schema->metadata,
        .n_children = COLUMNS,
        .children = schema->pointers,
        .release = release_schema,
        .private_data = schema,
    };
    return 1;
}

/* ---- Rows: each column owns its buffers, so that a consumer may move it out and release it apart from the rest */

struct column {
    const void *buffers[3]; /* validity or NULL, then values, or offsets and bytes */
};

static void release_column(struct ArrowArray *array)
{
    struct column *column = array->private_data;
    for (int i = 0; i < 3; i++)
        free((void *)column->buffers[i]);
    free(column);
    array->release = NULL;
}

/* Makes an array of these buffers and takes them, whether it succeeds or not. */
static int export_column(struct ArrowArray *array, int64_t rows, int64_t nulls, int64_t buffers, void *validity,
                         void *second, void *third)
{
    struct column *column = malloc(sizeof *column);
    if (!column) {
        free(validity);
        free(second);
        free(third);
        return 0;
    }
    *column = (struct column){{validity, second, third}};
    *array = (struct ArrowArray){
        .length = rows,
        .null_count = nulls,
        .n_buffers = buffers,
        .buffers = column->buffers,
        .release = release_column,
        .private_data = column,
    };
    return 1;
}

/* The 64-bit numbers base + first, base + first + 1 and so on. */
static int export_numbers(struct ArrowArray *array, int64_t first, int64_t rows, int64_t base)
{
    int64_t *values = malloc((size_t)rows * sizeof *values);
    if (!values)
        return 0;
    for (int64_t i = 0; i < rows; i++)
        values[i] = base + first + i;
    return export_column(array, rows, 0, 2, NULL, values, NULL);
}

/* Writes the text of row n and returns its length, or -1 for NULL. */
typedef int row_text(int64_t n, char text[TEXT_MAX]);

static int name_of(int64_t n, char text[TEXT_MAX])
{
    return n % 3 == 0 ? -1 : snprintf(text, TEXT_MAX, "row %lld", (long long)n);
}

static int operation_of(int64_t n, char text[TEXT_MAX])
{
    (void)n;
    return snprintf(text, TEXT_MAX, "INSERT");
}

static int lsn_of(int64_t n, char text[TEXT_MAX])
{
    return snprintf(text, TEXT_MAX, "%lld", (long long)n);
}

static int export_texts(struct ArrowArray *array, int64_t first, int64_t rows, row_text *text_of_row)
{
    uint8_t *validity = calloc(((size_t)rows + 7) / 8, 1);
    int32_t *offsets = malloc(((size_t)rows + 1) * sizeof *offsets);
    char *bytes = malloc((size_t)rows * TEXT_MAX);
    if (!validity || !offsets || !bytes) {
        free(validity);
        free(offsets);
        free(bytes);
        return 0;
    }
    int64_t nulls = 0;
    offsets[0] = 0;
    for (int64_t i = 0; i < rows; i++) {
        int length = text_of_row(first + i, bytes + offsets[i]);
        if (length < 0) {
            nulls++;
            length = 0; /* a NULL takes no bytes */
        } else {
            validity[i / 8] |= (uint8_t)(1u << (i % 8));
        }
        offsets[i + 1] = offsets[i] + length;
    }
    if (nulls == 0) {
        free(validity);
        validity = NULL;
    }
    return export_column(array, rows, nulls, 3, validity, offsets, bytes);
}

struct rows {
    struct ArrowArray children[COLUMNS];
    struct ArrowArray *pointers[COLUMNS];
    const void *buffers[1]; /* a struct array has a validity buffer; no row is NULL */
};

static void release_rows(struct ArrowArray *root)
{
    struct rows *rows = root->private_data;
    for (int i = 0; i < COLUMNS; i++)
        if (rows->children[i].release)
            rows->children[i].release(&rows->children[i]);
    free(rows);
    root->release = NULL;
}

static int export_rows(struct ArrowArray *root, int64_t first, int64_t count)
{
    struct rows *rows = calloc(1, sizeof *rows);
    if (!rows)
        return 0;
    for (int i = 0; i < COLUMNS; i++)
        rows->pointers[i] = &rows->children[i];
    *root = (struct ArrowArray){
        .length = count,
        .n_buffers = 1,
        .n_children = COLUMNS,
        .buffers = rows->buffers,
        .children = rows->pointers,
        .release = release_rows,
        .private_data = rows,
    };
    if (export_numbers(&rows->children[0], first, count, 0) &&
        export_texts(&rows->children[1], first, count, name_of) &&
        export_texts(&rows->children[2], first, count, operation_of) &&
        export_numbers(&rows->children[3], first, count, START_OF_2026) &&
        export_texts(&rows->children[4], first, count, lsn_of))
        return 1;
    root->release(root); /* frees the columns that there are */
    return 0;
}

#endif
