/* A session: clone, standard streams, the report socket, input and output. No policy of monitor or agent. */
#include "session.h"
#include "kernel.h"

#include <errno.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

enum { SETUP_FAILED = 125, END_OF_INPUT = 4 /* ^D, VEOF of a new terminal */ };

struct spawn {
    uint64_t flags;
    bool terminal, inherit, conducted, input;
    bool sibling; /* whoever clones is a helper, and the child its parent's */
    unsigned short rows, columns;
    const char *cgroup, *uid_map, *gid_map;
    int cgroup_fd; /* `cgroup` once it was opened, or -1 */
    uid_t owner; /* of the streams, user and group */
};

/* The child's ends of everything. */
struct ends {
    int stdio[3];
    int report;
    int heeded; /* the other end of `report`: who holds both never sees it end */
};

static struct spawn take_spawn(struct cursor *fields, bool inherit, bool conducted)
{
    struct spawn spawn = { .flags = (uint64_t)take_integer(fields), .inherit = inherit, .conducted = conducted };
    spawn.terminal = take_integer(fields) && !inherit;
    spawn.rows = (unsigned short)take_integer(fields);
    spawn.columns = (unsigned short)take_integer(fields);
    spawn.input = take_integer(fields);
    spawn.cgroup = take_text(fields);
    spawn.cgroup_fd = -1;
    spawn.uid_map = take_text(fields);
    spawn.gid_map = take_text(fields);
    spawn.owner = (uid_t)take_integer(fields);
    return spawn;
}

static void close_all(int *fds, size_t count)
{
    int error = errno;
    for (size_t i = 0; i < count; i++) {
        bool repeated = false;
        for (size_t j = 0; j < i; j++)
            repeated = repeated || fds[j] == fds[i];
        if (fds[i] >= 0 && !repeated)
            close(fds[i]);
    }
    for (size_t i = 0; i < count; i++)
        fds[i] = -1;
    errno = error;
}

/* --- standard streams ------------------------------------------------------------------------------- */

static int open_terminal(struct session *session, struct ends *ends, const struct spawn *spawn)
{
    struct winsize size = { .ws_row = spawn->rows, .ws_col = spawn->columns };
    int master, slave;
    if (openpty(&master, &slave, NULL, NULL, size.ws_row ? &size : NULL) < 0)
        return -1;
    fcntl(master, F_SETFD, FD_CLOEXEC);
    fcntl(slave, F_SETFD, FD_CLOEXEC);
    fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK);
    session->input = session->output = master;
    ends->stdio[0] = ends->stdio[1] = ends->stdio[2] = slave;
    return 0;
}

static int open_pipe(int *ours, int *theirs, bool ours_reads)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return -1;
    *ours = fds[!ours_reads];
    *theirs = fds[ours_reads];
    return fcntl(*ours, F_SETFL, (ours_reads ? O_RDONLY : O_WRONLY) | O_NONBLOCK);
}

/* The root of a user namespace may open and give away only what is its own. */
static int give_streams(const struct ends *ends, const struct spawn *spawn)
{
    for (int i = 0; i < 3 && spawn->owner; i++)
        if (ends->stdio[i] >= 0 && (i || spawn->input || spawn->terminal)
            && fchown(ends->stdio[i], spawn->owner, spawn->owner) < 0)
            return -1;
    return 0;
}

static int open_streams(struct session *session, struct ends *ends, const struct spawn *spawn)
{
    if (spawn->inherit || spawn->conducted)
        return 0;
    if (spawn->terminal)
        return open_terminal(session, ends, spawn) < 0 ? -1 : give_streams(ends, spawn);
    if (spawn->input) {
        if (open_pipe(&session->input, &ends->stdio[0], false) < 0)
            return -1;
    } else if ((ends->stdio[0] = open("/dev/null", O_RDONLY | O_CLOEXEC)) < 0) {
        return -1;
    }
    if (open_pipe(&session->output, &ends->stdio[1], true) < 0)
        return -1;
    if (open_pipe(&session->error, &ends->stdio[2], true) < 0)
        return -1;
    return give_streams(ends, spawn);
}

static int open_report(struct session *session, struct ends *ends)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    session->report = pair[0];
    ends->report = pair[1];
    ends->heeded = pair[0];
    return 0;
}

/* --- child ------------------------------------------------------------------------------------------ */

