/* SPDX-License-Identifier: Apache-2.0 */
/* Sixteen lanes in plain C: what each operation means. See lanes.h. */
#ifndef MR_KERNELS_CPU_LANES_SCALAR_H
#define MR_KERNELS_CPU_LANES_SCALAR_H

#include <stdint.h>
#include <string.h>

#include "kernels/cpu/half.h"

struct lanes {
	float f[16];
};

#define LANES_EACH(expression)                    \
	({                                        \
		struct lanes out_;                \
		for (int i = 0; i < 16; i++)      \
			out_.f[i] = (expression); \
		out_;                             \
	})

static inline struct lanes lanes_load(const float *p)
{
	return LANES_EACH(p[i]);
}

static inline void lanes_store(float *p, struct lanes a)
{
	memcpy(p, a.f, sizeof(a.f));
}

static inline struct lanes lanes_splat(float f)
{
	return LANES_EACH(f);
}

static inline struct lanes lanes_load_half(const uint16_t *p)
{
	return LANES_EACH(mr_half_to_float(p[i]));
}

static inline void lanes_store_half(uint16_t *p, struct lanes a)
{
	for (int i = 0; i < 16; i++)
		p[i] = mr_float_to_half(a.f[i]);
}

static inline struct lanes lanes_add(struct lanes a, struct lanes b)
{
	return LANES_EACH(a.f[i] + b.f[i]);
}

static inline struct lanes lanes_sub(struct lanes a, struct lanes b)
{
	return LANES_EACH(a.f[i] - b.f[i]);
}

static inline struct lanes lanes_mul(struct lanes a, struct lanes b)
{
	return LANES_EACH(a.f[i] * b.f[i]);
}

static inline struct lanes lanes_div(struct lanes a, struct lanes b)
{
	return LANES_EACH(a.f[i] / b.f[i]);
}

static inline struct lanes lanes_fma(struct lanes a, struct lanes b, struct lanes c)
{
	return LANES_EACH(__builtin_fmaf(a.f[i], b.f[i], c.f[i]));
}

/* b where either is NaN, as the vector instruction has it. */
static inline struct lanes lanes_max(struct lanes a, struct lanes b)
{
	return LANES_EACH(a.f[i] > b.f[i] ? a.f[i] : b.f[i]);
}

static inline struct lanes lanes_min(struct lanes a, struct lanes b)
{
	return LANES_EACH(a.f[i] < b.f[i] ? a.f[i] : b.f[i]);
}

/* y, but 0 where x < limit. */
static inline struct lanes lanes_zero_below(struct lanes y, struct lanes x, float limit)
{
	return LANES_EACH(x.f[i] < limit ? 0.0f : y.f[i]);
}

/* Adds t's low mantissa bits to p's exponent: the 2^n of exp. */
static inline struct lanes lanes_scale(struct lanes p, struct lanes t)
{
	uint32_t bits[16], shift[16];

	memcpy(bits, p.f, sizeof(bits));
	memcpy(shift, t.f, sizeof(shift));
	for (int i = 0; i < 16; i++)
		bits[i] += shift[i] << 23;
	memcpy(p.f, bits, sizeof(bits));
	return p;
}

/* Rotates the pairs (2i, 2i+1) of x by the angles whose (cos, sin) are the pairs of cs. */
static inline struct lanes lanes_rotate(struct lanes x, struct lanes cs)
{
	struct lanes y;

	for (int i = 0; i < 16; i += 2) {
		y.f[i] = __builtin_fmaf(x.f[i], cs.f[i], -(x.f[i + 1] * cs.f[i + 1]));
		y.f[i + 1] = __builtin_fmaf(x.f[i + 1], cs.f[i], x.f[i] * cs.f[i + 1]);
	}
	return y;
}

/* The fixed tree: lane i + lane i+8, then i+4, then i+2, then i+1. */
static inline float lanes_sum(struct lanes a)
{
	for (int half = 8; half; half /= 2)
		for (int i = 0; i < half; i++)
			a.f[i] += a.f[i + half];
	return a.f[0];
}

static inline float lanes_max_of(struct lanes a)
{
	float max = a.f[0];

	for (int i = 1; i < 16; i++)
		max = a.f[i] > max ? a.f[i] : max;
	return max;
}

/* Lane i = lanes_sum(a[i]). */
static inline struct lanes lanes_sum16(const struct lanes a[16])
{
	return LANES_EACH(lanes_sum(a[i]));
}

/* Largest |x| of 32 values, NaN where one is NaN: compared as integers. */
static inline float lanes_amax(struct lanes a, struct lanes b)
{
	uint32_t x[32], max = 0;
	float f;

	memcpy(x, a.f, 64);
	memcpy(x + 16, b.f, 64);
	for (int i = 0; i < 32; i++) {
		x[i] &= 0x7fffffff;
		max = x[i] > max ? x[i] : max;
	}
	memcpy(&f, &max, 4);
	return f;
}

/* 32 integral values in -127..127 as int8; returns their sum. */
static inline int32_t lanes_to_int8(struct lanes a, struct lanes b, int8_t *q)
{
	int32_t sum = 0;

	for (int i = 0; i < 16; i++) {
		/* CVTSS2SI: rounds to nearest even, as the vector conversion does. */
		int lo = _mm_cvtss_si32(_mm_set_ss(a.f[i])),
		    hi = _mm_cvtss_si32(_mm_set_ss(b.f[i]));

		q[i] = (int8_t)lo;
		q[16 + i] = (int8_t)hi;
		sum += lo + hi;
	}
	return sum;
}

#endif /* MR_KERNELS_CPU_LANES_SCALAR_H */
