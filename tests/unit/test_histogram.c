// SPDX-License-Identifier: Apache-2.0
/* Histograms: every value has its bucket, and percentiles hold their bound against sorted samples. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "driver/histogram.h"

static uint64_t state_word = 88172645463325252u;

static uint64_t random_u64(void)
{
	state_word ^= state_word << 13;
	state_word ^= state_word >> 7;
	state_word ^= state_word << 17;
	return state_word;
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Buckets follow each other without a gap from 0 to 2^64 - 1, and none is wider than 1/32 of its values. */
static void buckets_tile_all_values(void **state)
{
	uint64_t lower = 0;

	for (uint32_t i = 0; i < MR_HISTOGRAM_BUCKETS; i++) {
		uint64_t upper = mr_histogram_upper(i);

		assert_true(upper >= lower);
		assert_int_equal(mr_histogram_bucket(lower), i);
		assert_int_equal(mr_histogram_bucket(upper), i);
		assert_true(upper - lower <= lower / 32);
		lower = upper + 1;
	}
	assert_true(lower == 0); /* the last one ended at 2^64 - 1 */
}

static void nothing_added_reads_zero(void **state)
{
	struct mr_histogram_data *d = calloc(1, sizeof(*d));

	assert_int_equal(mr_histogram_count(d), 0);
	assert_int_equal(mr_histogram_percentile(d, 500), 0);
	free(d);
}

static void bounds_are_kept(void **state)
{
	struct mr_histogram_data *d = &mr_histograms[MR_H_queue];

	memset(d, 0, sizeof(*d));
	mr_histogram_add(MR_H_queue, 0);
	assert_int_equal(mr_histogram_percentile(d, 1000), 0);
	assert_int_equal(mr_histogram_count(d), 1);
	mr_histogram_add(MR_H_queue, UINT64_MAX);
	assert_true(mr_histogram_percentile(d, 1000) == UINT64_MAX);
	assert_int_equal(mr_histogram_percentile(d, 500), 0);
	assert_true(d->max_ns == UINT64_MAX);
}

/* Random samples of several shapes: each percentile is the exact one, or at most 1/32 above it. */
static void percentiles_hold_their_bound(void **state)
{
	static const uint32_t permilles[] = {1, 10, 250, 500, 900, 990, 999, 1000};
	struct mr_histogram_data *d = &mr_histograms[MR_H_itl];

	for (unsigned round = 0; round < 200; round++) {
		uint64_t n = 1 + random_u64() % 3000, sum = 0, *v = malloc(n * sizeof(*v));
		unsigned shape = round % 4;

		assert_non_null(v);
		memset(d, 0, sizeof(*d));
		for (uint64_t i = 0; i < n; i++) {
			uint64_t r = random_u64();

			v[i] = shape == 0 ? r % 64 : /* exact buckets */
				       shape == 1 ? r % 100000000
						  : /* flat */
				       shape == 2 ? r >> (random_u64() % 64)
						  : /* every magnitude */
				       1000000 + (r % 50 ? 0 : r % 1000000000); /* a tail */
			sum += v[i];
			mr_histogram_add(MR_H_itl, v[i]);
		}
		qsort(v, n, sizeof(*v), by_value);
		assert_int_equal(mr_histogram_count(d), n);
		assert_true(d->sum_ns == sum);
		assert_true(d->max_ns == v[n - 1]);
		for (unsigned k = 0; k < sizeof(permilles) / sizeof(permilles[0]); k++) {
			uint64_t rank = (n * permilles[k] + 999) / 1000;
			uint64_t exact = v[rank - 1],
				 got = mr_histogram_percentile(d, permilles[k]);

			if (got < exact || got - exact > exact / 32)
				fail_msg("n %lu permille %u: %lu beside %lu", (unsigned long)n,
					 permilles[k], (unsigned long)got, (unsigned long)exact);
		}
		free(v);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buckets_tile_all_values),
		cmocka_unit_test(nothing_added_reads_zero),
		cmocka_unit_test(bounds_are_kept),
		cmocka_unit_test(percentiles_hold_their_bound),
	};

	return cmocka_run_group_tests_name("histogram", tests, NULL, NULL);
}
