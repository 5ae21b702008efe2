/* Records that Python wrote for us: numbers and texts, and the conditions under which they are right. */
#include "front.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char magic[] = "TRVPLAN1";

uint32_t read_number(struct reader *reader)
{
    if (reader->end - reader->at < 4) {
        reader->broken = true;
        return 0;
    }
    const unsigned char *at = reader->at;
    reader->at += 4;
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

struct text read_text(struct reader *reader)
{
    struct text found = { .size = read_number(reader) };
    found.at = reader->at;
    if ((size_t)(reader->end - reader->at) < found.size) {
        reader->broken = true;
        found.size = 0;
    }
    reader->at += found.size;
    return found;
}

bool text_is(struct text text, const void *wanted, size_t size)
{
    return text.size == size && !memcmp(text.at, wanted, size);
}

char *text_string(struct text text)
{
    char *found = malloc(text.size + 1);
    if (found) {
        memcpy(found, text.at, text.size);
        found[text.size] = '\0';
    }
    return found;
}

/* Look whether a file still says what it said, from one word up to another. */
static bool holds(struct reader *reader)
{
    struct text name = read_text(reader), from = read_text(reader), to = read_text(reader), wanted = read_text(reader);
    char *path = text_string(name), *first = text_string(from), *last = text_string(to), *said = NULL;
    size_t size = 0;
    bool same = false;
    if (path && first && last && !reader->broken && (said = read_file(path, &size))) {
        char *start = strstr(said, first), *end = start && *last ? strstr(start, last) : said + size;
        same = start && end && text_is(wanted, start, (size_t)(end - start));
    }
    free(path);
    free(first);
    free(last);
    free(said);
    return same;
}

bool conditions_hold(struct reader *reader)
{
    bool all = true;
    for (uint32_t left = read_number(reader); left && !reader->broken && all; left--)
        all = holds(reader);
    return all && !reader->broken;
}

char *same_file(struct reader *reader)
{
    struct text name = read_text(reader), stamp = read_text(reader);
    char *path = text_string(name), found[64];
    struct stat status;
    if (!reader->broken && path && !stat(path, &status)) {
        int length = snprintf(found, sizeof found, "%lld %lld",
                              status.st_mtim.tv_sec * 1000000000LL + status.st_mtim.tv_nsec, (long long)status.st_size);
        if (text_is(stamp, found, (size_t)length))
            return path;
    }
    free(path);
    return NULL;
}

void put_string(struct bytes *plan, const char *text)
{
    size_t size = strlen(text);
    bytes_number(plan, (uint32_t)size);
    bytes_add(plan, text, size + 1);
}

bool read_plan(struct bytes *plan, struct reader *reader, write_part *write, void *with)
{
    uint32_t count = read_number(reader);
    bytes_add(plan, magic, strlen(magic));
    bytes_number(plan, count);
    for (uint32_t i = 0; i < count && !reader->broken && !plan->failed; i++) {
        struct bytes fields = { 0 };
        bytes_number(plan, read_number(reader));
        for (uint32_t left = read_number(reader); left && !reader->broken; left--)
            write(&fields, reader, with);
        bytes_number(plan, (uint32_t)fields.size);
        bytes_add(plan, fields.at, fields.size);
        plan->failed |= fields.failed;
        free(fields.at);
    }
    return !reader->broken && !plan->failed && reader->at == reader->end;
}
