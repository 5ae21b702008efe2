/* Copies of host directories and files made before the child is: where the child's user may not go any more, and
 * shown with other owners (mount_setattr(2), "ID-mapped mounts"). `Bind` attaches them. */
#include "executor.h"
#include "kernel.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>

int write_id_map(pid_t pid, const char *name, const char *map)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : write(fd, map, strlen(map));
    int error = errno;
    if (fd >= 0)
        close(fd);
    errno = error;
    return size < 0 ? -1 : 0;
}

/* Start a process in new namespaces, its owners mapped, which waits until it is killed. */
static pid_t start_holder(uint64_t flags, const char *uid_map, const char *gid_map)
{
    struct clone_args arguments = { .flags = flags, .exit_signal = SIGCHLD };
    long pid = sys_clone3(&arguments);
    if (pid == 0)
        for (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);;)
            pause();
    if (pid > 0 && (write_id_map((pid_t)pid, "uid_map", uid_map) < 0 || write_id_map((pid_t)pid, "gid_map", gid_map) < 0)) {
        int error = errno;
        kill((pid_t)pid, SIGKILL);
        waitpid((pid_t)pid, NULL, 0);
        errno = error;
        return -1;
    }
    return (pid_t)pid;
}

static void end_holder(pid_t pid)
{
    int error = errno;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    errno = error;
}

/* A user namespace exists while somebody is in it or holds it open: a file shows one, or somebody is until we do. */
int open_map(const char *uid_map, const char *gid_map)
{
    char path[64];
    if (*uid_map == '/')
        return open(uid_map, O_RDONLY | O_CLOEXEC);
    pid_t pid = start_holder(CLONE_NEWUSER, uid_map, gid_map);
    if (pid < 0)
        return -1;
    snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    end_holder(pid);
    return fd;
}

int set_owners(int tree, int users, bool deep)
{
    struct mount_attr change = { .attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)users };
    return sys_mount_setattr(tree, "", AT_EMPTY_PATH | (deep ? AT_RECURSIVE : 0), &change);
}

/* Not every file system can show other owners (EINVAL): with `lenient` what can't is shown as it is. */
static int map_owners(int tree, const char *uid_map, const char *gid_map, bool deep, bool lenient)
{
    int users = open_map(uid_map, gid_map);
    if (users < 0)
        return -1;
    int result = set_owners(tree, users, deep);
    if (result < 0 && errno == EINVAL && lenient && deep)
        result = set_owners(tree, users, false);
    if (result < 0 && errno == EINVAL && lenient)
        result = 0;
    int error = errno;
    close(users);
    errno = error;
    return result;
}

/* Start a process in a new network namespace of the user namespace that is the file `user`. */
static pid_t start_guest(const char *user)
{
    struct clone_args arguments = { .exit_signal = SIGCHLD };
    int ready[2], fd = open(user, O_RDONLY | O_CLOEXEC);
    char said = 0;
    if (fd < 0 || pipe2(ready, O_CLOEXEC) < 0)
        return -1;
    long pid = sys_clone3(&arguments);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        if (sys_setns(fd, CLONE_NEWUSER) < 0 || sys_unshare(CLONE_NEWNET) < 0 || write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(fd);
    close(ready[1]);
    bool begun = pid > 0 && read(ready[0], &said, 1) == 1;
    close(ready[0]);
    if (pid > 0 && !begun) {
        end_holder((pid_t)pid);
        errno = EPERM;
        return -1;
    }
    return (pid_t)pid;
}

/* Keep a namespace of a process as a file. */
static int keep_namespace(struct executor *executor, pid_t pid, const char *kind, const char *path)
{
    char source[64];
    snprintf(source, sizeof source, "/proc/%d/ns/%s", pid, kind);
    int file = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
    int result = file < 0 ? -1 : sys_mount(source, path, NULL, 4096 /* MS_BIND */, NULL);
    if (result < 0)
        refuse(executor, errno, "keep the namespace %s", path);
    int error = errno;
    if (file >= 0)
        close(file);
    errno = error;
    return result;
}

int operate_hold(struct executor *executor, struct cursor *fields)
{
    const char *user = take_text(fields), *network = take_text(fields);
    const char *uid_map = take_text(fields), *gid_map = take_text(fields);
    const bool exists = !*uid_map;
    pid_t pid = exists ? start_guest(user) : start_holder(CLONE_NEWUSER | (*network ? CLONE_NEWNET : 0), uid_map, gid_map);
    if (pid < 0)
        return refuse(executor, errno, "make a user namespace");
    int result = exists ? 0 : keep_namespace(executor, pid, "user", user);
    if (result == 0 && *network)
        result = keep_namespace(executor, pid, "net", network);
    end_holder(pid);
    return result;
}

int operate_open_tree(struct executor *executor, struct cursor *fields)
{
    const char *source = take_text(fields);
    bool recursive = take_integer(fields);
    const char *uid_map = take_text(fields), *gid_map = take_text(fields);
    bool deep = take_integer(fields), lenient = take_integer(fields);
    if (executor->tree_count == TREE_LIMIT)
        return refuse(executor, EINVAL, "more than %d trees", TREE_LIMIT);
    int tree = sys_open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0));
    if (tree < 0)
        return refuse(executor, errno, "bind source %s", source);
    executor->trees[executor->tree_count++] = tree;
    /* A copy of what is shared (systemd shares everything) is its peer, and nothing shared can become a root
     * (pivot_root(2)). What the host mounts below later still shows. */
    struct mount_attr apart = { .propagation = 524288 /* MS_SLAVE */ };
    if (sys_mount_setattr(tree, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0), &apart) < 0)
        return refuse(executor, errno, "set %s apart", source);
    if (*uid_map && map_owners(tree, uid_map, gid_map, deep, lenient) < 0)
        return refuse(executor, errno, "map the owners of %s", source);
    return 0;
}
