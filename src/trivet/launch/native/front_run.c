/* run, and create, of a bundle that was before: what it came to then is carried out once more, if nothing it depends on
 * has changed. The record is described in runtime/recording.py. */
#include "front_replay.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LONGEST = 200, RECORD_LIMIT = 4 << 20 };
enum place { LITERAL, NAMED };
static const char version[] = "trivet-run-1";

struct options {
    const char *bundle, *pid_file, *name;
    bool detached, created;
};

static bool read_words(struct options *options, char **words)
{
    while (*words) {
        int taken = valued_option(words, "--bundle", "-b", &options->bundle);
        taken = taken ? taken : valued_option(words, "--pid-file", "", &options->pid_file);
        if (!taken && !options->created && (!strcmp(*words, "--detach") || !strcmp(*words, "-d"))) {
            options->detached = true;
            taken = 1;
        } else if (!taken && **words != '-' && !options->name) {
            options->name = *words;
            taken = 1;
        }
        if (!taken)
            return false;
        words += taken;
    }
    return options->name && good_name(options->name) && strlen(options->name) <= LONGEST;
}

/* Read the record of a bundle; only what this user wrote is read at all. */
static bool read_record(const char *home, const char *bundle, const char *suffix, struct reader *reader)
{
    char name[LONGEST + 3], path[PATH_SIZE];
    size_t size = 0;
    for (const char *at = bundle; *at; at++) {
        if (size >= LONGEST)
            return false;
        name[size++] = *at == '/' ? '@' : *at;
        if (*at == '@' || *at == '/')
            name[size++] = *at == '/' ? '-' : '@';
    }
    name[size] = '\0';
    if (size > LONGEST || snprintf(path, sizeof path, "%s/plans@/%s%s", home, name, suffix) >= PATH_SIZE)
        return false;
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_uid != geteuid() || status.st_mode & 077
        || status.st_size > RECORD_LIMIT)
        return false; /* the descriptor is closed when others take over */
    unsigned char *raw = malloc((size_t)status.st_size + 1);
    ssize_t found = raw ? read(fd, raw, (size_t)status.st_size) : -1;
    close(fd);
    *reader = (struct reader){ raw, raw + (found > 0 ? found : 0), found != status.st_size };
    return !reader->broken && text_is(read_text(reader), version, strlen(version));
}

static bool same_files(struct reader *reader)
{
    for (uint32_t left = read_number(reader); left && !reader->broken; left--) {
        char *path = same_file(reader);
        if (!path)
            return false;
        free(path);
    }
    return !reader->broken;
}

static bool same_root(struct reader *reader, const char *bundle)
{
    char *relative = text_string(read_text(reader)), path[PATH_SIZE], real[PATH_MAX], found[PATH_MAX + 64];
    struct stat status;
    struct text known = read_text(reader);
    int length = *relative == '/' ? snprintf(path, sizeof path, "%s", relative)
                                  : snprintf(path, sizeof path, "%s/%s", bundle, relative);
    if (reader->broken || length >= PATH_SIZE || stat(path, &status) < 0 || !realpath(path, real))
        return false;
    length = snprintf(found, sizeof found, "%llu %llu %s", (unsigned long long)status.st_dev,
                      (unsigned long long)status.st_ino, real);
    return text_is(known, found, (size_t)length);
}

/* The mounted control groups: lines of mountinfo without their first two fields. */
static bool same_groups(struct reader *reader)
{
    struct text known = read_text(reader);
    struct bytes found = { 0 };
    size_t size;
    char *text = read_file("/proc/self/mountinfo", &size);
    for (char *line = text, *end; line && *line; line = end + 1) {
        if (!(end = strchr(line, '\n')))
            return false;
        *end = '\0';
        char *second = strchr(line, ' '), *third = second ? strchr(second + 1, ' ') : NULL;
        if (third && strstr(line, " - cgroup")) {
            bytes_add(&found, third + 1, strlen(third + 1));
            bytes_add(&found, "\n", 1);
        }
    }
    return text && !found.failed && text_is(known, found.at, found.size);
}

