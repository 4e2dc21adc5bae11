/*
 * A cheap model provider that speaks the OpenAI chat completions dialect over HTTP/1.1, for measuring gateways.
 *
 *     upstream [--port N] [--chunks N] [--first-ms N] [--gap-ms N]
 *
 * It listens on 127.0.0.1, prints the port, and answers every POST whose path ends in /chat/completions: with one JSON
 * body, or, where the request says "stream": true, with a stream of N content chunks, a finish chunk, a usage chunk
 * and [DONE]. The request's model chooses the manner of a stream:
 *
 *     burst   all of it in one write, at once
 *     paced   the first chunk after first-ms, the next ones gap-ms apart, each in a TCP packet of its own
 *     hold    the first chunk at once, then nothing until the peer closes
 *     told-N  the first chunk when the prompt says, the next ones gap-ms apart, each in a TCP packet of its own: somewhere
 *             in it stands `first_us=` and numbers with commas between them, of which the one at place N counts, from 0;
 *             -1 is never
 *
 * The theory: answers never vary, so each is a script, bytes built once with the offsets up to which they may have left
 * after each step. A connection is a position in a script. There are two delays that all share, so timers are two
 * queues, each in order of its due times by itself; and a third one for the delays that prompts tell, where each finds
 * its place from the end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST_BYTES = 64 * 1024, SCRIPT_BYTES = 1024 * 1024, STEPS = 1024, EVENTS = 256 };

typedef struct {
    char *bytes;
    size_t release[STEPS]; /* release[k]: bytes that may have left after step k */
    int steps;
    int is_paced;
    int ends; /* false: the answer stays open after its last step */
} script;

typedef struct conn {
    int fd;
    int waits_to_write;
    script *answer; /* NULL between requests */
    int step;       /* steps taken */
    size_t sent;
    long long due_ns; /* of the next step, while in a queue */
    struct queue *queue;
    struct conn *before, *after;
    size_t filled;
    char request[REQUEST_BYTES + 1];
} conn;

typedef struct queue {
    conn *head, *tail;
} queue;

static const char *WORDS[] = {" alpha", " brave", " crane", " delta", " eager", " flint", " grape", " haste"};

static int loop;
static int chunks = 64;
static long long first_ns = 200000000, gap_ns = 10000000;
static queue first_waits, gap_waits, told_waits;
static script unary, burst, paced, hold, told, refusal;

static long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* -- scripts -- */

static size_t length(script *s)
{
    return s->steps ? s->release[s->steps - 1] : 0;
}

/* One event in one HTTP chunk at the end of `out`. */
static size_t put_event(char *out, const char *json)
{
    return sprintf(out, "%zx\r\ndata: %s\n\n\r\n", strlen(json) + 8, json);
}

static size_t put_chunk(char *out, const char *model, const char *choices, const char *usage)
{
    char json[1024];
    sprintf(json,
            "{\"id\":\"chatcmpl-CGv3kQwJ9T0bXn5YdLr8sZa1PfEoM\",\"object\":\"chat.completion.chunk\","
            "\"created\":1763683200,\"model\":\"%s\",\"system_fingerprint\":\"fp_44709d6fcb\","
            "\"choices\":[%s],\"usage\":%s}",
            model, choices, usage);
    return put_event(out, json);
}

#define USAGE "{\"prompt_tokens\":9,\"completion_tokens\":%d,\"total_tokens\":%d}"

static void build_stream(script *s, const char *model, int is_paced, int ends)
{
    char choices[256], usage[128];
    s->bytes = malloc(SCRIPT_BYTES);
    s->is_paced = is_paced;
    s->ends = ends;
    size_t n = sprintf(s->bytes, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                                 "transfer-encoding: chunked\r\nx-request-id: req_bench\r\n"
                                 "openai-processing-ms: 12\r\ncache-control: no-cache\r\n\r\n");
    for (int k = 0; k < (ends ? chunks : 1); k++) {
        sprintf(choices, "{\"index\":0,\"delta\":{%s\"content\":\"%s\"},\"logprobs\":null,\"finish_reason\":null}",
                k ? "" : "\"role\":\"assistant\",", WORDS[k % 8]);
        n += put_chunk(s->bytes + n, model, choices, "null");
        if (is_paced || !ends)
            s->release[s->steps++] = n;
    }
    if (!ends)
        return;
    n += put_chunk(s->bytes + n, model, "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}", "null");
    sprintf(usage, USAGE, chunks, chunks + 9);
    n += put_chunk(s->bytes + n, model, "", usage);
    n += put_event(s->bytes + n, "[DONE]");
    n += sprintf(s->bytes + n, "0\r\n\r\n");
    s->release[s->steps++] = n;
}

