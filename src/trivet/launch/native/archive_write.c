/* archive-write: a tar on standard input becomes a tree; see archive.h.
 *
 * Where an entry meets something that is there already:
 *
 *   parent directory   missing ones are made, links to directories are followed inside the root (/bin -> usr/bin)
 *   file, link, node   replace anything but a directory, a link as itself; over a directory they are an error
 *   directory          one that is there gets the entry's attributes; a link to one is kept as it is, and so is the
 *                      directory it leads to; anything else is replaced
 *
 * GNU tar does the same with --keep-directory-symlink, but for a file over an empty directory, which it replaces.
 * Docker's `cp` refuses to replace a file by a directory, and its COPY a link to one.
 */
#define _GNU_SOURCE
#include "archive.h"
#include "builtin.h"
#include "executor.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <time.h>

enum {
    EXTENSION_LIMIT = 1 << 20, /* bytes of one extended header */
    XATTR_LIMIT = 256,
    LATE_LIMIT = 1 << 18, /* directories that get their times at the end */
    ATTEMPTS = 16,
};

struct late { /* a directory's time, which every entry made in it changes */
    char *name;
    struct timespec time;
};

struct input {
    char name[PATH_MAX], link[PATH_MAX]; /* of the entry at hand, as checked components without leading slash */
    char given_name[PATH_MAX], given_link[PATH_MAX]; /* from an extension header */
    char xattr[XATTR_LIMIT];
    size_t xattr_size;
    uint64_t size, uid, gid, mode, device_major, device_minor;
    int64_t given_size, given_uid, given_gid; /* -1: none */
    struct timespec time;
    bool given_time;
    char type;
    int root;
    const char *target; /* a directory below the root */
    struct late *late;
    size_t late_count;
};

static int get(void *data, size_t length, size_t *got)
{
    *got = 0;
    while (*got < length) {
        ssize_t count = read(STDIN_FILENO, (char *)data + *got, length - *got);
        if (count < 0 && errno != EINTR)
            return fail(errno, "cannot read the archive");
        if (count == 0)
            return 0;
        *got += count > 0 ? (size_t)count : 0;
    }
    return 0;
}

static int get_all(void *data, size_t length)
{
    size_t got;
    int status = get(data, length, &got);
    return status || got == length ? status : fail(0, "the archive is cut short");
}

static int skip(uint64_t size)
{
    char data[BUFFER];
    for (uint64_t left = size + -size % BLOCK; left;) {
        size_t part = left < sizeof data ? (size_t)left : sizeof data;
        if (get_all(data, part))
            return STATUS_FAILED;
        left -= part;
    }
    return 0;
}

/* Octal, or base 256 where the first bit is set (GNU). False when it is neither or too large. */
static bool number(const char *field, size_t size, uint64_t *value)
{
    const unsigned char *at = (const unsigned char *)field, *end = at + size;
    *value = 0;
    if (*at & 0x80) {
        if (*at & 0x40) /* negative */
            return false;
        *value = *at++ & 0x3f;
        for (; at < end; at++) {
            if (*value >> 55)
                return false;
            *value = *value << 8 | *at;
        }
        return true;
    }
    while (at < end && *at == ' ')
        at++;
    for (; at < end && *at >= '0' && *at <= '7'; at++) {
        if (*value >> 60)
            return false;
        *value = *value << 3 | (uint64_t)(*at - '0');
    }
    return at == end || *at == 0 || *at == ' ';
}

static bool checksum_is_right(const struct header *header)
{
    uint64_t said;
    return number(header->checksum, sizeof header->checksum, &said) && said == header_checksum(header);
}

/* Reduce a name to its components: no "", no "."; false with ".." or when it is too long. */
static bool clean(const char *name, char result[PATH_MAX])
{
    size_t used = 0;
    for (const char *at = name; *at;) {
        size_t length = strcspn(at, "/");
        bool nothing = length == 0 || (length == 1 && *at == '.');
        if ((length == 2 && at[0] == '.' && at[1] == '.') || length > NAME_MAX || used + length + 2 > PATH_MAX)
            return false;
        if (!nothing) {
            if (used)
                result[used++] = '/';
            memcpy(result + used, at, length);
            used += length;
        }
        at += length + (at[length] == '/');
    }
    result[used] = 0;
    return true;
}

