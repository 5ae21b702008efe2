/* The CRI log: "TIME STREAM F|P CONTENT\n", rotated by size. Losing output to a full disk is noted, not fatal. */
#ifndef TRIVET_LOG_H
#define TRIVET_LOG_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct log {
    int directory, fd; /* -1: no log is kept */
    char name[NAME_MAX + 1];
    int64_t size, limit;
    int files;
    uint64_t lost; /* bytes of content that did not fit on the disk and were not noted yet */
};

/* `path` "" keeps none; `limit` 0 never rotates; `files` old files are kept as PATH.1, PATH.2 ... */
int log_open(struct log *log, const char *path, int64_t limit, int files);

/* Write output as it came; `stream` is "stdout" or "stderr". */
void log_write(struct log *log, const char *stream, const unsigned char *bytes, size_t length);

#endif
