// SPDX-License-Identifier: Apache-2.0
/* driver/lpu/fifo.h against a model of it: what is held is never handed out again, what fits is not refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "driver/lpu/fifo.h"

#define SIZE 37u

struct piece {
	uint64_t at, n, end;
};

static void pieces_never_overlap(void **state)
{
	for (unsigned seed = 1; seed <= 50; seed++) {
		struct fifo f = {.size = SIZE};
		struct piece held[SIZE];
		uint8_t used[SIZE] = {0};
		uint32_t count = 0;

		srand(seed);
		for (unsigned i = 0; i < 4000; i++) {
			uint64_t n = 1 + (uint64_t)rand() % (seed % 2 ? 9 : SIZE);
			uint64_t at = rand() % 3 ? fifo_take(&f, n) : FIFO_NONE;

			if (at != FIFO_NONE) {
				assert_true(at + n <= SIZE);
				for (uint64_t k = at; k < at + n; k++)
					assert_int_equal(used[k]++, 0);
				held[count++] = (struct piece){at, n, f.tail};
				assert_true(f.tail - f.head <= SIZE && f.at < SIZE);
			} else if (count) {
				memset(used + held[0].at, 0, held[0].n);
				fifo_give(&f, held[0].end);
				memmove(held, held + 1, --count * sizeof(held[0]));
			}
		}
	}
}

static void empty_starts_anew(void **state)
{
	struct fifo f = {.size = SIZE};

	assert_int_equal(fifo_take(&f, SIZE), 0); /* all of it */
	assert_true(fifo_take(&f, 1) == FIFO_NONE);
	fifo_give(&f, f.tail);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(fifo_take(&f, 5), 0);
		assert_int_equal(fifo_take(&f, 7), 5);
		assert_true(fifo_take(&f, SIZE + 1) == FIFO_NONE);
		fifo_give(&f, f.tail);
	}
	assert_int_equal(fifo_take(&f, 20), 0);
	assert_int_equal(fifo_take(&f, 17), 20); /* to the end */
	fifo_give(&f, f.head + 20);
	assert_int_equal(fifo_take(&f, 20), 0); /* round it */
	assert_true(fifo_take(&f, 1) == FIFO_NONE);
}

/* Who took nothing gives back to where the tail was then. */
static void an_old_end_takes_nothing_back(void **state)
{
	struct fifo f = {.size = SIZE};
	uint64_t end;

	assert_int_equal(fifo_take(&f, 3), 0);
	fifo_give(&f, f.tail);
	end = f.tail;
	assert_int_equal(fifo_take(&f, 30), 0);
	fifo_give(&f, end);
	assert_int_equal(fifo_take(&f, 7), 30);
	assert_true(fifo_take(&f, 1) == FIFO_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_never_overlap),
		cmocka_unit_test(empty_starts_anew),
		cmocka_unit_test(an_old_end_takes_nothing_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