static bool copy_text(char result[PATH_MAX], const char *value, size_t size)
{
    if (size >= PATH_MAX || memchr(value, 0, size))
        return false;
    memcpy(result, value, size);
    result[size] = 0;
    return true;
}

/* Take one PAX record; keys that say nothing to us are ignored. False when the value is impossible. */
static bool take_record(struct input *in, const char *key, char *value, size_t size)
{
    if (strcmp(key, "path") == 0)
        return copy_text(in->given_name, value, size);
    if (strcmp(key, "linkpath") == 0)
        return copy_text(in->given_link, value, size);
    if (strcmp(key, "SCHILY.xattr." CAPABILITY) == 0 && size <= sizeof in->xattr) {
        memcpy(in->xattr, value, size);
        in->xattr_size = size;
    }
    int64_t *field = strcmp(key, "size") == 0  ? &in->given_size
                     : strcmp(key, "uid") == 0 ? &in->given_uid
                     : strcmp(key, "gid") == 0 ? &in->given_gid
                                               : NULL;
    char *end = value;
    errno = 0;
    if (field)
        *field = strtoll(value, &end, 10);
    if (strcmp(key, "mtime") == 0) {
        in->time = (struct timespec){ .tv_sec = strtoll(value, &end, 10) };
        in->given_time = true;
        end += strspn(end, ".0123456789");
    } else if (!field) {
        return strncmp(key, "GNU.sparse.", 11) != 0;
    }
    return end == value + size && size && !errno && (!field || *field >= 0);
}

static int take_pax(struct input *in, char *data, size_t size)
{
    for (char *at = data, *last = data + size; at < last;) {
        char *space, *equals;
        unsigned long length = isdigit((unsigned char)*at) ? strtoul(at, &space, 10) : 0; /* it skips white space */
        if (!length || *space != ' ' || length < 5 || length > (size_t)(last - at) || at[length - 1] != '\n')
            return fail(0, "the archive has a malformed extended header");
        at[length - 1] = 0;
        equals = space >= at + length ? NULL : memchr(space, '=', (size_t)(at + length - space));
        if (!equals)
            return fail(0, "the archive has a malformed extended header");
        *equals = 0;
        if (!take_record(in, space + 1, equals + 1, (size_t)(at + length - 2 - equals)))
            return fail(0, "the archive has an impossible value for %s", space + 1);
        at += length;
    }
    return 0;
}

/* Read the content of an extension header (PAX x, GNU L and K); a global one (g) only sets defaults, it is skipped. */
static int take_extension(struct input *in)
{
    if (in->type == 'g')
        return skip(in->size);
    if (in->size > EXTENSION_LIMIT)
        return fail(0, "the archive has an extended header of %llu bytes", (unsigned long long)in->size);
    size_t whole = (size_t)(in->size + -in->size % BLOCK);
    char *data = calloc(1, whole + 1);
    if (!data)
        return fail(errno, "cannot read the archive");
    int status = get_all(data, whole);
    if (!status && in->type == 'x')
        status = take_pax(in, data, (size_t)in->size);
    else if (!status && !copy_text(in->type == 'L' ? in->given_name : in->given_link, data, strlen(data)))
        status = fail(0, "the archive has a name that is too long");
    free(data);
    return status;
}