static void build_whole(script *s, const char *status, const char *body)
{
    s->bytes = malloc(strlen(body) + 512);
    s->ends = 1;
    s->release[s->steps++] = sprintf(s->bytes,
                                     "HTTP/1.1 %s\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\n"
                                     "openai-processing-ms: 12\r\ncontent-length: %zu\r\n\r\n%s",
                                     status, strlen(body), body);
}

static void build_scripts(void)
{
    char *text = calloc(1, chunks * 8 + 1), *body = malloc(chunks * 8 + 1024);
    for (int k = 0; k < chunks; k++)
        strcat(text, WORDS[k % 8]);
    sprintf(body,
            "{\"id\":\"chatcmpl-CGv3kQwJ9T0bXn5YdLr8sZa1PfEoM\",\"object\":\"chat.completion\",\"created\":1763683200,"
            "\"model\":\"burst\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\","
            "\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":" USAGE
            ",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_44709d6fcb\"}",
            text, chunks, chunks + 9);
    build_whole(&unary, "200 OK", body);
    build_whole(&refusal, "404 Not Found", "{\"error\":{\"message\":\"no such path or model\",\"type\":"
                                           "\"invalid_request_error\",\"param\":null,\"code\":null}}");
    build_stream(&burst, "burst", 0, 1);
    build_stream(&paced, "paced", 1, 1);
    build_stream(&hold, "hold", 0, 0);
    build_stream(&told, "told", 1, 1);
}

/* -- timers -- */

static void enqueue(conn *c, queue *q, long long due_ns)
{
    conn *before = q->tail;
    while (before && before->due_ns > due_ns)
        before = before->before;
    c->due_ns = due_ns;
    c->queue = q;
    c->before = before;
    c->after = before ? before->after : q->head;
    *(c->after ? &c->after->before : &q->tail) = c;
    *(before ? &before->after : &q->head) = c;
}

static void dequeue(conn *c)
{
    queue *q = c->queue;
    if (!q)
        return;
    *(c->before ? &c->before->after : &q->head) = c->after;
    *(c->after ? &c->after->before : &q->tail) = c->before;
    c->queue = NULL;
}

static conn *earlier(conn *a, conn *b)
{
    return !a ? b : !b ? a : a->due_ns <= b->due_ns ? a : b;
}

static conn *next_due(void)
{
    return earlier(earlier(first_waits.head, gap_waits.head), told_waits.head);
}

/* -- connections -- */

static void hang_up(conn *c)
{
    dequeue(c);
    close(c->fd);
    free(c);
}

