/* A conducted launch: the child is the starter's own, with streams and descriptors of the starter's, and tells it
 * over a socket when it has reached a point of the plan, or has a descriptor for it. The monitor is there only until
 * the program has begun. This is what an OCI runtime needs: whoever called it waits for the program itself. */
#include "executor.h"
#include "kernel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* Where the starter puts them; the program gets its streams as 0 to 2 and the others from 3 on. */
enum { CONDUCTOR_FD = 5, MOUNTS_FD = CONDUCTOR_FD, STREAM_FD = 6, OTHER_FD = 9, OTHER_LIMIT = 128 };

/* What `Fork` names is kept; it is where a launch that is conducted has its socket. */
static int take_mounts(struct executor *executor, const struct plan *plan)
{
    struct cursor fields;
    int64_t number = plan_find(plan, CODE_FORK, &fields) < plan->count ? take_integer(&fields) : 0;
    if (!number)
        return 0;
    if (number != MOUNTS_FD || fcntl(MOUNTS_FD, F_SETFD, FD_CLOEXEC) < 0)
        return refuse(executor, EBADF, "descriptor %d is no mount namespace", (int)number);
    executor->mounts = MOUNTS_FD;
    return 0;
}

int descriptors_open(struct executor *executor, const struct plan *plan)
{
    struct cursor fields;
    if (plan_find(plan, CODE_DESCRIPTORS, &fields) == plan->count) {
        if (take_mounts(executor, plan) < 0)
            return -1;
        return sys_close_range(executor->mounts < 0 ? MOUNTS_FD : MOUNTS_FD + 1, ~0u, 0);
    }
    int64_t count = take_integer(&fields);
    if (count < 0 || count > OTHER_LIMIT)
        return refuse(executor, EINVAL, "more than %d descriptors for the program", OTHER_LIMIT);
    for (int fd = CONDUCTOR_FD; fd < OTHER_FD + (int)count; fd++)
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
            return refuse(executor, errno, "descriptor %d for the program", fd < OTHER_FD ? fd - STREAM_FD : fd - OTHER_FD + 3);
    executor->conductor = CONDUCTOR_FD;
    executor->preserved = (unsigned)count;
    return sys_close_range((unsigned)OTHER_FD + (unsigned)count, ~0u, 0);
}

void descriptors_close(struct executor *executor)
{
    if (executor->conductor >= 0)
        sys_close_range(CONDUCTOR_FD, (unsigned)OTHER_FD + executor->preserved - 1, 0);
    executor->conductor = -1;
}

/* Move one of ours out of the way. */
static int move(int *fd, int above)
{
    if (*fd < 0 || *fd >= above)
        return 0;
    *fd = fcntl(*fd, F_DUPFD_CLOEXEC, above);
    return *fd < 0 ? -1 : 0;
}

int descriptors_take(struct executor *executor)
{
    const int count = (int)executor->preserved, above = OTHER_FD + count;
    if (move(&executor->report, above) < 0 || move(&executor->root, above) < 0 || move(&executor->joined_fd, above) < 0
        || move(&executor->conductor, above) < 0)
        return -1;
    for (size_t i = 0; i < executor->tree_count; i++)
        if (move(&executor->trees[i], above) < 0)
            return -1;
    for (int i = 0; i < 3; i++)
        if (dup2(STREAM_FD + i, i) < 0)
            return -1;
    for (int i = 0; i < count; i++)
        if (dup2(OTHER_FD + i, 3 + i) < 0)
            return -1;
    return sys_close_range(3u + (unsigned)count, (unsigned)above - 1, 0);
}

/* Say `what`, with a descriptor unless it is -1, and wait for the answer. */
int conduct(struct executor *executor, const char *what, int fd)
{
    struct iovec part = { (void *)(uintptr_t)what, strlen(what) };
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = { .header = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
    }
    char answer;
    ssize_t size = sendmsg(executor->conductor, &message, MSG_NOSIGNAL);
    while (size > 0 && (size = read(executor->conductor, &answer, 1)) < 0 && errno == EINTR)
        size = 1;
    return size == 1 ? 0 : refuse(executor, ECANCELED, "nobody answered at %s", what);
}

int operate_sync(struct executor *executor, struct cursor *fields)
{
    const char *point = take_text(fields);
    if (executor->conductor < 0)
        return refuse(executor, EINVAL, "Sync needs Descriptors");
    return conduct(executor, point, -1);
}
