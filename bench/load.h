/* What the load client's loop (load.c) and its two transports (load_rest.c, load_grpc.c) know of each other. */
#ifndef LOAD_H
#define LOAD_H

#include <stddef.h>

/* One caller, and the request that it has under way. */
typedef struct call {
    long long starts_ns; /* of its first request */
    long long sent_ns;
    int is_busy;
    int is_completed; /* a stream has said that it is whole: [DONE], or StreamCompleted */
    size_t text_bytes;
    void *peer; /* the transport's */
} call;

/* What epoll wakes: the first member of whatever a transport watches. */
typedef struct watched {
    void (*on_readable)(struct watched *self);
} watched;

typedef struct {
    void (*prepare)(call *calls, int count); /* once: set every `peer` */
    void (*ask)(call *c);                    /* send the request; `c` is reset and busy */
} transport;

extern const transport rest_transport, grpc_transport;

typedef struct {
    int port, connections, channels, is_stream, is_hold;
    double seconds, stagger_ms;
    size_t text_bytes;
    const char *path, *model;
    char headers[4096];
} options;

extern options given;

/* Called by the transports. */
void take_text(call *c, size_t bytes);
void finish(call *c);                                                  /* the answer has ended well */
void fail(call *c, const char *reason, const char *quoted, size_t size); /* it has not */
int connect_to_port(watched *w);                                       /* a watched socket, or -1 */

#endif
