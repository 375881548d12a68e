// SPDX-License-Identifier: Apache-2.0
/*
 * The hiccup meter: how long the host keeps a thread that is due from running, measured beside
 * every latency table so that the host's own noise can be told from ours.
 *
 * A thread sleeps to the next of a grid of instants one period apart and notes how late it is (the
 * time stamp counter, through CLOCK_MONOTONIC). It sleeps rather than spins, because on a small
 * host a spinning meter would be the noise. A stall of several periods counts once for each instant
 * it swallowed, with the lateness that a thread due then would have seen.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "tools/tools.h"

#define PERIOD_NS 1000000u

/* Log-linear histogram: 16 buckets to each power of two, so a figure is right within 1/16. */
#define SUB_BITS 4u
#define BUCKETS  (64u << SUB_BITS)

struct tool_hiccup {
	pthread_t thread;
	int stop; /* set by stop(), read by the thread; relaxed, pthread_join orders the rest */
	uint64_t count, max;
	uint64_t bucket[BUCKETS];
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static unsigned bucket_of(uint64_t v)
{
	unsigned high;

	if (v < (1u << SUB_BITS))
		return (unsigned)v;
	high = 63u - (unsigned)__builtin_clzll(v);
	return ((high - SUB_BITS + 1) << SUB_BITS) +
	       (unsigned)((v >> (high - SUB_BITS)) & ((1u << SUB_BITS) - 1));
}

/* The smallest value of bucket @b. */
static uint64_t bucket_floor(unsigned b)
{
	unsigned group = b >> SUB_BITS;
	uint64_t sub = b & ((1u << SUB_BITS) - 1);

	return group ? ((1u << SUB_BITS) + sub) << (group - 1) : sub;
}

static void note(struct tool_hiccup *m, uint64_t late)
{
	m->bucket[bucket_of(late)]++;
	m->count++;
	if (late > m->max)
		m->max = late;
}

static void *meter(void *arg)
{
	struct tool_hiccup *m = arg;
	uint64_t due = now_ns();

	prctl(PR_SET_TIMERSLACK, 1ul); /* the default lets the kernel be 50 us late on purpose */
	while (!__atomic_load_n(&m->stop, __ATOMIC_RELAXED)) {
		struct timespec t;
		uint64_t now;

		due += PERIOD_NS;
		t.tv_sec = (time_t)(due / 1000000000u);
		t.tv_nsec = (long)(due % 1000000000u);
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL))
			;
		now = now_ns();
		note(m, now - due);
		for (; now - due >= PERIOD_NS; note(m, now - due))
			due += PERIOD_NS;
	}
	return NULL;
}

struct tool_hiccup *tool_hiccup_start(void)
{
	struct tool_hiccup *m = calloc(1, sizeof(*m));

	if (m && pthread_create(&m->thread, NULL, meter, m)) {
		free(m);
		return NULL;
	}
	return m;
}

void tool_hiccup_stop(struct tool_hiccup *m, uint64_t *p99_ns, uint64_t *max_ns)
{
	uint64_t seen = 0;
	unsigned b = 0;

	*p99_ns = *max_ns = 0;
	if (!m)
		return;
	__atomic_store_n(&m->stop, 1, __ATOMIC_RELAXED);
	pthread_join(m->thread, NULL);
	while (b < BUCKETS && (seen += m->bucket[b]) * 100 < m->count * 99)
		b++;
	*p99_ns = m->count ? bucket_floor(b) : 0;
	*max_ns = m->max;
	free(m);
}
