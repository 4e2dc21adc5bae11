/*
 * trunkline.v1.CompletionService over gRPC: callers share a few HTTP/2 connections, as those of a few services would.
 *
 * Only the HTTP/2 that a load client needs: headers are sent from the dynamic table after the first request, as client
 * libraries do; received headers are not decoded. An answer is known to be whole by its messages: the contract sends
 * StreamCompleted, or the one unary message, only before the status OK. Windows are as wide as the protocol allows and
 * topped up once per half, so that flow control costs neither side anything.
 */
#include "load.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 512 * 1024, MESSAGE_BYTES = 64 * 1024, STREAMS = 4096, FRAME_HEAD = 9, MESSAGE_HEAD = 5 };
enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };
static const int32_t WINDOW = INT32_MAX, WINDOW_DEFAULT = 65535;

typedef struct {
    watched base;
    int fd; /* -1: not connected */
    uint32_t next_stream;
    int64_t unacknowledged_bytes;
    struct stream *streams[STREAMS]; /* by (id / 2) % STREAMS */
    size_t filled;                   /* bytes of a frame that is not complete, in `bytes` */
    uint8_t bytes[READ_BYTES];
} channel;

typedef struct stream {
    call *caller;
    channel *channel;
    uint32_t id;
    size_t filled; /* bytes of a gRPC message that is not complete, in `bytes` */
    uint8_t bytes[MESSAGE_BYTES];
} stream;

static uint8_t message[256], first_headers[256], later_headers[16];
static size_t message_bytes, first_headers_bytes, later_headers_bytes;

/* -- protobuf -- */

typedef struct {
    const uint8_t *at, *end;
} span;

static uint64_t take_varint(span *s)
{
    uint64_t value = 0;
    for (int shift = 0; s->at < s->end && shift < 64; shift += 7) {
        value |= (uint64_t)(*s->at & 127) << shift;
        if (!(*s->at++ & 128))
            break;
    }
    return value;
}

/* The first field of that number, of bytes, string or message type; `at` is NULL if there is none. */
static span field(span s, uint32_t number)
{
    while (s.at && s.at < s.end) {
        uint64_t tag = take_varint(&s), size = 0;
        if ((tag & 7) == 0)
            take_varint(&s);
        else
            size = (tag & 7) == 1 ? 8 : (tag & 7) == 5 ? 4 : take_varint(&s);
        if (size > (uint64_t)(s.end - s.at))
            break;
        if ((tag & 7) == 2 && tag >> 3 == number)
            return (span){s.at, s.at + size};
        s.at += size;
    }
    return (span){NULL, NULL};
}

static void read_message(call *c, span m)
{
    span text = given.is_stream ? field(field(m, 8), 3)                                   /* text_delta.text */
                                : field(field(field(field(field(m, 1), 4), 2), 2), 1);    /* completion.choices[0] */
    if (text.at && text.end > text.at)                                                    /* .message.parts[0].text */
        take_text(c, text.end - text.at);
    c->is_completed |= !given.is_stream || field(m, 17).at; /* completed */
}

/* Put a field of bytes, string or message type, shorter than 128 bytes, around what `inner` holds. */
static size_t wrap(uint8_t *out, int number, const void *inner, size_t size)
{
    memmove(out + 2, inner, size);
    out[0] = number << 3 | 2;
    out[1] = size;
    return size + 2;
}

/* CompleteRequest and CompleteUnaryRequest alike: spec {model, messages {role: ROLE_USER, parts {text: "hi"}}}. */
static void write_message(void)
{
    uint8_t turn[64] = {1 << 3, 3}, part[16], spec[200];
    size_t n = wrap(turn + 2, 2, part, wrap(part, 1, "hi", 2)) + 2;
    size_t model_bytes = wrap(spec, 1, given.model, strnlen(given.model, 60));
    n = model_bytes + wrap(spec + model_bytes, 2, turn, n);
    n = wrap(message + MESSAGE_HEAD, 1, spec, n);
    message[4] = n;
    message_bytes = n + MESSAGE_HEAD;
}

