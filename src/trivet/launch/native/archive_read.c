/* archive-read: a tree becomes a tar on standard output; see archive.h.
 *
 * layer-read: what overlayfs has written into an upper directory becomes a layer, its whiteouts those of the image
 * specification. A file that has such a name itself can't be told in a layer: that fails. */
#define _GNU_SOURCE
#include "archive.h"
#include "builtin.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

enum {
    DEPTH_LIMIT = 512, /* one descriptor per level */
    ATTEMPTS = 16,
    CHANGED = -1,
};

struct link {
    dev_t device;
    ino_t inode;
    char *name;
};

struct output {
    char buffer[BUFFER];
    size_t used;
    char name[PATH_MAX]; /* of the entry at hand, in the archive */
    bool layer;
    struct link *links;  /* files with several names that were written once; a hash table, size a power of two */
    size_t link_count, link_size;
};

static int flush(struct output *out)
{
    for (size_t done = 0; done < out->used;) {
        ssize_t count = write(STDOUT_FILENO, out->buffer + done, out->used - done);
        if (count < 0 && errno != EINTR)
            return fail(errno, "cannot write the archive");
        done += count > 0 ? (size_t)count : 0;
    }
    out->used = 0;
    return 0;
}

static int put(struct output *out, const void *data, size_t length)
{
    while (length) {
        size_t part = length < BUFFER - out->used ? length : BUFFER - out->used;
        memcpy(out->buffer + out->used, data, part);
        data = (const char *)data + part;
        length -= part;
        out->used += part;
        if (out->used == BUFFER && flush(out))
            return STATUS_FAILED;
    }
    return 0;
}

static int pad(struct output *out, uint64_t size)
{
    static const char zeros[BLOCK];
    return put(out, zeros, (size_t)(-size % BLOCK));
}

/* A number in octal; one that does not fit is left 0 and told by a PAX record. */
static void put_octal(char *field, size_t size, uint64_t value)
{
    bool fits = value < 1ULL << (3 * (size - 1));
    snprintf(field, size, "%0*llo", (int)size - 1, fits ? (unsigned long long)value : 0ULL);
}

static void put_checksum(struct header *header)
{
    snprintf(header->checksum, sizeof header->checksum, "%06o", header_checksum(header));
}

struct pax {
    char text[2 * PATH_MAX + 1024]; /* two names, a capability, three numbers */
    size_t length;
};

/* Add "LENGTH KEY=VALUE\n", where LENGTH counts its own digits. */
static void pax_add(struct pax *pax, const char *key, const void *value, size_t size)
{
    size_t body = strlen(key) + size + 3, digits = 1;
    while ((size_t)snprintf(NULL, 0, "%zu", body + digits) != digits)
        digits++;
    pax->length += (size_t)sprintf(pax->text + pax->length, "%zu %s=", body + digits, key);
    memcpy(pax->text + pax->length, value, size);
    pax->length += size;
    pax->text[pax->length++] = '\n';
}

static void pax_add_number(struct pax *pax, const char *key, uint64_t value, unsigned digits)
{
    char text[24];
    if (value >> (3 * digits))
        pax_add(pax, key, text, (size_t)sprintf(text, "%llu", (unsigned long long)value));
}

static int put_header(struct output *out, const struct stat *info, char type, const char *link, int fd)
{
    struct header header = { .type = type, .magic = "ustar", .version = { '0', '0' } };
    struct pax pax;
    char xattr[256];
    pax.length = 0;
    uint64_t size = type == '0' ? (uint64_t)info->st_size : 0;
    if (strlen(out->name) > sizeof header.name)
        pax_add(&pax, "path", out->name, strlen(out->name));
    if (strlen(link) > sizeof header.link)
        pax_add(&pax, "linkpath", link, strlen(link));
    pax_add_number(&pax, "uid", info->st_uid, 7);
    pax_add_number(&pax, "gid", info->st_gid, 7);
    pax_add_number(&pax, "size", size, 11);
    ssize_t length = fd >= 0 ? fgetxattr(fd, CAPABILITY, xattr, sizeof xattr) : -1;
    if (length > 0)
        pax_add(&pax, "SCHILY.xattr." CAPABILITY, xattr, (size_t)length);
    int status = 0;
    if (pax.length) {
        struct header extension = { .name = "./PaxHeaders/entry", .type = 'x', .magic = "ustar", .version = { '0', '0' } };
        put_octal(extension.mode, sizeof extension.mode, 0644);
        put_octal(extension.size, sizeof extension.size, pax.length);
        put_checksum(&extension);
        status = put(out, &extension, BLOCK) || put(out, pax.text, pax.length) || pad(out, pax.length);
    }
    memcpy(header.name, out->name, strnlen(out->name, sizeof header.name));
    memcpy(header.link, link, strnlen(link, sizeof header.link));
    put_octal(header.mode, sizeof header.mode, info->st_mode & 07777);
    put_octal(header.uid, sizeof header.uid, info->st_uid);
    put_octal(header.gid, sizeof header.gid, info->st_gid);
    put_octal(header.size, sizeof header.size, size);
    put_octal(header.mtime, sizeof header.mtime, info->st_mtime > 0 ? (uint64_t)info->st_mtime : 0);
    if (type == '3' || type == '4') {
        put_octal(header.major, sizeof header.major, major(info->st_rdev));
        put_octal(header.minor, sizeof header.minor, minor(info->st_rdev));
    }
    put_checksum(&header);
    return status || put(out, &header, BLOCK) ? STATUS_FAILED : 0;
}

