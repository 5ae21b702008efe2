/* A process as JSON (runtime-spec, `process`): arguments, environment and directory are taken, all the rest becomes the
 * signature, without white space. A rest that isn't JSON is like no signature there is. */
#include "front.h"

#include <stdlib.h>
#include <string.h>

struct source {
    char *at, *end;
};

bool words_add(struct words *words, const char *word)
{
    if (words->count == words->room) {
        const char **more = realloc(words->at, (words->room = words->room * 2 + 16) * sizeof *more);
        if (!more)
            return false;
        words->at = more;
    }
    words->at[words->count++] = word;
    return true;
}

void bytes_add(struct bytes *bytes, const void *data, size_t size)
{
    if (bytes->size + size > bytes->room) {
        size_t room = (bytes->size + size) * 2;
        unsigned char *more = realloc(bytes->at, room);
        if (!more) {
            bytes->failed = true;
            return;
        }
        bytes->at = more;
        bytes->room = room;
    }
    if (size)
        memcpy(bytes->at + bytes->size, data, size);
    bytes->size += size;
}

void bytes_number(struct bytes *bytes, uint32_t value)
{
    const unsigned char raw[4] = { (unsigned char)value, (unsigned char)(value >> 8), (unsigned char)(value >> 16),
                                   (unsigned char)(value >> 24) };
    bytes_add(bytes, raw, sizeof raw);
}

static char peek(struct source *text)
{
    while (text->at < text->end && strchr(" \t\r\n", *text->at) && *text->at)
        text->at++;
    return text->at < text->end ? *text->at : '\0';
}

static bool take(struct source *text, char wanted)
{
    if (peek(text) != wanted)
        return false;
    text->at++;
    return true;
}

static int hexadecimal(char letter)
{
    const char *digits = "0123456789abcdef", *found = letter ? strchr(digits, letter | 0x20) : NULL;
    return found ? (int)(found - digits) : -1;
}

/* One escape sequence behind its backslash; 0 for those that are left to others. */
static char unescape(struct source *text)
{
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    char letter = *text->at++;
    const char *found = letter ? strchr(letters, letter) : NULL;
    if (found)
        return meanings[found - letters];
    int value = 0;
    for (int i = 0; i < 4; i++) {
        int digit = letter == 'u' && text->at < text->end ? hexadecimal(*text->at++) : -1;
        if (digit < 0)
            return 0;
        value = value * 16 + digit;
    }
    return value < 0x80 ? (char)value : 0;
}

/* Read a string in its place; NULL for one that isn't ASCII, and for what is no string. */
static const char *take_string(struct source *text)
{
    if (!take(text, '"'))
        return NULL;
    char *start = text->at, *put = start;
    while (text->at < text->end && *text->at != '"') {
        unsigned char letter = (unsigned char)*text->at++;
        if (letter == '\\' && text->at < text->end)
            letter = (unsigned char)unescape(text);
        else if (letter < ' ')
            return NULL;
        if (!letter || letter >= 0x80)
            return NULL;
        *put++ = (char)letter;
    }
    if (text->at >= text->end)
        return NULL;
    text->at++;
    *put = '\0'; /* where the closing quote was, at the latest */
    return start;
}

static bool take_strings(struct source *text, struct words *words)
{
    if (words->count || !take(text, '['))
        return false;
    if (take(text, ']'))
        return true;
    do {
        const char *word = take_string(text);
        if (!word || !words_add(words, word))
            return false;
    } while (take(text, ','));
    return take(text, ']');
}

static void copy_string(struct source *text, struct bytes *copy)
{
    char *start = text->at++;
    while (text->at < text->end && *text->at != '"')
        text->at += *text->at == '\\' && text->at + 1 < text->end ? 2 : 1;
    text->at = text->at < text->end ? text->at + 1 : text->end;
    bytes_add(copy, start, (size_t)(text->at - start));
}

/* Copy a value without white space. */
static bool copy_value(struct source *text, struct bytes *copy)
{
    static const char marks[] = "{}[],:\"";
    int depth = 0;
    char *end = NULL; /* of what was copied last */
    for (char letter; (letter = peek(text));) {
        if (end && end != text->at && !strchr(marks, letter) && !strchr(marks, end[-1]))
            return false; /* white space within a number */
        if (!depth && strchr(",}]", letter))
            return true;
        if (letter == '"') {
            copy_string(text, copy);
        } else {
            depth += strchr("{[", letter) ? 1 : strchr("}]", letter) ? -1 : 0;
            bytes_add(copy, text->at++, 1);
        }
        end = text->at;
    }
    return false;
}

static bool read_member(struct request *request, struct source *text)
{
    peek(text);
    char *start = text->at;
    struct bytes name = { 0 };
    if (peek(text) != '"')
        return false;
    copy_string(text, &name);
    size_t length = (size_t)(text->at - start);
    if (!take(text, ':'))
        return false;
    if (length == 6 && !memcmp(start, "\"args\"", 6))
        return take_strings(text, &request->arguments);
    if (length == 5 && !memcmp(start, "\"env\"", 5))
        return take_strings(text, &request->environment);
    if (length == 5 && !memcmp(start, "\"cwd\"", 5))
        return !request->directory && (request->directory = take_string(text));
    if (request->signature.size > 1)
        bytes_add(&request->signature, ",", 1);
    bytes_add(&request->signature, start, length);
    bytes_add(&request->signature, ":", 1);
    return copy_value(text, &request->signature);
}

bool read_process(struct request *request, char *raw, size_t size)
{
    struct source text = { raw, raw + size };
    request->from_file = true;
    bytes_add(&request->signature, "{", 1);
    if (!take(&text, '{'))
        return false;
    do
        if (!read_member(request, &text))
            return false;
    while (take(&text, ','));
    bytes_add(&request->signature, "}", 1);
    return take(&text, '}') && !peek(&text) && text.at == text.end && request->directory && !request->signature.failed;
}
