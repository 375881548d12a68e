// SPDX-License-Identifier: Apache-2.0
/* Logarithm, exponential and sine in FP64 for tables and log-probabilities: not in any inner loop.
 */
#include "kernels/cpu/math.h"

#define LN2_A  0x1.62e42fefa39efp-1
#define LN2_B  0x1.abc9e3b39803fp-56
#define PI_2_A 0x1.921fb54442d18p+0
#define PI_2_B 0x1.1a62633145c07p-54
#define ROUND  0x1.8p+52 /* adding and subtracting it rounds to an integer */

static double power_of_two(int64_t n)
{
	uint64_t bits = (uint64_t)(n + 1023) << 52;
	double x;

	memcpy(&x, &bits, 8);
	return x;
}

/*
 * x = m * 2^e with m in [sqrt(1/2), sqrt(2)); ln m = 2 artanh(s), s = (m-1)/(m+1), |s| <= 0.1716,
 * whose series in s^2 falls below 2^-56 after 11 terms.
 */
double mr_log(double x)
{
	uint64_t bits;
	int64_t e;
	double m, s, s2, sum = 0;

	memcpy(&bits, &x, 8);
	e = (int64_t)(bits >> 52) - 1023;
	bits = (bits & ((UINT64_C(1) << 52) - 1)) | (UINT64_C(1023) << 52);
	memcpy(&m, &bits, 8);
	if (m > 0x1.6a09e667f3bcdp+0) {
		m *= 0.5;
		e++;
	}
	s = (m - 1) / (m + 1);
	s2 = s * s;
	for (int k = 23; k >= 3; k -= 2)
		sum = __builtin_fma(sum, s2, 1.0 / k);
	/* The leading term is kept apart, so that its rounding is the only one that counts. */
	sum = __builtin_fma(2 * s, sum * s2, 2 * s);
	return __builtin_fma((double)e, LN2_A, __builtin_fma((double)e, LN2_B, sum));
}

double mr_exp_double(double x)
{
	double n = (x * 0x1.71547652b82fep+0 + ROUND) - ROUND;
	double r = __builtin_fma(-n, LN2_B, __builtin_fma(-n, LN2_A, x));
	double p = 1;

	/* Taylor by Horner's rule: |r| <= 0.347, the 15th term is below 1e-18. */
	for (int k = 15; k >= 1; k--)
		p = __builtin_fma(p, r / k, 1);
	return p * power_of_two((int64_t)n);
}

void mr_sincos(double angle, double *sine, double *cosine)
{
	double n = (angle * 0x1.45f306dc9c883p-1 + ROUND) - ROUND;
	double r = __builtin_fma(-n, PI_2_B, __builtin_fma(-n, PI_2_A, angle));
	double r2 = r * r, s = 1, c = 1;

	/* |r| <= pi/4: the terms in r^19 and r^20 are below 1e-19. */
	for (int k = 18; k >= 2; k -= 2) {
		s = __builtin_fma(s, -r2 / (k * (k + 1)), 1);
		c = __builtin_fma(c, -r2 / (k * (k - 1)), 1);
	}
	s *= r;
	switch ((int64_t)n & 3) {
	case 0:
		*sine = s, *cosine = c;
		break;
	case 1:
		*sine = c, *cosine = -s;
		break;
	case 2:
		*sine = -s, *cosine = -c;
		break;
	default:
		*sine = -c, *cosine = s;
	}
}
