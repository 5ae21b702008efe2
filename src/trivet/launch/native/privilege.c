/* Becoming the user that identity.c found: ids, capabilities, seccomp, working directory. */
#include "executor.h"
#include "kernel.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>

struct capability_sets {
    struct __user_cap_data_struct half[2];
};

static int capabilities_get(struct capability_sets *sets)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    return (int)syscall(SYS_capget, &header, sets->half);
}

static int capabilities_set(const struct capability_sets *sets)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    return (int)syscall(SYS_capset, &header, sets->half);
}

/* The user may reopen /dev/stdout: pipes and terminal become its own (what runc does, too). */
static void give_stdio(uid_t uid)
{
    struct stat status;
    for (int fd = 0; fd < 3; fd++)
        if (fstat(fd, &status) == 0 && (S_ISFIFO(status.st_mode) || isatty(fd)))
            (void)!fchown(fd, uid, (gid_t)-1);
}

static bool has_further_groups(const struct identity *identity)
{
    for (size_t i = 0; i < identity->group_count; i++)
        if (identity->groups[i] != identity->gid)
            return true;
    return false;
}

/* Raw system calls: the library's would look for other threads first. */
int operate_become(struct executor *executor, struct cursor *fields)
{
    (void)fields;
    struct identity *identity = &executor->identity;
    struct capability_sets sets;
    if (!identity->known)
        return refuse(executor, EINVAL, "Become needs User or Identity before it");
    if (executor->own_stdio)
        give_stdio(identity->uid);
    if (syscall(SYS_setgroups, identity->group_count, identity->groups) < 0 && (errno != EPERM || has_further_groups(identity)))
        return refuse(executor, errno, "setgroups");
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || syscall(SYS_setresgid, identity->gid, identity->gid, identity->gid) < 0
        || syscall(SYS_setresuid, identity->uid, identity->uid, identity->uid) < 0)
        return refuse(executor, errno, "become user %u, group %u", identity->uid, identity->gid);
    /* Leaving uid 0 cleared the effective set; `Capabilities` still has work to do with it. */
    if (capabilities_get(&sets) < 0)
        return -1;
    for (int i = 0; i < 2; i++)
        sets.half[i].effective = sets.half[i].permitted;
    return capabilities_set(&sets) < 0 ? -1 : prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0);
}

static int drop_bounding(uint64_t keep)
{
    for (unsigned bit = 0; bit < 64; bit++) {
        int present = prctl(PR_CAPBSET_READ, bit, 0, 0, 0);
        if (present < 0)
            return 0; /* past the last capability of this kernel */
        if (present && !(keep >> bit & 1) && prctl(PR_CAPBSET_DROP, bit, 0, 0, 0) < 0)
            return -1;
    }
    return 0;
}

static int raise_ambient(uint64_t wanted)
{
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
        return wanted ? -1 : 0;
    for (unsigned bit = 0; bit < 64; bit++)
        if (wanted >> bit & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, bit, 0, 0) < 0)
            return -1;
    return 0;
}

int operate_capabilities(struct executor *executor, struct cursor *fields)
{
    uint64_t bounding = (uint64_t)take_integer(fields), effective = (uint64_t)take_integer(fields);
    uint64_t inheritable = (uint64_t)take_integer(fields), permitted = (uint64_t)take_integer(fields);
    uint64_t ambient = (uint64_t)take_integer(fields);
    struct capability_sets sets;
    if (capabilities_get(&sets) < 0)
        return -1;
    uint64_t held = sets.half[0].permitted | (uint64_t)sets.half[1].permitted << 32;
    permitted &= held;
    effective &= permitted;
    inheritable &= held & bounding;
    ambient &= permitted & inheritable;
    if (drop_bounding(bounding) < 0)
        return refuse(executor, errno, "drop capabilities from the bounding set");
    for (int i = 0; i < 2; i++)
        sets.half[i] = (struct __user_cap_data_struct){ .effective = (uint32_t)(effective >> 32 * i),
                                                        .permitted = (uint32_t)(permitted >> 32 * i),
                                                        .inheritable = (uint32_t)(inheritable >> 32 * i) };
    if (capabilities_set(&sets) < 0 || raise_ambient(ambient) < 0)
        return refuse(executor, errno, "set capabilities");
    return 0;
}

int operate_no_new_privileges(struct executor *executor, struct cursor *fields)
{
    (void)executor, (void)fields;
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

int operate_seccomp(struct executor *executor, struct cursor *fields)
{
    struct bytes program = take_bytes(fields);
    unsigned long flags = (unsigned long)take_integer(fields);
    size_t count = program.length / sizeof(struct sock_filter);
    if (!count || count > BPF_MAXINSNS || program.length % sizeof(struct sock_filter))
        return refuse(executor, EINVAL, "the seccomp program has a wrong length");
    const struct sock_fprog filter = { .len = (unsigned short)count, .filter = (struct sock_filter *)(uintptr_t)program.data };
    long listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter);
    if (listener < 0)
        return refuse(executor, errno, "seccomp");
    if (!(flags & SECCOMP_FILTER_FLAG_NEW_LISTENER))
        return 0;
    int result = conduct(executor, "listener", (int)listener);
    close((int)listener);
    return result;
}

/* A working directory outside the root would let the program climb out (CVE-2024-21626): getcwd(2) says
 * "(unreachable)" then, and resolution below the root makes it impossible in the first place. */
int operate_working_directory(struct executor *executor, struct cursor *fields)
{
    const char *path = take_text(fields);
    bool make = take_integer(fields);
    char actual[PATH_MAX];
    const struct owner owner = { .mode = 0755, .uid = executor->identity.uid, .gid = executor->identity.gid };
    int fd = make ? root_make(executor, path, MAKE_DIRECTORY, &owner) : root_open(executor, path, O_PATH | O_DIRECTORY);
    if (fd < 0 || fchdir(fd) < 0)
        return executor->text[0] ? -1 : refuse(executor, errno, "working directory %s", path);
    close(fd);
    if (syscall(SYS_getcwd, actual, sizeof actual) < 0 || actual[0] != '/')
        return refuse(executor, EXDEV, "working directory %s is outside the root", path);
    return 0;
}
