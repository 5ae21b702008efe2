/* trivet-runtime, as a command that is started often: what needs no thought is done here, everything else is handed over
 * to the runtime in Python, which takes ten times as long to begin as this takes in all (docs/decisions/0049-front.md).
 *
 *     front.c        command line                      front_verb.c      state, kill, start, delete
 *     front_brief.c  what is known about a container   front_exec.c      exec
 *     front_json.c   a process as JSON                 front_template.c  the plan of an exec before
 *     front_launch.c a conducted launch
 *
 * Nothing here explains a failure: until something was changed for good, handing over is always right.
 */
#ifndef TRIVET_FRONT_H
#define TRIVET_FRONT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { HAND_OVER = -1 }; /* a verb's answer, else it is the exit code */
enum { WORD_LIMIT = 8, PATH_SIZE = 4096, GROUP_LIMIT = 32 };

/* A verb with its operands; options that only speak of errors are left out. */
struct wish {
    const char *home, *verb;
    const char *words[WORD_LIMIT];
    int count;
    bool force;
    char **rest; /* all words behind the verb */
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

/* Read a whole file of ours, or of the kernel's; NULL with errno. A NUL is added. */
char *read_file(const char *path, size_t *size);

/* Remove a directory of ours and the files in it. */
bool remove_directory(const char *path);

/* Words, or bytes, that grow. */
struct words {
    const char **at;
    size_t count, room;
};

struct bytes {
    unsigned char *at;
    size_t size, room;
    bool failed; /* there was no memory */
};

bool words_add(struct words *words, const char *word);
void bytes_add(struct bytes *bytes, const void *data, size_t size);
void bytes_number(struct bytes *bytes, uint32_t value);

/* A program that is to be run in a container: `signature` is what is asked for beside the rest (runtime/template.py). */
struct request {
    bool from_file; /* all of it: nothing is added to the container's own environment */
    struct words arguments, environment;
    const char *directory; /* NULL for the container's own */
    struct bytes signature;
};

/* Read a process as JSON. False if it can't be read here. The text is changed, and must stay. */
bool read_process(struct request *request, char *text, size_t size);

/* A plan, ready for the launcher. */
struct plan_text {
    struct bytes plan;
    char *launcher;
};

/* Find the plan of an exec as it was before, for this one. False if there is none that is right. */
bool template_find(struct plan_text *found, const struct container *container, const struct request *request,
                   const char *directory);

/* Carry a plan out up to the program's first instruction, as long as the container lives. 0 unless it began. */
pid_t launch(const struct plan_text *plan, const struct container *container);

/* Hold the signals back that `await` passes on. */
void hold_signals(void);
void release_signals(void);

/* Wait for a child of ours and pass signals on; its exit code, 128+n after signal n. */
int await(pid_t pid);

int verb_exec(const struct wish *wish);
int verb_state(const struct wish *wish);
int verb_kill(const struct wish *wish);
int verb_start(const struct wish *wish);
int verb_delete(const struct wish *wish);

#endif
