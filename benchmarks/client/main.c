/* A load client: thousands of WebSockets and event streams in one thread, on loopback alone.
 *
 * benchmarks/load.py compiles this folder and drives the program: it writes one command per line to
 * stdin, and reads one line of JSON per command from stdout.  Commands:
 *
 *   clients FILE      cut all connections; read one client per line, see read_clients()
 *   connect FIRST COUNT ATONCE SECONDS SEND MARKER
 *                     open these connections, with ATONCE concurrent handshakes; with SEND=1 each
 *                     client sends its own frame; it is ready when MARKER arrives ("-": at once)
 *   send FIRST COUNT SECONDS MARKER
 *                     send the frames of open connections; ready as above
 *   wait FIRST COUNT EVENTS SECONDS
 *                     wait until each has received so many events since the last reset
 *   reset             reset counts and latencies
 *   report            counts, latencies, and the CPU time of this process
 *   client NUMBER     the state of one client
 *   wake FIRST COUNT  make stalled clients read
 *   close FIRST COUNT cut these connections
 *
 * An event is any text with "at":, the Unix time in seconds at which it was published.  "n": after
 * it numbers the events, so that a gap is detected; "cursor" is remembered and replaces @SINCE@ in
 * a client's line.
 *
 * On loopback the sender pays for waking a sleeping receiver; with remote clients no server pays
 * that.  So this process polls for a moment before it sleeps; the time spent polling is reported
 * separately from its work. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "client.h"

#define SPIN_NS 200000 /* how long it polls before it sleeps */

static char* client_lines;
static int64_t spun_ns, spin_began_ns, last_work_ns;

/* Handle pending input, or wait for it for at most 50 ms. Return whether a command is pending. */
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
            handle_events(events[i].data.ptr, events[i].events);
        else
            has_command = 1;
    }
    if (count > has_command) last_work_ns = nanoseconds(CLOCK_MONOTONIC);
    return has_command;
}

static void answer(const char* format, ...) {
    va_list values;
    va_start(values, format);
    vprintf(format, values);
    va_end(values);
    putchar('\n');
    fflush(stdout);
}

/* Read one client per line, tab-separated: ws or sse; 1 if it never reads; path; header; frame. */
static void read_clients(const char* name) {
    for (int i = 0; i < client_count; i++) drop(&clients[i], "");
    struct client* old = clients;
    int old_count = client_count;
    free(client_lines);
    FILE* file = fopen(name, "r");
    if (!file) fail(name);
    struct bytes all = {0};
    char part[4096];
    size_t got;
    while ((got = fread(part, 1, sizeof part, file))) append(&all, part, got);
    fclose(file);
    append(&all, "", 1);
    client_lines = all.data;
    client_count = 0;
    for (char* p = client_lines; *p; p++) client_count += *p == '\n';
    if (!(clients = calloc((size_t)client_count + 1, sizeof *clients))) fail("memory");
    char* line = client_lines;
    for (int i = 0; i < client_count; i++) {
        char* rest = strsep(&line, "\n");
        clients[i].is_stream = !strcmp(strsep(&rest, "\t"), "sse");
        clients[i].is_stalled = *strsep(&rest, "\t") == '1';
        clients[i].path = strsep(&rest, "\t");
        clients[i].header = strsep(&rest, "\t");
        clients[i].frame = rest;
        clients[i].last_n = -1;
        if (i < old_count) memcpy(clients[i].cursor, old[i].cursor, CURSOR_BYTES);
    }
    free(old);
    pending_count = ready_count = failed_count = closed_count = 0;
    answer("{\"clients\": %d}", client_count);
}

static void set_marker(const char* text) {
    snprintf(marker, sizeof marker, "%s", strcmp(text, "-") ? text : "");
}

static void answer_ready(int before, int64_t began) {
    answer("{\"ready\": %d, \"failed\": %d, \"late\": %d, \"problem\": \"%s\", \"seconds\": %.6f}",
           ready_count - before, failed_count, pending_count, problem,
           (double)(nanoseconds(CLOCK_MONOTONIC) - began) / 1e9);
}

