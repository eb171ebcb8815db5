/* A load client: thousands of WebSockets and event streams in one thread, on loopback alone.
 *
 * benchmarks/load.py compiles it and drives it: one command a line on stdin, one line of JSON as the
 * answer on stdout.  Commands:
 *
 *   clients FILE                   cut all connections; read one client a line (see read_clients)
 *   connect FIRST COUNT ATONCE SECONDS SEND MARKER
 *                                  open these connections, ATONCE handshakes under way; SEND=1 sends
 *                                  each client's own frame; ready when MARKER came ("-": at once)
 *   send FIRST COUNT SECONDS MARKER  send the frames of open connections; ready as above
 *   wait FIRST COUNT EVENTS SECONDS  until each has had so many events since the last reset
 *   reset                          forget counts and latencies
 *   report                         counts, latencies, and the processor time of this process
 *   client NUMBER                  what is known of one
 *   wake FIRST COUNT               let clients read that never did
 *   close FIRST COUNT              cut these connections
 *
 * An event is any text that has "at": with the unix seconds at which it was published; "n": beside
 * it counts the events, so that a hole is seen; "cursor" is remembered and put where a client's
 * line has @SINCE@.
 *
 * On loopback it is the sender who pays for waking a sleeping receiver, which no server pays where
 * clients are elsewhere.  So this process looks again for a moment before it sleeps; the time that
 * takes is reported apart from its work. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES (1 << 20)
#define SPIN_NS 200000      /* how long it looks again before it sleeps */
#define STALLED_RCVBUF 4096 /* bytes that the kernel may hold for a client that never reads */
#define CURSOR_BYTES 192

enum state { CLOSED, CONNECTING, GREETING, OPEN, READY };

struct bytes {
    char *data;
    size_t length, room;
};

struct client {
    int fd;
    enum state state;
    int is_stream, is_stalled, is_chunked, is_failed;
    int close_code; /* of the close frame that came; 0 if none */
    char *path, *header, *frame;
    struct bytes in;   /* received and not whole yet */
    struct bytes text; /* the beginning of a text that came in parts */
    struct bytes out;  /* what the kernel did not take */
    size_t chunk_left; /* bytes of the current HTTP chunk that are still to come */
    long long last_n;  /* number of the last event; -1 before the first */
    long events;
    char cursor[CURSOR_BYTES];
};

static struct client *clients;
static int client_count, port, poller;
static char *client_lines, *buffer, marker[256], problem[256];
static int sends_frames, under_way, ready_count, failed_count, closed_count;
static long sought_events = -1; /* what `wait` waits for, and by how many it was reached */
static int sought_from, sought_to, reached;
static uint32_t *latencies; /* microseconds, in the order of arrival */
static size_t latency_count, latency_room;
static long holes, repeats;
static int64_t spun_ns, spin_began_ns, last_work_ns;

static int64_t nanoseconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void append(struct bytes *to, const char *data, size_t length) {
    if (to->length + length > to->room) {
        to->room = (to->length + length) * 2;
        if (!(to->data = realloc(to->data, to->room))) fail("memory");
    }
    memcpy(to->data + to->length, data, length);
    to->length += length;
}

static void release(struct bytes *what) {
    free(what->data);
    memset(what, 0, sizeof *what);
}

/* ---- one connection ---- */

static void listen_for(struct client *c, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (epoll_ctl(poller, how, c->fd, &event)) fail("epoll_ctl");
}

