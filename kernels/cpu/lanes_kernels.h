/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every kernel but the matrix product, written once over struct lanes and compiled once for each
 * ISA by kernels_scalar.c, kernels_avx2.c and kernels_avx512.c. The order of operations stands
 * here, so it cannot differ between paths.
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

/* Scores of one block's 16 positions: 16 partial sums by dimension mod 16, then the tree. */
static inline struct lanes block_scores(const uint16_t *k, const float *q, uint32_t head_dim)
{
	struct lanes part[16];

	for (uint32_t p = 0; p < 16; p++) {
		struct lanes sum = lanes_splat(0);

		for (uint32_t d = 0; d < head_dim; d += 16)
			sum = lanes_fma(lanes_load(q + d), lanes_load_half(k + p * head_dim + d),
					sum);
		part[p] = sum;
	}
	return lanes_sum16(part);
}

/*
 * y[d] = sum of p[j] * V[j][d] over the tile's @count positions in ascending order, @width
 * dimensions of them (64 or 16, a constant where it is inlined, so that the sums stay in
 * registers).
 */
static inline __attribute__((always_inline)) void tile_values(const struct mr_attention *a,
							      uint32_t first_block, uint32_t count,
							      const float *p, uint32_t dim,
							      const uint32_t width, float *y)
{
	struct lanes sum[4];

	for (uint32_t i = 0; i < width / 16; i++)
		sum[i] = lanes_splat(0);
	for (uint32_t j = 0; j < count; j += 16) {
		const uint16_t *v = (const void *)(a->kv[first_block + j / 16] + a->v_offset);
		uint32_t end = count - j < 16 ? count - j : 16;

		v += dim;
		for (uint32_t r = 0; r < end; r++) {
			struct lanes weight = lanes_splat(p[j + r]);

			for (uint32_t i = 0; i < width / 16; i++)
				sum[i] = lanes_fma(weight, lanes_load_half(v + 16 * i), sum[i]);
			v += a->head_dim;
		}
	}
	for (uint32_t i = 0; i < width / 16; i++)
		lanes_store(y + 16 * i, sum[i]);
}

/* One tile by itself: its largest score, the sum of its weights, and the weighted sum of its
 * values. */
static inline void tile(const struct mr_attention *a, const float *q, uint32_t position,
			uint32_t count, float *p, float *max_out, float *sum_out, float *y)
{
	uint32_t first_block = position / 16, padded = (count + 15) & ~15u, d = 0;
	struct lanes max = lanes_splat(-__builtin_inff()), sum = lanes_splat(0), m;

	for (uint32_t j = 0; j < padded; j += 16) {
		const uint16_t *k = (const void *)(a->kv[first_block + j / 16] + a->k_offset);

		lanes_store(p + j,
			    lanes_mul(block_scores(k, q, a->head_dim), lanes_splat(a->scale)));
	}
	/* What lies beyond the row's own position may be anything: it weighs nothing. */
	for (uint32_t j = count; j < padded; j++)
		p[j] = -__builtin_inff();
	for (uint32_t j = 0; j < padded; j += 16)
		max = lanes_max(max, lanes_load(p + j));
	*max_out = lanes_max_of(max);
	m = lanes_splat(*max_out);
	for (uint32_t j = 0; j < padded; j += 16) {
		struct lanes e = lanes_exp(lanes_sub(lanes_load(p + j), m));

		lanes_store(p + j, e);
		sum = lanes_add(sum, e);
	}
	*sum_out = lanes_sum(sum);
	for (; d + 64 <= a->head_dim; d += 64)
		tile_values(a, first_block, count, p, d, 64, y + d);
	for (; d < a->head_dim; d += 16)
		tile_values(a, first_block, count, p, d, 16, y + d);
}

static inline void attention(const struct mr_attention *a, const float *q, float *y, float *scratch)
{
	float *p = scratch, *next = scratch + MR_ATTENTION_TILE;
	float max, sum, max1, sum1;
	uint32_t n = a->count < MR_ATTENTION_TILE ? a->count : MR_ATTENTION_TILE;

	tile(a, q, 0, n, p, &max, &sum, y);
	for (uint32_t pos = n; pos < a->count; pos += n) {
		float top, old, new;

		n = a->count - pos < MR_ATTENTION_TILE ? a->count - pos : MR_ATTENTION_TILE;
		tile(a, q, pos, n, p, &max1, &sum1, next);
		top = max > max1 ? max : max1;
		old = mr_exp(max - top);
		new = mr_exp(max1 - top);
		max = top;
		sum = __builtin_fmaf(sum1, new, sum * old);
		for (uint32_t d = 0; d < a->head_dim; d += 16)
			lanes_store(y + d,
				    lanes_fma(lanes_load(next + d), lanes_splat(new),
					      lanes_mul(lanes_load(y + d), lanes_splat(old))));
	}
	for (uint32_t d = 0; d < a->head_dim; d += 16)
		lanes_store(y + d, lanes_div(lanes_load(y + d), lanes_splat(sum)));
}

#endif /* MR_KERNELS_CPU_LANES_KERNELS_H */
