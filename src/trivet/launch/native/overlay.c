/* An overlay made before the child is, its layers shown with other owners: overlay itself can't be (mount_setattr(2)),
 * but what lies below it. */
#include "executor.h"
#include "kernel.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

enum { LAYER_LIMIT = 500, OLD_DATA_SIZE = 4096 };

struct layers {
    int fds[LAYER_LIMIT + 1]; /* topmost first, the writable one's directory last */
    size_t count;
    bool writable, is_volatile;
};

static void close_layers(struct layers *layers)
{
    int error = errno;
    while (layers->count)
        close(layers->fds[--layers->count]);
    errno = error;
}

static int open_layer(struct executor *executor, struct layers *layers, const char *path, int users)
{
    if (layers->count > LAYER_LIMIT)
        return refuse(executor, E2BIG, "more than %d layers", LAYER_LIMIT);
    int tree = sys_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0)
        return refuse(executor, errno, "layer %s", path);
    layers->fds[layers->count++] = tree;
    if (set_owners(tree, users, false) < 0)
        return refuse(executor, errno, "map the owners of layer %s", path);
    return 0;
}

static int open_layers(struct executor *executor, struct layers *layers, struct strings lowers, const char *writable,
                       int users)
{
    for (uint32_t i = 0; i < lowers.count; i++)
        if (open_layer(executor, layers, strings_next(&lowers).data, users) < 0)
            return -1;
    layers->writable = *writable;
    return *writable ? open_layer(executor, layers, writable, users) : 0;
}

static int set(int context, const char *key, int fd, const char *below)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d%s", fd, below);
    return sys_fsconfig(context, FSCONFIG_SET_STRING, key, path, 0);
}

static int configure(int context, const struct layers *layers)
{
    size_t lowers = layers->count - layers->writable;
    if (sys_fsconfig(context, FSCONFIG_SET_STRING, "source", "overlay", 0) < 0)
        return -1;
    for (size_t i = 0; i < lowers; i++)
        if (set(context, "lowerdir+", layers->fds[i], "") < 0)
            return -1;
    if (layers->writable
        && (set(context, "upperdir", layers->fds[lowers], "/upper") < 0
            || set(context, "workdir", layers->fds[lowers], "/work") < 0))
        return -1;
    if (layers->is_volatile && sys_fsconfig(context, FSCONFIG_SET_FLAG, "volatile", NULL, 0) < 0)
        return -1;
    return sys_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
}

static int make(struct layers *layers)
{
    int context = sys_fsopen("overlay", FSOPEN_CLOEXEC), tree = -1;
    if (context >= 0 && configure(context, layers) == 0)
        tree = sys_fsmount(context, FSMOUNT_CLOEXEC, 0);
    int error = errno;
    if (context >= 0)
        close(context);
    errno = error;
    return tree;
}

static void uncover(const char *place, size_t count)
{
    int error = errno;
    while (count--)
        sys_umount(place, MNT_DETACH);
    errno = error;
}

/* Before Linux 6.5 there is no "lowerdir+": mount(2) takes a page of options, and then a copy of what it mounted. */
static int make_old(const struct layers *layers, const char *place)
{
    char data[OLD_DATA_SIZE];
    size_t lowers = layers->count - layers->writable;
    int used = 0;
    for (size_t i = 0; i < lowers && used < OLD_DATA_SIZE; i++)
        used += snprintf(data + used, sizeof data - (size_t)used, "%s/proc/self/fd/%d", i ? ":" : "lowerdir=", layers->fds[i]);
    if (layers->writable && used < OLD_DATA_SIZE)
        used += snprintf(data + used, sizeof data - (size_t)used, ",upperdir=/proc/self/fd/%d/upper,workdir=/proc/self/fd/%d/work%s",
                         layers->fds[lowers], layers->fds[lowers], layers->is_volatile ? ",volatile" : "");
    if (used >= OLD_DATA_SIZE) {
        errno = E2BIG;
        return -1;
    }
    if (sys_mount("overlay", place, "overlay", 0, data) < 0)
        return -1;
    int tree = sys_open_tree(AT_FDCWD, place, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    uncover(place, 1);
    return tree;
}

/* Older kernels take only layers that are mounted somewhere: here, where nobody else sees it, one over the other. The
 * overlay has its own hold on them, so that the place is what it was afterwards: binds come from there, too. */
static int make_attached(struct layers *layers, const char *place, bool old)
{
    const unsigned long recursive_slave = 16384 | 524288; /* MS_REC | MS_SLAVE */
    if (sys_unshare(CLONE_NEWNS) < 0 || sys_mount("none", "/", NULL, recursive_slave, NULL) < 0)
        return -1;
    size_t moved = 0;
    while (moved < layers->count
           && sys_move_mount(layers->fds[moved], "", AT_FDCWD, place, MOVE_MOUNT_F_EMPTY_PATH) == 0)
        moved++;
    int tree = -1;
    if (moved == layers->count && !old)
        tree = make(layers);
    if (moved == layers->count && tree < 0)
        tree = make_old(layers, place);
    uncover(place, moved);
    return tree;
}

/* What overlayfs makes for itself belongs to whoever mounts it: that has to be somebody the layers know, with all
 * rights kept (capabilities(7), SECBIT_NO_SETUID_FIXUP). */
static int act_as(int owner)
{
    static const int keep = 1 << 2;
    int bits = prctl(PR_GET_SECUREBITS);
    if (prctl(PR_SET_SECUREBITS, owner ? bits | keep : bits) < 0)
        return -1;
    syscall(SYS_setfsgid, owner);
    syscall(SYS_setfsuid, owner);
    return owner ? 0 : prctl(PR_SET_SECUREBITS, bits & ~keep);
}

int operate_open_overlay(struct executor *executor, struct cursor *fields)
{
    struct strings lowers = take_strings(fields);
    const char *writable = take_text(fields), *place = take_text(fields);
    struct layers layers = { .is_volatile = take_integer(fields) };
    const char *uid_map = take_text(fields), *gid_map = take_text(fields);
    int owner = (int)take_integer(fields);
    int64_t attached = take_integer(fields);
    if (executor->tree_count == TREE_LIMIT)
        return refuse(executor, EINVAL, "more than %d trees", TREE_LIMIT);
    int users = open_map(uid_map, gid_map), tree = -1;
    if (users < 0)
        return refuse(executor, errno, "the owners' user namespace");
    int opened = open_layers(executor, &layers, lowers, writable, users);
    close(users);
    if (opened == 0)
        opened = act_as(owner);
    if (opened == 0 && !attached)
        tree = make(&layers);
    if (opened == 0 && tree < 0)
        tree = make_attached(&layers, place, attached > 1);
    int error = errno;
    if (act_as(0) < 0)
        opened = -1;
    errno = error;
    if (opened == 0 && tree < 0)
        refuse(executor, errno, "overlay on %s", place);
    close_layers(&layers);
    if (tree < 0)
        return -1;
    executor->trees[executor->tree_count++] = tree;
    return 0;
}
