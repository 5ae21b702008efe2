#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gym.h"

static const struct verb *const tables[] = {file_verbs, mount_verbs, process_verbs, kernel_verbs, socket_verbs,
                                            identity_verbs, flood_verbs, host_verbs};

int got(const char *what)
{
    printf("got %s\n", what);
    fflush(stdout);
    return 0;
}

int denied(const char *what)
{
    printf("denied %s: %s\n", what, strerror(errno));
    fflush(stdout);
    return 1;
}

int show(int fd)
{
    char piece[4096];
    ssize_t count = read(fd, piece, sizeof piece);
    if (count <= 0)
        return denied("reading");
    fwrite(piece, 1, (size_t)count, stdout);
    return fflush(stdout);
}

int main(int count, char **words)
{
    for (size_t i = 0; count > 1 && i < sizeof tables / sizeof *tables; i++)
        for (const struct verb *each = tables[i]; each->name; each++)
            if (!strcmp(each->name, words[1]) && count - 2 >= each->words)
                return each->run(words + 2);
    fprintf(stderr, "gym: no such verb\n");
    return 2;
}
