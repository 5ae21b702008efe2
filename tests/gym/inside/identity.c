/* Who one is, and who one may become. */
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "gym.h"

static unsigned long long status(const char *key)
{
    char line[256];
    FILE *file = fopen("/proc/self/status", "re");
    size_t length = strlen(key);
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, length) && line[length] == ':')
            return strtoull(line + length + 1, NULL, 16);
    return 0;
}

/* Be root, though somebody else was asked for. */
static int root(char **words)
{
    (void)words;
    errno = EPERM;
    return geteuid() ? denied("root") : got("root");
}

/* Become root by a program that belongs to root and says so. */
static int setuid_root(char **words)
{
    (void)words;
    if (geteuid()) {
        execl("/gym-setuid", "gym", "root", NULL);
        return denied("execve");
    }
    return got("root");
}

/* SET: find capabilities in a set (CapInh, CapAmb) that should have none. */
static int capabilities(char **words)
{
    errno = EPERM;
    return status(words[0]) ? got(words[0]) : denied(words[0]);
}

/* GROUP: be a member of a group nobody asked for. */
static int member(char **words)
{
    gid_t groups[128];
    int count = getgroups(128, groups);
    for (int i = 0; i < count; i++)
        if (groups[i] == (gid_t)atoi(words[0]))
            return got("the group");
    errno = EPERM;
    return denied("the group");
}

const struct verb identity_verbs[] = {
    {"root", 0, root},
    {"setuid", 0, setuid_root},
    {"capabilities", 1, capabilities},
    {"member", 1, member},
    {0},
};
