// Mock model server and load generator in one single-threaded process, on one clock.
//
// "Sent" and "arrived" are read from the same clock on the same core, so everything between the two is the kernel and the
// proxy under test. Each content event carries the time at which it was written, the client side finds it there.
//
// This file is the course of a measurement: when streams are opened, sent events and ended. Its modes, one measurement
// per process; the result is one JSON object on stdout:
//     paced      every stream gets `rate` events a second, phases random but the same in every run; with --base-streams,
//                memory is looked at with so many streams open and with all
//     saturated  every stream has one event in flight: the next is sent when the last one arrived
//     serial     one exchange at a time, on connections of their own: time to first token and CPU per exchange
//     flood      all streams but the last get as much as their connections take; the last one is paced. With --flood that is
//                events as ever, tiny ones in large chunks, events of a megabyte, single bytes, or events that nobody reads
//
// What cannot be measured honestly (bad status, lost events, a stream that ends early) ends the process with status 1.

#define _GNU_SOURCE
#include "exchange.h"
#include "measure.h"
#include "options.h"
#include <stdlib.h>
#include <unistd.h>

enum {
    RAMP = 32,              // exchanges begun but not yet answered: stays below every server's listen backlog
    WARM_UP_EXCHANGES = 20, // of serial mode: connection pools and caches fill
};
// What takes longer is broken.
static const double OPENING_S = 30, FLOOD_OPENING_S = 10, ENDING_S = 5;

struct stream *streams;
int opened;
static int goal; // so many streams are to be opened for now
static int begun, completed;
static enum { OPENING, SETTLING, WARMING, WINDOW, ENDING, OVER } stage;
static uint64_t stage_ends_ns;

bool is_flooded(const struct stream *stream) {
    return options.mode == FLOOD && stream != &streams[options.streams - 1];
}

// ---- what is sent by the clock

static uint64_t period_ns, first_due_ns, planned; // number `planned` of all events is the next
static int beat_count;
static struct beat {
    uint64_t phase_ns;
    int stream;
} *beats;

static int by_phase(const void *a, const void *b) {
    uint64_t x = ((const struct beat *)a)->phase_ns, y = ((const struct beat *)b)->phase_ns;
    return (x > y) - (x < y);
}

static void plan_beats(void) {
    period_ns = NS_PER_S / options.rate;
    beats = room_for(options.streams, sizeof *beats);
    srandom(1); // random phases overlap as those of real streams do; the seed makes every run the same
    for (int i = 0; i < options.streams; i++)
        if (!is_flooded(&streams[i])) beats[beat_count++] = (struct beat){random() % period_ns, i};
    qsort(beats, beat_count, sizeof *beats, by_phase);
}

static bool is_paced(void) {
    return (options.mode == PACED || options.mode == FLOOD) && (stage == WARMING || stage == WINDOW);
}

static uint64_t next_due_ns(void) {
    return first_due_ns + planned / beat_count * period_ns + beats[planned % beat_count].phase_ns;
}

static void send_due(uint64_t now) {
    for (; next_due_ns() <= now; planned++) {
        if (stage == WINDOW) sample(&lag, now_ns() - next_due_ns());
        send_event(&streams[beats[planned % beat_count].stream]);
    }
}

// An event that has not arrived by the end of the window has waited at least so long. All but a stream's first event are
// sent by the clock, which tells when the oldest one that is missing was due.
static void sample_outstanding(void) {
    const struct stream *last = &streams[options.streams - 1];
    uint64_t due_ns = first_due_ns + (last->received - 1) * period_ns + beats[0].phase_ns, now = now_ns();
    if (last->received < last->sent) sample(&latency, now - due_ns);
}

// ---- the stages

static void enter(int next, double seconds) {
    stage = next;
    stage_ends_ns = now_ns() + (uint64_t)(seconds * NS_PER_S);
}

static void open_up_to(int count) {
    goal = count;
    enter(OPENING, options.mode == FLOOD ? FLOOD_OPENING_S : OPENING_S);
    int ramp = options.mode == SERIAL ? 1 : RAMP;
    for (int i = 0; i < ramp && opened < goal; i++) open_stream();
}

static void all_began(struct stream *last, uint64_t now) {
    if (goal < options.streams) {
        enter(SETTLING, options.warm_s);
    } else {
        enter(WARMING, options.warm_s);
        first_due_ns = now;
        if (options.mode == SATURATED) // this event's own successor is sent by stream_began
            for (int i = 0; i < options.streams; i++)
                if (&streams[i] != last) send_event(&streams[i]);
    }
    wake_at(now);
}

