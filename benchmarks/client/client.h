/* A client, and what the parts of this program know of all of them. */
#ifndef CLIENT_H
#define CLIENT_H
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define READ_BYTES (1 << 20)
#define CURSOR_BYTES 192

enum state { CLOSED, CONNECTING, GREETING, OPEN, READY };

struct bytes {
    char* data;
    size_t length, room;
};

struct client {
    int fd;
    enum state state;
    int is_stream, is_stalled, is_chunked;
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

/* All clients, and how many of them are in which state. */
extern struct client* clients;
extern int client_count, port, poller;
extern int under_way, ready_count, failed_count, closed_count;

/* What they are asked to do, and the first reason why one could not. */
extern char marker[256], problem[256];
extern int sends_frames;

/* What they saw; latencies are microseconds, in the order of arrival. */
extern uint32_t* latencies;
extern size_t latency_count;
extern long holes, repeats;

/* What `wait` waits for: so many events (-1: nothing), from which clients, and who has them. */
extern long sought_events;
extern int sought_from, sought_to, reached;

/* connection.c: what goes out */
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

/* arriving.c: what comes in */
void happen(struct client* c, uint32_t events);
#endif
