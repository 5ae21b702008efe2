/* The conversation with a guest agent over QEMU's virtio-serial port, on behalf of clients.
 *
 * A lane is one session in the guest. In both directions at most FRAME_WINDOW bytes are under way on it:
 * input leaves a client's socket only against the agent's CREDIT, and the agent gets CREDIT for output
 * once nobody who listens has much queued. So a client that stalls stops its own lane, not its neighbours'.
 *
 * A client may HOLD the conversation while it saves the machine: then nothing is under way in either direction until
 * it says RELEASE, or has gone. A machine that begins as a copy of a saved one is CALLed to go on from there; what it
 * has to change, as it isn't the original, is done by a session of its own before the program goes on.
 *
 * A spare machine has no program yet. Whoever made it has sessions run in it, stays connected, for a spare that nobody
 * holds is ended, and some time says whose machine it is to BECOME.
 */
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LANE_LIMIT = 128, POWER_OFF_MS = 5000, NOTES_LIMIT = 1 << 20, NEVER = 0, BEGINS_COPY = 2, BEGINS_SPARE = 3 };
enum { SPARE_SETUP_MS = 120000, SPARE_ALONE_MS = 5000 };

struct lane {
    bool used;
    uint16_t number;
    uint32_t credit; /* input bytes the agent still takes */
    uint32_t owed;   /* output bytes taken from the agent and not credited yet */
    bool ready, begun; /* READY and STARTED were said: a guest can't say them twice */
    bool left;         /* its client has gone while the conversation was held */
};

struct relay {
    struct wire wire;
    struct bytes payload; /* session 0's plan; a copy's changes */
    bool started;
    bool copy;          /* of a machine whose program runs */
    bool spare;         /* nobody's yet */
    bool became;        /* and who made it hears how its program is set up */
    uint16_t changing;  /* the session that makes a copy's changes */
    const struct client *holder;
    struct lane lanes[LANE_LIMIT];
    uint16_t last_number;
    int64_t deadline; /* when QEMU is killed, monotonic ms; NEVER while nothing asks for it */
    int notes;        /* what QEMU itself prints */
    size_t noted;
};

static struct lane *lane_of(const struct relay *relay, uint16_t number)
{
    for (size_t i = 0; i < LANE_LIMIT; i++)
        if (relay->lanes[i].used && relay->lanes[i].number == number)
            return (struct lane *)&relay->lanes[i];
    return NULL;
}

static struct lane *lane_add(struct relay *relay, uint16_t number)
{
    for (size_t i = 0; i < LANE_LIMIT; i++)
        if (!relay->lanes[i].used) {
            relay->lanes[i] = (struct lane){ .used = true, .number = number, .credit = FRAME_WINDOW };
            return &relay->lanes[i];
        }
    return NULL;
}

