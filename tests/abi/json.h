/*
 * As much JSON as a small plugin needs: find a member of an object, read integers, booleans and strings, and write text
 * into a growing buffer. It builds no tree. A real plugin would use its favourite library instead.
 */
#ifndef JSON_H
#define JSON_H

#include <philotes_plugin.h>

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Reading. A position is NULL from the first fault on. ---------------------------------------------------- */

#define JSON_MAX_DEPTH 64

static inline const char *json_space(const char *at, const char *end)
{
    while (at && at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
        at++;
    return at;
}

static inline const char *json_expect(const char *at, const char *end, char expected)
{
    at = json_space(at, end);
    return at && at < end && *at == expected ? at + 1 : NULL;
}

static inline int json_hex(const char *at, const char *end, uint32_t *code)
{
    *code = 0;
    if (end - at < 4)
        return 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                                : 16u;
        if (digit == 16)
            return 0;
        *code = *code * 16 + digit;
    }
    return 1;
}

/* Behind the string that starts at `at`. */
static inline const char *json_skip_string(const char *at, const char *end)
{
    uint32_t code;
    for (at = json_expect(at, end, '"'); at && at < end; at++) {
        if (*at == '"')
            return at + 1;
        if ((unsigned char)*at < 0x20)
            return NULL;
        if (*at != '\\')
            continue;
        at++;
        if (at == end || !strchr("\"\\/bfnrtu", *at) || *at == '\0')
            return NULL;
        if (*at == 'u' && !json_hex(at + 1, end, &code))
            return NULL;
    }
    return NULL;
}

static inline const char *json_digits(const char *at, const char *end)
{
    const char *start = at;
    while (at < end && *at >= '0' && *at <= '9')
        at++;
    return at > start ? at : NULL;
}

static inline const char *json_skip_number(const char *at, const char *end)
{
    if (at < end && *at == '-')
        at++;
    at = at < end && *at == '0' ? at + 1 : json_digits(at, end);
    if (at && at < end && *at == '.')
        at = json_digits(at + 1, end);
    if (at && at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-'))
            at++;
        at = json_digits(at, end);
    }
    return at;
}

/* Behind the value that starts at `at`; NULL where there is none or it is malformed. */
static inline const char *json_skip(const char *at, const char *end, int depth)
{
    at = json_space(at, end);
    if (!at || at >= end || depth > JSON_MAX_DEPTH)
        return NULL;
    if (*at == '"')
        return json_skip_string(at, end);
    if (*at == '{' || *at == '[') {
        char close = *at == '{' ? '}' : ']';
        const char *empty = json_expect(at + 1, end, close);
        if (empty)
            return empty;
        for (at++;;) {
            if (close == '}')
                at = json_expect(json_skip_string(at, end), end, ':');
            at = json_space(json_skip(at, end, depth + 1), end);
            if (!at || at >= end)
                return NULL;
            if (*at == close)
                return at + 1;
            if (*at++ != ',')
                return NULL;
        }
    }
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i]);
        if ((size_t)(end - at) >= length && memcmp(at, words[i], length) == 0)
            return at + length;
    }
    return json_skip_number(at, end);
}

/* Not 0 where the text is one JSON value that starts with `first` ('{' for an object), or with anything for 0. */
static inline int json_is(philotes_text text, char first)
{
    if (text.length == 0)
        return 0;
    const char *end = text.data + text.length;
    const char *start = json_space(text.data, end);
    return start < end && (first == 0 || *start == first) && json_space(json_skip(start, end, 0), end) == end;
}

/* Finds a member of an object: 1 and *value, or 0. Keys are compared as written, so none that needs escapes is found. */
static inline int json_member(philotes_text object, const char *name, philotes_text *value)
{
    if (!json_is(object, '{'))
        return 0;
    const char *end = object.data + object.length;
    const char *at = json_expect(object.data, end, '{');
    while (at) {
        const char *key = json_expect(at, end, '"');
        const char *behind_key = json_skip_string(at, end);
        if (!key || !behind_key)
            return 0; /* the empty object */
        const char *start = json_space(json_expect(behind_key, end, ':'), end);
        const char *behind = json_skip(start, end, 0);
        if ((size_t)(behind_key - 1 - key) == strlen(name) && memcmp(key, name, strlen(name)) == 0) {
            *value = (philotes_text){start, (uint64_t)(behind - start)};
            return 1;
        }
        at = json_expect(behind, end, ',');
    }
    return 0;
}

