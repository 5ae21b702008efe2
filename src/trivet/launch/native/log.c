/* The CRI log. Records are gathered and written whole, so that a reader or a crash never meets half a line. */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 16384, HEADER = 64, BATCH = PIECE + HEADER };

struct batch {
    char bytes[BATCH];
    size_t used, content;
};

int log_open(struct log *log, const char *path, int64_t limit, int files)
{
    char parent[PATH_MAX];
    struct stat status;
    const char *slash = strrchr(path, '/');
    *log = (struct log){ .directory = -1, .fd = -1, .limit = limit, .files = files };
    if (!*path)
        return 0;
    if (!slash || strlen(slash + 1) > NAME_MAX - 4 || strlen(path) >= sizeof parent) {
        errno = EINVAL;
        return -1;
    }
    strcpy(log->name, slash + 1);
    snprintf(parent, sizeof parent, "%.*s", (int)(slash - path + 1), path);
    log->directory = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (log->directory < 0)
        return -1;
    log->fd = openat(log->directory, log->name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (log->fd < 0 || fstat(log->fd, &status) < 0)
        return -1;
    log->size = status.st_size;
    return 0;
}

enum { NAME_SIZE = NAME_MAX + 16 };

static void name_of(const struct log *log, int number, char name[NAME_SIZE])
{
    snprintf(name, NAME_SIZE, number ? "%s.%d" : "%s", log->name, number);
}

static void rotate(struct log *log)
{
    char from[NAME_SIZE], to[NAME_SIZE];
    for (int number = log->files - 1; number >= 0; number--) {
        name_of(log, number, from);
        name_of(log, number + 1, to);
        renameat(log->directory, from, log->directory, to);
    }
    int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | (log->files ? 0 : O_TRUNC);
    int fd = openat(log->directory, log->name, flags, 0640);
    if (fd < 0) {
        /* Somebody removed the directory, or may not write: the bound holds all the same, or a file that has no
           name any more would fill the disk. */
        if (ftruncate(log->fd, 0) == 0)
            log->size = 0;
        return;
    }
    close(log->fd);
    log->fd = fd;
    log->size = 0;
}

/* Write all or nothing: half a record would spoil the file for every reader. */
static int append(struct log *log, const char *bytes, size_t length)
{
    if (log->limit && log->size && log->size + (int64_t)length > log->limit)
        rotate(log);
    ssize_t written = write(log->fd, bytes, length);
    if (written == (ssize_t)length) {
        log->size += written;
        return 0;
    }
    struct stat status;
    if (written > 0 && fstat(log->fd, &status) == 0 && ftruncate(log->fd, status.st_size - written) == 0)
        log->size = status.st_size - written;
    return -1;
}

static size_t write_header(char *at, const char *stream, char tag)
{
    struct timespec now;
    struct tm date;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &date);
    return (size_t)snprintf(at, HEADER, "%04d-%02d-%02dT%02d:%02d:%02d.%09ldZ %s %c ", date.tm_year + 1900,
                            date.tm_mon + 1, date.tm_mday, date.tm_hour, date.tm_min, date.tm_sec, now.tv_nsec, stream,
                            tag);
}

static void note_loss(struct log *log)
{
    char line[HEADER + 96];
    size_t length = write_header(line, "stderr", 'F');
    length += (size_t)snprintf(line + length, sizeof line - length, "trivet: %llu bytes of output were not logged\n",
                               (unsigned long long)log->lost);
    if (append(log, line, length) == 0)
        log->lost = 0;
}

static void flush(struct log *log, struct batch *batch)
{
    if (log->lost)
        note_loss(log);
    if (batch->used && append(log, batch->bytes, batch->used) < 0)
        log->lost += batch->content;
    batch->used = batch->content = 0;
}

static void add(struct log *log, struct batch *batch, const char *stream, char tag, const unsigned char *bytes, size_t length)
{
    if (batch->used + HEADER + length + 1 > sizeof batch->bytes)
        flush(log, batch);
    batch->used += write_header(batch->bytes + batch->used, stream, tag);
    memcpy(batch->bytes + batch->used, bytes, length);
    batch->used += length;
    batch->bytes[batch->used++] = '\n';
    batch->content += length + (tag == 'F');
}

/* A piece without its newline is written at once: nothing is lost with the monitor, and `logs` shows prompts. */
void log_write(struct log *log, const char *stream, const unsigned char *bytes, size_t length)
{
    struct batch batch;
    batch.used = batch.content = 0;
    if (log->fd < 0)
        return;
    while (length) {
        const unsigned char *newline = memchr(bytes, '\n', length);
        size_t line = newline ? (size_t)(newline - bytes) : length;
        size_t piece = line < PIECE - 1 ? line : PIECE - 1;
        bool whole = newline && piece == line;
        add(log, &batch, stream, whole ? 'F' : 'P', bytes, piece);
        bytes += piece + whole;
        length -= piece + whole;
    }
    flush(log, &batch);
}
