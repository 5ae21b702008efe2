/* What a run makes before its launch and removes after its end; the record is described in runtime/recording.py. */
#include "front_replay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TRIES = 100 };

bool write_to(const char *path, const char *value)
{
    size_t size = strlen(value);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, value, size) == (ssize_t)size;
    if (fd >= 0)
        close(fd);
    return done;
}

char *exchanged(const char *text, const char *what, const char *by)
{
    struct bytes found = { 0 };
    for (const char *at; (at = strstr(text, what)); text = at + strlen(what)) {
        bytes_add(&found, text, (size_t)(at - text));
        bytes_add(&found, by, strlen(by));
    }
    bytes_add(&found, text, strlen(text) + 1);
    return found.failed ? NULL : (char *)found.at;
}

/* Take the next text, with our name in the place of the stranger's. */
char *own_text(struct replay *replay, struct reader *reader)
{
    char *raw = text_string(read_text(reader)), *found = raw ? exchanged(raw, replay->token, replay->name) : NULL;
    free(raw);
    reader->broken |= !found;
    return found;
}

static bool make_file(const struct replay *replay, const char *name, const char *text, size_t size)
{
    char path[PATH_SIZE];
    if (snprintf(path, sizeof path, "%s/%s", replay->directory, name) >= PATH_SIZE)
        return false;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool done = fd >= 0 && write(fd, text, size) == (ssize_t)size;
    if (fd >= 0)
        close(fd);
    return done;
}

/* Write state.json and the brief, whose texts are a stranger's, made at a time of its own. */
static bool make_records(struct replay *replay, struct reader *reader)
{
    char number[64], date[64], second[32];
    struct timespec now;
    struct tm broken;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &broken);
    strftime(second, sizeof second, "%Y-%m-%dT%H:%M:%S", &broken);
    snprintf(number, sizeof number, "\"created\":%lld.%06ld", (long long)now.tv_sec, now.tv_nsec / 1000);
    snprintf(date, sizeof date, "%s.%06ldZ", second, now.tv_nsec / 1000);
    char *created = text_string(read_text(reader)), *told = text_string(read_text(reader));
    char *state = own_text(replay, reader);
    char *whole = state && created ? exchanged(state, created, number) : NULL;
    if (!whole || !told || !make_file(replay, "state.json", whole, strlen(whole)))
        return false;
    struct bytes brief = { 0 };
    for (uint32_t left = read_number(reader); left && !reader->broken; left--) {
        char *field = own_text(replay, reader), *dated = field ? exchanged(field, told, date) : NULL;
        if (!dated)
            return false;
        bytes_add(&brief, dated, strlen(dated) + 1);
    }
    return !reader->broken && !brief.failed && make_file(replay, "brief", (char *)brief.at, brief.size);
}

static bool make_groups(struct replay *replay, struct reader *reader)
{
    for (uint32_t left = read_number(reader); left && !reader->broken; left--) {
        char *path = own_text(replay, reader);
        if (!path || mkdir(path, 0755) < 0)
            return false;
        if (!words_add(&replay->groups, path) || chmod(path, 0755) < 0)
            return false;
    }
    return !reader->broken;
}

/* Version 1 of control groups: a new set of processors is empty; it gets what the group above has. */
static bool inherit(const char *path)
{
    size_t size;
    char *own = read_file(path, &size), above[PATH_SIZE];
    if (!own || own[strspn(own, " \n")])
        return own != NULL;
    const char *name = strrchr(path, '/');
    if (snprintf(above, sizeof above, "%.*s/..%s", (int)(name - path), path, name) >= PATH_SIZE)
        return false;
    char *given = read_file(above, &size);
    return given && write_to(path, given);
}

static bool set_up_groups(struct replay *replay, struct reader *reader)
{
    for (uint32_t left = read_number(reader); left && !reader->broken; left--) {
        char *path = own_text(replay, reader);
        if (!path || !inherit(path))
            return false;
    }
    for (uint32_t left = read_number(reader); left && !reader->broken; left--) {
        char *path = own_text(replay, reader), *value = text_string(read_text(reader));
        if (!path || !value || !write_to(path, value))
            return false;
    }
    return !reader->broken;
}

bool replay_make(struct replay *replay, struct reader *reader)
{
    char root[PATH_SIZE];
    if (snprintf(root, sizeof root, "%s/root", replay->directory) >= PATH_SIZE || mkdir(replay->directory, 0711) < 0)
        return false;
    replay->made = true;
    return !chmod(replay->directory, 0711) && !mkdir(root, 0755) && make_records(replay, reader)
           && make_groups(replay, reader) && set_up_groups(replay, reader);
}

static bool inhabited(const char *group)
{
    char path[PATH_SIZE];
    size_t size = 0;
    bool fits = snprintf(path, sizeof path, "%s/cgroup.procs", group) < PATH_SIZE;
    char *listed = fits ? read_file(path, &size) : NULL;
    free(listed);
    return size > 0;
}

/* Remove an empty group; a dead task leaves a moment later. */
static bool gone(const char *group)
{
    for (int i = 0; i < TRIES; i++) {
        if (!rmdir(group) || errno == ENOENT)
            return true;
        if (errno != EBUSY || inhabited(group))
            return false;
        poll(NULL, 0, 2);
    }
    return false;
}

/* Let those who know how to kill do it. */
static void remove_by_force(const struct replay *replay)
{
    pid_t child = fork();
    if (!child) {
        hand_over((char *[]){ (char *)"trivet-runtime", (char *)"--root", (char *)replay->home, (char *)"delete",
                              (char *)"--force", (char *)replay->name, NULL });
        _exit(1);
    }
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
}

void replay_remove(const struct replay *replay)
{
    bool all = true;
    if (!replay->made)
        return;
    for (size_t i = 0; i < replay->groups.count; i++)
        all &= gone(replay->groups.at[i]);
    if (!all || !remove_directory(replay->directory))
        remove_by_force(replay);
}
