/* Threads, as ptrace(2) sees them: registers, ids, handlers of signals, and the filter of system calls.
 *
 * What the kernel tells a process only about itself is asked in its name: a thread that stands in a system call is had
 * make another one, by the same instruction, and is then what it was.
 */
#include "freeze.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

enum {
    RESTARTS_FIRST = 512, RESTARTS_LAST = 516, /* the kernel's own errors: the call is to be made once more */
    RED_ZONE = 128,
    ANSWER = 64,
    XSTATE_AT = 512 + 64, /* in the frame, a multiple of 64 from its place */
    XSTATE_WORDS = 464,   /* struct _fpx_sw_bytes, in the legacy part */
    FLAGS = 7,            /* UC_FP_XSTATE, UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS */
};
static const uint32_t xstate_first = 0x46505853, xstate_last = 0x46505845; /* FP_XSTATE_MAGIC1 and 2 */

#ifndef PTRACE_SECCOMP_GET_FILTER
#define PTRACE_SECCOMP_GET_FILTER 0x420c
#endif

/* --- stopping --------------------------------------------------------------------------------------- */

static int known(const struct subject *subject, pid_t id)
{
    for (size_t i = 0; i < subject->count; i++)
        if (subject->threads[i].id == id)
            return 1;
    return 0;
}

static void await(pid_t id)
{
    int status;
    if (waitpid(id, &status, __WALL) != id || !WIFSTOPPED(status))
        give_up("a thread has ended");
}

static void stop(struct subject *subject, pid_t id)
{
    if (subject->count == THREAD_LIMIT)
        give_up("it has more than %d threads", THREAD_LIMIT);
    if (ptrace(PTRACE_SEIZE, id, 0, 0) < 0 || ptrace(PTRACE_INTERRUPT, id, 0, 0) < 0)
        give_up("thread %d cannot be stopped: %s", id, strerror(errno));
    subject->threads[subject->count++] = (struct thread){ .id = id };
    await(id);
}

void stop_threads(struct subject *subject)
{
    char path[64];
    size_t before;
    snprintf(path, sizeof path, "/proc/%d/task", subject->pid);
    stop(subject, subject->pid);
    do { /* a thread may have begun another one before it was stopped */
        before = subject->count;
        DIR *directory = opendir(path);
        if (!directory)
            give_up("it has ended");
        for (struct dirent *entry; (entry = readdir(directory));) {
            pid_t id = (pid_t)atoi(entry->d_name);
            if (id > 0 && !known(subject, id))
                stop(subject, id);
        }
        closedir(directory);
    } while (subject->count != before);
}

/* The trap that ended a step would be a signal of its own, and its end, if we only ended. */
void let_go(const struct subject *subject)
{
    for (size_t i = 0; i < subject->count; i++)
        ptrace(PTRACE_DETACH, subject->threads[i].id, 0, 0);
}

/* --- asking in its name ----------------------------------------------------------------------------- */

static void read_at(const struct subject *subject, uint64_t place, void *bytes, size_t size)
{
    if (pread(subject->memory, bytes, size, (off_t)place) != (ssize_t)size)
        give_up("its memory cannot be read: %s", strerror(errno));
}

static void read_registers(pid_t id, struct user_regs_struct *registers)
{
    if (ptrace(PTRACE_GETREGS, id, 0, registers) < 0)
        give_up("registers cannot be read: %s", strerror(errno));
}

static uint64_t scratch(const struct user_regs_struct *registers)
{
    return (registers->rsp - RED_ZONE - ANSWER) & ~(uint64_t)(ANSWER - 1);
}

static void ask(const struct thread *thread, const struct user_regs_struct *registers, long number, uint64_t a, uint64_t b,
                uint64_t c, uint64_t d)
{
    struct user_regs_struct asking = *registers;
    asking.rip -= 2;
    asking.rax = (unsigned long long)number;
    asking.orig_rax = (unsigned long long)-1;
    asking.rdi = a;
    asking.rsi = b;
    asking.rdx = c;
    asking.r10 = d;
    if (ptrace(PTRACE_SETREGS, thread->id, 0, &asking) < 0 || ptrace(PTRACE_SINGLESTEP, thread->id, 0, 0) < 0)
        give_up("a thread cannot be asked: %s", strerror(errno));
    await(thread->id);
    read_registers(thread->id, &asking);
    if (ptrace(PTRACE_SETREGS, thread->id, 0, registers) < 0 || (long long)asking.rax < 0)
        give_up("system call %ld is refused: %lld", number, (long long)asking.rax);
}

static void read_actions(struct subject *subject, const struct user_regs_struct *registers)
{
    for (int number = 1; number <= FROZEN_SIGNALS; number++) {
        uint64_t place = scratch(registers);
        ask(subject->threads, registers, SYS_rt_sigaction, (uint64_t)number, 0, place, 8);
        read_at(subject, place, subject->head.actions + number - 1, sizeof *subject->head.actions);
    }
}

/* --- frames ----------------------------------------------------------------------------------------- */

