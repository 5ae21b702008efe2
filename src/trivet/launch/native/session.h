/* A session: one program, its standard streams and how it ends. Used by the monitor (one) and the agent (many).
 *
 *     session_start ─▶ SETUP ─▶ WAITING ─(session_go)─▶ STARTED ─(session_reaped)─▶ ended
 *                        └────────┴──────▶ FAILED
 *
 * All descriptors are non-blocking; the caller polls `report` (always), `input` (while `session_has_input`),
 * `output` and `error` (when it has room) and calls `session_heed`, `session_flush`, `session_read`.
 */
#ifndef TRIVET_SESSION_H
#define TRIVET_SESSION_H

#include "executor.h"

enum session_state { SESSION_SETUP, SESSION_WAITING, SESSION_STARTED, SESSION_FAILED };

struct session {
    enum session_state state;
    pid_t pid;
    int report; /* -1 once the set-up is over */
    int input, output, error; /* -1 when closed; for a terminal input == output and error is -1 */
    bool terminal, accepts_input, launched;
    bool hurried; /* GO was said before the child waits for it */
    unsigned char *pending; /* input the program has not taken yet */
    size_t pending_at, pending_end;
    bool input_ends;
    struct report failure; /* in state FAILED */
    bool reaped;
    int status;        /* as from waitpid */
    int64_t time_ns;   /* when it ended, CLOCK_REALTIME */
};

/* Run the operations before Spawn here, then make the child, which runs the rest. `inherit`: it keeps the
 * caller's standard descriptors. -1: executor->index, text and errno say why. */
int session_start(struct session *session, struct executor *executor, const struct plan *plan, bool inherit);

/* Read what the child reports; true when `state` changed. */
bool session_heed(struct session *session);

/* The child's status was collected by waitpid. The report socket must have been heeded to its end before. */
void session_reaped(struct session *session, int status);

/* Let the child go on, as soon as it waits. */
int session_go(struct session *session);
int session_signal(struct session *session, int number);
int session_resize(struct session *session, unsigned rows, unsigned columns);

/* Queue input; an empty one ends it. Only while not `session_has_input`. */
int session_write(struct session *session, const unsigned char *bytes, size_t length);
bool session_has_input(const struct session *session);
void session_flush(struct session *session);

/* Read from &session->output or &session->error. 0: it has ended and was closed; -1: nothing now. */
ssize_t session_read(struct session *session, int *stream, void *bytes, size_t size);

void session_close(struct session *session);

#endif
