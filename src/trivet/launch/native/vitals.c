/* The `vitals` builtin: how the system is whose /proc this is, one fact a line, for who looks from outside.
 *
 *     pids COUNT
 *     memory TOTAL AVAILABLE                            bytes
 *     pressure cpu|memory|io SOME FULL                  percent of the last ten seconds
 *     system SIZE USED PATH                             bytes; the last word may hold spaces, written as \040
 */
#include "builtin.h"
#include "kernel.h"

#include <ctype.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { TEXT_LIMIT = 1 << 16, SYSTEMS = 32 };

static char text[TEXT_LIMIT];

static int open_inside(int root, const char *path)
{
    return sys_openat2(root, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0, RESOLVE_IN_ROOT);
}

static bool read_inside(int root, const char *path)
{
    int fd = open_inside(root, path);
    size_t used = 0;
    for (ssize_t size = 1; fd >= 0 && size > 0 && used < sizeof text - 1; used += size > 0 ? (size_t)size : 0)
        size = read(fd, text + used, sizeof text - 1 - used);
    text[used] = 0;
    if (fd >= 0)
        close(fd);
    return used > 0;
}

static void print_pids(int root)
{
    unsigned count = 0;
    int fd = open_inside(root, "/proc");
    DIR *proc = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *entry; proc && (entry = readdir(proc));)
        count += isdigit((unsigned char)entry->d_name[0]) && atol(entry->d_name) != getpid();
    if (proc)
        closedir(proc);
    printf("pids %u\n", count);
}

static unsigned long long kilobytes(const char *name)
{
    const char *at = strstr(text, name);
    return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static void print_memory(int root)
{
    if (read_inside(root, "/proc/meminfo"))
        printf("memory %llu %llu\n", kilobytes("MemTotal:") << 10, kilobytes("MemAvailable:") << 10);
}

static double average(const char *kind)
{
    const char *line = strstr(text, kind), *at = line ? strstr(line, "avg10=") : NULL;
    return at ? atof(at + strlen("avg10=")) : 0;
}

static void print_pressure(int root)
{
    static const char *const kinds[] = { "cpu", "memory", "io" };
    char path[32];
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        snprintf(path, sizeof path, "/proc/pressure/%s", kinds[i]);
        if (read_inside(root, path))
            printf("pressure %s %.2f %.2f\n", kinds[i], average("some"), average("full"));
    }
}

static bool is_stored(const char *type)
{
    static const char *const stored[] = { "overlay", "ext4", "erofs", "xfs", "btrfs", "virtiofs", "tmpfs" };
    for (size_t i = 0; i < sizeof stored / sizeof *stored; i++)
        if (!strcmp(type, stored[i]))
            return true;
    return false;
}

/* Places below /dev are the level's own; a path with a space in it is told, but not measured. */
static void print_systems(int root)
{
    char path[1024], type[64], *rest = text;
    unsigned count = 0;
    if (!read_inside(root, "/proc/self/mounts"))
        return;
    for (char *line; count < SYSTEMS && (line = strsep(&rest, "\n"));) {
        struct statvfs state;
        if (sscanf(line, "%*s %1023s %63s", path, type) != 2 || !is_stored(type) || !strncmp(path, "/dev", 4))
            continue;
        int fd = open_inside(root, path);
        if (fd >= 0 && fstatvfs(fd, &state) == 0 && state.f_blocks) {
            unsigned long long block = state.f_frsize;
            printf("system %llu %llu %s\n", state.f_blocks * block, (state.f_blocks - state.f_bfree) * block, path);
            count++;
        }
        if (fd >= 0)
            close(fd);
    }
}

int builtin_vitals(int root, const char *path)
{
    (void)path;
    print_pids(root);
    print_memory(root);
    print_pressure(root);
    print_systems(root);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
