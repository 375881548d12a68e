/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Class D's pieces over rows, for a device that runs them one by one as instructions (firmware-sim): the
 * same operations in the same order as in lanes_kernels.h and lanes_attention.h, which this is included
 * after, in kernels_scalar.c, kernels_avx2.c and kernels_avx512.c.
 */
#ifndef MR_KERNELS_CPU_LANES_ROWS_H
#define MR_KERNELS_CPU_LANES_ROWS_H

#include <string.h>

#include "kernels/cpu/lanes_attention.h"
#include "kernels/cpu/lanes_kernels.h"

/* Up to 16 values, the rest @rest. */
static inline struct lanes lanes_load_some(const float *p, uint32_t n, float rest)
{
	float all[16];

	for (uint32_t i = 0; i < 16; i++)
		all[i] = i < n ? p[i] : rest;
	return lanes_load(all);
}

static inline void exps(const float *x, float minus, uint32_t n, float *y)
{
	struct lanes m = lanes_splat(minus);
	uint32_t i = 0;
	float rest[16];

	for (; i + 16 <= n; i += 16)
		lanes_store(y + i, lanes_exp(lanes_sub(lanes_load(x + i), m)));
	if (i == n)
		return;
	lanes_store(rest, lanes_exp(lanes_sub(lanes_load_some(x + i, n - i, 0), m)));
	memcpy(y + i, rest, (n - i) * sizeof(*y));
}

static inline float row_sum(const float *x, uint32_t n)
{
	struct lanes sum = lanes_splat(0);
	uint32_t i = 0;

	for (; i + 16 <= n; i += 16)
		sum = lanes_add(sum, lanes_load(x + i));
	if (i < n)
		sum = lanes_add(sum, lanes_load_some(x + i, n - i, 0));
	return lanes_sum(sum);
}

static inline float row_squares(const float *x, uint32_t n)
{
	struct lanes sum = lanes_splat(0);
	uint32_t i = 0;

	for (; i + 16 <= n; i += 16) {
		struct lanes v = lanes_load(x + i);

		sum = lanes_fma(v, v, sum);
	}
	if (i < n) {
		struct lanes v = lanes_load_some(x + i, n - i, 0);

		sum = lanes_fma(v, v, sum);
	}
	return lanes_sum(sum);
}

static inline float row_max(const float *x, uint32_t n)
{
	struct lanes max = lanes_splat(-__builtin_inff());
	uint32_t i = 0;

	for (; i + 16 <= n; i += 16)
		max = lanes_max(max, lanes_load(x + i));
	if (i < n)
		max = lanes_max(max, lanes_load_some(x + i, n - i, -__builtin_inff()));
	return lanes_max_of(max);
}

static inline void half_dots(uint8_t *const *block, size_t offset, uint32_t blocks, const float *x,
			     uint32_t rows, uint32_t dim, float scale, float *y)
{
	for (uint32_t i = 0, n; i < rows; i += n) {
		n = rows - i < ATTENTION_TOGETHER ? rows - i : ATTENTION_TOGETHER;
		for (uint32_t b = 0; b < blocks; b++) {
			const uint16_t *k = (const void *)(block[b] + offset);
			float *to = y + i * MR_ATTENTION_TILE + 16 * b;

#define SOME(queries)                                                                \
	case queries:                                                                \
		if (dim == 64)                                                       \
			block_scores(k, NULL, x + i * dim, queries, 64, scale, to);  \
		else                                                                 \
			block_scores(k, NULL, x + i * dim, queries, dim, scale, to); \
		break
			switch (n) {
				SOME(1);
#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
				SOME(2);
				SOME(3);
				SOME(4);
#endif
			}
#undef SOME
		}
	}
}

static inline void half_sums(uint8_t *const *block, size_t offset, uint32_t count, const float *p,
			     uint32_t rows, uint32_t dim, float *y)
{
	const struct mr_attention a = {.kv = block, .v_offset = offset, .head_dim = dim};

	for (uint32_t i = 0; i < rows; i++) {
		const float *x = p + i * MR_ATTENTION_TILE;
		uint32_t d = 0;

		for (; d + 64 <= dim; d += 64)
			tile_values(&a, 0, count, x, NULL, 0, d, 1, 64, y + i * dim + d, dim);
		for (; d < dim; d += 16)
			tile_values(&a, 0, count, x, NULL, 0, d, 1, 16, y + i * dim + d, dim);
	}
}

#define LANES_ROWS                                                                        \
	.exps = exps, .row_sum = row_sum, .row_squares = row_squares, .row_max = row_max, \
	.half_dots = half_dots, .half_sums = half_sums

#endif /* MR_KERNELS_CPU_LANES_ROWS_H */