/* Fill `in` from a header and what extension headers before it said. */
static int take_header(struct input *in, const struct header *header)
{
    char name[PATH_MAX], link[PATH_MAX];
    uint64_t time;
    bool ustar = memcmp(header->magic, "ustar", 6) == 0; /* GNU's "ustar  " has no prefix field */
    bool right = number(header->size, sizeof header->size, &in->size) && number(header->mode, sizeof header->mode, &in->mode)
                 && number(header->uid, sizeof header->uid, &in->uid) && number(header->gid, sizeof header->gid, &in->gid);
    if (!number(header->mtime, sizeof header->mtime, &time))
        time = 0;
    number(header->major, sizeof header->major, &in->device_major);
    number(header->minor, sizeof header->minor, &in->device_minor);
    if (!checksum_is_right(header) || !right)
        return fail(0, "the archive has a malformed header");
    in->type = header->type ? header->type : '0';
    if (strchr("xgLK", in->type))
        return 0;
    int prefix = ustar ? (int)strnlen(header->prefix, sizeof header->prefix) : 0;
    snprintf(name, sizeof name, "%.*s%s%.100s", prefix, header->prefix, prefix ? "/" : "", header->name);
    snprintf(link, sizeof link, "%.100s", header->link);
    const char *real = *in->given_name ? in->given_name : name;
    if (!clean(real, in->name))
        return fail(0, "the archive has an entry that leads out of the target: %s", real);
    strcpy(in->link, *in->given_link ? in->given_link : link);
    if (in->given_size >= 0)
        in->size = (uint64_t)in->given_size;
    if (in->given_uid >= 0)
        in->uid = (uint64_t)in->given_uid;
    if (in->given_gid >= 0)
        in->gid = (uint64_t)in->given_gid;
    if (!in->given_time)
        in->time = (struct timespec){ .tv_sec = (time_t)time };
    if (in->uid >= UINT32_MAX || in->gid >= UINT32_MAX)
        return fail(0, "%s has an owner that is out of range", in->name);
    if (in->type == '0' && *real && real[strlen(real) - 1] == '/') /* before ustar directories had no type */
        in->type = '5';
    return 0;
}

/* The path of an entry below the root; false when it is too long. */
static bool below_root(const struct input *in, const char *name, char result[PATH_MAX])
{
    if (snprintf(result, PATH_MAX, "%s/%s", in->target, name) < PATH_MAX)
        return true;
    errno = ENAMETOOLONG;
    return false;
}

/* Open a directory of the archive, making it and its parents; links are followed, but never out of the root. */
static int open_parent(const struct input *in, const char *name)
{
    static const struct owner owner = { .mode = 0755 };
    char path[PATH_MAX];
    if (!below_root(in, name, path))
        return -1;
    int fd = resolve(in->root, path, O_PATH | O_DIRECTORY, RESOLVE_IN_ROOT);
    return fd >= 0 || errno != ENOENT ? fd : make_below(in->root, path, MAKE_DIRECTORY, &owner);
}

/* Split in place: the parent's path stays in `path`, the last component is returned. */
static char *split(char path[PATH_MAX])
{
    char *slash = strrchr(path, '/');
    if (slash)
        *slash = 0;
    return slash ? slash + 1 : path;
}

/* Close a descriptor and keep why `result` is what it is. */
static int close_after(int fd, int result)
{
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

/* For a link or node that was just made, certain that it is that: somebody may have put something else there. */
static int set_owner_and_time(int parent, const char *name, mode_t type, const struct input *in)
{
    const struct timespec times[2] = { in->time, in->time };
    struct stat info;
    int fd = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC), result = -1;
    if (fd < 0)
        return -1;
    if (fstat(fd, &info) == 0 && (info.st_mode & S_IFMT) == type && info.st_nlink == 1)
        result = fchownat(fd, "", (uid_t)in->uid, (gid_t)in->gid, AT_EMPTY_PATH);
    else
        errno = ESTALE;
    if (result == 0)
        (void)!utimensat(fd, "", times, AT_EMPTY_PATH);
    return close_after(fd, result);
}

static void remember_time(struct input *in)
{
    struct late *late = in->late_count < LATE_LIMIT ? realloc(in->late, (in->late_count + 1) * sizeof *late) : NULL;
    if (!late)
        return; /* only a time is lost */
    in->late = late;
    late[in->late_count].time = in->time;
    if ((late[in->late_count].name = strdup(in->name)))
        in->late_count++;
}

