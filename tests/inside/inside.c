/* What a shell can't do or tell, for tests: runs inside an instance, statically linked. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Print every open descriptor; nothing is opened for it, so that the list is the program's own. */
static int descriptors(char **arguments)
{
    (void)arguments;
    for (int fd = 0; fd < 65536; fd++)
        if (fcntl(fd, F_GETFD) >= 0)
            printf("%d\n", fd);
    return 0;
}

/* Touch MEGABYTES of memory and keep it. */
static int eat(char **arguments)
{
    for (long i = 0, count = atol(arguments[0]); i < count; i++) {
        char *piece = malloc(1 << 20);
        if (!piece)
            return 3;
        memset(piece, (int)i | 1, 1 << 20);
    }
    puts("full");
    fflush(stdout);
    pause();
    return 0;
}

/* Use as much processor time as there is for MILLISECONDS of wall time; print what it got, in milliseconds. */
static int spin(char **arguments)
{
    struct timespec begin, now, used;
    long wanted = atol(arguments[0]), passed = 0;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    while (passed < wanted) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        passed = (now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000;
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    printf("%ld %ld\n", used.tv_sec * 1000 + used.tv_nsec / 1000000, passed);
    return 0;
}

/* Fork up to COUNT children that sleep; print how many there are and why it stopped. */
static int forks(char **arguments)
{
    long made = 0, count = atol(arguments[0]);
    for (; made < count; made++) {
        pid_t pid = fork();
        if (pid < 0)
            break;
        if (pid == 0) {
            pause();
            _exit(0);
        }
    }
    printf("%ld %s\n", made, made < count ? strerror(errno) : "all");
    return 0;
}

/* Print the answer of each call number given, called with invalid arguments: errno's number. */
static int calls(char **arguments)
{
    for (; *arguments; arguments++) {
        long result = syscall(atol(*arguments), -1L, -1L, -1L, -1L, -1L, -1L);
        printf("%s %d\n", *arguments, result < 0 ? errno : 0);
    }
    return 0;
}

/* socket(FAMILY, SOCK_DGRAM or SEQPACKET, 0) and clone flags: calls whose arguments decide. */
static int families(char **arguments)
{
    for (; *arguments; arguments++) {
        int fd = socket(atoi(*arguments), SOCK_SEQPACKET, 0);
        printf("%s %d\n", *arguments, fd < 0 ? errno : 0);
    }
    return 0;
}

/* Print the terminal's size, and again whenever it changes. */
static volatile sig_atomic_t resized;
static void on_resize(int number) { resized = number; }
static int terminal(char **arguments)
{
    (void)arguments;
    struct winsize size;
    signal(SIGWINCH, on_resize);
    for (;;) {
        if (ioctl(0, TIOCGWINSZ, &size) < 0)
            return 1;
        printf("%d %d\n", size.ws_row, size.ws_col);
        fflush(stdout);
        while (!resized)
            usleep(1000);
        resized = 0;
    }
}

/* Write every byte value, COUNT times over. */
static int bytes(char **arguments)
{
    unsigned char all[256];
    for (int i = 0; i < 256; i++)
        all[i] = (unsigned char)i;
    for (long i = 0, count = atol(arguments[0]); i < count; i++)
        if (fwrite(all, 1, sizeof all, stdout) != sizeof all)
            return 1;
    return 0;
}

/* Say what stands on standard input to the unix socket PATH, and print what it answers. */
static int ask(char **arguments)
{
    char piece[4096];
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", arguments[0]);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        perror(arguments[0]);
        return 1;
    }
    for (ssize_t length; (length = read(0, piece, sizeof piece)) > 0;)
        if (write(fd, piece, (size_t)length) != length)
            return 1;
    for (ssize_t length; (length = read(fd, piece, sizeof piece)) > 0;)
        if (fwrite(piece, 1, (size_t)length, stdout) != (size_t)length)
            return 1;
    return 0;
}

static const struct {
    const char *name;
    int needs;
    int (*run)(char **);
} table[] = {
    { "descriptors", 0, descriptors }, { "eat", 1, eat },       { "spin", 1, spin },         { "forks", 1, forks },
    { "calls", 0, calls },             { "bytes", 1, bytes },   { "terminal", 0, terminal }, { "families", 0, families },
    { "ask", 1, ask },
};

int main(int count, char **words)
{
    for (size_t i = 0; count > 1 && i < sizeof table / sizeof *table; i++)
        if (!strcmp(words[1], table[i].name) && count - 2 >= table[i].needs)
            return table[i].run(words + 2);
    fprintf(stderr, "usage: inside COMMAND [ARGUMENT...]\n");
    return 2;
}