/* -- HPACK, sending only -- */

/* A literal that enters the dynamic table, its name from the static table, or new where `index` is 0. */
static void put_header(int index, const char *name, const char *value)
{
    uint8_t *out = first_headers + first_headers_bytes;
    *out++ = 0x40 | index;
    if (!index)
        out += sprintf((char *)out, "%c%s", (int)strlen(name), name);
    out += sprintf((char *)out, "%c%s", (int)strlen(value), value);
    first_headers_bytes = out - first_headers;
}

static void write_headers(void)
{
    char authority[32];
    sprintf(authority, "127.0.0.1:%d", given.port);
    first_headers[0] = later_headers[0] = 0x83; /* :method POST */
    first_headers[1] = later_headers[1] = 0x86; /* :scheme http */
    first_headers_bytes = later_headers_bytes = 2;
    put_header(4, ":path", given.is_stream ? "/trunkline.v1.CompletionService/Complete"
                                           : "/trunkline.v1.CompletionService/CompleteUnary");
    put_header(1, ":authority", authority);
    put_header(0, "te", "trailers");
    put_header(31, "content-type", "application/grpc");
    put_header(58, "user-agent", "bench");
    for (int newest = 62, entry = newest + 4; entry >= newest; entry--)
        later_headers[later_headers_bytes++] = 0x80 | entry;
}

/* -- frames -- */

static size_t put_frame(uint8_t *out, size_t size, int type, int flags, uint32_t id, const void *payload)
{
    uint8_t head[FRAME_HEAD] = {size >> 16, size >> 8, size, type, flags, id >> 24, id >> 16, id >> 8, id};
    memcpy(out, head, FRAME_HEAD);
    memcpy(out + FRAME_HEAD, payload, size);
    return FRAME_HEAD + size;
}

static size_t put_number(uint8_t *out, int type, uint32_t value)
{
    return put_frame(out, 4, type, 0, 0, (uint8_t[4]){value >> 24, value >> 16, value >> 8, value});
}

