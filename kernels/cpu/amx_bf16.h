/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numeric class P-amx-bf16: activations rounded to BF16, weights in tiles of BF16 (MR_PACK_BF16_TILES), sums
 * in FP32 tiles. Each output is one tile element that takes all of K in ascending tiles of 32 columns, so
 * it depends on its own row and weights alone: not on how many rows there are, nor on which of the shapes
 * below it falls into.
 *
 * Included by kernels_amx.c and by the tests' emulation.
 */
#ifndef MR_KERNELS_CPU_AMX_BF16_H
#define MR_KERNELS_CPU_AMX_BF16_H

#include <string.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/prefetch.h"
#include "kernels/cpu/tile.h"

/* mr_kernels.quantize: round to nearest even, as mr_float_to_bf16. */
static inline void round_bf16(const float *x, struct mr_q8 *out)
{
	size_t n = (size_t)out->rows * out->cols;

	for (size_t i = 0; i < n; i += 16) {
		__m512i v = _mm512_castps_si512(_mm512_loadu_ps(x + i));
		__mmask16 nan = _mm512_cmp_ps_mask(_mm512_castsi512_ps(v), _mm512_castsi512_ps(v),
						   _CMP_UNORD_Q);
		__m512i even = _mm512_and_si512(_mm512_srli_epi32(v, 16), _mm512_set1_epi32(1));
		__m512i up = _mm512_add_epi32(v, _mm512_add_epi32(even, _mm512_set1_epi32(0x7fff)));

		up = _mm512_mask_or_epi32(up, nan, v, _mm512_set1_epi32(0x400000));
		_mm256_storeu_si256((__m256i *)(out->bf16 + i),
				    _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16)));
	}
}

/*
 * Tiles 0 to 3: sums of (first, second 16 rows) by (first, second 16 outputs). 4, 5: activations.
 * 6, 7: weights. The second 16 rows are there where @rows is above 16.
 */
static inline void configure_bf16(uint32_t rows)
{
	uint8_t a = (uint8_t)(rows < 16 ? rows : 16), b = (uint8_t)(rows > 16 ? rows - 16 : 0);
	uint16_t wide = b ? 64 : 0;
	const struct mr_tile_config config = {
		.palette = 1,
		.row_bytes = {64, 64, wide, wide, 64, wide, 64, 64},
		.rows = {a, a, b, b, a, b, 16, 16},
	};

	mr_tile_configure(&config);
}

/* A tile of sums to y; the matrix's last group may have less than 16 outputs. */
#define STORE_SUMS(tile, at, rows, outputs)                                                  \
	do {                                                                                 \
		if ((outputs) >= 16) {                                                       \
			mr_tile_store(tile, at, (long)(stride * sizeof(float)));             \
		} else {                                                                     \
			mr_tile_store(tile, part, 64);                                       \
			for (uint32_t row = 0; row < (rows); row++)                          \
				memcpy((at) + row * stride, part + 16 * row, 4 * (outputs)); \
		}                                                                            \
	} while (0)

/* Up to 32 activation rows by up to 32 outputs; @two_rows and @two_outputs are constants where it is inlined. */
static inline __attribute__((always_inline)) void block_bf16(const int two_rows,
							     const int two_outputs,
							     const uint8_t *w, const uint16_t *x,
							     size_t cols, uint32_t rows, float *y,
							     size_t stride, uint32_t outputs)
{
	size_t group = cols / 32 * MR_BF16_TILE_BYTES;
	float part[256] __attribute__((aligned(64)));

	mr_tile_zero(0);
	if (two_outputs)
		mr_tile_zero(1);
	if (two_rows)
		mr_tile_zero(2);
	if (two_rows && two_outputs)
		mr_tile_zero(3);
	for (size_t k = 0; k < cols; k += 32, w += MR_BF16_TILE_BYTES) {
		mr_tile_load(4, x + k, (long)(2 * cols));
		mr_tile_load(6, w, 64);
		mr_tile_dot_bf16(0, 4, 6);
		if (two_outputs) {
			mr_tile_load(7, w + group, 64);
			mr_tile_dot_bf16(1, 4, 7);
		}
		if (two_rows) {
			mr_tile_load(5, x + 16 * cols + k, (long)(2 * cols));
			mr_tile_dot_bf16(2, 5, 6);
		}
		if (two_rows && two_outputs)
			mr_tile_dot_bf16(3, 5, 7);
	}
	STORE_SUMS(0, y, two_rows ? 16 : rows, outputs);
	if (two_outputs)
		STORE_SUMS(1, y + 16, two_rows ? 16 : rows, outputs - 16);
	if (two_rows)
		STORE_SUMS(2, y + 16 * stride, rows - 16, outputs);
	if (two_rows && two_outputs)
		STORE_SUMS(3, y + 16 * stride + 16, rows - 16, outputs - 16);
}

/* @rows activation rows, 1 to 32 and configured, by @outputs outputs, 1 to 32. */
static inline void rows_bf16(const uint8_t *w, const uint16_t *x, size_t cols, uint32_t rows,
			     float *y, size_t stride, uint32_t outputs)
{
	if (rows > 16 && outputs > 16)
		block_bf16(1, 1, w, x, cols, rows, y, stride, outputs);
	else if (rows > 16)
		block_bf16(1, 0, w, x, cols, rows, y, stride, outputs);
	else if (outputs > 16)
		block_bf16(0, 1, w, x, cols, rows, y, stride, outputs);
	else
		block_bf16(0, 0, w, x, cols, rows, y, stride, outputs);
}

/* mr_kernels.matmul. Weights are gone through once for all rows in blocks of 32, once more for the rest. */
static inline void matmul_bf16(const struct mr_matrix *w, const struct mr_q8 *x, float *y,
			       size_t stride, uint32_t row0, uint32_t row1, const void *next)
{
	size_t cols = x->cols, group = cols / 32 * MR_BF16_TILE_BYTES;
	const uint8_t *data = (const uint8_t *)w->data + row0 / 16 * group;
	uint32_t whole = x->rows / 32 * 32, rest = x->rows - whole;

	if (whole)
		configure_bf16(32);
	for (uint32_t r = row0; whole && r < row1; r += 32)
		for (uint32_t i = 0; i < whole; i += 32)
			rows_bf16(data + (r - row0) / 16 * group, x->bf16 + i * cols, cols, 32,
				  y + i * stride + r, stride, row1 - r < 32 ? row1 - r : 32);
	if (rest)
		configure_bf16(rest);
	for (uint32_t r = row0; rest && r < row1; r += 32)
		rows_bf16(data + (r - row0) / 16 * group, x->bf16 + whole * cols, cols, rest,
			  y + whole * stride + r, stride, row1 - r < 32 ? row1 - r : 32);
	mr_tile_release();
	if (next)
		mr_prefetch_l2(next, MR_PREFETCH_BYTES);
}

#endif /* MR_KERNELS_CPU_AMX_BF16_H */
