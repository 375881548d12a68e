// SPDX-License-Identifier: Apache-2.0
/*
 * Class P-avx512: attention of many rows of one sequence at a time, and the scaling of its activations.
 *
 * A lane is a query (of some row, of some head), a key's or value's element is broadcast to all. So no sum is
 * ever taken across lanes, K and V need no transposing, and what a query's result is depends on its own lane
 * alone: rows that come later in a block are masked out of it, to the last bit. A query's own operations:
 *   - it is scaled once, by 1/sqrt(head_dim); a score is the sum over 8 dimensions at a time, each a
 *     chain of FMA in ascending order, added up in ascending order;
 *   - tiles of 64 positions counted from position 0: the largest score so far, weights e^(score - largest),
 *     their sum and each dimension's weighted sum in ascending position, then old sums times
 *     e^(old largest - new largest) plus the tile's, one FMA;
 *   - the values' sums times 1/(sum of weights), and once more what that leaves.
 */
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/lanes_kernels.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/prefetch.h"

#define TILE    MR_ATTENTION_ROWS_TILE
#define VECTORS 3 /* of queries that go together: with POSITIONS or DIMS they fill the registers */
#define POS     8 /* positions whose scores are made at a time */
#define DIMS    8 /* dimensions whose sums are */
/* log2(e) is LOG2E + LOG2E_LOW, to 48 bits. */
#define LOG2E     0x1.715476p+0f
#define LOG2E_LOW 0x1.4ae0cp-26f

/* Up to VECTORS vectors of queries. */
struct block {
	float *q;          /* (head_dim, n, 16), scaled */
	float *y;          /* (head_dim, n, 16) */
	float *max, *sum;  /* (n, 16) */
	int32_t *position; /* (n, 16): the last one that the query sees */
	uint32_t n;
	uint32_t low, high; /* of the positions */
};

/* One tile of one KV head. */
struct tile {
	const float *k, *v; /* (TILE, head_dim) */
	uint32_t first;     /* position */
};

/* e^x for x of 0 and less, to 2 units in the last place near 0; e^-87 below -87. NaN stays what it is. */
static inline __m512 exp_of(__m512 x)
{
	const __m512 magic = _mm512_set1_ps(0x1.8p23f);
	__m512 t, r, p;

	x = _mm512_max_ps(_mm512_set1_ps(-87.0f), x);
	t = _mm512_fmadd_ps(x, _mm512_set1_ps(LOG2E), magic);
	r = _mm512_fmsub_ps(x, _mm512_set1_ps(LOG2E), _mm512_sub_ps(t, magic));
	r = _mm512_fmadd_ps(x, _mm512_set1_ps(LOG2E_LOW), r);
	p = _mm512_set1_ps(0x1.41d334p-13f);
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.5f456ap-10f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.3b2dbcp-7f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.c6aed4p-5f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.ebfbdap-3f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.62e430p-1f));
	p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
	return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p),
						    _mm512_slli_epi32(_mm512_castps_si512(t), 23)));
}

/* Rows to columns. */
static inline __attribute__((always_inline)) void transpose(__m512 a[16])
{
	__m512 b[16];

	for (int i = 0; i < 16; i += 2) {
		b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
		b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
	}
	for (int i = 0; i < 16; i += 4) {
		a[i] = _mm512_shuffle_ps(b[i], b[i + 2], 0x44);
		a[i + 1] = _mm512_shuffle_ps(b[i], b[i + 2], 0xee);
		a[i + 2] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0x44);
		a[i + 3] = _mm512_shuffle_ps(b[i + 1], b[i + 3], 0xee);
	}
	/* a[4i + c]: in its 128 bits l column 4l + c of rows 4i to 4i + 3 */
	for (int c = 0; c < 4; c++) {
		__m512 lo = _mm512_shuffle_f32x4(a[c], a[4 + c], 0x88);
		__m512 hi = _mm512_shuffle_f32x4(a[c], a[4 + c], 0xdd);
		__m512 lo2 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0x88);
		__m512 hi2 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0xdd);

		b[c] = _mm512_shuffle_f32x4(lo, lo2, 0x88);
		b[4 + c] = _mm512_shuffle_f32x4(hi, hi2, 0x88);
		b[8 + c] = _mm512_shuffle_f32x4(lo, lo2, 0xdd);
		b[12 + c] = _mm512_shuffle_f32x4(hi, hi2, 0xdd);
	}
	for (int i = 0; i < 16; i++)
		a[i] = b[i];
}