static bool is_mount(const char *path)
{
    char above[PATH_SIZE];
    struct stat own, other;
    if (lstat(path, &own) < 0 || S_ISLNK(own.st_mode) || snprintf(above, sizeof above, "%s/..", path) >= PATH_SIZE
        || lstat(above, &other) < 0)
        return false;
    return own.st_dev != other.st_dev || own.st_ino == other.st_ino;
}

/* The place of the state, and the mount it lies on. */
static bool same_home(struct reader *reader, const char *home)
{
    char path[PATH_SIZE];
    struct text known = read_text(reader), mount = read_text(reader);
    if (!text_is(known, home, strlen(home)) || known.size >= PATH_SIZE)
        return false;
    memcpy(path, home, known.size + 1);
    while (!is_mount(path) && strcmp(path, "/")) {
        char *last = strrchr(path, '/');
        last[last == path] = '\0';
    }
    return text_is(mount, path, strlen(path));
}

static bool nothing_changed(struct reader *reader, const char *home, const char *bundle)
{
    return conditions_hold(reader) && same_files(reader) && same_root(reader, bundle) && same_groups(reader)
           && same_home(reader, home);
}

/* Write a part, with our name in it. */
static void put_part(struct bytes *fields, struct reader *reader, void *replay)
{
    if (read_number(reader) == NAMED) {
        char *text = own_text(replay, reader);
        if (text)
            put_string(fields, text);
        free(text);
        return;
    }
    struct text literal = read_text(reader);
    bytes_add(fields, literal.at, literal.size);
}

static pid_t begin(struct replay *replay, struct reader *reader, bool created)
{
    struct plan_text plan = { 0 };
    if (replay_make(replay, reader) && (plan.launcher = text_string(read_text(reader)))
        && read_plan(&plan.plan, reader, put_part, replay)) {
        pid_t pid = launch(&plan, &(struct answers){ .groups = &replay->groups, .waiting = created ? replay->directory : NULL });
        if (pid)
            return pid;
    }
    replay_remove(replay);
    return 0;
}

/* Run what was stored, if it is what is asked for; the exit code. */
static int replay_run(struct options *options, struct replay *replay, struct reader *reader)
{
    char temporary[PATH_SIZE];
    int file = options->pid_file ? pid_file_open(options->pid_file, temporary) : -1;
    if (options->pid_file && file < 0)
        return HAND_OVER;
    hold_signals(); /* until there is somebody to pass them on to */
    pid_t pid = begin(replay, reader, options->created);
    if (!pid) {
        release_signals();
        if (file >= 0)
            unlink(temporary);
        return HAND_OVER;
    }
    pid_file_write(file, pid, temporary, options->pid_file);
    if (options->detached || options->created)
        return 0;
    int code = await(pid);
    replay_remove(replay);
    return code;
}

static int verb(const struct wish *wish, bool created)
{
    struct options options = { .bundle = ".", .created = created };
    struct replay replay = { .home = wish->home };
    struct reader reader;
    char bundle[PATH_MAX];
    if (getenv("LISTEN_FDS") || !read_words(&options, wish->rest) || !realpath(options.bundle, bundle))
        return HAND_OVER;
    if (*wish->home != '/' || strstr(wish->home, "//") || strstr(wish->home, "/."))
        return HAND_OVER; /* one way to write it is enough */
    replay.name = options.name;
    if (snprintf(replay.directory, PATH_SIZE, "%s/%s", wish->home, options.name) >= PATH_SIZE)
        return HAND_OVER;
    if (!read_record(wish->home, bundle, created ? "@created" : "", &reader) || !nothing_changed(&reader, wish->home, bundle))
        return HAND_OVER;
    replay.token = text_string(read_text(&reader));
    return replay.token && *replay.token && !reader.broken ? replay_run(&options, &replay, &reader) : HAND_OVER;
}

int verb_run(const struct wish *wish) { return verb(wish, false); }

int verb_create(const struct wish *wish) { return verb(wish, true); }