static void watch(conn *c, int for_room)
{
    if (c->waits_to_write == for_room)
        return;
    c->waits_to_write = for_room;
    struct epoll_event e = {.events = EPOLLIN | (for_room ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(loop, EPOLL_CTL_MOD, c->fd, &e);
}

/* Send what the steps taken have released. False: the connection is gone. */
static int send_released(conn *c)
{
    script *s = c->answer;
    size_t allowed = c->step ? s->release[c->step - 1] : 0;
    while (c->sent < allowed) {
        ssize_t n = send(c->fd, s->bytes + c->sent, allowed - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return watch(c, 1), 1;
        if (n < 0)
            return hang_up(c), 0;
        c->sent += n;
    }
    watch(c, 0);
    if (s->ends && c->sent == length(s))
        c->answer = NULL;
    return 1;
}

static int take_step(conn *c)
{
    c->step++;
    if (c->answer->is_paced && c->step < c->answer->steps)
        enqueue(c, &gap_waits, c->due_ns + gap_ns);
    return send_released(c);
}

/* The request's model, without its quotation mark; empty where it has none. */
static const char *model_in(const char *body)
{
    const char *model = strstr(body, "\"model\"");
    return model ? model + 7 + strspn(model + 7, ": \"") : "";
}

/* When the prompt says that this model's first chunk comes, in us from now; -1: never, or it does not say. */
static long told_us(const char *body)
{
    const char *at = strstr(body, "first_us=");
    for (long place = atol(model_in(body) + 5); at && place > 0; place--)
        at = strchr(at + 1, ',');
    return at ? atol(at + (*at == ',' ? 1 : 9)) : -1;
}

static script *answer_to(const char *head, const char *body)
{
    const char *path_end = strchr(head + 5, ' '), *path = "/chat/completions";
    size_t n = strlen(path);
    if (strncmp(head, "POST ", 5) || !path_end || path_end - head < (long)n || strncmp(path_end - n, path, n))
        return &refusal;
    const char *stream = strstr(body, "\"stream\"");
    if (!stream || strncmp(stream + 8 + strspn(stream + 8, ": "), "true", 4))
        return &unary;
    const char *model = model_in(body);
    return !strncmp(model, "burst\"", 6)   ? &burst
           : !strncmp(model, "paced\"", 6) ? &paced
           : !strncmp(model, "hold\"", 5)  ? &hold
           : !strncmp(model, "told-", 5)   ? &told
                                           : &refusal;
}

/* Answer the request at the front of the buffer once it is whole. False: the connection is gone. */
static int answer(conn *c)
{
    c->request[c->filled] = 0;
    char *end = strstr(c->request, "\r\n\r\n");
    if (!end || c->answer)
        return 1;
    *end = 0;
    char *body = end + 4, *length_header = strcasestr(c->request, "\r\ncontent-length:");
    size_t body_bytes = length_header ? strtoul(length_header + 17, NULL, 10) : 0;
    if (body + body_bytes > c->request + c->filled)
        return *end = '\r', 1;
    char kept = body[body_bytes];
    body[body_bytes] = 0;
    c->answer = answer_to(c->request, body);
    long first_us = c->answer == &told ? told_us(body) : 0;
    body[body_bytes] = kept;
    c->filled -= body + body_bytes - c->request;
    memmove(c->request, body + body_bytes, c->filled);
    c->step = c->sent = 0;
    if (!c->answer->is_paced)
        return take_step(c);
    if (c->answer != &told)
        enqueue(c, &first_waits, now_ns() + first_ns);
    else if (first_us >= 0)
        enqueue(c, &told_waits, now_ns() + first_us * 1000LL);
    return 1;
}

static void on_event(conn *c, unsigned events)
{
    if ((events & EPOLLOUT) && c->answer && !send_released(c))
        return;
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    ssize_t n = recv(c->fd, c->request + c->filled, REQUEST_BYTES - c->filled, 0);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0) /* Closed, broken, or a request that is too long. */
        return hang_up(c);
    c->filled += n;
    answer(c);
}

static void accept_all(int listener)
{
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        conn *c = malloc(sizeof *c); /* Not calloc: an untouched buffer takes no memory. */
        memset(c, 0, offsetof(conn, request));
        c->fd = fd;
        epoll_ctl(loop, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = c});
    }
}

static int listen_on(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(fd, (void *)&at, sizeof at) || listen(fd, 4096)) {
        perror("upstream");
        exit(1);
    }
    getsockname(fd, (void *)&at, &size);
    printf("%d\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

int main(int count, char **arguments)
{
    int port = 0;
    for (int i = 1; i + 1 < count; i += 2) {
        long value = atol(arguments[i + 1]);
        if (!strcmp(arguments[i], "--port"))
            port = value;
        else if (!strcmp(arguments[i], "--chunks") && value > 0 && value < STEPS)
            chunks = value;
        else if (!strcmp(arguments[i], "--first-ms"))
            first_ns = value * 1000000LL;
        else if (!strcmp(arguments[i], "--gap-ms"))
            gap_ns = value * 1000000LL;
        else
            return fprintf(stderr, "upstream: cannot use %s %s\n", arguments[i], arguments[i + 1]), 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* Never outlives the run that started it. */
    build_scripts();
    loop = epoll_create1(0);
    int listener = listen_on(port);
    epoll_ctl(loop, EPOLL_CTL_ADD, listener, &(struct epoll_event){.events = EPOLLIN});
    for (struct epoll_event events[EVENTS];;) {
        conn *due = next_due();
        long long wait_ns = due ? due->due_ns - now_ns() : 0;
        struct timespec wait = {wait_ns / 1000000000, wait_ns % 1000000000};
        if (wait_ns < 0)
            wait = (struct timespec){0, 0};
        /* epoll_wait counts milliseconds, which would gather the chunks of many streams into one tick. */
        int n = syscall(SYS_epoll_pwait2, loop, events, EVENTS, due ? &wait : NULL, NULL, 0);
        for (int i = 0; i < n; i++)
            events[i].data.ptr ? on_event(events[i].data.ptr, events[i].events) : accept_all(listener);
        for (long long now = now_ns(); (due = next_due()) && due->due_ns <= now;) {
            dequeue(due);
            take_step(due);
        }
    }
}
