/* The table of operations, the check of a plan, and the loop that carries it out. */
#include "executor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char magic[8] = "TRVPLAN1";

enum { PLAN_HEADER = 12, OPERATION_HEADER = 8, INTEGER_SIZE = 8, LENGTH_SIZE = 4 };

struct operation {
    uint32_t code;
    const char *name;
    const char *signature; /* i integer, s string or bytes, l list of strings */
    int (*function)(struct executor *, struct cursor *);
};

/* Monitor, Relay, Spawn, Descriptors, Fork and Revive shape the launcher itself: monitor.c, relay.c, session.c and conduct.c
 * read their fields. */
static const struct operation operations[] = {
    { CODE_MONITOR, "Monitor", "ssiiil", NULL },
    { CODE_RELAY, "Relay", "isi", NULL },
    { CODE_SPAWN, "Spawn", "iiiiisssi", NULL },
    { CODE_DESCRIPTORS, "Descriptors", "i", NULL },
    { CODE_FORK, "Fork", "i", NULL },
    { CODE_REVIVE, "Revive", "s", NULL },
    { 10, "WriteFile", "ssi", operate_write_file },
    { 11, "Unshare", "i", operate_unshare },
    { 12, "Join", "ii", operate_join },
    { 13, "JoinPath", "si", operate_join_path },
    { 14, "OpenTree", "sissii", operate_open_tree },
    { 15, "DeviceFilter", "ss", operate_device_filter },
    { 16, "OpenOverlay", "lssissii", operate_open_overlay },
    { 17, "Hold", "ssss", operate_hold },
    { 18, "Give", "sii", operate_give },
    { 20, "Propagation", "si", operate_propagation },
    { 21, "Root", "s", operate_root },
    { 22, "Mount", "sssiliiii", operate_mount },
    { 23, "Bind", "ssiiiiiiiiiii", operate_bind },
    { 24, "Directory", "siiii", operate_directory },
    { 25, "Node", "siiiii", operate_node },
    { 26, "Symlink", "ss", operate_symlink },
    { 27, "File", "ssiii", operate_file },
    { 28, "Mask", "s", operate_mask },
    { 29, "ReadOnly", "s", operate_read_only },
    { 30, "RemountRoot", "i", operate_remount_root },
    { 31, "Pivot", "", operate_pivot },
    { 32, "Chroot", "", operate_chroot },
    { 33, "Unmount", "si", operate_unmount },
    { 40, "Hostname", "ss", operate_hostname },
    { 41, "LinkUp", "ssi", operate_link_up },
    { 42, "AddAddress", "ss", operate_add_address },
    { 43, "AddRoute", "sss", operate_add_route },
    { 44, "Sysctl", "ss", operate_sysctl },
    { 45, "Rlimit", "iii", operate_rlimit },
    { 46, "Keyring", "", operate_keyring },
    { 47, "Umask", "i", operate_umask },
    { 48, "OomScore", "i", operate_oom_score },
    { 49, "Console", "s", operate_console },
    { 50, "User", "sl", operate_user },
    { 51, "Identity", "iil", operate_identity },
    { 52, "Become", "", operate_become },
    { 53, "WorkingDirectory", "si", operate_working_directory },
    { 54, "Capabilities", "iiiii", operate_capabilities },
    { 55, "NoNewPrivileges", "", operate_no_new_privileges },
    { 56, "Seccomp", "si", operate_seccomp },
    { 60, "Wait", "", operate_wait },
    { 61, "Background", "lss", operate_background },
    { 62, "Exec", "ll", operate_exec },
    { 63, "Builtin", "sl", operate_builtin },
    { 64, "Init", "", operate_init },
    { 65, "Sync", "s", operate_sync },
    { 66, "Personality", "i", operate_personality },
    { 67, "Scheduler", "iiiiiii", operate_scheduler },
    { 68, "IoPriority", "i", operate_io_priority },
    { 69, "Affinity", "s", operate_affinity },
    { 70, "MemoryPolicy", "is", operate_memory_policy },
    { 71, "Find", "ll", operate_find },
    { 72, "LinkAddress", "ss", operate_link_address },
    { 73, "DropAddress", "ss", operate_drop_address },
    { 74, "GiveTap", "si", operate_give_tap },
    { 75, "GiveListener", "si", operate_give_listener },
    { 76, "AwaitUnused", "s", operate_await_unused },
};

enum { OPERATION_COUNT = sizeof operations / sizeof *operations };

