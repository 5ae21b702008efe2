/* Writing a process that stands still: freeze.c its memory and descriptors, freeze_thread.c what only ptrace tells. */
#ifndef TRIVET_FREEZE_H
#define TRIVET_FREEZE_H

#include "frozen.h"

#include <stddef.h>
#include <sys/types.h>

enum { THREAD_LIMIT = 64, FRAME_SIZE = 16384 };

struct thread {
    pid_t id;
    struct frozen_thread frozen;
    unsigned char *frame; /* FRAME_SIZE bytes */
};

struct subject {
    pid_t pid;
    int memory; /* /proc/PID/mem */
    struct thread threads[THREAD_LIMIT];
    size_t count;
    struct frozen head;
    unsigned char *filters;
    size_t filters_size;
};

/* Say why it can't be done, and end; the process goes on. */
_Noreturn void give_up(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Stop every thread, the first one at last in its table place 0. */
void stop_threads(struct subject *subject);

/* Read what belongs to threads, to the process's signals and to its filter of system calls. */
void read_threads(struct subject *subject);

/* Let every thread go on where it was. */
void let_go(const struct subject *subject);

/* Make a thread's frame such that it returns to where it is now; `place` is where the frame will be. */
void place_frame(struct thread *thread, uint64_t place);

#endif