static void drop(struct client *c, const char *why) {
    if (c->state == CLOSED) return;
    if (c->state < READY) {
        under_way--;
        failed_count++;
        c->is_failed = 1;
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

static void become_ready(struct client *c) {
    if (c->state == READY) return;
    c->state = READY;
    under_way--;
    ready_count++;
    if (c->is_stalled) listen_for(c, 0, EPOLL_CTL_MOD); /* from now on it never reads */
}

static void write_to(struct client *c, const char *data, size_t length) {
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

static void write_rest(struct client *c) {
    struct bytes rest = c->out;
    memset(&c->out, 0, sizeof c->out);
    listen_for(c, EPOLLIN, EPOLL_CTL_MOD);
    if (rest.length) write_to(c, rest.data, rest.length);
    release(&rest);
}

/* RFC 6455, section 5.2; a mask of zeros is a mask. */
static void write_frame(struct client *c, int opcode, const char *data, size_t length) {
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

/* Put the client's cursor where a text of its line has @SINCE@. */
static size_t fill_in(const struct client *c, const char *text, char *into, size_t room) {
    const char *place = strstr(text, "@SINCE@");
    int length = place ? snprintf(into, room, "%.*s%s%s", (int)(place - text), text, c->cursor, place + 7)
                       : snprintf(into, room, "%s", text);
    return length < (int)room ? (size_t)length : room - 1;
}

static void write_own_frame(struct client *c) {
    char text[8192];
    if (*c->frame) write_frame(c, 1, text, fill_in(c, c->frame, text, sizeof text));
}

static void write_request(struct client *c) {
    char path[8192], request[16384];
    fill_in(c, c->path, path, sizeof path);
    const char *upgrade = c->is_stream ? "Accept: text/event-stream\r\n"
                                       : "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                                         "Sec-WebSocket-Version: 13\r\n"
                                         "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    int length = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s%s%s\r\n",
                          path, port, upgrade, c->header, *c->header ? "\r\n" : "");
    c->state = GREETING;
    listen_for(c, EPOLLIN, EPOLL_CTL_MOD);
    write_to(c, request, (size_t)length);
}

static void open_connection(struct client *c) {
    int number = (int)(c - clients), on = 1, small = STALLED_RCVBUF;
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (c->is_stalled) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    /* An address of its own each, as clients elsewhere have; ports cannot run out either. */
    from.sin_addr.s_addr = htonl(0x7f010000u + 1 + (uint32_t)number);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons((uint16_t)port);
    if (bind(c->fd, (struct sockaddr *)&from, sizeof from)) fail("bind");
    c->state = CONNECTING;
    c->chunk_left = 0;
    c->is_chunked = c->is_failed = c->close_code = 0;
    c->last_n = -1;
    under_way++;
    int done = connect(c->fd, (struct sockaddr *)&to, sizeof to);
    listen_for(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_ADD);
    if (done && errno != EINPROGRESS) drop(c, strerror(errno));
}

/* ---- what comes ---- */

static const char *after(const char *data, size_t length, const char *sought, size_t size) {
    const char *found = memmem(data, length, sought, size);
    if (!found) return NULL;
    found += size;
    while (found < data + length && *found == ' ') found++;
    return found < data + length ? found : NULL;
}
#define AFTER(data, length, text) after(data, length, text, sizeof text - 1)

static int64_t read_microseconds(const char *at, const char *end) {
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

static void take_event(struct client *c, const char *at, const char *end, int64_t now_us) {
    int64_t took = now_us - read_microseconds(at, end);
    if (latency_count == latency_room) {
        latency_room = latency_room ? latency_room * 2 : 1 << 20;
        if (!(latencies = realloc(latencies, latency_room * sizeof *latencies))) fail("memory");
    }
    latencies[latency_count++] = took < 0 ? 0 : (uint32_t)took;
    const char *digits = AFTER(at, (size_t)(end - at), "\"n\":");
    if (digits) {
        long long n = 0;
        for (; digits < end && *digits >= '0' && *digits <= '9'; digits++) n = n * 10 + (*digits - '0');
        if (c->last_n >= 0 && n > c->last_n + 1) holes += n - c->last_n - 1;
        if (c->last_n >= 0 && n <= c->last_n) repeats++;
        c->last_n = n;
    }
    int number = (int)(c - clients);
    if (++c->events == sought_events && number >= sought_from && number < sought_to) reached++;
}

/* One frame of a WebSocket, or one line of an event stream. */
static void take_text(struct client *c, const char *text, size_t length, int64_t now_us) {
    const char *end = text + length, *at = AFTER(text, length, "\"at\":");
    if (at) take_event(c, at, end, now_us);
    const char *from = at ? at : text;
    const char *cursor = AFTER(from, (size_t)(end - from), "\"cursor\":\"");
    if (cursor) {
        const char *stop = memchr(cursor, '"', (size_t)(end - cursor));
        if (stop && stop - cursor < CURSOR_BYTES) {
            memcpy(c->cursor, cursor, (size_t)(stop - cursor));
            c->cursor[stop - cursor] = 0;
        }
    }
    if (c->state == OPEN && under_way && *marker && memmem(text, length, marker, strlen(marker)))
        become_ready(c);
}

static void take_lines(struct client *c, const char *data, size_t length, int64_t now_us) {
    const char *line;
    while (length && (line = memchr(data, '\n', length))) {
        size_t size = (size_t)(line - data) + 1;
        if (c->text.length) {
            append(&c->text, data, size);
            take_text(c, c->text.data, c->text.length, now_us);
            c->text.length = 0;
        } else if (size > 2)
            take_text(c, data, size, now_us);
        data += size;
        length -= size;
    }
    if (length) append(&c->text, data, length);
}

/* Return how many bytes of an event stream's body were used; RFC 9112, section 7.1. */
static size_t take_stream(struct client *c, const char *data, size_t length, int64_t now_us) {
    size_t used = 0;
    if (!c->is_chunked) {
        take_lines(c, data, length, now_us);
        return length;
    }
    while (used < length && c->state != CLOSED) {
        if (c->chunk_left) {
            size_t size = length - used < c->chunk_left ? length - used : c->chunk_left;
            take_lines(c, data + used, size, now_us);
            c->chunk_left -= size;
            used += size;
            continue;
        }
        const char *line = memchr(data + used, '\n', length - used);
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

static void take_frame(struct client *c, int first, const char *data, size_t length, int64_t now_us) {
    int opcode = first & 15, is_last = first & 0x80;
    if (opcode == 9)
        write_frame(c, 10, data, length);
    else if (opcode == 8) {
        c->close_code = length < 2 ? 1005 : ((unsigned char)data[0] << 8) + (unsigned char)data[1];
        write_frame(c, 8, data, length < 2 ? 0 : 2);
        drop(c, "the server closed");
    } else if (opcode <= 2 && is_last && !c->text.length)
        take_text(c, data, length, now_us);
    else if (opcode <= 2) {
        append(&c->text, data, length);
        if (!is_last) return;
        take_text(c, c->text.data, c->text.length, now_us);
        c->text.length = 0;
    }
}

/* Return how many bytes were used: those of whole frames. */
static size_t take_frames(struct client *c, const char *data, size_t length, int64_t now_us) {
    size_t used = 0;
    while (length - used >= 2 && c->state != CLOSED) {
        const unsigned char *head = (const unsigned char *)data + used;
        size_t size = head[1] & 127, start = size < 126 ? 2 : size == 126 ? 4 : 10;
        if (head[1] & 128) drop(c, "the server masked a frame");
        if (length - used < start) break;
        if (start > 2) {
            size = 0;
            for (size_t i = 2; i < start; i++) size = size << 8 | head[i];
        }
        if (length - used - start < size) break;
        take_frame(c, head[0], data + used + start, size, now_us);
        used += start + size;
    }
    return used;
}

/* Return how many bytes were used: those of a whole head of an answer, or none. */
static size_t take_greeting(struct client *c, const char *data, size_t length) {
    const char *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end) return 0;
    size_t size = (size_t)(end - data) + 4;
    if (length < 12 || strncmp(data + 9, c->is_stream ? "200" : "101", 3)) {
        char why[128];
        snprintf(why, sizeof why, "it answered %.*s", (int)(strcspn(data, "\r\n") % 100), data);
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

static void take(struct client *c, const char *data, size_t length, int64_t now_us) {
    size_t used = 0;
    if (c->state == GREETING) used = take_greeting(c, data, length);
    if (c->state >= OPEN) {
        data += used;
        length -= used;
        used = c->is_stream ? take_stream(c, data, length, now_us) : take_frames(c, data, length, now_us);
    }
    if (c->state == CLOSED) return;
    struct bytes old = c->in;
    memset(&c->in, 0, sizeof c->in);
    if (used < length) append(&c->in, data + used, length - used);
    release(&old);
}

static void read_from(struct client *c) {
    ssize_t got = recv(c->fd, buffer, READ_BYTES, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        drop(c, got ? strerror(errno) : "the server cut the connection");
        return;
    }
    int64_t now_us = nanoseconds(CLOCK_REALTIME) / 1000;
    if (!c->in.length) {
        take(c, buffer, (size_t)got, now_us);
        return;
    }
    append(&c->in, buffer, (size_t)got);
    take(c, c->in.data, c->in.length, now_us);
}

static void happen(struct client *c, uint32_t events) {
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
        drop(c, "reset while it did not read");
        return;
    }
    if (events & EPOLLOUT) write_rest(c);
    if (c->state != CLOSED && events & (EPOLLIN | EPOLLERR | EPOLLHUP)) read_from(c);
}

/* ---- the loop ---- */

/* Take what is there; wait for some at most 50 ms. Return whether a command is there. */
static int turn(void) {
    struct epoll_event events[512];
    int has_command = 0;
    int is_spinning = nanoseconds(CLOCK_MONOTONIC) - last_work_ns < SPIN_NS;
    int count = epoll_wait(poller, events, 512, is_spinning ? 0 : 50);
    if (!count && is_spinning && !spin_began_ns)
        spin_began_ns = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    else if (spin_began_ns && (count || !is_spinning)) {
        spun_ns += nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - spin_began_ns;
        spin_began_ns = 0;
    }
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr)
            happen(events[i].data.ptr, events[i].events);
        else
            has_command = 1;
    }
    if (count > has_command) last_work_ns = nanoseconds(CLOCK_MONOTONIC);
    return has_command;
}

static void answer(const char *format, ...) {
    va_list values;
    va_start(values, format);
    vprintf(format, values);
    va_end(values);
    putchar('\n');
    fflush(stdout);
}

/* One client a line, with tabs: ws or sse; 1 if it never reads; path; header line; frame. */
static void read_clients(const char *name) {
    for (int i = 0; i < client_count; i++) drop(&clients[i], "");
    struct client *old = clients;
    int old_count = client_count;
    free(client_lines);
    FILE *file = fopen(name, "r");
    if (!file) fail(name);
    struct bytes all = {0};
    size_t got;
    while ((got = fread(buffer, 1, READ_BYTES, file))) append(&all, buffer, got);
    fclose(file);
    append(&all, "", 1);
    client_lines = all.data;
    client_count = 0;
    for (char *p = client_lines; *p; p++) client_count += *p == '\n';
    if (!(clients = calloc((size_t)client_count + 1, sizeof *clients))) fail("memory");
    char *line = client_lines;
    for (int i = 0; i < client_count; i++) {
        char *rest = strsep(&line, "\n");
        clients[i].is_stream = !strcmp(strsep(&rest, "\t"), "sse");
        clients[i].is_stalled = *strsep(&rest, "\t") == '1';
        clients[i].path = strsep(&rest, "\t");
        clients[i].header = strsep(&rest, "\t");
        clients[i].frame = rest;
        clients[i].last_n = -1;
        if (i < old_count) memcpy(clients[i].cursor, old[i].cursor, CURSOR_BYTES);
    }
    free(old);
    under_way = ready_count = failed_count = closed_count = 0;
    answer("{\"clients\": %d}", client_count);
}

static void set_marker(const char *text) { snprintf(marker, sizeof marker, "%s", strcmp(text, "-") ? text : ""); }

static void answer_ready(int before, int64_t began) {
    answer("{\"ready\": %d, \"failed\": %d, \"late\": %d, \"problem\": \"%s\", \"seconds\": %.6f}",
           ready_count - before, failed_count, under_way, problem,
           (double)(nanoseconds(CLOCK_MONOTONIC) - began) / 1e9);
}

static void connect_all(int first, int count, int at_once, double seconds) {
    int64_t began = nanoseconds(CLOCK_MONOTONIC), end = began + (int64_t)(seconds * 1e9);
    int next = first, before = ready_count;
    failed_count = 0;
    *problem = 0;
    while ((next < first + count || under_way) && nanoseconds(CLOCK_MONOTONIC) < end) {
        while (next < first + count && under_way < at_once) open_connection(&clients[next++]);
        turn();
    }
    answer_ready(before, began);
}

static void send_all(int first, int count, double seconds) {
    int64_t began = nanoseconds(CLOCK_MONOTONIC), end = began + (int64_t)(seconds * 1e9);
    int before = ready_count;
    failed_count = 0;
    *problem = 0;
    for (int i = first; i < first + count; i++) {
        if (clients[i].state != READY) continue;
        clients[i].state = OPEN;
        ready_count--;
        before--;
        under_way++;
        write_own_frame(&clients[i]);
        if (i % 16 == 0) turn();
    }
    while (under_way && nanoseconds(CLOCK_MONOTONIC) < end) turn();
    answer_ready(before, began);
}

static int count_missing(void) {
    int missing = 0;
    for (int i = sought_from; i < sought_to; i++)
        missing += clients[i].state != CLOSED && !clients[i].is_stalled && clients[i].events < sought_events;
    return missing;
}

static void wait_for_events(int first, int count, long events, double seconds) {
    int64_t began = nanoseconds(CLOCK_MONOTONIC), end = began + (int64_t)(seconds * 1e9);
    sought_events = events;
    sought_from = first;
    sought_to = first + count;
    int missing = count_missing(), closed = closed_count;
    reached = 0;
    while (missing > reached && nanoseconds(CLOCK_MONOTONIC) < end) {
        turn();
        if (closed != closed_count) { /* nobody waits for those that are gone */
            closed = closed_count;
            missing = count_missing();
            reached = 0;
        }
    }
    sought_events = -1;
    answer("{\"missing\": %d, \"seconds\": %.6f}", missing - reached,
           (double)(nanoseconds(CLOCK_MONOTONIC) - began) / 1e9);
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double share(double part) {
    if (!latency_count) return 0;
    size_t place = (size_t)((double)latency_count * part);
    return latencies[place < latency_count ? place : latency_count - 1] / 1e6;
}

static void report(void) {
    double cpu = (double)nanoseconds(CLOCK_PROCESS_CPUTIME_ID) / 1e9;
    qsort(latencies, latency_count, sizeof *latencies, compare);
    answer("{\"events\": %zu, \"p50\": %.6f, \"p99\": %.6f, \"max\": %.6f, \"holes\": %ld, "
           "\"repeats\": %ld, \"closed\": %d, \"cpu\": %.6f, \"spun\": %.6f}",
           latency_count, share(0.5), share(0.99), share(1), holes, repeats, closed_count, cpu,
           (double)spun_ns / 1e9);
}

static void reset(void) {
    for (int i = 0; i < client_count; i++) {
        clients[i].events = 0;
        clients[i].last_n = -1;
    }
    latency_count = 0;
    holes = repeats = 0;
    answer("{}");
}

static void tell_client(const struct client *c) {
    answer("{\"state\": %d, \"events\": %ld, \"last\": %lld, \"code\": %d, \"cursor\": \"%s\"}", c->state,
           c->events, c->last_n, c->close_code, c->cursor);
}

static void wake(int first, int count) {
    for (int i = first; i < first + count; i++) {
        clients[i].is_stalled = 0;
        if (clients[i].state == READY) listen_for(&clients[i], EPOLLIN, EPOLL_CTL_MOD);
    }
    answer("{}");
}

static void obey(char *line) {
    int first = 0, count = 0, at_once = 0, skip = 0;
    long events = 0;
    double seconds = 0;
    line[strcspn(line, "\n")] = 0;
    if (!strncmp(line, "clients ", 8))
        read_clients(line + 8);
    else if (sscanf(line, "connect %d %d %d %lf %d %n", &first, &count, &at_once, &seconds, &sends_frames,
                    &skip) == 5) {
        set_marker(line + skip);
        connect_all(first, count, at_once, seconds);
    } else if (sscanf(line, "send %d %d %lf %n", &first, &count, &seconds, &skip) == 3) {
        set_marker(line + skip);
        send_all(first, count, seconds);
    } else if (sscanf(line, "wait %d %d %ld %lf", &first, &count, &events, &seconds) == 4)
        wait_for_events(first, count, events, seconds);
    else if (sscanf(line, "client %d", &first) == 1)
        tell_client(&clients[first]);
    else if (sscanf(line, "wake %d %d", &first, &count) == 2)
        wake(first, count);
    else if (sscanf(line, "close %d %d", &first, &count) == 2) {
        for (int i = first; i < first + count; i++) drop(&clients[i], "");
        answer("{}");
    } else if (!strcmp(line, "reset"))
        reset();
    else if (!strcmp(line, "report"))
        report();
    else
        answer("{\"error\": \"unknown command\"}");
}

int main(int count, char **arguments) {
    struct rlimit limit;
    struct epoll_event commands = {.events = EPOLLIN};
    if (count != 2 || !(port = atoi(arguments[1]))) {
        fprintf(stderr, "usage: load PORT\n");
        return 2;
    }
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if ((poller = epoll_create1(EPOLL_CLOEXEC)) < 0) fail("epoll");
    if (!(buffer = malloc(READ_BYTES))) fail("memory");
    setvbuf(stdin, NULL, _IONBF, 0); /* epoll tells of what is in the pipe, not of what stdio took */
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &commands)) fail("stdin");
    answer("{\"files\": %llu}", (unsigned long long)limit.rlim_cur);
    char line[1024];
    while (1)
        if (turn()) {
            if (!fgets(line, sizeof line, stdin)) return 0;
            obey(line);
        }
}
