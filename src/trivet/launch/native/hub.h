/* The clients of a monitor's socket: who is connected, who is attached, and what is queued for whom. */
#ifndef TRIVET_HUB_H
#define TRIVET_HUB_H

#include "frame.h"

#include <poll.h>

enum { CLIENT_LIMIT = 64, BACKLOG_LIMIT = 256 << 10 };

struct client {
    struct wire wire;
    bool attached, closing; /* closing: goes when its queue is empty */
    bool deaf;              /* reads no more, but may have said something that waits to be read */
    uint32_t wants;         /* ATTACH_* */
    uint16_t session;       /* relay: 0 the instance's own program, else one that EXEC opened */
    int64_t moved;          /* when its queue last moved, or was empty (monotonic ms) */
};

struct hub {
    int listener;
    struct client *clients[CLIENT_LIMIT];
    size_t count;
};

/* Listen at `name` in the working directory. */
int hub_listen(struct hub *hub, const char *name);

/* Take a connection that somebody else opened as a client's; NULL if it is no socket, or there is no room. */
struct client *hub_take(struct hub *hub, int fd);

/* Accept everyone who waits; returns the first new client's index, or `count`. */
size_t hub_accept(struct hub *hub);

/* Queue a frame for every client of `session` (attached to that stream, if `wants` is not 0). */
void hub_send(struct hub *hub, uint16_t session, uint32_t wants, enum frame_type type, const void *payload, size_t length);

/* Nobody who listens to this session has too much queued. */
bool hub_has_room(const struct hub *hub, uint16_t session);

/* Write what can be written; forget clients that are stalled for `patience` ms (0: never), or done. */
void hub_flush(struct hub *hub, int64_t patience);

void hub_drop(struct hub *hub, size_t index);
bool hub_idle(const struct hub *hub);

int64_t monotonic_ms(void);

#endif
