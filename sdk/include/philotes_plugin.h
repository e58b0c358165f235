/*
 * The plugin ABI of Philotes Connect, version 0.1.
 *
 * A plugin is a shared library that offers sources and sinks. It exports one symbol, `philotes_plugin_v1`, which
 * returns a static descriptor; everything else is reached through the descriptor's function pointers. This header
 * needs nothing but a C11 compiler.
 *
 * VERSIONS. While abi_major is 0 a plugin and a host work together only if abi_minor is equal too. From 1.0 on a
 * minor version only appends fields to structs. A later major adds a symbol `philotes_plugin_v2` beside the first.
 *
 * STRUCTS. Every struct but philotes_text and Arrow's starts with `struct_size` (philotes_plugin after its magic), which
 * whoever allocates the struct sets to sizeof its own version of it, a multiple of 8. A reader copies min(struct_size, its own sizeof)
 * bytes into a zeroed struct of its own, so that a field the other side does not know reads as 0 or NULL. A writer of an
 * out struct writes no field beyond the struct_size it finds there, and leaves struct_size alone. Arrays of structs are
 * arrays of pointers for the same reason. Reserved fields are 0.
 *
 * OWNERSHIP. Two things are owned across the boundary: Arrow structs, through their own `release`, and instances,
 * through `destroy`. Every other input is borrowed for the call: copy what you keep. Every other output of variable size
 * goes through host->emit, or is lent for a time that stands beside it. Nothing is ever freed by the other side.
 *
 * TEXT is UTF-8, not terminated by a zero byte. JSON is text.
 *
 * STATUS. Functions that can fail return PHILOTES_OK or one of the PHILOTES_ERROR_ kinds, and then also fill `error`, which
 * is never NULL and comes with length 0. The kind says what the host does next. Never put a row's values or a secret into
 * an error or a log message.
 *
 * THREADS. The host makes one call at a time into an instance, from any thread; only `cancel` may come at the same time,
 * more than once, and after `close`, but not once `destroy` has been called. Different instances and the connector's functions are called concurrently. The host's callbacks may be
 * called from every thread, never block, and are valid until `destroy` has returned (for the connector's own
 * functions: until the function has returned).
 *
 * TIME is in milliseconds for time-outs and in microseconds since 1970-01-01 UTC for instants.
 *
 * The delivery contract (announce, resume, commit; write, flush) is the documentation of the traits Source and Sink of
 * the Rust sdk; what is said here is its C form.
 *
 * The library is loaded with RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE and never unloaded.
 */
#ifndef PHILOTES_PLUGIN_H
#define PHILOTES_PLUGIN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- The Arrow C Data Interface, word for word from its specification ------------------------------------------- */

#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE

#define ARROW_FLAG_DICTIONARY_ORDERED 1
#define ARROW_FLAG_NULLABLE 2
#define ARROW_FLAG_MAP_KEYS_SORTED 4