static uint32_t read32(const unsigned char *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static const struct operation *operation_of(uint32_t code)
{
    for (size_t i = 0; i < OPERATION_COUNT; i++)
        if (operations[i].code == code)
            return &operations[i];
    return NULL;
}

void executor_print_operations(void)
{
    for (size_t i = 0; i < OPERATION_COUNT; i++)
        printf("%u %s %s\n", operations[i].code, operations[i].name, operations[i].signature);
}

void executor_init(struct executor *executor)
{
    memset(executor, 0, sizeof *executor);
    executor->conductor = executor->root = executor->report = executor->joined_fd = -1;
    executor->mounts = executor->given = executor->given_number = -1;
}

void executor_close(struct executor *executor)
{
    int *const fds[] = { &executor->root, &executor->joined_fd, &executor->mounts };
    int error = errno;
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
    while (executor->tree_count)
        if (executor->trees[--executor->tree_count] >= 0)
            close(executor->trees[executor->tree_count]);
    errno = error;
}

int refuse(struct executor *executor, int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(executor->text, sizeof executor->text, format, arguments);
    va_end(arguments);
    errno = error;
    return -1;
}

int executor_report(struct executor *executor, enum report_kind kind)
{
    struct report report = { .kind = kind, .index = executor->index, .error = errno };
    int error = errno;
    memcpy(report.text, executor->text, sizeof report.text);
    ssize_t written = write(executor->report, &report, sizeof report);
    errno = error;
    return written == (ssize_t)sizeof report ? 0 : -1;
}

/* --- check ------------------------------------------------------------------------------------------ */

static bool skip_string(const unsigned char **at, const unsigned char *end)
{
    if (end - *at < LENGTH_SIZE)
        return false;
    size_t length = read32(*at);
    *at += LENGTH_SIZE;
    if ((size_t)(end - *at) < length + 1 || (*at)[length] != 0)
        return false;
    *at += length + 1;
    return true;
}

static bool skip_list(const unsigned char **at, const unsigned char *end)
{
    if (end - *at < LENGTH_SIZE)
        return false;
    uint32_t count = read32(*at);
    *at += LENGTH_SIZE;
    while (count--)
        if (!skip_string(at, end))
            return false;
    return true;
}

static bool skip_integer(const unsigned char **at, const unsigned char *end)
{
    if (end - *at < INTEGER_SIZE)
        return false;
    *at += INTEGER_SIZE;
    return true;
}

static bool fields_fit(const char *signature, const unsigned char *at, const unsigned char *end)
{
    for (; *signature; signature++) {
        bool fits = *signature == 'i' ? skip_integer(&at, end)
            : *signature == 's'       ? skip_string(&at, end)
                                      : skip_list(&at, end);
        if (!fits)
            return false;
    }
    return at == end;
}

int plan_open(struct executor *executor, struct plan *plan, const void *bytes, size_t length)
{
    const unsigned char *at = bytes, *end = at + length;
    if (length < PLAN_HEADER || memcmp(at, magic, sizeof magic))
        return refuse(executor, EINVAL, "not a launch plan");
    *plan = (struct plan){ .bytes = bytes, .length = length, .count = read32(at + sizeof magic) };
    at += PLAN_HEADER;
    for (executor->index = 0; executor->index < plan->count; executor->index++) {
        if (end - at < OPERATION_HEADER)
            return refuse(executor, EINVAL, "the plan is cut off");
        const struct operation *operation = operation_of(read32(at));
        size_t fields = read32(at + 4);
        at += OPERATION_HEADER;
        if (!operation)
            return refuse(executor, EINVAL, "unknown operation");
        if ((size_t)(end - at) < fields || !fields_fit(operation->signature, at, at + fields))
            return refuse(executor, EINVAL, "malformed fields of operation %s", operation->name);
        at += fields;
    }
    executor->index = 0;
    return at == end ? 0 : refuse(executor, EINVAL, "the plan has trailing bytes");
}

/* --- cursor ----------------------------------------------------------------------------------------- */

int64_t take_integer(struct cursor *cursor)
{
    uint64_t value = read32(cursor->at) | (uint64_t)read32(cursor->at + 4) << 32;
    cursor->at += INTEGER_SIZE;
    return (int64_t)value;
}

struct bytes take_bytes(struct cursor *cursor)
{
    struct bytes bytes = { .data = (const char *)cursor->at + LENGTH_SIZE, .length = read32(cursor->at) };
    cursor->at += LENGTH_SIZE + bytes.length + 1;
    return bytes;
}

struct strings take_strings(struct cursor *cursor)
{
    struct strings strings = { .at = cursor->at + LENGTH_SIZE, .count = read32(cursor->at) };
    cursor->at += LENGTH_SIZE;
    for (uint32_t i = 0; i < strings.count; i++)
        take_bytes(cursor);
    return strings;
}

struct bytes strings_next(struct strings *strings)
{
    struct cursor cursor = { strings->at };
    struct bytes bytes = take_bytes(&cursor);
    strings->at = cursor.at;
    return bytes;
}

char **strings_array(struct strings strings, size_t spare)
{
    size_t slots = (size_t)strings.count + spare + 1;
    char **array = mmap(NULL, slots * sizeof *array, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (array == MAP_FAILED)
        return NULL;
    for (uint32_t i = 0; i < strings.count; i++)
        array[i] = (char *)(uintptr_t)strings_next(&strings).data;
    return array;
}

/* --- run -------------------------------------------------------------------------------------------- */

/* Step over one operation of a checked plan. */
static const struct operation *step(const unsigned char **at, struct cursor *fields)
{
    const struct operation *operation = operation_of(read32(*at));
    fields->at = *at + OPERATION_HEADER;
    *at = fields->at + read32(*at + 4);
    return operation;
}

uint32_t plan_find(const struct plan *plan, uint32_t code, struct cursor *fields)
{
    const unsigned char *at = plan->bytes + PLAN_HEADER;
    struct cursor cursor;
    for (uint32_t index = 0; index < plan->count; index++)
        if (step(&at, &cursor)->code == code) {
            if (fields)
                *fields = cursor;
            return index;
        }
    return plan->count;
}

int executor_run(struct executor *executor, const struct plan *plan, uint32_t first, uint32_t last)
{
    const unsigned char *at = plan->bytes + PLAN_HEADER;
    struct cursor fields;
    for (uint32_t index = 0; index < last; index++) {
        const struct operation *operation = step(&at, &fields);
        if (index < first || operation->code == CODE_MONITOR || operation->code == CODE_RELAY
            || operation->code == CODE_DESCRIPTORS || operation->code == CODE_REVIVE)
            continue;
        executor->index = index;
        executor->text[0] = 0;
        if (!operation->function)
            return refuse(executor, EINVAL, "a plan can hold only one Spawn");
        if (operation->function(executor, &fields) < 0)
            return -1;
    }
    return 0;
}
