/* trivet-runtime, as a command that is started often: what needs no thought is done here, everything else is handed over
 * to the runtime in Python, which takes ten times as long to begin as this takes in all (docs/decisions/0049-front.md).
 *
 *     front.c        command line                      front_verb.c      state, kill, start, delete
 *     front_brief.c  what is known about a container   front_exec.c      exec
 *     front_json.c   a process as JSON                 front_template.c  the plan of an exec before
 *     front_launch.c a conducted launch                front_run.c       run and create, as before
 *     front_record.c what Python wrote for us          front_replay.c    what a run makes and removes
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

struct reader {
    const unsigned char *at, *end;
    bool broken;
};

struct text {
    const unsigned char *at;
    size_t size;
};

uint32_t read_number(struct reader *reader);
struct text read_text(struct reader *reader);
bool text_is(struct text text, const void *wanted, size_t size);
char *text_string(struct text text);
void put_string(struct bytes *plan, const char *text);

/* Look whether files still say what they said. */
bool conditions_hold(struct reader *reader);

/* Read a path and a stamp; the path, if the file still has that stamp, else NULL. */
char *same_file(struct reader *reader);

/* Read a plan as docs/launch.md has it, each operation's code and length, then its fields, which `write` puts together
 * from the parts that are read. False if the record doesn't end with it. */
typedef void write_part(struct bytes *fields, struct reader *reader, void *with);
bool read_plan(struct bytes *plan, struct reader *reader, write_part *write, void *with);

/* A plan, ready for the launcher. */
struct plan_text {
    struct bytes plan;
    char *launcher;
};

/* Find the plan of an exec as it was before, for this one. False if there is none that is right. */
bool template_find(struct plan_text *found, const struct container *container, const struct request *request,
                   const char *directory);

/* What a launch is answered: whether the container it joined still lives, or into which groups it is to be put; and the
 * monitor's directory, where the program is one that waits. */
struct answers {
    const struct container *container;
    const struct words *groups;
    const char *waiting;
};

/* Carry a plan out up to the program's first instruction, or to where it waits. 0 unless it got there. */
pid_t launch(const struct plan_text *plan, const struct answers *answers);

/* Hold the signals back that `await` passes on. */
void hold_signals(void);
void release_signals(void);

/* Wait for a child of ours and pass signals on; its exit code, 128+n after signal n. */
int await(pid_t pid);

/* Options: where one has a value, `name value` or `name=value`, or `letter value`; tells how many words it took. */
int valued_option(char **words, const char *name, const char *letter, const char **value);

/* Open what will become the pid file, beside it; then name it so. */
int pid_file_open(const char *path, char temporary[PATH_SIZE]);
void pid_file_write(int file, pid_t pid, const char *temporary, const char *path);

bool good_name(const char *name);

/* Write a kernel's file. */
bool write_to(const char *path, const char *value);

int verb_run(const struct wish *wish);
int verb_create(const struct wish *wish);
int verb_exec(const struct wish *wish);
int verb_state(const struct wish *wish);
int verb_kill(const struct wish *wish);
int verb_start(const struct wish *wish);
int verb_delete(const struct wish *wish);

#endif
