// The event loop, the clock, and the only way to give up.

#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NS_PER_S 1000000000ull
#define NS_PER_MS 1000000ull

_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
void *room_for(size_t count, size_t size); // zeroed, never freed

uint64_t now_ns(void);

// Whatever epoll watches begins with a handler. Objects are never freed: the process is short, and an epoll event that
// was already fetched can then never name a dead object.
struct handler {
    void (*ready)(struct handler *);
    int fd; // -1 once closed
};

extern struct handler timer;

void loop_begin(void (*timer_ready)(struct handler *));
void loop_turn(void (*after_each)(void)); // waits for what is ready and handles it; `after_each` may be NULL
void watch(struct handler *);
void watch_writable_too(struct handler *);
void watch_no_more(struct handler *);
void hang_up(struct handler *);
void wake_at(uint64_t when_ns);

void prepare_socket(int fd);
void send_all(int fd, const char *data, size_t size);
