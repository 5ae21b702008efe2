/* trivet-launcher: carries out the plan on descriptor 3 and reports on descriptor 4 (docs/launch.md). */
#include "executor.h"
#include "kernel.h"
#include "monitor.h"
#include "session.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { PLAN_FD = 3, REPORT_FD = 4, PLAN_LIMIT = 16 << 20, FAILED = 125, USAGE = 2 };

static volatile sig_atomic_t task_child;

/* Copy the plan: whoever holds the memfd could change it behind our back after the check. */
static int read_plan(struct executor *executor, struct plan *plan)
{
    struct stat status;
    if (fstat(PLAN_FD, &status) < 0)
        return refuse(executor, errno, "no plan on descriptor %d", PLAN_FD);
    if (!S_ISREG(status.st_mode) || status.st_size <= 0 || status.st_size > PLAN_LIMIT)
        return refuse(executor, EINVAL, "the plan on descriptor %d has an impossible size", PLAN_FD);
    size_t length = (size_t)status.st_size, used = 0;
    char *bytes = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED)
        return -1;
    while (used < length) {
        ssize_t size = pread(PLAN_FD, bytes + used, length - used, (off_t)used);
        if (size <= 0)
            return refuse(executor, size ? errno : EINVAL, "the plan is cut off");
        used += (size_t)size;
    }
    close(PLAN_FD);
    return plan_open(executor, plan, bytes, length);
}

static void stop_child(int number)
{
    (void)number;
    if (task_child)
        kill((pid_t)task_child, SIGKILL);
}

static int exit_status(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

static void await_setup(struct session *session)
{
    while (session->report >= 0) {
        struct pollfd report = { .fd = session->report, .events = POLLIN };
        poll(&report, 1, -1);
        session_heed(session);
    }
}

/* Not to be signalled any more before its number is free for somebody else. */
static int wait_for(struct session *session)
{
    siginfo_t info;
    int status = 0;
    while (waitid(P_PID, (id_t)session->pid, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR)
        ;
    task_child = 0;
    while (waitpid(session->pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

/* Hold back what ends us until there is a child to pass it to; that who waits for us is gone is such a thing. */
static int start_task(struct session *session, struct executor *executor, const struct plan *plan)
{
    static const int numbers[] = { SIGTERM, SIGINT, SIGHUP };
    sigset_t held, before;
    sigemptyset(&held);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        sigaddset(&held, numbers[i]);
        signal(numbers[i], stop_child);
    }
    sigprocmask(SIG_BLOCK, &held, &before);
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
        return -1;
    int result = session_start(session, executor, plan, true), error = errno;
    task_child = result < 0 ? 0 : session->pid;
    sigprocmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return result;
}

/* A task: standard streams are the caller's, the exit status is the program's. */
static int run_task(struct executor *executor, const struct plan *plan)
{
    struct session session;
    if (plan_find(plan, CODE_SPAWN, NULL) == plan->count) {
        if (executor_run(executor, plan, 0, plan->count) == 0)
            return 0;
        report_failure(REPORT_FD, executor);
        return FAILED;
    }
    if (start_task(&session, executor, plan) < 0) {
        report_failure(REPORT_FD, executor);
        return FAILED;
    }
    await_setup(&session);
    int status = wait_for(&session);
    if (session.state != SESSION_FAILED)
        return exit_status(status);
    executor->index = session.failure.index;
    memcpy(executor->text, session.failure.text, TEXT_SIZE);
    errno = session.failure.error;
    report_failure(REPORT_FD, executor);
    return FAILED;
}

/* Print which of the numbered system calls this kernel lacks. No call does anything with such arguments. */
static int print_missing(char **numbers)
{
    for (; *numbers; numbers++)
        if (syscall(atol(*numbers), -1L, -1L, -1L, -1L, -1L, -1L) < 0 && errno == ENOSYS)
            puts(*numbers);
    return 0;
}

int main(int argc, char **argv)
{
    static struct executor executor;
    struct plan plan;
    executor_init(&executor);
    if (argc == 2 && !strcmp(argv[1], "--operations")) {
        executor_print_operations();
        return 0;
    }
    if (argc == 2 && !strcmp(argv[1], "--exercise"))
        return exercise(argv[0]);
    if (argc > 2 && !strcmp(argv[1], "--missing"))
        return print_missing(argv + 2);
    if (fcntl(REPORT_FD, F_SETFD, FD_CLOEXEC) < 0) {
        fputs("usage: trivet-launcher --operations | --exercise | --missing NUMBER...; or a plan on descriptor 3 and a report pipe on 4\n", stderr);
        return USAGE;
    }
    signal(SIGPIPE, SIG_IGN);
    umask(022);
    if (read_plan(&executor, &plan) < 0 || descriptors_open(&executor, &plan) < 0) {
        report_failure(REPORT_FD, &executor);
        return FAILED;
    }
    if (plan_find(&plan, CODE_MONITOR, NULL) < plan.count)
        return monitor_main(&executor, &plan, REPORT_FD);
    return run_task(&executor, &plan);
}
