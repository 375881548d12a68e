/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every kernel but the matrix product and attention (lanes_attention.h), written once over struct
 * lanes and compiled once for each ISA by kernels_scalar.c, kernels_avx2.c and kernels_avx512.c. The
 * order of operations stands here, so it cannot differ between paths.
 */
#ifndef MR_KERNELS_CPU_LANES_KERNELS_H
#define MR_KERNELS_CPU_LANES_KERNELS_H

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/math.h"

/* mr_exp of math.h, 16 at a time. */
static inline struct lanes lanes_exp(struct lanes x)
{
	struct lanes c = lanes_min(lanes_splat(MR_EXP_MAX), x);
	struct lanes t = lanes_fma(c, lanes_splat(MR_EXP_LOG2E), lanes_splat(MR_EXP_ROUND));
	struct lanes n = lanes_sub(t, lanes_splat(MR_EXP_ROUND));
	struct lanes r = lanes_fma(n, lanes_splat(-MR_EXP_LN2_B),
				   lanes_fma(n, lanes_splat(-MR_EXP_LN2_A), c));
	struct lanes p = lanes_splat(MR_EXP_C7);

	p = lanes_fma(p, r, lanes_splat(MR_EXP_C6));
	p = lanes_fma(p, r, lanes_splat(MR_EXP_C5));
	p = lanes_fma(p, r, lanes_splat(MR_EXP_C4));
	p = lanes_fma(p, r, lanes_splat(MR_EXP_C3));
	p = lanes_fma(p, r, lanes_splat(0.5f));
	p = lanes_fma(p, r, lanes_splat(1.0f));
	p = lanes_fma(p, r, lanes_splat(1.0f));
	return lanes_zero_below(lanes_scale(p, t), x, MR_EXP_MIN);
}

static inline void quantize(const float *x, struct mr_q8 *out)
{
	size_t blocks = (size_t)out->rows * out->cols / 32;

	if (out->x)
		memcpy(out->x, x, 32 * blocks * sizeof(*x));
	for (size_t b = 0; b < blocks; b++) {
		struct lanes lo = lanes_load(x + 32 * b), hi = lanes_load(x + 32 * b + 16);
		float amax = lanes_amax(lo, hi);
		struct lanes top = lanes_splat(127.0f), bottom = lanes_splat(-127.0f), inverse;

		if (amax < MR_Q8_AMAX_MIN) {
			memset(out->q + 32 * b, 0, 32);
			out->scale[b] = 0;
			out->sum[b] = 0;
			continue;
		}
		inverse = lanes_splat(127.0f / amax);
		/* Clamped, so that NaN and infinity give some int8; the scale carries them on. */
		lo = lanes_min(lanes_max(lanes_mul(lo, inverse), bottom), top);
		hi = lanes_min(lanes_max(lanes_mul(hi, inverse), bottom), top);
		out->scale[b] = amax / 127.0f;
		out->sum[b] = lanes_to_int8(lo, hi, out->q + 32 * b);
	}
}

static inline void rmsnorm(const float *x, const float *weight, uint32_t n, float eps, float *y)
{
	struct lanes sum = lanes_splat(0), scale;
	float mean;

	for (uint32_t i = 0; i < n; i += 16) {
		struct lanes v = lanes_load(x + i);

		sum = lanes_fma(v, v, sum);
	}
	mean = lanes_sum(sum) / (float)n + eps;
	scale = lanes_splat(1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(mean))));
	for (uint32_t i = 0; i < n; i += 16)
		lanes_store(y + i,
			    lanes_mul(lanes_mul(lanes_load(x + i), scale), lanes_load(weight + i)));
}

static inline void rope(float *x, uint32_t heads, uint32_t head_dim, const float *cos_sin)
{
	for (uint32_t h = 0; h < heads; h++, x += head_dim)
		for (uint32_t i = 0; i < head_dim; i += 16)
			lanes_store(x + i,
				    lanes_rotate(lanes_load(x + i), lanes_load(cos_sin + i)));
}

/* gate / (1 + e^-gate) * up */
static inline void swiglu(const float *gate, const float *up, uint32_t n, float *y)
{
	struct lanes one = lanes_splat(1.0f), zero = lanes_splat(0.0f);

	for (uint32_t i = 0; i < n; i += 16) {
		struct lanes g = lanes_load(gate + i);
		struct lanes e = lanes_exp(lanes_sub(zero, g));
		struct lanes silu = lanes_div(g, lanes_add(one, e));

		lanes_store(y + i, lanes_mul(silu, lanes_load(up + i)));
	}
}

static inline void add(float *x, const float *y, uint32_t n)
{
	for (uint32_t i = 0; i < n; i += 16)
		lanes_store(x + i, lanes_add(lanes_load(x + i), lanes_load(y + i)));
}

static inline void to_half(const float *x, uint32_t n, uint16_t *y)
{
	for (uint32_t i = 0; i < n; i += 16)
		lanes_store_half(y + i, lanes_load(x + i));
}

#endif /* MR_KERNELS_CPU_LANES_KERNELS_H */
