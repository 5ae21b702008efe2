/* What the program may use but could not open by itself: it has the descriptor, not the path. */
#include "executor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 8 };

static bool can_be(int number) { return number >= 3 && number < GIFT_LIMIT && fcntl(number, F_GETFD) < 0; }

/* Keep a descriptor for the program under this number; ours is closed. */
static int give(struct executor *executor, int fd, int number)
{
    int result = fd == number ? 0 : dup3(fd, number, O_CLOEXEC);
    if (fd != number)
        close(fd);
    executor->gifts[number / 64] |= (uint64_t)1 << number % 64;
    return result < 0 ? -1 : 0;
}

int operate_give(struct executor *executor, struct cursor *fields)
{
    static const int modes[] = { O_RDONLY, O_RDWR, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW };
    const char *path = take_text(fields);
    int64_t mode = take_integer(fields);
    int number = (int)take_integer(fields);
    if (!can_be(number) || mode < 0 || mode > 2)
        return refuse(executor, EBADF, "descriptor %d can't be given", number);
    int fd = open(path, modes[mode] | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0)
        return refuse(executor, errno, "open %s", path);
    return give(executor, fd, number);
}

int operate_give_tap(struct executor *executor, struct cursor *fields)
{
    const char *device = take_text(fields);
    int number = (int)take_integer(fields);
    struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
    if (!can_be(number) || strlen(device) >= IFNAMSIZ)
        return refuse(executor, EBADF, "descriptor %d can't be given", number);
    strcpy(request.ifr_name, device);
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return refuse(executor, error, "open tap device %s", device);
    }
    return give(executor, fd, number);
}

int operate_give_listener(struct executor *executor, struct cursor *fields)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    const char *path = take_text(fields);
    int number = (int)take_integer(fields);
    if (!can_be(number) || strlen(path) >= sizeof address.sun_path)
        return refuse(executor, EBADF, "descriptor %d can't be given", number);
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    mode_t mask = umask(0177);
    int result = bind(fd, (struct sockaddr *)&address, sizeof address);
    umask(mask);
    if (result < 0 || listen(fd, BACKLOG) < 0) {
        int error = errno;
        close(fd);
        return refuse(executor, error, "listen at %s", path);
    }
    return give(executor, fd, number);
}