static void connect_all(int first, int count, int at_once, double seconds) {
    int64_t began = nanoseconds(CLOCK_MONOTONIC), end = began + (int64_t)(seconds * 1e9);
    int next = first, before = ready_count;
    failed_count = 0;
    *problem = 0;
    while ((next < first + count || pending_count) && nanoseconds(CLOCK_MONOTONIC) < end) {
        while (next < first + count && pending_count < at_once) open_connection(&clients[next++]);
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
        pending_count++;
        write_own_frame(&clients[i]);
        if (i % 16 == 0) turn();
    }
    while (pending_count && nanoseconds(CLOCK_MONOTONIC) < end) turn();
    answer_ready(before, began);
}

static int count_missing(void) {
    int missing = 0;
    for (int i = awaited_from; i < awaited_to; i++)
        missing += clients[i].state != CLOSED && !clients[i].is_stalled &&
                   clients[i].events < awaited_events;
    return missing;
}

static void wait_for_events(int first, int count, long events, double seconds) {
    int64_t began = nanoseconds(CLOCK_MONOTONIC), end = began + (int64_t)(seconds * 1e9);
    awaited_events = events;
    awaited_from = first;
    awaited_to = first + count;
    int missing = count_missing(), closed = closed_count;
    reached = 0;
    while (missing > reached && nanoseconds(CLOCK_MONOTONIC) < end) {
        turn();
        if (closed != closed_count) { /* closed clients are not waited for */
            closed = closed_count;
            missing = count_missing();
            reached = 0;
        }
    }
    awaited_events = -1;
    answer("{\"missing\": %d, \"seconds\": %.6f}", missing - reached,
           (double)(nanoseconds(CLOCK_MONOTONIC) - began) / 1e9);
}

static int compare(const void* a, const void* b) {
    uint32_t x = *(const uint32_t*)a, y = *(const uint32_t*)b;
    return (x > y) - (x < y);
}

static double percentile(double part) {
    if (!latency_count) return 0;
    size_t index = (size_t)((double)latency_count * part);
    return latencies[index < latency_count ? index : latency_count - 1] / 1e6;
}

static void report(void) {
    double cpu = (double)nanoseconds(CLOCK_PROCESS_CPUTIME_ID) / 1e9;
    qsort(latencies, latency_count, sizeof *latencies, compare);
    answer(
        "{\"events\": %zu, \"p50\": %.6f, \"p99\": %.6f, \"max\": %.6f, \"holes\": %ld, "
        "\"repeats\": %ld, \"closed\": %d, \"cpu\": %.6f, \"spun\": %.6f}",
        latency_count, percentile(0.5), percentile(0.99), percentile(1), holes, repeats,
        closed_count, cpu, (double)spun_ns / 1e9);
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

static void answer_client(const struct client* c) {
    answer("{\"state\": %d, \"events\": %ld, \"last\": %lld, \"code\": %d, \"cursor\": \"%s\"}",
           c->state, c->events, c->last_n, c->close_code, c->cursor);
}

static void wake(int first, int count) {
    for (int i = first; i < first + count; i++) {
        clients[i].is_stalled = 0;
        if (clients[i].state == READY) listen_for(&clients[i], EPOLLIN, EPOLL_CTL_MOD);
    }
    answer("{}");
}

static void run_command(char* line) {
    int first = 0, count = 0, at_once = 0, skip = 0;
    long events = 0;
    double seconds = 0;
    line[strcspn(line, "\n")] = 0;
    if (!strncmp(line, "clients ", 8))
        read_clients(line + 8);
    else if (sscanf(line, "connect %d %d %d %lf %d %n", &first, &count, &at_once, &seconds,
                    &sends_frames, &skip) == 5) {
        set_marker(line + skip);
        connect_all(first, count, at_once, seconds);
    } else if (sscanf(line, "send %d %d %lf %n", &first, &count, &seconds, &skip) == 3) {
        set_marker(line + skip);
        send_all(first, count, seconds);
    } else if (sscanf(line, "wait %d %d %ld %lf", &first, &count, &events, &seconds) == 4)
        wait_for_events(first, count, events, seconds);
    else if (sscanf(line, "client %d", &first) == 1)
        answer_client(&clients[first]);
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

int main(int count, char** arguments) {
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
    /* epoll reports what is in the pipe, not what stdio has buffered. */
    setvbuf(stdin, NULL, _IONBF, 0);
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &commands)) fail("stdin");
    answer("{\"files\": %llu}", (unsigned long long)limit.rlim_cur);
    char line[1024];
    while (1)
        if (turn()) {
            if (!fgets(line, sizeof line, stdin)) return 0;
            run_command(line);
        }
}
