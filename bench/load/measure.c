#include "measure.h"
#include "loop.h"
#include "options.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct samples latency, ttft, lag;
uint64_t events_arrived, bytes_arrived;
static long base_kib, top_kib;

struct cpu_time {
    uint64_t used_ns, waited_ns; // waited: could have run, but somebody else had the core
};

static struct window {
    uint64_t now_ns, events, bytes;
    struct cpu_time proxy, own;
} began, ended;

void sample(struct samples *samples, uint64_t value_ns) {
    if (samples->used == samples->room) {
        samples->room = samples->room ? 2 * samples->room : 1 << 16;
        samples->values_ns = realloc(samples->values_ns, samples->room * sizeof *samples->values_ns);
        if (!samples->values_ns) die("out of memory");
    }
    samples->values_ns[samples->used++] = value_ns;
}

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

static struct window look(void) {
    struct window window = {0};
    for (int i = 0; i < options.pid_count; i++) add_cpu_time(&window.proxy, options.pids[i]);
    add_cpu_time(&window.own, getpid());
    window.events = events_arrived;
    window.bytes = bytes_arrived;
    window.now_ns = now_ns();
    return window;
}

void window_begins(void) { began = look(); }
void window_ends(void) { ended = look(); }

// The proportional set size: what several processes share is counted once.
static long memory_kib(void) {
    long total = 0;
    for (int i = 0; i < options.pid_count; i++) {
        char path[64], line[256];
        snprintf(path, sizeof path, "/proc/%d/smaps_rollup", options.pids[i]);
        FILE *file = fopen(path, "r");
        if (!file) die("cannot read the memory of process %d", options.pids[i]);
        long kib = 0;
        while (fgets(line, sizeof line, file) && sscanf(line, "Pss: %ld", &kib) != 1) {}
        fclose(file);
        total += kib;
    }
    return total;
}

void memory_at_base(void) { base_kib = memory_kib(); }
void memory_at_top(void) { top_kib = memory_kib(); }

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print_percentiles(const char *name, struct samples *samples) {
    size_t n = samples->used;
    const uint64_t *v = samples->values_ns;
    if (!n) return;
    qsort(samples->values_ns, n, sizeof *v, ascending);
    printf("\"%s\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"max\":%.1f},", name, v[n / 2] / 1e3, v[n * 9 / 10] / 1e3,
           v[n * 99 / 100] / 1e3, v[n - 1] / 1e3);
}

void print_result(void) {
    double wall_ns = ended.now_ns - began.now_ns + 1; // never nothing
    printf("{");
    print_percentiles("latency_us", &latency);
    print_percentiles("ttft_us", &ttft);
    print_percentiles("lag_us", &lag);
    if (options.base_streams)
        printf("\"stream_kib\":%.2f,", (double)(top_kib - base_kib) / (options.streams - options.base_streams));
    printf("\"events\":%llu,\"bytes\":%llu,\"seconds\":%.4f,\"cpu_ns\":%llu,\"waited\":%.4f,\"own_busy\":%.4f,"
           "\"own_waited\":%.4f}\n",
           (unsigned long long)(ended.events - began.events), (unsigned long long)(ended.bytes - began.bytes), wall_ns / NS_PER_S,
           (unsigned long long)(ended.proxy.used_ns - began.proxy.used_ns),
           (ended.proxy.waited_ns - began.proxy.waited_ns) / wall_ns, (ended.own.used_ns - began.own.used_ns) / wall_ns,
           (ended.own.waited_ns - began.own.waited_ns) / wall_ns);
}