/* A handler, an ignored signal or a mask of ours must not reach the program. */
static void reset_signals(void)
{
    const struct {
        void *handler;
        unsigned long flags;
        void *restorer;
        uint64_t mask;
    } standard = { 0 }; /* the kernel's struct sigaction: the library's keeps 32 to 34 to itself */
    sigset_t none;
    for (int number = 1; number < _NSIG; number++)
        syscall(SYS_rt_sigaction, number, &standard, NULL, sizeof standard.mask);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Put the given descriptor where the program expects it, after moving ours out of the way. */
static int take_given(struct executor *executor)
{
    enum { ABOVE = 64 };
    int number = executor->given_number;
    if (executor->given < 0)
        return 0;
    if (number < 3)
        return refuse(executor, EBADF, "descriptor %d can't be given", number);
    if (executor->report == number)
        executor->report = fcntl(number, F_DUPFD_CLOEXEC, ABOVE);
    if (executor->root == number)
        executor->root = fcntl(number, F_DUPFD_CLOEXEC, ABOVE);
    if (executor->joined_fd == number)
        executor->joined_fd = fcntl(number, F_DUPFD_CLOEXEC, ABOVE);
    return executor->given == number ? 0 : dup2(executor->given, number);
}

static int take_streams(struct executor *executor, const struct ends *ends, const struct spawn *spawn)
{
    if (setsid() < 0 && errno != EPERM)
        return -1;
    if (spawn->conducted)
        return descriptors_take(executor);
    for (int fd = 0; fd < 3 && !spawn->inherit; fd++)
        if (dup2(ends->stdio[fd], fd) < 0)
            return -1;
    return spawn->terminal ? ioctl(0, TIOCSCTTY, 0) : 0;
}

static _Noreturn void run_child(struct executor *executor, const struct plan *plan, uint32_t spawn_index,
                                const struct ends *ends, const struct spawn *spawn)
{
    char proceed;
    close(ends->heeded);
    executor->report = ends->report;
    executor->own_stdio = !spawn->inherit;
    executor->terminal = spawn->terminal;
    executor->rows = spawn->rows;
    executor->columns = spawn->columns;
    reset_signals();
    bool mapped = !*spawn->uid_map || read(ends->report, &proceed, 1) == 1;
    if (mapped && take_streams(executor, ends, spawn) == 0 && take_given(executor) >= 0
        && executor_run(executor, plan, spawn_index + 1, plan->count) == 0) {
        executor_report(executor, REPORT_LAUNCHED);
        _exit(0);
    }
    executor_report(executor, REPORT_FAILED);
    _exit(SETUP_FAILED);
}

/* --- parent ----------------------------------------------------------------------------------------- */

static int write_maps(struct session *session, const struct spawn *spawn)
{
    if (!*spawn->uid_map)
        return 0;
    if (write_id_map(session->pid, "uid_map", spawn->uid_map) < 0
        || write_id_map(session->pid, "gid_map", spawn->gid_map) < 0)
        return -1;
    return send(session->report, "", 1, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

static int open_cgroup(struct spawn *spawn, struct executor *executor)
{
    if (!*spawn->cgroup || spawn->cgroup_fd >= 0)
        return 0;
    spawn->cgroup_fd = open(spawn->cgroup, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return spawn->cgroup_fd < 0 ? refuse(executor, errno, "cgroup %s", spawn->cgroup) : 0;
}

static long clone_child(struct spawn *spawn, struct executor *executor)
{
    struct clone_args arguments = { .flags = spawn->flags, .exit_signal = SIGCHLD };
    if (spawn->conducted || spawn->sibling) { /* the starter's child, which the kernel then takes the signal from (clone(2)) */
        arguments.flags |= CLONE_PARENT;
        arguments.exit_signal = 0;
    }
    if (open_cgroup(spawn, executor) < 0)
        return -1;
    if (spawn->cgroup_fd >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (uint64_t)spawn->cgroup_fd;
    }
    long pid = sys_clone3(&arguments);
    int error = errno;
    if (spawn->cgroup_fd >= 0)
        close(spawn->cgroup_fd);
    spawn->cgroup_fd = -1;
    errno = error;
    return pid;
}

/* What the process between launcher and child says, in memory it shares with the launcher. */
struct between {
    pid_t pid;
    struct report failure;
};

static _Noreturn void run_between(struct executor *executor, const struct plan *plan, uint32_t fork_index, uint32_t index,
                                  const struct ends *ends, struct spawn spawn, struct between *said)
{
    long pid = -1;
    spawn.sibling = true;
    executor->index = index;
    if (open_cgroup(&spawn, executor) == 0 && executor_run(executor, plan, fork_index + 1, index) == 0) {
        executor->index = index;
        executor->text[0] = 0;
        pid = clone_child(&spawn, executor);
        if (pid < 0 && !executor->text[0])
            refuse(executor, errno, "clone");
    }
    if (pid == 0)
        run_child(executor, plan, index, ends, &spawn);
    said->failure = (struct report){ .index = executor->index, .error = errno };
    memcpy(said->failure.text, executor->text, TEXT_SIZE);
    said->pid = (pid_t)pid;
    _exit(0);
}

/* Let a process of its own do what follows `Fork`: it may give up rights, or be limited, and the launcher is not. */
static long clone_between(struct executor *executor, const struct plan *plan, uint32_t fork_index, uint32_t index,
                          const struct ends *ends, const struct spawn *spawn)
{
    struct clone_args arguments = { .exit_signal = SIGCHLD };
    struct between *said = mmap(NULL, sizeof *said, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (said == MAP_FAILED)
        return -1;
    said->pid = -1;
    said->failure.error = ECHILD;
    long helper = sys_clone3(&arguments);
    if (helper == 0)
        run_between(executor, plan, fork_index, index, ends, *spawn, said);
    while (helper > 0 && waitpid((pid_t)helper, NULL, 0) < 0 && errno == EINTR)
        ;
    long pid = helper < 0 ? -1 : said->pid;
    int error = helper < 0 ? errno : said->failure.error;
    if (helper > 0 && pid < 0) {
        executor->index = said->failure.index;
        memcpy(executor->text, said->failure.text, TEXT_SIZE);
    }
    munmap(said, sizeof *said);
    errno = error;
    return pid;
}

static int spawn_child(struct session *session, struct executor *executor, const struct plan *plan, uint32_t fork_index,
                       uint32_t index, struct spawn *spawn)
{
    struct ends ends = { .stdio = { -1, -1, -1 }, .report = -1 };
    if (open_streams(session, &ends, spawn) < 0 || open_report(session, &ends) < 0) {
        refuse(executor, errno, "open the standard streams");
        close_all(ends.stdio, 3);
        return -1;
    }
    bool forks = fork_index < index;
    long pid = forks ? clone_between(executor, plan, fork_index, index, &ends, spawn) : clone_child(spawn, executor);
    if (pid == 0)
        run_child(executor, plan, index, &ends, spawn);
    close_all(ends.stdio, 3);
    close_all(&ends.report, 1);
    if (pid < 0)
        return executor->text[0] ? -1 : refuse(executor, errno, "clone");
    session->pid = (pid_t)pid;
    if (write_maps(session, spawn) < 0) {
        refuse(executor, errno, "write the id maps");
        kill(session->pid, SIGKILL);
        waitpid(session->pid, NULL, 0);
        session->pid = 0;
        return -1;
    }
    fcntl(session->report, F_SETFL, O_RDWR | O_NONBLOCK);
    return 0;
}

static int start(struct session *session, struct executor *executor, const struct plan *plan, bool inherit)
{
    struct cursor fields;
    uint32_t index = plan_find(plan, CODE_SPAWN, &fields);
    *session = (struct session){ .report = -1, .input = -1, .output = -1, .error = -1 };
    if (index == plan->count)
        return refuse(executor, EINVAL, "the plan has no Spawn");
    uint32_t fork_index = plan_find(plan, CODE_FORK, NULL);
    if (executor_run(executor, plan, 0, fork_index < index ? fork_index : index) < 0)
        return -1;
    struct spawn spawn = take_spawn(&fields, inherit, executor->conductor >= 0);
    executor->index = index;
    executor->text[0] = 0;
    session->terminal = spawn.terminal;
    session->accepts_input = spawn.input;
    return spawn_child(session, executor, plan, fork_index, index, &spawn);
}

int session_start(struct session *session, struct executor *executor, const struct plan *plan, bool inherit)
{
    int result = start(session, executor, plan, inherit), error = errno;
    executor_close(executor);
    if (result < 0)
        session_close(session);
    errno = error;
    return result;
}

/* --- report ----------------------------------------------------------------------------------------- */

static void replace_terminal(struct session *session, int master)
{
    close(session->output);
    fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK);
    session->input = session->output = master;
}

static ssize_t receive(struct session *session, struct report *report)
{
    struct iovec part = { report, sizeof *report };
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
    ssize_t size = recvmsg(session->report, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *header = size > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (header && header->cmsg_type == SCM_RIGHTS) {
        int master;
        memcpy(&master, CMSG_DATA(header), sizeof master);
        if (session->terminal && report->kind == REPORT_CONSOLE)
            replace_terminal(session, master);
        else
            close(master);
    }
    return size;
}

static void end_setup(struct session *session)
{
    close(session->report);
    session->report = -1;
    if (session->state == SESSION_FAILED)
        return;
    session->state = session->launched ? SESSION_STARTED : SESSION_FAILED;
    if (!session->launched) {
        session->failure = (struct report){ .error = ECHILD };
        snprintf(session->failure.text, sizeof session->failure.text, "the child died while it was being set up");
    }
}

bool session_heed(struct session *session)
{
    enum session_state before = session->state;
    while (session->report >= 0) {
        struct report report = { 0 };
        ssize_t size = receive(session, &report);
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (size <= 0) {
            end_setup(session);
        } else if (report.kind == REPORT_READY) {
            session->state = SESSION_WAITING;
            if (session->hurried)
                session_go(session);
        } else if (report.kind == REPORT_LAUNCHED) {
            session->launched = true;
        } else if (report.kind == REPORT_FAILED) {
            session->state = SESSION_FAILED;
            session->failure = report;
            session->failure.text[TEXT_SIZE - 1] = 0;
        }
    }
    return session->state != before;
}

void session_reaped(struct session *session, int status)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    session->reaped = true;
    session->status = status;
    session->time_ns = now.tv_sec * 1000000000LL + now.tv_nsec;
    session_heed(session);
    free(session->pending);
    session->pending = NULL;
    session->pending_at = session->pending_end = 0;
}

/* --- control ---------------------------------------------------------------------------------------- */

int session_go(struct session *session)
{
    session->hurried = session->state == SESSION_SETUP;
    if (session->state != SESSION_WAITING || session->report < 0)
        return 0;
    session->state = SESSION_SETUP;
    return send(session->report, "", 1, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

/* Not reaped yet means that the pid is still its own, dead or alive. */
int session_signal(struct session *session, int number)
{
    if (session->reaped || session->pid <= 0) {
        errno = ESRCH;
        return -1;
    }
    return kill(session->pid, number);
}

int session_resize(struct session *session, unsigned rows, unsigned columns)
{
    const struct winsize size = { .ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns };
    return session->terminal && session->output >= 0 ? ioctl(session->output, TIOCSWINSZ, &size) : 0;
}

/* --- input and output ------------------------------------------------------------------------------- */

static void close_input(struct session *session)
{
    if (session->input >= 0 && session->input != session->output)
        close(session->input);
    session->input = -1;
    free(session->pending);
    session->pending = NULL;
    session->pending_at = session->pending_end = 0;
}

bool session_has_input(const struct session *session) { return session->pending_at < session->pending_end; }

int session_write(struct session *session, const unsigned char *bytes, size_t length)
{
    static const unsigned char end_of_input = END_OF_INPUT;
    if (!session->accepts_input || session->input < 0 || session->input_ends || session->reaped)
        return 0;
    if (!length && !session->terminal) {
        close_input(session);
        return 0;
    }
    if (!length) {
        bytes = &end_of_input;
        length = 1;
    }
    session->pending = malloc(length);
    if (!session->pending)
        return -1;
    memcpy(session->pending, bytes, length);
    session->pending_at = 0;
    session->pending_end = length;
    session_flush(session);
    return 0;
}

void session_flush(struct session *session)
{
    while (session_has_input(session) && session->input >= 0) {
        ssize_t size = write(session->input, session->pending + session->pending_at,
                             session->pending_end - session->pending_at);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0 && errno == EAGAIN)
            return;
        if (size < 0) { /* nobody will read it any more */
            close_input(session);
            return;
        }
        session->pending_at += (size_t)size;
    }
    free(session->pending);
    session->pending = NULL;
    session->pending_at = session->pending_end = 0;
}

/* EIO is how a terminal says that its last user has gone. */
ssize_t session_read(struct session *session, int *stream, void *bytes, size_t size)
{
    ssize_t length;
    do
        length = read(*stream, bytes, size);
    while (length < 0 && errno == EINTR);
    if (length > 0)
        return length;
    if (length < 0 && errno == EAGAIN)
        return -1;
    if (session->input == *stream) {
        session->input = -1;
        session_flush(session); /* nobody will take what is pending */
    }
    close(*stream);
    *stream = -1;
    return 0;
}

void session_close(struct session *session)
{
    int fds[] = { session->report, session->input, session->output, session->error };
    close_all(fds, 4);
    session->report = session->input = session->output = session->error = -1;
    free(session->pending);
    session->pending = NULL;
    session->pending_at = session->pending_end = 0;
}
