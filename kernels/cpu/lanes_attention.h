/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention over paged FP16 KV, written once over struct lanes as lanes_kernels.h is. Up to
 * MR_ATTENTION_QUERIES query heads that share a KV head go together, so that what is loaded and widened of
 * K and V serves all of them; each query's own operations and their order do not depend on the company.
 *
 * What comes next is fetched to the second cache: from there it comes in time, and the few misses that the
 * first cache can have under way do not bound the stream (12 against 20 GB/s, measured).
 */
#ifndef MR_KERNELS_CPU_LANES_ATTENTION_H
#define MR_KERNELS_CPU_LANES_ATTENTION_H

#include <string.h>

#include "kernels/cpu/lanes_kernels.h"
#include "kernels/cpu/prefetch.h"

/* Queries whose sums over 64 dimensions stay in registers: 4 lanes each, of 32 registers or 8. */
#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
#define ATTENTION_TOGETHER 4u
#else
#define ATTENTION_TOGETHER 1u
#endif

/* Keys of block @j of tile @tile of @a, or NULL where it has none. */
static inline const uint16_t *attention_keys(const struct mr_attention *a, uint32_t tile,
					     uint32_t j)
{
	uint32_t block = tile * (MR_ATTENTION_TILE / 16) + j;

	if (!a || j == MR_ATTENTION_TILE / 16 || block * 16 >= a->count)
		return NULL;
	return (const void *)(a->kv[block] + a->k_offset);
}

/*
 * Scores of @queries queries over one block's 16 positions: 16 partial sums by dimension mod 16, then the
 * tree. scores + i * MR_ATTENTION_TILE is query i's. @fetch: as many positions to be fetched meanwhile, a
 * position at a time, or NULL. @queries and @dim are constants where it is inlined.
 */
static inline __attribute__((always_inline)) void block_scores(
	const uint16_t *k, const uint16_t *fetch, const float *q, const uint32_t queries,
	const uint32_t dim, float scale, float *scores)
{
	struct lanes part[ATTENTION_TOGETHER][16];

	for (uint32_t p = 0; p < 16; p++) {
		struct lanes sum[ATTENTION_TOGETHER];

		if (fetch)
			mr_prefetch_l2(fetch + p * dim, dim * sizeof(uint16_t));
		for (uint32_t i = 0; i < queries; i++)
			sum[i] = lanes_splat(0);
		for (uint32_t d = 0; d < dim; d += 16) {
			struct lanes key = lanes_load_half(k + p * dim + d);

			for (uint32_t i = 0; i < queries; i++)
				sum[i] = lanes_fma(lanes_load(q + i * dim + d), key, sum[i]);
		}
		for (uint32_t i = 0; i < queries; i++)
			part[i][p] = sum[i];
	}
	for (uint32_t i = 0; i < queries; i++)
		lanes_store(scores + i * MR_ATTENTION_TILE,
			    lanes_mul(lanes_sum16(part[i]), lanes_splat(scale)));
}

/*
 * y[d] = sum of p[j] * V[j][d] over the tile's @count positions in ascending order, @width dimensions of
 * them from @dim on (64 or 16, a constant where it is inlined, so that the sums stay in registers).
 */
static inline __attribute__((always_inline)) void tile_values(
	const struct mr_attention *a, uint32_t first_block, uint32_t count, const float *p,
	const struct mr_attention *next, uint32_t next_tile, uint32_t dim, const uint32_t queries,
	const uint32_t width, float *y, size_t stride)
{
	struct lanes sum[ATTENTION_TOGETHER][4];

	for (uint32_t i = 0; i < queries; i++)
		for (uint32_t l = 0; l < width / 16; l++)
			sum[i][l] = lanes_splat(0);
	for (uint32_t j = 0; j < count; j += 16) {
		const uint16_t *v = (const void *)(a->kv[first_block + j / 16] + a->v_offset);
		uint32_t end = count - j < 16 ? count - j : 16;

		const uint16_t *fetch = attention_keys(next, next_tile, j / 16);

		v += dim;
		for (uint32_t r = 0; r < end; r++) {
			if (fetch)
				mr_prefetch_l2(fetch + r * a->head_dim,
					       a->head_dim * sizeof(uint16_t));
			for (uint32_t l = 0; l < width / 16; l++) {
				struct lanes value = lanes_load_half(v + 16 * l);

				for (uint32_t i = 0; i < queries; i++)
					sum[i][l] = lanes_fma(
						lanes_splat(p[i * MR_ATTENTION_TILE + j + r]),
						value, sum[i][l]);
			}
			v += a->head_dim;
		}
	}
	for (uint32_t i = 0; i < queries; i++)
		for (uint32_t l = 0; l < width / 16; l++)
			lanes_store(y + i * stride + 16 * l, sum[i][l]);
}

/* Scores to weights: p[j] = e^(p[j] - max), 0 from @count on; returns their sum. */
static inline float tile_weights(float *p, uint32_t count, float *max_out)
{
	uint32_t padded = (count + 15) & ~15u;
	struct lanes max = lanes_splat(-__builtin_inff()), sum = lanes_splat(0), m;

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
	return lanes_sum(sum);
}

