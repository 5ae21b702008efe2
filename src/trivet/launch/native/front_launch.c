/* A conducted launch (docs/launch.md), as launch/conductor.py does it: the program is our own child. */
#include "frame.h"
#include "front.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FREE = 160, PATIENCE = 120000 }; /* the lowest descriptor out of the launcher's way; milliseconds */
enum { PLAN, REPORT, CONDUCTOR, GIVEN };

static const int kept[] = { SIGCHLD, SIGKILL, SIGSTOP, SIGURG,  SIGPIPE, SIGWINCH, SIGTTIN,
                            SIGTTOU, SIGTSTP, SIGSEGV, SIGBUS,  SIGILL,  SIGFPE };

static sigset_t passed_on(void)
{
    sigset_t found;
    sigfillset(&found);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        sigdelset(&found, kept[i]);
    return found;
}

void hold_signals(void)
{
    sigset_t all = passed_on();
    sigprocmask(SIG_BLOCK, &all, NULL);
}

void release_signals(void)
{
    sigset_t all = passed_on();
    sigprocmask(SIG_UNBLOCK, &all, NULL);
}

static int up(int fd)
{
    int moved = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, FREE);
    if (fd >= 0)
        close(fd);
    return moved;
}

static int in_memory(const char *name, unsigned flags, const unsigned char *content, size_t size)
{
    int fd = memfd_create(name, MFD_CLOEXEC | flags);
    for (ssize_t done = 0; fd >= 0 && size; content += done, size -= (size_t)done)
        if ((done = write(fd, content, size)) < 0) {
            close(fd);
            return -1;
        }
    return fd;
}

/* Copy the launcher to where nothing it starts can overwrite it (CVE-2019-5736). */
static int sealed(const char *program)
{
    size_t size;
    char path[64];
    unsigned char *content = (unsigned char *)read_file(program, &size);
    int fd = content ? in_memory("trivet-launcher", MFD_ALLOW_SEALING, content, size) : -1;
    if (fd < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) < 0)
        return -1;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int readable = up(open(path, O_RDONLY | O_CLOEXEC)); /* one open for writing would make execve fail with ETXTBSY */
    close(fd);
    return readable;
}

static void become_launcher(int program, const int given[GIVEN], const int streams[3])
{
    static char *const argv[] = { "trivet-launcher", NULL };
    static char *const environment[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                                         "LC_ALL=C.UTF-8", NULL };
    char path[64];
    sigset_t none;
    sigemptyset(&none);
    for (int i = 0; i < GIVEN; i++)
        if (dup2(given[i], 3 + i) < 0)
            return;
    for (int i = 0; i < 3; i++)
        if (dup2(streams[i], 3 + GIVEN + i) < 0)
            return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", program);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(path, argv, environment);
}

/* Hear one message and who said it; its length. */
static ssize_t hear(int fd, char *said, size_t room, pid_t *who)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct iovec part = { said, room };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
    ssize_t size = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *head = size > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    struct ucred credentials = { 0 };
    if (head && head->cmsg_type == SCM_CREDENTIALS)
        memcpy(&credentials, CMSG_DATA(head), sizeof credentials);
    *who = credentials.pid;
    return size;
}

static bool join(pid_t pid, const struct words *groups)
{
    char path[PATH_SIZE], number[16];
    snprintf(number, sizeof number, "%d", pid);
    for (size_t i = 0; i < groups->count; i++)
        if (snprintf(path, sizeof path, "%s/cgroup.procs", groups->at[i]) >= PATH_SIZE || !write_to(path, number))
            return false;
    return true;
}

/* Answer what the child says on its way; false if it isn't to go on, or has said all. */
static bool answer(int fd, const struct answers *answers)
{
    char said[64];
    pid_t who;
    ssize_t size = hear(fd, said, sizeof said, &who);
    bool good = false;
    if (size == 6 && !memcmp(said, "joined", 6)) /* the pid could have been taken over while it was joined */
        good = answers->container && container_lives(answers->container);
    else if (size == 4 && !memcmp(said, "join", 4))
        good = answers->groups && who > 0 && join(who, answers->groups);
    return good && send(fd, "", 1, MSG_NOSIGNAL) == 1;
}

/* A program that waits is named in its monitor's directory. */
static pid_t named_in(const char *directory)
{
    char path[PATH_SIZE];
    size_t size;
    char *text = snprintf(path, sizeof path, "%s/pid", directory) < PATH_SIZE ? read_file(path, &size) : NULL;
    pid_t pid = text ? (pid_t)strtol(text, NULL, 10) : 0;
    free(text);
    return pid;
}

static pid_t conduct(int report, int ours, const struct answers *answers)
{
    struct pollfd wait[2] = { { .fd = report, .events = POLLIN }, { .fd = ours, .events = POLLIN } };
    unsigned char data[FRAME_HEADER + 4];
    const size_t whole = answers->waiting ? FRAME_HEADER : sizeof data;
    const unsigned char good = answers->waiting ? FRAME_READY : FRAME_STARTED;
    size_t size = 0;
    while (size < whole) {
        if (poll(wait, 2, PATIENCE) <= 0)
            return 0;
        if (wait[1].revents && !answer(ours, answers)) {
            shutdown(ours, SHUT_RDWR); /* a launch that waits for an answer fails now */
            wait[1].fd = -1;
        }
        if (wait[0].revents) {
            ssize_t part = read(report, data + size, whole - size);
            if (part <= 0 || *data != good)
                return 0;
            size += (size_t)part;
        }
    }
    return answers->waiting ? named_in(answers->waiting) : (pid_t)frame_get32(data + FRAME_HEADER);
}

pid_t launch(const struct plan_text *plan, const struct answers *answers)
{
    int report[2], sockets[2], streams[3], program = sealed(plan->launcher);
    if (program < 0 || pipe2(report, O_CLOEXEC) < 0
        || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0
        || setsockopt(sockets[0], SOL_SOCKET, SO_PASSCRED, &(int){ 1 }, sizeof(int)) < 0)
        return 0;
    const int given[GIVEN] = { up(in_memory("trivet-plan", 0, plan->plan.at, plan->plan.size)), up(report[1]),
                               up(sockets[1]) };
    for (int i = 0; i < 3; i++)
        if ((streams[i] = fcntl(i, F_DUPFD_CLOEXEC, FREE)) < 0)
            return 0; /* who closed a stream gets /dev/null by the other way */
    if (given[PLAN] < 0 || given[REPORT] < 0 || given[CONDUCTOR] < 0)
        return 0;
    pid_t child = fork();
    if (!child) {
        become_launcher(program, given, streams);
        _exit(127);
    }
    for (int i = 0; i < GIVEN; i++)
        close(given[i]);
    pid_t begun = child < 0 ? 0 : conduct(up(report[0]), sockets[0], answers);
    close(sockets[0]);
    if (begun && answers->waiting)
        return begun; /* the monitor stays */
    while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
        ;
    return begun;
}

static volatile pid_t target;

static void pass_on(int number)
{
    int before = errno;
    kill(target, number);
    errno = before;
}

int await(pid_t pid)
{
    const sigset_t all = passed_on();
    struct sigaction action = { .sa_handler = pass_on };
    int status = 0;
    target = pid;
    for (int number = 1; number < _NSIG; number++)
        if (sigismember(&all, number) == 1)
            sigaction(number, &action, NULL); /* some are the C library's own, and refused */
    release_signals();
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return 1;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