static int send_all(channel *ch, const uint8_t *bytes, size_t n)
{
    return send(ch->fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static void end_stream(stream *s)
{
    s->channel->streams[s->id / 2 % STREAMS] = NULL;
    s->id = 0;
}

static void break_off(channel *ch, const char *reason)
{
    close(ch->fd);
    ch->fd = -1;
    for (int i = 0; i < STREAMS; i++)
        if (ch->streams[i]) {
            call *c = ch->streams[i]->caller;
            end_stream(ch->streams[i]);
            fail(c, reason, "", 0);
        }
}

/* Bytes of one stream, HTTP/2 framing taken off: whole messages are read, the rest is kept. */
static void read_data(stream *s, const uint8_t *bytes, size_t n)
{
    if (n > MESSAGE_BYTES - s->filled)
        return break_off(s->channel, "a message that is too long");
    memcpy(s->bytes + s->filled, bytes, n);
    s->filled += n;
    uint8_t *at = s->bytes, *end = s->bytes + s->filled;
    while (end - at >= MESSAGE_HEAD) {
        size_t size = (size_t)at[1] << 24 | at[2] << 16 | at[3] << 8 | at[4];
        if (size > (size_t)(end - at - MESSAGE_HEAD))
            break;
        at += MESSAGE_HEAD;
        read_message(s->caller, (span){at, at + size});
        at += size;
    }
    s->filled = end - at;
    memmove(s->bytes, at, s->filled);
}

static void read_frame(channel *ch, int type, int flags, uint32_t id, const uint8_t *payload, size_t n)
{
    uint8_t out[64];
    stream *s = ch->streams[id / 2 % STREAMS];
    if (s && s->id != id)
        s = NULL;
    if (type == SETTINGS && !(flags & ACK))
        send_all(ch, out, put_frame(out, 0, SETTINGS, ACK, 0, ""));
    else if (type == PING && !(flags & ACK))
        send_all(ch, out, put_frame(out, n, PING, ACK, 0, payload));
    else if (type == GOAWAY)
        break_off(ch, "GOAWAY");
    else if (type == RST_STREAM && s) {
        end_stream(s);
        fail(s->caller, "RST_STREAM", "", 0);
    } else if (type == DATA) {
        ch->unacknowledged_bytes += n;
        if (ch->unacknowledged_bytes > WINDOW / 2) {
            send_all(ch, out, put_number(out, WINDOW_UPDATE, ch->unacknowledged_bytes));
            ch->unacknowledged_bytes = 0;
        }
        if (s)
            read_data(s, payload, n);
    } else if (type == HEADERS && s && (flags & END_STREAM)) {
        end_stream(s);
        if (s->caller->is_completed)
            finish(s->caller);
        else /* The status and its message stand in there, unless they are compressed. */
            fail(s->caller, "a status other than OK", (const char *)payload, n);
    }
}

static void on_readable(watched *self)
{
    channel *ch = (channel *)self;
    ssize_t n = recv(ch->fd, ch->bytes + ch->filled, READ_BYTES - ch->filled, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        return break_off(ch, "a connection closed early");
    const uint8_t *at = ch->bytes, *end = ch->bytes + ch->filled + n;
    while (end - at >= FRAME_HEAD && ch->fd >= 0) {
        size_t size = at[0] << 16 | at[1] << 8 | at[2];
        if (size > (size_t)(end - at - FRAME_HEAD))
            break;
        uint32_t id = (at[5] & 127u) << 24 | at[6] << 16 | at[7] << 8 | at[8];
        read_frame(ch, at[3], at[4], id, at + FRAME_HEAD, size);
        at += FRAME_HEAD + size;
    }
    ch->filled = end - at;
    memmove(ch->bytes, at, ch->filled);
}

static int connect_channel(channel *ch)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    static const uint8_t initial_window[] = {0, 4, 0x7f, 0xff, 0xff, 0xff};
    uint8_t out[128];
    if ((ch->fd = connect_to_port(&ch->base)) < 0)
        return 0;
    ch->next_stream = 1;
    ch->filled = ch->unacknowledged_bytes = 0;
    size_t n = sizeof preface - 1;
    memcpy(out, preface, n);
    n += put_frame(out + n, sizeof initial_window, SETTINGS, 0, 0, initial_window);
    n += put_number(out + n, WINDOW_UPDATE, WINDOW - WINDOW_DEFAULT);
    return send_all(ch, out, n);
}

static void ask(call *c)
{
    stream *s = c->peer;
    channel *ch = s->channel;
    uint8_t out[1024];
    if (ch->fd < 0 && !connect_channel(ch))
        return fail(c, "no connection", strerror(errno), strlen(strerror(errno)));
    while (ch->streams[ch->next_stream / 2 % STREAMS]) /* A stream that lives long holds its place. */
        ch->next_stream += 2;
    int is_first = ch->next_stream == 1;
    s->id = ch->next_stream;
    s->filled = 0;
    ch->next_stream += 2;
    ch->streams[s->id / 2 % STREAMS] = s;
    size_t n = is_first ? put_frame(out, first_headers_bytes, HEADERS, END_HEADERS, s->id, first_headers)
                        : put_frame(out, later_headers_bytes, HEADERS, END_HEADERS, s->id, later_headers);
    n += put_frame(out + n, message_bytes, DATA, END_STREAM, s->id, message);
    if (!send_all(ch, out, n))
        break_off(ch, "a request that was not taken");
}

static void prepare(call *calls, int count)
{
    channel *channels = calloc(given.channels, sizeof *channels);
    write_message();
    write_headers();
    for (int i = 0; i < given.channels; i++) {
        channels[i].base = (watched){on_readable};
        channels[i].fd = -1;
    }
    for (int i = 0; i < count; i++) {
        stream *s = calloc(1, sizeof *s);
        s->caller = &calls[i];
        s->channel = &channels[i % given.channels];
        calls[i].peer = s;
    }
}

const transport grpc_transport = {prepare, ask};
