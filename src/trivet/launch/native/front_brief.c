/* What is known about a container: its brief, and what its directory tells about its program. */
#include "front.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_LIMIT = 4 << 20, NAME_LIMIT = 255 };
static const char version[] = "trivet-brief-1";

char *read_file(const char *path, size_t *size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    size_t room = 4096, found = 0;
    char *text = malloc(room + 1);
    ssize_t part = 1;
    while (text && part && found < FILE_LIMIT) {
        if (found == room) {
            char *more = realloc(text, (room *= 2) + 1);
            if (!more)
                break;
            text = more;
        }
        part = read(fd, text + found, room - found);
        if (part < 0)
            break;
        found += (size_t)part;
    }
    close(fd);
    if (!text || part) {
        free(text);
        errno = EFBIG;
        return NULL;
    }
    text[found] = '\0';
    *size = found;
    return text;
}

bool container_path(const struct container *container, const char *name, char path[PATH_SIZE])
{
    return snprintf(path, PATH_SIZE, "%s/%s", container->directory, name) < PATH_SIZE;
}

static char *read_own(const struct container *container, const char *name, size_t *size)
{
    char path[PATH_SIZE];
    errno = ENAMETOOLONG;
    return container_path(container, name, path) ? read_file(path, size) : NULL;
}

static bool has(const struct container *container, const char *name)
{
    char path[PATH_SIZE];
    struct stat status;
    return container_path(container, name, path) && (!lstat(path, &status) || errno != ENOENT);
}

bool good_name(const char *name)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+.-";
    size_t length = strspn(name, letters);
    return length && !name[length] && length <= NAME_LIMIT && strcmp(name, ".") && strcmp(name, "..");
}

/* Take the next field of the brief. */
static const char *next(char **at, const char *end)
{
    const char *field = *at < end ? *at : NULL;
    if (field)
        *at += strlen(field) + 1;
    return field;
}

static bool read_brief(struct container *container)
{
    size_t size;
    char *at = container->text = read_own(container, "brief", &size);
    if (!at || !size || at[size - 1])
        return false; /* not there, or not written to its end */
    const char *end = at + size, *said = next(&at, end), *flags = next(&at, end);
    container->freezer = next(&at, end);
    container->frozen = next(&at, end);
    container->head = next(&at, end);
    container->tail = next(&at, end);
    if (!container->tail || strcmp(said, version))
        return false;
    container->plain_start = strchr(flags, 's');
    container->plain_delete = strchr(flags, 'd');
    while (at < end) {
        if (container->group_count == GROUP_LIMIT)
            return false;
        container->groups[container->group_count++] = next(&at, end);
    }
    return true;
}

/* Field 22 of /proc/PID/stat, 0 for nobody and for a zombie. The name in it may hold anything. */
static unsigned long long start_time(pid_t pid)
{
    char path[64];
    size_t size;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    char *text = read_file(path, &size), *at = text ? strrchr(text, ')') : NULL;
    unsigned long long started = 0;
    char state = 'Z';
    if (at && sscanf(at + 2, "%c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &state,
                     &started) != 2)
        started = 0;
    free(text);
    return state == 'Z' || state == 'X' ? 0 : started;
}

bool container_lives(const struct container *container)
{
    return start_time(container->pid) == container->started;
}

/* As runtime/container.py, status. */
static bool look(struct container *container)
{
    size_t size;
    container->status = "stopped";
    char *record = read_own(container, "pid", &size);
    if (!record)
        return errno == ENOENT;
    bool readable = sscanf(record, "%d %llu", &container->pid, &container->started) == 2;
    free(record);
    if (!readable || container->pid <= 0 || !container->started)
        return false;
    if (!container_lives(container) || has(container, "exit")) {
        container->pid = 0;
        return true;
    }
    container->status = has(container, "monitor.sock") ? "created" : "running";
    if (*container->status == 'r' && *container->freezer) {
        char *said = read_file(container->freezer, &size);
        if (!said)
            return false;
        if (strstr(said, container->frozen))
            container->status = "paused";
        free(said);
    }
    return true;
}

bool container_find(struct container *container, const struct wish *wish)
{
    *container = (struct container){ 0 };
    const char *name = wish->words[0];
    if (!good_name(name) || snprintf(container->directory, PATH_SIZE, "%s/%s", wish->home, name) >= PATH_SIZE)
        return false;
    return read_brief(container) && look(container);
}
