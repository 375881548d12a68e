// SPDX-License-Identifier: Apache-2.0
/* The clock that the orchestrator runs on unless it is given another one. */
#include <time.h>

#include "driver/sched/sched.h"

static uint64_t monotonic_ns(void *arg)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

const struct mr_clock mr_clock_monotonic = {.now_ns = monotonic_ns};
