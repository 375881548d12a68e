/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The matrix product of class D on int8 tiles, for Q4_1, Q8_0 and Q4_0: 16 activation rows by 16 output
 * rows, a block of 32 columns at a time. A tile product gives the block's exact int32 dots; they are then
 * scaled as on every path, one FMA chain an output in ascending blocks. Rows that do not fill a tile, and
 * the other weight types, are matmul_avx512.c's, which makes the same bits.
 *
 * Included by kernels_amx.c and by the tests' emulation.
 */
#ifndef MR_KERNELS_CPU_AMX_INT8_H
#define MR_KERNELS_CPU_AMX_INT8_H

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/prefetch.h"
#include "kernels/cpu/tile.h"

#define AMX_INLINE static inline __attribute__((always_inline))

/* Tile 0: 16 x 16 int32. Tile 1: activations, 16 rows by 32 columns. Tile 2: weights, 4 columns of 16 rows a row. */
static const struct mr_tile_config int8_config = {
	.palette = 1,
	.row_bytes = {64, 32, 64},
	.rows = {16, 16, 8},
};

/* Nibbles of a block as int8, @less subtracted: columns 0 to 15 are the low ones. */
AMX_INLINE void unpack_nibbles(const uint8_t *w, int less, uint8_t *to)
{
	const __m512i low = _mm512_set1_epi8(15), sub = _mm512_set1_epi8((char)less);

	for (int g = 0; g < 4; g++) {
		__m512i a = _mm512_loadu_si512(w + 64 * g);
		__m512i a0 = _mm512_and_si512(a, low);
		__m512i a1 = _mm512_and_si512(_mm512_srli_epi16(a, 4), low);

		_mm512_store_si512(to + 64 * g, less ? _mm512_sub_epi8(a0, sub) : a0);
		_mm512_store_si512(to + 256 + 64 * g, less ? _mm512_sub_epi8(a1, sub) : a1);
	}
}

/* The dots of a block, (16 activation rows, 16 output rows) int32, to @dots. */
AMX_INLINE void block_dots(enum mr_packing packing, const uint8_t *w, const int8_t *q, size_t cols,
			   uint8_t *unpacked, int32_t *dots)
{
	const uint8_t *b = w;

	if (packing != MR_PACK_Q8_0X16) {
		unpack_nibbles(w, packing == MR_PACK_Q4_0X16 ? 8 : 0, unpacked);
		b = unpacked;
	}
	mr_tile_zero(0);
	mr_tile_load(1, q, (long)cols);
	mr_tile_load(2, b, 64);
	mr_tile_dot_int8(0, 1, 2);
	mr_tile_store(0, dots, 64);
}

AMX_INLINE __m512 halves16(const uint8_t *p)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

AMX_INLINE void block_scale(enum mr_packing packing, const uint8_t *w, const int32_t *dots,
			    const float *scale, const int32_t *sum, size_t blocks, __m512 *acc)
{
	__m512 w_d = halves16(w + (packing == MR_PACK_Q8_0X16 ? 512 : 256));
	__m512 w_m = packing == MR_PACK_Q4_1X16 ? halves16(w + 288) : _mm512_setzero_ps();

#pragma GCC unroll 16
	for (int i = 0; i < 16; i++) {
		__m512 dx = _mm512_set1_ps(scale[i * blocks]);
		__m512 dot = _mm512_cvtepi32_ps(_mm512_load_si512(dots + 16 * i));

		acc[i] = _mm512_fmadd_ps(_mm512_mul_ps(w_d, dx), dot, acc[i]);
		if (packing == MR_PACK_Q4_1X16)
			acc[i] = _mm512_fmadd_ps(
				_mm512_mul_ps(w_m, dx),
				_mm512_cvtepi32_ps(_mm512_set1_epi32(sum[i * blocks])), acc[i]);
	}
}

