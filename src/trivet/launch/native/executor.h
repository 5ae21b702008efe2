/* The executor: checks an encoded plan (launch/operation.py) and carries it out, operation by operation.
 *
 * Nothing in here decides anything: what is to happen stands in the plan. Nothing allocates from the heap,
 * because most of it runs between clone and exec. Functions return 0, or -1 with errno set; `refuse` adds
 * the words that errno lacks.
 */
#ifndef TRIVET_EXECUTOR_H
#define TRIVET_EXECUTOR_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { TEXT_SIZE = 244, GROUP_LIMIT = 256, TREE_LIMIT = 512 };

enum code { CODE_MONITOR = 1, CODE_RELAY = 2, CODE_SPAWN = 3, CODE_DESCRIPTORS = 4, CODE_FORK = 5, CODE_REVIVE = 6 };

/* What the child tells the launcher, one message each over a SOCK_SEQPACKET pair; end of file after
 * REPORT_LAUNCHED means that execve succeeded, since the child's end is closed on exec. */
enum report_kind { REPORT_READY = 1, REPORT_LAUNCHED, REPORT_FAILED, REPORT_CONSOLE };

struct report {
    uint32_t kind;
    uint32_t index;
    int32_t error;
    char text[TEXT_SIZE];
};

struct plan {
    const unsigned char *bytes;
    size_t length;
    uint32_t count;
};

/* A position inside the checked fields of one operation. */
struct cursor {
    const unsigned char *at;
};

struct bytes {
    const char *data; /* followed by a NUL byte */
    size_t length;
};

struct strings {
    const unsigned char *at;
    uint32_t count;
};

struct identity {
    bool known;
    uid_t uid;
    gid_t gid;
    gid_t groups[GROUP_LIMIT];
    size_t group_count;
    char home[PATH_MAX];
};

struct executor {
    int root;       /* the directory root paths are resolved below, or -1 */
    int report;     /* the child's end of the report socket, or -1 in the launcher itself */
    bool waits;     /* somebody will answer `Wait` */
    bool own_stdio; /* pipes or terminal were made for this child, and may be given to its user */
    bool terminal;  /* it is a terminal, which `Console` may replace */
    int given, given_number; /* a descriptor the program inherits under this number, or -1 */
    uint64_t gifts[4]; /* further descriptors it inherits, a bit for each number */
    int mounts; /* a mount namespace to be in before a user namespace is joined, or -1 */
    int conductor; /* the socket to whoever started us, or -1: see conduct.c */
    unsigned preserved; /* how many descriptors the program inherits from 3 on */
    int trees[TREE_LIMIT]; /* what OpenTree opened, for Bind */
    size_t tree_count;
    unsigned short rows, columns;
    pid_t program; /* what `Join` with pid 0 means */
    pid_t joined; /* the process last joined, and its pidfd: in its pid namespace its number means another */
    int joined_fd;
    uint32_t index;
    char text[TEXT_SIZE];
    struct identity identity;
};

void executor_init(struct executor *executor);

/* Check every code, length and terminator of a plan, so that the cursor functions need not. */
int plan_open(struct executor *executor, struct plan *plan, const void *bytes, size_t length);

/* Find the first operation with this code; `plan->count` when there is none. `fields` may be NULL. */
uint32_t plan_find(const struct plan *plan, uint32_t code, struct cursor *fields);

/* Close what operations left open, and the parent has no use for once the child was made. */
void executor_close(struct executor *executor);

/* Carry out operations `first` up to but not including `last`. */
int executor_run(struct executor *executor, const struct plan *plan, uint32_t first, uint32_t last);

/* Print code, name and signature of every operation. */
void executor_print_operations(void);

/* Remember words for the failure and return -1 with errno set to `error`. */
__attribute__((format(printf, 3, 4))) int refuse(struct executor *executor, int error, const char *format, ...);

/* Tell the launcher, keeping errno. */
int executor_report(struct executor *executor, enum report_kind kind);

int64_t take_integer(struct cursor *cursor);
struct bytes take_bytes(struct cursor *cursor);
struct strings take_strings(struct cursor *cursor);

/* Take the next string of a list; the caller counts. */
struct bytes strings_next(struct strings *strings);

/* Take a string; NUL bytes inside make it end early, which no path or name survives in the kernel either. */
static inline const char *take_text(struct cursor *cursor) { return take_bytes(cursor).data; }

/* Build a NULL-terminated array of pointers into the plan, with `spare` free slots, in fresh memory. */
char **strings_array(struct strings strings, size_t spare);

