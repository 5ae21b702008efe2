/* The guest agent: PID 1 of a machine. It loads the modules, finds its port, and runs sessions as it is told.
 *
 *     boot ─▶ HELLO ─▶ HOST, START (session 0) ─▶ ... its EXIT or FAILED ─▶ REST ─▶ (power off)
 *         ▲     │        EXEC (sessions 1...) meanwhile
 *      CALL     ▼
 *     a template was made of the machine here: those forked from it go on by saying HELLO when they are called
 *
 *     HOLD ─▶ HELD ─▶ RELEASE: nothing is said in between, so that the machine can be saved where no frame is half said
 *               └──▶ CALL ─▶ ADOPTED ─▶ HOST: in a copy that begins there, and whose program stands still until GO
 *
 * Started with the argument "probe" it says so on the console and powers off: the guest has booted.
 */
#include "agent_boot.h"
#include "frame.h"
#include "kernel.h"
#include "session.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    SLOT_LIMIT = 128,
    CHUNK = 32768,
    BACKLOG_LIMIT = 4 * FRAME_MAXIMUM,
    DRAIN_MS = 2000, /* how long output that nobody ends is waited for after the program has ended */
    REST_S = 2,      /* how long a monitor may take to end us */
    POLLS = 4,       /* per slot: report, input, output, error */
    KEPT = 32768,    /* of each buffer: to map and unmap memory for a frame is much code for a fork to translate */
};

struct slot {
    bool used;
    uint16_t number;
    struct session session;
    size_t credit;                /* output bytes the other side still takes */
    unsigned char *input;         /* STDIN that the session has not taken yet, at most FRAME_WINDOW */
    size_t input_at, input_end;
    size_t offered;               /* bytes the session took and has not passed on */
    bool input_ends;
    int64_t quiet_since;          /* last output, CLOCK_MONOTONIC ms */
};

static struct slot slots[SLOT_LIMIT];
static struct wire wire;
static bool finished; /* session 0 has ended and said so */
static bool on_hold;  /* nothing is said, and nobody is listened to but the host */

static const char hello[] = "{\"version\": 1, \"state\": \"created\", \"pid\": 0}";
static const char group_events[] = "/sys/fs/cgroup/program/memory.events";
static const char group_freeze[] = "/sys/fs/cgroup/program/cgroup.freeze";
static const char program_link[] = "/run/program";

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static struct slot *slot_of(uint16_t number)
{
    for (size_t i = 0; i < SLOT_LIMIT; i++)
        if (slots[i].used && slots[i].number == number)
            return &slots[i];
    return NULL;
}

static void put(enum frame_type type, uint16_t number, const void *payload, size_t length)
{
    if (wire_put(&wire, type, number, payload, length) < 0)
        power_off("out of memory");
}

static void put_number(enum frame_type type, uint16_t number, uint32_t value)
{
    unsigned char payload[4];
    frame_set32(payload, value);
    put(type, number, payload, sizeof payload);
}

static void release(struct slot *slot)
{
    finished = finished || slot->number == 0;
    session_close(&slot->session);
    free(slot->input);
    *slot = (struct slot){ 0 };
}

/* --- what is said about a session ------------------------------------------------------------------- */

static void say_failed(uint16_t number, uint32_t index, int error, const char *text)
{
    unsigned char payload[FRAME_FAILED_SIZE + TEXT_SIZE];
    size_t length = strnlen(text, TEXT_SIZE);
    frame_set32(payload, index);
    frame_set32(payload + 4, (uint32_t)error);
    memcpy(payload + FRAME_FAILED_SIZE, text, length);
    put(FRAME_FAILED, number, payload, FRAME_FAILED_SIZE + length);
}

static uint32_t out_of_memory(const struct slot *slot)
{
    char text[512];
    unsigned long kills = 0;
    if (!WIFSIGNALED(slot->session.status) || WTERMSIG(slot->session.status) != SIGKILL)
        return 0;
    if (read_text(group_events, text, sizeof text) > 0) {
        const char *line = strstr(text, "oom_kill ");
        kills = line ? strtoul(line + strlen("oom_kill "), NULL, 10) : 0;
    }
    return kills ? EXIT_OUT_OF_MEMORY : 0;
}