static struct link *link_slot(struct link *links, size_t size, dev_t device, ino_t inode)
{
    size_t at = (inode * 2654435761u ^ device) & (size - 1);
    while (links[at].name && (links[at].inode != inode || links[at].device != device))
        at = (at + 1) & (size - 1);
    return &links[at];
}

/* The name under which this file was written already; remembers it if it was not. NULL also when memory is short. */
static const char *known_link(struct output *out, const struct stat *info)
{
    if (2 * out->link_count >= out->link_size) {
        size_t size = out->link_size ? 2 * out->link_size : 1024;
        struct link *links = calloc(size, sizeof *links);
        if (!links)
            return NULL;
        for (size_t i = 0; i < out->link_size; i++)
            if (out->links[i].name)
                *link_slot(links, size, out->links[i].device, out->links[i].inode) = out->links[i];
        free(out->links);
        out->links = links;
        out->link_size = size;
    }
    struct link *slot = link_slot(out->links, out->link_size, info->st_dev, info->st_ino);
    if (slot->name)
        return slot->name;
    *slot = (struct link){ info->st_dev, info->st_ino, strdup(out->name) };
    out->link_count += slot->name != NULL;
    return NULL;
}

/* Write exactly as many bytes as the header promised: a file that shrinks meanwhile is filled up with zeros. */
static int put_content(struct output *out, int fd, uint64_t size)
{
    char data[BUFFER];
    for (uint64_t left = size; left;) {
        size_t wanted = left < sizeof data ? (size_t)left : sizeof data;
        ssize_t count = read(fd, data, wanted);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail(errno, "cannot read %s", out->name);
        if (count == 0)
            memset(data, 0, wanted);
        size_t part = count ? (size_t)count : wanted;
        if (put(out, data, part))
            return STATUS_FAILED;
        left -= part;
    }
    return pad(out, size);
}

static int put_file(struct output *out, int fd, const struct stat *info)
{
    const char *first = info->st_nlink > 1 ? known_link(out, info) : NULL;
    if (first)
        return put_header(out, info, '1', first, -1);
    int status = put_header(out, info, '0', "", fd);
    return status ? status : put_content(out, fd, (uint64_t)info->st_size);
}

static const char whiteout[] = ".wh.", opaque_mark[] = ".wh..wh..opq", opaque[] = "trusted.overlay.opaque";

/* Put `mark` before the last component of the name at hand: the names of files that hide others. */
static int put_whiteout(struct output *out, const struct stat *info)
{
    const struct stat empty = { .st_mode = S_IFREG, .st_mtime = info->st_mtime };
    char *slash = strrchr(out->name, '/'), *last = slash ? slash + 1 : out->name;
    size_t length = strlen(last);
    if (strlen(out->name) + sizeof whiteout > PATH_MAX)
        return fail(ENAMETOOLONG, "cannot read %s", out->name);
    memmove(last + sizeof whiteout - 1, last, length + 1);
    memcpy(last, whiteout, sizeof whiteout - 1);
    int status = put_header(out, &empty, '0', "", -1);
    memmove(last, last + sizeof whiteout - 1, length + 1);
    return status;
}

/* The name at hand is a directory's, with its slash. */
static int put_opaque(struct output *out, int fd, const struct stat *info)
{
    const struct stat empty = { .st_mode = S_IFREG, .st_mtime = info->st_mtime };
    char value = 0;
    size_t length = strlen(out->name);
    if (!out->layer || fgetxattr(fd, opaque, &value, 1) != 1 || value != 'y')
        return 0;
    memcpy(out->name + length, opaque_mark, sizeof opaque_mark);
    int status = put_header(out, &empty, '0', "", -1);
    out->name[length] = 0;
    return status;
}

