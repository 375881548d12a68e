// SPDX-License-Identifier: Apache-2.0
/* What is read out of a histogram, and the histograms' descriptions, made from histogram.def. */
#include "driver/histogram.h"

#define SUBS (1u << MR_HISTOGRAM_SUB_BITS)

const struct mr_histogram_info mr_histogram_info[MR_HISTOGRAM_COUNT] = {
#define X(id, owner, help) {#id, #owner, help},
#include "driver/histogram.def"
#undef X
};

uint64_t mr_histogram_upper(uint32_t bucket)
{
	uint32_t shift;

	if (bucket < 2 * SUBS)
		return bucket;
	shift = bucket / SUBS - 1;
	/* The last bucket's end is 2^64 - 1: the sum wraps to 0 and then to that. */
	return ((uint64_t)(bucket % SUBS + SUBS + 1) << shift) - 1;
}

uint64_t mr_histogram_count(const struct mr_histogram_data *d)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < MR_HISTOGRAM_BUCKETS; i++)
		n += __atomic_load_n(&d->buckets[i], __ATOMIC_RELAXED);
	return n;
}

uint64_t mr_histogram_percentile(const struct mr_histogram_data *d, uint32_t permille)
{
	uint64_t n = mr_histogram_count(d), seen = 0, rank, upper;
	uint64_t max = __atomic_load_n(&d->max_ns, __ATOMIC_RELAXED);

	if (n == 0)
		return 0;
	/* In two parts, so that no count overflows. */
	rank = n / 1000 * permille + (n % 1000 * permille + 999) / 1000;
	for (uint32_t i = 0; i < MR_HISTOGRAM_BUCKETS; i++) {
		seen += __atomic_load_n(&d->buckets[i], __ATOMIC_RELAXED);
		if (seen >= rank && seen > 0) {
			upper = mr_histogram_upper(i);
			return upper < max ? upper : max;
		}
	}
	return max; /* values were added between the two passes */
}
