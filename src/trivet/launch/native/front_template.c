/* The plan of an exec before, with what differs put in its places: the file is described in runtime/template.py. */
#include "front.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { TEMPLATE_LIMIT = 8 };
enum place { LITERAL, PID, ARGUMENTS, ENVIRONMENT, DIRECTORY, MONITOR };
static const char version[] = "trivet-exec-1", magic[] = "TRVPLAN1";

struct reader {
    const unsigned char *at, *end;
    bool broken;
};

struct text {
    const unsigned char *at;
    size_t size;
};

static uint32_t read_number(struct reader *reader)
{
    if (reader->end - reader->at < 4) {
        reader->broken = true;
        return 0;
    }
    const unsigned char *at = reader->at;
    reader->at += 4;
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static struct text read_text(struct reader *reader)
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

static bool is(struct text text, const void *wanted, size_t size)
{
    return text.size == size && !memcmp(text.at, wanted, size);
}

static char *string(struct text text)
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
    char *path = string(name), *first = string(from), *last = string(to), *said = NULL;
    size_t size = 0;
    bool same = false;
    if (path && first && last && !reader->broken && (said = read_file(path, &size))) {
        char *start = strstr(said, first), *end = start && *last ? strstr(start, last) : said + size;
        same = start && end && is(wanted, start, (size_t)(end - start));
    }
    free(path);
    free(first);
    free(last);
    free(said);
    return same;
}

static bool conditions_hold(struct reader *reader)
{
    bool all = true;
    for (uint32_t left = read_number(reader); left && !reader->broken && all; left--)
        all = holds(reader);
    return all && !reader->broken;
}

/* Look whether the launcher is the one whose plans these are. */
static char *same_launcher(struct reader *reader)
{
    struct text name = read_text(reader), stamp = read_text(reader);
    char *path = string(name), found[64];
    struct stat status;
    if (!reader->broken && path && !stat(path, &status)) {
        int length = snprintf(found, sizeof found, "%lld %lld",
                              status.st_mtim.tv_sec * 1000000000LL + status.st_mtim.tv_nsec, (long long)status.st_size);
        if (is(stamp, found, (size_t)length))
            return path;
    }
    free(path);
    return NULL;
}

struct filling {
    const struct container *container;
    const char *directory, *monitor;
    struct words arguments, environment;
};

static void put_string(struct bytes *plan, const char *text)
{
    size_t size = strlen(text);
    bytes_number(plan, (uint32_t)size);
    bytes_add(plan, text, size + 1);
}

static void put_words(struct bytes *plan, const struct words *words)
{
    bytes_number(plan, (uint32_t)words->count);
    for (size_t i = 0; i < words->count; i++)
        put_string(plan, words->at[i]);
}

static void put_part(struct bytes *plan, struct reader *reader, const struct filling *filling)
{
    uint32_t place = read_number(reader);
    struct text literal = read_text(reader);
    switch ((enum place)place) {
    case LITERAL:
        bytes_add(plan, literal.at, literal.size);
        return;
    case PID:
        bytes_number(plan, (uint32_t)filling->container->pid);
        bytes_number(plan, 0);
        return;
    case ARGUMENTS:
        put_words(plan, &filling->arguments);
        return;
    case ENVIRONMENT:
        put_words(plan, &filling->environment);
        return;
    case DIRECTORY:
        put_string(plan, filling->directory);
        return;
    case MONITOR:
        put_string(plan, filling->monitor);
        return;
    }
    reader->broken = true;
}

/* Write the plan as docs/launch.md has it: each operation's code and length, then its fields. */
static bool put_plan(struct bytes *plan, struct reader *reader, const struct filling *filling)
{
    uint32_t count = read_number(reader);
    bytes_add(plan, magic, strlen(magic));
    bytes_number(plan, count);
    for (uint32_t i = 0; i < count && !reader->broken && !plan->failed; i++) {
        struct bytes fields = { 0 };
        bytes_number(plan, read_number(reader));
        for (uint32_t left = read_number(reader); left && !reader->broken; left--)
            put_part(&fields, reader, filling);
        bytes_number(plan, (uint32_t)fields.size);
        bytes_add(plan, fields.at, fields.size);
        plan->failed |= fields.failed;
        free(fields.at);
    }
    return !reader->broken && !plan->failed && reader->at == reader->end;
}

static bool fill(struct plan_text *found, struct reader *reader, const struct container *container,
                 const struct request *request, const char *monitor)
{
    struct filling filling = { .container = container, .monitor = monitor, .arguments = request->arguments };
    if (!conditions_hold(reader) || !(found->launcher = same_launcher(reader)))
        return false;
    for (uint32_t left = read_number(reader); left && !reader->broken; left--) {
        struct text variable = read_text(reader);
        if (!request->from_file && !words_add(&filling.environment, string(variable)))
            return false;
    }
    for (size_t i = 0; i < request->environment.count; i++)
        if (!words_add(&filling.environment, request->environment.at[i]))
            return false;
    struct text own = read_text(reader);
    filling.directory = request->directory ? request->directory : string(own);
    return !reader->broken && filling.directory && put_plan(&found->plan, reader, &filling);
}

bool template_find(struct plan_text *found, const struct container *container, const struct request *request,
                   const char *directory)
{
    for (int number = 0; number < TEMPLATE_LIMIT; number++) {
        char name[16], path[PATH_SIZE];
        size_t size;
        snprintf(name, sizeof name, "exec@%d", number);
        char *raw = container_path(container, name, path) ? read_file(path, &size) : NULL;
        if (!raw)
            continue;
        struct reader reader = { (unsigned char *)raw, (unsigned char *)raw + size, false };
        struct text said = read_text(&reader), asked = read_text(&reader);
        if (is(said, version, strlen(version)) && is(asked, request->signature.at, request->signature.size))
            return fill(found, &reader, container, request, directory); /* what is in it is used until we end */
        free(raw);
    }
    return false;
}
