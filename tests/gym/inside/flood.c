/* Too much of everything. Each stops at a number it is given: that it got so far is the success. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gym.h"

static int asleep(void *nothing)
{
    (void)nothing;
    pause();
    return 0;
}

/* COUNT: that many processes at once; they share memory, so that they cost little. */
static int processes(char **words)
{
    enum { STACK = 4096 };
    long made = 0, count = atol(words[0]);
    pid_t *pids = calloc((size_t)count, sizeof *pids);
    char *stacks = mmap(NULL, (size_t)count * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (; made < count; made++)
        if ((pids[made] = clone(asleep, stacks + (made + 1) * STACK, CLONE_VM | SIGCHLD, NULL)) < 0)
            break;
    int told = errno;
    printf("%ld\n", made);
    for (long i = 0; i < made; i++)
        kill(pids[i], SIGKILL);
    while (wait(NULL) > 0)
        ;
    errno = told;
    return made < count ? denied("the next one") : got("all of them");
}

/* PATH MEGABYTES: that much in a file. */
static int fill(char **words)
{
    static char piece[1 << 20];
    int fd = open(words[0], O_WRONLY | O_CREAT | O_TRUNC, 0600);
    long count = atol(words[1]), made = 0;
    for (; fd >= 0 && made < count; made++)
        if (write(fd, piece, sizeof piece) != sizeof piece)
            break;
    int told = errno;
    unlink(words[0]);
    errno = told;
    return made < count ? denied("the next megabyte") : got("all of it");
}

/* MEGABYTES: that much memory. */
static int memory(char **words)
{
    for (long i = 0, count = atol(words[0]); i < count; i++) {
        char *piece = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (piece == MAP_FAILED)
            return denied("the next megabyte");
        memset(piece, 1, 1 << 20);
    }
    return got("all of it");
}

/* PATH COUNT: open it so often, in as many processes as that takes. */
static int descriptors(char **words)
{
    long count = atol(words[1]);
    for (long i = 0; i < count; i++)
        if (open(words[0], O_RDWR | O_NOCTTY) < 0)
            return denied("the next one");
    return got("all of them");
}

/* MEGABYTES: that much output. */
static int output(char **words)
{
    static char piece[1 << 16];
    memset(piece, 'x', sizeof piece);
    for (size_t i = 99; i < sizeof piece; i += 100)
        piece[i] = '\n';
    for (long i = 0, count = atol(words[0]) * 16; i < count; i++)
        if (write(1, piece, sizeof piece) < 0)
            return 1;
    return 0;
}

const struct verb flood_verbs[] = {
    {"flood-processes", 1, processes}, {"flood-file", 2, fill}, {"flood-memory", 1, memory},
    {"flood-descriptors", 2, descriptors}, {"flood-output", 1, output}, {0},
};
