// SPDX-License-Identifier: Apache-2.0
/* Percentiles of latency samples, for every command that prints a table of them. */
#include <stdlib.h>

#include "tools/tools.h"

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Nearest rank: the smallest sample that at least @percent of all samples do not exceed. @n is not
 * 0. */
static uint64_t rank(const uint64_t *sorted, uint64_t n, unsigned percent)
{
	uint64_t r = n / 100 * percent + (n % 100 * percent + 99) / 100;

	return sorted[r ? r - 1 : 0];
}

struct tool_summary tool_summarise(uint64_t *samples, uint64_t n)
{
	struct tool_summary s = {.n = n};

	if (!n)
		return s;
	qsort(samples, n, sizeof(*samples), ascending);
	s.min = samples[0];
	s.p50 = rank(samples, n, 50);
	s.p90 = rank(samples, n, 90);
	s.p99 = rank(samples, n, 99);
	s.max = samples[n - 1];
	return s;
}
