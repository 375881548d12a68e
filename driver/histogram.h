/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Latency histograms: log-linear buckets, 32 in each power of two, so that every 64-bit value has a bucket
 * and a bucket is at most 1/32 of its values wide. Made from histogram.def. The loop adds; anyone reads.
 *
 * A percentile read here is never below the exact one (nearest rank) and at most 1/32 above it.
 */
#ifndef MR_DRIVER_HISTOGRAM_H
#define MR_DRIVER_HISTOGRAM_H

#include <stdint.h>

enum mr_histogram {
#define X(id, owner, help) MR_H_##id,
#include "driver/histogram.def"
#undef X
	MR_HISTOGRAM_COUNT
};

struct mr_histogram_info {
	const char *name;
	const char *owner;
	const char *help;
};
extern const struct mr_histogram_info mr_histogram_info[MR_HISTOGRAM_COUNT];

#define MR_HISTOGRAM_SUB_BITS 5 /* 32 buckets a power of two */
#define MR_HISTOGRAM_BUCKETS  ((64 - MR_HISTOGRAM_SUB_BITS + 1) << MR_HISTOGRAM_SUB_BITS)

/* One histogram as it lies in the counters file. The number of values is the sum of its buckets. */
struct mr_histogram_data {
	uint64_t sum_ns; /* of all values, modulo 2^64 */
	uint64_t max_ns; /* the largest value */
	uint64_t reserved[6];
	uint64_t buckets[MR_HISTOGRAM_BUCKETS];
};
_Static_assert(sizeof(struct mr_histogram_data) % 64 == 0, "whole cache lines");

extern struct mr_histogram_data *mr_histograms; /* MR_HISTOGRAM_COUNT of them (driver/counters.c) */

/* The bucket of @ns. Values below 64 have one each. */
static inline uint32_t mr_histogram_bucket(uint64_t ns)
{
	uint32_t shift = ns >> MR_HISTOGRAM_SUB_BITS
				 ? 63 - MR_HISTOGRAM_SUB_BITS - (uint32_t)__builtin_clzll(ns)
				 : 0;

	return (shift << MR_HISTOGRAM_SUB_BITS) + (uint32_t)(ns >> shift);
}

/* The largest value that falls into @bucket. */
uint64_t mr_histogram_upper(uint32_t bucket);

/* Adds @ns to @h. Only from the loop: loads and stores, no lock, no system call. */
static inline void mr_histogram_add(enum mr_histogram h, uint64_t ns)
{
	struct mr_histogram_data *d = &mr_histograms[h];
	uint64_t *bucket = &d->buckets[mr_histogram_bucket(ns)];

	/* Relaxed, as mr_count: one writer, and readers want no order. */
	__atomic_store_n(bucket, __atomic_load_n(bucket, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&d->sum_ns, __atomic_load_n(&d->sum_ns, __ATOMIC_RELAXED) + ns,
			 __ATOMIC_RELAXED);
	if (ns > __atomic_load_n(&d->max_ns, __ATOMIC_RELAXED))
		__atomic_store_n(&d->max_ns, ns, __ATOMIC_RELAXED);
}

/* ---- for readers; @d is a copy or a table that is written meanwhile ---- */

/* The number of values. */
uint64_t mr_histogram_count(const struct mr_histogram_data *d);
/* The value at rank ceil(@permille / 1000 * count), 0 where there is none. @permille is 0 to 1000. */
uint64_t mr_histogram_percentile(const struct mr_histogram_data *d, uint32_t permille);

#endif /* MR_DRIVER_HISTOGRAM_H */
