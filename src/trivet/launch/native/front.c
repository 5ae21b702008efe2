/* The command line: which verbs are for us, and the way to the others. */
#include "front_replay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char full[] = "trivet-runtime-full"; /* beside us */

static const struct {
    const char *name;
    int (*act)(const struct wish *);
    int least, most; /* operands; -1: it reads them itself */
} verbs[] = {
    { "state", verb_state, 1, 1 },
    { "kill", verb_kill, 1, 2 },
    { "start", verb_start, 1, 1 },
    { "delete", verb_delete, 1, 1 },
    { "exec", verb_exec, 0, -1 },
    { "run", verb_run, 0, -1 },
    { "create", verb_create, 0, -1 },
};

/* The first user namespace maps everybody. */
static bool confined(void)
{
    unsigned inside = 1, outside = 1, count = 0;
    FILE *file = fopen("/proc/self/uid_map", "re");
    if (!file)
        return true;
    int found = fscanf(file, "%u %u %u", &inside, &outside, &count);
    fclose(file);
    return found != 3 || inside || outside || count != 4294967295u;
}

/* As runtime/rootless.py, home. */
static const char *default_home(void)
{
    static char path[PATH_SIZE];
    const char *session = getenv("XDG_RUNTIME_DIR"), *user = getenv("USER");
    if (!session || !*session || (!geteuid() && !(confined() && (!user || strcmp(user, "root")))))
        return "/run/trivet-runtime";
    return snprintf(path, sizeof path, "%s/trivet-runtime", session) < PATH_SIZE ? path : NULL;
}

/* Read an option before the verb: 1 and its value, if it is one that has one and `words` goes on; else 0. */
static int valued(char **words, const char *name, const char **value)
{
    size_t length = strlen(name);
    if (strncmp(words[0], name, length))
        return 0;
    if (words[0][length] == '=') {
        *value = words[0] + length + 1;
        return 1;
    }
    *value = words[1];
    return words[0][length] ? 0 : words[1] ? 2 : 0;
}

/* Read operands and what options have no value; false for others. */
static bool read_operands(struct wish *wish)
{
    for (char **words = wish->rest; *words; words++) {
        if (!strcmp(*words, "--force") || !strcmp(*words, "-f"))
            wish->force = true;
        else if (**words == '-' || wish->count == WORD_LIMIT)
            return false;
        else
            wish->words[wish->count++] = *words;
    }
    return true;
}

/* Read the command line up to the verb; false unless all of it is known here. */
static bool read_wish(struct wish *wish, char **words)
{
    static const char *const silent[] = { "--log", "--log-format", "--rootless", "--criu" };
    *wish = (struct wish){ 0 };
    while (*words && **words == '-') {
        const char *ignored;
        int taken = valued(words, "--root", &wish->home);
        for (size_t i = 0; !taken && i < sizeof silent / sizeof *silent; i++)
            taken = valued(words, silent[i], &ignored);
        if (!taken && !strcmp(*words, "--systemd-cgroup"))
            taken = 1;
        if (!taken)
            return false;
        words += taken;
    }
    if (!*words)
        return false;
    wish->verb = *words;
    wish->rest = words + 1;
    if (!wish->home)
        wish->home = default_home();
    return wish->home && *wish->home;
}

int valued_option(char **words, const char *name, const char *letter, const char **value)
{
    size_t length = strlen(name);
    if (!strncmp(words[0], name, length) && words[0][length] == '=') {
        *value = words[0] + length + 1;
        return 1;
    }
    if ((strcmp(words[0], name) && strcmp(words[0], letter)) || !words[1] || *words[1] == '-') /* argparse minds */
        return 0;
    *value = words[1];
    return 2;
}

int pid_file_open(const char *path, char temporary[PATH_SIZE])
{
    const char *name = strrchr(path, '/');
    int length = name ? snprintf(temporary, PATH_SIZE, "%.*s/.%s", (int)(name - path), path, name + 1)
                      : snprintf(temporary, PATH_SIZE, ".%s", path);
    return length < PATH_SIZE ? open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
}

void pid_file_write(int file, pid_t pid, const char *temporary, const char *path)
{
    if (file >= 0 && (dprintf(file, "%d", pid) < 0 || rename(temporary, path) < 0))
        perror("trivet-runtime: the pid file");
}

static int quickly(char **words)
{
    struct wish wish;
    if (!read_wish(&wish, words))
        return HAND_OVER;
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (!strcmp(wish.verb, verbs[i].name)) {
            if (verbs[i].most < 0)
                return verbs[i].act(&wish);
            bool suits = read_operands(&wish) && wish.count >= verbs[i].least && wish.count <= verbs[i].most;
            return suits && (!wish.force || verbs[i].act == verb_delete) ? verbs[i].act(&wish) : HAND_OVER;
        }
    return HAND_OVER;
}

int hand_over(char **argv)
{
    char path[PATH_SIZE + sizeof full] = "";
    ssize_t length = readlink("/proc/self/exe", path, PATH_SIZE - 1);
    char *name = length > 0 ? strrchr(path, '/') : NULL;
    if (name) {
        memcpy(name + 1, full, sizeof full);
        execv(path, argv);
    }
    fprintf(stderr, "trivet-runtime: cannot execute %s: %s\n", name ? path : full, strerror(errno));
    return 1;
}

int main(int argc, char **argv)
{
    int code = argc > 1 ? quickly(argv + 1) : HAND_OVER;
    return code == HAND_OVER ? hand_over(argv) : code;
}
