/* Cgroups by path: v2 has cgroup.kill, v1 only the list of processes. */
#include "cgroup.h"
#include "kernel.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 2000, ROUND_NS = 2000000, LIST_SIZE = 4096, HELD_LIMIT = 64 };

static ssize_t read_file(const char *directory, const char *name, char *text, size_t size)
{
    char path[4352];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t length = read(fd, text, size - 1);
    close(fd);
    if (length >= 0)
        text[length] = 0;
    return length;
}

static void kill_all_v2(const char *directory)
{
    char path[4352];
    snprintf(path, sizeof path, "%s/cgroup.kill", directory);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)!write(fd, "1", 1);
    close(fd);
}

struct list {
    pid_t pids[LIST_SIZE / 2];
    int count;
};

/* Read the first page of who is in the cgroup. A process of another pid namespace reads 0. */
static void list_read(struct list *list, const char *directory)
{
    char text[LIST_SIZE];
    list->count = 0;
    if (read_file(directory, "cgroup.procs", text, sizeof text) <= 0)
        return;
    for (char *at = text, *end; strchr(at, '\n'); at = end + 1) {
        long pid = strtol(at, &end, 10);
        if (end == at || *end != '\n')
            break;
        if (pid > 1 && pid != getpid())
            list->pids[list->count++] = (pid_t)pid;
    }
}

static bool list_has(const struct list *list, pid_t pid)
{
    for (int i = 0; i < list->count; i++)
        if (list->pids[i] == pid)
            return true;
    return false;
}

/* Signal who is listed; false when nobody is left. Who has gone since the list was read may have left its number to
 * somebody else, so each is held by a descriptor first, and must then still be listed. */
static bool kill_listed(const char *directory)
{
    struct list found, now;
    list_read(&found, directory);
    for (int first = 0; first < found.count; first += HELD_LIMIT) {
        int held[HELD_LIMIT], count = found.count - first < HELD_LIMIT ? found.count - first : HELD_LIMIT;
        for (int i = 0; i < count; i++)
            held[i] = sys_pidfd_open(found.pids[first + i]);
        list_read(&now, directory);
        for (int i = 0; i < count; i++) {
            if (held[i] < 0)
                continue;
            if (list_has(&now, found.pids[first + i]))
                sys_pidfd_send_signal(held[i], SIGKILL);
            close(held[i]);
        }
    }
    return found.count > 0;
}

void cgroup_kill(const char *path)
{
    const struct timespec pause = { .tv_nsec = ROUND_NS };
    kill_all_v2(path);
    for (int round = 0; round < ROUNDS && kill_listed(path); round++)
        nanosleep(&pause, NULL);
}

int64_t cgroup_oom_kills(const char *path)
{
    static const char *const names[] = { "memory.oom_control", "memory.events" };
    char text[512];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (read_file(path, names[i], text, sizeof text) <= 0)
            continue;
        for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
            long long count;
            if (sscanf(line, "oom_kill %lld", &count) == 1)
                return count;
        }
    }
    return 0;
}