struct ArrowSchema {
    const char *format;
    const char *name;
    const char *metadata;
    int64_t flags;
    int64_t n_children;
    struct ArrowSchema **children;
    struct ArrowSchema *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length;
    int64_t null_count;
    int64_t offset;
    int64_t n_buffers;
    int64_t n_children;
    const void **buffers;
    struct ArrowArray **children;
    struct ArrowArray *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

#endif

/* ---- Constants --------------------------------------------------------------------------------------------------- */

/* "PHILOTES" as the bytes of a little-endian number. */
#define PHILOTES_MAGIC UINT64_C(0x5345544F4C494850)
#define PHILOTES_ABI_MAJOR 0
#define PHILOTES_ABI_MINOR 1

/* What a status says; all but PHILOTES_OK are kinds of errors. */
#define PHILOTES_OK 0u
/* The configuration is wrong: the host stops. Say which key, what was found, what is allowed. */
#define PHILOTES_ERROR_CONFIG 1u
/* A server or a file is out of reach for now: the host retries with back-off. */
#define PHILOTES_ERROR_UNAVAILABLE 2u
/* A record cannot be written: the host stops or dead-letters it. Name stream, offset, column and reason. */
#define PHILOTES_ERROR_DATA 3u
/* Somebody else changed what this was based on: reload and apply again. */
#define PHILOTES_ERROR_CONFLICT 4u
/* The outcome is unknown: look before retrying. */
#define PHILOTES_ERROR_UNKNOWN 5u
/* Another task owns the stream: the host drops everything uncommitted and reopens source and sink. */
#define PHILOTES_ERROR_FENCED 6u
/* A bug: the host stops. */
#define PHILOTES_ERROR_INTERNAL 7u

/*
 * philotes_error.flags: with PHILOTES_ERROR_UNAVAILABLE: another task holds what only one may hold (the lock of a source).
 * The host is a standby then and tries again for as long as it takes; without the flag retries end in FAILED.
 */
#define PHILOTES_ERROR_HELD_ELSEWHERE 1u

/* Kinds of connectors. */
#define PHILOTES_SOURCE 1u
#define PHILOTES_SINK 2u

/* What a poll brought: philotes_poll.outcome. */
#define PHILOTES_POLL_BATCH 1u
#define PHILOTES_POLL_IDLE 2u
#define PHILOTES_POLL_END 3u
#define PHILOTES_POLL_ANNOUNCE 4u
#define PHILOTES_POLL_REVOKE 5u

/* philotes_batch.flags */
#define PHILOTES_BATCH_ENDS_TRANSACTION 1u
#define PHILOTES_BATCH_INITIAL_LOAD 2u
#define PHILOTES_BATCH_DEAD_LETTERS 4u /* see philotes_batch */

/* philotes_connector.flags */
#define PHILOTES_CONNECTOR_DEAD_LETTERS UINT64_C(1) /* a sink that keeps dead letters */

/* philotes_argument.flags */
#define PHILOTES_ARGUMENT_REQUIRED 1u  /* the action cannot do without it */
#define PHILOTES_ARGUMENT_EXCLUSIVE 2u /* it may be given only while the connector is stopped */

/* Levels of log events. */
#define PHILOTES_LOG_ERROR 1u
#define PHILOTES_LOG_WARN 2u
#define PHILOTES_LOG_INFO 3u
#define PHILOTES_LOG_DEBUG 4u
#define PHILOTES_LOG_TRACE 5u

/* Kinds of metrics. */
#define PHILOTES_METRIC_COUNTER 1u
#define PHILOTES_METRIC_GAUGE 2u
#define PHILOTES_METRIC_HISTOGRAM 3u

/* Host capabilities, as numbers of bits in philotes_host.capabilities. */
#define PHILOTES_CAPABILITY_EVENTS 0u  /* "events": log events arrive in the host's log */
#define PHILOTES_CAPABILITY_METRICS 1u /* "metrics": metrics are published */

/* An offset is JSON of at most this many bytes. */
#define PHILOTES_OFFSET_MAX_BYTES 1024u
#define PHILOTES_MESSAGE_MAX_BYTES 4096u

/* ---- Values ------------------------------------------------------------------------------------------------------ */

/* UTF-8 bytes, no zero at the end; `data` may be NULL where length is 0. This struct never changes. */
typedef struct philotes_text {
    const char *data;
    uint64_t length;
} philotes_text;

/* A philotes_text of a string literal: for initialisers, and as a value. */
#define PHILOTES_TEXT(literal) {(literal), sizeof(literal) - 1}
#define PHILOTES_TEXT_OF(literal) ((philotes_text)PHILOTES_TEXT(literal))

/* Allocated by the caller, filled by whoever fails. A message that is longer is cut between two characters. */
typedef struct philotes_error {
    uint32_t struct_size;
    uint32_t length; /* of the message, in bytes; no zero follows it */
    char message[PHILOTES_MESSAGE_MAX_BYTES];
    uint32_t flags; /* PHILOTES_ERROR_HELD_ELSEWHERE; a host from before it lends a struct that ends after the message */
    uint32_t reserved;
} philotes_error;

/* One ordered part of a stream. */
typedef struct philotes_partition {
    uint32_t struct_size;
    uint32_t part_count;        /* at least 1 */
    const philotes_text *parts; /* the stream's name: {"public", "orders"} */
    philotes_text partition;    /* "0" where the stream has only one */
} philotes_partition;

/* A partition and how far. */
typedef struct philotes_position {
    uint32_t struct_size;
    uint32_t reserved;
    const philotes_partition *at;
    philotes_text offset; /* JSON, at most PHILOTES_OFFSET_MAX_BYTES, that only the source reads */
} philotes_position;

/*
 * Rows of one partition, all of one schema, and the offset that covers them. The array is a struct array without nulls at
 * its top, one child per column; the schema is its struct type.
 *
 * The columns are the row itself, followed by three reserved ones: _cdc_operation (format "u", not nullable: INSERT, UPDATE,
 * DELETE or TRUNCATE), _cdc_timestamp ("tsu:+00:00", nullable: when it happened at the source) and _cdc_lsn ("u", nullable:
 * the source's own position). The schema's metadata says philotes.stream (the stream's name, printed with dots) and philotes.key (a
 * JSON array of the key columns' names, [] where there is none); a column's metadata may say philotes.source_type (its type at
 * the source). docs/PLUGINS.md lists what else it may say. A fourth reserved column, _cdc_unchanged ("+l" of "u", nullable), follows
 * in the batches of a source that leaves columns out of rows: it names them. A time zone is always spelled +00:00. Views, list views, unions and run-end encoding are refused.
 *
 * With PHILOTES_BATCH_DEAD_LETTERS the rows are records that cannot be written, and the columns are these instead: position ("u",
 * nullable: the source's own name of the record), kind ("u": the error's kind in lower case: data), message ("u": why, without
 * any value), record ("u": the record as the source has it), none of these three nullable, and _cdc_timestamp as above. Such
 * a schema has an id of its own. A source sends them only where its task says "tolerance":"dead-letter".
 */
typedef struct philotes_batch {
    uint32_t struct_size;
    uint32_t flags; /* PHILOTES_BATCH_ */
    /* Whose rows these are. In `poll` lent until the next call into the instance, in `write` borrowed. */
    const philotes_partition *at;
    /* The offset that covers these rows and all before them in this partition. Lent as `at` is. */
    philotes_text offset;
    /* Names the schema within the stream; assigned by the source, never reused for another one by this instance. */
    uint64_t schema_id;
    /* Filled (release is not NULL) at least when this instance has not yet sent the schema id for this stream. */
    struct ArrowSchema schema;
    struct ArrowArray array;
    /* Roughly what the rows hold in memory; 0 where unknown. */
    uint64_t bytes;
    /* When the source's server took the newest row in, microseconds since 1970 UTC; 0 where unknown. */
    int64_t newest_micros;
} philotes_batch;

/* What a poll brought, beside the batch. Allocated and zeroed by the host. */
typedef struct philotes_poll {
    uint32_t struct_size;
    uint32_t outcome; /* PHILOTES_POLL_ */
    /* With IDLE: not 0 when everything that was available when the poll began has been delivered. */
    uint32_t caught_up;
    /* With ANNOUNCE and REVOKE: how many partitions; at least 1. */
    uint32_t partition_count;
    /* With ANNOUNCE and REVOKE. Lent until the next call into the instance. */
    const philotes_partition *const *partitions;
} philotes_poll;

/* A stream that a source would deliver: the argument of philotes_host.emit_stream. */
typedef struct philotes_stream {
    uint32_t struct_size;
    uint32_t sampled; /* not 0 when the schema was inferred from sampled_rows rows */
    uint64_t sampled_rows;
    const philotes_partition *at; /* any one of its partitions; borrowed */
    /* The host moves the schema out and sets schema->release to NULL. */
    struct ArrowSchema *schema;
} philotes_stream;

/* ---- The host ---------------------------------------------------------------------------------------------------- */

/*
 * The host's callbacks. Each takes the same `const philotes_host *` that the plugin was given. They copy what they are
 * given before they return. A `slot` is valid during the call that it was passed to, and no longer.
 */
typedef struct philotes_host {
    uint32_t struct_size;
    uint32_t abi_major;
    uint32_t abi_minor;
    uint32_t reserved;
    uint64_t capabilities; /* bits PHILOTES_CAPABILITY_ */
    void *context;         /* the host's own */
    /* An event. `fields` is a JSON object or empty. */
    void (*log)(const struct philotes_host *host, uint32_t level, philotes_text target, philotes_text message,
                philotes_text fields);
    /* Not 0 when an event of this level and target would be written. */
    uint32_t (*log_enabled)(const struct philotes_host *host, uint32_t level, philotes_text target);
    /* A metric, `philotes_<noun>_<unit>[_total]`. `labels` is a JSON object of strings or empty. The host adds `connector`. */
    void (*metric)(const struct philotes_host *host, uint32_t kind, philotes_text name, double value,
                   philotes_text labels);
    /* Appends one item to the outputs of the running call. What the items are stands beside each function. */
    void (*emit)(const struct philotes_host *host, void *slot, philotes_text item);
    /* Appends one stream to the outputs of the connector's `streams`. */
    void (*emit_stream)(const struct philotes_host *host, void *slot, const philotes_stream *stream);
    /* Not 0 when the host wants the instance to stop: return soon. */
    uint32_t (*is_cancelled)(const struct philotes_host *host);
    /* For what comes later: a table by its name, or NULL where the host does not have it. */
    const void *(*get_extension)(const struct philotes_host *host, philotes_text name);
} philotes_host;

/* ---- A source ---------------------------------------------------------------------------------------------------- */

/*
 * The functions of source instances; none may be NULL. Order of calls: create, open once, then poll, resume and commit,
 * close once, destroy. After an error of any function the host calls close and destroy, or destroy alone.
 */
typedef struct philotes_source {
    uint32_t struct_size;
    uint32_t reserved;
    /*
     * Makes an instance without touching a server. `config` is a JSON object; `task` is
     * {"connector","task","tasks","max_memory","route":{"include","exclude"},"tolerance","renewed"}, where tolerance is none or
     * dead-letter: what becomes of a record that cannot be written. Where renewed is true, the host reads the files that
     * the configuration names again for the next instance. On success *instance is the host's to destroy.
     */
    uint32_t (*create)(const philotes_host *host, philotes_text config, philotes_text task, void **instance,
                       philotes_error *error);
    /* Connects, and claims the source where it keeps state of its own. */
    uint32_t (*open)(void *instance, philotes_error *error);
    /*
     * Waits up to timeout_ms for the next thing to say. With BATCH, fill *batch: it is roughly max_bytes long at most, and
     * its schema and array become the host's. *poll and *batch come zeroed but for their struct_size. A partition is announced
     * before its first batch, once per open; one `resume` for each announced partition follows before the next poll, perhaps
     * with a `commit` of others in between. On an error leave no schema or array in *batch.
     */
    uint32_t (*poll)(void *instance, uint64_t timeout_ms, uint64_t max_bytes, philotes_poll *poll, philotes_batch *batch,
                     philotes_error *error);
    /* Answers an announcement: rows after `offset` are wanted; NULL where the sink's table knows none. */
    uint32_t (*resume)(void *instance, const philotes_partition *at, const philotes_text *offset, philotes_error *error);
    /* These are durable in the sink. Returns without waiting. */
    uint32_t (*commit)(void *instance, const philotes_position *const *positions, uint32_t count, philotes_error *error);
    /* Running and later calls are to return soon. The only function that is called concurrently; returns at once. */
    void (*cancel)(void *instance);
    /* Sends the acknowledgements that are under way, within timeout_ms, and lets go of everything. */
    uint32_t (*close)(void *instance, uint64_t timeout_ms, philotes_error *error);
    /* Frees the instance, opened, closed or neither. The host's callbacks must not be called after it has returned. */
    void (*destroy)(void *instance);
} philotes_source;

/* ---- A sink ------------------------------------------------------------------------------------------------------ */

/* The functions of sink instances; none may be NULL. create, open, cancel, close and destroy are as a source's. */
typedef struct philotes_sink {
    uint32_t struct_size;
    uint32_t reserved;
    uint32_t (*create)(const philotes_host *host, philotes_text config, philotes_text task, void **instance,
                       philotes_error *error);
    uint32_t (*open)(void *instance, philotes_error *error);
    /* Emits one item per partition, in their order: its durable offset, or an empty text where none is known. */
    uint32_t (*offsets)(void *instance, const philotes_partition *const *at, uint32_t count, void *slot,
                        philotes_error *error);
    /*
     * Takes a batch in. On PHILOTES_OK the sink may have moved schema and array out of *batch (and set their release to
     * NULL); the host releases what is left. On an error both must still be in place and valid, holding the same rows: the
     * host may give the batch again. All or nothing: on an error the batch is as if it had never been given.
     */
    uint32_t (*write)(void *instance, philotes_batch *batch, philotes_error *error);
    /*
     * Makes durable what was written. Emits JSON objects, each with one key:
     *   {"durable": {"stream": ["a", "b"], "partition": "0", "offset": "<the offset's text>"}}
     *   {"commit":  {"table": "t", "rows": 1, "bytes": 1, "files": 1, "id": "<the sink's own name of it>"}}
     *   {"dead_letters": {"stream": ["a", "b"], "partition": "0", "count": 1}}   dead letters that are durable
     *   {"failed":  {"stream": ["a", "b"], "partition": "0", "kind": 2, "message": "why"}}
     * Items count whatever is returned: on an error, what was emitted before is durable nonetheless.
     */
    uint32_t (*flush)(void *instance, void *slot, philotes_error *error);
    /* Memory and files held by what was written and not yet flushed, in bytes. */
    uint64_t (*buffered_bytes)(void *instance);
    void (*cancel)(void *instance);
    /* What was not flushed is dropped. */
    uint32_t (*close)(void *instance, uint64_t timeout_ms, philotes_error *error);
    void (*destroy)(void *instance);
    /* -- what follows is optional -- */
    /*
     * These partitions go to another task, and everything of them has been flushed: from now on others may write them beside this
     * instance. Asked for again with `offsets` should they come back. Where NULL, the host closes and reopens the instance instead.
     */
    uint32_t (*revoke)(void *instance, const philotes_partition *const *at, uint32_t count, philotes_error *error);
} philotes_sink;

/* ---- The descriptor: static, all of it -------------------------------------------------------------------------- */

/*
 * One argument of an action. Where an exclusive one is given, the connector must be stopped: the host opens its source before
 * `act`, holds it without polling, and closes it afterwards; where that fails, as the source's lock is held elsewhere, `act`
 * is not called.
 */
typedef struct philotes_argument {
    uint32_t struct_size;
    uint32_t flags; /* PHILOTES_ARGUMENT_ */
    philotes_text name;
    philotes_text doc; /* one sentence */
} philotes_argument;

/* What a connector can do beside moving data. */
typedef struct philotes_action {
    uint32_t struct_size;
    uint32_t argument_count;
    philotes_text name; /* [a-z0-9_-]{1,63} */
    philotes_text doc; /* one sentence */
    const philotes_argument *const *arguments;
} philotes_action;

/* One source or sink. The functions may be NULL, unless it is said otherwise, and need not be there at all. */
typedef struct philotes_connector {
    uint32_t struct_size;
    uint32_t kind;             /* PHILOTES_SOURCE or PHILOTES_SINK */
    philotes_text name;        /* [a-z0-9-]{1,63}; what `plugin:` says in YAML */
    philotes_text version;     /* for people */
    philotes_text doc;         /* one sentence */
    philotes_text config_spec; /* JSON Schema of the configuration: an object */
    const philotes_source *source; /* not NULL for a source */
    const philotes_sink *sink;     /* not NULL for a sink */
    /* -- what follows is optional -- */
    const philotes_action *const *actions;
    uint32_t action_count;
    uint32_t reserved;
    /*
     * Emits one message per fault, each beginning with the path of its key. Touches no server. The configuration is an
     * object that has not been checked against the spec, here or anywhere else.
     */
    uint32_t (*validate)(const philotes_host *host, philotes_text config, void *slot, philotes_error *error);
    /* Tries to reach what the configuration names, reading only. */
    uint32_t (*check)(const philotes_host *host, philotes_text config, philotes_text task, philotes_error *error);
    /* Source: into how many tasks, at most `max`, the work can be split; 1 where NULL. */
    uint32_t (*tasks)(const philotes_host *host, philotes_text config, uint32_t max, uint32_t *count,
                      philotes_error *error);
    /* Source: calls host->emit_stream once per stream that it would deliver. Acknowledges and claims nothing. */
    uint32_t (*streams)(const philotes_host *host, philotes_text config, philotes_text task, void *slot,
                        philotes_error *error);
    /*
     * Sink: emits one JSON object that says what would be created or altered for the stream, and writes nothing:
     * {"table","change":"create|alter|none","columns":[{"name","source_type","target_type","required","inferred","change"}],
     *  "partition_by":[],"notes":[]}. The schema is borrowed.
     */
    uint32_t (*plan)(const philotes_host *host, philotes_text config, philotes_text task, const philotes_partition *at,
                     const struct ArrowSchema *schema, void *slot, philotes_error *error);
    /*
     * Does one of `actions`; `arguments` is a JSON object. Emits one JSON object, {"text": "…"} or
     * {"rows": {"columns": ["a"], "rows": [["1"]]}}, all cells being strings.
     */
    uint32_t (*act)(const philotes_host *host, philotes_text config, philotes_text task, philotes_text action,
                    philotes_text arguments, void *slot, philotes_error *error);
    uint64_t flags; /* PHILOTES_CONNECTOR_ */
} philotes_connector;

/* A host capability that a plugin cannot do without, by number and by name, so that an older host can say what it lacks. */
typedef struct philotes_capability {
    uint32_t struct_size;
    uint32_t bit;
    philotes_text name;
} philotes_capability;

/* What the one symbol returns. The first five fields keep their places for ever. */
typedef struct philotes_plugin {
    uint64_t magic; /* PHILOTES_MAGIC */
    uint32_t struct_size;
    uint32_t abi_major;    /* PHILOTES_ABI_MAJOR */
    uint32_t abi_minor;    /* PHILOTES_ABI_MINOR */
    uint32_t pointer_bits; /* 8 * sizeof(void *) */
    philotes_text id;      /* the plugin's name, [a-z0-9-]{1,63} */
    philotes_text version; /* of the plugin, for people */
    /* What it was built with. Batches are validated in full unless it is the Rust sdk ("philotes-sdk/…"), which has done so. */
    philotes_text sdk;
    philotes_text target; /* the target it was compiled for, for people */
    const philotes_connector *const *connectors;
    uint32_t connector_count; /* at least 1 */
    uint32_t required_capability_count;
    const philotes_capability *const *required_capabilities; /* NULL where there is none */
} philotes_plugin;

/* Exports the symbol even where a plugin is compiled with -fvisibility=hidden, as it should be. */
#if defined(__GNUC__)
#define PHILOTES_EXPORT __attribute__((visibility("default")))
#else
#define PHILOTES_EXPORT
#endif

/* The one exported symbol. Never returns NULL; what it returns is valid for ever. */
PHILOTES_EXPORT const philotes_plugin *philotes_plugin_v1(void);

#ifdef __cplusplus
}
#endif

#endif
