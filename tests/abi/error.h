/* How a C plugin reports a failure: fills the caller's philotes_error and returns the kind. */
#ifndef ERROR_H
#define ERROR_H

#include <philotes_plugin.h>

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

/* The length of a text that was cut at `length` bytes, without the character that the cut went through. */
static inline size_t whole_characters(const char *text, size_t length)
{
    size_t start = length;
    while (start > 0 && ((unsigned char)text[start - 1] & 0xC0) == 0x80)
        start--;
    if (start == 0)
        return 0;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t wanted = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    return start - 1 + wanted > length ? start - 1 : length;
}

__attribute__((format(printf, 3, 4))) static inline uint32_t fail(philotes_error *error, uint32_t kind,
                                                                   const char *format, ...)
{
    /* The host's struct may be shorter than ours; only what it has room for is written. */
    if (error->struct_size <= offsetof(philotes_error, message))
        return kind;
    size_t room = error->struct_size - offsetof(philotes_error, message);
    if (room > PHILOTES_MESSAGE_MAX_BYTES)
        room = PHILOTES_MESSAGE_MAX_BYTES;

    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(error->message, room, format, arguments);
    va_end(arguments);

    if (length < 0)
        error->length = 0;
    else if ((size_t)length < room)
        error->length = (uint32_t)length;
    else
        error->length = (uint32_t)whole_characters(error->message, room - 1);
    return kind;
}

#endif
