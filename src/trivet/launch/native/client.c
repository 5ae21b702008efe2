/* What clients of the monitor's socket ask for. */
#include "monitor.h"

#include <stdio.h>
#include <string.h>

static const char *state_word(const struct monitor *monitor)
{
    return monitor->phase >= TOLD ? "exited" : monitor->state == SESSION_STARTED ? "running" : "created";
}

/* A client that comes after the end hears of it and is let go. */
void client_greet(struct monitor *monitor, size_t first)
{
    char text[112];
    int length = snprintf(text, sizeof text, "{\"version\":1,\"state\":\"%s\",\"pid\":%d,\"enters\":%s}",
                          state_word(monitor), monitor->session.pid, monitor->relay ? "false" : "true");
    for (size_t i = first; i < monitor->hub.count; i++) {
        struct client *client = monitor->hub.clients[i];
        wire_put(&client->wire, FRAME_HELLO, 0, text, (size_t)length);
        if (monitor->phase < TOLD)
            continue;
        wire_put(&client->wire, monitor->ending_type, 0, monitor->ending, monitor->ending_size);
        client->closing = monitor->served = true;
    }
}

void client_refuse(struct client *client, uint32_t index, int error, const char *text)
{
    unsigned char payload[FRAME_FAILED_SIZE + TEXT_SIZE];
    size_t length = strnlen(text, TEXT_SIZE);
    frame_set32(payload, index);
    frame_set32(payload + 4, (uint32_t)error);
    memcpy(payload + FRAME_FAILED_SIZE, text, length);
    wire_put(&client->wire, FRAME_FAILED, 0, payload, FRAME_FAILED_SIZE + length);
    client->closing = true;
}

static int ask_session(struct session *session, const struct client *client, const struct frame *frame)
{
    switch (frame->type) {
    case FRAME_GO:
        session_go(session);
        return 0;
    case FRAME_STDIN:
        return client->wants & ATTACH_STDIN ? session_write(session, frame->payload, frame->length) : 0;
    case FRAME_RESIZE:
        if (frame->length != 4)
            return -1;
        session_resize(session, frame_get16(frame->payload), frame_get16(frame->payload + 2));
        return 0;
    case FRAME_SIGNAL: /* one that has died meanwhile is no mistake of the client's */
        if (frame->length != 4)
            return -1;
        session_signal(session, (int)frame_get32(frame->payload));
        return 0;
    default:
        return -1;
    }
}

static int on_frame(struct monitor *monitor, struct client *client, const struct frame *frame)
{
    if (frame->type == FRAME_ATTACH && frame->length == 4) {
        client->attached = true;
        client->wants = frame_get32(frame->payload);
        return 0;
    }
    if (monitor->relay)
        return relay_ask(monitor, client, frame);
    if (frame->type == FRAME_ENTER)
        return client->attached ? -1 : enter_open(monitor, client, frame);
    if (client->attached && frame->type == FRAME_GO && monitor_go_on(monitor))
        return 0;
    return client->attached ? ask_session(&monitor->session, client, frame) : -1;
}

/* Input waits in the client's buffer, and so in its socket, while the program has not taken what came before. */
static bool must_wait(const struct monitor *monitor, const struct client *client, const struct frame *frame)
{
    if (monitor->relay)
        return !relay_accepts(monitor->relay, client, frame);
    return frame->type == FRAME_STDIN && session_has_input(&monitor->session);
}

bool client_stuck(const struct monitor *monitor, const struct client *client)
{
    struct frame frame;
    return wire_peek(&client->wire, &frame) > 0 && must_wait(monitor, client, &frame);
}

/* To one that was refused what it asked for, what it said behind that means nothing. */
static int serve_frames(struct monitor *monitor, struct client *client)
{
    struct frame frame;
    int found = 0;
    while (!client->closing && (found = wire_peek(&client->wire, &frame)) > 0) {
        if (must_wait(monitor, client, &frame))
            return 0;
        if (on_frame(monitor, client, &frame) < 0)
            return -1;
        wire_drop(&client->wire, &frame);
    }
    return found;
}

/* When every place is taken, one that has left gives up its own, with what the program has not taken yet. */
void client_make_room(struct monitor *monitor)
{
    struct hub *hub = &monitor->hub;
    for (size_t i = 0; hub->count == CLIENT_LIMIT && i < hub->count; i++) {
        struct pollfd end = { .fd = hub->clients[i]->wire.fd };
        if (poll(&end, 1, 0) <= 0 || !(end.revents & (POLLHUP | POLLERR)))
            continue;
        relay_close_client(monitor, hub->clients[i]);
        hub_drop(hub, i);
    }
}

/* One that has left is forgotten when all it said was heard. */
void client_serve(struct monitor *monitor, size_t index, short events)
{
    struct client *client = monitor->hub.clients[index];
    struct frame begun;
    if (events & POLLIN && wire_fill(&client->wire) > 0 && wire_peek(&client->wire, &begun) == 0)
        wire_fill(&client->wire); /* now that its length is known */
    bool broken = serve_frames(monitor, client) < 0;
    bool left = events & (POLLHUP | POLLERR) && client->wire.ended && !client_stuck(monitor, client);
    if (!broken && !left)
        return;
    relay_close_client(monitor, client);
    hub_drop(&monitor->hub, index);
}
