/*
 * A cheap load client for completions: every caller asks again as soon as it is answered.
 *
 *     load --port N --model burst --text-bytes N [--grpc] [--stream] [--hold] [--connections N] [--seconds N]
 *          [--stagger-ms N] [--channels N] [--path /v1/chat/completions] [--header "name: value"]...
 *
 *   --grpc         trunkline.v1 over gRPC instead of OpenAI chat completions over HTTP/1.1
 *   --connections  callers at once; over HTTP each has a TCP connection, over gRPC they share --channels of them
 *   --text-bytes   bytes of text in a whole answer; an answer with any other number is an error
 *   --stagger-ms   spread the first requests evenly over this long, so that paced streams are not in step
 *   --seconds      no request starts later than this; those under way are finished (within 30 s)
 *   --hold         open every stream, print "held" when each has begun, and wait until stdin closes
 *
 * It prints one line of JSON. Every request is counted either in `requests`, answered whole and with all of its text,
 * or in `errors`, with the first one quoted. `content_chunks` counts the chunks or messages that carry text;
 * `latency_us` is from request sent to answer complete, `first_us` from request sent to first text.
 */
#define _GNU_SOURCE
#include "load.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, QUOTED_BYTES = 300, LOOK_AGAIN_MS = 100 };
static const long long SECOND_NS = 1000000000, GRACE_NS = 30 * SECOND_NS;

typedef struct {
    unsigned *us;
    size_t count, room;
} samples;

options given = {.connections = 1, .channels = 4, .seconds = 1, .path = "/v1/chat/completions", .model = "burst"};

static const transport *wire = &rest_transport;
static int loop, is_released;
static long answered, errors, content_chunks, begun;
static long long started_ns, ends_ns, answered_ns;
static samples latencies, firsts;
static char first_error[QUOTED_BYTES];

static long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * SECOND_NS + t.tv_nsec;
}

/* -- what is recorded -- */

static void record(samples *s, long long since_ns)
{
    if (s->count == s->room)
        s->us = realloc(s->us, (s->room = s->room ? 2 * s->room : 4096) * sizeof *s->us);
    s->us[s->count++] = (now_ns() - since_ns) / 1000;
}

void take_text(call *c, size_t bytes)
{
    content_chunks++;
    if (!c->text_bytes && given.is_stream) {
        record(&firsts, c->sent_ns);
        begun++;
    }
    c->text_bytes += bytes;
}

void fail(call *c, const char *reason, const char *quoted, size_t size)
{
    c->is_busy = 0;
    if (errors++)
        return;
    int n = snprintf(first_error, sizeof first_error, "%s: ", reason);
    for (size_t i = 0; i < size && n < QUOTED_BYTES - 1; i++)
        first_error[n++] = quoted[i] < ' ' || strchr("\"\\\x7f", quoted[i]) ? '.' : quoted[i];
}

void finish(call *c)
{
    char counts[80];
    int n = snprintf(counts, sizeof counts, "%zu bytes of text", c->text_bytes);
    if (c->text_bytes != given.text_bytes)
        return fail(c, "an answer without all of its text", counts, n);
    if (given.is_stream && !c->is_completed)
        return fail(c, "a stream that did not say that it is whole", counts, n);
    answered++;
    answered_ns = now_ns();
    record(&latencies, c->sent_ns);
    c->is_busy = 0;
}

static int by_value(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return x < y ? -1 : x > y;
}

static void print_percentiles(const char *name, samples *s)
{
    if (!s->count) {
        printf(",\"%s\":null", name);
        return;
    }
    qsort(s->us, s->count, sizeof *s->us, by_value);
    printf(",\"%s\":{\"p50\":%u,\"p99\":%u}", name, s->us[(s->count - 1) / 2], s->us[(s->count - 1) * 99 / 100]);
}

static void print_record(void)
{
    printf("{\"requests\":%ld,\"errors\":%ld,\"first_error\":\"%s\",\"seconds\":%.3f,\"content_chunks\":%ld", answered,
           errors, first_error, (double)((answered_ns ? answered_ns : now_ns()) - started_ns) / SECOND_NS,
           content_chunks);
    print_percentiles("latency_us", &latencies);
    print_percentiles("first_us", &firsts);
    printf("}\n");
}

/* -- the loop -- */

int connect_to_port(watched *w)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(given.port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd >= 0 && connect(fd, (void *)&at, sizeof at)) { /* Loopback: answers at once or not at all. */
        close(fd);
        fd = -1;
    }
    if (fd < 0) {
        usleep(1000); /* A port that refuses must not be asked in a tight loop. */
        return fd;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    epoll_ctl(loop, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = w});
    return fd;
}