/* Where query @i of the call's begins, counted row by row; past the end the last one again. */
static inline size_t query_at(const struct mr_attention_rows *a, uint32_t i)
{
	uint32_t all = a->rows * a->queries;

	i = i < all ? i : all - 1;
	return i / a->queries * a->stride + (size_t)(i % a->queries) * a->head_dim;
}

static void begin(const struct mr_attention_rows *a, uint32_t first, struct block *b)
{
	const __m512 scale = _mm512_set1_ps(a->scale);
	uint32_t all = a->rows * a->queries, last = first + 16 * b->n;

	last = last < all ? last : all;
	b->low = a->position + first / a->queries;
	b->high = a->position + (last - 1) / a->queries;
	memset(b->y, 0, (size_t)a->head_dim * b->n * 16 * sizeof(float));
	memset(b->sum, 0, b->n * 16 * sizeof(float));
	for (uint32_t v = 0; v < b->n; v++) {
		const float *q[16];
		__m512 x[16];

		for (uint32_t i = 0; i < 16; i++) {
			uint32_t query = first + 16 * v + i;

			q[i] = a->q + query_at(a, query);
			query = query < all ? query : all - 1;
			b->max[16 * v + i] = -__builtin_inff();
			b->position[16 * v + i] = (int32_t)(a->position + query / a->queries);
		}
		for (uint32_t d = 0; d < a->head_dim; d += 16) {
			for (int i = 0; i < 16; i++)
				x[i] = _mm512_mul_ps(_mm512_loadu_ps(q[i] + d), scale);
			transpose(x);
			for (uint32_t i = 0; i < 16; i++)
				_mm512_store_ps(b->q + ((size_t)(d + i) * b->n + v) * 16, x[i]);
		}
	}
}

static void end(const struct mr_attention_rows *a, uint32_t first, const struct block *b)
{
	uint32_t all = a->rows * a->queries;

	for (uint32_t v = 0; v < b->n; v++) {
		uint32_t at = first + 16 * v, n = all - at < 16 ? all - at : 16;
		__m512 sum = _mm512_load_ps(b->sum + (size_t)16 * v);
		__m512 inverse = _mm512_div_ps(_mm512_set1_ps(1.0f), sum);
		float *y[16];
		__m512 x[16];

		for (uint32_t i = 0; i < n; i++)
			y[i] = a->y + query_at(a, at + i);
		for (uint32_t d = 0; d < a->head_dim; d += 16) {
			for (uint32_t i = 0; i < 16; i++) {
				__m512 of =
					_mm512_load_ps(b->y + ((size_t)(d + i) * b->n + v) * 16);
				__m512 near = _mm512_mul_ps(of, inverse);

				x[i] = _mm512_fmadd_ps(_mm512_fnmadd_ps(near, sum, of), inverse,
						       near);
			}
			transpose(x);
			for (uint32_t i = 0; i < n; i++)
				_mm512_storeu_ps(y[i] + d, x[i]);
		}
	}
}

/* Scores of POS positions from @k on, to @p. */
static inline __attribute__((always_inline)) void scores(const float *k, const float *q, size_t dim,
							 const uint32_t n, float *p)
{
	__m512 s[POS][VECTORS], x[VECTORS];

	for (size_t d0 = 0; d0 < dim; d0 += 8) {
		for (uint32_t j = 0; j < POS; j++)
			for (uint32_t v = 0; v < n; v++)
				s[j][v] = _mm512_setzero_ps();
		for (size_t d = d0; d < d0 + 8; d++) {
			for (uint32_t v = 0; v < n; v++)
				x[v] = _mm512_load_ps(q + (d * n + v) * 16);
			for (uint32_t j = 0; j < POS; j++) {
				__m512 key = _mm512_set1_ps(k[j * dim + d]);

				for (uint32_t v = 0; v < n; v++)
					s[j][v] = _mm512_fmadd_ps(key, x[v], s[j][v]);
			}
		}
		for (uint32_t j = 0; j < POS; j++)
			for (uint32_t v = 0; v < n; v++) {
				float *at = p + (j * n + v) * 16;

				if (d0)
					s[j][v] = _mm512_add_ps(_mm512_load_ps(at), s[j][v]);
				_mm512_store_ps(at, s[j][v]);
			}
	}
}

/* The lanes that see position @at. */
static inline __mmask16 seen(__m512i position, uint32_t at)
{
	return _mm512_cmpge_epi32_mask(position, _mm512_set1_epi32((int)at));
}

