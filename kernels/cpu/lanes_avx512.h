/* SPDX-License-Identifier: Apache-2.0 */
/* Sixteen lanes in one AVX-512 register. Meanings: lanes_scalar.h. */
#ifndef MR_KERNELS_CPU_LANES_AVX512_H
#define MR_KERNELS_CPU_LANES_AVX512_H

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512DQ__)

#include <immintrin.h>
#include <stdint.h>

#define LANES_NEAREST (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)

struct lanes {
	__m512 v;
};

static inline struct lanes lanes_load(const float *p)
{
	return (struct lanes){_mm512_loadu_ps(p)};
}

static inline void lanes_store(float *p, struct lanes a)
{
	_mm512_storeu_ps(p, a.v);
}

static inline struct lanes lanes_splat(float f)
{
	return (struct lanes){_mm512_set1_ps(f)};
}

static inline struct lanes lanes_load_half(const uint16_t *p)
{
	return (struct lanes){_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p))};
}

static inline void lanes_store_half(uint16_t *p, struct lanes a)
{
	_mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a.v, LANES_NEAREST));
}

static inline struct lanes lanes_add(struct lanes a, struct lanes b)
{
	return (struct lanes){_mm512_add_ps(a.v, b.v)};
}

static inline struct lanes lanes_sub(struct lanes a, struct lanes b)
{
	return (struct lanes){_mm512_sub_ps(a.v, b.v)};
}

static inline struct lanes lanes_mul(struct lanes a, struct lanes b)
{
	return (struct lanes){_mm512_mul_ps(a.v, b.v)};
}

static inline struct lanes lanes_div(struct lanes a, struct lanes b)
{
	return (struct lanes){_mm512_div_ps(a.v, b.v)};
}

static inline struct lanes lanes_fma(struct lanes a, struct lanes b, struct lanes c)
{
	return (struct lanes){_mm512_fmadd_ps(a.v, b.v, c.v)};
}

static inline struct lanes lanes_max(struct lanes a, struct lanes b)
{
	return (struct lanes){_mm512_max_ps(a.v, b.v)};
}

static inline struct lanes lanes_min(struct lanes a, struct lanes b)
{
	return (struct lanes){_mm512_min_ps(a.v, b.v)};
}

static inline struct lanes lanes_zero_below(struct lanes y, struct lanes x, float limit)
{
	__mmask16 keep = _mm512_cmp_ps_mask(x.v, _mm512_set1_ps(limit), _CMP_NLT_UQ);

	return (struct lanes){_mm512_maskz_mov_ps(keep, y.v)};
}

static inline struct lanes lanes_scale(struct lanes p, struct lanes t)
{
	__m512i shift = _mm512_slli_epi32(_mm512_castps_si512(t.v), 23);

	return (struct lanes){
		_mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p.v), shift))};
}

static inline struct lanes lanes_rotate(struct lanes x, struct lanes cs)
{
	__m512 swapped = _mm512_permute_ps(x.v, 0xb1);
	__m512 turned = _mm512_mul_ps(swapped, _mm512_movehdup_ps(cs.v));

	return (struct lanes){_mm512_fmaddsub_ps(x.v, _mm512_moveldup_ps(cs.v), turned)};
}

static inline __m256 lanes_halves(struct lanes a)
{
	return _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
}

static inline float lanes_sum(struct lanes a)
{
	__m256 s8 = lanes_halves(a);
	__m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
	__m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));

	return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

static inline float lanes_max_of(struct lanes a)
{
	__m256 m8 = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
	__m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
	__m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));

	return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}

/*
 * Sixteen trees at once: each step adds the same pairs as lanes_sum, of two vectors side by side,
 * so that 8, 4, 2 and at last 1 vector is left.
 */
static inline struct lanes lanes_sum16(const struct lanes a[16])
{
	__m512 s[8], t[4], u[2], v;

	/* s[i]: 8 lanes of a[i], then 8 of a[i+8] */
	for (int i = 0; i < 8; i++)
		s[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[i].v, a[i + 8].v, 0x44),
				     _mm512_shuffle_f32x4(a[i].v, a[i + 8].v, 0xee));
	/* t[i]: 4 lanes each of a[i], a[i+8], a[i+4], a[i+12] */
	for (int i = 0; i < 4; i++)
		t[i] = _mm512_add_ps(_mm512_shuffle_f32x4(s[i], s[i + 4], 0x88),
				     _mm512_shuffle_f32x4(s[i], s[i + 4], 0xdd));
	/* u[i]: in each 128 bits 2 lanes of a[i + ...], then 2 of a[i + 2 + ...] */
	for (int i = 0; i < 2; i++)
		u[i] = _mm512_add_ps(_mm512_shuffle_ps(t[i], t[i + 2], 0x44),
				     _mm512_shuffle_ps(t[i], t[i + 2], 0xee));
	/* v: in each 128 bits a[0], a[2], a[1], a[3], plus 0, 8, 4, 12 */
	v = _mm512_add_ps(_mm512_shuffle_ps(u[0], u[1], 0x88), _mm512_shuffle_ps(u[0], u[1], 0xdd));
	v = _mm512_permute_ps(v, 0xd8);
	return (struct lanes){_mm512_shuffle_f32x4(v, v, 0xd8)};
}

static inline float lanes_amax(struct lanes a, struct lanes b)
{
	__m512i mask = _mm512_set1_epi32(0x7fffffff);
	__m512i m = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(a.v), mask),
				     _mm512_and_si512(_mm512_castps_si512(b.v), mask));
	int32_t max = _mm512_reduce_max_epi32(m);
	float f;

	__builtin_memcpy(&f, &max, 4);
	return f;
}

static inline int32_t lanes_to_int8(struct lanes a, struct lanes b, int8_t *q)
{
	__m512i x = _mm512_cvtps_epi32(a.v), y = _mm512_cvtps_epi32(b.v);

	_mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(x));
	_mm_storeu_si128((__m128i *)(q + 16), _mm512_cvtepi32_epi8(y));
	return _mm512_reduce_add_epi32(_mm512_add_epi32(x, y));
}

#endif
#endif /* MR_KERNELS_CPU_LANES_AVX512_H */