/* Reads an integer of at most 18 digits, which always fits: 1 and *number, or 0. */
static inline int json_integer(philotes_text value, int64_t *number)
{
    char digits[20];
    size_t sign = value.length > 0 && *value.data == '-';
    if (value.length <= sign || value.length - sign > 18)
        return 0;
    memcpy(digits, value.data, value.length);
    digits[value.length] = '\0';
    if (strspn(digits + sign, "0123456789") != value.length - sign)
        return 0;
    *number = strtoll(digits, NULL, 10);
    return 1;
}

static inline int json_boolean(philotes_text value, int *boolean)
{
    *boolean = value.length == 4 && memcmp(value.data, "true", 4) == 0;
    return *boolean || (value.length == 5 && memcmp(value.data, "false", 5) == 0);
}

/* ---- Writing. A failed allocation is remembered and asked for once, at the end. ------------------------------ */

struct json_buffer {
    char *data; /* the buffer's owner frees it */
    size_t length;
    size_t capacity;
    int failed; /* not 0: memory ran out, and the text is not whole */
};

static inline void json_bytes(struct json_buffer *buffer, const char *bytes, size_t length)
{
    if (buffer->failed || length == 0)
        return;
    if (buffer->capacity - buffer->length < length) {
        size_t capacity = (buffer->length + length) * 2;
        char *grown = realloc(buffer->data, capacity);
        if (!grown) {
            buffer->failed = 1;
            return;
        }
        buffer->data = grown;
        buffer->capacity = capacity;
    }
    memcpy(buffer->data + buffer->length, bytes, length);
    buffer->length += length;
}

/* JSON, or a part of it, as it is. */
static inline void json_raw(struct json_buffer *buffer, const char *text)
{
    json_bytes(buffer, text, strlen(text));
}

static inline void json_number(struct json_buffer *buffer, int64_t number)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%" PRId64, number);
    json_raw(buffer, digits);
}

/* A string, in quotes and escaped. */
static inline void json_string(struct json_buffer *buffer, const char *text, size_t length)
{
    json_raw(buffer, "\"");
    for (size_t i = 0; i < length; i++) {
        char escaped[8];
        unsigned char c = (unsigned char)text[i];
        if (c == '"' || c == '\\')
            snprintf(escaped, sizeof escaped, "\\%c", c);
        else if (c < 0x20)
            snprintf(escaped, sizeof escaped, "\\u%04x", c);
        else {
            json_bytes(buffer, text + i, 1);
            continue;
        }
        json_raw(buffer, escaped);
    }
    json_raw(buffer, "\"");
}

/* The characters that a JSON string stands for: 1 and the bytes appended to *out, or 0 where the value is no string. */
static inline int json_unescape(philotes_text value, struct json_buffer *out)
{
    if (!json_is(value, '"'))
        return 0;
    const char *end = value.data + value.length - 1;
    for (const char *at = value.data + 1; at < end; at++) {
        if (*at != '\\') {
            json_bytes(out, at, 1);
            continue;
        }
        static const char escapes[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
        const char *escape = strchr(escapes, *++at);
        if (escape) {
            json_bytes(out, &meant[escape - escapes], 1);
            continue;
        }
        uint32_t code, low;
        json_hex(at + 1, end, &code);
        at += 4;
        if (code >= 0xD800 && code < 0xDC00 && end - at > 6 && at[1] == '\\' && at[2] == 'u' &&
            json_hex(at + 3, end, &low) && low >= 0xDC00 && low < 0xE000) {
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            at += 6;
        } else if (code >= 0xD800 && code < 0xE000) {
            return 0; /* half of a pair is no character */
        }
        char utf8[4];
        size_t length;
        if (code < 0x80) {
            utf8[0] = (char)code;
            length = 1;
        } else if (code < 0x800) {
            utf8[0] = (char)(0xC0 | code >> 6);
            utf8[1] = (char)(0x80 | (code & 0x3F));
            length = 2;
        } else if (code < 0x10000) {
            utf8[0] = (char)(0xE0 | code >> 12);
            utf8[1] = (char)(0x80 | (code >> 6 & 0x3F));
            utf8[2] = (char)(0x80 | (code & 0x3F));
            length = 3;
        } else {
            utf8[0] = (char)(0xF0 | code >> 18);
            utf8[1] = (char)(0x80 | (code >> 12 & 0x3F));
            utf8[2] = (char)(0x80 | (code >> 6 & 0x3F));
            utf8[3] = (char)(0x80 | (code & 0x3F));
            length = 4;
        }
        json_bytes(out, utf8, length);
    }
    return 1;
}

#endif