/* A score to a weight, in place. */
static inline __m512 weigh(float *at, __m512 max)
{
	__m512 w = exp_of(_mm512_sub_ps(_mm512_load_ps(at), max));

	_mm512_store_ps(at, w);
	return w;
}

/*
 * Scores of vector @v to weights; those of the first @open of @count positions all lanes see. Returns what
 * earlier sums are multiplied by. NaN loses against the largest score, and stays in the weights.
 */
static inline __attribute__((always_inline)) __m512 weights(const struct block *b, uint32_t v,
							    const struct tile *t, uint32_t open,
							    uint32_t count, const uint32_t n,
							    float *p)
{
	__m512i position = _mm512_load_si512(b->position + (size_t)16 * v);
	__m512 old = _mm512_load_ps(b->max + (size_t)16 * v), max = old, factor;
	__m512 sum[4] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(),
			 _mm512_setzero_ps()};
	__m512 all = _mm512_load_ps(b->sum + (size_t)16 * v);

	p += (size_t)16 * v;
	for (uint32_t j = 0; j < open; j++)
		max = _mm512_max_ps(_mm512_load_ps(p + (size_t)j * n * 16), max);
	for (uint32_t j = open; j < count; j++)
		max = _mm512_mask_max_ps(max, seen(position, t->first + j),
					 _mm512_load_ps(p + (size_t)j * n * 16), max);
	for (uint32_t j = 0; j < (open & ~3u); j += 4)
		for (uint32_t i = 0; i < 4; i++)
			sum[i] = _mm512_add_ps(sum[i], weigh(p + (size_t)(j + i) * n * 16, max));
	/* Of the last four some may be beyond the tile's count; no lane sees them. */
	for (uint32_t j = open & ~3u; j < count; j += 4)
		for (uint32_t i = 0; i < 4; i++)
			sum[i] =
				_mm512_mask_add_ps(sum[i], seen(position, t->first + j + i), sum[i],
						   weigh(p + (size_t)(j + i) * n * 16, max));
	sum[0] = _mm512_add_ps(_mm512_add_ps(sum[0], sum[1]), _mm512_add_ps(sum[2], sum[3]));
	factor = exp_of(_mm512_sub_ps(old, max));
	_mm512_store_ps(b->max + (size_t)16 * v, max);
	_mm512_store_ps(b->sum + (size_t)16 * v,
			_mm512_mask_mov_ps(all, seen(position, t->first),
					   _mm512_fmadd_ps(all, factor, sum[0])));
	return factor;
}

/* Values of a tile into the sums. */
static inline __attribute__((always_inline)) void values(const struct block *b,
							 const struct tile *t, size_t dim,
							 uint32_t open, uint32_t count,
							 const uint32_t n, const float *p,
							 const __m512 *factor)
{
	__m512i position[VECTORS];

	for (uint32_t v = 0; v < n; v++)
		position[v] = _mm512_load_si512(b->position + (size_t)16 * v);
	for (size_t d = 0; d < dim; d += DIMS) {
		__m512 s[DIMS][VECTORS], w[VECTORS];
		float *y = b->y + d * n * 16;

		for (uint32_t i = 0; i < DIMS; i++)
			for (uint32_t v = 0; v < n; v++)
				s[i][v] = _mm512_setzero_ps();
		for (uint32_t j = 0; j < open; j++) {
			for (uint32_t v = 0; v < n; v++)
				w[v] = _mm512_load_ps(p + ((size_t)j * n + v) * 16);
			for (uint32_t i = 0; i < DIMS; i++) {
				__m512 x = _mm512_set1_ps(t->v[j * dim + d + i]);

				for (uint32_t v = 0; v < n; v++)
					s[i][v] = _mm512_fmadd_ps(x, w[v], s[i][v]);
			}
		}
		for (uint32_t j = open; j < count; j++) {
			__mmask16 mask[VECTORS];

			for (uint32_t v = 0; v < n; v++) {
				w[v] = _mm512_load_ps(p + ((size_t)j * n + v) * 16);
				mask[v] = seen(position[v], t->first + j);
			}
			for (uint32_t i = 0; i < DIMS; i++) {
				__m512 x = _mm512_set1_ps(t->v[j * dim + d + i]);

				for (uint32_t v = 0; v < n; v++)
					s[i][v] = _mm512_mask3_fmadd_ps(x, w[v], s[i][v], mask[v]);
			}
		}
		for (uint32_t v = 0; v < n; v++) {
			__mmask16 mask = seen(position[v], t->first);

			for (uint32_t i = 0; i < DIMS; i++) {
				float *at = y + (i * n + v) * 16;

				_mm512_store_ps(at, _mm512_mask_fmadd_ps(_mm512_load_ps(at), mask,
									 factor[v], s[i][v]));
			}
		}
	}
}

