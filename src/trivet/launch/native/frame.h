/* Frames over a non-blocking descriptor (launch/frame.py has the same numbers), for monitor and agent. */
#ifndef TRIVET_FRAME_H
#define TRIVET_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum frame_type {
    FRAME_START = 0x01,
    FRAME_GO = 0x02,
    FRAME_STDIN = 0x03,
    FRAME_RESIZE = 0x04,
    FRAME_SIGNAL = 0x05,
    FRAME_ATTACH = 0x06,
    FRAME_EXEC = 0x07,
    FRAME_CREDIT = 0x08,
    FRAME_CLOSE = 0x09,
    FRAME_CALL = 0x0a,
    FRAME_HOST = 0x0b,
    FRAME_HOLD = 0x0c,
    FRAME_RELEASE = 0x0d,
    FRAME_BECOME = 0x0e,
    FRAME_ENTER = 0x0f,
    FRAME_HELLO = 0x41,
    FRAME_READY = 0x42,
    FRAME_STARTED = 0x43,
    FRAME_FAILED = 0x44,
    FRAME_STDOUT = 0x45,
    FRAME_STDERR = 0x46,
    FRAME_EXIT = 0x47,
    FRAME_REST = 0x48,
    FRAME_HELD = 0x49,
    FRAME_ADOPTED = 0x4a,
};

enum { ATTACH_STDIN = 1, ATTACH_STDOUT = 2, ATTACH_STDERR = 4 };
enum { EXIT_OUT_OF_MEMORY = 1 };
enum { FRAME_HEADER = 8, FRAME_MAXIMUM = 65536, FRAME_MAXIMUM_PLAN = 16 << 20, FRAME_WINDOW = 256 << 10 };

struct frame {
    uint8_t type;
    uint16_t session;
    uint32_t length;
    const unsigned char *payload; /* valid until the next call for this wire */
};

struct buffer {
    unsigned char *bytes;
    size_t start, end, capacity;
    bool kept; /* also when it is empty */
};

struct wire {
    int fd;
    bool ended; /* the other side will send nothing more */
    struct buffer in, out;
};

void wire_init(struct wire *wire, int fd);
void wire_close(struct wire *wire);

/* Keep buffers of so many bytes instead of allocating them for what there is. 0, or -1 without memory. */
int wire_keep(struct wire *wire, size_t size);

/* Read once. 1: something came, 0: nothing now, -1: end of stream or broken. */
int wire_fill(struct wire *wire);

/* Look at the next whole frame. 1: there is one, 0: not yet, -1: the other side breaks the rules. */
int wire_peek(const struct wire *wire, struct frame *frame);

/* Consume the frame `wire_peek` showed. */
void wire_drop(struct wire *wire, const struct frame *frame);

/* Queue a frame. 0, or -1 without memory. */
int wire_put(struct wire *wire, enum frame_type type, uint16_t session, const void *payload, size_t length);

/* Write what the descriptor takes. 0, or -1 when nobody reads any more: the queue is gone then, but what the
 * other side said before it left can still be read. */
int wire_flush(struct wire *wire);

/* Bytes queued and not yet written. */
size_t wire_backlog(const struct wire *wire);

/* Little-endian numbers inside payloads. */
uint16_t frame_get16(const unsigned char *at);
uint32_t frame_get32(const unsigned char *at);
void frame_set32(unsigned char *at, uint32_t value);

enum { FRAME_EXIT_SIZE = 20, FRAME_FAILED_SIZE = 8, FRAME_SEED_SIZE = 32, FRAME_HOST_SIZE = 8 + FRAME_SEED_SIZE };

/* Payload of EXIT. */
void frame_exit(unsigned char payload[FRAME_EXIT_SIZE], int wait_status, int64_t time_ns, uint32_t flags);

#endif
