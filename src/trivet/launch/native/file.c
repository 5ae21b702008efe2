/* Files, directories, nodes and links below the root; and writing host files as they are. */
#include "executor.h"
#include "kernel.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

enum { UNUSED_STEP_NS = 1000000, UNUSED_STEPS = 5000 };

static int write_all(int fd, struct bytes bytes)
{
    while (bytes.length) {
        ssize_t written = write(fd, bytes.data, bytes.length);
        if (written < 0)
            return -1;
        bytes.data += written;
        bytes.length -= (size_t)written;
    }
    return 0;
}

static int finish(int fd, int result)
{
    int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    return result;
}

int operate_write_file(struct executor *executor, struct cursor *fields)
{
    const char *path = take_text(fields);
    struct bytes data = take_bytes(fields);
    bool optional = take_integer(fields);
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    ssize_t written = fd < 0 ? -1 : write(fd, data.data, data.length);
    int result = written == (ssize_t)data.length ? 0 : -1;
    if (result < 0 && !optional)
        refuse(executor, written < 0 ? errno : EIO, "write %s", path);
    return finish(fd, optional ? 0 : result);
}

int operate_directory(struct executor *executor, struct cursor *fields)
{
    const char *path = take_text(fields);
    struct owner owner = { .mode = (mode_t)take_integer(fields) };
    owner.uid = (uid_t)take_integer(fields);
    owner.gid = (gid_t)take_integer(fields);
    bool host = take_integer(fields);
    mode_t mask = umask(0);
    int fd = host ? host_make(executor, path, MAKE_DIRECTORY, &owner) : root_make(executor, path, MAKE_DIRECTORY, &owner);
    umask(mask);
    struct stat status;
    if (fd < 0)
        return executor->text[0] ? -1 : refuse(executor, errno, "directory %s", path);
    if (fstat(fd, &status) == 0 && !S_ISDIR(status.st_mode))
        return finish(fd, refuse(executor, ENOTDIR, "directory %s", path));
    return finish(fd, 0);
}

/* A mount has its device exclusively; when the last one who had it open goes, what was read of it is forgotten. */
int operate_await_unused(struct executor *executor, struct cursor *fields)
{
    const struct timespec step = { .tv_nsec = UNUSED_STEP_NS };
    const char *path = take_text(fields);
    int fd = -1;
    for (int i = 0; i < UNUSED_STEPS && (fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC)) < 0 && errno == EBUSY; i++)
        nanosleep(&step, NULL);
    return fd < 0 ? refuse(executor, errno, "await that %s is unused", path) : finish(fd, 0);
}

int operate_node(struct executor *executor, struct cursor *fields)
{
    const char *path = take_text(fields);
    mode_t mode = (mode_t)take_integer(fields);
    unsigned major = (unsigned)take_integer(fields), minor = (unsigned)take_integer(fields);
    uid_t uid = (uid_t)take_integer(fields);
    gid_t gid = (gid_t)take_integer(fields);
    char name[NAME_MAX + 1];
    struct stat status;
    int parent = root_parent(executor, path, name);
    if (parent < 0)
        return -1;
    mode_t mask = umask(0);
    int result = mknodat(parent, name, mode, makedev(major, minor));
    umask(mask);
    if (result == 0 && (uid || gid))
        result = fchownat(parent, name, uid, gid, AT_SYMLINK_NOFOLLOW);
    else if (result < 0 && errno == EEXIST && fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
        bool same = (status.st_mode & S_IFMT) == (mode & S_IFMT) && status.st_rdev == makedev(major, minor);
        result = same ? 0 : refuse(executor, EEXIST, "something else is at %s", path);
    }
    if (result < 0 && !executor->text[0])
        refuse(executor, errno, "node %s", path);
    return finish(parent, result);
}

int operate_symlink(struct executor *executor, struct cursor *fields)
{
    const char *path = take_text(fields), *target = take_text(fields);
    char name[NAME_MAX + 1];
    int parent = root_parent(executor, path, name);
    if (parent < 0)
        return -1;
    int result = symlinkat(target, parent, name);
    if (result < 0 && errno == EEXIST)
        result = 0;
    if (result < 0)
        refuse(executor, errno, "link %s", path);
    return finish(parent, result);
}

int operate_file(struct executor *executor, struct cursor *fields)
{
    const char *path = take_text(fields);
    struct bytes content = take_bytes(fields);
    mode_t mode = (mode_t)take_integer(fields);
    uid_t uid = (uid_t)take_integer(fields);
    gid_t gid = (gid_t)take_integer(fields);
    const struct owner owner = { .mode = mode, .uid = uid, .gid = gid };
    int made = root_make(executor, path, MAKE_FILE, &owner);
    if (made < 0)
        return executor->text[0] ? -1 : refuse(executor, errno, "file %s", path);
    /* Looked at before it is opened for writing: what is there already may be a device or a FIFO nobody reads. */
    struct stat status;
    int fd = -1, result = fstat(made, &status);
    if (result == 0 && !S_ISREG(status.st_mode))
        result = refuse(executor, EINVAL, "not a regular file: %s", path);
    if (result == 0)
        result = fd = root_open(executor, path, O_WRONLY | O_TRUNC | O_NONBLOCK | O_NOCTTY);
    if (result >= 0)
        result = 0;
    if (result == 0)
        result = write_all(fd, content);
    if (result == 0 && (uid || gid))
        result = fchown(fd, uid, gid);
    if (result == 0)
        result = fchmod(fd, mode & 07777);
    if (result < 0 && !executor->text[0])
        refuse(executor, errno, "file %s", path);
    finish(made, 0);
    return finish(fd, result);
}
