/* lock FILE PROGRAM [ARGUMENT...]: take FILE's lock, or end with 1 when somebody has it, and become PROGRAM. */
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int fd = argc > 2 ? open(argv[1], O_RDWR | O_CREAT, 0600) : -1;
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return 1;
    execvp(argv[2], argv + 2);
    return 2;
}
