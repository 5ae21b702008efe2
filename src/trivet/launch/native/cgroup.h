/* What a monitor does with its instance's cgroups: kill what is left, see whether memory ran out. */
#ifndef TRIVET_CGROUP_H
#define TRIVET_CGROUP_H

#include <stdint.h>

/* Kill every process in the cgroup directory and wait until it is empty, at most some seconds. */
void cgroup_kill(const char *path);

/* Processes the kernel killed here for lack of memory so far; 0 where that isn't counted. */
int64_t cgroup_oom_kills(const char *path);

#endif