static void say_exit(struct slot *slot)
{
    unsigned char payload[FRAME_EXIT_SIZE];
    frame_exit(payload, slot->session.status, slot->session.time_ns, out_of_memory(slot));
    put(FRAME_EXIT, slot->number, payload, sizeof payload);
}

static void heed(struct slot *slot)
{
    if (!session_heed(&slot->session))
        return;
    const struct report *failure = &slot->session.failure;
    switch (slot->session.state) {
    case SESSION_WAITING:
        put(FRAME_READY, slot->number, NULL, 0);
        break;
    case SESSION_STARTED:
        put_number(FRAME_STARTED, slot->number, (uint32_t)slot->session.pid);
        break;
    case SESSION_FAILED:
        say_failed(slot->number, failure->index, failure->error, failure->text);
        break;
    default:
        break;
    }
}

/* --- what is asked ---------------------------------------------------------------------------------- */

/* Operations before Spawn run here, in the agent: so do the setns calls of `Join`, which only decide where the
 * next child is born (pid_namespaces(7)); every session that joins anything joins the same program's. */
static void start(uint16_t number, const unsigned char *bytes, size_t length)
{
    struct executor executor;
    struct plan plan;
    struct slot *slot = NULL;
    const struct slot *first = slot_of(0);
    for (size_t i = 0; i < SLOT_LIMIT && !slot; i++)
        slot = slots[i].used ? NULL : &slots[i];
    executor_init(&executor);
    executor.waits = true;
    executor.program = first ? first->session.pid : 0;
    if (!slot || (number && finished)) {
        say_failed(number, 0, slot ? ESRCH : EAGAIN, slot ? "the program has ended" : "too many sessions");
        return;
    }
    *slot = (struct slot){ .used = true, .number = number, .credit = FRAME_WINDOW };
    if (plan_open(&executor, &plan, bytes, length) < 0 || session_start(&slot->session, &executor, &plan, false) < 0) {
        say_failed(number, executor.index, errno, executor.text);
        slot->session.report = slot->session.input = slot->session.output = slot->session.error = -1;
        release(slot);
        return;
    }
    slot->quiet_since = now_ms();
    if (!number)
        link_process(program_link, slot->session.pid);
}

static void take_input(struct slot *slot, const unsigned char *bytes, size_t length)
{
    size_t held = slot->input_end - slot->input_at;
    if (!length) {
        slot->input_ends = true;
        return;
    }
    if (held + length > FRAME_WINDOW)
        power_off("the monitor sent more input than it may");
    unsigned char *grown = malloc(held + length);
    if (!grown)
        power_off("out of memory");
    if (held)
        memcpy(grown, slot->input + slot->input_at, held);
    memcpy(grown + held, bytes, length);
    free(slot->input);
    slot->input = grown;
    slot->input_at = 0;
    slot->input_end = held + length;
}

/* Hand queued input to the session piece by piece; what it has passed on to the program is credited. */
static void pass_input(struct slot *slot)
{
    struct session *session = &slot->session;
    while (!session_has_input(session)) {
        if (slot->offered)
            put_number(FRAME_CREDIT, slot->number, (uint32_t)slot->offered);
        size_t held = slot->input_end - slot->input_at;
        slot->offered = held < CHUNK ? held : CHUNK;
        if (slot->offered) {
            session_write(session, slot->input + slot->input_at, slot->offered);
            slot->input_at += slot->offered;
            continue;
        }
        if (slot->input_ends)
            session_write(session, NULL, 0);
        slot->input_ends = false;
        break;
    }
}

/* We are a copy: programs that were added belong to clients of the original. What the program was given to read and
 * has not read is told, as it counts against the window. */
