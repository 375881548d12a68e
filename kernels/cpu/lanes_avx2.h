/* SPDX-License-Identifier: Apache-2.0 */
/* Sixteen lanes in two AVX2 registers. Meanings: lanes_scalar.h. */
#ifndef MR_KERNELS_CPU_LANES_AVX2_H
#define MR_KERNELS_CPU_LANES_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#define LANES_NEAREST (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)

struct lanes {
	__m256 lo, hi;
};

static inline struct lanes lanes_load(const float *p)
{
	return (struct lanes){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

static inline void lanes_store(float *p, struct lanes a)
{
	_mm256_storeu_ps(p, a.lo);
	_mm256_storeu_ps(p + 8, a.hi);
}

static inline struct lanes lanes_splat(float f)
{
	return (struct lanes){_mm256_set1_ps(f), _mm256_set1_ps(f)};
}

static inline struct lanes lanes_load_half(const uint16_t *p)
{
	return (struct lanes){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
			      _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}

static inline void lanes_store_half(uint16_t *p, struct lanes a)
{
	_mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a.lo, LANES_NEAREST));
	_mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(a.hi, LANES_NEAREST));
}

static inline struct lanes lanes_add(struct lanes a, struct lanes b)
{
	return (struct lanes){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}

static inline struct lanes lanes_sub(struct lanes a, struct lanes b)
{
	return (struct lanes){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}

static inline struct lanes lanes_mul(struct lanes a, struct lanes b)
{
	return (struct lanes){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}

static inline struct lanes lanes_div(struct lanes a, struct lanes b)
{
	return (struct lanes){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}

static inline struct lanes lanes_fma(struct lanes a, struct lanes b, struct lanes c)
{
	return (struct lanes){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}

static inline struct lanes lanes_max(struct lanes a, struct lanes b)
{
	return (struct lanes){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}

static inline struct lanes lanes_min(struct lanes a, struct lanes b)
{
	return (struct lanes){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}

static inline struct lanes lanes_zero_below(struct lanes y, struct lanes x, float limit)
{
	__m256 l = _mm256_set1_ps(limit);

	return (struct lanes){_mm256_andnot_ps(_mm256_cmp_ps(x.lo, l, _CMP_LT_OQ), y.lo),
			      _mm256_andnot_ps(_mm256_cmp_ps(x.hi, l, _CMP_LT_OQ), y.hi)};
}

static inline __m256 lanes_scale8(__m256 p, __m256 t)
{
	__m256i shift = _mm256_slli_epi32(_mm256_castps_si256(t), 23);

	return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), shift));
}

static inline struct lanes lanes_scale(struct lanes p, struct lanes t)
{
	return (struct lanes){lanes_scale8(p.lo, t.lo), lanes_scale8(p.hi, t.hi)};
}

static inline __m256 lanes_rotate8(__m256 x, __m256 cs)
{
	__m256 swapped = _mm256_permute_ps(x, 0xb1);
	__m256 turned = _mm256_mul_ps(swapped, _mm256_movehdup_ps(cs));

	return _mm256_fmaddsub_ps(x, _mm256_moveldup_ps(cs), turned);
}

static inline struct lanes lanes_rotate(struct lanes x, struct lanes cs)
{
	return (struct lanes){lanes_rotate8(x.lo, cs.lo), lanes_rotate8(x.hi, cs.hi)};
}

static inline float lanes_sum(struct lanes a)
{
	__m256 s8 = _mm256_add_ps(a.lo, a.hi);
	__m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
	__m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));

	return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

static inline float lanes_max_of(struct lanes a)
{
	__m256 m8 = _mm256_max_ps(a.lo, a.hi);
	__m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
	__m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));

	return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}

/* Eight trees at once: each step adds the same pairs as lanes_sum, of two vectors side by side. */
static inline __m256 lanes_sum8(const struct lanes a[8])
{
	__m256 s[8], t[4], u[2];

	for (int i = 0; i < 8; i++)
		s[i] = _mm256_add_ps(a[i].lo, a[i].hi);
	/* t[i]: halves of s[i] in the low 128 bits, of s[i+4] in the high */
	for (int i = 0; i < 4; i++)
		t[i] = _mm256_add_ps(_mm256_permute2f128_ps(s[i], s[i + 4], 0x20),
				     _mm256_permute2f128_ps(s[i], s[i + 4], 0x31));
	/* u[i]: t[i]'s lanes 0, 1 and t[i+2]'s */
	for (int i = 0; i < 2; i++)
		u[i] = _mm256_add_ps(_mm256_shuffle_ps(t[i], t[i + 2], 0x44),
				     _mm256_shuffle_ps(t[i], t[i + 2], 0xee));
	/* in each 128 bits: s[0], s[2], s[1], s[3] */
	s[0] = _mm256_add_ps(_mm256_shuffle_ps(u[0], u[1], 0x88),
			     _mm256_shuffle_ps(u[0], u[1], 0xdd));
	return _mm256_permute_ps(s[0], 0xd8);
}

static inline struct lanes lanes_sum16(const struct lanes a[16])
{
	return (struct lanes){lanes_sum8(a), lanes_sum8(a + 8)};
}

static inline float lanes_amax(struct lanes a, struct lanes b)
{
	__m256i mask = _mm256_set1_epi32(0x7fffffff), m8;
	__m128i m4;
	int32_t max;
	float f;

	m8 = _mm256_max_epi32(_mm256_max_epi32(_mm256_and_si256(_mm256_castps_si256(a.lo), mask),
					       _mm256_and_si256(_mm256_castps_si256(a.hi), mask)),
			      _mm256_max_epi32(_mm256_and_si256(_mm256_castps_si256(b.lo), mask),
					       _mm256_and_si256(_mm256_castps_si256(b.hi), mask)));
	m4 = _mm_max_epi32(_mm256_castsi256_si128(m8), _mm256_extracti128_si256(m8, 1));
	m4 = _mm_max_epi32(m4, _mm_shuffle_epi32(m4, 0x4e));
	m4 = _mm_max_epi32(m4, _mm_shuffle_epi32(m4, 0xb1));
	max = _mm_cvtsi128_si32(m4);
	__builtin_memcpy(&f, &max, 4);
	return f;
}

static inline int32_t lanes_to_int8(struct lanes a, struct lanes b, int8_t *q)
{
	__m256i ab = _mm256_packs_epi32(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));
	__m256i cd = _mm256_packs_epi32(_mm256_cvtps_epi32(b.lo), _mm256_cvtps_epi32(b.hi));
	__m256i bytes = _mm256_packs_epi16(ab, cd);
	__m256i pairs, quads;
	__m128i s;

	/* The packs work in 128-bit halves: put groups of four bytes back in order. */
	bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
	_mm256_storeu_si256((__m256i *)q, bytes);
	pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes);
	quads = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
	s = _mm_add_epi32(_mm256_castsi256_si128(quads), _mm256_extracti128_si256(quads, 1));
	s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
	s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
	return _mm_cvtsi128_si32(s);
}

#endif /* MR_KERNELS_CPU_LANES_AVX2_H */
