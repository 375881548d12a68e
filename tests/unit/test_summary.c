// SPDX-License-Identifier: Apache-2.0
/* Percentiles by nearest rank, and the three reductions over logits that the tools print. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

/* The program's own parts are in no archive. */
#include "tools/forced.c"
#include "tools/summary.c"

static void summary_of_nothing_is_zero(void **state)
{
	struct tool_summary s = tool_summarise(NULL, 0);

	assert_int_equal(s.n, 0);
	assert_int_equal(s.max, 0);
}

static void summary_of_one(void **state)
{
	uint64_t v[] = {7};
	struct tool_summary s = tool_summarise(v, 1);

	assert_int_equal(s.min, 7);
	assert_int_equal(s.p50, 7);
	assert_int_equal(s.p99, 7);
	assert_int_equal(s.max, 7);
}

/* 1 to n in a shuffled order: the p-th percentile by nearest rank is ceil(p n / 100). */
static void summary_is_nearest_rank(void **state)
{
	for (uint64_t n = 1; n <= 1003; n++) {
		uint64_t *v = malloc(n * sizeof(*v));
		struct tool_summary s;

		assert_non_null(v);
		for (uint64_t i = 0; i < n; i++)
			v[i] = n - i;
		for (uint64_t i = 0; i + 1 < n; i += 2) {
			uint64_t keep = v[i];

			v[i] = v[n - 1 - i];
			v[n - 1 - i] = keep;
		}
		s = tool_summarise(v, n);
		assert_int_equal(s.min, 1);
		assert_int_equal(s.p50, (50 * n + 99) / 100);
		assert_int_equal(s.p90, (90 * n + 99) / 100);
		assert_int_equal(s.p99, (99 * n + 99) / 100);
		assert_int_equal(s.max, n);
		free(v);
	}
}

static void top_is_a_stable_sort(void **state)
{
	float logits[97];
	uint32_t ids[97];

	for (uint32_t i = 0; i < 97; i++)
		logits[i] = (float)(i * 37 % 11); /* many equal ones */
	for (uint32_t k = 0; k <= 97; k++) {
		assert_int_equal(tool_top(logits, 97, ids, k), k);
		for (uint32_t i = 0; i < k; i++) {
			uint32_t before = 0;

			for (uint32_t j = 0; j < 97; j++)
				before += logits[j] > logits[ids[i]] ||
					  (logits[j] == logits[ids[i]] && j < ids[i]);
			assert_int_equal(before, i);
		}
	}
	assert_int_equal(tool_argmax(logits, 97), ids[0]);
	assert_int_equal(tool_top(logits, 3, ids, 97), 3);
}

static void log_sum_exp_of_large_logits_is_finite(void **state)
{
	float logits[] = {1000, 1000, 1000, 1000};

	assert_true(fabs(tool_log_sum_exp(logits, 4) - (1000 + log(4))) < 1e-9);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(summary_of_nothing_is_zero),
		cmocka_unit_test(summary_of_one),
		cmocka_unit_test(summary_is_nearest_rank),
		cmocka_unit_test(top_is_a_stable_sort),
		cmocka_unit_test(log_sum_exp_of_large_logits_is_finite),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
