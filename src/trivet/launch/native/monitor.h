/* The monitor: parent of one instance's program (or of its QEMU); outlives the engine.
 *
 *     monitor.c  start and loop      client.c  what clients ask      ending.c  exit file, EXIT, FAILED
 *     relay.c    the conversation with a guest agent, when the program runs in a machine
 *     enter.c    further programs, each with a copy of the monitor for its own
 */
#ifndef TRIVET_MONITOR_H
#define TRIVET_MONITOR_H

#include "frame.h"
#include "hub.h"
#include "log.h"
#include "session.h"

/* RUNNING ─(program reaped)─▶ DRAINING ─(output ended)─▶ TOLD ─(clients gone)─▶ DONE */
enum phase { RUNNING, DRAINING, TOLD, DONE };

struct relay;

struct monitor {
    struct executor *executor;
    struct session session;  /* the child: the program, or QEMU */
    struct relay *relay;     /* NULL when the child is the program */
    enum session_state state; /* the program's, wherever it runs */
    struct hub hub;
    struct log log;
    enum phase phase;
    int directory, proc, signals, report;
    bool linger, served;
    bool conducted; /* the child is the starter's */
    bool entered;   /* a copy, for a further program: it has neither directory nor listener, but one client */
    const char *revived; /* while the child brings the program back: where it leaves that one's pid */
    struct strings reap;
    int64_t oom_kills;
    int64_t last_output; /* while draining, monotonic ms */
    enum frame_type ending_type; /* EXIT or FAILED once it is known, else 0 */
    unsigned char ending[FRAME_FAILED_SIZE + TEXT_SIZE];
    size_t ending_size;
};

/* Carry out a plan that has a Monitor operation; `report` is where READY, STARTED or FAILED is said once. */
int monitor_main(struct executor *executor, const struct plan *plan, int report);

/* The program reached WAITING, STARTED (with this pid) or FAILED: tell whoever started us, and clients. */
void monitor_state(struct monitor *monitor, enum session_state state, pid_t pid);

/* Let a program go on that was brought back; false when it is another one that waits. */
bool monitor_go_on(struct monitor *monitor);

/* Output of the program: into the log and to attached clients. */
void monitor_output(struct monitor *monitor, enum frame_type type, const unsigned char *bytes, size_t length);

/* Go on as somebody else's: in the directory, with the log and the groups of another plan's Monitor. */
int monitor_take(struct monitor *monitor, const struct plan *plan);

/* client.c */
void client_greet(struct monitor *monitor, size_t first);
void client_serve(struct monitor *monitor, size_t index, short events);
void client_make_room(struct monitor *monitor);
bool client_stuck(const struct monitor *monitor, const struct client *client);

/* Tell a client that what it asked for can't be, and let it go. */
void client_refuse(struct client *client, uint32_t index, int error, const char *text);

/* enter.c: set a further program up, for this client and as its frame says; -1: the client is another process's now. */
int enter_open(struct monitor *monitor, struct client *client, const struct frame *frame);
void enter_reaped(pid_t pid);
bool enter_idle(void);

/* A copy of a monitor carries a further program's plan out, and serves its only client to the end. */
_Noreturn void monitor_serve(struct monitor *monitor, const void *plan, size_t length);

/* ending.c */
void report_failure(int fd, const struct executor *executor);
void say(int *report, enum frame_type type, const void *payload, size_t length);
void ending_reserve(const struct monitor *monitor);
void ending_exit(struct monitor *monitor, const unsigned char payload[FRAME_EXIT_SIZE]);
void ending_failure(struct monitor *monitor, uint32_t index, int error, const char *text);
void ending_tell(struct monitor *monitor);
int64_t ending_oom_kills(const struct monitor *monitor);
void write_file(const struct monitor *monitor, const char *name, const char *text);

/* relay.c */
int relay_open(struct monitor *monitor, const struct plan *plan);
bool relay_accepts(const struct relay *relay, const struct client *client, const struct frame *frame);
int relay_ask(struct monitor *monitor, struct client *client, const struct frame *frame);
void relay_close_client(struct monitor *monitor, const struct client *client);
bool relay_ended(const struct relay *relay);
struct pollfd relay_poll(const struct relay *relay);
void relay_serve(struct monitor *monitor, short events);
void relay_note(struct monitor *monitor, const unsigned char *bytes, size_t length);
int relay_timeout(const struct monitor *monitor);
void relay_advance(struct monitor *monitor);

#endif
