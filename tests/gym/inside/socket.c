/* Ways out that are sockets. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "gym.h"

static int hear(int fd, const struct sockaddr *address, socklen_t length)
{
    return connect(fd, address, length) ? denied("connect") : show(fd);
}

/* NAME: connect to an abstract socket, print what it says. */
static int abstract(char **words)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "%s", words[0]);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(words[0]));
    return hear(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&name, length);
}

/* PORT: connect to the host's loopback, print what it says. */
static int loopback(char **words)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(words[0]))};
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return hear(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&name, sizeof name);
}

/* PATH...: ask an engine for its version on its own socket. */
static int engine(char **words)
{
    for (; *words; words++) {
        struct sockaddr_un name = {.sun_family = AF_UNIX};
        snprintf(name.sun_path, sizeof name.sun_path, "%s", *words);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&name, sizeof name))
            continue;
        const char *question = "GET /_ping HTTP/1.1\r\nHost: gym\r\nConnection: close\r\n\r\n";
        if (write(fd, question, strlen(question)) > 0 && !show(fd))
            return got(*words);
    }
    return denied("every socket");
}

/* FAMILY TYPE PROTOCOL: make a socket, by numbers. */
static int family(char **words)
{
    return socket(atoi(words[0]), atoi(words[1]), atoi(words[2])) < 0 ? denied("socket") : got("a socket");
}

/* PATH...: type something into every terminal that can be had. */
static int push(char **words)
{
    int heard = 0;
    for (; *words; words++) {
        int fd = open(*words, O_RDWR | O_NOCTTY);
        for (const char *at = "owned\n"; fd >= 0 && *at; at++)
            heard += ioctl(fd, 0x5412 /* TIOCSTI */, at) == 0;
    }
    return heard ? got("a terminal") : denied("TIOCSTI");
}

const struct verb socket_verbs[] = {
    {"abstract", 1, abstract}, {"loopback", 1, loopback}, {"engine", 1, engine},
    {"family", 3, family},     {"push", 1, push},         {0},
};
