/* Calls by which kernels were taken. Arguments are such that nothing happens where the call gets through. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gym.h"

struct door { const char *name; long number; long arguments[6]; };

#define NOWHERE ((long)(size_t)"/nonexistent/gym")

/* Something that fails behind the filter with another errno than EPERM, or succeeds and means nothing. */
static struct door *doors(void)
{
    static struct door table[] = {
        {"add_key", SYS_add_key, {0}},
        {"keyctl", SYS_keyctl, {0, -3, 0}},
        {"bpf", SYS_bpf, {9999, 0, 0}},
        {"userfaultfd", SYS_userfaultfd, {1}},
        {"io_uring_setup", SYS_io_uring_setup, {0}},
        {"perf_event_open", SYS_perf_event_open, {0}},
        {"open_by_handle_at", SYS_open_by_handle_at, {-1, 0, 0}},
        {"pivot_root", SYS_pivot_root, {0, 0}},
        {"setns", SYS_setns, {-1, 0}},
        {"kexec_load", SYS_kexec_load, {0, 17, 0, -1}},
        {"init_module", SYS_init_module, {0, 0, 0}},
        {"acct", SYS_acct, {0}},
        {"swapon", SYS_swapon, {0, 0}},
        {"reboot", SYS_reboot, {1, 2, 3, 0}},
        {"syslog", SYS_syslog, {10, 0, 0}},
        {"iopl", SYS_iopl, {0}},
        {"quotactl", SYS_quotactl, {-1, 0, 0, 0}},
        {"kcmp", SYS_kcmp, {0, 0, 99, 0, 0}},
        {"move_pages", SYS_move_pages, {0, 0, 0, 0, 0, 0}},
        {"fanotify_init", SYS_fanotify_init, {-1, 0}},
        {"personality", SYS_personality, {0x0400000}},
        {0},
    };
    for (struct door *each = table; each->name; each++)
        if (!strcmp(each->name, "swapon") || !strcmp(each->name, "acct"))
            each->arguments[0] = NOWHERE;
    return table;
}

/* NAME: get through to the kernel. */
static int door(char **words)
{
    for (struct door *each = doors(); each->name; each++) {
        if (strcmp(each->name, words[0]))
            continue;
        const long *a = each->arguments;
        errno = 0;
        if (syscall(each->number, a[0], a[1], a[2], a[3], a[4], a[5]) >= 0)
            return got(words[0]);
        return errno == EPERM || errno == ENOSYS ? denied(words[0]) : got(strerror(errno));
    }
    return 2;
}

/* FLAGS: make namespaces, in hexadecimal. */
static int new_namespace(char **words)
{
    return unshare((int)strtol(words[0], NULL, 16)) ? denied("unshare") : got("a namespace");
}

/* FLAGS: the same by clone. */
static int clone_namespace(char **words)
{
    long pid = syscall(SYS_clone, strtol(words[0], NULL, 16) | SIGCHLD, 0, 0, 0, 0);
    if (!pid)
        _exit(0);
    return pid < 0 ? denied("clone") : (waitpid((pid_t)pid, NULL, 0), got("a namespace"));
}

/* NUMBER...: try each call in a process of its own, with arguments that mean nothing; print errno, or "signal". */
static int calls(char **words)
{
    for (; *words; words++) {
        int ends[2], answer = 0;
        if (pipe(ends))
            return denied("pipe");
        pid_t pid = fork();
        if (!pid) {
            alarm(1);
            errno = 0;
            syscall(strtol(*words, NULL, 10), -1L, -1L, -1L, -1L, -1L, -1L);
            answer = errno;
            _exit(write(ends[1], &answer, sizeof answer) < 0);
        }
        close(ends[1]);
        if (read(ends[0], &answer, sizeof answer) == sizeof answer)
            printf("%s %d\n", *words, answer);
        else
            printf("%s signal\n", *words);
        close(ends[0]);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    return fflush(stdout);
}

const struct verb kernel_verbs[] = {
    {"door", 1, door}, {"unshare", 1, new_namespace}, {"clone", 1, clone_namespace}, {"calls", 1, calls}, {0},
};
