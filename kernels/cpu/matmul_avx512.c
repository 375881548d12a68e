// SPDX-License-Identifier: Apache-2.0
/*
 * The matrix products of class D and class P-avx512 on AVX-512 VNNI. A group of 16 output rows is one register;
 * VPDPBUSD adds four columns of it at once. A tile of up to 8 activation rows shares each weight.
 */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/formats.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/prefetch.h"

#define TILE 8 /* activation rows that share a weight: with their sums they fill the registers */

static inline __m512i broadcast4(const int8_t *q)
{
	int32_t word;

	memcpy(&word, q, 4);
	return _mm512_set1_epi32(word);
}

static inline __m512 halves(const uint8_t *p)
{
	return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

/* The weights of one call and what is streamed after them. */
struct stream {
	const uint8_t *end, *next;
	size_t ahead;  /* bytes to fetch ahead */
	size_t spread; /* tiles that share the fetching, by blocks, less 1; a power of two less 1 */
};

/*
 * A lone row streams at the pace that the hardware's own fetching reaches, and instructions for it only slow it
 * down (they take the first cache's few places for misses); they are for the start of what comes next. With more
 * rows the hardware loses the stream among theirs.
 */
static inline void prefetch(const uint8_t *w, size_t bytes, const int n, const struct stream *s)
{
	const uint8_t *p = w + s->ahead;

	if (p >= s->end)
		p = s->next ? s->next + (p - s->end) : w;
	else if (n <= 2)
		return;
	mr_prefetch_l2(p, bytes);
}

/*
 * A block's dots @d to the sums of @n rows, @w_d and @w_m the weights' scales and minima; @at is the first row's
 * block of the activations, @blocks of them a row. Class P (@p) has the minimum's activations scaled once for
 * all outputs, class D scales the minimum.
 */
static inline __attribute__((always_inline)) void scale_block(const int q4, const int p, __m512 w_d,
							      __m512 w_m, const struct mr_q8 *x,
							      size_t at, size_t blocks, const int n,
							      const __m512i *d, __m512 *acc)
{
	for (int i = 0; i < n; i++) {
		size_t b = at + i * blocks;
		__m512 dx = _mm512_set1_ps(x->scale[b]);

		acc[i] = _mm512_fmadd_ps(_mm512_mul_ps(w_d, dx), _mm512_cvtepi32_ps(d[i]), acc[i]);
		if (q4 && p)
			acc[i] = _mm512_fmadd_ps(w_m, _mm512_set1_ps(x->scaled_sum[b]), acc[i]);
		else if (q4)
			acc[i] = _mm512_fmadd_ps(_mm512_mul_ps(w_m, dx),
						 _mm512_cvtepi32_ps(_mm512_set1_epi32(x->sum[b])),
						 acc[i]);
	}
}

static inline __attribute__((always_inline)) void block_q4_1(const int p, const uint8_t *w,
							     const struct mr_q8 *x, size_t at,
							     size_t blocks, const int n,
							     __m512 *acc)
{
	const __m512i low = _mm512_set1_epi8(15);
	__m512i d[TILE];

	for (int i = 0; i < n; i++)
		d[i] = _mm512_setzero_si512();
	for (int g = 0; g < 4; g++) {
		__m512i a = _mm512_loadu_si512(w + 64 * g);
		__m512i a0 = _mm512_and_si512(a, low);
		__m512i a1 = _mm512_and_si512(_mm512_srli_epi16(a, 4), low);

		for (int i = 0; i < n; i++) {
			const int8_t *q = x->q + 32 * (at + i * blocks) + 4 * g;

			d[i] = _mm512_dpbusd_epi32(d[i], a0, broadcast4(q));
			d[i] = _mm512_dpbusd_epi32(d[i], a1, broadcast4(q + 16));
		}
	}
	scale_block(1, p, halves(w + 256), halves(w + 288), x, at, blocks, n, d, acc);
}

/* VPDPBUSD wants unsigned weights: w + 128, less 128 times the sum of the activations. */
static inline __attribute__((always_inline)) void block_q8_0(const uint8_t *w,
							     const struct mr_q8 *x, size_t at,
							     size_t blocks, const int n,
							     __m512 *acc)
{
	const __m512i sign = _mm512_set1_epi8(-128);
	__m512i d[TILE];

	for (int i = 0; i < n; i++)
		d[i] = _mm512_set1_epi32((int32_t)(0u - 128u * (uint32_t)x->sum[at + i * blocks]));
	for (int g = 0; g < 8; g++) {
		__m512i a = _mm512_xor_si512(_mm512_loadu_si512(w + 64 * g), sign);

		for (int i = 0; i < n; i++)
			d[i] = _mm512_dpbusd_epi32(
				d[i], a, broadcast4(x->q + 32 * (at + i * blocks) + 4 * g));
	}
	scale_block(0, 0, halves(w + 512), _mm512_setzero_ps(), x, at, blocks, n, d, acc);
}

/* 16 output rows of activation rows @row and on; @q4, @p and @n are constants where it is inlined. */
static inline __attribute__((always_inline)) void rows(const int q4, const int p, const uint8_t *w,
						       const struct mr_q8 *x, uint32_t row,
						       const int n, float *y, size_t stride,
						       uint32_t outputs, const struct stream *s)
{
	size_t blocks = x->cols / 32, first = row * blocks;
	size_t bytes = q4 ? MR_Q4_1X16_BYTES : MR_Q8_0X16_BYTES;
	__mmask16 mask = (__mmask16)((1u << outputs) - 1);
	__m512 acc[TILE];

	for (int i = 0; i < n; i++)
		acc[i] = x->chain ? _mm512_maskz_loadu_ps(mask, y + i * stride)
				  : _mm512_setzero_ps();
	for (size_t b = 0; b < blocks; b++, w += bytes) {
		if ((b & s->spread) == (row / TILE & s->spread))
			prefetch(w, bytes, n, s);
		if (q4)
			block_q4_1(p, w, x, first + b, blocks, n, acc);
		else
			block_q8_0(w, x, first + b, blocks, n, acc);
	}
	for (int i = 0; i < n; i++)
		_mm512_mask_storeu_ps(y + i * stride, mask, acc[i]);
}

static inline __attribute__((always_inline)) void product(const int q4, const int p,
							  const struct mr_matrix *w,
							  const struct mr_q8 *x, float *y,
							  size_t stride, uint32_t row0,
							  uint32_t row1, const void *next)
{
	size_t group_bytes = mr_pack_bytes(w->packing, 16, w->cols);
	const uint8_t *data = (const uint8_t *)w->data + row0 / 16 * group_bytes;
	struct stream s = {data + (row1 - row0 + 15) / 16 * group_bytes, next, MR_PREFETCH_BYTES,
			   0};

	while ((s.spread + 1) * 2 * TILE <= x->rows && s.spread < 7)
		s.spread = s.spread * 2 + 1;
	/* Shared by the tiles of one group, it is for the next one. */
	if (s.spread && s.ahead < group_bytes)
		s.ahead = group_bytes;

	for (uint32_t r = row0; r < row1; r += 16, data += group_bytes) {
		uint32_t n = row1 - r < 16 ? row1 - r : 16, i = 0;

		for (; i + TILE <= x->rows; i += TILE)
			rows(q4, p, data, x, i, TILE, y + i * stride + r, stride, n, &s);
		switch (x->rows - i) {
#define REST(m)                                                                \
	case m:                                                                \
		rows(q4, p, data, x, i, m, y + i * stride + r, stride, n, &s); \
		break
			REST(1);
			REST(2);
			REST(3);
			REST(4);
			REST(5);
			REST(6);
			REST(7);
#undef REST
		}
	}
}

static inline __attribute__((always_inline)) void matmul(const int p, const struct mr_matrix *w,
							 const struct mr_q8 *x, float *y,
							 size_t stride, uint32_t row0,
							 uint32_t row1, const void *next)
{
	if (mr_is_other_format(w->packing)) {
		mr_formats_avx512(w, x, y, stride, row0, row1);
		if (next)
			mr_prefetch_l2(next, MR_PREFETCH_BYTES);
	} else if (w->packing == MR_PACK_Q4_1X16)
		product(1, p, w, x, y, stride, row0, row1, next);
	else
		product(0, p, w, x, y, stride, row0, row1, next);
}

void mr_matmul_avx512(const struct mr_matrix *w, const struct mr_q8 *x, float *y, size_t stride,
		      uint32_t row0, uint32_t row1, const void *next)
{
	matmul(0, w, x, y, stride, row0, row1, next);
}

void mr_matmul_p_avx512(const struct mr_matrix *w, const struct mr_q8 *x, float *y, size_t stride,
			uint32_t row0, uint32_t row1, const void *next)
{
	matmul(1, w, x, y, stride, row0, row1, next);
}
