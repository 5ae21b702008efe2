/* Becomes a process that was frozen: its memory, descriptors, threads and filter of system calls.
 *
 * It stands at an address that nobody else has (Makefile), uses no library, and has its own stack: everything else is
 * unmapped before the frozen process's memory takes its place. Whatever can't be as it was ends it with a word.
 *
 * Ids of threads are new ones and are written where the C library keeps them. What the kernel has promised to tell
 * (rseq, robust lists) isn't promised again: the library does without.
 */
#include "frozen.h"

#include <linux/fcntl.h>
#include <linux/filter.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <asm/prctl.h>
#include <asm/stat.h>
#include <asm/unistd.h>
#include <stddef.h>

enum { SECCOMP_FILTER = 2, EMPTY_FD = -1 };
#define LAST_ADDRESS 0x7ffffffff000u /* of a process, with four levels of page tables */

struct kernel_map { /* struct prctl_mm_map */
    uint64_t addresses[11];
    uint64_t auxv;
    uint32_t auxv_size;
    int32_t executable;
};

char stack[32768] __attribute__((aligned(64)));

__asm__(".globl _start\n"
        "_start:\n"
        "    lea stack+32768(%rip), %rsp\n"
        "    xor %ebp, %ebp\n"
        "    call thaw\n");

static long call6(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static long call3(long number, long a, long b, long c) { return call6(number, a, b, c, 0, 0, 0); }

static _Noreturn void give_up(const char *text)
{
    size_t length = 0;
    while (text[length])
        length++;
    call3(__NR_write, 2, (long)"cannot thaw a machine: ", 23);
    call3(__NR_write, 2, (long)text, (long)length);
    call3(__NR_write, 2, (long)"\n", 1);
    for (;;)
        call3(__NR_exit_group, 1, 0, 0);
}

static void must(long result, const char *text)
{
    if (result < 0)
        give_up(text);
}

static const void *at(const struct frozen *frozen, uint64_t offset) { return (const char *)frozen + offset; }

static void map(uint64_t start, uint64_t end, uint32_t protection, int flags, int fd, uint64_t offset)
{
    long found = call6(__NR_mmap, (long)start, (long)(end - start), protection, flags | MAP_PRIVATE | MAP_FIXED, fd,
                       (long)offset);
    if (found != (long)start)
        give_up("its memory has no place");
}

/* --- memory ----------------------------------------------------------------------------------------- */

static int open_file(const struct frozen_file *file)
{
    struct stat found;
    int fd = (int)call3(__NR_open, (long)file->path, O_RDONLY | O_CLOEXEC, 0);
    must(fd, "a library has gone");
    must(call3(__NR_fstat, fd, (long)&found, 0), "a library has gone");
    if (found.st_ino != file->inode || (uint64_t)found.st_size != file->size || found.st_mtime != file->seconds
        || found.st_mtime_nsec != file->nanoseconds)
        give_up("a library is another one now");
    return fd;
}

/* Areas of a file stand one behind the other more often than not: it is opened once for them all. */
static void map_areas(const struct frozen *frozen)
{
    const struct frozen_area *areas = at(frozen, frozen->area_at);
    const struct frozen_file *files = at(frozen, frozen->file_at);
    int opened = EMPTY_FD, number = -1;
    for (uint32_t i = 0; i < frozen->areas; i++) {
        const struct frozen_area *area = areas + i;
        int flags = MAP_NORESERVE | (area->source == FROZEN_NOTHING ? MAP_ANONYMOUS : 0);
        int fd = area->source == FROZEN_PAGES ? FROZEN_IMAGE : area->source == FROZEN_GUEST ? FROZEN_MEMORY : EMPTY_FD;
        if (area->source >= 0 && area->source != number) {
            if (opened >= 0)
                call3(__NR_close, opened, 0, 0);
            number = area->source;
            opened = open_file(files + number);
        }
        map(area->start, area->end, area->protection, flags, area->source >= 0 ? opened : fd, area->offset);
    }
    if (opened >= 0)
        call3(__NR_close, opened, 0, 0);
}

/* The page with the kernel's own code is where the C library remembers it. */
static void map_vdso(const struct frozen *frozen)
{
    must(call3(__NR_arch_prctl, ARCH_MAP_VDSO_64, (long)frozen->vdso, 0), "the kernel's page can't be moved");
    if (call3(__NR_msync, (long)frozen->vdso, (long)frozen->vdso_size, MS_ASYNC) < 0)
        give_up("the kernel's page has another place");
}

static void lay_out(const struct frozen *frozen)
{
    struct kernel_map layout = { .executable = -1 };
    for (int i = 0; i < 11; i++)
        layout.addresses[i] = frozen->layout[i];
    /* Without it malloc goes on with mappings of its own. */
    call6(__NR_prctl, PR_SET_MM, PR_SET_MM_MAP, (long)&layout, sizeof layout, 0, 0);
    call3(__NR_prctl, PR_SET_NAME, (long)frozen->name, 0);
}

/* A machine of its own has a generation of its own: a random UUID (RFC 9562, version 4). */
static void identify(const struct frozen *frozen)
{
    unsigned char fresh[16];
    if (call3(__NR_getrandom, (long)fresh, sizeof fresh, 0) != sizeof fresh)
        give_up("nothing is random here");
    fresh[6] = (unsigned char)((fresh[6] & 0x0f) | 0x40);
    fresh[8] = (unsigned char)((fresh[8] & 0x3f) | 0x80);
    for (uint32_t i = 0; i < frozen->identified; i++) {
        static const unsigned char swapped[16] = { 3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15 };
        unsigned char *to = (unsigned char *)frozen->identities[i].place;
        for (int j = 0; j < 16; j++)
            to[j] = fresh[frozen->identities[i].little ? swapped[j] : j];
    }
}

/* --- descriptors ------------------------------------------------------------------------------------ */

static int made(const struct frozen_descriptor *wanted)
{
    if (wanted->source == FROZEN_EVENT)
        return (int)call3(__NR_eventfd2, (long)wanted->value, wanted->flags & O_NONBLOCK, 0);
    if (wanted->source == FROZEN_RANDOM)
        return (int)call3(__NR_open, (long)"/dev/urandom", O_RDONLY | (wanted->flags & O_NONBLOCK), 0);
    return (int)call6(__NR_signalfd4, -1, (long)&wanted->value, 8, wanted->flags & O_NONBLOCK, 0, 0);
}

static void provide(const struct frozen_descriptor *wanted)
{
    int source = wanted->source >= 0 ? wanted->source : made(wanted);
    must(source, "a descriptor can't be made");
    if (wanted->source >= 0)
        must(call3(__NR_fcntl, source, F_SETFL, wanted->flags), "a descriptor is missing");
    if (source == wanted->number) {
        call3(__NR_fcntl, source, F_SETFD, wanted->cloexec ? FD_CLOEXEC : 0);
        return;
    }
    must(call3(__NR_dup3, source, wanted->number, wanted->cloexec ? O_CLOEXEC : 0), "a descriptor is missing");
    if (wanted->source < 0)
        call3(__NR_close, source, 0, 0);
}

/* They are in the order of their numbers; whatever else is open is nothing of the frozen process's. */
static void set_descriptors(const struct frozen *frozen)
{
    const struct frozen_descriptor *all = at(frozen, frozen->descriptor_at);
    unsigned next = 0;
    for (uint32_t i = 0; i < frozen->descriptors; i++)
        provide(all + i);
    for (uint32_t i = 0; i < frozen->descriptors; i++) {
        if ((unsigned)all[i].number > next)
            must(call3(__NR_close_range, next, all[i].number - 1, 0), "descriptors can't be closed");
        next = (unsigned)all[i].number + 1;
    }
    must(call3(__NR_close_range, next, ~0u, 0), "descriptors can't be closed");
}

/* --- threads ---------------------------------------------------------------------------------------- */

static void set_signals(const struct frozen *frozen)
{
    for (int signal = 1; signal <= FROZEN_SIGNALS; signal++)
        if (frozen->actions[signal - 1].handler)
            must(call6(__NR_rt_sigaction, signal, (long)(frozen->actions + signal - 1), 0, 8, 0, 0), "a signal is refused");
}

/* The first one that was set is the first one here. */
static void set_filters(const struct frozen *frozen)
{
    const struct sock_filter *instructions = at(frozen, frozen->filter_at);
    for (uint32_t i = 0; i < frozen->filters; i++) {
        struct sock_fprog program = { (unsigned short)frozen->instructions[i], (struct sock_filter *)instructions };
        must(call3(__NR_prctl, PR_SET_SECCOMP, SECCOMP_FILTER, (long)&program), "its filter is refused");
        instructions += frozen->instructions[i];
    }
}

/* The new thread has its frame where a signal's handler would leave it, and returns from that. */
static long begin(const struct frozen_thread *thread)
{
    long result;
    const long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS
        | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
    register uint64_t number __asm__("r10") = thread->number;
    register uint64_t local __asm__("r8") = thread->local;
    __asm__ volatile("syscall\n"
                     "    test %%rax, %%rax\n"
                     "    jnz 1f\n"
                     "    mov %[back], %%eax\n"
                     "    syscall\n"
                     "    hlt\n"
                     "1:"
                     : "=a"(result)
                     : "a"((long)__NR_clone), "D"(flags), "S"(thread->frame + 8), "d"(thread->number), "r"(number),
                       "r"(local), [back] "i"(__NR_rt_sigreturn)
                     : "rcx", "r11", "memory");
    return result;
}

static _Noreturn void go_on(const struct frozen_thread *thread)
{
    must(call3(__NR_arch_prctl, ARCH_SET_FS, (long)thread->local, 0), "its first thread is refused");
    *(uint32_t *)thread->number = (uint32_t)call3(__NR_set_tid_address, (long)thread->number, 0, 0);
    __asm__ volatile("mov %0, %%rsp\n"
                     "    mov %1, %%eax\n"
                     "    syscall\n"
                     "    hlt"
                     :
                     : "r"(thread->frame + 8), "i"(__NR_rt_sigreturn)
                     : "memory");
    __builtin_unreachable();
}

_Noreturn void thaw(void)
{
    struct frozen *frozen = (struct frozen *)FROZEN_TABLE;
    must(call3(__NR_munmap, 0, (long)FROZEN_BASE, 0), "what is here can't go");
    must(call3(__NR_munmap, (long)FROZEN_TABLE, (long)(LAST_ADDRESS - FROZEN_TABLE), 0), "what is here can't go");
    map(FROZEN_TABLE, FROZEN_TABLE + FROZEN_PAGE, PROT_READ, 0, FROZEN_IMAGE, 0);
    if (frozen->magic != FROZEN_MAGIC)
        give_up("it is of another build");
    map(FROZEN_TABLE, FROZEN_TABLE + frozen->size, PROT_READ, 0, FROZEN_IMAGE, 0);
    map_vdso(frozen);
    map_areas(frozen);
    identify(frozen);
    lay_out(frozen);
    set_descriptors(frozen);
    set_signals(frozen);
    set_filters(frozen);
    const struct frozen_thread *threads = at(frozen, frozen->thread_at);
    for (uint32_t i = 1; i < frozen->threads; i++)
        must(begin(threads + i), "a thread is refused");
    go_on(threads);
}
