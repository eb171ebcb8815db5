/* Incoming data: HTTP responses, WebSocket frames, event streams, events. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "client.h"

uint32_t* latencies;
size_t latency_count;
long holes, repeats;
long awaited_events = -1;
int awaited_from, awaited_to, reached;

static size_t latency_capacity;
static char buffer[READ_BYTES];

static const char* after(const char* data, size_t length, const char* sought, size_t size) {
    const char* found = memmem(data, length, sought, size);
    if (!found) return NULL;
    found += size;
    while (found < data + length && *found == ' ') found++;
    return found < data + length ? found : NULL;
}
#define AFTER(data, length, text) after(data, length, text, sizeof text - 1)

static int64_t read_microseconds(const char* at, const char* end) {
    int64_t value = 0;
    int decimals = -1;
    for (; at < end && decimals < 6; at++) {
        if (*at == '.' && decimals < 0)
            decimals = 0;
        else if (*at >= '0' && *at <= '9') {
            value = value * 10 + (*at - '0');
            if (decimals >= 0) decimals++;
        } else
            break;
    }
    for (decimals = decimals < 0 ? 0 : decimals; decimals < 6; decimals++) value *= 10;
    return value;
}

static void parse_event(struct client* c, const char* at, const char* end, int64_t now_us) {
    int64_t took = now_us - read_microseconds(at, end);
    if (latency_count == latency_capacity) {
        latency_capacity = latency_capacity ? latency_capacity * 2 : 1 << 20;
        if (!(latencies = realloc(latencies, latency_capacity * sizeof *latencies))) fail("memory");
    }
    latencies[latency_count++] = took < 0 ? 0 : (uint32_t)took;
    const char* digits = AFTER(at, (size_t)(end - at), "\"n\":");
    if (digits) {
        long long n = 0;
        for (; digits < end && *digits >= '0' && *digits <= '9'; digits++)
            n = n * 10 + (*digits - '0');
        if (c->last_n >= 0 && n > c->last_n + 1) holes += n - c->last_n - 1;
        if (c->last_n >= 0 && n <= c->last_n) repeats++;
        c->last_n = n;
    }
    int number = (int)(c - clients);
    if (++c->events == awaited_events && number >= awaited_from && number < awaited_to) reached++;
}

/* Handle one WebSocket frame, or one line of an event stream. */
static void parse_text(struct client* c, const char* text, size_t length, int64_t now_us) {
    const char *end = text + length, *at = AFTER(text, length, "\"at\":");
    if (at) parse_event(c, at, end, now_us);
    const char* from = at ? at : text;
    const char* cursor = AFTER(from, (size_t)(end - from), "\"cursor\":\"");
    if (cursor) {
        const char* stop = memchr(cursor, '"', (size_t)(end - cursor));
        if (stop && stop - cursor < CURSOR_BYTES) {
            memcpy(c->cursor, cursor, (size_t)(stop - cursor));
            c->cursor[stop - cursor] = 0;
        }
    }
    if (c->state == OPEN && pending_count && *marker &&
        memmem(text, length, marker, strlen(marker)))
        become_ready(c);
}

static void parse_lines(struct client* c, const char* data, size_t length, int64_t now_us) {
    const char* line;
    while (length && (line = memchr(data, '\n', length))) {
        size_t size = (size_t)(line - data) + 1;
        if (c->text.length) {
            append(&c->text, data, size);
            parse_text(c, c->text.data, c->text.length, now_us);
            c->text.length = 0;
        } else if (size > 2)
            parse_text(c, data, size, now_us);
        data += size;
        length -= size;
    }
    if (length) append(&c->text, data, length);
}

/* Return how many bytes of an event stream's body were consumed; RFC 9112, section 7.1. */
static size_t parse_stream(struct client* c, const char* data, size_t length, int64_t now_us) {
    size_t used = 0;
    if (!c->is_chunked) {
        parse_lines(c, data, length, now_us);
        return length;
    }
    while (used < length && c->state != CLOSED) {
        if (c->chunk_left) {
            size_t size = length - used < c->chunk_left ? length - used : c->chunk_left;
            parse_lines(c, data + used, size, now_us);
            c->chunk_left -= size;
            used += size;
            continue;
        }
        const char* line = memchr(data + used, '\n', length - used);
        if (!line) break;
        int is_end_of_chunk = data[used] == '\r';
        if (!is_end_of_chunk) {
            c->chunk_left = strtoul(data + used, NULL, 16);
            if (!c->chunk_left) drop(c, "the stream ended");
        }
        used = (size_t)(line - data) + 1;
    }
    return used;
}

