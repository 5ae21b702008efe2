/* The monitor's loop: one program, its log, its clients, its end. */
#include "monitor.h"
#include "cgroup.h"
#include "frame.h"
#include "hub.h"
#include "kernel.h"
#include "log.h"
#include "session.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { QUIET_MS = 2000, PATIENCE_MS = 5000, LINGER_POLL_MS = 2000, CHUNK = 32768, SETUP_FAILED = 125 };

/* RUNNING ─(program reaped)─▶ DRAINING ─(output ended)─▶ TOLD ─(clients gone)─▶ DONE */
enum phase { RUNNING, DRAINING, TOLD, DONE };

struct monitor {
    struct executor *executor;
    struct session session;
    struct hub hub;
    struct log log;
    enum phase phase;
    int directory, proc, signals, report;
    bool linger, served;
    struct strings reap;
    int64_t oom_kills;
    int64_t last_output; /* while draining, monotonic ms */
    unsigned char ending[FRAME_FAILED_SIZE + TEXT_SIZE]; /* payload of EXIT or FAILED */
    size_t ending_size;
};

/* Slots of the poll array before the clients'. */
enum { POLL_SIGNALS, POLL_LISTENER, POLL_REPORT, POLL_INPUT, POLL_OUTPUT, POLL_ERROR, POLL_CLIENTS };

/* --- files of the monitor's directory --------------------------------------------------------------- */

static void write_file(const struct monitor *monitor, const char *name, const char *text)
{
    int fd = openat(monitor->directory, "new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return;
    bool whole = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    if (whole)
        renameat(monitor->directory, "new", monitor->directory, name);
}

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
}

/* --- telling ---------------------------------------------------------------------------------------- */

static size_t pack_failure(unsigned char *payload, uint32_t index, int error, const char *text)
{
    size_t length = strnlen(text, TEXT_SIZE - 1);
    frame_set32(payload, index);
    frame_set32(payload + 4, (uint32_t)error);
    memcpy(payload + FRAME_FAILED_SIZE, text, length);
    return FRAME_FAILED_SIZE + length;
}

/* The report is read once by whoever started us; a pipe that is gone is nobody's loss. */
static void say(int *report, enum frame_type type, const void *payload, size_t length)
{
    struct wire wire;
    if (*report < 0)
        return;
    wire_init(&wire, *report);
    if (wire_put(&wire, type, 0, payload, length) == 0)
        wire_flush(&wire);
    wire_close(&wire);
    *report = -1;
}

void report_failure(int fd, const struct executor *executor)
{
    unsigned char payload[FRAME_FAILED_SIZE + TEXT_SIZE];
    const char *text = executor->text[0] ? executor->text : strerror(errno);
    say(&fd, FRAME_FAILED, payload, pack_failure(payload, executor->index, errno, text));
}

static enum frame_type ending_type(const struct monitor *monitor)
{
    return monitor->session.state == SESSION_FAILED ? FRAME_FAILED : FRAME_EXIT;
}

/* A client that comes after the end hears of it and is let go. */
static void greet(struct monitor *monitor, size_t first)
{
    char text[96];
    const char *state = monitor->phase >= TOLD ? "exited" : monitor->session.state == SESSION_STARTED ? "running" : "created";
    int length = snprintf(text, sizeof text, "{\"version\":1,\"state\":\"%s\",\"pid\":%d}", state, monitor->session.pid);
    for (size_t i = first; i < monitor->hub.count; i++) {
        struct client *client = monitor->hub.clients[i];
        wire_put(&client->wire, FRAME_HELLO, 0, text, (size_t)length);
        if (monitor->phase < TOLD)
            continue;
        wire_put(&client->wire, ending_type(monitor), 0, monitor->ending, monitor->ending_size);
        client->closing = monitor->served = true;
    }
}

/* --- the program's life ----------------------------------------------------------------------------- */

static void on_state(struct monitor *monitor)
{
    struct session *session = &monitor->session;
    unsigned char pid[4];
    frame_set32(pid, (uint32_t)session->pid);
    switch (session->state) {
    case SESSION_SETUP:
        break;
    case SESSION_WAITING:
        say(&monitor->report, FRAME_READY, NULL, 0);
        break;
    case SESSION_STARTED:
        say(&monitor->report, FRAME_STARTED, pid, sizeof pid);
        hub_send(&monitor->hub, 0, 0, FRAME_STARTED, pid, sizeof pid);
        break;
    case SESSION_FAILED:
        kill(session->reaped ? 0x7fffffff : session->pid, SIGKILL);
        break;
    }
}

static int64_t count_oom_kills(const struct monitor *monitor)
{
    struct strings list = monitor->reap;
    int64_t count = 0;
    for (uint32_t i = 0; i < list.count; i++)
        count += cgroup_oom_kills(strings_next(&list).data);
    return count;
}

static void kill_rest(const struct monitor *monitor)
{
    struct strings list = monitor->reap;
    for (uint32_t i = 0; i < list.count; i++)
        cgroup_kill(strings_next(&list).data);
}

