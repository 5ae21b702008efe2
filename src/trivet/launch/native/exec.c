/* The last steps: waiting for GO, helpers in the background, and becoming the program. */
#include "builtin.h"
#include "executor.h"
#include "kernel.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>

static const char default_path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

enum { BACKGROUND_LIMIT = 32, READY_STEPS = 2500, READY_STEP_NS = 2000000, DEVPTS_SUPER_MAGIC = 0x1cd1 };

int operate_wait(struct executor *executor, struct cursor *fields)
{
    (void)fields;
    char go;
    if (!executor->waits)
        return refuse(executor, EINVAL, "Wait needs a monitor");
    if (executor_report(executor, REPORT_READY) < 0)
        return -1;
    ssize_t size;
    do
        size = read(executor->report, &go, 1);
    while (size < 0 && errno == EINTR);
    return size == 1 ? 0 : refuse(executor, ECANCELED, "the monitor ended before the program began");
}

/* --- terminal --------------------------------------------------------------------------------------- */

static int send_descriptor(struct executor *executor, int fd)
{
    struct report report = { .kind = REPORT_CONSOLE, .index = executor->index };
    struct iovec part = { &report, sizeof report };
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = { .header = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
    return sendmsg(executor->report, &message, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

/* A new pair from the root's own devpts, certain that it is one; attached by descriptor (CVE-2025-52565). */
static int open_pair(struct executor *executor, int *slave)
{
    struct statfs filesystem;
    int unlock = 0;
    int master = root_open(executor, "/dev/pts/ptmx", O_RDWR | O_NOCTTY);
    if (master < 0)
        return refuse(executor, errno, "open /dev/pts/ptmx");
    if (fstatfs(master, &filesystem) < 0 || filesystem.f_type != DEVPTS_SUPER_MAGIC)
        return refuse(executor, ENODEV, "/dev/pts is not a devpts file system");
    *slave = ioctl(master, TIOCSPTLCK, &unlock) < 0 ? -1 : ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    return *slave < 0 ? refuse(executor, errno, "open the terminal") : master;
}

static int show_console(struct executor *executor, int slave, const char *path)
{
    const struct owner owner = { .mode = 0600 };
    int target = root_make(executor, path, MAKE_FILE, &owner);
    int tree = sys_open_tree(slave, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    const unsigned flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    if (target < 0 || tree < 0 || sys_move_mount(tree, "", target, "", flags) < 0)
        return refuse(executor, errno, "show the terminal at %s", path);
    close(target);
    close(tree);
    return 0;
}

int operate_console(struct executor *executor, struct cursor *fields)
{
    const char *path = take_text(fields);
    struct winsize size = { .ws_row = executor->rows, .ws_col = executor->columns };
    int slave = -1;
    if (!executor->terminal)
        return refuse(executor, EINVAL, "Console needs a Spawn with a terminal");
    int master = open_pair(executor, &slave);
    if (master < 0 || (*path && show_console(executor, slave, path) < 0))
        return -1;
    if (size.ws_row && ioctl(slave, TIOCSWINSZ, &size) < 0)
        return -1;
    if (executor->conductor >= 0 ? conduct(executor, "console", master) : send_descriptor(executor, master))
        return -1;
    close(master);
    /* The session leader gives the first terminal up before it takes this one, and is sent SIGHUP for it. */
    signal(SIGHUP, SIG_IGN);
    (void)!ioctl(0, TIOCNOTTY);
    signal(SIGHUP, SIG_DFL);
    for (int fd = 0; fd < 3; fd++)
        if (dup2(slave, fd) < 0)
            return -1;
    close(slave);
    return ioctl(0, TIOCSCTTY, 0);
}

/* --- helpers ---------------------------------------------------------------------------------------- */

static pid_t background[BACKGROUND_LIMIT];
static size_t background_count;

void background_kill(void)
{
    for (size_t i = 0; i < background_count; i++)
        kill(background[i], SIGKILL);
}

void background_reaped(pid_t pid)
{
    for (size_t i = 0; i < background_count; i++)
        if (background[i] == pid)
            background[i] = background[--background_count];
}

void background_forget(void) { background_count = 0; }

static _Noreturn void become_helper(char **argv, const char *log, int failure)
{
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int output = *log ? open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600) : null;
    if (null >= 0 && output >= 0) {
        dup2(null, 0);
        dup2(output, 1);
        dup2(output, 2);
        sys_close_range(3, ~0u, CLOSE_RANGE_ON_EXEC);
        execvp(argv[0], argv);
    }
    (void)!write(failure, &errno, sizeof errno);
    _exit(127);
}

static int await_socket(struct executor *executor, pid_t helper, const char *name, const char *path)
{
    struct stat status;
    const struct timespec step = { .tv_nsec = READY_STEP_NS };
    for (int i = 0; i < READY_STEPS; i++) {
        if (stat(path, &status) == 0 && S_ISSOCK(status.st_mode))
            return 0;
        if (waitpid(helper, NULL, WNOHANG) == helper) {
            background_reaped(helper);
            return refuse(executor, ECHILD, "%s ended before it was ready", name);
        }
        nanosleep(&step, NULL);
    }
    return refuse(executor, ETIMEDOUT, "%s did not become ready", name);
}

int operate_background(struct executor *executor, struct cursor *fields)
{
    struct strings words = take_strings(fields);
    const char *log = take_text(fields), *ready = take_text(fields);
    int failure[2], error = 0;
    char **argv = strings_array(words, 0);
    if (!argv || !words.count || background_count == BACKGROUND_LIMIT)
        return refuse(executor, EINVAL, "no helper to start");
    if (pipe2(failure, O_CLOEXEC) < 0)
        return -1;
    pid_t helper = fork();
    if (helper == 0)
        become_helper(argv, log, failure[1]);
    close(failure[1]);
    if (helper > 0)
        background[background_count++] = helper;
    bool failed = helper < 0 || read(failure[0], &error, sizeof error) > 0;
    close(failure[0]);
    if (failed)
        return refuse(executor, error ? error : errno, "start %s", argv[0]);
    return *ready ? await_socket(executor, helper, argv[0], ready) : 0;
}

/* --- program ---------------------------------------------------------------------------------------- */

static const char *find_variable(char **environment, const char *name)
{
    size_t length = strlen(name);
    for (; *environment; environment++)
        if (!strncmp(*environment, name, length) && (*environment)[length] == '=')
            return *environment + length + 1;
    return NULL;
}

/* Say more than the errno: what exactly is missing or can't be executed? Keeps errno. */
static int explain(struct executor *executor, const char *file)
{
    struct stat status;
    char line[128];
    int error = errno;
    if (stat(file, &status) < 0)
        return refuse(executor, error, error == EACCES ? "no permission to reach %s" : "%s not found", file);
    if (S_ISDIR(status.st_mode))
        return refuse(executor, EACCES, "%s is a directory", file);
    if (error == EACCES)
        return refuse(executor, error, "no permission to execute %s", file);
    if (error == ENOEXEC)
        return refuse(executor, error, "%s has no format this kernel executes", file);
    if (error != ENOENT)
        return refuse(executor, error, "execute %s", file);
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    ssize_t length = fd < 0 ? 0 : read(fd, line, sizeof line - 1);
    if (length > 2 && line[0] == '#' && line[1] == '!') {
        line[length] = 0;
        char *name = line + 2 + strspn(line + 2, " \t");
        name[strcspn(name, " \t\r\n")] = 0;
        return refuse(executor, error, "%s exists, but its interpreter %s does not", file, name);
    }
    return refuse(executor, error, "%s exists, but its interpreter (dynamic loader) does not", file);
}

static bool executable(const char *file)
{
    struct stat status;
    if (stat(file, &status) < 0 || faccessat(AT_FDCWD, file, X_OK, AT_EACCESS) < 0)
        return false;
    errno = EACCES;
    return !S_ISDIR(status.st_mode);
}

static bool try_execute(char *file, char **argv, char **environment)
{
    execve(file, argv, environment);
    return errno != ENOENT && errno != ENOTDIR && errno != EACCES && errno != ENAMETOOLONG;
}

/* Try each directory of PATH, as execvp(3) does; a hit that may not be executed is remembered. */
static int search(struct executor *executor, char **argv, char **environment)
{
    char file[PATH_MAX], denied[PATH_MAX] = "";
    const char *path = find_variable(environment, "PATH");
    path = path ? path : default_path;
    for (const char *at = path, *end; *at; at = *end ? end + 1 : end) {
        end = strchrnul(at, ':');
        if (end == at || snprintf(file, sizeof file, "%.*s/%s", (int)(end - at), at, argv[0]) >= (int)sizeof file)
            continue;
        if (try_execute(file, argv, environment))
            return explain(executor, file);
        struct stat status;
        int error = errno;
        if (!denied[0] && stat(file, &status) == 0 && !S_ISDIR(status.st_mode)) {
            strcpy(denied, file);
            if (error == ENOENT) {
                errno = error;
                return explain(executor, denied);
            }
        }
    }
    if (denied[0])
        return refuse(executor, EACCES, "no permission to execute %s", denied);
    return refuse(executor, ENOENT, "%s not found in PATH", argv[0]);
}

/* Say before the wait what execve would: is the program there, and may the user execute it? */
int operate_find(struct executor *executor, struct cursor *fields)
{
    struct strings words = take_strings(fields), variables = take_strings(fields);
    char **argv = strings_array(words, 0), **environment = strings_array(variables, 0);
    char file[PATH_MAX];
    if (!argv || !environment)
        return -1;
    if (!words.count || !argv[0][0])
        return refuse(executor, ENOENT, "no program to execute");
    if (strchr(argv[0], '/'))
        return executable(argv[0]) ? 0 : explain(executor, argv[0]);
    const char *path = find_variable(environment, "PATH");
    bool denied = false;
    for (const char *at = path ? path : default_path, *end; *at; at = *end ? end + 1 : end) {
        end = strchrnul(at, ':');
        if (end == at || snprintf(file, sizeof file, "%.*s/%s", (int)(end - at), at, argv[0]) >= (int)sizeof file)
            continue;
        if (executable(file))
            return 0;
        denied = denied || errno == EACCES;
    }
    return denied ? refuse(executor, EACCES, "no permission to execute %s", argv[0])
                  : refuse(executor, ENOENT, "%s not found in PATH", argv[0]);
}

int operate_exec(struct executor *executor, struct cursor *fields)
{
    struct strings words = take_strings(fields), variables = take_strings(fields);
    char **argv = strings_array(words, 0), **environment = strings_array(variables, 1);
    static char home[PATH_MAX + 8];
    if (!argv || !environment)
        return -1;
    if (!words.count || !argv[0][0])
        return refuse(executor, ENOENT, "no program to execute");
    if (!find_variable(environment, "HOME")) {
        snprintf(home, sizeof home, "HOME=%s", executor->identity.home[0] ? executor->identity.home : "/");
        environment[variables.count] = home;
    }
    if (executor->report >= 0 && executor_report(executor, REPORT_LAUNCHED) < 0)
        return -1;
    if (sys_close_range(3 + executor->preserved, ~0u, CLOSE_RANGE_ON_EXEC) < 0)
        return -1;
    if (executor->given >= 0 && fcntl(executor->given_number, F_SETFD, 0) < 0)
        return -1;
    for (int number = 0; number < GIFT_LIMIT; number++)
        if (executor->gifts[number / 64] >> number % 64 & 1 && fcntl(number, F_SETFD, 0) < 0)
            return -1;
    if (!strchr(argv[0], '/'))
        return search(executor, argv, environment);
    execve(argv[0], argv, environment);
    return explain(executor, argv[0]);
}

int operate_builtin(struct executor *executor, struct cursor *fields)
{
    const char *name = take_text(fields);
    struct strings arguments = take_strings(fields);
    builtin_function *function = builtin_find(name);
    if (!function || arguments.count != 1)
        return refuse(executor, EINVAL, "no builtin %s with %u arguments", name, arguments.count);
    if (executor->root < 0)
        return refuse(executor, EBADF, "builtin %s needs a Root", name);
    const char *path = strings_next(&arguments).data;
    if (executor->report >= 0 && executor_report(executor, REPORT_LAUNCHED) < 0)
        return -1;
    if (executor->root != 3 && dup2(executor->root, 3) < 0)
        return -1;
    sys_close_range(4, ~0u, 0);
    _exit(function(3, path));
}
