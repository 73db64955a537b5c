// One exchange, seen from its two ends; both are in this process, so that what one knows the other knows too.
//
//     client.c (struct stream) ──▶ proxy under test ──▶ upstream.c (struct source)
//
// main.c opens and ends streams and is told how they come along.

#pragma once
#include "decode.h"
#include "loop.h"

enum {
    EVENT_BYTES = 240,    // one content event on the wire, its blank line included
    STAMP_LETTERS = 12,   // 48 bits of nanoseconds
    MESSAGE_BYTES = 8192, // the largest head or request
};

struct source { // a connection to the mock upstream; outlives an exchange where the proxy keeps it alive
    struct handler handler;
    bool flooding;
    size_t flood_place, request_used;
    char request[MESSAGE_BYTES];
};

struct stream { // the client's side
    struct handler handler;
    struct source *source;   // the connection on which the proxy asked for this stream
    uint64_t sent, received; // content events
    uint64_t requested_ns;
    enum { IN_HEAD, IN_CHUNK_SIZE, IN_CHUNK, AFTER_CHUNK, IN_TRAILER, COMPLETE } place;
    size_t head_used, chunk_left;
    char head[MESSAGE_BYTES];
    int stamp_letters; // of the stamp read so far, -1 outside a stamp
    uint64_t stamp;
    struct decoder *decoder; // NULL for an identity reply
};

extern struct stream *streams;
extern int opened;

// upstream.c
void listen_for_sources(void);
void send_event(struct stream *); // stamped with the time
void finish(struct stream *);

// client.c
void open_stream(void);
void read_stream(struct stream *); // what has arrived, if anything

// main.c
bool is_flooded(const struct stream *); // its source is to send as much as the connection takes
void stream_began(struct stream *, uint64_t now);        // its first content event arrived
void stream_moved(struct stream *, uint64_t latency_ns); // a later one did
void stream_completed(struct stream *);