/* 16 activation rows from @row on. The dots of one block are made while those of the one before are scaled. */
AMX_INLINE void tile_rows(enum mr_packing packing, const uint8_t *w, const struct mr_q8 *x,
			  uint32_t row, float *y, size_t stride, uint32_t outputs)
{
	const size_t bytes = packing == MR_PACK_Q4_1X16   ? MR_Q4_1X16_BYTES
			     : packing == MR_PACK_Q4_0X16 ? MR_Q4_0X16_BYTES
							  : MR_Q8_0X16_BYTES;
	uint8_t unpacked[2][512] __attribute__((aligned(64)));
	int32_t dots[2][256] __attribute__((aligned(64)));
	size_t blocks = x->cols / 32, first = row * blocks;
	const int8_t *q = x->q + (size_t)row * x->cols;
	__mmask16 mask = (__mmask16)((1u << outputs) - 1);
	__m512 acc[16];

#pragma GCC unroll 16
	for (int i = 0; i < 16; i++)
		acc[i] = _mm512_setzero_ps();
	block_dots(packing, w, q, x->cols, unpacked[0], dots[0]);
	for (size_t b = 0; b < blocks; b++, w += bytes) {
		if (b + 1 < blocks)
			block_dots(packing, w + bytes, q + 32 * (b + 1), x->cols,
				   unpacked[(b + 1) % 2], dots[(b + 1) % 2]);
		block_scale(packing, w, dots[b % 2], x->scale + first + b, x->sum + first + b,
			    blocks, acc);
	}
#pragma GCC unroll 16
	for (int i = 0; i < 16; i++)
		_mm512_mask_storeu_ps(y + i * stride, mask, acc[i]);
}

AMX_INLINE void tile_product(enum mr_packing packing, const struct mr_matrix *w,
			     const struct mr_q8 *x, uint32_t rows, float *y, size_t stride,
			     uint32_t row0, uint32_t row1)
{
	size_t group_bytes = mr_pack_bytes(packing, 16, w->cols);
	const uint8_t *data = (const uint8_t *)w->data + row0 / 16 * group_bytes;

	mr_tile_configure(&int8_config);
	for (uint32_t r = row0; r < row1; r += 16, data += group_bytes)
		for (uint32_t i = 0; i < rows; i += 16)
			tile_rows(packing, data, x, i, y + i * stride + r, stride,
				  row1 - r < 16 ? row1 - r : 16);
	mr_tile_release();
}

/* mr_kernels.matmul */
static inline void matmul_int8(const struct mr_matrix *w, const struct mr_q8 *x, float *y,
			       size_t stride, uint32_t row0, uint32_t row1, const void *next)
{
	uint32_t rows = x->rows / MR_AMX_ROWS * MR_AMX_ROWS;
	size_t at = (size_t)rows * x->cols;
	struct mr_q8 rest = *x;

	if (w->packing != MR_PACK_Q4_1X16 && w->packing != MR_PACK_Q8_0X16 &&
	    w->packing != MR_PACK_Q4_0X16)
		rows = 0;
	if (rows == 0) {
		mr_matmul_avx512(w, x, y, stride, row0, row1, next);
		return;
	}
	if (w->packing == MR_PACK_Q4_1X16)
		tile_product(MR_PACK_Q4_1X16, w, x, rows, y, stride, row0, row1);
	else if (w->packing == MR_PACK_Q8_0X16)
		tile_product(MR_PACK_Q8_0X16, w, x, rows, y, stride, row0, row1);
	else
		tile_product(MR_PACK_Q4_0X16, w, x, rows, y, stride, row0, row1);
	if (rows == x->rows) {
		if (next)
			mr_prefetch_l2(next, MR_PREFETCH_BYTES);
		return;
	}
	rest.rows -= rows;
	rest.q += at;
	rest.scale += at / 32;
	rest.sum += at / 32;
	rest.x = x->x ? x->x + at : NULL;
	mr_matmul_avx512(w, &rest, y + rows * stride, stride, row0, row1, next);
}

#endif /* MR_KERNELS_CPU_AMX_INT8_H */
