// SPDX-License-Identifier: Apache-2.0
/* FP16: all 65,536 values there and back, and rounding to nearest even between any two neighbours. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "kernels/cpu/half.h"

/* The value that the bits spell, by the definition of binary16. */
static double spelt(uint16_t h)
{
	int exponent = h >> 10 & 31, mantissa = h & 1023;
	double x = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);

	return h >> 15 ? -x : x;
}

static void there_and_back(void **state)
{
	for (uint32_t h = 0; h < 65536; h++) {
		float f = mr_half_to_float((uint16_t)h);

		if ((h & 0x7c00) == 0x7c00) {
			assert_true(h & 1023 ? isnan(f) : isinf(f));
			assert_true(h & 1023 || mr_float_to_half(f) == h);
			continue;
		}
		assert_true((double)f == spelt((uint16_t)h));
		assert_int_equal(mr_float_to_half(f), h);
	}
}

static void rounding(void **state)
{
	for (uint16_t h = 0; h < 0x7bff; h++) {
		double low = spelt(h), high = spelt(h + 1), mid = (low + high) / 2;

		assert_int_equal(mr_float_to_half((float)mid), h & 1 ? h + 1 : h);
		assert_int_equal(mr_float_to_half(nextafterf((float)mid, 0)), h);
		assert_int_equal(mr_float_to_half(nextafterf((float)mid, 1e9f)), h + 1);
	}
	assert_int_equal(mr_float_to_half(65519.996f), 0x7bff);
	assert_int_equal(mr_float_to_half(65520), 0x7c00);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(rounding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
