// SPDX-License-Identifier: Apache-2.0
/*
 * The matrix product of class D on AVX2. A group of 16 output rows is two registers of 8 lanes; a
 * tile of up to 4 activation rows shares each weight that is loaded and unpacked, so that decoding
 * (one row) runs at memory's pace and prefill (many) at the multipliers'.
 */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/formats.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/prefetch.h"

#define TILE 4

struct acc {
	__m256 lo, hi;
};

static inline __m256i broadcast4(const int8_t *q)
{
	int32_t word;

	memcpy(&word, q, 4);
	return _mm256_set1_epi32(word);
}

static inline __m256 halves(const uint8_t *p)
{
	return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

/* The weights of one call and what is streamed after them. */
struct stream {
	const uint8_t *end, *next;
};

/* For a lone row only what comes next: see matmul_avx512.c. */
static inline void prefetch(const uint8_t *w, size_t bytes, const int n, const struct stream *s)
{
	const uint8_t *p = w + MR_PREFETCH_BYTES;

	if (p >= s->end)
		p = s->next ? s->next + (p - s->end) : w;
	else if (n <= 1)
		return;
	mr_prefetch_l2(p, bytes);
}

/*
 * A block of 16 rows by 32 columns times @n activation rows. Nibbles are at most 15 and activations
 * at most 127, so 8 products of a pair of columns (8 * 2 * 15 * 127 = 30,480) add up in 16 bits.
 */
static inline __attribute__((always_inline)) void block_q4_1(const uint8_t *w, const int8_t *q,
							     size_t stride, const float *scale,
							     const int32_t *sum, size_t blocks,
							     const int n, struct acc *acc)
{
	const __m256i low = _mm256_set1_epi8(15), ones = _mm256_set1_epi16(1);
	__m256i d[TILE][2];
	__m256 w_d[2] = {halves(w + 256), halves(w + 272)};
	__m256 w_m[2] = {halves(w + 288), halves(w + 304)};

	for (int i = 0; i < n; i++)
		d[i][0] = d[i][1] = _mm256_setzero_si256();
	for (int g = 0; g < 4; g++) {
		__m256i a = _mm256_loadu_si256((const __m256i *)(w + 64 * g));
		__m256i b = _mm256_loadu_si256((const __m256i *)(w + 64 * g + 32));
		__m256i a0 = _mm256_and_si256(a, low);
		__m256i b0 = _mm256_and_si256(b, low);
		__m256i a1 = _mm256_and_si256(_mm256_srli_epi16(a, 4), low);
		__m256i b1 = _mm256_and_si256(_mm256_srli_epi16(b, 4), low);

		for (int i = 0; i < n; i++) {
			__m256i q0 = broadcast4(q + i * stride + 4 * g);
			__m256i q1 = broadcast4(q + i * stride + 4 * g + 16);

			d[i][0] = _mm256_add_epi16(d[i][0], _mm256_maddubs_epi16(a0, q0));
			d[i][1] = _mm256_add_epi16(d[i][1], _mm256_maddubs_epi16(b0, q0));
			d[i][0] = _mm256_add_epi16(d[i][0], _mm256_maddubs_epi16(a1, q1));
			d[i][1] = _mm256_add_epi16(d[i][1], _mm256_maddubs_epi16(b1, q1));
		}
	}
	for (int i = 0; i < n; i++) {
		__m256 dx = _mm256_set1_ps(scale[i * blocks]);
		__m256 qs = _mm256_set1_ps((float)sum[i * blocks]);
		__m256 lo = _mm256_cvtepi32_ps(_mm256_madd_epi16(d[i][0], ones));
		__m256 hi = _mm256_cvtepi32_ps(_mm256_madd_epi16(d[i][1], ones));

		acc[i].lo = _mm256_fmadd_ps(_mm256_mul_ps(w_d[0], dx), lo, acc[i].lo);
		acc[i].hi = _mm256_fmadd_ps(_mm256_mul_ps(w_d[1], dx), hi, acc[i].hi);
		acc[i].lo = _mm256_fmadd_ps(_mm256_mul_ps(w_m[0], dx), qs, acc[i].lo);
		acc[i].hi = _mm256_fmadd_ps(_mm256_mul_ps(w_m[1], dx), qs, acc[i].hi);
	}
}

/*
 * The same for signed bytes: |w| times q with w's sign. |w| is at most 128 (as an unsigned byte),
 * so a pair is at most 32,512 and fits 16 bits, but two pairs do not: they add up in 32.
 */
static inline __attribute__((always_inline)) void block_q8_0(const uint8_t *w, const int8_t *q,
							     size_t stride, const float *scale,
							     const int32_t *sum, size_t blocks,
							     const int n, struct acc *acc)
{
	const __m256i ones = _mm256_set1_epi16(1);
	__m256i d[TILE][2];
	__m256 w_d[2] = {halves(w + 512), halves(w + 528)};

	for (int i = 0; i < n; i++)
		d[i][0] = d[i][1] = _mm256_setzero_si256();
	for (int g = 0; g < 8; g++) {
		__m256i a = _mm256_loadu_si256((const __m256i *)(w + 64 * g));
		__m256i b = _mm256_loadu_si256((const __m256i *)(w + 64 * g + 32));
		__m256i abs_a = _mm256_abs_epi8(a), abs_b = _mm256_abs_epi8(b);

		for (int i = 0; i < n; i++) {
			__m256i x = broadcast4(q + i * stride + 4 * g);
			__m256i pa = _mm256_maddubs_epi16(abs_a, _mm256_sign_epi8(x, a));
			__m256i pb = _mm256_maddubs_epi16(abs_b, _mm256_sign_epi8(x, b));

			d[i][0] = _mm256_add_epi32(d[i][0], _mm256_madd_epi16(pa, ones));
			d[i][1] = _mm256_add_epi32(d[i][1], _mm256_madd_epi16(pb, ones));
		}
	}
	for (int i = 0; i < n; i++) {
		__m256 dx = _mm256_set1_ps(scale[i * blocks]);

		acc[i].lo = _mm256_fmadd_ps(_mm256_mul_ps(w_d[0], dx), _mm256_cvtepi32_ps(d[i][0]),
					    acc[i].lo);
		acc[i].hi = _mm256_fmadd_ps(_mm256_mul_ps(w_d[1], dx), _mm256_cvtepi32_ps(d[i][1]),
					    acc[i].hi);
	}
}

/* 16 output rows of activation rows @row and on; @q4 and @n are constants where it is inlined. */
static inline __attribute__((always_inline)) void rows(const int q4, const uint8_t *w,
						       const struct mr_q8 *x, uint32_t row,
						       const int n, float *y, size_t stride,
						       uint32_t outputs, const struct stream *s)
{
	size_t blocks = x->cols / 32, first = row * blocks;
	size_t bytes = q4 ? MR_Q4_1X16_BYTES : MR_Q8_0X16_BYTES;
	struct acc acc[TILE];

	for (int i = 0; i < n; i++) {
		float so_far[16] = {0};

		if (x->chain)
			memcpy(so_far, y + i * stride, outputs * sizeof(float));
		acc[i].lo = _mm256_loadu_ps(so_far);
		acc[i].hi = _mm256_loadu_ps(so_far + 8);
	}
	for (size_t b = 0; b < blocks; b++, w += bytes) {
		if (row == 0)
			prefetch(w, bytes, n, s);
		if (q4)
			block_q4_1(w, x->q + 32 * (first + b), x->cols, x->scale + first + b,
				   x->sum + first + b, blocks, n, acc);
		else
			block_q8_0(w, x->q + 32 * (first + b), x->cols, x->scale + first + b,
				   x->sum + first + b, blocks, n, acc);
	}
	for (int i = 0; i < n; i++) {
		float out[16];

		if (outputs == 16) {
			_mm256_storeu_ps(y + i * stride, acc[i].lo);
			_mm256_storeu_ps(y + i * stride + 8, acc[i].hi);
			continue;
		}
		_mm256_storeu_ps(out, acc[i].lo);
		_mm256_storeu_ps(out + 8, acc[i].hi);
		memcpy(y + i * stride, out, outputs * sizeof(float));
	}
}

static inline __attribute__((always_inline)) void product(const int q4, const struct mr_matrix *w,
							  const struct mr_q8 *x, float *y,
							  size_t stride, uint32_t row0,
							  uint32_t row1, const void *next)
{
	size_t group_bytes = mr_pack_bytes(w->packing, 16, w->cols);
	const uint8_t *data = (const uint8_t *)w->data + row0 / 16 * group_bytes;
	const struct stream s = {data + (row1 - row0 + 15) / 16 * group_bytes, next};

	for (uint32_t r = row0; r < row1; r += 16, data += group_bytes) {
		uint32_t n = row1 - r < 16 ? row1 - r : 16, i = 0;

		for (; i + TILE <= x->rows; i += TILE)
			rows(q4, data, x, i, TILE, y + i * stride + r, stride, n, &s);
		if (i + 2 <= x->rows) {
			rows(q4, data, x, i, 2, y + i * stride + r, stride, n, &s);
			i += 2;
		}
		if (i < x->rows)
			rows(q4, data, x, i, 1, y + i * stride + r, stride, n, &s);
	}
}

void mr_matmul_avx2(const struct mr_matrix *w, const struct mr_q8 *x, float *y, size_t stride,
		    uint32_t row0, uint32_t row1, const void *next)
{
	if (mr_is_other_format(w->packing)) {
		mr_formats_avx2(w, x, y, stride, row0, row1);
		if (next)
			mr_prefetch_l2(next, MR_PREFETCH_BYTES);
	} else if (w->packing == MR_PACK_Q4_1X16)
		product(1, w, x, y, stride, row0, row1, next);
	else
		product(0, w, x, y, stride, row0, row1, next);
}
