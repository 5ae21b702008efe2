/* Further programs: the monitor makes a copy of itself for each, and the copy serves the client that asked.
 *
 * So a further program costs no new launcher, and it is certain whose namespaces it joins: the program's, which this
 * monitor has not reaped. A copy has nothing of the monitor's but that client. It ends with the monitor at the latest.
 */
#include "kernel.h"
#include "monitor.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

/* A frame begins with the key of the launcher that its plan was made for. */
enum { COPY_LIMIT = 256, KEY_SIZE = 32, GONE = 125 };

#define NO_OPERATION UINT32_MAX /* nothing of the plan was carried out */

static pid_t copies[COPY_LIMIT];
static size_t copy_count;

void enter_reaped(pid_t pid)
{
    for (size_t i = 0; i < copy_count; i++)
        if (copies[i] == pid)
            copies[i] = copies[--copy_count];
}

bool enter_idle(void) { return !copy_count; }

static bool is_ours(const struct frame *frame)
{
    const char *key = getenv("TRIVET_LAUNCHER");
    return key && strlen(key) == KEY_SIZE && frame->length >= KEY_SIZE && !memcmp(frame->payload, key, KEY_SIZE);
}

/* Nobody is to be surprised by a program long after giving up on it. */
static bool has_left(const struct client *client)
{
    struct pollfd end = { .fd = client->wire.fd, .events = POLLRDHUP };
    return poll(&end, 1, 0) > 0;
}

/* Close every descriptor from 3 on but these. */
static void close_but(const int *kept, size_t count)
{
    unsigned from = 3;
    for (;;) {
        unsigned next = ~0u;
        for (size_t i = 0; i < count; i++)
            if (kept[i] >= (int)from && (unsigned)kept[i] < next)
                next = (unsigned)kept[i];
        if (next > from)
            sys_close_range(from, next == ~0u ? next : next - 1, 0);
        if (next == ~0u)
            return;
        from = next + 1;
    }
}

static _Noreturn void become_copy(struct monitor *monitor, struct client *client, const struct frame *frame, int program,
                                  pid_t original)
{
    struct executor *executor = monitor->executor;
    pid_t pid = monitor->session.pid;
    size_t length = frame->length - KEY_SIZE;
    void *plan = malloc(length + 1);
    if (!plan || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != original)
        _exit(GONE);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    close_but((int[]){ client->wire.fd, monitor->signals, monitor->proc, program }, 4);
    background_forget();
    copy_count = 0;
    memcpy(plan, frame->payload + KEY_SIZE, length);
    wire_drop(&client->wire, frame);
    executor_init(executor);
    executor->waits = true;
    executor->program = executor->joined = pid;
    executor->joined_fd = program;
    *monitor = (struct monitor){ .executor = executor, .entered = true, .signals = monitor->signals, .proc = monitor->proc,
                                 .directory = -1, .report = -1, .log.fd = -1, .hub = { .listener = -1 } };
    monitor->session.report = monitor->session.input = monitor->session.output = monitor->session.error = -1;
    monitor->hub.clients[monitor->hub.count++] = client;
    monitor_serve(monitor, plan, length);
}

int enter_open(struct monitor *monitor, struct client *client, const struct frame *frame)
{
    pid_t original = getpid(), copy = -1;
    bool begun = monitor->session.state == SESSION_STARTED && !monitor->revived;
    bool runs = begun && !monitor->session.reaped && !monitor->conducted;
    int program = -1;
    if (has_left(client))
        return -1;
    if (!runs)
        errno = ESRCH;
    else if (!is_ours(frame))
        errno = ESTALE;
    else if (copy_count == COPY_LIMIT)
        errno = EAGAIN;
    else if ((program = sys_pidfd_open(monitor->session.pid)) >= 0)
        copy = fork();
    if (copy == 0)
        become_copy(monitor, client, frame, program, original);
    if (copy < 0)
        client_refuse(client, NO_OPERATION, errno, strerror(errno));
    else
        copies[copy_count++] = copy;
    if (program >= 0)
        close(program);
    return copy < 0 ? 0 : -1;
}
