// SPDX-License-Identifier: Apache-2.0
/*
 * The KV block pool against a model that counts holders in an array: random takes, shares and drops by 32
 * holders, with the pool's own check after each; exhaustion by name; what the check finds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <millrace/status.h>

#include "driver/mem/blocks.h"

#define BLOCKS  61u
#define HOLDERS 32u

struct holder {
	uint32_t count;
	uint32_t blocks[BLOCKS];
};

static uint32_t pick(uint64_t *seed, uint32_t below)
{
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(*seed >> 33) % below;
}

static uint32_t distinct(const uint32_t *held)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < BLOCKS; i++)
		n += held[i] != 0;
	return n;
}

static void random_holders(void **state)
{
	static struct holder holders[HOLDERS];
	uint32_t held[BLOCKS] = {0}, exhausted = 0;
	struct mr_blocks pool;
	uint64_t seed = 11;

	memset(holders, 0, sizeof(holders));
	assert_int_equal(mr_blocks_create(&pool, BLOCKS), 0);
	for (int round = 0; round < 100000; round++) {
		struct holder *h = &holders[pick(&seed, HOLDERS)];
		struct holder *from = &holders[pick(&seed, HOLDERS)];
		uint32_t n = pick(&seed, 9);

		if (h->count) { /* lets go of all */
			mr_blocks_drop(&pool, h->blocks, h->count);
			for (uint32_t i = 0; i < h->count; i++)
				held[h->blocks[i]]--;
			h->count = 0;
		} else if (from->count && pick(&seed, 2)) { /* a fork of a part */
			h->count = pick(&seed, from->count + 1);
			memcpy(h->blocks, from->blocks, h->count * sizeof(*h->blocks));
			mr_blocks_share(&pool, h->blocks, h->count);
			for (uint32_t i = 0; i < h->count; i++)
				held[h->blocks[i]]++;
		} else if (n > BLOCKS - distinct(held)) {
			assert_int_equal(mr_blocks_take(&pool, h->blocks, n), MR_E_KV_EXHAUSTED);
			exhausted++;
		} else {
			assert_int_equal(mr_blocks_take(&pool, h->blocks, n), 0);
			for (uint32_t i = 0; i < n; i++)
				assert_int_equal(held[h->blocks[i]]++, 0);
			h->count = n;
		}
		assert_int_equal(mr_blocks_free(&pool), BLOCKS - distinct(held));
		assert_int_equal(mr_blocks_check(&pool, held), 0);
		for (uint32_t i = 0; i < h->count; i++)
			assert_int_equal(mr_blocks_shared(&pool, h->blocks[i]),
					 held[h->blocks[i]] > 1);
	}
	assert_true(exhausted > 100);
	mr_blocks_destroy(&pool);
}

/* Each of these is a mistake of a holder; the check sees it, with and without the holders' account. */
static void mistakes(void **state)
{
	uint32_t blocks[4], held[8] = {0};
	struct mr_blocks pool;

	assert_int_equal(mr_blocks_create(&pool, MR_BLOCKS_MAX + 1), MR_E_RANGE);
	assert_int_equal(mr_blocks_create(&pool, 8), 0);
	assert_int_equal(mr_blocks_take(&pool, blocks, 4), 0);
	for (int i = 0; i < 4; i++)
		held[blocks[i]] = 1;
	assert_int_equal(mr_blocks_check(&pool, held), 0);

	mr_blocks_share(&pool, blocks, 1); /* a holder that nobody knows of */
	assert_int_equal(mr_blocks_check(&pool, NULL), 0);
	assert_int_equal(mr_blocks_check(&pool, held), MR_E_INTERNAL);
	mr_blocks_drop(&pool, blocks, 1);
	assert_int_equal(mr_blocks_check(&pool, held), 0);

	mr_blocks_drop(&pool, blocks, 2);
	mr_blocks_drop(&pool, blocks, 1); /* once too often */
	assert_int_equal(mr_blocks_check(&pool, NULL), MR_E_INTERNAL);
	mr_blocks_destroy(&pool);

	assert_int_equal(mr_blocks_create(&pool, 8), 0);
	assert_int_equal(mr_blocks_take(&pool, blocks, 4), 0);
	mr_blocks_drop(&pool, blocks, 4);
	mr_blocks_share(&pool, blocks, 1); /* of a free one */
	assert_int_equal(mr_blocks_check(&pool, NULL), MR_E_INTERNAL);
	mr_blocks_destroy(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_holders),
		cmocka_unit_test(mistakes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