static void set_late_times(struct input *in)
{
    while (in->late_count) {
        struct late *late = &in->late[--in->late_count];
        struct timespec times[2] = { late->time, late->time };
        char path[PATH_MAX];
        int fd = -1;
        if (below_root(in, late->name, path))
            fd = resolve(in->root, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, RESOLVE_IN_ROOT);
        if (fd >= 0) {
            futimens(fd, times);
            close(fd);
        }
        free(late->name);
    }
}

/* Make sure that there is a directory of this name, replacing what is none; 1 if it is a link to one, which stays. */
static int ensure_directory(const struct input *in, int parent, const char *name)
{
    struct stat info;
    char path[PATH_MAX];
    if (!below_root(in, in->name, path))
        return -1;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        if (mkdirat(parent, name, 0700) == 0)
            return 0;
        if (errno != EEXIST)
            return -1;
        if (fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(info.st_mode))
            return 0;
        int fd = resolve(in->root, path, O_PATH | O_DIRECTORY, RESOLVE_IN_ROOT);
        if (fd >= 0)
            return close(fd), 1;
        if (unlinkat(parent, name, 0) < 0 && errno != ENOENT && errno != EISDIR)
            return -1;
    }
    errno = ESTALE;
    return -1;
}

static int make_directory(struct input *in, int parent, const char *name)
{
    int linked = ensure_directory(in, parent, name);
    if (linked)
        return linked < 0 ? -1 : 0;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int result = fchown(fd, (uid_t)in->uid, (gid_t)in->gid) || fchmod(fd, in->mode & 07777) ? -1 : 0;
    remember_time(in);
    return close_after(fd, result);
}

static int write_all(int fd, const char *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t count = write(fd, data + done, size - done);
        if (count < 0 && errno != EINTR)
            return -1;
        done += count > 0 ? (size_t)count : 0;
    }
    return 0;
}

static int copy_content(int fd, const char *name, uint64_t size)
{
    char data[BUFFER];
    for (uint64_t left = size; left;) {
        size_t part = left < sizeof data ? (size_t)left : sizeof data;
        if (get_all(data, part))
            return STATUS_FAILED;
        if (write_all(fd, data, part) < 0)
            return fail(errno, "cannot write %s", name);
        left -= part;
    }
    return size % BLOCK ? get_all(data, (size_t)(-size % BLOCK)) : 0;
}

/* Make a file under a temporary name, complete, so that a broken stream leaves the old one in place. */
static int make_file(struct input *in, int parent, const char *name)
{
    struct timespec times[2] = { in->time, in->time };
    int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    int status = copy_content(fd, in->name, in->size);
    in->size = 0;
    if (!status && (fchown(fd, (uid_t)in->uid, (gid_t)in->gid) < 0 || fchmod(fd, in->mode & 07777) < 0))
        status = -1;
    if (!status && in->xattr_size && fsetxattr(fd, CAPABILITY, in->xattr, in->xattr_size, 0) < 0)
        status = -1;
    int error = errno;
    futimens(fd, times);
    errno = error;
    return close_after(fd, status);
}

static int make_node(struct input *in, int parent, const char *name)
{
    mode_t type = in->type == '3' ? S_IFCHR : in->type == '4' ? S_IFBLK : S_IFIFO;
    dev_t device = type == S_IFIFO ? 0 : makedev((unsigned)in->device_major, (unsigned)in->device_minor);
    if (type == S_IFCHR && device == 0) { /* overlay takes it for a deletion */
        errno = EPERM;
        return -1;
    }
    return mknodat(parent, name, type | (in->mode & 0777), device) || set_owner_and_time(parent, name, type, in) ? -1 : 0;
}

static int make_symbolic_link(struct input *in, int parent, const char *name)
{
    return symlinkat(in->link, parent, name) || set_owner_and_time(parent, name, S_IFLNK, in) ? -1 : 0;
}

static int make_hard_link(struct input *in, int parent, const char *name)
{
    char link[PATH_MAX], path[PATH_MAX];
    if (!clean(in->link, link)) {
        errno = EXDEV;
        return -1;
    }
    char *last = split(link);
    if (!below_root(in, last == link ? "" : link, path))
        return -1;
    int from = resolve(in->root, path, O_PATH | O_DIRECTORY, RESOLVE_IN_ROOT);
    return from < 0 ? -1 : close_after(from, linkat(from, last, parent, name, 0));
}

