/* The `processes` builtin: what /proc shows, one line each, so that nothing of the image is executed.
 *
 *     PID PPID UID AGE_MS CPU_MS COMMAND
 *
 * AGE_MS is the time since the start, CPU_MS the time used; control characters in COMMAND are shown as '?'.
 */
#include "builtin.h"
#include "kernel.h"

#include <ctype.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { COMMAND_SIZE = 1024, STAT_SIZE = 1024 };

struct row {
    long ppid;
    unsigned long long ticks, start;
    uid_t uid;
    char command[COMMAND_SIZE];
};

static ssize_t read_file(int directory, const char *name, char *buffer, size_t size)
{
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return -1;
    ssize_t length = read(fd, buffer, size - 1);
    close(fd);
    buffer[length > 0 ? length : 0] = 0;
    return length;
}

/* proc_pid_stat(5): the name, in parentheses, may itself hold parentheses and spaces; the last ")" ends it. */
static bool read_stat(int directory, struct row *row)
{
    char text[STAT_SIZE];
    unsigned long long user, system;
    if (read_file(directory, "stat", text, sizeof text) <= 0)
        return false;
    char *begin = strchr(text, '('), *end = strrchr(text, ')');
    if (!begin || !end || end < begin)
        return false;
    if (sscanf(end + 1, " %*c %ld %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %llu",
               &row->ppid, &user, &system, &row->start) != 4)
        return false;
    row->ticks = user + system;
    snprintf(row->command, sizeof row->command, "[%.*s]", (int)(end - begin - 1), begin + 1);
    return true;
}

/* Arguments are separated by NUL; a process without any (a zombie, a kernel thread) keeps its name in brackets. */
static void read_command(int directory, struct row *row)
{
    char text[COMMAND_SIZE];
    ssize_t length = read_file(directory, "cmdline", text, sizeof text);
    while (length > 0 && !text[length - 1])
        length--;
    if (length > 0) {
        memcpy(row->command, text, (size_t)length);
        row->command[length] = 0;
        for (ssize_t i = 0; i < length; i++)
            if (!row->command[i])
                row->command[i] = ' ';
    }
    for (char *at = row->command; *at; at++)
        if (iscntrl((unsigned char)*at))
            *at = '?';
}

static void print_process(int proc, const char *pid, long hertz, unsigned long long now_ms)
{
    struct stat status;
    struct row row;
    int directory = openat(proc, pid, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (directory < 0)
        return;
    if (fstat(directory, &status) == 0 && read_stat(directory, &row)) {
        read_command(directory, &row);
        unsigned long long started = row.start * 1000 / (unsigned long long)hertz;
        printf("%s %ld %u %llu %llu %s\n", pid, row.ppid, status.st_uid, now_ms > started ? now_ms - started : 0,
               row.ticks * 1000 / (unsigned long long)hertz, row.command);
    }
    close(directory);
}

int builtin_processes(int root, const char *path)
{
    struct timespec now;
    long hertz = sysconf(_SC_CLK_TCK);
    clock_gettime(CLOCK_BOOTTIME, &now);
    unsigned long long now_ms = (unsigned long long)now.tv_sec * 1000 + (unsigned long long)now.tv_nsec / 1000000;
    int fd = sys_openat2(root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, RESOLVE_IN_ROOT);
    DIR *proc = fd < 0 ? NULL : fdopendir(fd);
    if (!proc)
        return EXIT_FAILURE;
    for (struct dirent *entry; (entry = readdir(proc));)
        if (isdigit((unsigned char)entry->d_name[0]) && atol(entry->d_name) != getpid())
            print_process(fd, entry->d_name, hertz, now_ms);
    closedir(proc);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
