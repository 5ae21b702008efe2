/* The guest's first and last milliseconds. */
#include "agent_boot.h"
#include "kernel.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <linux/random.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>

enum { PORT_STEP_NS = 500000, PORT_STEPS = 20000 };

static void pause_step(void)
{
    const struct timespec step = { .tv_nsec = PORT_STEP_NS };
    nanosleep(&step, NULL);
}

static void say(const char *words)
{
    int console = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);
    if (console >= 0) {
        dprintf(console, "trivet-agent: %s\n", words);
        close(console);
    }
}

_Noreturn void power_off(const char *why)
{
    if (why)
        say(why);
    sync();
    reboot(RB_POWER_OFF);
    for (;;) /* it didn't; leaving would be a panic, which ends the machine as well */
        pause_step();
}

ssize_t read_text(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t length = read(fd, text, size - 1);
    close(fd);
    text[length > 0 ? length : 0] = 0;
    return length;
}

void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)!write(fd, text, strlen(text));
    close(fd);
}

/* The list names every module after those it needs; a loaded one only takes memory in the initramfs. */
static void load_modules(void)
{
    char path[256], words[320];
    FILE *list = fopen("/modules/list", "re");
    while (list && fgets(path, sizeof path, list)) {
        path[strcspn(path, "\n")] = 0;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0) {
            snprintf(words, sizeof words, "cannot load %s: %s", path, strerror(errno));
            say(words);
        }
        if (fd >= 0)
            close(fd);
        unlink(path);
    }
    if (list)
        fclose(list);
}

static void show(const char *fstype, const char *target, unsigned long flags, const char *options)
{
    char words[128];
    mkdir(target, 0755);
    if (mount(fstype, target, fstype, flags, options) < 0) {
        snprintf(words, sizeof words, "cannot mount %s: %s", target, strerror(errno));
        say(words);
    }
}

/* pivot_root(2) can't leave the initramfs; a tmpfs moved over it can be left. */
static void leave_initramfs(void)
{
    show("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755,size=4m");
    if (chdir("/run") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        power_off("cannot leave the initramfs");
    mkdir("/run", 0755);
}

/* What every program needs is there before the machine becomes a template: where it is emulated, its forks don't
 * translate for themselves what makes it. */
static void prepare_program(void)
{
    struct ifreq loopback = { .ifr_name = "lo", .ifr_flags = IFF_UP };
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &loopback) < 0)
        say("cannot bring up lo");
    if (fd >= 0)
        close(fd);
    write_text("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids +cpu");
    if (mkdir("/sys/fs/cgroup/program", 0755) < 0)
        say("cannot make the program's control group");
}

void boot(void)
{
    const unsigned long safe = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    struct utsname kernel;
    char words[128];
    load_modules();
    leave_initramfs();
    show("devtmpfs", "/dev", MS_NOSUID, "mode=755");
    show("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "ptmxmode=0666,mode=620,gid=5");
    show("proc", "/proc", safe, NULL);
    show("sysfs", "/sys", safe, NULL);
    show("cgroup2", "/sys/fs/cgroup", safe, NULL);
    prepare_program();
    uname(&kernel);
    snprintf(words, sizeof words, "up on %s", kernel.release);
    say(words);
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3 && null >= 0; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);
}

/* Find the device of the port whose name the host gave; 0 when it isn't there (yet). */
static int find_port(const char *name, char device[NAME_MAX + 8])
{
    char path[NAME_MAX + 64], text[128];
    int found = 0;
    DIR *ports = opendir("/sys/class/virtio-ports");
    for (struct dirent *entry; ports && !found && (entry = readdir(ports));) {
        snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
        if (read_text(path, text, sizeof text) <= 0)
            continue;
        text[strcspn(text, "\n")] = 0;
        found = !strcmp(text, name);
        snprintf(device, NAME_MAX + 8, "/dev/%s", entry->d_name);
    }
    if (ports)
        closedir(ports);
    return found;
}

/* A port says "hung up" until the host's end has been announced. */
int open_port(const char *name)
{
    char device[NAME_MAX + 8];
    int fd = -1;
    for (int i = 0; i < PORT_STEPS; i++, pause_step()) {
        if (fd < 0 && find_port(name, device))
            fd = open(device, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        struct pollfd port = { .fd = fd, .events = POLLOUT };
        if (fd >= 0 && poll(&port, 1, 0) > 0 && !(port.revents & POLLHUP))
            return fd;
    }
    power_off("there is no port to speak to");
}

/* random(4): bytes that are only written are mixed in but not used before the next reseeding, so ask for one. */
void heed_host(uint64_t time_ns, const unsigned char seed[FRAME_SEED_SIZE])
{
    struct {
        struct rand_pool_info head;
        unsigned char bytes[FRAME_SEED_SIZE];
    } pool = { .head = { .entropy_count = FRAME_SEED_SIZE * 8, .buf_size = FRAME_SEED_SIZE } };
    const struct timespec now = { (time_t)(time_ns / 1000000000u), (long)(time_ns % 1000000000u) };
    memcpy(pool.bytes, seed, FRAME_SEED_SIZE);
    int fd = open("/dev/urandom", O_RDWR | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
        power_off("cannot take randomness from the host");
    close(fd);
    if (clock_settime(CLOCK_REALTIME, &now) < 0)
        power_off("cannot take the time from the host");
}

void link_process(const char *path, pid_t pid)
{
    char target[32];
    snprintf(target, sizeof target, "/proc/%d", pid);
    unlink(path);
    (void)!symlink(target, path);
}
