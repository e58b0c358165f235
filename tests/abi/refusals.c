/*
 * A plugin that a host must refuse, for the reason that a flag chooses; without a flag it is sound and must load. Its
 * functions are never called.
 *
 *     -D                        what is wrong
 *     ------------------------- ---------------------------------------------------------------------------
 *     REFUSE_NO_SYMBOL          it exports no philotes_plugin_v1 (but a philotes_plugin_v0)
 *     REFUSE_NULL_DESCRIPTOR    philotes_plugin_v1 returns NULL
 *     REFUSE_MAGIC              the magic is another number
 *     REFUSE_POINTER_BITS       pointer_bits is 32
 *     REFUSE_MAJOR              abi_major is one more than the header's
 *     REFUSE_MINOR              abi_minor is one more than the header's (while abi_major is 0)
 *     REFUSE_STRUCT_SIZE        the descriptor's struct_size ends before `connectors`
 *     REFUSE_NULL_FUNCTION      the source has no `poll`
 *     REFUSE_TABLE_SIZE         the source's function table says that it ends before `destroy`
 *     REFUSE_NO_TABLE           the connector is a source but `source` is NULL
 *     REFUSE_KIND               the connector's kind is 3
 *     REFUSE_CAPABILITY         it requires the host capability two_phase (bit 3), which no host has
 *     REFUSE_UTF8               the connector's name is no UTF-8
 *     REFUSE_CONNECTOR_NAME     the connector's name is "Refused_One"
 *     REFUSE_EMPTY_NAME         the connector's name is empty
 *     REFUSE_SPEC               the configuration spec is no JSON
 *     REFUSE_SPEC_ARRAY         the configuration spec is JSON, but no object
 *     REFUSE_ACTION_TWICE       two actions of the connector are called "again"
 *     REFUSE_NULL_CONNECTORS    connector_count is 1, but `connectors` is NULL
 *     REFUSE_NULL_CONNECTOR     connector_count is 1, but the one pointer is NULL
 *     REFUSE_NO_CONNECTORS      connector_count is 0
 */
#include <philotes_plugin.h>

#include <stddef.h>

/* A flag may leave a definition without a use. */
#define PERHAPS __attribute__((unused)) static

#if defined(REFUSE_UTF8)
#define NAME "refused-\xff\xfe"
#elif defined(REFUSE_CONNECTOR_NAME)
#define NAME "Refused_One"
#elif defined(REFUSE_EMPTY_NAME)
#define NAME ""
#else
#define NAME "refused"
#endif

#if defined(REFUSE_SPEC)
#define SPEC "{\"type\":"
#elif defined(REFUSE_SPEC_ARRAY)
#define SPEC "[]"
#else
#define SPEC "{\"type\":\"object\",\"properties\":{}}"
#endif

static uint32_t create(const philotes_host *host, philotes_text config, philotes_text task, void **instance,
                       philotes_error *error)
{
    (void)host;
    (void)config;
    (void)task;
    (void)instance;
    (void)error;
    return PHILOTES_ERROR_INTERNAL;
}

static uint32_t open(void *instance, philotes_error *error)
{
    (void)instance;
    (void)error;
    return PHILOTES_ERROR_INTERNAL;
}

PERHAPS uint32_t poll(void *instance, uint64_t timeout_ms, uint64_t max_bytes, philotes_poll *poll,
                      philotes_batch *batch, philotes_error *error)
{
    (void)instance;
    (void)timeout_ms;
    (void)max_bytes;
    (void)poll;
    (void)batch;
    (void)error;
    return PHILOTES_ERROR_INTERNAL;
}

static uint32_t resume(void *instance, const philotes_partition *at, const philotes_text *offset, philotes_error *error)
{
    (void)instance;
    (void)at;
    (void)offset;
    (void)error;
    return PHILOTES_ERROR_INTERNAL;
}

static uint32_t commit(void *instance, const philotes_position *const *positions, uint32_t count, philotes_error *error)
{
    (void)instance;
    (void)positions;
    (void)count;
    (void)error;
    return PHILOTES_ERROR_INTERNAL;
}

