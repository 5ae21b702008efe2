/* The verbs of a container's life, where nothing is unusual about it. */
#include "frame.h"
#include "front.h"
#include "kernel.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { PATIENCE = 120000 }; /* milliseconds */

int verb_state(const struct wish *wish)
{
    struct container container;
    if (!container_find(&container, wish))
        return HAND_OVER;
    printf("%s\"status\": \"%s\",\n  \"pid\": %d,%s", container.head, container.status, container.pid, container.tail);
    return fflush(stdout) ? 1 : 0;
}

/* A signal by its number or its name; 0 for one that is not in the table, which isn't to say that there is none. */
static int signal_number(const char *text)
{
    static const struct {
        const char *name;
        int number;
    } names[] = {
        { "TERM", SIGTERM }, { "KILL", SIGKILL }, { "INT", SIGINT },   { "QUIT", SIGQUIT }, { "HUP", SIGHUP },
        { "USR1", SIGUSR1 }, { "USR2", SIGUSR2 }, { "STOP", SIGSTOP }, { "CONT", SIGCONT }, { "WINCH", SIGWINCH },
    };
    char *end;
    long number = *text >= '0' && *text <= '9' ? strtol(text, &end, 10) : 0;
    if (number)
        return !*end && number < _NSIG ? (int)number : 0;
    if (!strncasecmp(text, "SIG", 3))
        text += 3;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcasecmp(text, names[i].name))
            return names[i].number;
    return 0;
}

int verb_kill(const struct wish *wish)
{
    struct container container;
    int number = signal_number(wish->count > 1 ? wish->words[1] : "TERM");
    if (!number || !container_find(&container, wish) || !container.pid)
        return HAND_OVER;
    int fd = sys_pidfd_open(container.pid);
    if (fd < 0 || !container_lives(&container) || sys_pidfd_send_signal(fd, number) < 0)
        return HAND_OVER;
    return 0;
}

/* Connect to the monitor that holds the program back. */
static int call_monitor(const struct container *container)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int length = snprintf(address.sun_path, sizeof address.sun_path, "%s/monitor.sock", container->directory);
    int fd = length < (int)sizeof address.sun_path ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;
    if (fd >= 0 && !connect(fd, (struct sockaddr *)&address, sizeof address))
        return fd;
    return -1; /* the descriptor lives no longer than we do */
}

/* Wait for the next frame. False at the end, or when nothing is said for too long. */
static bool hear(struct wire *wire, struct frame *frame)
{
    struct pollfd readable = { .fd = wire->fd, .events = POLLIN };
    int found;
    while (!(found = wire_peek(wire, frame)))
        if (wire->ended || poll(&readable, 1, PATIENCE) <= 0 || wire_fill(wire) < 0)
            return wire_peek(wire, frame) > 0;
    return found > 0;
}

int verb_start(const struct wish *wish)
{
    struct container container;
    struct wire wire;
    struct frame frame;
    if (!container_find(&container, wish) || strcmp(container.status, "created") || !container.plain_start)
        return HAND_OVER;
    wire_init(&wire, call_monitor(&container));
    if (wire.fd < 0 || !hear(&wire, &frame) || frame.type != FRAME_HELLO)
        return HAND_OVER;
    wire_drop(&wire, &frame);
    const unsigned char nothing[4] = { 0 };
    if (wire_put(&wire, FRAME_ATTACH, 0, nothing, sizeof nothing) < 0 || wire_put(&wire, FRAME_GO, 0, NULL, 0) < 0
        || wire_flush(&wire) < 0)
        return HAND_OVER;
    while (hear(&wire, &frame)) {
        if (frame.type == FRAME_FAILED)
            return HAND_OVER; /* the exit file says why, and who can read that has the words */
        wire_drop(&wire, &frame);
    }
    return wire.ended ? 0 : HAND_OVER;
}

/* Tell whether a directory holds nothing but files and an empty root/. */
static bool only_files(const char *path)
{
    DIR *directory = opendir(path);
    if (!directory)
        return false;
    bool found = true;
    for (struct dirent *entry; (entry = readdir(directory));)
        if (entry->d_type == DT_SOCK || entry->d_type == DT_UNKNOWN)
            found = false; /* a monitor may live */
        else if (entry->d_type == DT_DIR && *entry->d_name != '.' && strcmp(entry->d_name, "root"))
            found = false;
    closedir(directory);
    return found;
}

bool remove_directory(const char *path)
{
    DIR *directory = opendir(path);
    if (!directory)
        return errno == ENOENT;
    for (struct dirent *entry; (entry = readdir(directory));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            unlinkat(dirfd(directory), entry->d_name, entry->d_type == DT_DIR ? AT_REMOVEDIR : 0);
    closedir(directory);
    return !rmdir(path) || errno == ENOENT;
}

int verb_delete(const struct wish *wish)
{
    struct container container;
    if (!container_find(&container, wish) || *container.status != 's' || !container.plain_delete)
        return HAND_OVER;
    if (!container.group_count || !only_files(container.directory))
        return HAND_OVER;
    for (int i = 0; i < container.group_count; i++)
        if (rmdir(container.groups[i]) < 0 && errno != ENOENT)
            return HAND_OVER; /* somebody lives there, or died a moment ago */
    return remove_directory(container.directory) ? 0 : HAND_OVER;
}