/* root.c: paths below the root */
int root_open(struct executor *executor, const char *path, uint64_t flags);
enum make { MAKE_NOTHING, MAKE_DIRECTORY, MAKE_FILE };
struct owner {
    mode_t mode;
    uid_t uid;
    gid_t gid;
};
/* Open a path O_PATH, links followed inside `root`; what is missing is made, a dangling link's target included. */
int make_below(int root, const char *path, enum make make, const struct owner *owner);
int root_make(struct executor *executor, const char *path, enum make make, const struct owner *owner);
int root_parent(struct executor *executor, const char *path, char name[NAME_MAX + 1]);
int host_make(struct executor *executor, const char *path, enum make make, const struct owner *owner);
int proc_open(struct executor *executor, const char *path, int flags);

/* conduct.c: descriptors given for the program: kept by the launcher, closed by the monitor, taken by the child. */
int descriptors_open(struct executor *executor, const struct plan *plan);
void descriptors_close(struct executor *executor);
int descriptors_take(struct executor *executor);
int conduct(struct executor *executor, const char *what, int fd);

/* tree.c: write /proc/PID/uid_map or gid_map. */
int write_id_map(pid_t pid, const char *name, const char *map);

/* Open a user namespace with these maps, or the one that is the file `uid_map`; show a copied tree with its owners. */
int open_map(const char *uid_map, const char *gid_map);
int set_owners(int tree, int users, bool deep);

/* copyup.c: copy what is at `target` into a file system that isn't shown yet. */
int copy_up(int target, int tree);

/* Every operation's function; the table in executor.c is the list. */
#define DECLARE_OPERATION(function) int function(struct executor *, struct cursor *)
DECLARE_OPERATION(operate_write_file);
DECLARE_OPERATION(operate_unshare);
DECLARE_OPERATION(operate_join);
DECLARE_OPERATION(operate_join_path);
DECLARE_OPERATION(operate_propagation);
DECLARE_OPERATION(operate_root);
DECLARE_OPERATION(operate_mount);
DECLARE_OPERATION(operate_bind);
DECLARE_OPERATION(operate_directory);
DECLARE_OPERATION(operate_await_unused);
DECLARE_OPERATION(operate_node);
DECLARE_OPERATION(operate_symlink);
DECLARE_OPERATION(operate_file);
DECLARE_OPERATION(operate_mask);
DECLARE_OPERATION(operate_read_only);
DECLARE_OPERATION(operate_remount_root);
DECLARE_OPERATION(operate_pivot);
DECLARE_OPERATION(operate_chroot);
DECLARE_OPERATION(operate_unmount);
DECLARE_OPERATION(operate_hostname);
DECLARE_OPERATION(operate_link_up);
DECLARE_OPERATION(operate_add_address);
DECLARE_OPERATION(operate_add_route);
DECLARE_OPERATION(operate_link_address);
DECLARE_OPERATION(operate_drop_address);
DECLARE_OPERATION(operate_sysctl);
DECLARE_OPERATION(operate_rlimit);
DECLARE_OPERATION(operate_keyring);
DECLARE_OPERATION(operate_umask);
DECLARE_OPERATION(operate_oom_score);
DECLARE_OPERATION(operate_user);
DECLARE_OPERATION(operate_identity);
DECLARE_OPERATION(operate_become);
DECLARE_OPERATION(operate_working_directory);
DECLARE_OPERATION(operate_capabilities);
DECLARE_OPERATION(operate_no_new_privileges);
DECLARE_OPERATION(operate_seccomp);
DECLARE_OPERATION(operate_wait);
DECLARE_OPERATION(operate_background);
/* gift.c: descriptors below this are given by number. */
enum { GIFT_LIMIT = 256 };
DECLARE_OPERATION(operate_give);
DECLARE_OPERATION(operate_give_tap);
DECLARE_OPERATION(operate_give_listener);
DECLARE_OPERATION(operate_exec);
DECLARE_OPERATION(operate_builtin);
DECLARE_OPERATION(operate_console);
DECLARE_OPERATION(operate_init);
DECLARE_OPERATION(operate_open_tree);
DECLARE_OPERATION(operate_open_overlay);
DECLARE_OPERATION(operate_hold);
DECLARE_OPERATION(operate_sync);
DECLARE_OPERATION(operate_device_filter);
DECLARE_OPERATION(operate_find);
DECLARE_OPERATION(operate_personality);
DECLARE_OPERATION(operate_scheduler);
DECLARE_OPERATION(operate_io_priority);
DECLARE_OPERATION(operate_affinity);
DECLARE_OPERATION(operate_memory_policy);

/* exec.c: helpers started by `Background`, for whoever ends last. */
void background_kill(void);

/* Its number may be somebody else's from now on. */
void background_reaped(pid_t pid);

/* They are another process's, of which this one is a copy. */
void background_forget(void);

/* Ask the kernel for what most programs ask it for; `program` is ours. */
int exercise(const char *program);

#endif
