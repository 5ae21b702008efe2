/* Mounts. Every target is opened first and mounted on by descriptor, so that nothing can be swapped in between. */
#include "executor.h"
#include "kernel.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

enum { MAKE_AS_SOURCE = 3, OPTION_LIMIT = 255, DATA_SIZE = 4096 };

static void close_keeping_errno(int fd)
{
    int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
}

static int open_target(struct executor *executor, const char *path, enum make make, bool host)
{
    const struct owner owner = { .mode = make == MAKE_FILE ? 0644 : 0755 };
    return host ? host_make(executor, path, make, &owner) : root_make(executor, path, make, &owner);
}

static int attach(int tree, int target)
{
    return sys_move_mount(tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

static int change_attributes(int fd, uint64_t set, uint64_t clear, uint64_t propagation, bool recursive)
{
    struct mount_attr change = { .attr_set = set, .attr_clr = clear, .propagation = propagation };
    if ((set | clear) & MOUNT_ATTR__ATIME) /* a choice of one, which can only be cleared as a whole */
        change.attr_clr |= MOUNT_ATTR__ATIME;
    return sys_mount_setattr(fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &change);
}

static int set_attributes(int fd, uint64_t attributes, uint64_t propagation, bool recursive)
{
    return change_attributes(fd, attributes, 0, propagation, recursive);
}

static int forgive(int result, bool optional, struct executor *executor)
{
    if (result < 0 && optional)
        executor->text[0] = 0;
    return optional ? 0 : result;
}

/* The kernel's own words, e.g. "e overlay: ..." (fsopen(2) allows reading its log from the descriptor). */
static void explain(struct executor *executor, int context, const char *fstype, const char *target)
{
    char words[TEXT_SIZE];
    int error = errno;
    ssize_t length = read(context, words, sizeof words - 1);
    if (length > 2) {
        words[length - (words[length - 1] == '\n')] = 0;
        refuse(executor, error, "%s on %s: %s", fstype, target, words + 2);
    } else {
        refuse(executor, error, "%s on %s", fstype, target);
    }
}

/* --- new file systems ------------------------------------------------------------------------------- */

static int configure(int context, const char *option)
{
    char key[OPTION_LIMIT + 1];
    const char *equals = strchr(option, '=');
    if (!equals)
        return sys_fsconfig(context, FSCONFIG_SET_FLAG, option, NULL, 0);
    size_t length = (size_t)(equals - option);
    if (length > OPTION_LIMIT || strlen(equals + 1) > OPTION_LIMIT) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(key, option, length);
    key[length] = 0;
    return sys_fsconfig(context, FSCONFIG_SET_STRING, key, equals + 1, 0);
}

static int configure_all(int context, const char *source, struct strings options)
{
    if (*source && sys_fsconfig(context, FSCONFIG_SET_STRING, "source", source, 0) < 0)
        return -1;
    for (uint32_t i = 0; i < options.count; i++)
        if (configure(context, strings_next(&options).data) < 0)
            return -1;
    return sys_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
}

/* Join options as mount(2) wants them; the layers given one by one become the colon-separated list of old. */
static int join_options(char data[DATA_SIZE], struct strings options)
{
    static const char layer[] = "lowerdir+=";
    size_t used = 0;
    bool layers = false;
    data[0] = 0;
    for (uint32_t i = 0; i < options.count; i++) {
        const char *option = strings_next(&options).data;
        bool is_layer = !strncmp(option, layer, sizeof layer - 1);
        const char *value = is_layer ? option + sizeof layer - 1 : option;
        const char *before = is_layer && layers ? ":" : is_layer ? ",lowerdir=" : ",";
        used += (size_t)snprintf(data + used, DATA_SIZE - used, "%s%s", before + (used == 0), value);
        if (used >= DATA_SIZE) {
            errno = E2BIG;
            return -1;
        }
        layers = layers || is_layer;
    }
    return 0;
}

static unsigned long old_flags(uint64_t attributes)
{
    static const struct {
        uint64_t attribute;
        unsigned long flag;
    } table[] = { { MOUNT_ATTR_RDONLY, 1 },         { MOUNT_ATTR_NOSUID, 2 },       { MOUNT_ATTR_NODEV, 4 },
                  { MOUNT_ATTR_NOEXEC, 8 },         { MOUNT_ATTR_NOATIME, 1024 },   { MOUNT_ATTR_NODIRATIME, 2048 },
                  { MOUNT_ATTR_STRICTATIME, 1 << 24 } };
    unsigned long flags = 0;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (attributes & table[i].attribute)
            flags |= table[i].flag;
    return flags;
}

/* Before Linux 6.5 overlay knows no "lowerdir+", and fsconfig takes 255 bytes a value: mount(2) on the working
 * directory takes a page, and still needs no path to the target. */
static int mount_old(int target, const char *fstype, const char *source, uint64_t attributes, struct strings options)
{
    char data[DATA_SIZE];
    int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int result = -1;
    if (join_options(data, options) == 0 && fchdir(target) == 0)
        result = sys_mount(*source ? source : "none", ".", fstype, old_flags(attributes), data);
    int error = errno;
    if (here >= 0 && fchdir(here) < 0)
        result = -1;
    errno = error;
    close_keeping_errno(here);
    return result;
}

static int mount_new(struct executor *executor, int target, const char *name, const char *fstype, const char *source,
                     uint64_t attributes, struct strings options, bool copy)
{
    int context = sys_fsopen(fstype, FSOPEN_CLOEXEC);
    if (context < 0)
        return refuse(executor, errno, "file system %s", fstype);
    int result = configure_all(context, source, options);
    if (result < 0 && (errno == EINVAL || errno == ENAMETOOLONG) && !strcmp(fstype, "overlay")) {
        explain(executor, context, fstype, name);
        result = mount_old(target, fstype, source, attributes, options);
        close_keeping_errno(context);
        return result;
    }
    int tree = result < 0 ? -1 : sys_fsmount(context, FSMOUNT_CLOEXEC, (unsigned)attributes);
    result = tree < 0 || (copy && copy_up(target, tree) < 0) ? -1 : attach(tree, target);
    if (result < 0)
        explain(executor, context, fstype, name);
    close_keeping_errno(tree);
    close_keeping_errno(context);
    return result;
}

int operate_mount(struct executor *executor, struct cursor *fields)
{
    const char *fstype = take_text(fields), *source = take_text(fields), *name = take_text(fields);
    uint64_t attributes = (uint64_t)take_integer(fields);
    struct strings options = take_strings(fields);
    enum make make = (enum make)take_integer(fields);
    bool host = take_integer(fields), optional = take_integer(fields), copy = take_integer(fields);
    int target = open_target(executor, name, make, host);
    int result = target < 0 ? -1 : mount_new(executor, target, name, fstype, source, attributes, options, copy);
    if (target < 0 && !executor->text[0])
        refuse(executor, errno, "mount target %s", name);
    close_keeping_errno(target);
    return forgive(result, optional, executor);
}

/* --- binds ------------------------------------------------------------------------------------------ */

static int make_like(int tree, int64_t make)
{
    struct stat status;
    if (make != MAKE_AS_SOURCE)
        return (int)make;
    if (fstat(tree, &status) < 0)
        return -1;
    return S_ISDIR(status.st_mode) ? MAKE_DIRECTORY : MAKE_FILE;
}

/* A copy of the source made now, or one that OpenTree made. */
static int source_tree(struct executor *executor, const char *source, size_t opened, bool recursive)
{
    if (opened > executor->tree_count) {
        errno = EBADF;
        return -1;
    }
    if (opened) {
        int tree = executor->trees[opened - 1];
        executor->trees[opened - 1] = -1;
        return tree;
    }
    return sys_open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0));
}

