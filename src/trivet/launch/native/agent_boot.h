/* What a guest needs before its agent can talk, and how it ends. */
#ifndef TRIVET_AGENT_BOOT_H
#define TRIVET_AGENT_BOOT_H

#include "frame.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Load the modules, mount what a kernel offers, and move to a root that a program can pivot away from. */
void boot(void);

/* Wait for the virtio-serial port with this name and for somebody at its other end; open it, non-blocking. */
int open_port(const char *name);

/* Take the time and some random bytes from the host: those of a forked guest are the template's. */
void heed_host(uint64_t time_ns, const unsigned char seed[FRAME_SEED_SIZE]);

/* Make `path` a link to the process's directory in /proc. */
void link_process(const char *path, pid_t pid);

/* Read a small file as text. -1: errno. */
ssize_t read_text(const char *path, char *text, size_t size);

/* Write a setting of the kernel's; one that can't be written is left as it is. */
void write_text(const char *path, const char *text);

/* Write everything out and switch the machine off; words for the console say why, unless it was its time. */
_Noreturn void power_off(const char *why);

#endif
