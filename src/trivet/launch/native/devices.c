/* Access to devices in a version 2 control group: a BPF program that is asked for every open and mknod. */
#include "executor.h"
#include "kernel.h"

#include <errno.h>
#include <linux/bpf.h>
#include <string.h>

int operate_device_filter(struct executor *executor, struct cursor *fields)
{
    const char *group = take_text(fields);
    struct bytes program = take_bytes(fields);
    union bpf_attr load, attach;
    memset(&load, 0, sizeof load);
    memset(&attach, 0, sizeof attach);
    load.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    load.insns = (uint64_t)(uintptr_t)program.data;
    load.insn_cnt = (uint32_t)(program.length / sizeof(struct bpf_insn));
    load.license = (uint64_t)(uintptr_t)"Apache-2.0";
    int fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
    if (fd < 0)
        return refuse(executor, errno, "load the device filter");
    int directory = open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    attach.target_fd = (uint32_t)directory;
    attach.attach_bpf_fd = (uint32_t)fd;
    attach.attach_type = BPF_CGROUP_DEVICE;
    attach.attach_flags = BPF_F_ALLOW_MULTI;
    int result = directory < 0 ? -1 : (int)syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof attach);
    if (result < 0)
        refuse(executor, errno, "attach the device filter to %s", group);
    int error = errno;
    if (directory >= 0)
        close(directory);
    close(fd); /* the group keeps the program */
    errno = error;
    return result;
}
