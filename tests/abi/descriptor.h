/* The checks of a descriptor that a host makes before it believes anything else of a plugin. */
#ifndef DESCRIPTOR_H
#define DESCRIPTOR_H

#include <philotes_plugin.h>

#include "json.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* What the loader offers; a plugin that requires more is refused. */
#define CAPABILITIES (UINT64_C(1) << PHILOTES_CAPABILITY_EVENTS | UINT64_C(1) << PHILOTES_CAPABILITY_METRICS)

static inline int is_utf8(philotes_text text)
{
    if (text.length > 0 && !text.data)
        return 0;
    for (uint64_t i = 0; i < text.length;) {
        const unsigned char *at = (const unsigned char *)text.data + i;
        uint64_t length = *at < 0x80 ? 1 : *at < 0xC2 ? 0 : *at < 0xE0 ? 2 : *at < 0xF0 ? 3 : *at < 0xF5 ? 4 : 0;
        if (length == 0 || length > text.length - i)
            return 0;
        for (uint64_t j = 1; j < length; j++)
            if ((at[j] & 0xC0) != 0x80)
                return 0;
        /* Longer than needed, half of a surrogate pair, or beyond the last character. */
        if ((*at == 0xE0 && at[1] < 0xA0) || (*at == 0xED && at[1] > 0x9F) || (*at == 0xF0 && at[1] < 0x90) ||
            (*at == 0xF4 && at[1] > 0x8F))
            return 0;
        i += length;
    }
    return 1;
}

static inline int is_name(philotes_text text)
{
    for (uint64_t i = 0; i < text.length; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789-", text.data[i]) || !text.data[i])
            return 0;
    return text.length >= 1 && text.length <= 63;
}

/* NULL, or what is wrong with it. */
static inline const char *connector_fault(const philotes_connector *connector)
{
    if (!connector)
        return "a connector is NULL";
    if (connector->struct_size < offsetof(philotes_connector, actions))
        return "a connector's struct_size is too small";
    if (!is_utf8(connector->name) || !is_utf8(connector->version) || !is_utf8(connector->doc))
        return "a text of a connector is no UTF-8";
    if (!is_name(connector->name))
        return "a connector's name is not [a-z0-9-]{1,63}";
    if (!is_utf8(connector->config_spec) || !json_is(connector->config_spec, '{'))
        return "a connector's config_spec is no JSON object";
    if (connector->kind == PHILOTES_SOURCE) {
        const philotes_source *f = connector->source;
        if (!f || f->struct_size < sizeof *f)
            return "a source's functions are missing or their struct_size is too small";
        if (!f->create || !f->open || !f->poll || !f->resume || !f->commit || !f->cancel || !f->close || !f->destroy)
            return "a required function of a source is NULL";
    } else if (connector->kind == PHILOTES_SINK) {
        const philotes_sink *f = connector->sink;
        if (!f || f->struct_size < sizeof *f)
            return "a sink's functions are missing or their struct_size is too small";
        if (!f->create || !f->open || !f->offsets || !f->write || !f->flush || !f->buffered_bytes || !f->cancel ||
            !f->close || !f->destroy)
            return "a required function of a sink is NULL";
    } else {
        return "a connector's kind is neither source nor sink";
    }
    return NULL;
}

/* NULL, or what is wrong with it. The first five fields are looked at in the order in which they can be trusted. */
static inline const char *descriptor_fault(const philotes_plugin *plugin)
{
    if (!plugin)
        return "the descriptor is NULL";
    if (plugin->magic != PHILOTES_MAGIC)
        return "bad magic";
    if (plugin->pointer_bits != 8 * sizeof(void *))
        return "other pointer bits";
    if (plugin->abi_major != PHILOTES_ABI_MAJOR)
        return "other major version";
    if (plugin->abi_minor != PHILOTES_ABI_MINOR)
        return "other minor version, while the major one is 0";
    if (plugin->struct_size < sizeof *plugin)
        return "the descriptor's struct_size is too small";
    if (!is_utf8(plugin->id) || !is_utf8(plugin->version) || !is_utf8(plugin->sdk) || !is_utf8(plugin->target))
        return "a text of the descriptor is no UTF-8";
    if (!is_name(plugin->id))
        return "the plugin's id is not [a-z0-9-]{1,63}";
    if (plugin->required_capability_count > 0 && !plugin->required_capabilities)
        return "required_capabilities is NULL";
    for (uint32_t i = 0; i < plugin->required_capability_count; i++) {
        uint32_t bit = plugin->required_capabilities[i]->bit;
        if (bit >= 64 || !(CAPABILITIES >> bit & 1))
            return "a required host capability is unknown";
    }
    if (plugin->connector_count == 0 || !plugin->connectors)
        return "there are no connectors";
    for (uint32_t i = 0; i < plugin->connector_count; i++) {
        const char *fault = connector_fault(plugin->connectors[i]);
        if (fault)
            return fault;
    }
    return NULL;
}

#endif