static int put_other(struct output *out, int fd, const struct stat *info)
{
    char link[PATH_MAX] = "";
    if (out->layer && S_ISCHR(info->st_mode) && info->st_rdev == 0)
        return put_whiteout(out, info);
    switch (info->st_mode & S_IFMT) {
    case S_IFLNK:
        if (readlinkat(fd, "", link, sizeof link - 1) < 0)
            return fail(errno, "cannot read link %s", out->name);
        return put_header(out, info, '2', link, -1);
    case S_IFCHR:
        return put_header(out, info, '3', "", -1);
    case S_IFBLK:
        return put_header(out, info, '4', "", -1);
    case S_IFIFO:
        return put_header(out, info, '6', "", -1);
    default: /* a socket means nothing without its listener */
        return 0;
    }
}

/* The kernel's own file systems are not content: with "/" nobody means to copy /proc. */
static bool is_virtual(int fd)
{
    static const unsigned long magics[] = { 0x9fa0, 0x62656572, 0x27e0eb, 0x63677270, 0x1cd1, 0x19800202 };
    struct statfs info;
    if (fstatfs(fd, &info) < 0)
        return false;
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++)
        if ((unsigned long)info.f_type == magics[i])
            return true;
    return false;
}

static int put_entry(struct output *out, int parent, const char *name, int depth);

/* `fd` is closed; names are put at `end` of the entry's name. */
static int put_children(struct output *out, int fd, size_t end, int depth)
{
    DIR *directory = fdopendir(fd);
    if (!directory)
        return close(fd), fail(ENOMEM, "cannot read %s", out->name);
    int status = 0;
    struct dirent *entry;
    while (!status && (errno = 0, entry = readdir(directory))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        strcpy(out->name + end, entry->d_name);
        if (out->layer && !strncmp(entry->d_name, whiteout, sizeof whiteout - 1)) {
            status = fail(0, "cannot tell %s in a layer", out->name);
            break;
        }
        status = put_entry(out, dirfd(directory), entry->d_name, depth);
    }
    if (!status && errno) {
        out->name[end] = 0;
        status = fail(errno, "cannot read %s", out->name);
    }
    closedir(directory);
    return status;
}

static int put_directory(struct output *out, int fd, const struct stat *info, int depth)
{
    size_t length = strlen(out->name);
    if (depth > DEPTH_LIMIT || length + NAME_MAX + 2 > PATH_MAX)
        return close(fd), fail(0, "cannot read %s: directories are nested too deeply", out->name);
    strcpy(out->name + length, "/");
    int status = put_header(out, info, '5', "", -1) || put_opaque(out, fd, info) ? STATUS_FAILED : 0;
    status = status || (depth && is_virtual(fd)) ? (close(fd), status) : put_children(out, fd, length + 1, depth + 1);
    out->name[length] = 0;
    return status;
}

/* Write the entry that `handle` (O_PATH) stands for. A file must be opened once more by its name in `parent`;
 * CHANGED when that leads to something else by now. */
static int put_handle(struct output *out, int handle, int parent, const char *name, int depth)
{
    struct stat info;
    if (fstat(handle, &info) < 0)
        return fail(errno, "cannot read %s", out->name);
    if (S_ISDIR(info.st_mode)) {
        int fd = openat(handle, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return fd < 0 ? fail(errno, "cannot read %s", out->name) : put_directory(out, fd, &info, depth);
    }
    if (!S_ISREG(info.st_mode))
        return put_other(out, handle, &info);
    int fd = resolve(parent, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, RESOLVE_IN_ROOT);
    if (fd < 0)
        return errno == ENOENT || errno == ELOOP || errno == ENXIO ? CHANGED : fail(errno, "cannot read %s", out->name);
    int status = fstat(fd, &info) < 0 || !S_ISREG(info.st_mode) ? CHANGED : put_file(out, fd, &info);
    close(fd);
    return status;
}

/* What vanished since the directory was listed is left out, as in any copy of a living tree. */
static int put_entry(struct output *out, int parent, const char *name, int depth)
{
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        int handle = openat(parent, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (handle < 0)
            return errno == ENOENT ? 0 : fail(errno, "cannot read %s", out->name);
        int status = put_handle(out, handle, parent, name, depth);
        close(handle);
        if (status != CHANGED)
            return status;
    }
    return fail(0, "cannot read %s: it changes all the time", out->name);
}

static int read_tree(int root, const char *path, bool layer)
{
    static struct output out;
    out.layer = layer;
    int handle = open_named(root, path);
    if (handle < 0)
        return fail(errno, "cannot find %s", path);
    last_component(path, out.name);
    int status = put_handle(&out, handle, root, path, 0);
    close(handle);
    if (status == CHANGED)
        return fail(0, "cannot read %s: it was replaced meanwhile", path);
    static const char end[2 * BLOCK];
    return status || put(&out, end, sizeof end) || flush(&out) ? (status ? status : STATUS_FAILED) : 0;
}

int builtin_archive_read(int root, const char *path) { return read_tree(root, path, false); }

int builtin_layer_read(int root, const char *path) { return read_tree(root, path, true); }
