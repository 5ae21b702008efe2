/* What most programs ask of a kernel when they begin, once: a spare machine does it before it is anybody's, so that
 * what its kernel needs for that has been translated where it is emulated (isolation/warm.py).
 *
 * That something is refused is no failure: the kernel has been asked.
 */
#include "executor.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 16, SOME = 64 };

static void caught(int number) { (void)number; }

static void use_files(const char *program)
{
    struct stat status;
    char bytes[SOME];
    DIR *directory = opendir("/");
    while (directory && readdir(directory))
        ;
    if (directory)
        closedir(directory);
    int fd = open(program, O_RDONLY | O_CLOEXEC);
    fstat(fd, &status);
    (void)!pread(fd, bytes, sizeof bytes, 0);
    /* as a dynamic loader does with a library: read-only, executable, and a part that is written to */
    char *text = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    char *data = text == MAP_FAILED ? text : mmap(text + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0);
    if (data != MAP_FAILED) {
        *(volatile char *)data = 1;
        mprotect(data, PAGE, PROT_READ);
        munmap(text, PAGES * PAGE);
    }
    close(fd);
    (void)!readlink("/proc/self/exe", bytes, sizeof bytes);
    (void)!access("/etc/nothing", R_OK);
    mkdir("/exercise", 0700);
    fd = open("/exercise/file", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    (void)!write(fd, bytes, sizeof bytes);
    lseek(fd, 0, SEEK_SET);
    (void)!read(fd, bytes, sizeof bytes);
    close(fd);
    rename("/exercise/file", "/exercise/other");
    unlink("/exercise/other");
    rmdir("/exercise");
}

static void use_memory(void)
{
    char *pages = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; pages != MAP_FAILED && i < PAGES; i++)
        ((volatile char *)pages)[i * PAGE] = 1;
    if (pages != MAP_FAILED)
        munmap(pages, PAGES * PAGE);
    (void)!sbrk(2 * PAGE);
}

static void use_processes(const char *program)
{
    int ends[2];
    char bytes[SOME];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return;
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 1);
        execl(program, program, "--operations", NULL);
        _exit(127);
    }
    close(ends[1]);
    struct pollfd end = { .fd = ends[0], .events = POLLIN };
    poll(&end, 1, 1000);
    while (read(ends[0], bytes, sizeof bytes) > 0)
        ;
    close(ends[0]);
    waitpid(child, NULL, 0);
    struct sigaction action = { .sa_handler = caught };
    sigaction(SIGUSR1, &action, NULL);
    kill(getpid(), SIGUSR1);
    setpgid(0, 0);
}

static void use_network(void)
{
    struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof here;
    struct epoll_event event = { .events = EPOLLIN };
    char bytes[SOME] = "";
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int many = epoll_create1(EPOLL_CLOEXEC);
    if (bind(listener, (struct sockaddr *)&here, size) == 0 && listen(listener, 1) == 0
        && getsockname(listener, (struct sockaddr *)&here, &size) == 0 && connect(client, (struct sockaddr *)&here, size) == 0) {
        int server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        epoll_ctl(many, EPOLL_CTL_ADD, server, &event);
        (void)!send(client, bytes, sizeof bytes, MSG_NOSIGNAL);
        epoll_wait(many, &event, 1, 1000);
        (void)!recv(server, bytes, sizeof bytes, 0);
        close(server);
    }
    close(client);
    close(listener);
    close(many);
}

int exercise(const char *program)
{
    const struct timespec moment = { .tv_nsec = 1000000 };
    struct utsname name;
    struct timespec now;
    use_files(program);
    use_memory();
    use_processes(program);
    use_network();
    uname(&name);
    clock_gettime(CLOCK_REALTIME, &now);
    nanosleep(&moment, NULL);
    getuid();
    fputs("done\n", stderr);
    puts("done");
    return 0;
}