static void adopt(void)
{
    size_t unread = 0;
    write_text(group_freeze, "1");
    for (size_t i = 0; i < SLOT_LIMIT; i++) {
        struct slot *slot = &slots[i];
        if (!slot->used)
            continue;
        if (slot->number) {
            session_signal(&slot->session, SIGKILL);
            release(slot);
            continue;
        }
        slot->credit = FRAME_WINDOW;
        unread = slot->input_end - slot->input_at + slot->offered;
    }
    put_number(FRAME_ADOPTED, 0, (uint32_t)unread);
}

static void hold(bool on)
{
    on_hold = on;
    if (on_hold)
        put(FRAME_HELD, 0, NULL, 0);
}

static void go(struct slot *slot)
{
    if (slot->number == 0 && slot->session.state == SESSION_STARTED)
        write_text(group_freeze, "0");
    else
        session_go(&slot->session);
}

static void on_host(const struct frame *frame)
{
    const unsigned char *payload = frame->payload;
    if (frame->length != FRAME_HOST_SIZE)
        return;
    heed_host(frame_get32(payload) | (uint64_t)frame_get32(payload + 4) << 32, payload + 8);
    on_hold = false;
}

static void handle(const struct frame *frame)
{
    struct slot *slot = slot_of(frame->session);
    const unsigned char *payload = frame->payload;
    if (frame->type == FRAME_CALL && on_hold)
        adopt();
    else if (frame->type == FRAME_CALL)
        put(FRAME_HELLO, 0, hello, sizeof hello - 1);
    else if (frame->type == FRAME_HOST)
        on_host(frame);
    else if (frame->type == FRAME_HOLD || frame->type == FRAME_RELEASE)
        hold(frame->type == FRAME_HOLD);
    if (frame->type == FRAME_START || frame->type == FRAME_EXEC) {
        if (!slot)
            start(frame->session, payload, frame->length);
        return;
    }
    if (!slot)
        return; /* it has ended, and the other side will hear of it */
    if (frame->type == FRAME_GO)
        go(slot);
    else if (frame->type == FRAME_STDIN)
        take_input(slot, payload, frame->length);
    else if (frame->type == FRAME_RESIZE && frame->length >= 4)
        session_resize(&slot->session, frame_get16(payload), frame_get16(payload + 2));
    else if (frame->type == FRAME_SIGNAL && frame->length >= 4)
        session_signal(&slot->session, (int)frame_get32(payload));
    else if (frame->type == FRAME_CREDIT && frame->length >= 4)
        slot->credit += frame_get32(payload);
    else if (frame->type == FRAME_CLOSE)
        session_signal(&slot->session, SIGKILL);
}

static void listen_to_host(void)
{
    struct frame frame;
    int filled = wire_fill(&wire), found;
    while ((found = wire_peek(&wire, &frame)) > 0) {
        handle(&frame);
        wire_drop(&wire, &frame);
    }
    if (found < 0 || filled < 0)
        power_off("the monitor has gone");
}

/* --- output and ends -------------------------------------------------------------------------------- */

/* Whether the host lets us read on: it owes credit, or has not taken what was sent. */
static bool has_room(const struct slot *slot)
{
    return slot->credit && wire_backlog(&wire) <= BACKLOG_LIMIT;
}

static void pass_output(struct slot *slot, int *stream, enum frame_type type)
{
    static unsigned char bytes[CHUNK];
    size_t room = slot->credit < sizeof bytes ? slot->credit : sizeof bytes;
    if (*stream < 0 || !has_room(slot))
        return;
    ssize_t length = session_read(&slot->session, stream, bytes, room);
    if (length <= 0)
        return;
    put(type, slot->number, bytes, (size_t)length);
    slot->credit -= (size_t)length;
    slot->quiet_since = now_ms();
}

static void reap(int signals)
{
    struct signalfd_siginfo info;
    int status;
    pid_t pid;
    while (read(signals, &info, sizeof info) > 0)
        ;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (size_t i = 0; i < SLOT_LIMIT; i++)
            if (slots[i].used && slots[i].session.pid == pid && !slots[i].session.reaped) {
                heed(&slots[i]);
                session_reaped(&slots[i].session, status);
            }
}

