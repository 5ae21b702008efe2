/* Paths below the root: resolved by the kernel with RESOLVE_IN_ROOT, so that no link leads out of it. */
#include "executor.h"
#include "kernel.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

enum { RACE_LIMIT = 128, LINK_LIMIT = 40 };

/* EAGAIN means that something was renamed meanwhile and the kernel can't vouch for "..": try again (openat2(2)). */
static int open_below(int root, const char *path, uint64_t flags)
{
    int fd = -1;
    for (int attempt = 0; attempt < RACE_LIMIT; attempt++) {
        fd = sys_openat2(root, path, flags | O_CLOEXEC, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
        if (fd >= 0 || errno != EAGAIN)
            break;
    }
    return fd;
}

int root_open(struct executor *executor, const char *path, uint64_t flags)
{
    if (executor->root < 0)
        return refuse(executor, EBADF, "no Root was set before %s", path);
    return open_below(executor->root, *path ? path : ".", flags);
}

static int create(int parent, const char *name, enum make make, const struct owner *owner)
{
    if (make == MAKE_FILE) {
        int fd = openat(parent, name, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, owner->mode);
        if (fd < 0)
            return -1;
        close(fd);
    } else if (mkdirat(parent, name, owner->mode) < 0) {
        return -1;
    }
    int fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && (owner->uid || owner->gid))
        (void)!fchownat(fd, "", owner->uid, owner->gid, AT_EMPTY_PATH);
    return fd;
}

/* Replace the dangling link that ends path[0..end) by what it points to, keeping the rest. */
static int splice_link(int parent, const char *name, char path[PATH_MAX], size_t start, size_t end)
{
    char link[PATH_MAX], whole[2 * PATH_MAX];
    ssize_t length = readlinkat(parent, name, link, sizeof link - 1);
    if (length < 0)
        return errno == EINVAL || errno == ENOENT ? 0 : -1; /* lost a race: look again */
    link[length] = 0;
    int prefix = link[0] == '/' ? 0 : (int)start;
    int size = snprintf(whole, sizeof whole, "%.*s%s%s", prefix, path, link, path + end);
    if (size >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(path, whole, (size_t)size + 1);
    return 0;
}

/* Walk `path` as far as it exists and make what is missing; 1 means that a link was spliced in: walk again. */
static int walk(int root, char path[PATH_MAX], enum make make, const struct owner *owner, int *result)
{
    const struct owner directory = { .mode = 0755, .uid = owner->uid, .gid = owner->gid };
    int at = open_below(root, "/", O_PATH);
    for (size_t start = strspn(path, "/"); at >= 0 && path[start];) {
        size_t end = start + strcspn(path + start, "/");
        size_t next = end + strspn(path + end, "/");
        char name[NAME_MAX + 1], rest = path[end];
        if (end - start > NAME_MAX) {
            errno = ENAMETOOLONG;
            break;
        }
        memcpy(name, path + start, end - start);
        name[end - start] = 0;
        path[end] = 0;
        int fd = open_below(root, path, O_PATH);
        path[end] = rest;
        bool last = !path[next];
        if (fd < 0 && errno == ENOENT && make != MAKE_NOTHING)
            fd = create(at, name, last ? make : MAKE_DIRECTORY, last ? owner : &directory);
        if (fd < 0 && errno == EEXIST) {
            int spliced = splice_link(at, name, path, start, end);
            close(at);
            return spliced < 0 ? -1 : 1;
        }
        if (fd < 0)
            break;
        close(at);
        at = fd;
        start = next;
        if (last) {
            *result = at;
            return 0;
        }
    }
    if (at >= 0 && !path[strspn(path, "/")]) {
        *result = at;
        return 0;
    }
    int error = errno;
    if (at >= 0)
        close(at);
    errno = error;
    return -1;
}

/* Make the last component alone: mostly the directory it is to be in is there. -1 for whatever is less simple. */
static int make_last(int root, const char *path, enum make make, const struct owner *owner)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t length = slash ? (size_t)(slash - path) : 0;
    if (!*name || strlen(name) > NAME_MAX || !strcmp(name, ".") || !strcmp(name, "..") || length >= sizeof parent)
        return -1;
    memcpy(parent, path, length);
    parent[length] = 0;
    int at = open_below(root, length ? parent : ".", O_PATH | O_DIRECTORY);
    if (at < 0)
        return -1;
    int fd = create(at, name, make, owner); /* fails where a link ends in nothing, and the walk follows it */
    close(at);
    return fd;
}

int make_below(int root, const char *path, enum make make, const struct owner *owner)
{
    char pending[PATH_MAX];
    int result = *path ? open_below(root, path, O_PATH) : -1; /* mostly it is there, and the walk can be spared */
    if (result < 0 && errno == ENOENT && make != MAKE_NOTHING)
        result = make_last(root, path, make, owner);
    if (result >= 0)
        return result;
    if (strlen(path) >= sizeof pending) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(pending, path);
    for (int links = 0; links < LINK_LIMIT; links++) {
        int again = walk(root, pending, make, owner, &result);
        if (again <= 0)
            return again < 0 ? -1 : result;
    }
    errno = ELOOP;
    return -1;
}

/* Open a root path O_PATH; what is missing is made, a dangling link's target included. */
int root_make(struct executor *executor, const char *path, enum make make, const struct owner *owner)
{
    if (executor->root < 0)
        return refuse(executor, EBADF, "no Root was set before %s", path);
    return make_below(executor->root, path, make, owner);
}

int host_make(struct executor *executor, const char *path, enum make make, const struct owner *owner)
{
    if (path[0] != '/')
        return refuse(executor, EINVAL, "not an absolute path: %s", path);
    int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return -1;
    int fd = make_below(root, path, make, owner), error = errno;
    close(root);
    errno = error;
    return fd;
}

/* Open the directory that holds a root path's last component, making missing parents; `name` gets the component. */
int root_parent(struct executor *executor, const char *path, char name[NAME_MAX + 1])
{
    char parent[PATH_MAX];
    size_t length = strlen(path);
    while (length && path[length - 1] == '/')
        length--;
    size_t start = length;
    while (start && path[start - 1] != '/')
        start--;
    size_t size = length - start;
    if (!size || size > NAME_MAX || start >= sizeof parent)
        return refuse(executor, EINVAL, "not a file name: %s", path);
    memcpy(name, path + start, size);
    name[size] = 0;
    if (!strcmp(name, ".") || !strcmp(name, ".."))
        return refuse(executor, EINVAL, "not a file name: %s", path);
    memcpy(parent, path, start);
    parent[start] = 0;
    const struct owner owner = { .mode = 0755 };
    return root_make(executor, parent, MAKE_DIRECTORY, &owner);
}

/* Open a file of procfs, certain that it is procfs: a hostile image can put anything at /proc. */
int proc_open(struct executor *executor, const char *path, int flags)
{
    struct statfs filesystem;
    struct stat status;
    int proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (proc < 0)
        return -1;
    int fd = -1;
    if (fstatfs(proc, &filesystem) == 0 && fstat(proc, &status) == 0) {
        if (filesystem.f_type != PROC_SUPER_MAGIC || status.st_ino != PROC_ROOT_INODE)
            refuse(executor, EXDEV, "/proc is not the proc file system");
        else
            fd = sys_openat2(proc, path, (uint64_t)flags | O_CLOEXEC, 0,
                             RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS);
    }
    int error = errno;
    close(proc);
    errno = error;
    return fd;
}
