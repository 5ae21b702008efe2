/* A tiny init: what a container's process 1 owes the others, when the program itself doesn't know.
 *
 * The child goes on with the plan; the parent stays as process 1, passes signals on and collects the dead. It runs
 * with no more rights than the program: the plan puts it behind everything that takes rights away.
 */
#include "executor.h"
#include "kernel.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static int exit_code(int status) { return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status); }

static void collect(pid_t program)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;)
        if (pid == program)
            _exit(exit_code(status));
}

/* What the terminal sends reaches the program by itself, as a member of the foreground group. */
static _Noreturn void serve(pid_t program, const sigset_t *all)
{
    siginfo_t info;
    for (;;) {
        int number = sigwaitinfo(all, &info);
        if (number == SIGCHLD)
            collect(program);
        else if (number > 0 && info.si_code != SI_KERNEL)
            kill(program, number);
    }
}

int operate_init(struct executor *executor, struct cursor *fields)
{
    (void)fields;
    sigset_t all, before;
    sigfillset(&all);
    if (sigprocmask(SIG_BLOCK, &all, &before) < 0)
        return -1;
    pid_t program = fork();
    if (program < 0)
        return refuse(executor, errno, "start the program under init");
    if (program == 0)
        return sigprocmask(SIG_SETMASK, &before, NULL);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    prctl(PR_SET_NAME, "init", 0, 0, 0);
    sys_close_range(3, ~0u, 0);
    serve(program, &all);
}