static bool has_ended(struct slot *slot)
{
    const struct session *session = &slot->session;
    if (!session->reaped)
        return false;
    if (session->output < 0 && session->error < 0)
        return true;
    if (!has_room(slot)) /* a slow host is not a quiet program: what waits in the pipe is not lost */
        slot->quiet_since = now_ms();
    return now_ms() - slot->quiet_since > DRAIN_MS;
}

static void settle(struct slot *slot)
{
    if (slot->session.state == SESSION_FAILED && slot->session.reaped) {
        release(slot);
    } else if (has_ended(slot)) {
        say_exit(slot);
        release(slot);
    }
}

/* --- loop ------------------------------------------------------------------------------------------- */

static void watch_slot(const struct slot *slot, struct pollfd polls[POLLS])
{
    const struct session *session = &slot->session;
    bool used = slot->used && !on_hold, room = used && has_room(slot);
    polls[0] = (struct pollfd){ .fd = used ? session->report : -1, .events = POLLIN };
    polls[1] = (struct pollfd){ .fd = used && session_has_input(session) ? session->input : -1, .events = POLLOUT };
    polls[2] = (struct pollfd){ .fd = room ? session->output : -1, .events = POLLIN };
    polls[3] = (struct pollfd){ .fd = room ? session->error : -1, .events = POLLIN };
}

static void serve_slot(struct slot *slot, const struct pollfd polls[POLLS])
{
    if (polls[0].revents)
        heed(slot);
    if (polls[1].revents)
        session_flush(&slot->session);
    pass_input(slot);
    if (polls[2].revents)
        pass_output(slot, &slot->session.output, FRAME_STDOUT);
    if (polls[3].revents)
        pass_output(slot, &slot->session.error, FRAME_STDERR);
}

/* While a program has ended and its output has not, nobody wakes us: look again now and then. */
static int patience(void)
{
    for (size_t i = 0; i < SLOT_LIMIT; i++)
        if (slots[i].used && slots[i].session.reaped && !on_hold)
            return DRAIN_MS / 8;
    return -1;
}

static void serve(int signals)
{
    static struct pollfd polls[2 + SLOT_LIMIT * POLLS];
    polls[0] = (struct pollfd){ .fd = wire.fd, .events = POLLIN | (wire_backlog(&wire) ? POLLOUT : 0) };
    polls[1] = (struct pollfd){ .fd = on_hold ? -1 : signals, .events = POLLIN };
    for (size_t i = 0; i < SLOT_LIMIT; i++)
        watch_slot(&slots[i], polls + 2 + i * POLLS);
    if (poll(polls, 2 + SLOT_LIMIT * POLLS, patience()) < 0 && errno != EINTR)
        power_off("poll");
    if (polls[0].revents & POLLIN)
        listen_to_host();
    else if (polls[0].revents & POLLHUP)
        power_off("the monitor has gone");
    for (size_t i = 0; i < SLOT_LIMIT; i++)
        if (slots[i].used && !on_hold)
            serve_slot(&slots[i], polls + 2 + i * POLLS);
    if (polls[1].revents && !on_hold)
        reap(signals);
    for (size_t i = 0; i < SLOT_LIMIT; i++)
        if (slots[i].used && !on_hold)
            settle(&slots[i]);
    if (wire_flush(&wire) < 0)
        power_off("the port is broken");
}

static int catch_children(void)
{
    sigset_t children;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Switching off takes a kernel, an emulated one most of all, longer than being ended does. */
static _Noreturn void rest(int signals)
{
    sync();
    put(FRAME_REST, 0, NULL, 0);
    while (wire_backlog(&wire))
        serve(signals);
    sleep(REST_S);
    power_off(NULL);
}

int main(int count, char **arguments)
{
    boot();
    if (count > 1 && !strcmp(arguments[count - 1], "probe"))
        power_off("probe");
    int signals = catch_children();
    wire_init(&wire, open_port("org.trivet.agent.0"));
    if (wire_keep(&wire, KEPT) < 0)
        power_off("out of memory");
    put(FRAME_HELLO, 0, hello, sizeof hello - 1);
    while (!finished || wire_backlog(&wire))
        serve(signals);
    rest(signals);
}
