/* Frames over a non-blocking descriptor. Buffers grow to what a frame needs and are given back when empty,
 * unless they are to be kept. */
#include "frame.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FIRST_READ = 4096 };

uint16_t frame_get16(const unsigned char *at) { return (uint16_t)(at[0] | at[1] << 8); }

uint32_t frame_get32(const unsigned char *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

void frame_set32(unsigned char *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (unsigned char)(value >> 8 * i);
}

void frame_exit(unsigned char payload[FRAME_EXIT_SIZE], int wait_status, int64_t time_ns, uint32_t flags)
{
    uint32_t number = WIFSIGNALED(wait_status) ? (uint32_t)WTERMSIG(wait_status) : 0;
    frame_set32(payload, number ? 128 + number : (uint32_t)WEXITSTATUS(wait_status));
    frame_set32(payload + 4, number);
    frame_set32(payload + 8, (uint32_t)time_ns);
    frame_set32(payload + 12, (uint32_t)((uint64_t)time_ns >> 32));
    frame_set32(payload + 16, flags);
}

/* --- buffer ----------------------------------------------------------------------------------------- */

static void buffer_free(struct buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct buffer){ 0 };
}

static void buffer_empty(struct buffer *buffer)
{
    if (buffer->kept)
        buffer->start = buffer->end = 0;
    else
        buffer_free(buffer);
}

/* Make room for `extra` more bytes at the end. */
static int buffer_reserve(struct buffer *buffer, size_t extra)
{
    size_t used = buffer->end - buffer->start;
    if (buffer->capacity - buffer->end >= extra)
        return 0;
    if (buffer->start) {
        memmove(buffer->bytes, buffer->bytes + buffer->start, used);
        buffer->start = 0;
        buffer->end = used;
    }
    if (buffer->capacity - used >= extra)
        return 0;
    size_t capacity = used + extra < FIRST_READ ? FIRST_READ : used + extra;
    unsigned char *bytes = realloc(buffer->bytes, capacity);
    if (!bytes)
        return -1;
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return 0;
}

static void buffer_consume(struct buffer *buffer, size_t size)
{
    buffer->start += size;
    if (buffer->start == buffer->end)
        buffer_empty(buffer);
}

/* --- wire ------------------------------------------------------------------------------------------- */

void wire_init(struct wire *wire, int fd) { *wire = (struct wire){ .fd = fd }; }

int wire_keep(struct wire *wire, size_t size)
{
    wire->in.kept = wire->out.kept = true;
    return buffer_reserve(&wire->in, size) < 0 ? -1 : buffer_reserve(&wire->out, size);
}

void wire_close(struct wire *wire)
{
    if (wire->fd >= 0)
        close(wire->fd);
    buffer_free(&wire->in);
    buffer_free(&wire->out);
    wire->fd = -1;
    wire->ended = true;
}

static size_t maximum(uint8_t type)
{
    bool plan = type == FRAME_START || type == FRAME_EXEC || type == FRAME_BECOME || type == FRAME_ENTER;
    return plan ? FRAME_MAXIMUM_PLAN : FRAME_MAXIMUM;
}

/* Bytes the first frame in the buffer still lacks, at least one read's worth when its header isn't there. */
static size_t wanted(const struct buffer *in)
{
    size_t used = in->end - in->start;
    if (used < FRAME_HEADER)
        return FIRST_READ - used;
    size_t whole = FRAME_HEADER + (size_t)frame_get32(in->bytes + in->start + 4);
    return whole > used ? whole - used : FIRST_READ;
}

int wire_fill(struct wire *wire)
{
    struct frame frame;
    size_t room = FIRST_READ;
    if (wire->ended || wire_peek(wire, &frame) < 0)
        return -1;
    room = wanted(&wire->in);
    if (buffer_reserve(&wire->in, room) < 0)
        return -1;
    ssize_t size = read(wire->fd, wire->in.bytes + wire->in.end, room);
    if (size > 0) {
        wire->in.end += (size_t)size;
        return 1;
    }
    if (wire->in.start == wire->in.end)
        buffer_empty(&wire->in);
    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    wire->ended = true;
    return -1;
}

int wire_peek(const struct wire *wire, struct frame *frame)
{
    const struct buffer *in = &wire->in;
    size_t used = in->end - in->start;
    if (used < FRAME_HEADER)
        return 0;
    const unsigned char *header = in->bytes + in->start;
    frame->type = header[0];
    frame->session = frame_get16(header + 2);
    frame->length = frame_get32(header + 4);
    frame->payload = header + FRAME_HEADER;
    if (header[1] || frame->length > maximum(frame->type))
        return -1;
    return used >= FRAME_HEADER + (size_t)frame->length;
}

void wire_drop(struct wire *wire, const struct frame *frame)
{
    buffer_consume(&wire->in, FRAME_HEADER + (size_t)frame->length);
}

int wire_put(struct wire *wire, enum frame_type type, uint16_t session, const void *payload, size_t length)
{
    struct buffer *out = &wire->out;
    if (buffer_reserve(out, FRAME_HEADER + length) < 0)
        return -1;
    unsigned char *at = out->bytes + out->end;
    at[0] = (unsigned char)type;
    at[1] = 0;
    at[2] = (unsigned char)session;
    at[3] = (unsigned char)(session >> 8);
    frame_set32(at + 4, (uint32_t)length);
    if (length)
        memcpy(at + FRAME_HEADER, payload, length);
    out->end += FRAME_HEADER + length;
    return 0;
}

int wire_flush(struct wire *wire)
{
    while (wire_backlog(wire)) {
        ssize_t size = write(wire->fd, wire->out.bytes + wire->out.start, wire_backlog(wire));
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0 && errno == EAGAIN)
            return 0;
        if (size < 0) {
            buffer_free(&wire->out);
            return -1;
        }
        buffer_consume(&wire->out, (size_t)size);
    }
    return 0;
}

size_t wire_backlog(const struct wire *wire) { return wire->out.end - wire->out.start; }
