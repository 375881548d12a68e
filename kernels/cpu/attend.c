// SPDX-License-Identifier: Apache-2.0
/*
 * The attention of a layer over a batch of rows, and how threads share it: heads of rows, tiles of heads where
 * there are one or two rows, blocks of a sequence's rows in a class P that takes many at a time. Called by layer.c.
 */
#include <immintrin.h>

#include "kernels/cpu/parts.h"

/* Up to MR_ATTENTION_QUERIES query heads of row @i from head @head on, all of one KV head. */
static struct mr_attention attention_of(const struct call *c, uint32_t i, uint32_t head)
{
	const struct mr_shape *s = c->s;
	uint32_t group = s->heads / s->kv_heads, kv_head = head / group;
	uint32_t left = group - head % group;
	size_t head_bytes = (size_t)16 * s->head_dim * sizeof(uint16_t);
	float root = (float)_mm_cvtsd_f64(_mm_sqrt_pd(_mm_set_sd((double)s->head_dim)));

	return (struct mr_attention){
		.kv = c->rows[i].kv,
		.k_offset = c->kv_offset + kv_head * head_bytes,
		.v_offset = c->kv_offset + (s->kv_heads + kv_head) * head_bytes,
		.count = c->rows[i].position + 1,
		.head_dim = s->head_dim,
		.queries = left < MR_ATTENTION_QUERIES ? left : MR_ATTENTION_QUERIES,
		/* Rows of one sequence in a row find the cache warm. */
		.prefetch = (i == 0 || c->rows[i].kv != c->rows[i - 1].kv) &&
			    (i + 1 == c->n || c->rows[i].kv != c->rows[i + 1].kv),
		.scale = 1.0f / root,
	};
}

static uint32_t tiles_of(const struct call *c, uint32_t i)
{
	return c->rows[i].position / MR_ATTENTION_TILE + 1;
}

/* Whether attend, with threads, shares out tiles too and leaves their merging to who reads them. */
static int by_tiles(const struct part *p)
{
	return p->alone && !p->c->kern->attention_rows;
}

/* Whether the query heads of a KV head make whole blocks of 32 columns, quantised where they are made. */
static int by_blocks(const struct call *c)
{
	return c->s->heads / c->s->kv_heads * c->s->head_dim % 32 == 0;
}

static float *parts_at(const struct call *c, uint32_t i, uint32_t head)
{
	return c->ws->parts +
	       ((size_t)i * c->s->heads + head) * c->ws->tiles * MR_ATTENTION_PART(c->s->head_dim);
}

/* One tile of some query heads: what a thread does at a time. */
struct tile_unit {
	struct mr_attention a;
	const float *q;
	uint32_t tile;
	float *part;
};

static void attend_unit(const struct part *p, struct tile_unit *u, const struct tile_unit *next)
{
	size_t size = MR_ATTENTION_PART(p->c->s->head_dim);

	u->a.next = next ? &next->a : NULL;
	u->a.next_tile = next ? next->tile : 0;
	p->c->kern->attend(&u->a, u->q, u->tile, u->part, p->c->ws->tiles * size, p->own->scratch);
}

static void attend_tiles(const struct part *p)
{
	const struct call *c = p->c;
	size_t size = MR_ATTENTION_PART(c->s->head_dim);
	struct tile_unit units[2]; /* the one to be done, and the one before it */
	uint32_t unit = 0, mine = 0;

	for (uint32_t i = 0; i < c->n; i++)
		for (uint32_t h = 0, queries; h < c->s->heads; h += queries) {
			struct mr_attention a = attention_of(c, i, h);
			const float *q = c->ws->q + i * c->ws->attn_cols + h * a.head_dim;

			queries = a.queries;
			for (uint32_t t = 0; t < tiles_of(c, i); t++) {
				if (unit++ % p->threads != p->rank)
					continue;
				units[mine % 2] =
					(struct tile_unit){a, q, t, parts_at(c, i, h) + t * size};
				if (mine++)
					attend_unit(p, &units[mine % 2], &units[(mine - 1) % 2]);
			}
		}
	if (mine)
		attend_unit(p, &units[(mine - 1) % 2], NULL);
}

static void attend_heads(const struct part *p)
{
	const struct call *c = p->c;
	uint32_t group = c->s->heads / c->s->kv_heads, dim = c->s->head_dim;
	uint32_t units = c->s->kv_heads * c->n;

	/* All rows of one KV head in turn: rows of one sequence find its keys in the cache. */
	for (uint32_t u = p->rank; u < units; u += p->threads) {
		uint32_t i = u % c->n, h = u / c->n * group, after = u + p->threads, queries;
		size_t at = i * c->ws->attn_cols + h * dim;
		struct mr_attention next;

		if (after < units)
			next = attention_of(c, after % c->n, after / c->n * group);
		for (uint32_t g = 0; g < group; g += queries) {
			struct mr_attention a = attention_of(c, i, h + g);

			queries = a.queries;
			a.next = g + queries == group && after < units ? &next : NULL;
			c->kern->attention(&a, c->ws->q + at + g * dim, c->ws->attn + at + g * dim,
					   p->own->scratch);
		}
		if (by_blocks(c))
			quantize_cols(p, &c->ws->attn_q8, i, h * dim, group * dim,
				      c->ws->attn + at);
	}
}

