/* A service whose need of memory is told to it: it holds as many MiB as /tmp/want says, and touches all of them again
 * and again, as a database does with its pages. Static, the only program of its image beside a shell. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PIECE = 1 << 20, LIMIT = 1 << 16, PAGE = 4096, PAUSE = 100 * 1000, ROUND = 20, PACE = 20 * 1000 /* a piece; times 32 it is 1.6 GB a second */ };

static char *pieces[LIMIT];

static long wanted(void)
{
    FILE *file = fopen("/tmp/want", "r");
    long count = -1;
    if (file && fscanf(file, "%ld", &count) != 1)
        count = -1;
    if (file)
        fclose(file);
    return count < LIMIT ? count : LIMIT;
}

int main(void)
{
    long has = 0, want = 0;
    for (unsigned round = 1;; round++) {
        long told = wanted();
        want = told < 0 ? want : told;
        for (; has > want; has--)
            munmap(pieces[has - 1], PIECE);
        for (; has < want; has++) {
            void *piece = mmap(NULL, PIECE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (piece == MAP_FAILED)
                return 3;
            memset(piece, (int)has | 1, PIECE);
            pieces[has] = piece;
            usleep(PACE);
        }
        for (long i = 0; i < has && round % ROUND == 0; i++)
            for (long at = 0; at < PIECE; at += PAGE)
                pieces[i][at] = (char)round;
        usleep(PAUSE);
    }
}
