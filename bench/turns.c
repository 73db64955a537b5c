// Preloaded into a server under test: the longest time from the return of one wait for events to the next wait, in any of its
// processes and threads. It stands in the file that BENCH_TURNS names: nanoseconds, 64 bits in this machine's order.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

typedef int wait_call(int, struct epoll_event *, int, int);
typedef int masked_wait_call(int, struct epoll_event *, int, int, const sigset_t *);

static wait_call *libc_wait;
static masked_wait_call *libc_masked_wait;
static _Atomic uint64_t *longest_ns; // shared with whom it is forked to
static __thread uint64_t began_ns;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

__attribute__((constructor)) static void begin(void) {
    libc_wait = (wait_call *)dlsym(RTLD_NEXT, "epoll_wait");
    libc_masked_wait = (masked_wait_call *)dlsym(RTLD_NEXT, "epoll_pwait");
    const char *path = getenv("BENCH_TURNS");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *room = mmap(NULL, sizeof *longest_ns, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (room != MAP_FAILED) longest_ns = room;
    close(file);
}

static void turn_ends(void) {
    if (!longest_ns || !began_ns) return;
    uint64_t took = now_ns() - began_ns, longest = *longest_ns;
    while (took > longest && !atomic_compare_exchange_weak(longest_ns, &longest, took)) {}
}

static int turn_begins(int ready) {
    if (longest_ns) began_ns = now_ns();
    return ready;
}

int epoll_wait(int epoll, struct epoll_event *events, int room, int limit_ms) {
    turn_ends();
    return turn_begins(libc_wait(epoll, events, room, limit_ms));
}

int epoll_pwait(int epoll, struct epoll_event *events, int room, int limit_ms, const sigset_t *mask) {
    turn_ends();
    return turn_begins(libc_masked_wait(epoll, events, room, limit_ms, mask));
}
