/* The clients of a monitor's socket. */
#include "hub.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

int hub_listen(struct hub *hub, const char *name)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    *hub = (struct hub){ .listener = -1 };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    strncpy(address.sun_path, name, sizeof address.sun_path - 1);
    unlink(name);
    mode_t mask = umask(0177);
    int result = bind(fd, (struct sockaddr *)&address, sizeof address);
    umask(mask);
    if (result < 0 || listen(fd, CLIENT_LIMIT) < 0)
        return -1;
    hub->listener = fd;
    return 0;
}

static struct client *add(struct hub *hub, int fd)
{
    struct client *client = calloc(1, sizeof *client);
    if (!client)
        return NULL;
    wire_init(&client->wire, fd);
    client->moved = monotonic_ms();
    return hub->clients[hub->count++] = client;
}

struct client *hub_take(struct hub *hub, int fd)
{
    struct stat status;
    if (hub->count == CLIENT_LIMIT || fstat(fd, &status) < 0 || !S_ISSOCK(status.st_mode)
        || fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0)
        return NULL;
    return add(hub, fd);
}

size_t hub_accept(struct hub *hub)
{
    size_t first = hub->count;
    while (hub->count < CLIENT_LIMIT) {
        int fd = accept4(hub->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            break;
        if (!add(hub, fd)) {
            close(fd);
            break;
        }
    }
    return first;
}

void hub_drop(struct hub *hub, size_t index)
{
    wire_close(&hub->clients[index]->wire);
    free(hub->clients[index]);
    hub->clients[index] = hub->clients[--hub->count];
}

void hub_send(struct hub *hub, uint16_t session, uint32_t wants, enum frame_type type, const void *payload, size_t length)
{
    for (size_t i = 0; i < hub->count; i++) {
        struct client *client = hub->clients[i];
        if (client->session != session || client->closing || client->deaf || (wants && !(client->wants & wants)))
            continue;
        if (wire_put(&client->wire, type, 0, payload, length) < 0)
            client->closing = true;
    }
}

bool hub_has_room(const struct hub *hub, uint16_t session)
{
    for (size_t i = 0; i < hub->count; i++)
        if (hub->clients[i]->session == session && hub->clients[i]->attached
            && wire_backlog(&hub->clients[i]->wire) > BACKLOG_LIMIT)
            return false;
    return true;
}

void hub_flush(struct hub *hub, int64_t patience)
{
    int64_t now = monotonic_ms();
    for (size_t i = hub->count; i--;) {
        struct client *client = hub->clients[i];
        size_t before = wire_backlog(&client->wire);
        if (wire_flush(&client->wire) < 0)
            client->deaf = true;
        size_t after = wire_backlog(&client->wire);
        if (after != before || !after)
            client->moved = now;
        bool stalled = patience && after && now - client->moved > patience;
        if (stalled || (client->closing && !after))
            hub_drop(hub, i);
    }
}

bool hub_idle(const struct hub *hub)
{
    for (size_t i = 0; i < hub->count; i++)
        if (wire_backlog(&hub->clients[i]->wire))
            return false;
    return true;
}
