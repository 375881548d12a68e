// SPDX-License-Identifier: Apache-2.0
/*
 * The other weight types on AVX-512 VNNI. A group of 16 output rows is one register; a tile of up to 8
 * activation rows shares each weight. @packing, @n and @groups are constants where functions are
 * inlined.
 */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/formats.h"
#include "kernels/cpu/pack.h"

#define TILE   8
#define INLINE static inline __attribute__((always_inline))

INLINE __m512i broadcast4(const int8_t *q)
{
	int32_t word;

	memcpy(&word, q, 4);
	return _mm512_set1_epi32(word);
}

INLINE __m512 halves(const uint8_t *p)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

INLINE __m512 bytes(const uint8_t *p)
{
	return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

INLINE __m512 signed_bytes(const uint8_t *p)
{
	return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

/* v shifted left by @by bits, right where it is negative. */
INLINE __m512i shift(__m512i v, int by)
{
	return by < 0 ? _mm512_srli_epi16(v, (unsigned)-by) : _mm512_slli_epi16(v, (unsigned)by);
}

/* Columns 4g to 4g+3 (@high: 16 more) of 16 rows as unsigned bytes. */
INLINE __m512i weights(enum mr_packing packing, const uint8_t *w, int g, int high)
{
	__m512i a = _mm512_loadu_si512(w + 64 * g);

	a = _mm512_and_si512(shift(a, high ? -4 : 0), _mm512_set1_epi8(15));
	if (packing == MR_PACK_Q5_KX16) {
		__m512i bit = shift(_mm512_loadu_si512(w + 256), 4 - (g + 4 * high));

		a = _mm512_or_si512(a, _mm512_and_si512(bit, _mm512_set1_epi8(16)));
	}
	if (packing == MR_PACK_Q6_KX16) {
		__m512i pair = shift(_mm512_loadu_si512(w + 256 + 64 * high), 4 - 2 * g);

		a = _mm512_or_si512(a, _mm512_and_si512(pair, _mm512_set1_epi8(48)));
	}
	return a;
}

/* 16 output rows by 32 columns. w_d, w_m: what the 256 columns of a _K type share. */
INLINE void block(enum mr_packing packing, const uint8_t *w, __m512 w_d, __m512 w_m,
		  const struct mr_q8 *x, size_t first, const int n, __m512 *acc)
{
	const int parts = packing == MR_PACK_Q6_KX16 ? 2 : 1;
	size_t blocks = x->cols / 32;
	const int8_t *q = x->q + 32 * first;
	__m512i d[TILE][2];
	__m512 scale[2];

	for (int i = 0; i < n; i++) {
		int32_t sum[2];

		d[i][0] = d[i][1] = _mm512_setzero_si512();
		if (packing == MR_PACK_Q4_0X16)
			d[i][0] = _mm512_set1_epi32(-8 * x->sum[first + i * blocks]);
		if (packing == MR_PACK_Q6_KX16) {
			mr_half_sums(q + (size_t)i * x->cols, sum);
			d[i][0] = _mm512_set1_epi32(-32 * sum[0]);
			d[i][1] = _mm512_set1_epi32(-32 * sum[1]);
		}
	}
#pragma GCC unroll 4
	for (int g = 0; g < 4; g++) {
#pragma GCC unroll 2
		for (int high = 0; high < 2; high++) {
			__m512i a = weights(packing, w, g, high);

			for (int i = 0; i < n; i++) {
				__m512i *to = &d[i][parts == 2 ? high : 0];
				const int8_t *in = q + (size_t)i * x->cols + 4 * g + 16 * high;

				*to = _mm512_dpbusd_epi32(*to, a, broadcast4(in));
			}
		}
	}
	scale[0] = scale[1] = w_d;
	if (packing == MR_PACK_Q4_0X16) {
		scale[0] = halves(w + 256);
	} else if (packing == MR_PACK_Q6_KX16) {
		scale[0] = _mm512_mul_ps(w_d, signed_bytes(w + 384));
		scale[1] = _mm512_mul_ps(w_d, signed_bytes(w + 400));
	} else {
		const uint8_t *tail = w + (packing == MR_PACK_Q5_KX16 ? 320 : 256);

		scale[0] = _mm512_mul_ps(w_d, bytes(tail));
		w_m = _mm512_mul_ps(w_m, bytes(tail + 16));
	}
	for (int i = 0; i < n; i++) {
		__m512 dx = _mm512_set1_ps(x->scale[first + i * blocks]);

		for (int p = 0; p < parts; p++)
			acc[i] = _mm512_fmadd_ps(_mm512_mul_ps(scale[p], dx),
						 _mm512_cvtepi32_ps(d[i][p]), acc[i]);
		if (packing == MR_PACK_Q4_KX16 || packing == MR_PACK_Q5_KX16) {
			__m512 sum = _mm512_set1_ps((float)x->sum[first + i * blocks]);

			acc[i] = _mm512_fmadd_ps(_mm512_mul_ps(w_m, dx), sum, acc[i]);
		}
	}
}

/* 16 output rows of activation rows @row and on: quantised weights. */
INLINE void rows_quantized(enum mr_packing packing, const uint8_t *w, const struct mr_q8 *x,
			   uint32_t row, const int n, __m512 *acc)
{
	const int k = packing != MR_PACK_Q4_0X16, q6 = packing == MR_PACK_Q6_KX16;
	const size_t step = packing == MR_PACK_Q4_0X16   ? MR_Q4_0X16_BYTES
			    : packing == MR_PACK_Q4_KX16 ? MR_Q4_KX16_STEP
			    : packing == MR_PACK_Q5_KX16 ? MR_Q5_KX16_STEP
							 : MR_Q6_KX16_STEP;
	size_t blocks = x->cols / 32, first = row * blocks;
	__m512 w_d = _mm512_setzero_ps(), w_m = w_d;

	for (size_t b = 0; b < blocks; b++, w += step) {
		if (k && b % 8 == 0) {
			w_d = halves(w);
			/* exact, and with it a minimum is added, as Q4_1's */
			if (!q6)
				w_m = _mm512_xor_ps(halves(w + 32), _mm512_set1_ps(-0.0f));
			w += q6 ? 32 : 64;
		}
		block(packing, w, w_d, w_m, x, first + b, n, acc);
	}
}

INLINE __m512 values(enum mr_packing packing, const uint8_t *w)
{
	__m256i v;

	if (packing == MR_PACK_F32X16)
		return _mm512_loadu_ps(w);
	if (packing == MR_PACK_F16X16)
		return halves(w);
	v = _mm256_loadu_si256((const __m256i *)w);
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}

/* The same for float weights, of @groups groups: several chains at once hide an FMA's latency. */
INLINE void rows_float(enum mr_packing packing, const uint8_t *w, size_t group_bytes,
		       const int groups, const struct mr_q8 *x, uint32_t row, const int n,
		       __m512 *acc)
{
	const size_t step = packing == MR_PACK_F32X16 ? 64 : 32;
	const float *in = x->x + (size_t)row * x->cols;

	for (uint32_t c = 0; c < x->cols; c++, w += step) {
		__m512 v[4];

		for (int g = 0; g < groups; g++)
			v[g] = values(packing, w + g * group_bytes);
		for (int i = 0; i < n; i++) {
			__m512 a = _mm512_set1_ps(in[(size_t)i * x->cols + c]);

			for (int g = 0; g < groups; g++)
				acc[g * n + i] = _mm512_fmadd_ps(v[g], a, acc[g * n + i]);
		}
	}
}

/* @groups groups of output rows from @r on (the last may be cut at @row1), @n activation rows. */
INLINE void tile(enum mr_packing packing, const struct mr_matrix *m, const int groups,
		 const struct mr_q8 *x, uint32_t row, const int n, float *y, size_t stride,
		 uint32_t r, uint32_t row1)
{
	size_t group_bytes = mr_pack_bytes(packing, 16, m->cols);
	const uint8_t *w = (const uint8_t *)m->data + r / 16 * group_bytes;
	__m512 acc[TILE];

	for (int i = 0; i < groups * n; i++)
		acc[i] = _mm512_setzero_ps();
	if (packing >= MR_PACK_F32X16)
		rows_float(packing, w, group_bytes, groups, x, row, n, acc);
	else
		rows_quantized(packing, w, x, row, n, acc);
	for (int g = 0; g < groups; g++, r += 16) {
		uint32_t outputs = row1 - r < 16 ? row1 - r : 16;
		__mmask16 mask = (__mmask16)((1u << outputs) - 1);

		for (int i = 0; i < n; i++)
			_mm512_mask_storeu_ps(y + (row + i) * stride + r, mask, acc[g * n + i]);
	}
}

INLINE void product(enum mr_packing packing, const struct mr_matrix *m, const struct mr_q8 *x,
		    float *y, size_t stride, uint32_t row0, uint32_t row1)
{
	const int most = packing >= MR_PACK_F32X16 ? 4 : 1;

	for (uint32_t r = row0; r < row1;) {
		int groups = row1 - r > 48 && x->rows % 4 ? most : 1;
		uint32_t i = 0;

		for (; i + TILE <= x->rows; i += TILE)
			for (int g = 0; g < groups; g++)
				tile(packing, m, 1, x, i, TILE, y, stride, r + 16 * g, row1);
		for (; i + 4 <= x->rows; i += 4)
			for (int g = 0; g < groups; g++)
				tile(packing, m, 1, x, i, 4, y, stride, r + 16 * g, row1);
		for (; i < x->rows; i++) {
			if (groups == 4)
				tile(packing, m, 4, x, i, 1, y, stride, r, row1);
			else
				tile(packing, m, 1, x, i, 1, y, stride, r, row1);
		}
		r += 16 * (uint32_t)groups;
	}
}

void mr_formats_avx512(const struct mr_matrix *w, const struct mr_q8 *x, float *y, size_t stride,
		       uint32_t row0, uint32_t row1)
{
#define CASE(packing)                                          \
	case packing:                                          \
		product(packing, w, x, y, stride, row0, row1); \
		break
	switch (w->packing) {
		CASE(MR_PACK_Q4_0X16);
		CASE(MR_PACK_Q4_KX16);
		CASE(MR_PACK_Q5_KX16);
		CASE(MR_PACK_Q6_KX16);
		CASE(MR_PACK_F32X16);
		CASE(MR_PACK_F16X16);
		CASE(MR_PACK_BF16X16);
	default:
		break;
	}
#undef CASE
}