int operate_bind(struct executor *executor, struct cursor *fields)
{
    const char *source = take_text(fields), *name = take_text(fields);
    bool recursive = take_integer(fields);
    uint64_t attributes = (uint64_t)take_integer(fields), propagation = (uint64_t)take_integer(fields);
    int64_t make = take_integer(fields);
    bool host = take_integer(fields), optional = take_integer(fields);
    const size_t opened = (size_t)take_integer(fields);
    const bool shallow = take_integer(fields);
    const uint64_t clear = (uint64_t)take_integer(fields);
    const uint64_t deep_set = (uint64_t)take_integer(fields), deep_clear = (uint64_t)take_integer(fields);
    const uint64_t recurse = 1 << 14; /* MS_REC */

    int tree = source_tree(executor, source, opened, recursive);
    if (tree < 0)
        return forgive(refuse(executor, errno, "bind source %s", source), optional, executor);
    int target = open_target(executor, name, (enum make)make_like(tree, make), host);
    int result = target;
    if (target < 0 && !executor->text[0])
        refuse(executor, errno, "bind target %s", name);
    if (result >= 0 && (deep_set || deep_clear))
        result = change_attributes(tree, deep_set, deep_clear, 0, true);
    if (result >= 0 && (attributes || clear))
        result = change_attributes(tree, attributes, clear, 0, recursive && !shallow);
    if (result >= 0)
        result = attach(tree, target);
    if (result >= 0 && propagation)
        result = set_attributes(tree, 0, propagation & ~recurse, propagation & recurse);
    if (result < 0 && !executor->text[0])
        refuse(executor, errno, "bind %s on %s", source, name);
    close_keeping_errno(target);
    close_keeping_errno(tree);
    return forgive(result < 0 ? -1 : 0, optional, executor);
}