/* Copy what is left of one descriptor into another. */
static int copy_all(int from, int to)
{
    char data[BUFFER];
    ssize_t count;
    while ((count = read(from, data, sizeof data)) > 0)
        if (write_all(to, data, (size_t)count) < 0)
            return -1;
    return (int)count;
}

/* A file that is a mount point (/etc/hosts) can't be replaced: its content is. */
static int overwrite(int parent, const char *temporary, const char *name)
{
    int from = openat(parent, temporary, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (from < 0)
        return -1;
    int to = openat(parent, name, O_WRONLY | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    int result = to < 0 ? -1 : close_after(to, copy_all(from, to));
    return close_after(from, result);
}

/* Make anything but a directory beside its final name and move it there in one step. */
static int place(struct input *in, int parent, const char *name)
{
    char temporary[64];
    static unsigned counter;
    snprintf(temporary, sizeof temporary, ".trivet-%d-%u", (int)getpid(), counter++);
    int status = in->type == '2'   ? make_symbolic_link(in, parent, temporary)
                 : in->type == '1' ? make_hard_link(in, parent, temporary)
                 : strchr("346", in->type) ? make_node(in, parent, temporary)
                                           : make_file(in, parent, temporary);
    if (!status && renameat(parent, temporary, parent, name) < 0)
        status = errno == EBUSY && strchr("07", in->type) ? overwrite(parent, temporary, name) : -1;
    int error = errno;
    unlinkat(parent, temporary, 0); /* also after success: rename(2) of two links to one file does nothing */
    errno = error;
    return status;
}

static int extract(struct input *in)
{
    char path[PATH_MAX];
    strcpy(path, in->name);
    if (!strchr("01234567", in->type))
        return fail(0, "%s has type '%c', which is not supported", in->name, in->type);
    if (!*path) /* the target itself */
        return in->type == '5' ? 0 : fail(0, "the archive has an entry without a name");
    char *name = split(path);
    int parent = open_parent(in, name == path ? "" : path);
    if (parent < 0)
        return fail(errno == ENOENT ? ESTALE : errno, "cannot make %s", in->name);
    int status = in->type == '5' ? make_directory(in, parent, name) : place(in, parent, name);
    int error = errno == ENOENT ? ESTALE : errno;
    close(parent);
    return status < 0 ? fail(error, "cannot make %s", in->name) : status;
}

static void forget(struct input *in)
{
    *in->given_name = *in->given_link = 0;
    in->given_size = in->given_uid = in->given_gid = -1;
    in->given_time = false;
    in->xattr_size = 0;
}

/* Work through the archive up to its end mark or the end of input. */
static int extract_all(struct input *in)
{
    static const struct header zeros;
    struct header header;
    size_t got;
    forget(in);
    for (;;) {
        int status = get(&header, sizeof header, &got);
        if (status || got == 0 || (got == sizeof header && memcmp(&header, &zeros, sizeof header) == 0))
            return status;
        if (got < sizeof header)
            return fail(0, "the archive is cut short");
        if ((status = take_header(in, &header)))
            return status;
        if (strchr("xgLK", in->type)) {
            if ((status = take_extension(in)))
                return status;
            continue;
        }
        if ((status = extract(in)))
            return status;
        forget(in);
    }
}

int builtin_archive_write(int root, const char *path)
{
    static struct input in;
    char rest[BUFFER];
    in.root = root;
    in.target = *path ? path : "/";
    int target = resolve(root, in.target, O_PATH | O_DIRECTORY, RESOLVE_IN_ROOT);
    if (target < 0)
        return fail(errno, "cannot write to %s", path);
    close(target);
    umask(0);
    int status = extract_all(&in);
    set_late_times(&in);
    free(in.late);
    size_t got = 1;
    while (!status && got) /* what follows the end mark, so that the writer is not cut off */
        status = get(rest, sizeof rest, &got);
    return status;
}
