/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transcendental functions of class D, so that no libm decides a bit. Each is a fixed sequence
 * of IEEE operations: the same bits wherever MXCSR is 0x1F80. The kernels, the sampler and the
 * workspace call them.
 */
#ifndef MR_KERNELS_CPU_MATH_H
#define MR_KERNELS_CPU_MATH_H

#include <stdint.h>
#include <string.h>

/*
 * e^x in FP32 = 2^n * e^r with n = round(x * log2 e) and |r| <= ln2 / 2; e^r is its Taylor
 * polynomial of degree 7, whose error (6e-9) is below half a unit in the last place. Above
 * MR_EXP_MAX it stays at the value there; below MR_EXP_MIN it is 0, so that no result is subnormal.
 */
#define MR_EXP_MAX   88.0f
#define MR_EXP_MIN   (-87.0f)
#define MR_EXP_LOG2E 0x1.715476p+0f
#define MR_EXP_LN2_A 0x1.62e430p-1f   /* ln 2 rounded to FP32 */
#define MR_EXP_LN2_B -0x1.05c610p-29f /* what that left out */
#define MR_EXP_ROUND 0x1.8p+23f       /* adding it leaves n in the mantissa's low bits */
#define MR_EXP_C7    (1.0f / 5040.0f)
#define MR_EXP_C6    (1.0f / 720.0f)
#define MR_EXP_C5    (1.0f / 120.0f)
#define MR_EXP_C4    (1.0f / 24.0f)
#define MR_EXP_C3    (1.0f / 6.0f)

/* The same operations as lanes_exp in lanes_kernels.h, for one value. */
static inline float mr_exp(float x)
{
	float c = MR_EXP_MAX < x ? MR_EXP_MAX : x;
	float t = __builtin_fmaf(c, MR_EXP_LOG2E, MR_EXP_ROUND);
	float n = t - MR_EXP_ROUND;
	float r = __builtin_fmaf(n, -MR_EXP_LN2_B, __builtin_fmaf(n, -MR_EXP_LN2_A, c));
	float p = MR_EXP_C7;
	uint32_t bits, shift;

	p = __builtin_fmaf(p, r, MR_EXP_C6);
	p = __builtin_fmaf(p, r, MR_EXP_C5);
	p = __builtin_fmaf(p, r, MR_EXP_C4);
	p = __builtin_fmaf(p, r, MR_EXP_C3);
	p = __builtin_fmaf(p, r, 0.5f);
	p = __builtin_fmaf(p, r, 1.0f);
	p = __builtin_fmaf(p, r, 1.0f);
	memcpy(&bits, &p, 4);
	memcpy(&shift, &t, 4);
	bits += shift << 23;
	memcpy(&p, &bits, 4);
	return x < MR_EXP_MIN ? 0.0f : p;
}

/* Natural logarithm of a finite x > 0, within 1e-15 of the larger of 1 and the result. */
double mr_log(double x);
/* e^x for |x| <= 700, relative error below 1e-14. */
double mr_exp_double(double x);
/* Sine and cosine of |angle| <= 1e6, absolute error below 1e-12. */
void mr_sincos(double angle, double *sine, double *cosine);

#endif /* MR_KERNELS_CPU_MATH_H */