static void parse_frame(struct client* c, int first, const char* data, size_t length,
                       int64_t now_us) {
    int opcode = first & 15, is_last = first & 0x80;
    if (opcode == 9)
        write_frame(c, 10, data, length);
    else if (opcode == 8) {
        c->close_code = length < 2 ? 1005 : ((unsigned char)data[0] << 8) + (unsigned char)data[1];
        write_frame(c, 8, data, length < 2 ? 0 : 2);
        drop(c, "the server sent a close frame");
    } else if (opcode <= 2 && is_last && !c->text.length)
        parse_text(c, data, length, now_us);
    else if (opcode <= 2) {
        append(&c->text, data, length);
        if (!is_last) return;
        parse_text(c, c->text.data, c->text.length, now_us);
        c->text.length = 0;
    }
}

/* Return how many bytes were consumed; only whole frames are. */
static size_t parse_frames(struct client* c, const char* data, size_t length, int64_t now_us) {
    size_t used = 0;
    while (length - used >= 2 && c->state != CLOSED) {
        const unsigned char* head = (const unsigned char*)data + used;
        size_t size = head[1] & 127, start = size < 126 ? 2 : size == 126 ? 4 : 10;
        if (head[1] & 128) drop(c, "the server masked a frame");
        if (length - used < start) break;
        if (start > 2) {
            size = 0;
            for (size_t i = 2; i < start; i++) size = size << 8 | head[i];
        }
        if (length - used - start < size) break;
        parse_frame(c, head[0], data + used + start, size, now_us);
        used += start + size;
    }
    return used;
}

/* Return how many bytes were consumed: the whole head of a response, or none. */
static size_t parse_response(struct client* c, const char* data, size_t length) {
    const char* end = memmem(data, length, "\r\n\r\n", 4);
    if (!end) return 0;
    size_t size = (size_t)(end - data) + 4;
    if (length < 12 || strncmp(data + 9, c->is_stream ? "200" : "101", 3)) {
        char why[128];
        snprintf(why, sizeof why, "the server responded %.*s",
                 (int)(strcspn(data, "\r\n") % 100), data);
        drop(c, why);
        return size;
    }
    char head[4096];
    snprintf(head, sizeof head, "%.*s", (int)size, data);
    c->is_chunked = strcasestr(head, "transfer-encoding: chunked") != NULL;
    c->state = OPEN;
    if (sends_frames) write_own_frame(c);
    if (!*marker && c->state == OPEN) become_ready(c);
    return size;
}

static void parse(struct client* c, const char* data, size_t length, int64_t now_us) {
    size_t used = 0;
    if (c->state == AWAITING_RESPONSE) used = parse_response(c, data, length);
    if (c->state >= OPEN) {
        data += used;
        length -= used;
        used = c->is_stream ? parse_stream(c, data, length, now_us)
                            : parse_frames(c, data, length, now_us);
    }
    if (c->state == CLOSED) return;
    struct bytes old = c->in;
    memset(&c->in, 0, sizeof c->in);
    if (used < length) append(&c->in, data + used, length - used);
    release(&old);
}

static void read_from(struct client* c) {
    ssize_t got = recv(c->fd, buffer, READ_BYTES, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        drop(c, got ? strerror(errno) : "the server cut the connection");
        return;
    }
    int64_t now_us = nanoseconds(CLOCK_REALTIME) / 1000;
    if (!c->in.length) {
        parse(c, buffer, (size_t)got, now_us);
        return;
    }
    append(&c->in, buffer, (size_t)got);
    parse(c, c->in.data, c->in.length, now_us);
}

void handle_events(struct client* c, uint32_t events) {
    if (c->state == CLOSED) return;
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) return;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error)
            drop(c, strerror(error));
        else
            write_request(c);
        return;
    }
    if (c->is_stalled && c->state == READY) {
        drop(c, "the connection was reset while the client did not read");
        return;
    }
    if (events & EPOLLOUT) write_rest(c);
    if (c->state != CLOSED && events & (EPOLLIN | EPOLLERR | EPOLLHUP)) read_from(c);
}