/* A call that was interrupted is made again from its beginning; waiting once more for as long does no harm. */
static void rewind_call(struct user_regs_struct *registers)
{
    long long result = -(long long)registers->rax;
    if ((long long)registers->orig_rax >= 0 && result >= RESTARTS_FIRST && result <= RESTARTS_LAST) {
        registers->rax = registers->orig_rax;
        registers->rip -= 2;
    }
}

static void fill_context(ucontext_t *context, const struct user_regs_struct *from)
{
    greg_t *to = context->uc_mcontext.gregs;
    const unsigned long long values[] = {
        from->r8, from->r9, from->r10, from->r11, from->r12, from->r13, from->r14, from->r15,
        from->rdi, from->rsi, from->rbp, from->rbx, from->rdx, from->rax, from->rcx, from->rsp,
        from->rip, from->eflags, from->cs & 0xffff, /* cs, gs, fs and ss are sixteen bits each */
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        to[i] = (greg_t)values[i];
    to[18] = (greg_t)((from->cs & 0xffff) | (from->ss & 0xffff) << 48);
}

static void read_xstate(const struct thread *thread)
{
    unsigned char *state = thread->frame + XSTATE_AT;
    struct iovec part = { state, FRAME_SIZE - XSTATE_AT - 8 };
    if (ptrace(PTRACE_GETREGSET, thread->id, NT_X86_XSTATE, &part) < 0)
        give_up("registers cannot be read: %s", strerror(errno));
    uint64_t features;
    uint32_t size = (uint32_t)part.iov_len, whole = size + (uint32_t)sizeof xstate_last;
    unsigned char *words = state + XSTATE_WORDS;
    memcpy(&features, words, sizeof features);
    memcpy(words, &xstate_first, 4);
    memcpy(words + 4, &whole, 4);
    memcpy(words + 8, &features, 8);
    memcpy(words + 16, &size, 4);
    memcpy(state + size, &xstate_last, sizeof xstate_last);
}

static ucontext_t *context_of(const struct thread *thread) { return (ucontext_t *)(void *)(thread->frame + 8); }

static void read_frame(struct thread *thread, struct user_regs_struct registers)
{
    uint64_t mask = 0;
    if (!(thread->frame = aligned_alloc(64, FRAME_SIZE)))
        give_up("out of memory");
    memset(thread->frame, 0, FRAME_SIZE);
    if (ptrace(PTRACE_GETSIGMASK, thread->id, sizeof mask, &mask) < 0)
        give_up("signals cannot be read: %s", strerror(errno));
    ucontext_t *context = context_of(thread);
    rewind_call(&registers);
    fill_context(context, &registers);
    context->uc_flags = FLAGS;
    context->uc_stack.ss_flags = SS_DISABLE;
    memcpy(&context->uc_sigmask, &mask, sizeof mask);
    read_xstate(thread);
}

void place_frame(struct thread *thread, uint64_t place)
{
    uint64_t state = place + XSTATE_AT;
    memcpy(&context_of(thread)->uc_mcontext.fpregs, &state, sizeof state);
    thread->frozen.frame = place;
}

/* --- all of it -------------------------------------------------------------------------------------- */

static void read_thread(struct subject *subject, struct thread *thread)
{
    struct user_regs_struct registers;
    unsigned char instruction[2];
    read_registers(thread->id, &registers);
    read_at(subject, registers.rip - 2, instruction, sizeof instruction);
    if ((long long)registers.orig_rax < 0 || instruction[0] != 0x0f || instruction[1] != 0x05)
        give_up("thread %d is at work", thread->id);
    thread->frozen.local = registers.fs_base;
    ask(thread, &registers, SYS_prctl, PR_GET_TID_ADDRESS, scratch(&registers), 0, 0);
    read_at(subject, scratch(&registers), &thread->frozen.number, sizeof thread->frozen.number);
    if (!thread->frozen.number)
        give_up("thread %d does not know its id", thread->id);
    if (thread == subject->threads)
        read_actions(subject, &registers);
    read_frame(thread, registers);
}

/* The filter that was set last is the first one the kernel gives; a new process has to set them the other way round. */
static void read_filters(struct subject *subject)
{
    long sizes[FROZEN_FILTERS];
    uint32_t count = 0;
    pid_t id = subject->pid;
    while (count < FROZEN_FILTERS && (sizes[count] = ptrace(PTRACE_SECCOMP_GET_FILTER, id, (long)count, 0)) > 0)
        subject->filters_size += (size_t)sizes[count++] * sizeof(struct sock_filter);
    if (count == FROZEN_FILTERS || (count && errno != ENOENT) || !count)
        give_up("its filter of system calls cannot be read: %s", count ? "there are too many" : strerror(errno));
    unsigned char *next = subject->filters = malloc(subject->filters_size);
    if (!next)
        give_up("out of memory");
    for (uint32_t i = count; i--;) {
        if (ptrace(PTRACE_SECCOMP_GET_FILTER, id, (long)i, next) != sizes[i])
            give_up("its filter of system calls cannot be read: %s", strerror(errno));
        subject->head.instructions[subject->head.filters++] = (uint32_t)sizes[i];
        next += (size_t)sizes[i] * sizeof(struct sock_filter);
    }
}

void read_threads(struct subject *subject)
{
    for (size_t i = 0; i < subject->count; i++)
        read_thread(subject, subject->threads + i);
    read_filters(subject);
}
