/* measure - what the programs of tests/bench have in common: the CPU of a thread, medians, resources
 * with many parts, what is printed. */
#ifndef OUTR_BENCH_MEASURE_H
#define OUTR_BENCH_MEASURE_H

#include "config/snapshot.h"

__attribute__((noreturn)) void measure_fail(const char *text);
double measure_cpu_ns(void); /* of this thread, so far */
/* ns of CPU a call: the median of nine rounds of so many, after half of one to warm up. i counts
 * through a round. */
double measure_calls(unsigned calls, void (*call)(void *ctx, unsigned i), void *ctx);
/* A JSON object on a line of its own: {"name": ..., "us": ...}. */
void measure_print_us(const char *name, double ns);
/* A snapshot of one resource: head, then count items, in each of which "%" is its number. */
outr_snapshot *measure_load(const char *app_id, const char *head, const char *item, unsigned count);

#endif
