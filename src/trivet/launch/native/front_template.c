/* The plan of an exec before, with what differs put in its places: the file is described in runtime/template.py. */
#include "front.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEMPLATE_LIMIT = 8 };
enum place { LITERAL, PID, ARGUMENTS, ENVIRONMENT, DIRECTORY, MONITOR };
static const char version[] = "trivet-exec-1";

struct filling {
    const struct container *container;
    const char *directory, *monitor;
    struct words arguments, environment;
};

static void put_words(struct bytes *plan, const struct words *words)
{
    bytes_number(plan, (uint32_t)words->count);
    for (size_t i = 0; i < words->count; i++)
        put_string(plan, words->at[i]);
}

static void put_part(struct bytes *plan, struct reader *reader, void *with)
{
    const struct filling *filling = with;
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

static bool fill(struct plan_text *found, struct reader *reader, const struct container *container,
                 const struct request *request, const char *monitor)
{
    struct filling filling = { .container = container, .monitor = monitor, .arguments = request->arguments };
    if (!conditions_hold(reader) || !(found->launcher = same_file(reader)))
        return false;
    for (uint32_t left = read_number(reader); left && !reader->broken; left--) {
        struct text variable = read_text(reader);
        if (!request->from_file && !words_add(&filling.environment, text_string(variable)))
            return false;
    }
    for (size_t i = 0; i < request->environment.count; i++)
        if (!words_add(&filling.environment, request->environment.at[i]))
            return false;
    struct text own = read_text(reader);
    filling.directory = request->directory ? request->directory : text_string(own);
    return !reader->broken && filling.directory && read_plan(&found->plan, reader, put_part, &filling);
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
        if (text_is(said, version, strlen(version)) && text_is(asked, request->signature.at, request->signature.size))
            return fill(found, &reader, container, request, directory); /* what is in it is used until we end */
        free(raw);
    }
    return false;
}
