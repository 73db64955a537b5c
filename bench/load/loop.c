#define _GNU_SOURCE
#include "loop.h"
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static int epoll_fd;
struct handler timer;

void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

void *room_for(size_t count, size_t size) {
    void *room = calloc(count, size);
    if (!room) die("out of memory");
    return room;
}

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

void loop_begin(void (*timer_ready)(struct handler *)) {
    epoll_fd = epoll_create1(0);
    timer = (struct handler){timer_ready, timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK)};
    watch(&timer);
}

void loop_turn(void (*after_each)(void)) {
    struct epoll_event events[256];
    int ready = epoll_wait(epoll_fd, events, 256, -1);
    for (int i = 0; i < ready; i++) {
        struct handler *handler = events[i].data.ptr;
        if (handler->fd < 0) continue;
        handler->ready(handler);
        if (after_each) after_each();
    }
}

static void control(struct handler *handler, int operation, uint32_t what) {
    struct epoll_event event = {.events = what, .data.ptr = handler};
    if (epoll_ctl(epoll_fd, operation, handler->fd, &event)) die("epoll_ctl: %s", strerror(errno));
}

void watch(struct handler *handler) { control(handler, EPOLL_CTL_ADD, EPOLLIN); }
void watch_writable_too(struct handler *handler) { control(handler, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT); }

void watch_no_more(struct handler *handler) { control(handler, EPOLL_CTL_MOD, 0); }

void hang_up(struct handler *handler) {
    close(handler->fd);
    handler->fd = -1;
}

void wake_at(uint64_t when_ns) { // a timerfd, because epoll_wait knows only milliseconds
    struct itimerspec when = {.it_value = {.tv_sec = when_ns / NS_PER_S, .tv_nsec = when_ns % NS_PER_S}};
    timerfd_settime(timer.fd, TFD_TIMER_ABSTIME, &when, NULL);
}

void prepare_socket(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

// A paced event must go out whole and now. A socket that does not take it has megabytes queued: the proxy is stuck.
void send_all(int fd, const char *data, size_t size) {
    if (send(fd, data, size, MSG_NOSIGNAL) != (ssize_t)size) die("a connection took no more data: %s", strerror(errno));
}
