/* stat, and what the three builtins share; see archive.h. */
#define _GNU_SOURCE
#include "archive.h"
#include "builtin.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

int fail(int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, error ? ": %s\n" : "\n", strerror(error));
    return error == ENOENT ? STATUS_NOT_FOUND : STATUS_FAILED;
}

int resolve(int root, const char *path, uint64_t flags, uint64_t how)
{
    int fd = -1;
    for (int attempt = 0; attempt < 128; attempt++) { /* EAGAIN: something was renamed meanwhile (openat2(2)) */
        fd = sys_openat2(root, path, flags | O_CLOEXEC, 0, how | RESOLVE_NO_MAGICLINKS);
        if (fd >= 0 || errno != EAGAIN)
            break;
    }
    return fd;
}

int open_named(int root, const char *path)
{
    size_t length = strlen(path);
    bool directory = length && (path[length - 1] == '/' || strcmp(path, ".") == 0);
    if (length > 1 && strcmp(path + length - 2, "/.") == 0)
        directory = true;
    return resolve(root, length ? path : "/", O_PATH | (directory ? O_DIRECTORY : O_NOFOLLOW), RESOLVE_IN_ROOT);
}

void last_component(const char *path, char name[NAME_MAX + 1])
{
    size_t end = strlen(path);
    while (end && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start && path[start - 1] != '/')
        start--;
    int length = end - start > NAME_MAX ? NAME_MAX : (int)(end - start);
    snprintf(name, NAME_MAX + 1, "%.*s", length, path + start);
    if (!*name || strcmp(name, "..") == 0)
        strcpy(name, ".");
}

unsigned header_checksum(const struct header *header)
{
    struct header copy = *header;
    unsigned sum = 0;
    memset(copy.checksum, ' ', sizeof copy.checksum);
    for (size_t i = 0; i < BLOCK; i++)
        sum += ((unsigned char *)&copy)[i];
    return sum;
}

/* How many bytes at `text` are one valid UTF-8 character; 0 if none. */
static int utf8(const unsigned char *text)
{
    static const struct { unsigned char mask, lead; unsigned least; } forms[] = {
        { 0x80, 0x00, 0 }, { 0xe0, 0xc0, 0x80 }, { 0xf0, 0xe0, 0x800 }, { 0xf8, 0xf0, 0x10000 },
    };
    for (int size = 1; size <= 4; size++) {
        if ((*text & forms[size - 1].mask) != forms[size - 1].lead)
            continue;
        unsigned value = *text & (unsigned char)~forms[size - 1].mask;
        for (int i = 1; i < size; i++) {
            if ((text[i] & 0xc0) != 0x80)
                return 0;
            value = value << 6 | (text[i] & 0x3f);
        }
        bool surrogate = value >= 0xd800 && value <= 0xdfff;
        return value >= forms[size - 1].least && value <= 0x10ffff && !surrogate ? size : 0;
    }
    return 0;
}

static void print_json(const char *key, const char *text)
{
    printf("\"%s\":\"", key);
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        int size = utf8(at);
        if (!size)
            fputs("\\ufffd", stdout), at++;
        else if (*at < 0x20 || *at == '"' || *at == '\\' || *at == 0x7f)
            printf("\\u%04x", *at++);
        else
            at += fwrite(at, 1, (size_t)size, stdout) ? size : 1;
    }
    putchar('"');
}

int builtin_stat(int root, const char *path)
{
    char name[NAME_MAX + 1], link[PATH_MAX] = "", modified[32];
    struct stat info;
    struct tm when;
    int fd = open_named(root, path);
    if (fd < 0 || fstat(fd, &info) < 0)
        return fail(errno, "cannot find %s", path);
    if (S_ISLNK(info.st_mode) && readlinkat(fd, "", link, sizeof link - 1) < 0)
        return fail(errno, "cannot read link %s", path);
    last_component(path, name);
    gmtime_r(&info.st_mtime, &when);
    strftime(modified, sizeof modified, "%Y-%m-%dT%H:%M:%S", &when);
    putchar('{');
    print_json("name", name);
    printf(",\"mode\":%u,\"size\":%lld,\"modified\":\"%s.%09ldZ\",", info.st_mode, (long long)info.st_size, modified,
           info.st_mtim.tv_nsec);
    print_json("link", link);
    puts("}");
    return fflush(stdout) ? fail(errno, "cannot write") : 0;
}