/* A tile's partial results: the weighted sum of its values, its largest score, the sum of its weights. */
static inline __attribute__((always_inline)) void attend_some(const struct mr_attention *a,
							      const float *q, uint32_t tile,
							      const struct mr_attention *next,
							      uint32_t next_tile,
							      const uint32_t queries, float *part,
							      size_t stride, float *p)
{
	uint32_t first_block = tile * (MR_ATTENTION_TILE / 16), dim = a->head_dim, d = 0;
	uint32_t count = a->count - tile * MR_ATTENTION_TILE;

	if (count > MR_ATTENTION_TILE)
		count = MR_ATTENTION_TILE;
	for (uint32_t j = 0; j < count; j += 16) {
		const uint8_t *block = a->kv[first_block + j / 16];
		const uint16_t *k = (const void *)(block + a->k_offset);

		const uint16_t *v = (const void *)(block + a->v_offset);

		if (!a->prefetch)
			v = NULL;
		if (dim == 64)
			block_scores(k, v, q, queries, 64, a->scale, p + j);
		else
			block_scores(k, v, q, queries, dim, a->scale, p + j);
	}
	for (uint32_t i = 0; i < queries; i++)
		part[i * stride + dim + 1] =
			tile_weights(p + i * MR_ATTENTION_TILE, count, &part[i * stride + dim]);
	for (; d + 64 <= dim; d += 64, next = NULL)
		tile_values(a, first_block, count, p, next, next_tile, d, queries, 64, part + d,
			    stride);
	for (; d < dim; d += 16, next = NULL)
		tile_values(a, first_block, count, p, next, next_tile, d, queries, 16, part + d,
			    stride);
}

/* @next, @next_tile: whose keys to fetch meanwhile. */
static inline void attend_tile(const struct mr_attention *a, const float *q, uint32_t tile,
			       const struct mr_attention *next, uint32_t next_tile, float *part,
			       size_t stride, float *scratch)
{
	if (!a->prefetch)
		next = NULL;
	for (uint32_t i = 0, n; i < a->queries; i += n, q += n * a->head_dim, part += n * stride) {
		n = a->queries - i < ATTENTION_TOGETHER ? a->queries - i : ATTENTION_TOGETHER;
#define SOME(queries)                                                                     \
	case queries:                                                                     \
		attend_some(a, q, tile, next, next_tile, queries, part, stride, scratch); \
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

static inline void attend(const struct mr_attention *a, const float *q, uint32_t tile, float *part,
			  size_t stride, float *scratch)
{
	attend_tile(a, q, tile, a->next, a->next_tile, part, stride, scratch);
}

/* Takes the next tile's partial results into those of all tiles before it. */
static inline void merge_step(float *run, const float *next, uint32_t dim)
{
	float max = run[dim], max1 = next[dim], top = max > max1 ? max : max1;
	float old = mr_exp(max - top), new = mr_exp(max1 - top);

	run[dim] = top;
	run[dim + 1] = __builtin_fmaf(next[dim + 1], new, run[dim + 1] * old);
	for (uint32_t d = 0; d < dim; d += 16)
		lanes_store(run + d, lanes_fma(lanes_load(next + d), lanes_splat(new),
					       lanes_mul(lanes_load(run + d), lanes_splat(old))));
}

static inline void merge_end(const float *run, uint32_t dim, float *y)
{
	for (uint32_t d = 0; d < dim; d += 16)
		lanes_store(y + d, lanes_div(lanes_load(run + d), lanes_splat(run[dim + 1])));
}

/* Reads @parts only: several threads may merge the same ones at a time. */
static inline void merge(const float *parts, uint32_t tiles, uint32_t dim, float *y, float *scratch)
{
	memcpy(scratch, parts, (dim + 2) * sizeof(float));
	for (uint32_t t = 1; t < tiles; t++)
		merge_step(scratch, parts + t * MR_ATTENTION_PART(dim), dim);
	merge_end(scratch, dim, y);
}

static inline void attention(const struct mr_attention *a, const float *q, float *y, float *scratch)
{
	size_t stride = MR_ATTENTION_PART(a->head_dim);
	float *run = scratch + MR_ATTENTION_QUERIES * MR_ATTENTION_TILE;
	float *next = run + MR_ATTENTION_QUERIES * stride;
	uint32_t tiles = (a->count - 1) / MR_ATTENTION_TILE + 1;

	for (uint32_t t = 0; t < tiles; t++) {
		int last = t + 1 == tiles;

		attend_tile(a, q, t, last ? a->next : a, last ? a->next_tile : t + 1,
			    t ? next : run, stride, scratch);
		for (uint32_t i = 0; t && i < a->queries; i++)
			merge_step(run + i * stride, next + i * stride, a->head_dim);
	}
	for (uint32_t i = 0; i < a->queries; i++)
		merge_end(run + i * stride, a->head_dim, y + i * a->head_dim);
}

#endif /* MR_KERNELS_CPU_LANES_ATTENTION_H */
