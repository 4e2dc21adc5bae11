/* OpenAI chat completions over HTTP/1.1: one keep-alive connection for each caller. */
#define _GNU_SOURCE
#include "load.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINE_BYTES = 64 * 1024, READ_BYTES = 256 * 1024 };

/* Where the bytes that come next belong. SIZE and its line end are HTTP chunk framing, CLOSE a body without length. */
enum part { HEAD, SIZE, SIZE_LINE_END, CHUNK, CHUNK_LINE_END, TRAILER, LENGTH, CLOSE };

typedef struct {
    watched base;
    call *caller;
    int fd; /* -1: not connected */
    enum part part;
    size_t left; /* bytes of this HTTP chunk or body */
    int status;
    size_t filled; /* bytes in `line`: the head, or a line of the body that is not complete, or an error's body */
    char line[LINE_BYTES];
} peer;

static char request[8192];
static size_t request_bytes;

static void hang_up(peer *p)
{
    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
}

static void break_off(peer *p, const char *reason)
{
    hang_up(p);
    fail(p->caller, reason, p->line, p->filled);
}

static void end_answer(peer *p)
{
    if (p->part == CLOSE)
        hang_up(p);
    if (p->status != 200)
        return break_off(p, "a status other than 200");
    finish(p->caller);
}

/* Text in `"content": "..."` of one line of JSON, in bytes. The upstream's text has no escapes. */
static size_t text_in(const char *line, size_t n)
{
    const char *end = line + n, *at = memmem(line, n, "\"content\":", 10);
    if (!at)
        return 0;
    for (at += 10; at < end && *at == ' ';)
        at++;
    if (at >= end || *at++ != '"')
        return 0;
    const char *quote = memchr(at, '"', end - at);
    return quote ? quote - at : 0;
}

static void read_line(peer *p, const char *line, size_t n)
{
    if (given.is_stream && (n < 6 || memcmp(line, "data: ", 6)))
        return;
    if (n >= 12 && !memcmp(line, "data: [DONE]", 12))
        p->caller->is_completed = 1;
    size_t bytes = text_in(line, n);
    if (bytes)
        take_text(p->caller, bytes);
}

static void keep(peer *p, const char *bytes, size_t n)
{
    size_t room = LINE_BYTES - 1 - p->filled, fits = n < room ? n : room;
    memcpy(p->line + p->filled, bytes, fits);
    p->filled += fits;
    p->line[p->filled] = 0;
}

/* Body bytes, HTTP framing taken off: whole lines are read, the rest is kept. */
static void read_body(peer *p, const char *bytes, size_t n)
{
    if (p->status != 200)
        return keep(p, bytes, n);
    for (const char *end; n && (end = memchr(bytes, '\n', n)); n -= end + 1 - bytes, bytes = end + 1) {
        if (p->filled) {
            keep(p, bytes, end - bytes);
            read_line(p, p->line, p->filled);
            p->filled = 0;
        } else
            read_line(p, bytes, end - bytes);
    }
    keep(p, bytes, n);
}

static void end_body(peer *p)
{
    if (p->status == 200)
        read_line(p, p->line, p->filled);
    end_answer(p);
}

/* Take the head off, if it is whole. Returns how many of the bytes belonged to it. */
static size_t read_head(peer *p, const char *bytes, size_t n)
{
    size_t before = p->filled;
    keep(p, bytes, n);
    char *end = strstr(p->line, "\r\n\r\n");
    if (!end)
        return n;
    *end = 0;
    char *length = strcasestr(p->line, "\r\ncontent-length:");
    p->status = strlen(p->line) > 12 ? atoi(p->line + 9) : 0;
    p->part = strcasestr(p->line, "\r\ntransfer-encoding: chunked") ? SIZE : length ? LENGTH : CLOSE;
    p->left = p->part == LENGTH ? strtoul(length + 17, NULL, 10) : 0;
    p->filled = 0;
    if (p->part == LENGTH && !p->left)
        end_body(p);
    return end + 4 - p->line - before;
}

/* One byte of HTTP chunk framing. */
static void read_framing(peer *p, unsigned char byte)
{
    if (p->part == SIZE && isxdigit(byte))
        p->left = p->left * 16 + (isdigit(byte) ? byte - '0' : (byte | 32) - 'a' + 10);
    else if (p->part == SIZE)
        p->part = SIZE_LINE_END;
    if (byte != '\n')
        return;
    if (p->part == CHUNK_LINE_END)
        p->part = SIZE;
    else if (p->part == SIZE_LINE_END)
        p->part = p->left ? CHUNK : TRAILER;
    else /* TRAILER: no gateway sends any, so its first line end is the last. */
        end_body(p);
}

/* Returns how many of the bytes were taken. */
static size_t read_some(peer *p, const char *bytes, size_t n)
{
    size_t taken = p->part == CLOSE || n < p->left ? n : p->left;
    switch (p->part) {
    case HEAD:
        return read_head(p, bytes, n);
    case CHUNK:
    case LENGTH:
    case CLOSE:
        read_body(p, bytes, taken);
        p->left -= p->part == CLOSE ? 0 : taken;
        if (p->part == LENGTH && !p->left)
            end_body(p);
        else if (p->part == CHUNK && !p->left)
            p->part = CHUNK_LINE_END;
        return taken;
    default:
        read_framing(p, *bytes);
        return 1;
    }
}

static void on_readable(watched *self)
{
    static char bytes[READ_BYTES];
    peer *p = (peer *)self;
    ssize_t n = recv(p->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    for (const char *at = bytes, *end = bytes + n; at < end && p->caller->is_busy;)
        at += read_some(p, at, end - at);
    if (n > 0)
        return;
    if (!p->caller->is_busy)
        hang_up(p); /* An idle keep-alive connection may end. */
    else if (p->part == CLOSE)
        end_body(p);
    else
        break_off(p, "a connection closed early");
}

static void ask(call *c)
{
    peer *p = c->peer;
    p->part = HEAD;
    p->filled = p->left = p->status = 0;
    if (p->fd < 0 && (p->fd = connect_to_port(&p->base)) < 0)
        return fail(c, "no connection", strerror(errno), strlen(strerror(errno)));
    if (send(p->fd, request, request_bytes, MSG_NOSIGNAL) != (ssize_t)request_bytes)
        break_off(p, "a request that was not taken");
}

static void prepare(call *calls, int count)
{
    char body[1024];
    int n = snprintf(body, sizeof body, "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]%s}",
                     given.model, given.is_stream ? ",\"stream\":true" : "");
    request_bytes = snprintf(request, sizeof request,
                             "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
                             "accept: */*\r\nuser-agent: bench\r\ncontent-length: %d\r\n%s\r\n%s",
                             given.path, given.port, n, given.headers, body);
    for (int i = 0; i < count; i++) {
        peer *p = calloc(1, sizeof *p);
        *p = (peer){.base = {on_readable}, .caller = &calls[i], .fd = -1};
        calls[i].peer = p;
    }
}

const transport rest_transport = {prepare, ask};