static uint32_t close(void *instance, uint64_t timeout_ms, philotes_error *error)
{
    (void)instance;
    (void)timeout_ms;
    (void)error;
    return PHILOTES_ERROR_INTERNAL;
}

static void notify(void *instance)
{
    (void)instance;
}

PERHAPS const philotes_source functions = {
#ifdef REFUSE_TABLE_SIZE
    .struct_size = offsetof(philotes_source, destroy),
#else
    .struct_size = sizeof(philotes_source),
#endif
    .create = create,
    .open = open,
#ifndef REFUSE_NULL_FUNCTION
    .poll = poll,
#endif
    .resume = resume,
    .commit = commit,
    .cancel = notify,
    .close = close,
    .destroy = notify,
};

PERHAPS const philotes_action again = {
    .struct_size = sizeof(philotes_action),
    .name = PHILOTES_TEXT("again"),
    .doc = PHILOTES_TEXT("Once more."),
};

PERHAPS const philotes_action *const actions[] = {&again, &again};

PERHAPS const philotes_connector connector = {
    .struct_size = sizeof(philotes_connector),
#ifdef REFUSE_KIND
    .kind = 3,
#else
    .kind = PHILOTES_SOURCE,
#endif
    .name = PHILOTES_TEXT(NAME),
    .version = PHILOTES_TEXT("0.1.0"),
#ifdef REFUSE_ACTION_TWICE
    .actions = actions,
    .action_count = 2,
#endif
    .doc = PHILOTES_TEXT("Refused, or not."),
    .config_spec = PHILOTES_TEXT(SPEC),
#ifndef REFUSE_NO_TABLE
    .source = &functions,
#endif
};

PERHAPS const philotes_connector *const connectors[] = {
#ifdef REFUSE_NULL_CONNECTOR
    NULL,
#else
    &connector,
#endif
};

#ifdef REFUSE_CAPABILITY
static const philotes_capability two_phase = {
    .struct_size = sizeof(philotes_capability),
    .bit = 3,
    .name = PHILOTES_TEXT("two_phase"),
};
static const philotes_capability *const capabilities[] = {&two_phase};
#endif

PERHAPS const philotes_plugin plugin = {
#ifdef REFUSE_MAGIC
    .magic = PHILOTES_MAGIC + 1,
#else
    .magic = PHILOTES_MAGIC,
#endif
#ifdef REFUSE_STRUCT_SIZE
    .struct_size = offsetof(philotes_plugin, connectors),
#else
    .struct_size = sizeof(philotes_plugin),
#endif
#ifdef REFUSE_MAJOR
    .abi_major = PHILOTES_ABI_MAJOR + 1,
#else
    .abi_major = PHILOTES_ABI_MAJOR,
#endif
#ifdef REFUSE_MINOR
    .abi_minor = PHILOTES_ABI_MINOR + 1,
#else
    .abi_minor = PHILOTES_ABI_MINOR,
#endif
#ifdef REFUSE_POINTER_BITS
    .pointer_bits = 32,
#else
    .pointer_bits = 8 * sizeof(void *),
#endif
    .id = PHILOTES_TEXT("refused"),
    .version = PHILOTES_TEXT("0.1.0"),
    .sdk = PHILOTES_TEXT("C"),
    .target = PHILOTES_TEXT("C11"),
#ifndef REFUSE_NULL_CONNECTORS
    .connectors = connectors,
#endif
#ifdef REFUSE_NO_CONNECTORS
    .connector_count = 0,
#else
    .connector_count = 1,
#endif
#ifdef REFUSE_CAPABILITY
    .required_capability_count = 1,
    .required_capabilities = capabilities,
#endif
};

#ifdef REFUSE_NO_SYMBOL
const philotes_plugin *philotes_plugin_v0(void);
const philotes_plugin *philotes_plugin_v0(void)
{
    return &plugin;
}
#else
const philotes_plugin *philotes_plugin_v1(void)
{
#ifdef REFUSE_NULL_DESCRIPTOR
    return NULL;
#else
    return &plugin;
#endif
}
#endif
