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

/* A user namespace exists while somebody is in it or holds it open: somebody is, until we do. */
static int open_map(const char *uid_map, const char *gid_map)
{
    struct clone_args arguments = { .flags = CLONE_NEWUSER, .exit_signal = SIGCHLD };
    char path[64];
    long pid = sys_clone3(&arguments);
    if (pid == 0)
        for (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);;)
            pause();
    if (pid < 0)
        return -1;
    int fd = -1;
    snprintf(path, sizeof path, "/proc/%ld/ns/user", pid);
    if (write_id_map((pid_t)pid, "uid_map", uid_map) == 0 && write_id_map((pid_t)pid, "gid_map", gid_map) == 0)
        fd = open(path, O_RDONLY | O_CLOEXEC);
    int error = errno;
    kill((pid_t)pid, SIGKILL);
    waitpid((pid_t)pid, NULL, 0);
    errno = error;
    return fd;
}

static int map_owners(int tree, const char *uid_map, const char *gid_map, bool deep)
{
    int users = open_map(uid_map, gid_map);
    if (users < 0)
        return -1;
    struct mount_attr change = { .attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)users };
    int result = sys_mount_setattr(tree, "", AT_EMPTY_PATH | (deep ? AT_RECURSIVE : 0), &change);
    int error = errno;
    close(users);
    errno = error;
    return result;
}

int operate_open_tree(struct executor *executor, struct cursor *fields)
{
    const char *source = take_text(fields);
    bool recursive = take_integer(fields);
    const char *uid_map = take_text(fields), *gid_map = take_text(fields);
    bool deep = take_integer(fields);
    if (executor->tree_count == TREE_LIMIT)
        return refuse(executor, EINVAL, "more than %d trees", TREE_LIMIT);
    int tree = sys_open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (recursive ? AT_RECURSIVE : 0));
    if (tree < 0)
        return refuse(executor, errno, "bind source %s", source);
    executor->trees[executor->tree_count++] = tree;
    if (*uid_map && map_owners(tree, uid_map, gid_map, deep) < 0)
        return refuse(executor, errno, "map the owners of %s", source);
    return 0;
}
