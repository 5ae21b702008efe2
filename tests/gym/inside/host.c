/* The other side: the canary process, and process 1 of the little host all of it takes place on. */
#include <net/if.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/select.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <netinet/in.h>
#include <unistd.h>

#include "gym.h"

/* PROGRAM...: bring loopback up, start it, then take in orphans for ever. */
static int host(char **words)
{
    struct ifreq loopback = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCSIFFLAGS, &loopback);
    if (*words && !fork()) {
        execvp(words[0], words);
        _exit(127);
    }
    signal(SIGCHLD, SIG_IGN); /* orphans are nobody's: wait(2), "NOTES" */
    puts("up");
    fflush(stdout);
    for (;;)
        pause();
}

static void answer(const int *listeners, const char *secret)
{
    fd_set ready;
    FD_ZERO(&ready);
    FD_SET(listeners[0], &ready);
    FD_SET(listeners[1], &ready);
    if (select(16, &ready, NULL, NULL, NULL) < 0)
        return;
    for (int i = 0; i < 2; i++)
        if (FD_ISSET(listeners[i], &ready)) {
            int fd = accept(listeners[i], NULL, NULL);
            dprintf(fd, "%s\n", secret);
            close(fd);
        }
}

/* ABSTRACT: the canary: tells its number, port and shared memory's key; says $SECRET to whoever reaches it. */
static int canary(char **words)
{
    const char *secret = getenv("SECRET");
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listeners[] = {socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "%s", words[0]);
    bind(listeners[0], (struct sockaddr *)&name, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(words[0])));
    bind(listeners[1], (struct sockaddr *)&address, sizeof address);
    getsockname(listeners[1], (struct sockaddr *)&address, &size);
    if (listen(listeners[0], 4) || listen(listeners[1], 4))
        return denied("listen");
    key_t key = (key_t)(getpid() + 0x67796d00);
    char *at = shmat(shmget(key, 4096, IPC_CREAT | 0666), NULL, 0); /* goes with the host's IPC namespace */
    if (at == (char *)-1)
        return denied("shmat");
    strcpy(at, secret);
    printf("%d %d %d\n", getpid(), ntohs(address.sin_port), (int)key);
    fflush(stdout);
    for (;;)
        answer(listeners, secret);
}

const struct verb host_verbs[] = {{"host", 0, host}, {"canary", 1, canary}, {0}};
