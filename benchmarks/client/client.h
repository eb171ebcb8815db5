/* A client, and the state that the parts of this program share. */
#ifndef CLIENT_H
#define CLIENT_H
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define READ_BYTES (1 << 20)
#define CURSOR_BYTES 192

enum state { CLOSED, CONNECTING, AWAITING_RESPONSE, OPEN, READY };

struct bytes {
    char* data;
    size_t length, capacity;
};

struct client {
    int fd;
    enum state state;
    int is_stream, is_stalled, is_chunked;
    int close_code; /* of the received close frame; 0 if none */
    char *path, *header, *frame;
    struct bytes in;   /* received, but not yet a whole frame or line */
    struct bytes text; /* the beginning of a fragmented text */
    struct bytes out;  /* bytes that the kernel did not accept */
    size_t chunk_left; /* missing bytes of the current HTTP chunk */
    long long last_n;  /* number of the last event; -1 before the first */
    long events;
    char cursor[CURSOR_BYTES];
};

/* All clients, and how many of them are in each state. */
extern struct client* clients;
extern int client_count, port, poller;
extern int pending_count, ready_count, failed_count, closed_count;

/* What makes a client ready, and why the first failed client failed. */
extern char marker[256], problem[256];
extern int sends_frames;

/* The measurements; latencies are in microseconds, in order of arrival. */
extern uint32_t* latencies;
extern size_t latency_count;
extern long holes, repeats;

/* The command `wait`: so many events (-1: not waiting), for a range of clients; `reached` counts
 * the clients that have them. */
extern long awaited_events;
extern int awaited_from, awaited_to, reached;

/* connection.c: connections and outgoing data */
int64_t nanoseconds(clockid_t clock);
void fail(const char* what);
void append(struct bytes* to, const char* data, size_t length);
void release(struct bytes* what);
void listen_for(struct client* c, uint32_t events, int how);
void open_connection(struct client* c);
void become_ready(struct client* c);
void drop(struct client* c, const char* why);
void write_request(struct client* c);
void write_own_frame(struct client* c);
void write_frame(struct client* c, int opcode, const char* data, size_t length);
void write_rest(struct client* c);

/* incoming.c: incoming data */
void handle_events(struct client* c, uint32_t events);
#endif
