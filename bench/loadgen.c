// Mock model server and load generator in one single-threaded process, on one clock.
//
// "Sent" and "arrived" are read from the same clock on the same core, so everything between the two is the kernel and the
// proxy under test. The mock upstream answers every request with an OpenAI chat completion in server-sent events; each
// content event carries the time at which it was written, the client side finds it there.
//
//     client side (struct stream) ──▶ proxy under test ──▶ mock upstream (struct source)
//
// Three modes, each one measurement per process; the result is one JSON object on stdout:
//     paced      every stream gets `rate` events a second, phases random but the same in every run
//     saturated  every stream has one event in flight: the next is sent when the last one arrived
//     serial     one exchange at a time, on connections of their own: time to first token and CPU per exchange
//
// Objects are never freed: the process is short, and an epoll event already fetched can then never name a dead object.
// What cannot be measured honestly (bad status, lost events, a stream that ends early) ends the process with status 1.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#ifdef WITH_ZLIB
#include <zlib.h>
#endif

#define NS_PER_S 1000000000ull
#define NS_PER_MS 1000000ull

enum {
    EVENT_BYTES = 240,    // one content event on the wire, its blank line included
    STAMP_LETTERS = 12,   // 48 bits of nanoseconds
    MESSAGE_BYTES = 4096, // the largest head or request
    READ_BYTES = 1 << 16,
    RAMP = 32,              // exchanges begun but not yet answered: stays below every server's listen backlog
    WARM_UP_EXCHANGES = 20, // of serial mode: connection pools and caches fill
    MAX_PIDS = 64,
};
// What takes longer is broken.
static const double OPENING_S = 30, ENDING_S = 5;

static struct {
    enum { PACED, SATURATED, SERIAL } mode;
    int listen_fd; // bound and listening: the mock upstream's
    int port;      // of the proxy under test, on loopback
    int streams;   // in serial mode: exchanges
    double rate;   // events a second and stream
    double warm_s, seconds;
    char headers[1024]; // extra request header lines
    int pids[MAX_PIDS]; // whose CPU time is measured
    int pid_count;
} options = {.listen_fd = -1, .streams = 100, .rate = 50, .warm_s = 0.5, .seconds = 2};

_Noreturn static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}
static uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

// ---- the event loop: whatever epoll watches begins with a handler

struct handler {
    void (*ready)(struct handler *);
    int fd; // -1 once closed
};

static int epoll_fd;
static struct handler timer;

static void watch(struct handler *handler) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = handler};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, handler->fd, &event)) die("epoll_ctl: %s", strerror(errno));
}

static void hang_up(struct handler *handler) {
    close(handler->fd);
    handler->fd = -1;
}

