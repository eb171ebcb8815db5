/* Connections, and outgoing data. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"

#define STALLED_RCVBUF 4096 /* the kernel's receive buffer of a client that never reads, in bytes */

struct client* clients;
int client_count, port, poller;
int pending_count, ready_count, failed_count, closed_count;
char marker[256], problem[256];
int sends_frames;

int64_t nanoseconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

void fail(const char* what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

void append(struct bytes* to, const char* data, size_t length) {
    if (to->length + length > to->capacity) {
        to->capacity = (to->length + length) * 2;
        if (!(to->data = realloc(to->data, to->capacity))) fail("memory");
    }
    memcpy(to->data + to->length, data, length);
    to->length += length;
}

void release(struct bytes* what) {
    free(what->data);
    memset(what, 0, sizeof *what);
}

void listen_for(struct client* c, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poller, how, c->fd, &event)) fail("epoll_ctl");
}

void drop(struct client* c, const char* why) {
    if (c->state == CLOSED) return;
    if (c->state < READY) {
        pending_count--;
        failed_count++;
        if (!*problem) snprintf(problem, sizeof problem, "%s", why);
    } else
        ready_count--;
    c->state = CLOSED;
    closed_count++;
    close(c->fd);
    release(&c->in);
    release(&c->text);
    release(&c->out);
}

void become_ready(struct client* c) {
    if (c->state == READY) return;
    c->state = READY;
    pending_count--;
    ready_count++;
    if (c->is_stalled) listen_for(c, 0, EPOLL_CTL_MOD); /* from now on it never reads */
}

static void write_to(struct client* c, const char* data, size_t length) {
    ssize_t sent = 0;
    if (!c->out.length) {
        sent = send(c->fd, data, length, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) {
            drop(c, strerror(errno));
            return;
        }
        if (sent < 0) sent = 0;
    }
    if ((size_t)sent < length) {
        append(&c->out, data + sent, length - sent);
        listen_for(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    }
}

void write_rest(struct client* c) {
    struct bytes rest = c->out;
    memset(&c->out, 0, sizeof c->out);
    listen_for(c, EPOLLIN, EPOLL_CTL_MOD);
    if (rest.length) write_to(c, rest.data, rest.length);
    release(&rest);
}

/* RFC 6455, section 5.2; a mask of zeros is valid. */
void write_frame(struct client* c, int opcode, const char* data, size_t length) {
    char frame[16 + 65536];
    size_t head = 2;
    if (length > 65535) length = 65535;
    frame[0] = (char)(0x80 | opcode);
    if (length < 126)
        frame[1] = (char)(0x80 | length);
    else {
        frame[1] = (char)(0x80 | 126);
        frame[2] = (char)(length >> 8);
        frame[3] = (char)length;
        head = 4;
    }
    memset(frame + head, 0, 4);
    memcpy(frame + head + 4, data, length);
    write_to(c, frame, head + 4 + length);
}

/* Copy a text, with the client's cursor in place of @SINCE@. */
static size_t insert_cursor(const struct client* c, const char* text, char* into, size_t room) {
    const char* found = strstr(text, "@SINCE@");
    int length =
        found ? snprintf(into, room, "%.*s%s%s", (int)(found - text), text, c->cursor, found + 7)
              : snprintf(into, room, "%s", text);
    return length < (int)room ? (size_t)length : room - 1;
}

void write_own_frame(struct client* c) {
    char text[8192];
    if (*c->frame) write_frame(c, 1, text, insert_cursor(c, c->frame, text, sizeof text));
}

void write_request(struct client* c) {
    char path[8192], request[16384];
    insert_cursor(c, c->path, path, sizeof path);
    const char* upgrade = c->is_stream ? "Accept: text/event-stream\r\n"
                                       : "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                                         "Sec-WebSocket-Version: 13\r\n"
                                         "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    int length =
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s%s%s\r\n",
                 path, port, upgrade, c->header, *c->header ? "\r\n" : "");
    c->state = AWAITING_RESPONSE;
    listen_for(c, EPOLLIN, EPOLL_CTL_MOD);
    write_to(c, request, (size_t)length);
}

void open_connection(struct client* c) {
    int number = (int)(c - clients), on = 1, small = STALLED_RCVBUF;
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (c->is_stalled) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    /* Each client has its own address, as remote clients do, so ports cannot run out. */
    from.sin_addr.s_addr = htonl(0x7f010000u + 1 + (uint32_t)number);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)port);
    if (bind(c->fd, (struct sockaddr*)&from, sizeof from)) fail("bind");
    c->state = CONNECTING;
    c->chunk_left = 0;
    c->is_chunked = c->close_code = 0;
    c->last_n = -1;
    pending_count++;
    int done = connect(c->fd, (struct sockaddr*)&to, sizeof to);
    listen_for(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
    if (done && errno != EINPROGRESS) drop(c, strerror(errno));
}