static void wait_for_events(int wait_ms)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(loop, events, EVENTS, wait_ms);
    for (int i = 0; i < n; i++) {
        watched *w = events[i].data.ptr;
        w->on_readable(w);
    }
}

static void on_stdin(watched *self)
{
    (void)self;
    is_released = read(0, (char[64]){0}, 64) <= 0;
}

/* Ask for every caller that is free and has begun; count the busy ones. Returns when to look again, in ms from now. */
static int ask_where_free(call *calls, int *busy)
{
    long long now = now_ns(), look_ns = now + LOOK_AGAIN_MS * 1000000LL;
    *busy = 0;
    for (int i = 0; i < given.connections; i++) {
        call *c = &calls[i];
        if (!c->is_busy && c->starts_ns <= now && now < ends_ns) {
            c->is_busy = 1;
            c->text_bytes = c->is_completed = 0;
            c->sent_ns = now_ns();
            wire->ask(c);
        } else if (c->starts_ns > now && c->starts_ns < look_ns)
            look_ns = c->starts_ns;
        *busy += c->is_busy;
    }
    if (now < ends_ns && ends_ns < look_ns)
        look_ns = ends_ns;
    return (look_ns - now) / 1000000 + 1;
}

static void run(call *calls)
{
    int busy;
    do {
        int wait_ms = ask_where_free(calls, &busy);
        wait_for_events(wait_ms);
    } while (now_ns() < ends_ns || (busy && now_ns() < ends_ns + GRACE_NS));
    for (int i = 0; i < given.connections; i++)
        if (calls[i].is_busy)
            fail(&calls[i], "an answer that did not end in time", "", 0);
}

/* Each caller asks once. `answered` is how many streams are open at the end; the others are errors. */
static void run_hold(call *calls)
{
    watched standard_input = {on_stdin};
    int busy, is_said = 0;
    epoll_ctl(loop, EPOLL_CTL_ADD, 0, &(struct epoll_event){.events = EPOLLIN, .data.ptr = &standard_input});
    while (!is_released && !errors && (is_said || now_ns() < ends_ns)) {
        int wait_ms = is_said ? 1000 : ask_where_free(calls, &busy);
        wait_for_events(wait_ms);
        if (!is_said && begun == given.connections) {
            is_said = printf("held\n");
            fflush(stdout);
        }
    }
    for (int i = 0; i < given.connections; i++)
        answered += calls[i].is_busy && calls[i].text_bytes;
    if (answered < given.connections)
        fail(&calls[0], "a stream that did not begin in time", "", 0);
    errors = given.connections - answered;
}

static void read_arguments(int count, char **arguments)
{
    for (int i = 1; i < count; i++) {
        const char *name = arguments[i], *value = i + 1 < count ? arguments[i + 1] : "";
        if (!strcmp(name, "--grpc"))
            wire = &grpc_transport;
        else if (!strcmp(name, "--stream"))
            given.is_stream = 1;
        else if (!strcmp(name, "--hold"))
            given.is_stream = given.is_hold = 1;
        else if (i++, !strcmp(name, "--port"))
            given.port = atoi(value);
        else if (!strcmp(name, "--path"))
            given.path = value;
        else if (!strcmp(name, "--model"))
            given.model = value;
        else if (!strcmp(name, "--text-bytes"))
            given.text_bytes = atol(value);
        else if (!strcmp(name, "--connections"))
            given.connections = atoi(value);
        else if (!strcmp(name, "--channels"))
            given.channels = atoi(value);
        else if (!strcmp(name, "--seconds"))
            given.seconds = atof(value);
        else if (!strcmp(name, "--stagger-ms"))
            given.stagger_ms = atof(value);
        else if (!strcmp(name, "--header") && strlen(given.headers) + strlen(value) + 3 < sizeof given.headers)
            strcat(strcat(given.headers, value), "\r\n");
        else {
            fprintf(stderr, "load: cannot use %s %s\n", name, value);
            exit(2);
        }
    }
}

int main(int count, char **arguments)
{
    read_arguments(count, arguments);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* Never outlives the run that started it. */
    loop = epoll_create1(0);
    call *calls = calloc(given.connections, sizeof *calls);
    wire->prepare(calls, given.connections);
    started_ns = now_ns();
    ends_ns = started_ns + (long long)(given.seconds * SECOND_NS);
    for (int i = 0; i < given.connections; i++)
        calls[i].starts_ns = started_ns + (long long)(given.stagger_ms * 1e6 * i / given.connections);
    given.is_hold ? run_hold(calls) : run(calls);
    print_record();
    return 0;
}