int relay_open(struct monitor *monitor, const struct plan *plan)
{
    static struct relay relay;
    struct cursor fields;
    int pair[2];
    if (plan_find(plan, CODE_RELAY, &fields) == plan->count)
        return 0;
    monitor->executor->given_number = (int)take_integer(&fields);
    relay.payload = take_bytes(&fields);
    int64_t begins = take_integer(&fields);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    fcntl(pair[0], F_SETFL, O_RDWR | O_NONBLOCK);
    wire_init(&relay.wire, pair[0]);
    monitor->executor->given = pair[1];
    relay.notes = openat(monitor->directory, "machine.log", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    monitor->relay = &relay;
    relay.copy = begins == BEGINS_COPY;
    relay.spare = begins == BEGINS_SPARE;
    if (begins && wire_put(&relay.wire, FRAME_CALL, 0, NULL, 0) < 0)
        return -1;
    return lane_add(&relay, 0) ? 0 : -1;
}

void relay_note(struct monitor *monitor, const unsigned char *bytes, size_t length)
{
    struct relay *relay = monitor->relay;
    if (relay->noted + length > NOTES_LIMIT)
        return;
    relay->noted += length;
    (void)!write(relay->notes, bytes, length);
}

/* --- from clients ----------------------------------------------------------------------------------- */

static int pass(struct relay *relay, uint16_t number, const struct frame *frame)
{
    return wire_put(&relay->wire, (enum frame_type)frame->type, number, frame->payload, frame->length);
}

static uint16_t free_number(struct relay *relay)
{
    do
        relay->last_number++;
    while (!relay->last_number || lane_of(relay, relay->last_number));
    return relay->last_number;
}

static int open_session(struct monitor *monitor, struct client *client, const struct frame *frame)
{
    struct relay *relay = monitor->relay;
    if (client->attached || client->session)
        return -1;
    bool ready = relay->spare ? monitor->state == SESSION_WAITING : monitor->state == SESSION_STARTED;
    if (!ready || monitor->ending_type) {
        client_refuse(client, 0, ESRCH, "the instance is not running");
        return 0;
    }
    uint16_t number = free_number(relay);
    if (!lane_add(relay, number)) {
        client_refuse(client, 0, EAGAIN, "too many sessions");
        return 0;
    }
    client->session = number;
    client->attached = true;
    client->wants = ATTACH_STDIN | ATTACH_STDOUT | ATTACH_STDERR;
    return pass(relay, number, frame);
}

bool relay_accepts(const struct relay *relay, const struct client *client, const struct frame *frame)
{
    if (relay->holder)
        return client == relay->holder || frame->type == FRAME_ATTACH;
    if (frame->type != FRAME_STDIN)
        return true;
    const struct lane *lane = lane_of(relay, client->session);
    return !lane || lane->credit >= frame->length;
}

/* SIGKILL must work also on a guest that boots or hangs: if the agent can't, QEMU goes. */
static void mind_kill(struct monitor *monitor, const struct client *client, const struct frame *frame)
{
    if (client->session || frame->length != 4 || frame_get32(frame->payload) != SIGKILL)
        return;
    if (monitor->state != SESSION_STARTED)
        session_signal(&monitor->session, SIGKILL);
    else if (monitor->relay->deadline == NEVER)
        monitor->relay->deadline = monotonic_ms() + POWER_OFF_MS;
}

static int hold(struct monitor *monitor, struct client *client)
{
    if (monitor->state != SESSION_STARTED || monitor->ending_type) {
        client_refuse(client, 0, ESRCH, "the instance is not running");
        return 0;
    }
    monitor->relay->holder = client;
    return wire_put(&monitor->relay->wire, FRAME_HOLD, 0, NULL, 0);
}

static int begin(struct relay *relay);

/* Whose directory, log and program these are is said once; the words are kept as the launcher's plan is. */
static int become(struct monitor *monitor, struct client *client, const struct frame *frame)
{
    static unsigned char *words;
    struct relay *relay = monitor->relay;
    struct cursor fields;
    struct plan plan;
    if (!relay->spare || monitor->state != SESSION_WAITING || monitor->ending_type || client->session)
        return -1;
    if (!(words = malloc(frame->length)))
        return -1;
    memcpy(words, frame->payload, frame->length);
    if (plan_open(monitor->executor, &plan, words, frame->length) < 0
        || plan_find(&plan, CODE_RELAY, &fields) == plan.count || monitor_take(monitor, &plan) < 0) {
        client_refuse(client, 0, errno, monitor->executor->text);
        session_signal(&monitor->session, SIGKILL);
        return 0;
    }
    take_integer(&fields);
    relay->payload = take_bytes(&fields);
    relay->spare = false;
    relay->became = true;
    relay->deadline = NEVER;
    monitor->state = SESSION_SETUP;
    return begin(relay);
}

static void let_go(struct relay *relay)
{
    relay->holder = NULL;
    wire_put(&relay->wire, FRAME_RELEASE, 0, NULL, 0);
    for (size_t i = 0; i < LANE_LIMIT; i++)
        if (relay->lanes[i].used && relay->lanes[i].left)
            wire_put(&relay->wire, FRAME_CLOSE, relay->lanes[i].number, NULL, 0);
}

/* A copy's program has begun long ago, and only stands still. */
static int go(struct monitor *monitor, const struct lane *lane, const struct frame *frame)
{
    if (!lane->number && monitor->relay->copy && monitor->state == SESSION_WAITING)
        monitor_state(monitor, SESSION_STARTED, monitor->session.pid);
    return pass(monitor->relay, lane->number, frame);
}

int relay_ask(struct monitor *monitor, struct client *client, const struct frame *frame)
{
    struct lane *lane = lane_of(monitor->relay, client->session);
    if (frame->type == FRAME_EXEC)
        return open_session(monitor, client, frame);
    if (frame->type == FRAME_HOLD)
        return hold(monitor, client);
    if (frame->type == FRAME_BECOME)
        return become(monitor, client, frame);
    if (frame->type == FRAME_RELEASE && client == monitor->relay->holder) {
        let_go(monitor->relay);
        return 0;
    }
    if (!client->attached)
        return -1;
    if (!lane)
        return 0; /* it has ended, and the client will hear of it */
    switch (frame->type) {
    case FRAME_STDIN:
        if (!(client->wants & ATTACH_STDIN))
            return 0;
        lane->credit -= frame->length;
        return pass(monitor->relay, lane->number, frame);
    case FRAME_SIGNAL:
        mind_kill(monitor, client, frame);
        return pass(monitor->relay, lane->number, frame);
    case FRAME_GO:
        return go(monitor, lane, frame);
    case FRAME_RESIZE:
        return pass(monitor->relay, lane->number, frame);
    default:
        return -1;
    }
}

void relay_close_client(struct monitor *monitor, const struct client *client)
{
    struct relay *relay = monitor->relay;
    if (!relay)
        return;
    if (client == relay->holder)
        let_go(relay);
    struct lane *lane = client->session ? lane_of(relay, client->session) : NULL;
    if (lane && relay->holder)
        lane->left = true;
    else if (lane)
        wire_put(&relay->wire, FRAME_CLOSE, client->session, NULL, 0);
}

/* --- from the agent --------------------------------------------------------------------------------- */

static void end_lane(struct monitor *monitor, struct lane *lane, const struct frame *frame)
{
    struct hub *hub = &monitor->hub;
    hub_send(hub, lane->number, 0, (enum frame_type)frame->type, frame->payload, frame->length);
    for (size_t i = 0; i < hub->count; i++)
        if (hub->clients[i]->session == lane->number)
            hub->clients[i]->closing = true;
    lane->used = false;
}

/* The program's own end is told when QEMU has let go of disks and interfaces. */
static void end_program(struct monitor *monitor, const struct frame *frame)
{
    char text[TEXT_SIZE] = "";
    if (frame->type == FRAME_EXIT && frame->length == FRAME_EXIT_SIZE) {
        ending_exit(monitor, frame->payload);
    } else if (frame->type == FRAME_FAILED && frame->length >= FRAME_FAILED_SIZE) {
        size_t length = frame->length - FRAME_FAILED_SIZE;
        memcpy(text, frame->payload + FRAME_FAILED_SIZE, length < sizeof text ? length : sizeof text - 1);
        ending_failure(monitor, frame_get32(frame->payload), (int)frame_get32(frame->payload + 4), text);
    }
    monitor->relay->deadline = monotonic_ms() + POWER_OFF_MS;
}

static void on_program(struct monitor *monitor, const struct frame *frame)
{
    if (frame->type == FRAME_READY) {
        monitor_state(monitor, SESSION_WAITING, 0);
        if (monitor->relay->became)
            hub_send(&monitor->hub, 0, 0, FRAME_READY, NULL, 0);
    } else if (frame->type == FRAME_STARTED)
        monitor_state(monitor, SESSION_STARTED, monitor->session.pid);
    else
        end_program(monitor, frame);
}

static int on_output(struct monitor *monitor, struct lane *lane, const struct frame *frame)
{
    bool standard = frame->type == FRAME_STDOUT;
    lane->owed += frame->length;
    if (lane->owed > FRAME_WINDOW)
        return -1;
    if (lane->number == 0)
        monitor_output(monitor, (enum frame_type)frame->type, frame->payload, frame->length);
    else
        hub_send(&monitor->hub, lane->number, standard ? ATTACH_STDOUT : ATTACH_STDERR, (enum frame_type)frame->type,
                 frame->payload, frame->length);
    return 0;
}

static int on_credit(struct lane *lane, const struct frame *frame)
{
    uint32_t credit = frame->length == 4 ? frame_get32(frame->payload) : UINT32_MAX;
    if (credit > FRAME_WINDOW - lane->credit)
        return -1;
    lane->credit += credit;
    return 0;
}

/* The changes are made, or can't be: then this copy must not go on as the original. */
static int on_change(struct monitor *monitor, struct lane *lane, const struct frame *frame)
{
    struct relay *relay = monitor->relay;
    if (frame->type == FRAME_READY)
        return wire_put(&relay->wire, FRAME_GO, lane->number, NULL, 0);
    if (frame->type == FRAME_STARTED)
        return 0;
    lane->used = false;
    relay->changing = 0;
    if (frame->type == FRAME_EXIT && frame->length == FRAME_EXIT_SIZE && !frame_get32(frame->payload)) {
        monitor_state(monitor, SESSION_WAITING, 0);
        return 0;
    }
    if (frame->type == FRAME_FAILED)
        end_program(monitor, frame);
    else
        ending_failure(monitor, 0, EIO, "the copy cannot be told who it is");
    return -1;
}

static int on_progress(struct monitor *monitor, struct lane *lane, const struct frame *frame)
{
    bool *said = frame->type == FRAME_READY ? &lane->ready : &lane->begun;
    if (*said)
        return -1;
    *said = true;
    if (lane->number == 0)
        on_program(monitor, frame);
    else
        hub_send(&monitor->hub, lane->number, 0, (enum frame_type)frame->type, frame->payload, frame->length);
    return 0;
}

static int on_end(struct monitor *monitor, struct lane *lane, const struct frame *frame)
{
    if (lane->number != 0)
        end_lane(monitor, lane, frame);
    else if (monitor->ending_type)
        return -1;
    else
        on_program(monitor, frame);
    return 0;
}

static int tell_host(struct relay *relay);

/* A copy tells how much it was given that its program has not read: that is no room for more. */
static int on_adopted(struct monitor *monitor, const struct frame *frame)
{
    struct relay *relay = monitor->relay;
    struct lane *lane = lane_of(relay, 0);
    uint32_t unread = frame->length == 4 ? frame_get32(frame->payload) : UINT32_MAX;
    if (!relay->copy || relay->started || unread > FRAME_WINDOW || !lane || tell_host(relay) < 0)
        return -1;
    relay->started = lane->ready = lane->begun = true;
    lane->credit = FRAME_WINDOW - unread;
    if (!relay->payload.length) {
        monitor_state(monitor, SESSION_WAITING, 0);
        return 0;
    }
    relay->changing = free_number(relay);
    if (!lane_add(relay, relay->changing))
        return -1;
    return wire_put(&relay->wire, FRAME_EXEC, relay->changing, relay->payload.data, relay->payload.length);
}

static int on_held(const struct relay *relay)
{
    struct client *holder = (struct client *)relay->holder;
    return holder ? wire_put(&holder->wire, FRAME_HELD, 0, NULL, 0) : 0; /* it has gone meanwhile */
}

/* What a guest can't know, or shares with those forked from the same template: the time, and what is random. */
static int tell_host(struct relay *relay)
{
    unsigned char payload[FRAME_HOST_SIZE];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t time = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    frame_set32(payload, (uint32_t)time);
    frame_set32(payload + 4, (uint32_t)(time >> 32));
    if (getrandom(payload + 8, FRAME_SEED_SIZE, 0) != FRAME_SEED_SIZE
        || wire_put(&relay->wire, FRAME_HOST, 0, payload, sizeof payload) < 0)
        return -1;
    return 0;
}

static int begin(struct relay *relay)
{
    if (tell_host(relay) < 0)
        return -1;
    return wire_put(&relay->wire, FRAME_START, 0, relay->payload.data, relay->payload.length);
}

static int stand_by(struct monitor *monitor)
{
    monitor->relay->deadline = NEVER;
    monitor_state(monitor, SESSION_WAITING, 0);
    return tell_host(monitor->relay);
}

/* The guest may be hostile: what it says is bounded by credit, or can be said once. */
static int on_agent(struct monitor *monitor, const struct frame *frame)
{
    struct relay *relay = monitor->relay;
    struct lane *lane = lane_of(relay, frame->session);
    if (frame->type == FRAME_HELLO) {
        int again = relay->started || relay->copy ? -1 : 0;
        relay->started = true;
        return again ? again : relay->spare ? stand_by(monitor) : begin(relay);
    }
    if (frame->type == FRAME_REST) {
        if (!monitor->ending_type)
            return -1;
        session_signal(&monitor->session, SIGKILL);
        return 0;
    }
    if (frame->type == FRAME_ADOPTED)
        return on_adopted(monitor, frame);
    if (frame->type == FRAME_HELD)
        return on_held(relay);
    if (!lane)
        return 0;
    if (relay->changing && lane->number == relay->changing && frame->type != FRAME_STDOUT
        && frame->type != FRAME_STDERR && frame->type != FRAME_CREDIT)
        return on_change(monitor, lane, frame);
    switch (frame->type) {
    case FRAME_STDOUT:
    case FRAME_STDERR:
        return on_output(monitor, lane, frame);
    case FRAME_CREDIT:
        return on_credit(lane, frame);
    case FRAME_READY:
    case FRAME_STARTED:
        return on_progress(monitor, lane, frame);
    case FRAME_EXIT:
    case FRAME_FAILED:
        return on_end(monitor, lane, frame);
    default:
        return -1;
    }
}

/* A guest that breaks the rules is not listened to any more; its machine is ended. */
void relay_serve(struct monitor *monitor, short events)
{
    struct relay *relay = monitor->relay;
    struct frame frame;
    int found = 0, filled = 0;
    if (events & (POLLIN | POLLHUP))
        filled = wire_fill(&relay->wire);
    while ((found = wire_peek(&relay->wire, &frame)) > 0) {
        if ((found = on_agent(monitor, &frame)) < 0)
            break;
        wire_drop(&relay->wire, &frame);
    }
    if (found < 0 || filled < 0) {
        wire_close(&relay->wire);
        session_signal(&monitor->session, SIGKILL);
    }
}

/* --- loop ------------------------------------------------------------------------------------------- */

bool relay_ended(const struct relay *relay) { return relay->wire.fd < 0; }

struct pollfd relay_poll(const struct relay *relay)
{
    short events = (short)(POLLIN | (wire_backlog(&relay->wire) ? POLLOUT : 0));
    return (struct pollfd){ .fd = relay->wire.fd, .events = events };
}

int relay_timeout(const struct monitor *monitor)
{
    if (monitor->relay->deadline == NEVER)
        return -1;
    int64_t left = monitor->relay->deadline - monotonic_ms();
    return left > 0 ? (int)left + 1 : 0;
}

/* Whoever makes a spare may die at any moment, also before he is connected. */
static void mind_spare(struct monitor *monitor)
{
    struct relay *relay = monitor->relay;
    if (monitor->hub.count)
        relay->deadline = NEVER;
    else if (relay->deadline == NEVER)
        relay->deadline = monotonic_ms() + (monitor->state == SESSION_WAITING ? SPARE_ALONE_MS : SPARE_SETUP_MS);
}

void relay_advance(struct monitor *monitor)
{
    struct relay *relay = monitor->relay;
    unsigned char payload[4];
    for (size_t i = 0; i < LANE_LIMIT && relay->wire.fd >= 0; i++) {
        struct lane *lane = &relay->lanes[i];
        if (wire_backlog(&relay->wire) > BACKLOG_LIMIT) /* an agent that sends and never reads gets no credit */
            break;
        if (relay->holder || !lane->used || !lane->owed || !hub_has_room(&monitor->hub, lane->number))
            continue;
        frame_set32(payload, lane->owed);
        wire_put(&relay->wire, FRAME_CREDIT, lane->number, payload, sizeof payload);
        lane->owed = 0;
    }
    if (relay->wire.fd >= 0)
        wire_flush(&relay->wire);
    if (relay->spare)
        mind_spare(monitor);
    if (relay->deadline != NEVER && monotonic_ms() >= relay->deadline) {
        session_signal(&monitor->session, SIGKILL);
        relay->deadline = monotonic_ms() + POWER_OFF_MS;
    }
}
