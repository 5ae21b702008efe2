/* What a new file system hides, copied into it before it does (mount option tmpcopyup). */
#include "executor.h"
#include "kernel.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

enum { DEPTH_LIMIT = 64, CHUNK = 65536 };

static int copy_tree(int from, int to, int depth);

static int copy_bytes(int from, int to)
{
    static char chunk[CHUNK];
    ssize_t size;
    while ((size = read(from, chunk, sizeof chunk)) > 0)
        for (ssize_t done = 0, part; done < size; done += part)
            if ((part = write(to, chunk + done, (size_t)(size - done))) < 0)
                return -1;
    return size < 0 ? -1 : 0;
}

static int copy_file(int from, int to, const char *name, const struct stat *status)
{
    int source = openat(from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    int target = source < 0 ? -1 : openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int result = target < 0 ? -1 : copy_bytes(source, target);
    if (result == 0)
        result = fchown(target, status->st_uid, status->st_gid) || fchmod(target, status->st_mode & 07777) ? -1 : 0;
    int error = errno;
    if (source >= 0)
        close(source);
    if (target >= 0)
        close(target);
    errno = error;
    return result;
}

static int copy_directory(int from, int to, const char *name, const struct stat *status, int depth)
{
    int source = openat(from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), target = -1;
    if (source >= 0 && mkdirat(to, name, 0700) == 0)
        target = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int result = target < 0 ? -1 : copy_tree(source, target, depth + 1);
    if (result == 0)
        result = fchown(target, status->st_uid, status->st_gid) || fchmod(target, status->st_mode & 07777) ? -1 : 0;
    int error = errno;
    if (source >= 0)
        close(source);
    if (target >= 0)
        close(target);
    errno = error;
    return result;
}

static int copy_other(int from, int to, const char *name, const struct stat *status)
{
    char link[PATH_MAX];
    if (!S_ISLNK(status->st_mode))
        return mknodat(to, name, status->st_mode, status->st_rdev) < 0
            ? -1
            : fchownat(to, name, status->st_uid, status->st_gid, AT_SYMLINK_NOFOLLOW);
    ssize_t length = readlinkat(from, name, link, sizeof link - 1);
    if (length < 0)
        return -1;
    link[length] = 0;
    if (symlinkat(link, to, name) < 0)
        return -1;
    return fchownat(to, name, status->st_uid, status->st_gid, AT_SYMLINK_NOFOLLOW);
}

static int copy_entry(int from, int to, const char *name, int depth)
{
    struct stat status;
    if (!strcmp(name, ".") || !strcmp(name, ".."))
        return 0;
    if (fstatat(from, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    if (S_ISREG(status.st_mode))
        return copy_file(from, to, name, &status);
    if (S_ISDIR(status.st_mode))
        return copy_directory(from, to, name, &status, depth);
    return copy_other(from, to, name, &status);
}

static int copy_tree(int from, int to, int depth)
{
    int result = 0;
    if (depth == DEPTH_LIMIT) {
        errno = ELOOP;
        return -1;
    }
    DIR *directory = fdopendir(dup(from));
    if (!directory)
        return -1;
    for (struct dirent *entry; result == 0 && (entry = readdir(directory));)
        result = copy_entry(from, to, entry->d_name, depth);
    int error = errno;
    closedir(directory);
    errno = error;
    return result;
}

int copy_up(int target, int tree)
{
    int from = openat(target, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int to = from < 0 ? -1 : openat(tree, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = to < 0 ? -1 : copy_tree(from, to, 0), error = errno;
    if (from >= 0)
        close(from);
    if (to >= 0)
        close(to);
    errno = error;
    return result;
}