static void wake_at(uint64_t when_ns) { // a timerfd, because epoll_wait knows only milliseconds
    struct itimerspec when = {.it_value = {.tv_sec = when_ns / NS_PER_S, .tv_nsec = when_ns % NS_PER_S}};
    timerfd_settime(timer.fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void prepare_socket(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

// A paced event must go out whole and now. A socket that does not take it has megabytes queued: the proxy is stuck.
static void send_all(int fd, const char *data, size_t size) {
    if (send(fd, data, size, MSG_NOSIGNAL) != (ssize_t)size) die("a connection took no more data: %s", strerror(errno));
}

// ---- what is measured

struct samples {
    uint32_t *values_ns;
    size_t used, room;
};

// `lag` is how much later than planned an event was sent: the generator's own fault.
static struct samples latency, ttft, lag;
static uint64_t window_events, window_bytes;
static int coded_streams;

static void sample(struct samples *samples, uint64_t value_ns) {
    if (samples->used == samples->room) {
        samples->room = samples->room ? 2 * samples->room : 1 << 16;
        samples->values_ns = realloc(samples->values_ns, samples->room * sizeof *samples->values_ns);
        if (!samples->values_ns) die("out of memory");
    }
    samples->values_ns[samples->used++] = value_ns < UINT32_MAX ? value_ns : UINT32_MAX;
}

struct cpu_time {
    uint64_t used_ns, waited_ns; // waited: could have run, but somebody else had the core
};

// /proc/PID/task/*/schedstat counts nanoseconds, /proc/PID/stat only whole ticks.
static void add_cpu_time(struct cpu_time *total, int pid) {
    char path[400];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    if (!tasks) die("process %d is gone", pid);
    for (struct dirent *task; (task = readdir(tasks));) {
        snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", pid, task->d_name);
        FILE *file = task->d_name[0] == '.' ? NULL : fopen(path, "r");
        unsigned long long used, waited;
        if (file && fscanf(file, "%llu %llu", &used, &waited) == 2) {
            total->used_ns += used;
            total->waited_ns += waited;
        }
        if (file) fclose(file);
    }
    closedir(tasks);
}

static struct window {
    uint64_t now_ns;
    struct cpu_time proxy, own;
} began, ended;

static struct window look(void) {
    struct window window = {0};
    for (int i = 0; i < options.pid_count; i++) add_cpu_time(&window.proxy, options.pids[i]);
    add_cpu_time(&window.own, getpid());
    window.now_ns = now_ns();
    return window;
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void print_percentiles(const char *name, struct samples *samples) {
    size_t n = samples->used;
    const uint32_t *v = samples->values_ns;
    if (!n) return;
    qsort(samples->values_ns, n, sizeof *v, ascending);
    printf("\"%s\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f},", name, v[n / 2] / 1e3, v[n * 9 / 10] / 1e3,
           v[n * 99 / 100] / 1e3, v[n - 1] / 1e3);
}

static void print_result(void) {
    double wall_ns = ended.now_ns - began.now_ns;
    printf("{");
    print_percentiles("latency_us", &latency);
    print_percentiles("ttft_us", &ttft);
    print_percentiles("lag_us", &lag);
    printf("\"events\":%llu,\"bytes\":%llu,\"seconds\":%.4f,\"cpu_ns\":%llu,\"waited\":%.4f,\"own_busy\":%.4f,"
           "\"own_waited\":%.4f,\"coded_streams\":%d}\n",
           (unsigned long long)window_events, (unsigned long long)window_bytes, wall_ns / NS_PER_S,
           (unsigned long long)(ended.proxy.used_ns - began.proxy.used_ns),
           (ended.proxy.waited_ns - began.proxy.waited_ns) / wall_ns, (ended.own.used_ns - began.own.used_ns) / wall_ns,
           (ended.own.waited_ns - began.own.waited_ns) / wall_ns, coded_streams);
}

// ---- one exchange, seen from its two ends

struct source { // a connection to the mock upstream; outlives an exchange where the proxy keeps it alive
    struct handler handler;
    size_t request_used;
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
#ifdef WITH_ZLIB
    z_stream *inflate; // NULL for an identity reply
#endif
};

static struct stream *streams;
static int opened, begun, completed;
static enum { OPENING, WARMING, WINDOW, ENDING } stage;

// ---- mock upstream

// 12 letters, so that no policy under test takes a stamp for a number to redact; the tilde occurs nowhere else.
#define CHUNK_HEAD                                                                                                     \
    "data: {\"id\":\"chatcmpl-7f3a9c1e5b2d\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,"             \
    "\"model\":\"mock\",\"system_fingerprint\":\"fp_44709d6f\",\"choices\":[{\"index\":0,\"delta\":"
#define CHUNK_TAIL "}]}\n\n"
#define STAMPED CHUNK_HEAD "{\"content\":\" ~aaaaaaaaaaaa\"},\"logprobs\":null,\"finish_reason\":null" CHUNK_TAIL
_Static_assert(sizeof STAMPED - 1 == EVENT_BYTES, "the content event has to have the size that it says");

static const char *ROLE = CHUNK_HEAD "{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null" CHUNK_TAIL;
static const char *FINISH = CHUNK_HEAD "{},\"finish_reason\":\"stop\"" CHUNK_TAIL;
static const char *DONE = "data: [DONE]\n\n";
static const char *REPLY_HEAD = "HTTP/1.1 200 OK\r\nServer: mock\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                                "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";

static int http_chunk(char *out, const char *data) { return sprintf(out, "%zx\r\n%s\r\n", strlen(data), data); }

static void send_event(struct stream *stream) {
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

static void finish(struct stream *stream) {
    char data[1024];
    int size = http_chunk(data, FINISH);
    size += http_chunk(data + size, DONE);
    size += sprintf(data + size, "0\r\n\r\n");
    send_all(stream->source->handler.fd, data, size);
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
    const char *number = strstr(source->request, "stream #");
    int index = number ? atoi(number + 8) : -1;
    if (index < 0 || index >= opened) die("the upstream got a request that is none of ours:\n%s", source->request);
    struct stream *stream = &streams[index];
    stream->source = source;
    char data[MESSAGE_BYTES];
    int size = sprintf(data, "%s", REPLY_HEAD);
    size += http_chunk(data + size, ROLE);
    send_all(source->handler.fd, data, size);
    send_event(stream);
}

static void source_ready(struct handler *handler) {
    struct source *source = (struct source *)handler;
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
    if (fd < 0) return;
    prepare_socket(fd);
    struct source *source = calloc(1, sizeof *source);
    if (!source) die("out of memory");
    source->handler = (struct handler){source_ready, fd};
    watch(&source->handler);
}

// ---- client side

static void stream_ready(struct handler *);
static void stream_began(struct stream *, uint64_t now);
static void stream_completed(struct stream *);

static void open_stream(void) {
    int index = opened++;
    struct stream *stream = &streams[index];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(options.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
        die("cannot connect to port %d: %s", options.port, strerror(errno));
    prepare_socket(fd);
    stream->handler = (struct handler){stream_ready, fd};
    stream->stamp_letters = -1;
    watch(&stream->handler);

    char body[512], request[MESSAGE_BYTES];
    int size = sprintf(body,
                       "{\"model\":\"mock\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"messages\":["
                       "{\"role\":\"system\",\"content\":\"You are helpful.\"},"
                       "{\"role\":\"user\",\"content\":\"stream #%d\"}],\"temperature\":0.7,\"max_tokens\":512}",
                       index);
    size = sprintf(request,
                   "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                   "Authorization: Bearer sk-bench\r\nAccept: text/event-stream\r\n%sContent-Length: %d\r\n\r\n%s",
                   options.port, options.headers, size, body);
    stream->requested_ns = now_ns();
    send_all(fd, request, size);
}

static void event_arrived(struct stream *stream, uint64_t now) {
    if (stream->received++ == 0) {
        stream_began(stream, now);
    } else if (stage == WINDOW) {
        uint64_t mask = (1ull << (4 * STAMP_LETTERS)) - 1;
        window_events++;
        sample(&latency, (now - stream->stamp) & mask);
    }
    if (options.mode == SATURATED && (stage == WARMING || stage == WINDOW)) send_event(stream);
}

static void read_text(struct stream *stream, const char *text, size_t size, uint64_t now) {
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
                event_arrived(stream, now);
            }
        }
    }
}

static void read_body(struct stream *stream, char *data, size_t size, uint64_t now) {
    if (stage == WINDOW) window_bytes += size;
#ifdef WITH_ZLIB
    if (stream->inflate) {
        static char text[READ_BYTES];
        z_stream *z = stream->inflate;
        z->next_in = (unsigned char *)data;
        z->avail_in = size;
        do {
            z->next_out = (unsigned char *)text;
            z->avail_out = sizeof text;
            int status = inflate(z, Z_SYNC_FLUSH);
            if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) die("a reply is not valid gzip");
            read_text(stream, text, sizeof text - z->avail_out, now);
        } while (z->avail_out == 0);
        return;
    }
#endif
    read_text(stream, data, size, now);
}

static void read_head(struct stream *stream) {
    if (strncmp(stream->head, "HTTP/1.1 200 ", 13) || !strcasestr(stream->head, "\r\nTransfer-Encoding: chunked"))
        die("expected a chunked reply with status 200, got:\n%s", stream->head);
    if (!strcasestr(stream->head, "\r\nContent-Encoding:")) return;
    if (!strcasestr(stream->head, "\r\nContent-Encoding: gzip")) die("cannot decode the reply:\n%s", stream->head);
#ifdef WITH_ZLIB
    stream->inflate = calloc(1, sizeof *stream->inflate);
    if (!stream->inflate || inflateInit2(stream->inflate, 16 + MAX_WBITS) != Z_OK) die("out of memory");
    coded_streams++;
#else
    die("built without zlib: cannot decode the reply");
#endif
}

// The reply's bytes, cut anywhere. Only as much of RFC 9112 §7.1 as is needed to find the body.
static void read_reply(struct stream *stream, char *data, size_t size, uint64_t now) {
    for (char *end = data + size; data < end;) {
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
            read_body(stream, data, part, now);
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

static void stream_ready(struct handler *handler) {
    static char data[READ_BYTES];
    struct stream *stream = (struct stream *)handler;
    ssize_t got = read(handler->fd, data, sizeof data);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) die("a reply broke off after %llu events", (unsigned long long)stream->received);
    read_reply(stream, data, got, now_ns());
}

// ---- the course of a measurement

static uint64_t stage_ends_ns;
static uint64_t period_ns, first_due_ns, planned; // paced: number `planned` of all events is the next
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
    beats = calloc(options.streams, sizeof *beats);
    if (!beats) die("out of memory");
    srandom(1); // random phases overlap as those of real streams do; the seed makes every run the same
    for (int i = 0; i < options.streams; i++) beats[i] = (struct beat){random() % period_ns, i};
    qsort(beats, options.streams, sizeof *beats, by_phase);
}

static uint64_t next_due_ns(void) {
    return first_due_ns + planned / options.streams * period_ns + beats[planned % options.streams].phase_ns;
}

static void enter(int next, double seconds) {
    stage = next;
    stage_ends_ns = now_ns() + (uint64_t)(seconds * NS_PER_S);
}

static void stage_over(void) {
    switch (stage) {
    case OPENING: die("only %d of %d streams began", begun, options.streams);
    case WARMING:
        began = look();
        enter(WINDOW, options.seconds);
        break;
    case WINDOW:
        ended = look();
        enter(ENDING, ENDING_S);
        for (int i = 0; i < options.streams; i++) finish(&streams[i]);
        break;
    case ENDING: die("only %d of %d streams ended", completed, options.streams);
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
    if (options.mode == PACED && (stage == WARMING || stage == WINDOW)) {
        for (; next_due_ns() <= now; planned++) {
            if (stage == WINDOW) sample(&lag, now_ns() - next_due_ns());
            send_event(&streams[beats[planned % options.streams].stream]);
        }
        if (next_due_ns() < wake_ns) wake_ns = next_due_ns();
    }
    wake_at(wake_ns);
}

static void stream_began(struct stream *stream, uint64_t now) { // its first content event arrived
    begun++;
    if (options.mode == SERIAL) {
        if (begun > WARM_UP_EXCHANGES) {
            window_events++;
            sample(&ttft, now - stream->requested_ns);
        }
        wake_at(now + NS_PER_MS); // its end must not run into its beginning
    } else if (opened < options.streams) {
        open_stream();
    } else if (begun == options.streams) {
        enter(WARMING, options.warm_s);
        first_due_ns = now;
        wake_at(now);
        if (options.mode == SATURATED) // this event's own successor is sent by event_arrived
            for (int i = 0; i < options.streams; i++)
                if (&streams[i] != stream) send_event(&streams[i]);
    }
}

static void stream_completed(struct stream *stream) {
    if (stage != ENDING && options.mode != SERIAL) die("a reply ended too early");
    if (stream->sent != stream->received)
        die("%llu events were sent, %llu arrived", (unsigned long long)stream->sent,
            (unsigned long long)stream->received);
    hang_up(&stream->handler);
    completed++;
    if (options.mode == SERIAL) {
        if (completed == WARM_UP_EXCHANGES) began = look();
        if (completed == options.streams) ended = look();
        else wake_at(now_ns() + NS_PER_MS); // time for the proxy to clean up, as between the requests of a person
    }
}

// ---- command line

static int read_mode(const char *word) {
    static const char *const words[] = {[PACED] = "paced", [SATURATED] = "saturated", [SERIAL] = "serial"};
    for (int mode = 0; mode < 3; mode++)
        if (!strcmp(word, words[mode])) return mode;
    die("--mode is paced, saturated or serial");
}

static void read_options(int count, char **values) {
    static const struct option names[] = {
        {"mode", required_argument, 0, 'm'},    {"listen-fd", required_argument, 0, 'l'},
        {"port", required_argument, 0, 'p'},    {"streams", required_argument, 0, 'n'},
        {"rate", required_argument, 0, 'r'},    {"warm-s", required_argument, 0, 'w'},
        {"seconds", required_argument, 0, 's'}, {"header", required_argument, 0, 'h'},
        {"pid", required_argument, 0, 'i'},     {0},
    };
    for (int name; (name = getopt_long(count, values, "", names, NULL)) != -1;) {
        switch (name) {
        case 'm': options.mode = read_mode(optarg); break;
        case 'l': options.listen_fd = atoi(optarg); break;
        case 'p': options.port = atoi(optarg); break;
        case 'n': options.streams = atoi(optarg); break;
        case 'r': options.rate = atof(optarg); break;
        case 'w': options.warm_s = atof(optarg); break;
        case 's': options.seconds = atof(optarg); break;
        case 'i':
            if (options.pid_count == MAX_PIDS) die("more than %d processes", MAX_PIDS);
            options.pids[options.pid_count++] = atoi(optarg);
            break;
        case 'h':
            if (strlen(options.headers) + strlen(optarg) + 3 > sizeof options.headers) die("too many headers");
            strcat(strcat(options.headers, optarg), "\r\n");
            break;
        default: exit(1);
        }
    }
    if (options.listen_fd < 0 || options.port <= 0 || options.streams <= 0 || options.rate <= 0)
        die("--listen-fd, --port, --streams and --rate have to be positive numbers");
}

int main(int count, char **values) {
    read_options(count, values);
    streams = calloc(options.streams, sizeof *streams);
    if (!streams) die("out of memory");
    epoll_fd = epoll_create1(0);
    struct handler listener = {listener_ready, options.listen_fd};
    timer = (struct handler){timer_ready, timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)};
    fcntl(listener.fd, F_SETFL, O_NONBLOCK);
    watch(&listener);
    watch(&timer);
    plan_beats();
    enter(OPENING, OPENING_S);
    wake_at(stage_ends_ns);
    for (int ramp = options.mode == SERIAL ? 1 : RAMP; opened < options.streams && opened < ramp;) open_stream();
    while (completed < options.streams) {
        struct epoll_event events[256];
        int ready = epoll_wait(epoll_fd, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            struct handler *handler = events[i].data.ptr;
            if (handler->fd >= 0) handler->ready(handler);
        }
    }
    print_result();
    return 0;
}