/* A tile into all of a block's queries that see it. @n is a constant where it is inlined. */
static inline __attribute__((always_inline)) void step(const struct block *b, const struct tile *t,
						       size_t dim, const uint32_t n, float *p)
{
	uint32_t count = b->high + 1 - t->first, open = 0;
	__m512 factor[VECTORS];

	count = count < TILE ? count : TILE;
	if (b->low >= t->first)
		open = b->low + 1 - t->first < count ? b->low + 1 - t->first : count;
	for (uint32_t j = 0; j < count; j += POS)
		scores(t->k + j * dim, b->q, dim, n, p + (size_t)j * n * 16);
	for (uint32_t v = 0; v < n; v++)
		factor[v] = weights(b, v, t, open, count, n, p);
	values(b, t, dim, open, count, n, p, factor);
}

/* @count positions of K or V from position @first on as floats; K's are filled up with zeros to POS of them. */
static void widen(const struct mr_attention_rows *a, size_t offset, uint32_t first, uint32_t count,
		  float *to)
{
	uint32_t dim = a->head_dim, fill = (POS - count % POS) % POS;

	for (uint32_t j = 0; j < count; j += 16) {
		const uint16_t *from = (const void *)(a->kv[(first + j) / 16] + offset);
		uint32_t n = (count - j < 16 ? count - j : 16) * dim;

		for (uint32_t i = 0; i < n; i += 16)
			_mm512_store_ps(
				to + (size_t)j * dim + i,
				_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(from + i))));
	}
	memset(to + (size_t)count * dim, 0, (size_t)fill * dim * sizeof(float));
}

static void fetch(const struct mr_attention_rows *a, uint32_t first, uint32_t count)
{
	for (uint32_t j = 0; j < count; j += 16) {
		const uint8_t *block = a->kv[(first + j) / 16];
		size_t bytes = (size_t)16 * a->head_dim * sizeof(uint16_t);

		mr_prefetch_l2(block + a->k_offset, bytes);
		mr_prefetch_l2(block + a->v_offset, bytes);
	}
}

void mr_attention_rows_avx512(const struct mr_attention_rows *a, float *scratch)
{
	uint32_t dim = a->head_dim, queries = a->rows * a->queries, end_at = a->position + a->rows;
	float *k = scratch, *v = k + TILE * dim, *p = v + TILE * dim, *at = p + 16 * VECTORS * TILE;
	struct block blocks[MR_ATTENTION_ROWS_QUERIES / 16 / VECTORS];
	uint32_t count = 0;

	for (uint32_t i = 0; i < queries; i += 16 * VECTORS, count++) {
		uint32_t left = (queries - i + 15) / 16, n = left < VECTORS ? left : VECTORS;
		struct block *b = &blocks[count];

		*b = (struct block){.n = n, .q = at, .y = at + (size_t)16 * n * dim};
		b->max = b->y + (size_t)16 * n * dim;
		b->sum = b->max + (size_t)16 * n;
		b->position = (int32_t *)(b->sum + (size_t)16 * n);
		at = b->sum + (size_t)32 * n;
		begin(a, i, b);
	}
	for (uint32_t first = 0; first < end_at; first += TILE) {
		uint32_t n = end_at - first < TILE ? end_at - first : TILE;
		struct tile t = {k, v, first};

		widen(a, a->k_offset, first, n, k);
		widen(a, a->v_offset, first, n, v);
		if (first + TILE < end_at)
			fetch(a, first + TILE,
			      end_at - first - TILE < TILE ? end_at - first - TILE : TILE);
		for (uint32_t i = 0; i < count; i++) {
			if (blocks[i].high < first)
				continue;
			if (blocks[i].n == 3)
				step(&blocks[i], &t, dim, 3, p);
			else if (blocks[i].n == 2)
				step(&blocks[i], &t, dim, 2, p);
			else
				step(&blocks[i], &t, dim, 1, p);
		}
	}
	for (uint32_t i = 0; i < count; i++)
		end(a, i * 16 * VECTORS, &blocks[i]);
}
