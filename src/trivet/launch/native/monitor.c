/* The monitor's start and loop: one child, its log, its clients. */
#include "monitor.h"
#include "cgroup.h"
#include "kernel.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { QUIET_MS = 2000, PATIENCE_MS = 5000, LINGER_POLL_MS = 2000, CROWDED_MS = 250, CHUNK = 32768, SETUP_FAILED = 125 };

/* Slots of the poll array before the clients'. */
enum { POLL_SIGNALS, POLL_LISTENER, POLL_REPORT, POLL_INPUT, POLL_OUTPUT, POLL_ERROR, POLL_RELAY, POLL_CLIENTS };

/* --- the child's life ------------------------------------------------------------------------------- */

/* Field 22 of /proc/PID/stat; the name in field 2 may hold anything, so count from its closing bracket. */
static unsigned long long start_time(const struct monitor *monitor, pid_t pid)
{
    char path[32], text[1024];
    snprintf(path, sizeof path, "%d/stat", pid);
    int fd = openat(monitor->proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (length <= 0)
        return 0;
    text[length] = 0;
    const char *at = strrchr(text, ')');
    for (int field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at ? strtoull(at, NULL, 10) : 0;
}

static void write_pid(const struct monitor *monitor)
{
    char text[64];
    snprintf(text, sizeof text, "%d %llu\n", monitor->session.pid, start_time(monitor, monitor->session.pid));
    write_file(monitor, "pid", text);
    ending_reserve(monitor);
}

/* Who started us over a socket goes on as the first client, and need not connect. */
static struct client *starter(struct monitor *monitor)
{
    struct client *client = monitor->report < 0 ? NULL : hub_take(&monitor->hub, monitor->report);
    if (client)
        monitor->report = -1;
    return client;
}

void monitor_state(struct monitor *monitor, enum session_state state, pid_t pid)
{
    unsigned char payload[4];
    frame_set32(payload, (uint32_t)pid);
    monitor->state = state;
    struct client *first = starter(monitor);
    if (state == SESSION_WAITING && first)
        first->closing = wire_put(&first->wire, FRAME_READY, 0, NULL, 0) < 0;
    else if (state == SESSION_WAITING && monitor->entered)
        hub_send(&monitor->hub, 0, 0, FRAME_READY, NULL, 0);
    else if (state == SESSION_WAITING)
        say(&monitor->report, FRAME_READY, NULL, 0);
    if (state == SESSION_STARTED) {
        say(&monitor->report, FRAME_STARTED, payload, sizeof payload);
        hub_send(&monitor->hub, 0, 0, FRAME_STARTED, payload, sizeof payload);
    }
}

/* The program of a conducted launch is its starter's child: once it has begun, or never will, we are done. */
static void let_go(struct monitor *monitor)
{
    if (monitor->session.state == SESSION_FAILED)
        monitor->phase = DRAINING;
    if (monitor->session.state != SESSION_STARTED)
        return;
    unlinkat(monitor->directory, "monitor.sock", 0);
    close(monitor->hub.listener);
    monitor->hub.listener = -1;
    monitor->phase = TOLD;
    monitor->served = true;
    for (size_t i = 0; i < monitor->hub.count; i++)
        monitor->hub.clients[i]->closing = true;
}

static void heed(struct monitor *monitor)
{
    struct session *session = &monitor->session;
    if (!session_heed(session))
        return;
    if (session->state == SESSION_FAILED && !monitor->conducted) /* else its starter may have reaped it */
        session_signal(session, SIGKILL);
    else if (session->state != SESSION_FAILED && !monitor->relay && !monitor->revived)
        monitor_state(monitor, session->state, session->pid);
    if (monitor->conducted)
        let_go(monitor);
}

static void kill_rest(const struct monitor *monitor)
{
    struct strings list = monitor->reap;
    for (uint32_t i = 0; i < list.count; i++)
        cgroup_kill(strings_next(&list).data);
}

/* Who brings the program back made it our child, stopped, and has ended: from now on that is the program, if all is
 * well. It waits as others do, and goes on at GO. */
static bool adopt(struct monitor *monitor, int status)
{
    struct session *session = &monitor->session;
    char text[32];
    int fd = status ? -1 : open(monitor->revived, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    text[length > 0 ? length : 0] = 0;
    monitor->revived = NULL;
    session->pid = (pid_t)strtol(text, NULL, 10);
    if (session->pid <= 0 || !start_time(monitor, session->pid)) {
        session->state = SESSION_FAILED;
        session->failure = (struct report){ .error = ECHILD };
        snprintf(session->failure.text, sizeof session->failure.text, "the program was not brought back");
        return false;
    }
    session->state = SESSION_WAITING;
    write_pid(monitor);
    monitor_state(monitor, SESSION_WAITING, session->pid);
    return true;
}

bool monitor_go_on(struct monitor *monitor)
{
    struct session *session = &monitor->session;
    if (session->state != SESSION_WAITING || session->report >= 0)
        return false;
    session->state = SESSION_STARTED;
    session_signal(session, SIGCONT);
    monitor_state(monitor, SESSION_STARTED, session->pid);
    return true;
}

/* Collect every child: the program, and as subreaper what it left behind. */
static void collect(struct monitor *monitor)
{
    struct signalfd_siginfo ignored;
    struct session *session = &monitor->session;
    int status;
    bool ended = false;
    (void)!read(monitor->signals, &ignored, sizeof ignored);
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0;) {
        background_reaped(pid);
        enter_reaped(pid);
        if (pid != session->pid || session->reaped)
            continue;
        heed(monitor);
        if (monitor->revived && session->state == SESSION_STARTED && adopt(monitor, status))
            continue;
        session_reaped(session, status);
        ended = true;
    }
    if (!ended)
        return;
    kill_rest(monitor);
    monitor->phase = DRAINING;
    monitor->last_output = monotonic_ms();
}

/* --- streams ---------------------------------------------------------------------------------------- */

void monitor_output(struct monitor *monitor, enum frame_type type, const unsigned char *bytes, size_t length)
{
    bool standard = type == FRAME_STDOUT;
    log_write(&monitor->log, standard ? "stdout" : "stderr", bytes, length);
    hub_send(&monitor->hub, 0, standard ? ATTACH_STDOUT : ATTACH_STDERR, type, bytes, length);
}

static void read_output(struct monitor *monitor, int *stream, enum frame_type type)
{
    static unsigned char chunk[CHUNK];
    ssize_t size = session_read(&monitor->session, stream, chunk, sizeof chunk);
    if (size <= 0)
        return;
    monitor->last_output = monotonic_ms();
    if (monitor->relay)
        relay_note(monitor, chunk, (size_t)size);
    else
        monitor_output(monitor, type, chunk, (size_t)size);
}

/* --- loop ------------------------------------------------------------------------------------------- */

static struct pollfd slot(int fd, short events) { return (struct pollfd){ .fd = events ? fd : -1, .events = events }; }

/* Poll reports a hang-up even when it is asked for nothing, so a client that has to wait is left out. */
static struct pollfd poll_client(const struct monitor *monitor, const struct client *client)
{
    bool stuck = client_stuck(monitor, client);
    short events = client->wire.ended || client->closing || stuck ? 0 : POLLIN;
    events |= wire_backlog(&client->wire) ? POLLOUT : 0;
    return (struct pollfd){ .fd = stuck && !events ? -1 : client->wire.fd, .events = events };
}

static size_t fill_poll(const struct monitor *monitor, struct pollfd *polls)
{
    const struct session *session = &monitor->session;
    short reading = monitor->relay || hub_has_room(&monitor->hub, 0) ? POLLIN : 0;
    polls[POLL_SIGNALS] = slot(monitor->signals, POLLIN);
    polls[POLL_LISTENER] = slot(monitor->hub.listener, monitor->hub.count < CLIENT_LIMIT ? POLLIN : 0);
    polls[POLL_REPORT] = slot(session->report, POLLIN);
    polls[POLL_INPUT] = slot(session->input, session_has_input(session) ? POLLOUT : 0);
    polls[POLL_OUTPUT] = slot(session->output, reading);
    polls[POLL_ERROR] = slot(session->error, reading);
    polls[POLL_RELAY] = monitor->relay ? relay_poll(monitor->relay) : slot(-1, 0);
    for (size_t i = 0; i < monitor->hub.count; i++) {
        polls[POLL_CLIENTS + i] = poll_client(monitor, monitor->hub.clients[i]);
    }
    return monitor->hub.count;
}

static int timeout_of(const struct monitor *monitor)
{
    if (monitor->phase == RUNNING && monitor->hub.count == CLIENT_LIMIT)
        return CROWDED_MS;
    if (monitor->phase == RUNNING)
        return monitor->relay ? relay_timeout(monitor) : -1;
    return monitor->phase == DRAINING ? QUIET_MS / 4 : LINGER_POLL_MS;
}

/* Who connects has mostly said already what it wants. */
static void receive_clients(struct monitor *monitor)
{
    size_t first = hub_accept(&monitor->hub);
    client_greet(monitor, first);
    for (size_t i = monitor->hub.count; i-- > first;)
        client_serve(monitor, i, POLLIN);
}

/* Output before the end, clients from the last to the first because one may be dropped and its slot refilled. */
static void dispatch(struct monitor *monitor, const struct pollfd *polls, size_t clients)
{
    struct session *session = &monitor->session;
    if (polls[POLL_REPORT].revents)
        heed(monitor);
    if (polls[POLL_INPUT].revents)
        session_flush(session);
    if (polls[POLL_OUTPUT].revents && session->output == polls[POLL_OUTPUT].fd)
        read_output(monitor, &session->output, FRAME_STDOUT);
    if (polls[POLL_ERROR].revents && session->error >= 0)
        read_output(monitor, &session->error, FRAME_STDERR);
    if (polls[POLL_RELAY].revents)
        relay_serve(monitor, polls[POLL_RELAY].revents);
    for (size_t i = clients; i--;)
        client_serve(monitor, i, polls[POLL_CLIENTS + i].revents);
    if (polls[POLL_SIGNALS].revents)
        collect(monitor);
    if (polls[POLL_LISTENER].revents)
        receive_clients(monitor);
}

static bool drained(struct monitor *monitor)
{
    const struct session *session = &monitor->session;
    int64_t now = monotonic_ms();
    if (!monitor->relay && !hub_has_room(&monitor->hub, 0))
        monitor->last_output = now;
    bool ended = session->output < 0 && session->error < 0 && (!monitor->relay || relay_ended(monitor->relay));
    return ended || now - monitor->last_output > QUIET_MS;
}

static bool directory_is_gone(const struct monitor *monitor)
{
    struct stat status;
    return fstat(monitor->directory, &status) < 0 || status.st_nlink == 0;
}

static void advance(struct monitor *monitor)
{
    if (monitor->phase == DRAINING && drained(monitor))
        ending_tell(monitor);
    hub_flush(&monitor->hub, monitor->phase == RUNNING ? 0 : PATIENCE_MS);
    if (monitor->relay) /* after the flush: room it made is credit for the guest, and nothing else would wake us */
        relay_advance(monitor);
    client_make_room(monitor);
    bool wanted = monitor->linger && !monitor->served && !directory_is_gone(monitor);
    if (monitor->phase == TOLD && !monitor->hub.count && !wanted && enter_idle())
        monitor->phase = DONE;
}

static void loop(struct monitor *monitor)
{
    struct pollfd polls[POLL_CLIENTS + CLIENT_LIMIT];
    while (monitor->phase != DONE) {
        size_t clients = fill_poll(monitor, polls);
        if (poll(polls, POLL_CLIENTS + clients, timeout_of(monitor)) > 0)
            dispatch(monitor, polls, clients);
        advance(monitor);
    }
}

/* --- start ------------------------------------------------------------------------------------------ */

static int detach(struct monitor *monitor)
{
    static const int ignored[] = { SIGPIPE, SIGHUP, SIGINT, SIGTERM, SIGQUIT };
    sigset_t set;
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        signal(ignored[i], SIG_IGN);
    setsid();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < 3; fd++)
        if (null < 0 || dup2(null, fd) < 0)
            return -1;
    if (null > 2)
        close(null);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    monitor->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    monitor->proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    prctl(PR_SET_NAME, "trivet-monitor");
    return monitor->signals < 0 ? -1 : prctl(PR_SET_CHILD_SUBREAPER, 1);
}

static int open_directory(struct monitor *monitor, const char *path)
{
    monitor->directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (monitor->directory < 0 || fchdir(monitor->directory) < 0)
        return refuse(monitor->executor, errno, "monitor directory %s", path);
    unlink("exit");
    unlink("pid");
    if (hub_listen(&monitor->hub, "monitor.sock") < 0)
        return refuse(monitor->executor, errno, "listen at %s/monitor.sock", path);
    return chdir("/");
}

static int open_monitor(struct monitor *monitor, const struct plan *plan)
{
    struct cursor fields;
    monitor->executor->index = plan_find(plan, CODE_MONITOR, &fields);
    const char *directory = take_text(&fields), *log = take_text(&fields);
    int64_t limit = take_integer(&fields);
    int files = (int)take_integer(&fields);
    monitor->linger = take_integer(&fields);
    monitor->reap = take_strings(&fields);
    if (detach(monitor) < 0 || open_directory(monitor, directory) < 0)
        return -1;
    if (log_open(&monitor->log, log, limit, files) < 0)
        return refuse(monitor->executor, errno, "log %s", log);
    monitor->oom_kills = ending_oom_kills(monitor);
    if (plan_find(plan, CODE_REVIVE, &fields) < plan->count)
        monitor->revived = take_text(&fields);
    return relay_open(monitor, plan);
}

int monitor_take(struct monitor *monitor, const struct plan *plan)
{
    struct cursor fields;
    if (plan_find(plan, CODE_MONITOR, &fields) == plan->count)
        return refuse(monitor->executor, EINVAL, "a plan without a monitor");
    const char *directory = take_text(&fields), *log = take_text(&fields);
    int64_t limit = take_integer(&fields);
    int files = (int)take_integer(&fields);
    take_integer(&fields);
    int opened = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (opened < 0)
        return refuse(monitor->executor, errno, "monitor directory %s", directory);
    if (log_open(&monitor->log, log, limit, files) < 0) {
        int error = errno;
        close(opened);
        return refuse(monitor->executor, error, "log %s", log);
    }
    close(monitor->directory);
    monitor->directory = opened;
    monitor->reap = take_strings(&fields);
    monitor->oom_kills = ending_oom_kills(monitor);
    ending_reserve(monitor);
    return 0;
}

static int fail(struct monitor *monitor)
{
    struct executor *executor = monitor->executor;
    int error = errno;
    background_kill();
    kill_rest(monitor);
    ending_failure(monitor, executor->index, error, executor->text);
    if (monitor->directory >= 0 || monitor->entered)
        ending_tell(monitor);
    else
        say(&monitor->report, FRAME_FAILED, monitor->ending, monitor->ending_size);
    return SETUP_FAILED;
}

int monitor_main(struct executor *executor, const struct plan *plan, int report)
{
    static struct monitor monitor;
    monitor = (struct monitor){ .executor = executor, .report = report, .directory = -1 };
    monitor.session.report = monitor.session.input = monitor.session.output = monitor.session.error = -1;
    monitor.log.fd = -1;
    executor->waits = true;
    monitor.conducted = executor->conductor >= 0;
    if (open_monitor(&monitor, plan) < 0 || session_start(&monitor.session, executor, plan, false) < 0)
        return fail(&monitor);
    if (executor->given >= 0)
        close(executor->given);
    descriptors_close(executor);
    write_pid(&monitor);
    loop(&monitor);
    background_kill();
    return monitor.ending_type == FRAME_FAILED ? SETUP_FAILED : 0;
}

void monitor_serve(struct monitor *monitor, const void *bytes, size_t length)
{
    struct plan plan;
    if (plan_open(monitor->executor, &plan, bytes, length) < 0
        || session_start(&monitor->session, monitor->executor, &plan, false) < 0)
        fail(monitor);
    else
        client_serve(monitor, 0, 0); /* what it said behind its request was read with it */
    loop(monitor);
    background_kill();
    _exit(0);
}
