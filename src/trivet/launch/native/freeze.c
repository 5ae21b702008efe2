/* Writes a process that stands still, so that others can begin as it: memory, descriptors, threads (frozen.h).
 *
 *     trivet-freeze PID GENERATION MEMORY FILE GUEST NUMBER|NUMBER=PATH...
 *
 * Descriptor MEMORY of the process is the file it maps as a guest's memory, privately: what the guest has there, as this
 * process sees it, goes to our descriptor guest_file, and all else to FILE. A NUMBER will be given to those who thaw, and is
 * what the process has as it or as PATH. Further descriptors can only be events, signals and /dev/urandom. Wherever
 * GENERATION stands, 32 hexadecimal digits, a thawed one has another. The process goes on when we are done.
 */
#include "freeze.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    GIVEN_LIMIT = 32, DESCRIPTOR_LIMIT = 256, FILE_LIMIT = 256, AREA_LIMIT = 4096,
    CHUNK = 1 << 16,
    STACK_ROOM = 4 << 20, /* below what the first thread's stack has grown to, where nothing else is */
    GAP = 64, /* pages that nobody touched, from which on they are no part of the file */
};
#define PRESENT (3ULL << 62) /* or swapped: proc(5), pagemap */
#define OF_FILE (1ULL << 61)

struct given {
    int number;
    bool named; /* by a path, that is; the process has it elsewhere, or not at all */
    dev_t device;
    ino_t inode;
};

static struct subject subject;
static struct given given[GIVEN_LIMIT];
static size_t given_count;
static int guest_number, image, guest_file;
static struct frozen_descriptor descriptors[DESCRIPTOR_LIMIT];
static struct frozen_file files[FILE_LIMIT];
static struct frozen_area areas[AREA_LIMIT];
static unsigned char generation[2][16]; /* as a UUID is written, and as a guest reads it */
static off_t pages_end; /* where the next page goes */

_Noreturn void give_up(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    let_go(&subject);
    exit(1);
}

static FILE *open_text(const char *name)
{
    char path[96];
    snprintf(path, sizeof path, "/proc/%d/%s", subject.pid, name);
    FILE *file = fopen(path, "re");
    if (!file)
        give_up("%s: %s", path, strerror(errno));
    return file;
}

