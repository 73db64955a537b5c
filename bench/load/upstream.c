// The mock model server: answers every request with an OpenAI chat completion in server-sent events.

#define _GNU_SOURCE
#include "exchange.h"
#include "options.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// A stamp is 12 letters, so that no policy under test takes it for a number to redact; the tilde occurs nowhere else. The
// word behind it is what redaction may have to hold until the next event: as in a real stream, text ends within a word.
#define CHUNK_HEAD                                                                                                     \
    "data: {\"id\":\"chatcmpl-7f3a9c1e5\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,"                \
    "\"model\":\"mock\",\"system_fingerprint\":\"fp_44709d6f\",\"choices\":[{\"index\":0,\"delta\":"
#define CHUNK_TAIL "}]}\n\n"
#define CONTENT(text) CHUNK_HEAD "{\"content\":\"" text "\"},\"logprobs\":null,\"finish_reason\":null" CHUNK_TAIL
static const char STAMPED[] = CONTENT(" ~aaaaaaaaaaaa so");
static const char UNSTAMPED[] = CONTENT(" as much as fits so");
_Static_assert(sizeof STAMPED - 1 == EVENT_BYTES, "the content event has to have the size that it says");

static const char ROLE[] = CHUNK_HEAD "{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null" CHUNK_TAIL;
static const char FINISH[] = CHUNK_HEAD "{},\"finish_reason\":\"stop\"" CHUNK_TAIL;
static const char DONE[] = "data: [DONE]\n\n";
static const char REPLY_HEAD[] = "HTTP/1.1 200 OK\r\nServer: mock\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                                 "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";

static const char TINY[] = "data: {}\n\n";
enum { FLOOD_EVENTS = 64, TINY_EVENTS = 8192, HUGE_TEXT_BYTES = 1000000 }; // an event may have 1 MiB

static int http_chunk(char *out, const char *data) { return sprintf(out, "%zx\r\n%s\r\n", strlen(data), data); }

void send_event(struct stream *stream) {
    static char event[EVENT_BYTES + 16];
    static char *letters;
    static size_t size;
    if (!size) {
        size = http_chunk(event, STAMPED);
        letters = strchr(event, '~') + 1;
    }
    uint64_t stamp = now_ns();
    for (int i = STAMP_LETTERS - 1; i >= 0; i--, stamp >>= 4) letters[i] = 'a' + (stamp & 15);
    stream->sent++;
    send_all(stream->source->handler.fd, event, size);
}

void finish(struct stream *stream) {
    char data[1024];
    int size = http_chunk(data, FINISH);
    size += http_chunk(data + size, DONE);
    size += sprintf(data + size, "0\r\n\r\n");
    send_all(stream->source->handler.fd, data, size);
}

// What a flood sends again and again: HTTP chunks.
static size_t make_flood(char *out) {
    char *const begin = out;
    switch (options.flood) {
    case OF_TINY_EVENTS:
        out += sprintf(out, "%zx\r\n", TINY_EVENTS * (sizeof TINY - 1));
        for (int i = 0; i < TINY_EVENTS; i++) out = stpcpy(out, TINY);
        out = stpcpy(out, "\r\n");
        break;
    case OF_HUGE_EVENTS: {
        char *event = room_for(1, HUGE_TEXT_BYTES + MESSAGE_BYTES);
        char *end = stpcpy(event, CHUNK_HEAD "{\"content\":\"");
        while (end < event + HUGE_TEXT_BYTES) end = stpcpy(end, " as much as fits so");
        stpcpy(end, "\"},\"logprobs\":null,\"finish_reason\":null" CHUNK_TAIL);
        out += http_chunk(out, event);
        free(event);
        break;
    }
    default:
        for (int i = 0; i < FLOOD_EVENTS; i++) out += http_chunk(out, UNSTAMPED);
    }
    return out - begin;
}

static void flood(struct source *source) {
    static char *data;
    static size_t size;
    if (!data) {
        data = room_for(1, HUGE_TEXT_BYTES + 2 * MESSAGE_BYTES);
        size = make_flood(data);
    }
    size_t part = options.flood == OF_BYTES ? 1 : size - source->flood_place;
    ssize_t taken = send(source->handler.fd, data + source->flood_place, part, MSG_NOSIGNAL);
    if (taken > 0) source->flood_place = (source->flood_place + taken) % size;
    else if (errno != EAGAIN) die("the proxy broke off a flooding stream: %s", strerror(errno));
}

static bool is_whole(const char *request) {
    const char *body = strstr(request, "\r\n\r\n");
    if (!body) return false;
    body += 4;
    const char *length = strcasestr(request, "\r\nContent-Length:");
    if (length && length < body) return strlen(body) >= strtoul(length + 17, NULL, 10);
    return strstr(body, "0\r\n\r\n") != NULL; // chunked
}

static void answer(struct source *source) {
    const char *words = strstr(source->request, "stream #");
    int index, run;
    if (!words || sscanf(words, "stream #%d of run %d", &index, &run) != 2 || index < 0)
        die("the upstream got a request that is none of ours:\n%s", source->request);
    if (run != getpid()) { // left over from a measurement that failed
        hang_up(&source->handler);
        return;
    }
    if (index >= opened) die("the upstream got a request that was never made:\n%s", source->request);
    struct stream *stream = &streams[index];
    stream->source = source;
    char data[MESSAGE_BYTES];
    int size = sprintf(data, "%s", REPLY_HEAD);
    size += http_chunk(data + size, ROLE);
    send_all(source->handler.fd, data, size);
    send_event(stream);
    if (is_flooded(stream)) {
        source->flooding = true;
        watch_writable_too(&source->handler);
    }
}

static void source_ready(struct handler *handler) {
    struct source *source = (struct source *)handler;
    if (source->flooding) flood(source);
    ssize_t got =
        read(handler->fd, source->request + source->request_used, sizeof source->request - 1 - source->request_used);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
        hang_up(handler);
        return;
    }
    source->request_used += got;
    source->request[source->request_used] = 0;
    if (is_whole(source->request)) {
        source->request_used = 0;
        answer(source);
    } else if (source->request_used == sizeof source->request - 1) {
        die("the upstream got a request of more than %d bytes", MESSAGE_BYTES);
    }
}

static void listener_ready(struct handler *handler) {
    int fd = accept(handler->fd, NULL, NULL);
    if (fd < 0) {
        if (errno == EMFILE) die("too many open files: raise the limit (ulimit -n)");
        return;
    }
    prepare_socket(fd);
    struct source *source = room_for(1, sizeof *source);
    source->handler = (struct handler){source_ready, fd};
    watch(&source->handler);
}

void listen_for_sources(void) {
    static struct handler listener;
    listener = (struct handler){listener_ready, options.listen_fd};
    fcntl(listener.fd, F_SETFL, O_NONBLOCK);
    watch(&listener);
}
