/* What the builtins for `cp` share.
 *
 * They run where a program of the image would run, after everything was set up, and execute and load nothing of the
 * image. Whoever runs in the instance may rename and link whatever it likes meanwhile. So the kernel resolves every
 * path inside the root, and what was opened is worked on by its descriptor. Reading reaches everything below the
 * path that was asked for from descriptor to descriptor, never through a symbolic link; writing follows links to
 * directories, as an image with /bin -> usr/bin needs it, but the last component of an entry never.
 *
 * They return the exit status: 0, 1 with one sentence on standard error, or 44 when the path does not exist.
 */
#ifndef TRIVET_ARCHIVE_H
#define TRIVET_ARCHIVE_H

#include "kernel.h"

#include <limits.h>

enum {
    BLOCK = 512,
    BUFFER = 1 << 16,
    STATUS_FAILED = 1,
    STATUS_NOT_FOUND = 44,
};

/* The one extended attribute that travels: without it a program like ping loses its rights. */
#define CAPABILITY "security.capability"

struct header { /* POSIX.1-1988 ustar */
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100];
    char magic[6], version[2], owner[32], group[32], major[8], minor[8], prefix[155], rest[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a tar header is one block");

/* Print one sentence and return the status it calls for; `error` 0 adds no words of the system's. */
__attribute__((format(printf, 2, 3))) int fail(int error, const char *format, ...);

/* openat2(2) with RESOLVE_* flags `how`. */
int resolve(int at, const char *path, uint64_t flags, uint64_t how);

/* Open (O_PATH) what the user named, as itself if it is a link: only a trailing slash follows one. */
int open_named(int root, const char *path);

/* The last component; "." for the root, and for a directory whose content is meant. */
void last_component(const char *path, char name[NAME_MAX + 1]);

/* The sum of a header's bytes, those of the checksum itself taken as spaces. */
unsigned header_checksum(const struct header *header);

#endif
