// What is measured, and how it is printed.

#pragma once
#include <stddef.h>
#include <stdint.h>

struct samples {
    uint64_t *values_ns;
    size_t used, room;
};

// `lag` is how much later than planned an event was sent: the generator's own fault.
extern struct samples latency, ttft, lag;
extern uint64_t events_arrived, bytes_arrived;

void sample(struct samples *, uint64_t value_ns);
void window_begins(void);
void window_ends(void);
void memory_at_base(void); // with --base-streams open
void memory_at_top(void);  // with all of them open
void print_result(void);