static int open_binary(const char *name)
{
    char path[96];
    snprintf(path, sizeof path, "/proc/%d/%s", subject.pid, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        give_up("%s: %s", path, strerror(errno));
    return fd;
}

static void write_at(int fd, const void *bytes, size_t size, off_t place)
{
    while (size) {
        ssize_t done = pwrite(fd, bytes, size, place);
        if (done <= 0)
            give_up("it cannot be written: %s", strerror(errno));
        bytes = (const char *)bytes + done;
        size -= (size_t)done;
        place += done;
    }
}

/* --- descriptors ------------------------------------------------------------------------------------ */

static int by_number(const void *a, const void *b)
{
    return ((const struct frozen_descriptor *)a)->number - ((const struct frozen_descriptor *)b)->number;
}

static bool is_given(struct frozen_descriptor *descriptor, const struct stat *status)
{
    for (size_t i = 0; i < given_count; i++) {
        const struct given *each = given + i;
        bool same = each->inode == status->st_ino && each->device == status->st_dev;
        if (each->named ? same : same || each->number == descriptor->number) {
            descriptor->source = each->number;
            return true;
        }
    }
    return false;
}

static void describe(struct frozen_descriptor *descriptor, const char *link)
{
    char name[32], line[256];
    unsigned flags = 0;
    unsigned long long value = 0;
    snprintf(name, sizeof name, "fdinfo/%d", descriptor->number);
    FILE *info = open_text(name);
    while (fgets(line, sizeof line, info)) {
        sscanf(line, "flags: %o", &flags);
        sscanf(line, "eventfd-count: %llx", &value);
        sscanf(line, "sigmask: %llx", &value);
        if (!strncmp(line, "eventfd-semaphore: 1", 20))
            give_up("descriptor %d is a semaphore", descriptor->number);
    }
    fclose(info);
    descriptor->cloexec = !!(flags & O_CLOEXEC);
    descriptor->flags = (int)flags & (O_NONBLOCK | O_APPEND);
    descriptor->value = value;
    if (descriptor->source >= 0)
        return;
    if (strcmp(link, "anon_inode:[eventfd]") == 0)
        descriptor->source = FROZEN_EVENT;
    else if (strcmp(link, "anon_inode:[signalfd]") == 0)
        descriptor->source = FROZEN_SIGNAL;
    else if (strcmp(link, "/dev/urandom") == 0)
        descriptor->source = FROZEN_RANDOM;
    else
        give_up("descriptor %d is %s", descriptor->number, link);
}

static void read_descriptors(void)
{
    char path[96], link[256];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%d/fd", subject.pid);
    DIR *directory = opendir(path);
    if (!directory)
        give_up("%s: %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(directory));) {
        if (entry->d_name[0] == '.')
            continue;
        if (subject.head.descriptors == DESCRIPTOR_LIMIT)
            give_up("it has more than %d descriptors", DESCRIPTOR_LIMIT);
        struct frozen_descriptor *next = descriptors + subject.head.descriptors++;
        *next = (struct frozen_descriptor){ .number = atoi(entry->d_name), .source = -1 };
        ssize_t length = readlinkat(dirfd(directory), entry->d_name, link, sizeof link - 1);
        if (length < 0 || fstatat(dirfd(directory), entry->d_name, &status, 0) < 0)
            give_up("descriptor %s: %s", entry->d_name, strerror(errno));
        link[length] = 0;
        is_given(next, &status);
        describe(next, link);
    }
    closedir(directory);
    qsort(descriptors, subject.head.descriptors, sizeof *descriptors, by_number);
}

static void take_given(const char *word)
{
    struct stat status;
    char name[64];
    const char *path = strchr(word, '=');
    struct given *next = given + given_count;
    if (given_count++ == GIVEN_LIMIT)
        give_up("too many descriptors are given");
    *next = (struct given){ .number = atoi(word), .named = path };
    snprintf(name, sizeof name, "/proc/%d/fd/%d", subject.pid, next->number);
    if (stat(path ? path + 1 : name, &status) < 0)
        give_up("%s: %s", path ? path + 1 : name, strerror(errno));
    next->device = status.st_dev;
    next->inode = status.st_ino;
}

/* --- memory ----------------------------------------------------------------------------------------- */

static struct frozen_area *add_area(uint64_t start, uint64_t end, uint32_t protection, int source, uint64_t offset)
{
    struct frozen_area *next = areas + subject.head.areas;
    if (subject.head.areas++ == AREA_LIMIT)
        give_up("it has too many areas of memory");
    *next = (struct frozen_area){ start, end, offset, source, protection };
    return next;
}

/* It is the same place in each thawed process; a page that only the guest's file has is seen there, too. */
static void note_generation(uint64_t place, const unsigned char *page, size_t size)
{
    for (int kind = 0; kind < 2; kind++) {
        const unsigned char *at = page;
        while ((at = memmem(at, size - (size_t)(at - page), generation[kind], 16))) {
            if (subject.head.identified == FROZEN_IDENTITIES)
                give_up("its generation stands in too many places");
            subject.head.identities[subject.head.identified++]
                = (struct frozen_identity){ place + (uint64_t)(at - page), (uint64_t)kind };
            at += 16;
        }
    }
}

static void take_generation(const char *word)
{
    static const unsigned char swapped[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
    for (int i = 0; i < 16; i++)
        if (strlen(word) != 32 || sscanf(word + 2 * i, "%2hhx", &generation[0][i]) != 1)
            give_up("%s is no generation", word);
    for (int i = 0; i < 16; i++)
        generation[1][i] = generation[0][swapped[i]];
}

/* A new file has zeros where nothing was written; one that was copied before (`over`) has something else. */
static void copy_page(uint64_t place, int target, off_t offset, bool over)
{
    static const unsigned char zeros[FROZEN_PAGE];
    unsigned char page[FROZEN_PAGE];
    if (pread(subject.memory, page, sizeof page, (off_t)place) != sizeof page)
        give_up("its memory cannot be read: %s", strerror(errno));
    note_generation(place, page, sizeof page);
    if (over || memcmp(page, zeros, sizeof page))
        write_at(target, page, sizeof page, offset);
}

static uint64_t *page_map(uint64_t start, uint64_t end)
{
    static int map = -1;
    size_t size = (size_t)(end - start) / FROZEN_PAGE * sizeof(uint64_t);
    uint64_t *found = malloc(size);
    if (map < 0)
        map = open_binary("pagemap");
    if (!found || pread(map, found, size, (off_t)(start / FROZEN_PAGE * sizeof(uint64_t))) != (ssize_t)size)
        give_up("the map of its pages cannot be read");
    return found;
}

static bool own(uint64_t page) { return page & PRESENT && !(page & OF_FILE); }

static void keep(uint64_t start, const uint64_t *pages, size_t first, size_t end, uint32_t protection)
{
    add_area(start + first * FROZEN_PAGE, start + end * FROZEN_PAGE, protection, FROZEN_PAGES, (uint64_t)pages_end);
    for (size_t i = first; i < end; i++, pages_end += FROZEN_PAGE)
        if (pages[i] & PRESENT)
            copy_page(start + i * FROZEN_PAGE, image, pages_end, false);
}

/* Pages nobody has touched stay away, unless they are few between others. */
static void keep_touched(uint64_t start, uint64_t end, uint32_t protection)
{
    uint64_t *pages = page_map(start, end);
    size_t count = (size_t)(end - start) / FROZEN_PAGE, done = 0;
    for (size_t i = 0; i < count;) {
        size_t first = i, last = i, next = i;
        if (!(pages[i] & PRESENT)) {
            i++;
            continue;
        }
        for (; next < count && next - last <= GAP; next++)
            if (pages[next] & PRESENT)
                last = next;
        if (done < first)
            add_area(start + done * FROZEN_PAGE, start + first * FROZEN_PAGE, protection, FROZEN_NOTHING, 0);
        keep(start, pages, first, last + 1, protection);
        i = done = last + 1;
    }
    if (done < count)
        add_area(start + done * FROZEN_PAGE, end, protection, FROZEN_NOTHING, 0);
    free(pages);
}

static void keep_file(uint64_t start, uint64_t end, uint32_t protection, uint64_t offset, const char *path)
{
    uint64_t *pages = page_map(start, end);
    size_t count = (size_t)(end - start) / FROZEN_PAGE;
    struct stat status;
    for (size_t i = 0; i < count; i++)
        if (own(pages[i])) {
            for (size_t j = 0; j < count; j++) /* those that are still the file's are read from it */
                pages[j] |= PRESENT;
            keep(start, pages, 0, count, protection);
            free(pages);
            return;
        }
    free(pages);
    char seen[600];
    uint32_t number = 0;
    snprintf(seen, sizeof seen, "/proc/%d/root%s", subject.pid, path);
    while (number < subject.head.files && strcmp(files[number].path, path))
        number++;
    if (number == FILE_LIMIT || strlen(path) >= FROZEN_PATH || stat(seen, &status) < 0)
        give_up("it has mapped %s", path);
    if (number == subject.head.files) {
        struct frozen_file *next = files + subject.head.files++;
        *next = (struct frozen_file){
            .inode = status.st_ino,
            .size = (uint64_t)status.st_size,
            .seconds = (uint64_t)status.st_mtim.tv_sec,
            .nanoseconds = (uint64_t)status.st_mtim.tv_nsec,
        };
        strcpy(next->path, path);
    }
    add_area(start, end, protection, (int)number, offset);
}

static void copy_file(int source, off_t size)
{
    static unsigned char bytes[CHUNK];
    if (ftruncate(guest_file, size) < 0)
        give_up("it cannot be written: %s", strerror(errno));
    for (off_t at = 0, end; (at = lseek(source, at, SEEK_DATA)) >= 0; at = end) {
        if ((end = lseek(source, at, SEEK_HOLE)) < 0)
            give_up("the guest's memory cannot be read: %s", strerror(errno));
        while (at < end) {
            size_t wanted = end - at < CHUNK ? (size_t)(end - at) : CHUNK;
            ssize_t size_read = pread(source, bytes, wanted, at);
            if (size_read <= 0)
                give_up("the guest's memory cannot be read: %s", strerror(errno));
            write_at(guest_file, bytes, (size_t)size_read, at);
            at += size_read;
        }
    }
}

/* The guest's memory is a file that all share, with pages of the process's own over it. */
static void keep_guest(uint64_t start, uint64_t end, uint32_t protection, uint64_t offset)
{
    static bool copied;
    char name[32];
    struct stat status;
    if (!copied) {
        snprintf(name, sizeof name, "fd/%d", guest_number);
        int source = open_binary(name);
        if (fstat(source, &status) < 0)
            give_up("the guest's memory cannot be read: %s", strerror(errno));
        copy_file(source, status.st_size);
        close(source);
        copied = true;
    }
    uint64_t *pages = page_map(start, end);
    for (size_t i = 0; i < (end - start) / FROZEN_PAGE; i++)
        if (pages[i] & PRESENT)
            copy_page(start + i * FROZEN_PAGE, guest_file, (off_t)(offset + i * FROZEN_PAGE), true);
    free(pages);
    add_area(start, end, protection, FROZEN_GUEST, offset);
}

static uint32_t protection_of(const char *letters)
{
    return (letters[0] == 'r' ? PROT_READ : 0u) | (letters[1] == 'w' ? PROT_WRITE : 0u) | (letters[2] == 'x' ? PROT_EXEC : 0u);
}

static ino_t guest_inode(void)
{
    char name[64];
    struct stat status;
    snprintf(name, sizeof name, "/proc/%d/fd/%d", subject.pid, guest_number);
    if (stat(name, &status) < 0)
        give_up("%s: %s", name, strerror(errno));
    return status.st_ino;
}

static void keep_mapping(const char *line, ino_t guest)
{
    unsigned long long start, end, offset, inode;
    char letters[5], path[512] = "";
    if (sscanf(line, "%llx-%llx %4s %llx %*s %llu %511[^\n]", &start, &end, letters, &offset, &inode, path) < 5)
        give_up("its memory cannot be understood");
    uint32_t protection = protection_of(letters);
    if (end > FROZEN_BASE && start < FROZEN_END)
        give_up("it has memory at %llx", start);
    if (!strncmp(path, "[vvar", 5) || !strcmp(path, "[vdso]")) {
        subject.head.vdso = subject.head.vdso ? subject.head.vdso : start;
        subject.head.vdso_size = end - subject.head.vdso;
    } else if (strcmp(path, "[vsyscall]") == 0)
        return;
    else if (letters[3] != 'p')
        give_up("it shares %s", path);
    else if (inode == guest)
        keep_guest(start, end, protection, offset);
    else if (inode && protection)
        keep_file(start, end, protection, offset, path);
    else
        keep_touched(strcmp(path, "[stack]") ? start : start - STACK_ROOM, end, protection);
    if (strcmp(path, "[heap]") == 0)
        subject.head.layout[5] = end;
}

static void keep_memory(void)
{
    char line[1024];
    ino_t guest = guest_inode();
    FILE *maps = open_text("maps");
    while (fgets(line, sizeof line, maps))
        keep_mapping(line, guest);
    fclose(maps);
    if (!subject.head.vdso)
        give_up("it has no page of the kernel's");
    if (!subject.head.identified)
        give_up("its generation is not where it was looked for");
}

/* Fields 26 to 28 and 45 to 51 of proc(5), stat. */
static void read_layout(void)
{
    char line[2048];
    unsigned long long values[64] = { 0 };
    FILE *stat_file = open_text("stat");
    if (!fgets(line, sizeof line, stat_file))
        give_up("it has ended");
    fclose(stat_file);
    char *at = strrchr(line, ')');
    for (int field = 3; at && field < 64 && (at = strchr(at + 1, ' ')); field++)
        values[field] = strtoull(at + 1, NULL, 10);
    const int fields[11] = { 26, 27, 45, 46, 47, 0, 28, 48, 49, 50, 51 };
    for (int i = 0; i < 11; i++)
        subject.head.layout[i] = fields[i] ? values[fields[i]] : values[47];
    FILE *name = open_text("comm");
    if (fgets(subject.head.name, sizeof subject.head.name, name))
        subject.head.name[strcspn(subject.head.name, "\n")] = 0;
    fclose(name);
}

/* --- file ------------------------------------------------------------------------------------------- */

static uint64_t put(const void *bytes, size_t size, uint64_t *end)
{
    uint64_t place = (*end + 63) & ~(uint64_t)63;
    if (size)
        write_at(image, bytes, size, (off_t)place);
    *end = place + size;
    return place;
}

/* The table's size has to be known before the first page is written, and only the number of areas isn't yet. */
static uint64_t room(void)
{
    uint64_t size = sizeof(struct frozen) + sizeof descriptors + sizeof files + sizeof areas + subject.filters_size
        + subject.count * (FRAME_SIZE + sizeof(struct frozen_thread)) + (64 + subject.count) * 64;
    return (size + FROZEN_PAGE - 1) / FROZEN_PAGE * FROZEN_PAGE;
}

static void write_table(void)
{
    struct frozen *head = &subject.head;
    struct frozen_thread threads[THREAD_LIMIT];
    uint64_t end = sizeof *head;
    head->descriptor_at = put(descriptors, head->descriptors * sizeof *descriptors, &end);
    head->file_at = put(files, head->files * sizeof *files, &end);
    head->area_at = put(areas, head->areas * sizeof *areas, &end);
    head->filter_at = put(subject.filters, subject.filters_size, &end);
    for (size_t i = 0; i < subject.count; i++) {
        uint64_t place = (end + 63) & ~(uint64_t)63;
        place_frame(subject.threads + i, FROZEN_TABLE + place);
        put(subject.threads[i].frame, FRAME_SIZE, &end);
        threads[i] = subject.threads[i].frozen;
    }
    head->threads = (uint32_t)subject.count;
    head->thread_at = put(threads, subject.count * sizeof *threads, &end);
    head->magic = FROZEN_MAGIC;
    write_at(image, head, sizeof *head, 0);
}

int main(int count, char **words)
{
    if (count < 6 || (subject.pid = atoi(words[1])) <= 0)
        give_up("usage: trivet-freeze PID GENERATION MEMORY FILE GUEST NUMBER[=PATH]...");
    take_generation(words[2]);
    guest_number = atoi(words[3]);
    image = atoi(words[4]);
    guest_file = atoi(words[5]);
    stop_threads(&subject);
    subject.memory = open_binary("mem");
    for (int i = 6; i < count; i++)
        take_given(words[i]);
    read_threads(&subject);
    read_layout();
    read_descriptors();
    subject.head.size = room();
    pages_end = (off_t)subject.head.size;
    keep_memory();
    if (ftruncate(image, pages_end) < 0)
        give_up("it cannot be written: %s", strerror(errno));
    write_table();
    let_go(&subject);
    return 0;
}
