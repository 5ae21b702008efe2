/* What is tried inside: verbs, each of which ends with 0 when it got what it wanted and 1 when it was kept from it. */
#pragma once
#include <stddef.h>

typedef int verb(char **words);
struct verb { const char *name; int words; verb *run; };

extern const struct verb file_verbs[], mount_verbs[], process_verbs[], kernel_verbs[], socket_verbs[], identity_verbs[],
    flood_verbs[], host_verbs[];

int got(const char *what);     /* prints, returns 0 */
int denied(const char *what);  /* prints with errno, returns 1 */
int show(int fd);              /* copies at most 4 KiB to standard output, returns 0, or 1 when there was nothing */
