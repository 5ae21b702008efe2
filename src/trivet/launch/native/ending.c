/* How a program ended, or why it never began: said to the starter, to clients, and to the exit file. */
#include "cgroup.h"
#include "monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A file with room for any ending, taken while there is some: how it ended must be told on a full disk, too. */
void ending_reserve(const struct monitor *monitor)
{
    static const char room[TEXT_SIZE + 64];
    int fd = openat(monitor->directory, "new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return;
    (void)!write(fd, room, sizeof room);
    close(fd);
}

/* By rename, so that a reader sees all or nothing. */
void write_file(const struct monitor *monitor, const char *name, const char *text)
{
    int fd = openat(monitor->directory, "new", O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return;
    ssize_t length = (ssize_t)strlen(text);
    bool whole = write(fd, text, (size_t)length) == length && ftruncate(fd, length) == 0;
    close(fd);
    if (whole)
        renameat(monitor->directory, "new", monitor->directory, name);
}

static size_t pack_failure(unsigned char *payload, uint32_t index, int error, const char *text)
{
    size_t length = strnlen(text, TEXT_SIZE - 1);
    frame_set32(payload, index);
    frame_set32(payload + 4, (uint32_t)error);
    memcpy(payload + FRAME_FAILED_SIZE, text, length);
    return FRAME_FAILED_SIZE + length;
}

/* The report is read once by whoever started us; a pipe that is gone is nobody's loss. */
void say(int *report, enum frame_type type, const void *payload, size_t length)
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
    int error = errno;
    const char *text = executor->text[0] ? executor->text : strerror(error);
    say(&fd, FRAME_FAILED, payload, pack_failure(payload, executor->index, error, text));
}

void ending_failure(struct monitor *monitor, uint32_t index, int error, const char *text)
{
    monitor->ending_type = FRAME_FAILED;
    monitor->ending_size = pack_failure(monitor->ending, index, error, *text ? text : strerror(error));
    for (size_t i = FRAME_FAILED_SIZE; i < monitor->ending_size; i++)
        if (monitor->ending[i] == '\n')
            monitor->ending[i] = ' ';
}

void ending_exit(struct monitor *monitor, const unsigned char payload[FRAME_EXIT_SIZE])
{
    monitor->ending_type = FRAME_EXIT;
    monitor->ending_size = FRAME_EXIT_SIZE;
    memcpy(monitor->ending, payload, FRAME_EXIT_SIZE);
}

int64_t ending_oom_kills(const struct monitor *monitor)
{
    struct strings list = monitor->reap;
    int64_t count = 0;
    for (uint32_t i = 0; i < list.count; i++)
        count += cgroup_oom_kills(strings_next(&list).data);
    return count;
}

/* Nobody said how it ended: take it from the child. A machine that went without a word counts as killed. */
static void conclude(struct monitor *monitor)
{
    const struct session *session = &monitor->session;
    unsigned char payload[FRAME_EXIT_SIZE];
    if (session->state == SESSION_FAILED) {
        ending_failure(monitor, session->failure.index, session->failure.error, session->failure.text);
        return;
    }
    if (monitor->relay && monitor->report >= 0) {
        ending_failure(monitor, 0, ECHILD, "the machine ended before its agent was ready");
        return;
    }
    frame_exit(payload, monitor->relay ? SIGKILL : session->status, session->time_ns,
               ending_oom_kills(monitor) > monitor->oom_kills ? EXIT_OUT_OF_MEMORY : 0);
    ending_exit(monitor, payload);
}

static void write_ending(const struct monitor *monitor, bool without_word)
{
    const unsigned char *payload = monitor->ending;
    char text[TEXT_SIZE + 64];
    if (monitor->ending_type == FRAME_FAILED)
        snprintf(text, sizeof text, "failed %u %d %.*s\n", frame_get32(payload), (int)frame_get32(payload + 4),
                 (int)(monitor->ending_size - FRAME_FAILED_SIZE), (const char *)payload + FRAME_FAILED_SIZE);
    else
        snprintf(text, sizeof text, "%u %u %llu %u%s\n", frame_get32(payload), frame_get32(payload + 4),
                 frame_get32(payload + 8) | (unsigned long long)frame_get32(payload + 12) << 32,
                 frame_get32(payload + 16), without_word ? " machine ended" : "");
    write_file(monitor, "exit", text);
}

/* The exit file first: who sees our socket close may rely on it. */
void ending_tell(struct monitor *monitor)
{
    bool without_word = monitor->relay && !monitor->ending_type;
    if (!monitor->ending_type)
        conclude(monitor);
    if (!monitor->entered)
        write_ending(monitor, without_word);
    session_close(&monitor->session);
    monitor->phase = TOLD;
    if (monitor->report >= 0) { /* before anybody could connect */
        say(&monitor->report, monitor->ending_type, monitor->ending, monitor->ending_size);
        monitor->served = true;
    }
    hub_send(&monitor->hub, 0, 0, monitor->ending_type, monitor->ending, monitor->ending_size);
    for (size_t i = 0; i < monitor->hub.count; i++)
        monitor->hub.clients[i]->closing = monitor->served = true;
}
