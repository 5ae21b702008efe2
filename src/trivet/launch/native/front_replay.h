/* A run of what was run before (docs/decisions/0030-replay.md), between front_run.c and front_replay.c. */
#ifndef TRIVET_FRONT_REPLAY_H
#define TRIVET_FRONT_REPLAY_H

#include "front.h"

struct replay {
    const char *home, *name;
    char *token; /* the name of the stranger the record was made for */
    char directory[PATH_SIZE];
    struct words groups; /* made so far */
    bool made;           /* the directory */
};

/* Make a container's directory, records and groups. False when something is unlike; `replay_remove` undoes it. */
bool replay_make(struct replay *replay, struct reader *reader);
void replay_remove(const struct replay *replay);

char *own_text(struct replay *replay, struct reader *reader);
char *exchanged(const char *text, const char *what, const char *by);
int hand_over(char **argv);

#endif
