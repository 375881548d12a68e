/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The counters: one process-wide table made from metrics.def. Everything in driver/ counts here;
 * tools/ prints it. Each metric has one writing thread (its owner in metrics.def), so counting is a
 * relaxed load and store; any thread may read, and sees a recent value, never a torn one.
 *
 * The table is the process's own memory, or lies in a mapped file (driver/counters.h) that other
 * programs read; only setup moves it, before the owners' threads run.
 */
#ifndef MR_DRIVER_METRICS_H
#define MR_DRIVER_METRICS_H

#include <stdint.h>

enum mr_metric {
#define X(id, unit, owner, help) MR_M_##id,
#include "driver/metrics.def"
#undef X
	MR_METRIC_COUNT
};

struct mr_metric_info {
	const char *name;
	const char *unit;
	const char *owner;
	const char *help;
};

extern uint64_t *mr_metrics; /* MR_METRIC_COUNT of them */
extern const struct mr_metric_info mr_metric_info[MR_METRIC_COUNT];

/* Adds @n to @m. Only from the metric's owner thread. */
static inline void mr_count(enum mr_metric m, uint64_t n)
{
	/* Relaxed is enough: one writer, and readers want no order between metrics. */
	__atomic_store_n(&mr_metrics[m], __atomic_load_n(&mr_metrics[m], __ATOMIC_RELAXED) + n,
			 __ATOMIC_RELAXED);
}

/* Raises @m to @v where it is lower. Only from the metric's owner thread. */
static inline void mr_metric_max(enum mr_metric m, uint64_t v)
{
	if (v > __atomic_load_n(&mr_metrics[m], __ATOMIC_RELAXED))
		__atomic_store_n(&mr_metrics[m], v, __ATOMIC_RELAXED);
}

static inline uint64_t mr_metric_read(enum mr_metric m)
{
	return __atomic_load_n(&mr_metrics[m], __ATOMIC_RELAXED);
}

#endif /* MR_DRIVER_METRICS_H */
