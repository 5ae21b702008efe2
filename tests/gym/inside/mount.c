/* Mounts that should not be possible, and what can be done with them. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gym.h"

static int put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return -1;
    ssize_t count = write(fd, text, strlen(text));
    int before = errno;
    close(fd);
    errno = before;
    return count == (ssize_t)strlen(text) ? 0 : -1;
}

/* TYPE: mount a file system of the kernel's. */
static int mount_type(char **words)
{
    mkdir("/tmp/m", 0755);
    return mount("gym", "/tmp/m", words[0], 0, NULL) ? denied(words[0]) : got(words[0]);
}

/* TYPE: the same by the calls that a filter may have forgotten. */
static int mount_new(char **words)
{
    int context = (int)syscall(SYS_fsopen, words[0], 0);
    if (context < 0)
        return denied("fsopen");
    if (syscall(SYS_fsconfig, context, 6, NULL, NULL, 0)) /* FSCONFIG_CMD_CREATE */
        return denied("fsconfig");
    return syscall(SYS_fsmount, context, 0, 0) < 0 ? denied("fsmount") : got("a mount");
}

/* MOUNTPOINT FILE: make what is mounted read-only writable again, write back what FILE holds. */
static int remount(char **words)
{
    char piece[4096];
    if (mount(NULL, words[0], NULL, MS_REMOUNT | MS_BIND, NULL))
        return denied("remounting");
    int fd = open(words[1], O_RDONLY);
    ssize_t count = fd < 0 ? -1 : read(fd, piece, sizeof piece - 1);
    if (count <= 0)
        return denied(words[1]);
    piece[count] = 0;
    return put(words[1], piece) ? denied(words[1]) : got(words[1]);
}

/* PATH: take the mask off, read what is behind. */
static int unmask(char **words)
{
    if (umount2(words[0], MNT_DETACH))
        return denied("unmounting");
    int fd = open(words[0], O_RDONLY | O_NONBLOCK);
    return fd < 0 ? denied(words[0]) : show(fd);
}

/* PATH: the same as root of a user namespace of its own. */
static int unmask_nested(char **words)
{
    return unshare(CLONE_NEWUSER | CLONE_NEWNS) ? denied("unshare") : unmask(words);
}

/* SCRIPT: have the kernel run SCRIPT on the host when a group of a new hierarchy, called after the gym, is empty. */
static int release_agent(char **words)
{
    char name[64];
    snprintf(name, sizeof name, "none,name=gym%ld", (long)getpid() ^ (long)random());
    mkdir("/tmp/cgroup", 0755);
    if (mount("cgroup", "/tmp/cgroup", "cgroup", 0, words[1] ? words[1] : name))
        return denied("mounting a hierarchy");
    if (mkdir("/tmp/cgroup/child", 0755))
        return denied("a group");
    int failed = put("/tmp/cgroup/release_agent", words[0]) || put("/tmp/cgroup/child/notify_on_release", "1");
    int told = errno;
    if (!failed) {
        pid_t pid = fork();
        if (!pid)
            _exit(put("/tmp/cgroup/child/cgroup.procs", "0") != 0);
        waitpid(pid, NULL, 0);
        usleep(100000);
    }
    for (int i = 0; i < 100 && rmdir("/tmp/cgroup/child") && errno == EBUSY; i++)
        usleep(10000);
    put("/tmp/cgroup/release_agent", "\n");
    umount2("/tmp/cgroup", 0);
    /* While a group of it is still being freed, the kernel keeps a hierarchy for good (cgroup_kill_sb); once more, then. */
    for (int i = 0; i < 3 && !words[1]; i++) {
        usleep(100000);
        if (!mount("cgroup", "/tmp/cgroup", "cgroup", 0, name))
            umount2("/tmp/cgroup", 0);
    }
    errno = told;
    return failed ? denied("release_agent") : got("release_agent");
}

/* DEVICE: mount a block device of the host, read-only. */
static int mount_disk(char **words)
{
    mkdir("/tmp/disk", 0755);
    if (mount(words[0], "/tmp/disk", "ext4", MS_RDONLY, NULL))
        return denied("mounting the disk");
    return got("the disk");
}

/* FILE: leave by chroot: go above the root with a working directory that is outside of it. */
static int leave_chroot(char **words)
{
    mkdir("/tmp/c", 0755);
    int above = open("/", O_RDONLY | O_DIRECTORY);
    if (above < 0 || chroot("/tmp/c"))
        return denied("chroot");
    if (fchdir(above))
        return denied("fchdir");
    for (int i = 0; i < 64; i++)
        if (chdir(".."))
            return denied("..");
    int fd = open(words[0], O_RDONLY);
    return fd < 0 ? denied(words[0]) : show(fd);
}

const struct verb mount_verbs[] = {
    {"mount", 1, mount_type},
    {"mount-new", 1, mount_new},
    {"remount", 2, remount},
    {"unmask", 1, unmask},
    {"unmask-nested", 1, unmask_nested},
    {"release-agent", 1, release_agent},
    {"mount-disk", 1, mount_disk},
    {"leave-chroot", 1, leave_chroot},
    {0},
};
