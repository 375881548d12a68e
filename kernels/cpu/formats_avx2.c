// SPDX-License-Identifier: Apache-2.0
/*
 * The other weight types on AVX2. A group of 16 output rows is two registers of 8 lanes; a tile of up to
 * 4 activation rows shares each weight. @packing and @n are constants where functions are inlined.
 */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/formats.h"
#include "kernels/cpu/pack.h"

#define TILE   4
#define INLINE static inline __attribute__((always_inline))

struct pair {
	__m256 lo, hi;
};

INLINE __m256i broadcast4(const int8_t *q)
{
	int32_t word;

	memcpy(&word, q, 4);
	return _mm256_set1_epi32(word);
}

INLINE struct pair halves(const uint8_t *p)
{
	return (struct pair){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
			     _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 16)))};
}

INLINE struct pair bytes(const uint8_t *p)
{
	__m128i v = _mm_loadu_si128((const __m128i *)p);

	return (struct pair){_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v)),
			     _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(v, 8)))};
}

INLINE struct pair signed_bytes(const uint8_t *p)
{
	__m128i v = _mm_loadu_si128((const __m128i *)p);

	return (struct pair){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)),
			     _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(v, 8)))};
}

INLINE struct pair times(struct pair a, struct pair b)
{
	return (struct pair){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}

INLINE struct pair negative(struct pair a)
{
	const __m256 sign = _mm256_set1_ps(-0.0f);

	return (struct pair){_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
}

/* v shifted left by @by bits, right where it is negative. */
INLINE __m256i shift(__m256i v, int by)
{
	return by < 0 ? _mm256_srli_epi16(v, -by) : _mm256_slli_epi16(v, by);
}

INLINE __m256i load(const uint8_t *p)
{
	return _mm256_loadu_si256((const __m256i *)p);
}

/* Columns 4g to 4g+3 (@high: 16 more) of rows 0 to 7 (@upper: 8 to 15) as unsigned bytes. */
INLINE __m256i weights(enum mr_packing packing, const uint8_t *w, int g, int high, int upper)
{
	__m256i a = load(w + 64 * g + 32 * upper);

	a = _mm256_and_si256(shift(a, high ? -4 : 0), _mm256_set1_epi8(15));
	if (packing == MR_PACK_Q5_KX16) {
		__m256i bit = shift(load(w + 256 + 32 * upper), 4 - (g + 4 * high));

		a = _mm256_or_si256(a, _mm256_and_si256(bit, _mm256_set1_epi8(16)));
	}
	if (packing == MR_PACK_Q6_KX16) {
		__m256i two = shift(load(w + 256 + 64 * high + 32 * upper), 4 - 2 * g);

		a = _mm256_or_si256(a, _mm256_and_si256(two, _mm256_set1_epi8(48)));
	}
	return a;
}

INLINE void chain(struct pair *acc, struct pair scale, __m256 dx, __m256 lo, __m256 hi)
{
	acc->lo = _mm256_fmadd_ps(_mm256_mul_ps(scale.lo, dx), lo, acc->lo);
	acc->hi = _mm256_fmadd_ps(_mm256_mul_ps(scale.hi, dx), hi, acc->hi);
}

/*
 * 16 output rows by 32 columns. w_d, w_m: what the 256 columns of a _K type share. A pair of products is
 * at most 2 * 63 * 127 = 16,002: it fits 16 bits.
 */
INLINE void block(enum mr_packing packing, const uint8_t *w, struct pair w_d, struct pair w_m,
		  const struct mr_q8 *x, size_t first, const int n, struct pair *acc)
{
	const int parts = packing == MR_PACK_Q6_KX16 ? 2 : 1;
	const __m256i ones = _mm256_set1_epi16(1);
	size_t blocks = x->cols / 32;
	const int8_t *q = x->q + 32 * first;
	__m256i d[TILE][2][2];
	struct pair scale[2] = {w_d, w_d};

	for (int i = 0; i < n; i++) {
		int32_t start[2] = {0, 0};

		if (packing == MR_PACK_Q4_0X16)
			start[0] = -8 * x->sum[first + i * blocks];
		if (packing == MR_PACK_Q6_KX16) {
			mr_half_sums(q + (size_t)i * x->cols, start);
			start[0] *= -32;
			start[1] *= -32;
		}
		for (int p = 0; p < parts; p++)
			d[i][p][0] = d[i][p][1] = _mm256_set1_epi32(start[p]);
	}
#pragma GCC unroll 4
	for (int g = 0; g < 4; g++) {
#pragma GCC unroll 2
		for (int high = 0; high < 2; high++) {
			__m256i a = weights(packing, w, g, high, 0);
			__m256i b = weights(packing, w, g, high, 1);

			for (int i = 0; i < n; i++) {
				__m256i *to = d[i][parts == 2 ? high : 0];
				__m256i in =
					broadcast4(q + (size_t)i * x->cols + 4 * g + 16 * high);
				__m256i pa = _mm256_maddubs_epi16(a, in);
				__m256i pb = _mm256_maddubs_epi16(b, in);

				to[0] = _mm256_add_epi32(to[0], _mm256_madd_epi16(pa, ones));
				to[1] = _mm256_add_epi32(to[1], _mm256_madd_epi16(pb, ones));
			}
		}
	}
	if (packing == MR_PACK_Q4_0X16) {
		scale[0] = halves(w + 256);
	} else if (packing == MR_PACK_Q6_KX16) {
		scale[0] = times(w_d, signed_bytes(w + 384));
		scale[1] = times(w_d, signed_bytes(w + 400));
	} else {
		const uint8_t *tail = w + (packing == MR_PACK_Q5_KX16 ? 320 : 256);

		scale[0] = times(w_d, bytes(tail));
		w_m = times(w_m, bytes(tail + 16));
	}
	for (int i = 0; i < n; i++) {
		__m256 dx = _mm256_set1_ps(x->scale[first + i * blocks]);

		for (int p = 0; p < parts; p++)
			chain(&acc[i], scale[p], dx, _mm256_cvtepi32_ps(d[i][p][0]),
			      _mm256_cvtepi32_ps(d[i][p][1]));
		if (packing == MR_PACK_Q4_KX16 || packing == MR_PACK_Q5_KX16) {
			__m256 sum = _mm256_set1_ps((float)x->sum[first + i * blocks]);

			chain(&acc[i], w_m, dx, sum, sum);
		}
	}
}

/* 16 output rows of activation rows @row and on: quantised weights. */
INLINE void rows_quantized(enum mr_packing packing, const uint8_t *w, const struct mr_q8 *x,
			   uint32_t row, const int n, struct pair *acc)
{
	const int k = packing != MR_PACK_Q4_0X16, q6 = packing == MR_PACK_Q6_KX16;
	const size_t step = packing == MR_PACK_Q4_0X16   ? MR_Q4_0X16_BYTES
			    : packing == MR_PACK_Q4_KX16 ? MR_Q4_KX16_STEP
			    : packing == MR_PACK_Q5_KX16 ? MR_Q5_KX16_STEP
							 : MR_Q6_KX16_STEP;
	size_t blocks = x->cols / 32, first = row * blocks;
	struct pair w_d = {_mm256_setzero_ps(), _mm256_setzero_ps()}, w_m = w_d;

	for (size_t b = 0; b < blocks; b++, w += step) {
		if (k && b % 8 == 0) {
			w_d = halves(w);
			/* exact, and with it a minimum is added, as Q4_1's */
			if (!q6)
				w_m = negative(halves(w + 32));
			w += q6 ? 32 : 64;
		}
		block(packing, w, w_d, w_m, x, first + b, n, acc);
	}
}

INLINE struct pair values(enum mr_packing packing, const uint8_t *w)
{
	__m256i v = load(w);

	if (packing == MR_PACK_F32X16)
		return (struct pair){_mm256_loadu_ps((const float *)w),
				     _mm256_loadu_ps((const float *)w + 8)};
	if (packing == MR_PACK_F16X16)
		return halves(w);
	return (struct pair){_mm256_castsi256_ps(_mm256_slli_epi32(
				     _mm256_cvtepu16_epi32(_mm256_castsi256_si128(v)), 16)),
			     _mm256_castsi256_ps(_mm256_slli_epi32(
				     _mm256_cvtepu16_epi32(_mm256_extracti128_si256(v, 1)), 16))};
}

/* The same for float weights. */
INLINE void rows_float(enum mr_packing packing, const uint8_t *w, const struct mr_q8 *x,
		       uint32_t row, const int n, struct pair *acc)
{
	const size_t step = packing == MR_PACK_F32X16 ? 64 : 32;
	const float *in = x->x + (size_t)row * x->cols;

	for (uint32_t c = 0; c < x->cols; c++, w += step) {
		struct pair v = values(packing, w);

		for (int i = 0; i < n; i++) {
			__m256 a = _mm256_set1_ps(in[(size_t)i * x->cols + c]);

			acc[i].lo = _mm256_fmadd_ps(v.lo, a, acc[i].lo);
			acc[i].hi = _mm256_fmadd_ps(v.hi, a, acc[i].hi);
		}
	}
}

/* The 16 output rows at @w, of which @outputs are the matrix's, for @n activation rows. */
INLINE void tile(enum mr_packing packing, const uint8_t *w, const struct mr_q8 *x, uint32_t row,
		 const int n, float *y, size_t stride, uint32_t outputs)
{
	struct pair acc[TILE];

	for (int i = 0; i < n; i++)
		acc[i].lo = acc[i].hi = _mm256_setzero_ps();
	if (packing >= MR_PACK_F32X16)
		rows_float(packing, w, x, row, n, acc);
	else
		rows_quantized(packing, w, x, row, n, acc);
	for (int i = 0; i < n; i++) {
		float out[16];

		_mm256_storeu_ps(out, acc[i].lo);
		_mm256_storeu_ps(out + 8, acc[i].hi);
		memcpy(y + (row + i) * stride, out, outputs * sizeof(float));
	}
}

INLINE void product(enum mr_packing packing, const struct mr_matrix *m, const struct mr_q8 *x,
		    float *y, size_t stride, uint32_t row0, uint32_t row1)
{
	size_t group_bytes = mr_pack_bytes(packing, 16, m->cols);

	for (uint32_t r = row0; r < row1; r += 16) {
		const uint8_t *w = (const uint8_t *)m->data + r / 16 * group_bytes;
		uint32_t outputs = row1 - r < 16 ? row1 - r : 16, i = 0;

		for (; i + TILE <= x->rows; i += TILE)
			tile(packing, w, x, i, TILE, y + r, stride, outputs);
		for (; i < x->rows; i++)
			tile(packing, w, x, i, 1, y + r, stride, outputs);
	}
}

void mr_formats_avx2(const struct mr_matrix *w, const struct mr_q8 *x, float *y, size_t stride,
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