/* --- hiding and protecting -------------------------------------------------------------------------- */

/* A copy of /dev/null's mount, certain that it is the null device (CVE-2025-31133). */
static int null_tree(struct executor *executor)
{
    struct stat status;
    int fd = open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (fstat(fd, &status) < 0 || !S_ISCHR(status.st_mode) || status.st_rdev != makedev(1, 3)) {
        close(fd);
        return refuse(executor, ENODEV, "/dev/null is not the null device");
    }
    int tree = sys_open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    close_keeping_errno(fd);
    return tree;
}

static int empty_tree(void)
{
    const unsigned attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    int context = sys_fsopen("tmpfs", FSOPEN_CLOEXEC);
    if (context < 0)
        return -1;
    int tree = -1;
    if (sys_fsconfig(context, FSCONFIG_SET_STRING, "nr_inodes", "1", 0) == 0
        && sys_fsconfig(context, FSCONFIG_SET_STRING, "size", "0", 0) == 0
        && sys_fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        tree = sys_fsmount(context, FSMOUNT_CLOEXEC, attributes);
    close_keeping_errno(context);
    return tree;
}

static bool missing(void) { return errno == ENOENT || errno == ENOTDIR; }

int operate_mask(struct executor *executor, struct cursor *fields)
{
    const char *path = take_text(fields);
    struct stat status;
    int target = root_open(executor, path, O_PATH);
    if (target < 0)
        return missing() ? 0 : -1;
    int result = fstat(target, &status);
    if (result == 0) {
        int tree = S_ISDIR(status.st_mode) ? empty_tree() : null_tree(executor);
        result = tree < 0 ? -1 : attach(tree, target);
        close_keeping_errno(tree);
    }
    if (result < 0 && !executor->text[0])
        refuse(executor, errno, "mask %s", path);
    close_keeping_errno(target);
    return result;
}

int operate_read_only(struct executor *executor, struct cursor *fields)
{
    const char *path = take_text(fields);
    int target = root_open(executor, path, O_PATH);
    if (target < 0)
        return missing() ? 0 : -1;
    const unsigned clone = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE;
    int tree = sys_open_tree(target, "", clone);
    int result = tree < 0 ? -1 : set_attributes(tree, MOUNT_ATTR_RDONLY, 0, true);
    if (result == 0)
        result = attach(tree, target);
    if (result < 0)
        refuse(executor, errno, "make %s read-only", path);
    close_keeping_errno(tree);
    close_keeping_errno(target);
    return result;
}

int operate_remount_root(struct executor *executor, struct cursor *fields)
{
    return set_attributes(executor->root, (uint64_t)take_integer(fields), 0, false);
}

/* --- the root itself -------------------------------------------------------------------------------- */

int operate_propagation(struct executor *executor, struct cursor *fields)
{
    const char *path = take_text(fields);
    if (sys_mount(NULL, path, NULL, (unsigned long)take_integer(fields), NULL) < 0)
        return refuse(executor, errno, "propagation of %s", path);
    return 0;
}

int operate_root(struct executor *executor, struct cursor *fields)
{
    const char *path = take_text(fields);
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return refuse(executor, errno, "root %s", path);
    close_keeping_errno(executor->root);
    executor->root = fd;
    return 0;
}

/* pivot_root(".", ".") stacks the old root over the new one, and detaching "." uncovers it: no put_old
 * directory is needed (pivot_root(2), Notes). */
int operate_pivot(struct executor *executor, struct cursor *fields)
{
    (void)fields;
    const unsigned long slave = MS_SLAVE | MS_REC; /* what is detached here must not go away on the host */
    if (fchdir(executor->root) < 0 || sys_pivot_root(".", ".") < 0 || sys_mount(NULL, ".", NULL, slave, NULL) < 0
        || sys_umount(".", MNT_DETACH) < 0)
        return -1;
    return chdir("/");
}

int operate_chroot(struct executor *executor, struct cursor *fields)
{
    (void)fields;
    if (fchdir(executor->root) < 0 || chroot(".") < 0)
        return -1;
    return chdir("/");
}

int operate_unmount(struct executor *executor, struct cursor *fields)
{
    const char *path = take_text(fields);
    bool optional = take_integer(fields);
    int result = sys_umount(path, MNT_DETACH);
    if (result < 0)
        refuse(executor, errno, "unmount %s", path);
    return forgive(result, optional, executor);
}
