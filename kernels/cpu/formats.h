/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The matrix products of class D for every weight type but Q4_1 and Q8_0, which have the matmul files to
 * themselves. For those files and formats_*.c only. Arguments are those of mr_kernels.matmul.
 */
#ifndef MR_KERNELS_CPU_FORMATS_H
#define MR_KERNELS_CPU_FORMATS_H

#include <immintrin.h>

#include "kernels/cpu/kernels.h"

/* Whether a packing is one of these. */
static inline int mr_is_other_format(enum mr_packing packing)
{
	return packing > MR_PACK_Q8_0X16;
}

void mr_formats_scalar(const struct mr_matrix *w, const struct mr_q8 *x, float *y, size_t stride,
		       uint32_t row0, uint32_t row1);
void mr_formats_avx2(const struct mr_matrix *w, const struct mr_q8 *x, float *y, size_t stride,
		     uint32_t row0, uint32_t row1);
void mr_formats_avx512(const struct mr_matrix *w, const struct mr_q8 *x, float *y, size_t stride,
		       uint32_t row0, uint32_t row1);

/* The sum of 16 activations. */
static inline int32_t mr_half_sum(const int8_t *q)
{
	/* As unsigned bytes, q + 128, which PSADBW adds up in two halves. */
	__m128i v = _mm_xor_si128(_mm_loadu_si128((const __m128i *)q), _mm_set1_epi8(-128));
	__m128i s = _mm_sad_epu8(v, _mm_setzero_si128());

	return _mm_cvtsi128_si32(s) + _mm_extract_epi16(s, 4) - 16 * 128;
}

/* Sums of the first and the last 16 of a block's 32 activations. */
static inline void mr_half_sums(const int8_t *q, int32_t sum[2])
{
	sum[0] = mr_half_sum(q);
	sum[1] = mr_half_sum(q + 16);
}

#endif /* MR_KERNELS_CPU_FORMATS_H */
