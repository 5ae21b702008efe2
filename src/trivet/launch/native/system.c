/* Namespaces, and the settings of the kernel that are not files of the image. */
#include "executor.h"
#include "kernel.h"

#include <errno.h>
#include <linux/keyctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

int operate_unshare(struct executor *executor, struct cursor *fields)
{
    (void)executor;
    return sys_unshare((int)take_integer(fields));
}

/* Not dumpable first: what lives in the namespace must not read our memory or descriptors. */
static int enter(struct executor *executor, int fd, int flags, const char *what)
{
    if (fd < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || sys_setns(fd, flags) < 0)
        return refuse(executor, errno, "join the namespaces of %s", what);
    return 0;
}

/* While we still may: whoever is root of a user namespace only can't enter a mount namespace of the host's. */
static int leave_mounts(struct executor *executor)
{
    if (executor->mounts < 0)
        return 0;
    int result = enter(executor, executor->mounts, CLONE_NEWNS, "the lobby");
    close(executor->mounts);
    executor->mounts = -1;
    return result;
}

static int open_process(struct executor *executor, pid_t pid)
{
    if (executor->joined_fd >= 0 && executor->joined == pid)
        return executor->joined_fd;
    if (executor->joined_fd >= 0)
        close(executor->joined_fd);
    executor->joined = pid;
    executor->joined_fd = sys_pidfd_open(pid);
    return executor->joined_fd;
}

int operate_join(struct executor *executor, struct cursor *fields)
{
    pid_t pid = (pid_t)take_integer(fields);
    int flags = (int)take_integer(fields);
    char what[32];
    pid = pid ? pid : executor->program;
    snprintf(what, sizeof what, "process %d", pid);
    return enter(executor, open_process(executor, pid), flags, what);
}

int operate_join_path(struct executor *executor, struct cursor *fields)
{
    const char *path = take_text(fields);
    int flags = (int)take_integer(fields);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int result = fd >= 0 && flags & CLONE_NEWUSER ? leave_mounts(executor) : 0;
    result = result < 0 ? -1 : enter(executor, fd, flags, path);
    int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    return result;
}

int operate_hostname(struct executor *executor, struct cursor *fields)
{
    struct bytes name = take_bytes(fields), domain = take_bytes(fields);
    if (name.length && sethostname(name.data, name.length) < 0)
        return refuse(executor, errno, "host name %s", name.data);
    if (domain.length && setdomainname(domain.data, domain.length) < 0)
        return refuse(executor, errno, "domain name %s", domain.data);
    return 0;
}

static int write_proc(struct executor *executor, const char *path, const char *value, size_t length)
{
    int fd = proc_open(executor, path, O_WRONLY);
    if (fd < 0)
        return -1;
    ssize_t written = write(fd, value, length);
    int error = errno;
    close(fd);
    errno = error;
    return written == (ssize_t)length ? 0 : -1;
}

int operate_sysctl(struct executor *executor, struct cursor *fields)
{
    char path[PATH_MAX];
    const char *name = take_text(fields);
    struct bytes value = take_bytes(fields);
    if (snprintf(path, sizeof path, "sys/%s", name) >= (int)sizeof path)
        return refuse(executor, ENAMETOOLONG, "sysctl");
    if (write_proc(executor, path, value.data, value.length) < 0)
        return executor->text[0] ? -1 : refuse(executor, errno, "sysctl %s", name);
    return 0;
}

/* Without CAP_SYS_RESOURCE a hard limit can't be raised: the closest the kernel allows is taken. */
int operate_rlimit(struct executor *executor, struct cursor *fields)
{
    int resource = (int)take_integer(fields);
    int64_t soft = take_integer(fields), hard = take_integer(fields);
    struct rlimit wanted = { .rlim_cur = soft < 0 ? RLIM_INFINITY : (rlim_t)soft,
                             .rlim_max = hard < 0 ? RLIM_INFINITY : (rlim_t)hard };
    struct rlimit present;
    if (setrlimit(resource, &wanted) == 0)
        return 0;
    if (errno != EPERM || getrlimit(resource, &present) < 0)
        return refuse(executor, errno, "resource limit %d", resource);
    if (wanted.rlim_max > present.rlim_max)
        wanted.rlim_max = present.rlim_max;
    if (wanted.rlim_cur > wanted.rlim_max)
        wanted.rlim_cur = wanted.rlim_max;
    return setrlimit(resource, &wanted);
}

int operate_keyring(struct executor *executor, struct cursor *fields)
{
    (void)executor, (void)fields;
    long result = syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
    return result < 0 && errno != ENOSYS ? -1 : 0;
}

int operate_umask(struct executor *executor, struct cursor *fields)
{
    (void)executor;
    umask((mode_t)take_integer(fields) & 07777);
    return 0;
}

int operate_oom_score(struct executor *executor, struct cursor *fields)
{
    char value[24];
    int length = snprintf(value, sizeof value, "%d", (int)take_integer(fields));
    int result = write_proc(executor, "self/oom_score_adj", value, (size_t)length);
    return result < 0 && errno == EACCES ? 0 : result;
}
