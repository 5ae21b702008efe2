/* How the kernel treats the process: personality, processors, priorities, memory nodes. */
#include "executor.h"
#include "kernel.h"

#include <errno.h>
#include <string.h>
#include <sys/personality.h>

enum { WHO_PROCESS = 1 /* IOPRIO_WHO_PROCESS, ioprio_set(2) */, MASK_LIMIT = 1024 };

/* sched_setattr(2); the C library has neither the structure nor the call. */
struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

int operate_personality(struct executor *executor, struct cursor *fields)
{
    return personality((unsigned long)take_integer(fields)) < 0 ? refuse(executor, errno, "personality") : 0;
}

int operate_scheduler(struct executor *executor, struct cursor *fields)
{
    struct attributes wanted = { .size = sizeof wanted };
    wanted.policy = (uint32_t)take_integer(fields);
    wanted.flags = (uint64_t)take_integer(fields);
    wanted.nice = (int32_t)take_integer(fields);
    wanted.priority = (uint32_t)take_integer(fields);
    wanted.runtime = (uint64_t)take_integer(fields);
    wanted.deadline = (uint64_t)take_integer(fields);
    wanted.period = (uint64_t)take_integer(fields);
    return syscall(SYS_sched_setattr, 0, &wanted, 0) < 0 ? refuse(executor, errno, "scheduler") : 0;
}

int operate_io_priority(struct executor *executor, struct cursor *fields)
{
    return syscall(SYS_ioprio_set, WHO_PROCESS, 0, (int)take_integer(fields)) < 0
        ? refuse(executor, errno, "input and output priority")
        : 0;
}

int operate_affinity(struct executor *executor, struct cursor *fields)
{
    struct bytes mask = take_bytes(fields);
    return syscall(SYS_sched_setaffinity, 0, mask.length, mask.data) < 0 ? refuse(executor, errno, "processors") : 0;
}

/* set_mempolicy(2) takes the number of bits plus one, and reads whole words. */
int operate_memory_policy(struct executor *executor, struct cursor *fields)
{
    unsigned long words[MASK_LIMIT / sizeof(unsigned long)] = { 0 };
    int mode = (int)take_integer(fields);
    struct bytes nodes = take_bytes(fields);
    if (nodes.length > sizeof words)
        return refuse(executor, EINVAL, "memory nodes");
    memcpy(words, nodes.data, nodes.length);
    return syscall(SYS_set_mempolicy, mode, nodes.length ? words : NULL, nodes.length ? nodes.length * 8 + 1 : 0) < 0
        ? refuse(executor, errno, "memory policy")
        : 0;
}
