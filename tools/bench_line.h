/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The round trip of one cache line each way between two cores: what everything that two threads say to each other
 * through memory is held against. For `millrace bench ring` and `bench lpu`.
 */
#ifndef MR_TOOLS_BENCH_LINE_H
#define MR_TOOLS_BENCH_LINE_H

#include <pthread.h>
#include <stdint.h>

struct bench_line {
	uint32_t word;
	uint32_t pad[31]; /* a pair of lines: the adjacent one is prefetched with it */
} __attribute__((aligned(128)));

struct bench_lines {
	struct bench_line ping, pong;
};

void bench_pin(int cpu); /* the calling thread */
/* The first two CPUs of @allowed: 0, or MR_E_NOT_SUPPORTED where there is but one. */
int bench_two_cpus(const cpu_set_t *allowed, int cpus[2]);

/* Answers each ping, as long as @kind's word is @mine. */
void bench_line_echo(struct bench_lines *lines, const struct bench_line *kind, uint32_t mine);
/* Writes @count round trips in ticks of the time stamp counter; another thread echoes. */
void bench_line_round(struct bench_lines *lines, uint64_t *ticks, uint64_t count);

#endif /* MR_TOOLS_BENCH_LINE_H */
