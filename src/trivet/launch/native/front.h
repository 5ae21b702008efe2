/* trivet-runtime, as a command that is started often: what needs no thought is done here, everything else is handed over
 * to the runtime in Python, which takes ten times as long to begin as this takes in all (docs/decisions/0049-front.md).
 *
 *     front.c  command line      front_brief.c  what is known about a container      front_verb.c  state, kill, start, delete
 *
 * Nothing here explains a failure: until something was changed for good, handing over is always right.
 */
#ifndef TRIVET_FRONT_H
#define TRIVET_FRONT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { HAND_OVER = -1 }; /* a verb's answer, else it is the exit code */
enum { WORD_LIMIT = 8, PATH_SIZE = 4096, GROUP_LIMIT = 32 };

/* A verb with its operands; options that only speak of errors are left out. */
struct wish {
    const char *home, *verb;
    const char *words[WORD_LIMIT];
    int count;
    bool force;
};

/* ROOT/ID and the file `brief` in it (runtime/brief.py). */
struct container {
    char directory[PATH_SIZE];
    char *text; /* the file, its fields ended by NUL */
    bool plain_start, plain_delete;
    const char *freezer, *frozen;         /* a file, and what is in it when the container is frozen; or "" */
    const char *head, *tail;              /* what `state` prints around status and pid */
    const char *groups[GROUP_LIMIT];
    int group_count;
    const char *status;
    pid_t pid; /* 0 once it has ended */
    unsigned long long started;
};

/* Find a container and look at it. False if it isn't there, or not such that anything could be said about it here. */
bool container_find(struct container *container, const struct wish *wish);

/* Tell whether the container's program still is the one that was seen. */
bool container_lives(const struct container *container);

/* Build "DIRECTORY/NAME". False if it is too long. */
bool container_path(const struct container *container, const char *name, char path[PATH_SIZE]);

int verb_state(const struct wish *wish);
int verb_kill(const struct wish *wish);
int verb_start(const struct wish *wish);
int verb_delete(const struct wish *wish);

#endif