/* Rows from @i on of one sequence, at consecutive positions. */
static uint32_t run_from(const struct call *c, uint32_t i)
{
	uint32_t n = 1;

	while (i + n < c->n && c->rows[i + n].kv == c->rows[i].kv &&
	       c->rows[i + n].position == c->rows[i].position + n)
		n++;
	return n;
}

/*
 * Rows that attention_rows takes at a time: what each step widens of K and V serves all of them, but there must
 * be enough units for all threads.
 */
static uint32_t attention_block(const struct part *p)
{
	uint32_t group = p->c->s->heads / p->c->s->kv_heads, rows = 1;

	if (group < MR_ATTENTION_ROWS_QUERIES)
		rows = MR_ATTENTION_ROWS_QUERIES / group;
	if (rows > 16)
		rows &= ~15u;
	while (rows > 16 && (p->c->n + rows - 1) / rows * p->c->s->kv_heads < 3 * p->threads)
		rows = rows / 2 < 16 ? 16 : rows / 2;
	return rows;
}

/* @n rows of one sequence from row @i on, all query heads of one KV head. */
static void attend_block(const struct part *p, uint32_t i, uint32_t n, uint32_t kv_head)
{
	const struct call *c = p->c;
	uint32_t group = c->s->heads / c->s->kv_heads, dim = c->s->head_dim, h = kv_head * group;
	const struct mr_attention one = attention_of(c, i, h);
	struct mr_attention_rows a = {
		.kv = one.kv,
		.k_offset = one.k_offset,
		.v_offset = one.v_offset,
		.position = c->rows[i].position,
		.rows = n,
		.head_dim = dim,
		.scale = one.scale,
		.stride = c->ws->attn_cols,
	};
	size_t at = i * a.stride + h * dim;

	for (uint32_t g = 0; g < group; g += a.queries) {
		a.queries = group - g < MR_ATTENTION_ROWS_QUERIES ? group - g
								  : MR_ATTENTION_ROWS_QUERIES;
		a.q = c->ws->q + at + g * dim;
		a.y = c->ws->attn + at + g * dim;
		c->kern->attention_rows(&a, p->own->scratch);
	}
	for (uint32_t r = 0; by_blocks(c) && r < n; r++)
		quantize_cols(p, &c->ws->attn_q8, i + r, h * dim, group * dim,
			      c->ws->attn + at + r * a.stride);
}

/* Units are taken from the end of each sequence's rows: those see most positions, and take longest. */
static void attend_rows(const struct part *p)
{
	const struct call *c = p->c;
	uint32_t rows = attention_block(p), mine = take(p, PART_ATTEND), unit = 0;

	for (uint32_t i = 0, n; i < c->n; i += n) {
		n = run_from(c, i);
		for (uint32_t b = (n + rows - 1) / rows; b-- > 0;)
			for (uint32_t h = 0; h < c->s->kv_heads; h++) {
				uint32_t first = b * rows, left = n - first;

				if (unit++ != mine)
					continue;
				attend_block(p, i + first, left < rows ? left : rows, h);
				mine = take(p, PART_ATTEND);
			}
	}
}

void mr_attend(const struct part *p)
{
	if (p->c->kern->attention_rows)
		attend_rows(p);
	else if (by_tiles(p))
		attend_tiles(p);
	else
		attend_heads(p);
}

const struct mr_q8 *mr_input_attention(const struct part *p)
{
	const struct call *c = p->c;
	uint32_t cols = (uint32_t)c->ws->attn_cols, dim = c->s->head_dim;
	struct turns t;
	struct mr_q8 *q;

	if (!by_tiles(p) && by_blocks(c))
		return &c->ws->attn_q8;
	q = input_begin(p, PART_ATTN_INPUT, &c->ws->attn_q8, cols, &t);
	while (input_turn(p, &t))
		for (uint32_t i = t.first; i < t.end; i++) {
			float *x = by_tiles(p) ? p->own->row : c->ws->attn + (size_t)i * cols;

			for (uint32_t h = 0; by_tiles(p) && h < c->s->heads; h++)
				c->kern->merge(parts_at(c, i, h), tiles_of(c, i), dim, x + h * dim,
					       p->own->scratch);
			quantize_cols(p, q, i, 0, cols, x);
		}
	return input_end(p, q);
}
