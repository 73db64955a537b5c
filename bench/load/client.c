// The client: asks for a stream and reads its reply.

#define _GNU_SOURCE
#include "exchange.h"
#include "measure.h"
#include "options.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 16 };

static void read_when_ready(struct handler *handler) { read_stream((struct stream *)handler); }

void open_stream(void) {
    int index = opened++;
    struct stream *stream = &streams[index];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(options.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) die("cannot open a socket: %s", strerror(errno));
    int little = 1 << 14; // or the kernel takes megabytes of what nobody reads
    if (options.flood == UNREAD && is_flooded(stream)) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &little, sizeof little);
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
        die("cannot connect to port %d: %s", options.port, strerror(errno));
    prepare_socket(fd);
    stream->handler = (struct handler){read_when_ready, fd};
    stream->stamp_letters = -1;
    watch(&stream->handler);

    char body[512], request[MESSAGE_BYTES], coding[64] = "";
    int size = sprintf(body,
                       "{\"model\":\"mock\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"messages\":["
                       "{\"role\":\"system\",\"content\":\"You are helpful.\"},"
                       "{\"role\":\"user\",\"content\":\"stream #%d of run %d\"}],\"temperature\":0.7,\"max_tokens\":512}",
                       index, getpid());
    if (options.coding) snprintf(coding, sizeof coding, "Accept-Encoding: %s\r\n", options.coding);
    size = sprintf(request,
                   "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                   "Authorization: Bearer sk-bench\r\nAccept: text/event-stream\r\n%s%sContent-Length: %d\r\n\r\n%s",
                   options.port, coding, options.headers, size, body);
    stream->requested_ns = now_ns();
    send_all(fd, request, size);
}

static void event_arrived(struct stream *stream, uint64_t now) {
    uint64_t mask = (1ull << (4 * STAMP_LETTERS)) - 1;
    if (stream->received++ > 0) {
        stream_moved(stream, (now - stream->stamp) & mask);
        return;
    }
    stream_began(stream, now);
    if (options.flood == UNREAD && is_flooded(stream)) watch_no_more(&stream->handler);
}

static void read_text(void *context, const char *text, size_t size) {
    struct stream *stream = context;
    for (const char *end = text + size; text < end;) {
        if (stream->stamp_letters < 0) {
            text = memchr(text, '~', end - text);
            if (!text) return;
            text++;
            stream->stamp_letters = 0;
            stream->stamp = 0;
        } else {
            stream->stamp = stream->stamp << 4 | (uint64_t)(*text++ - 'a');
            if (++stream->stamp_letters == STAMP_LETTERS) {
                stream->stamp_letters = -1;
                event_arrived(stream, now_ns());
            }
        }
    }
}

static void read_body(struct stream *stream, const char *data, size_t size) {
    bytes_arrived += size;
    if (stream->decoder) decode(stream->decoder, data, size, read_text, stream);
    else read_text(stream, data, size);
}

static void read_head(struct stream *stream) {
    if (strncmp(stream->head, "HTTP/1.1 200 ", 13) || !strcasestr(stream->head, "\r\nTransfer-Encoding: chunked"))
        die("expected a chunked reply with status 200, got:\n%s", stream->head);
    const char *coding = strcasestr(stream->head, "\r\nContent-Encoding: ");
    if (!coding != !options.coding || (coding && strncmp(coding + 20, options.coding, strlen(options.coding))))
        die("expected the coding %s, got:\n%s", options.coding ? options.coding : "identity", stream->head);
    if (coding) stream->decoder = decoder_for(options.coding);
}

// The reply's bytes, cut anywhere. Only as much of RFC 9112 §7.1 as is needed to find the body.
static void read_reply(struct stream *stream, const char *data, size_t size) {
    for (const char *end = data + size; data < end;) {
        switch (stream->place) {
        case IN_HEAD:
            if (stream->head_used == sizeof stream->head - 1) die("a reply head is over %d bytes", MESSAGE_BYTES);
            stream->head[stream->head_used++] = *data++;
            if (stream->head_used >= 4 && !memcmp(stream->head + stream->head_used - 4, "\r\n\r\n", 4)) {
                read_head(stream);
                stream->place = IN_CHUNK_SIZE;
            }
            break;
        case IN_CHUNK_SIZE: {
            char c = *data++;
            if (c == '\n') stream->place = stream->chunk_left ? IN_CHUNK : IN_TRAILER;
            else if (c != '\r')
                stream->chunk_left = 16 * stream->chunk_left + (c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
            break;
        }
        case IN_CHUNK: {
            size_t part = (size_t)(end - data) < stream->chunk_left ? (size_t)(end - data) : stream->chunk_left;
            read_body(stream, data, part);
            data += part;
            stream->chunk_left -= part;
            if (!stream->chunk_left) stream->place = AFTER_CHUNK;
            break;
        }
        case AFTER_CHUNK:
            if (*data++ == '\n') stream->place = IN_CHUNK_SIZE;
            break;
        case IN_TRAILER: // no trailer fields here: the first line is the empty one
            if (*data++ == '\n') {
                stream->place = COMPLETE;
                stream_completed(stream);
            }
            break;
        case COMPLETE: die("data after the end of a reply");
        }
    }
}

void read_stream(struct stream *stream) {
    static char data[READ_BYTES];
    ssize_t got = read(stream->handler.fd, data, sizeof data);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) die("a reply broke off after %llu events", (unsigned long long)stream->received);
    read_reply(stream, data, got);
}