/* Collect every child: the program, and as subreaper what it left behind. */
static void on_child(struct monitor *monitor)
{
    struct signalfd_siginfo ignored;
    int status;
    bool ended = false;
    (void)!read(monitor->signals, &ignored, sizeof ignored);
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0;) {
        if (pid != monitor->session.pid || monitor->session.reaped)
            continue;
        enum session_state before = monitor->session.state;
        session_reaped(&monitor->session, status);
        if (monitor->session.state != before)
            on_state(monitor);
        ended = true;
    }
    if (!ended)
        return;
    kill_rest(monitor);
    monitor->phase = DRAINING;
    monitor->last_output = monotonic_ms();
}

static void compose_exit(struct monitor *monitor)
{
    char text[96];
    struct session *session = &monitor->session;
    uint32_t flags = count_oom_kills(monitor) > monitor->oom_kills ? EXIT_OUT_OF_MEMORY : 0;
    frame_exit(monitor->ending, session->status, session->time_ns, flags);
    monitor->ending_size = FRAME_EXIT_SIZE;
    snprintf(text, sizeof text, "%u %u %lld %u\n", frame_get32(monitor->ending), frame_get32(monitor->ending + 4),
             (long long)session->time_ns, flags);
    write_file(monitor, "exit", text);
}

static void compose_failure(struct monitor *monitor)
{
    char text[TEXT_SIZE + 64];
    struct report *failure = &monitor->session.failure;
    if (!failure->text[0])
        snprintf(failure->text, sizeof failure->text, "%s", strerror(failure->error));
    for (char *at = failure->text; *at; at++)
        if (*at == '\n')
            *at = ' ';
    monitor->ending_size = pack_failure(monitor->ending, failure->index, failure->error, failure->text);
    snprintf(text, sizeof text, "failed %u %d %s\n", failure->index, failure->error, failure->text);
    write_file(monitor, "exit", text);
}

/* The exit file first: who sees our socket close may rely on it. */
static void tell_end(struct monitor *monitor)
{
    if (monitor->session.state == SESSION_FAILED)
        compose_failure(monitor);
    else
        compose_exit(monitor);
    session_close(&monitor->session);
    monitor->phase = TOLD;
    if (monitor->report >= 0) { /* failed before anybody could connect */
        say(&monitor->report, ending_type(monitor), monitor->ending, monitor->ending_size);
        monitor->served = true;
    }
    hub_send(&monitor->hub, 0, 0, ending_type(monitor), monitor->ending, monitor->ending_size);
    for (size_t i = 0; i < monitor->hub.count; i++)
        monitor->hub.clients[i]->closing = monitor->served = true;
}

/* --- streams ---------------------------------------------------------------------------------------- */

static void on_output(struct monitor *monitor, int *stream, enum frame_type type)
{
    static unsigned char chunk[CHUNK];
    ssize_t size = session_read(&monitor->session, stream, chunk, sizeof chunk);
    if (size <= 0)
        return;
    bool standard = type == FRAME_STDOUT;
    log_write(&monitor->log, standard ? "stdout" : "stderr", chunk, (size_t)size);
    hub_send(&monitor->hub, 0, standard ? ATTACH_STDOUT : ATTACH_STDERR, type, chunk, (size_t)size);
    monitor->last_output = monotonic_ms();
}

static int on_frame(struct monitor *monitor, struct client *client, const struct frame *frame)
{
    if (frame->type == FRAME_ATTACH && frame->length == 4) {
        client->attached = true;
        client->wants = frame_get32(frame->payload);
        return 0;
    }
    if (!client->attached)
        return -1;
    switch (frame->type) {
    case FRAME_GO:
        return session_go(&monitor->session) < 0 ? -1 : 0;
    case FRAME_STDIN:
        return client->wants & ATTACH_STDIN ? session_write(&monitor->session, frame->payload, frame->length) : 0;
    case FRAME_RESIZE:
        if (frame->length == 4)
            session_resize(&monitor->session, frame_get16(frame->payload), frame_get16(frame->payload + 2));
        return frame->length == 4 ? 0 : -1;
    case FRAME_SIGNAL:
        if (frame->length == 4)
            session_signal(&monitor->session, (int)frame_get32(frame->payload));
        return frame->length == 4 ? 0 : -1;
    default:
        return -1;
    }
}

/* Handle whole frames; input waits here while the program has not taken what came before. */
static int serve(struct monitor *monitor, struct client *client)
{
    struct frame frame;
    int found;
    while ((found = wire_peek(&client->wire, &frame)) > 0) {
        if (frame.type == FRAME_STDIN && session_has_input(&monitor->session))
            return 0;
        if (on_frame(monitor, client, &frame) < 0)
            return -1;
        wire_drop(&client->wire, &frame);
    }
    return found;
}

static bool input_stuck(const struct monitor *monitor, const struct client *client)
{
    struct frame frame;
    return session_has_input(&monitor->session) && wire_peek(&client->wire, &frame) > 0;
}