static void window_over(void) {
    window_ends();
    if (options.base_streams) memory_at_top();
    enter(ENDING, ENDING_S);
    if (options.mode == FLOOD) { // there is no end to wait for: what is on the way is without bounds
        sample_outstanding();
        stage = OVER;
        return;
    }
    for (int i = 0; i < options.streams; i++) finish(&streams[i]);
}

// A flood may starve new streams for as long as anybody cares to look: then they have waited at least so long.
static void sample_starved(void) {
    uint64_t now = now_ns();
    for (int i = 0; i < opened; i++)
        if (!streams[i].received) sample(&ttft, now - streams[i].requested_ns);
    window_begins();
    window_ends();
    stage = OVER;
}

static void stage_over(void) {
    switch (stage) {
    case OPENING:
        if (options.mode != FLOOD) die("only %d of %d streams began in %.0f s", begun, goal, OPENING_S);
        sample_starved();
        break;
    case SETTLING:
        memory_at_base();
        open_up_to(options.streams);
        break;
    case WARMING:
        window_begins();
        enter(WINDOW, options.seconds);
        break;
    case WINDOW: window_over(); break;
    case ENDING: die("only %d of %d streams ended in %.0f s", completed, options.streams, ENDING_S);
    case OVER: break;
    }
}

static void serial_step(void) { // in turn: end the exchange that is open, begin the next one
    struct stream *current = &streams[opened - 1];
    if (current->place != COMPLETE) finish(current);
    else open_stream();
}

static void timer_ready(struct handler *handler) {
    uint64_t expirations, now = now_ns();
    if (read(handler->fd, &expirations, sizeof expirations) < 0) return;
    if (options.mode == SERIAL && now < stage_ends_ns) {
        serial_step();
        wake_at(stage_ends_ns);
        return;
    }
    if (now >= stage_ends_ns) stage_over();
    uint64_t wake_ns = stage_ends_ns;
    if (is_paced()) {
        send_due(now);
        if (next_due_ns() < wake_ns) wake_ns = next_due_ns();
    }
    wake_at(wake_ns);
}

// Between the floods, so that the last stream's latency is the proxy's and not this program's own turn.
static void look_after_the_last(void) {
    struct stream *last = &streams[options.streams - 1];
    if (last->handler.fd > 0) read_stream(last);
    if (is_paced()) send_due(now_ns());
}

// ---- what the two ends tell

void stream_began(struct stream *stream, uint64_t now) {
    begun++;
    if (options.mode == SERIAL) {
        if (begun > WARM_UP_EXCHANGES) sample(&ttft, now - stream->requested_ns);
        wake_at(now + NS_PER_MS); // its end must not run into its beginning
        return;
    }
    sample(&ttft, now - stream->requested_ns);
    if (opened < goal) open_stream();
    else if (begun == goal) all_began(stream, now);
    if (options.mode == SATURATED && stage == WARMING) send_event(stream);
}

void stream_moved(struct stream *stream, uint64_t latency_ns) {
    events_arrived++;
    if (stage == WINDOW) sample(&latency, latency_ns);
    if (options.mode == SATURATED && (stage == WARMING || stage == WINDOW)) send_event(stream);
}

void stream_completed(struct stream *stream) {
    if (stage != ENDING && options.mode != SERIAL) die("a reply ended too early");
    if (stream->sent != stream->received)
        die("%llu events were sent, %llu arrived", (unsigned long long)stream->sent,
            (unsigned long long)stream->received);
    hang_up(&stream->handler);
    completed++;
    if (options.mode == SERIAL) {
        events_arrived++; // the exchanges are what counts here
        if (completed == WARM_UP_EXCHANGES) window_begins();
        if (completed == options.streams) window_ends();
        else wake_at(now_ns() + NS_PER_MS); // time for the proxy to clean up, as between the requests of a person
    }
    if (completed == options.streams) stage = OVER;
}

int main(int count, char **values) {
    read_options(count, values);
    streams = room_for(options.streams, sizeof *streams);
    loop_begin(timer_ready);
    listen_for_sources();
    plan_beats();
    open_up_to(options.base_streams ? options.base_streams : options.streams);
    wake_at(stage_ends_ns);
    while (stage != OVER) loop_turn(options.mode == FLOOD ? look_after_the_last : NULL);
    print_result();
    return 0;
}
