/* Files that should not be there, or not be writable. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "gym.h"

/* PATH: print what is in it. */
static int read_file(char **words)
{
    int fd = open(words[0], O_RDONLY | O_NONBLOCK);
    return fd < 0 ? denied(words[0]) : show(fd);
}

/* PATH: append a word. */
static int write_file(char **words)
{
    int fd = open(words[0], O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY, 0644);
    if (fd < 0 || write(fd, "owned\n", 6) != 6)
        return denied(words[0]);
    return got(words[0]);
}

/* PATH: write back what is there, so that nothing changes for anybody. */
static int rewrite(char **words)
{
    char piece[4096];
    int fd = open(words[0], O_RDONLY);
    ssize_t count = fd < 0 ? -1 : read(fd, piece, sizeof piece);
    if (count <= 0)
        return denied(words[0]);
    fd = open(words[0], O_WRONLY);
    if (fd < 0 || write(fd, piece, (size_t)count) != count)
        return denied(words[0]);
    return got(words[0]);
}

/* PATH...: open for writing and leave it at that, until one can be. */
static int open_for_writing(char **words)
{
    for (; *words; words++)
        if (open(*words, O_WRONLY | O_NONBLOCK | O_NOCTTY) >= 0)
            return got(*words);
    return denied("all of them");
}

/* DIRECTORY...: make a control group in one of them, and take it away again; some have a tmpfs above the hierarchies. */
static int make_group(char **words)
{
    char path[4096], file[4200];
    for (; *words; words++) {
        snprintf(path, sizeof path, "%s/trivet-gym", *words);
        if (mkdir(path, 0755))
            continue;
        snprintf(file, sizeof file, "%s/cgroup.procs", path);
        int real = !access(file, F_OK);
        rmdir(path);
        if (real)
            return got(path);
    }
    return denied("mkdir");
}

/* KIND MAJOR MINOR: make a device node and read from it. */
static int device(char **words)
{
    mode_t kind = words[0][0] == 'b' ? S_IFBLK : S_IFCHR;
    unlink("/tmp/node");
    if (mknod("/tmp/node", kind | 0600, makedev((unsigned)atoi(words[1]), (unsigned)atoi(words[2]))))
        return denied("mknod");
    int fd = open("/tmp/node", O_RDONLY | O_NONBLOCK);
    return fd < 0 ? denied("opening it") : show(fd);
}

/* PATH TYPE HEX: open a file of the same file system as PATH by its handle (the Shocker), print it. */
static int handle(char **words)
{
    struct { struct file_handle head; unsigned char bytes[128]; } it = {0};
    size_t count = strlen(words[2]) / 2;
    int base = open(words[0], O_RDONLY);
    if (base < 0 || count > sizeof it.bytes)
        return denied(words[0]);
    it.head.handle_bytes = (unsigned)count;
    it.head.handle_type = atoi(words[1]);
    for (size_t i = 0; i < count; i++)
        sscanf(words[2] + 2 * i, "%2hhx", &it.bytes[i]);
    int fd = open_by_handle_at(base, (struct file_handle *)&it, O_RDONLY);
    return fd < 0 ? denied("open_by_handle_at") : show(fd);
}

/* NAME: look for a file in every open descriptor, taken as a directory, and above the working directory. */
static int descriptors(char **words)
{
    char path[4096];
    for (int fd = 3; fd < 1024; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d/%s", fd, words[0]);
        int opened = open(path, O_RDONLY);
        if (opened < 0)
            opened = openat(fd, words[0], O_RDONLY);
        if (opened >= 0)
            return show(opened);
    }
    int opened = open(words[0], O_RDONLY);
    return opened < 0 ? denied("every descriptor") : show(opened);
}

/* PATH: read a directory that should look empty. */
static int list(char **words)
{
    DIR *directory = opendir(words[0]);
    if (!directory)
        return denied(words[0]);
    for (struct dirent *entry; (entry = readdir(directory));)
        if (entry->d_name[0] != '.')
            return got(entry->d_name);
    errno = ENOENT;
    return denied("it is empty");
}

/* ONE OTHER: let two names change places for half a minute, or as long as one lives. */
static int swap(char **words)
{
    puts("up");
    fflush(stdout);
    for (time_t end = time(NULL) + 30; time(NULL) < end;)
        for (int i = 0; i < 100; i++) {
            if (syscall(SYS_renameat2, AT_FDCWD, words[0], AT_FDCWD, words[1], 2 /* RENAME_EXCHANGE */))
                return denied("renameat2");
            usleep(200); /* others want the processor, too */
        }
    return 0;
}

const struct verb file_verbs[] = {
    {"read", 1, read_file},
    {"write", 1, write_file},
    {"rewrite", 1, rewrite},
    {"open", 1, open_for_writing},
    {"mkdir", 1, make_group},
    {"device", 3, device},
    {"handle", 3, handle},
    {"descriptors", 1, descriptors},
    {"list", 1, list},
    {"swap", 2, swap},
    {0},
};