static void on_client(struct monitor *monitor, size_t index, short events)
{
    struct client *client = monitor->hub.clients[index];
    if (events & POLLIN)
        wire_fill(&client->wire);
    if (serve(monitor, client) < 0 || (events & (POLLHUP | POLLERR)))
        hub_drop(&monitor->hub, index);
}

/* --- loop ------------------------------------------------------------------------------------------- */

static struct pollfd slot(int fd, short events) { return (struct pollfd){ .fd = events ? fd : -1, .events = events }; }

static size_t fill_poll(const struct monitor *monitor, struct pollfd *polls)
{
    const struct session *session = &monitor->session;
    short reading = hub_has_room(&monitor->hub, 0) ? POLLIN : 0;
    polls[POLL_SIGNALS] = slot(monitor->signals, POLLIN);
    polls[POLL_LISTENER] = slot(monitor->hub.listener, monitor->hub.count < CLIENT_LIMIT ? POLLIN : 0);
    polls[POLL_REPORT] = slot(session->report, POLLIN);
    polls[POLL_INPUT] = slot(session->input, session_has_input(session) ? POLLOUT : 0);
    polls[POLL_OUTPUT] = slot(session->output, reading);
    polls[POLL_ERROR] = slot(session->error, reading);
    for (size_t i = 0; i < monitor->hub.count; i++) {
        const struct client *client = monitor->hub.clients[i];
        short events = client->wire.ended || input_stuck(monitor, client) ? 0 : POLLIN;
        events |= wire_backlog(&client->wire) ? POLLOUT : 0;
        polls[POLL_CLIENTS + i] = (struct pollfd){ .fd = client->wire.fd, .events = events };
    }
    return monitor->hub.count;
}

static int timeout_of(const struct monitor *monitor)
{
    return monitor->phase == RUNNING ? -1 : monitor->phase == DRAINING ? QUIET_MS / 4 : LINGER_POLL_MS;
}

static void dispatch(struct monitor *monitor, const struct pollfd *polls, size_t clients)
{
    if (polls[POLL_REPORT].revents && session_heed(&monitor->session))
        on_state(monitor);
    if (polls[POLL_INPUT].revents)
        session_flush(&monitor->session);
    if (polls[POLL_OUTPUT].revents && monitor->session.output == polls[POLL_OUTPUT].fd)
        on_output(monitor, &monitor->session.output, FRAME_STDOUT);
    if (polls[POLL_ERROR].revents && monitor->session.error >= 0)
        on_output(monitor, &monitor->session.error, FRAME_STDERR);
    for (size_t i = clients; i--;)
        if (polls[POLL_CLIENTS + i].revents || !session_has_input(&monitor->session))
            on_client(monitor, i, polls[POLL_CLIENTS + i].revents);
    if (polls[POLL_SIGNALS].revents)
        on_child(monitor);
    if (polls[POLL_LISTENER].revents)
        greet(monitor, hub_accept(&monitor->hub));
}

static bool drained(struct monitor *monitor)
{
    const struct session *session = &monitor->session;
    int64_t now = monotonic_ms();
    if (!hub_has_room(&monitor->hub, 0))
        monitor->last_output = now;
    return (session->output < 0 && session->error < 0) || now - monitor->last_output > QUIET_MS;
}

static bool directory_is_gone(const struct monitor *monitor)
{
    struct stat status;
    return fstat(monitor->directory, &status) < 0 || status.st_nlink == 0;
}

static void advance(struct monitor *monitor)
{
    if (monitor->phase == DRAINING && drained(monitor))
        tell_end(monitor);
    hub_flush(&monitor->hub, monitor->phase == RUNNING ? 0 : PATIENCE_MS);
    if (monitor->phase == TOLD && !monitor->hub.count && (monitor->served || !monitor->linger || directory_is_gone(monitor)))
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
    monitor->oom_kills = count_oom_kills(monitor);
    return 0;
}

static int fail(struct monitor *monitor)
{
    struct executor *executor = monitor->executor;
    monitor->session.state = SESSION_FAILED;
    monitor->session.failure = (struct report){ .index = executor->index, .error = errno };
    memcpy(monitor->session.failure.text, executor->text, TEXT_SIZE);
    background_kill();
    if (monitor->directory >= 0) {
        kill_rest(monitor);
        compose_failure(monitor);
    }
    report_failure(monitor->report, executor);
    return SETUP_FAILED;
}

int monitor_main(struct executor *executor, const struct plan *plan, int report)
{
    static struct monitor monitor;
    monitor = (struct monitor){ .executor = executor, .report = report, .directory = -1 };
    monitor.log.fd = monitor.session.report = -1;
    executor->waits = true;
    if (open_monitor(&monitor, plan) < 0 || session_start(&monitor.session, executor, plan, false) < 0)
        return fail(&monitor);
    write_pid(&monitor);
    loop(&monitor);
    background_kill();
    return monitor.session.state == SESSION_FAILED ? SETUP_FAILED : 0;
}
