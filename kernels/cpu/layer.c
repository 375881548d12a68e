// SPDX-License-Identifier: Apache-2.0
/*
 * A decoder layer, the embedding and the output head over a batch of rows: the walk, not the arithmetic.
 *
 * With a team every thread walks the layer and computes its part: output rows of a product, heads of an
 * attention. No sum is ever split, so the bits are those of one thread. What one part makes and another
 * needs lies in the workspace, with a barrier between. Input that all threads need in int8 is made by each
 * for itself where the rows are few (cheaper than a barrier), and else shared out by rows. With few rows each
 * thread has a share of the weights, and streams it; with many the weights cost little, and threads take units of
 * the work as they come to them, so that one whose core was away for a while keeps nobody waiting.
 */
#include "kernels/cpu/layer.h"

#include <immintrin.h>

#include "kernels/cpu/pack.h"
#include "kernels/cpu/team.h"
#include "kernels/cpu/workspace.h"

/* Columns of gate and up that are made, joined and quantised at a time, so that they stay in the cache. */
#define FFN_COLS 64u

/* One call of the functions of layer.h. */
struct call {
	const struct mr_kernels *kern;
	const struct mr_shape *s;
	const struct mr_layer *layer;
	const struct mr_row *rows;
	uint32_t n;
	size_t kv_offset;
	float *x;
	struct mr_workspace *ws;
	/* the head's */
	const float *norm;
	const struct mr_matrix *output;
	float *logits;
};

/* A thread's view of it. */
struct part {
	const struct call *c;
	struct mr_thread_space *own;
	uint32_t rank, threads;
	int alone; /* makes its int8 input by itself, in its own space */
};

static struct part part_of(const struct call *c, uint32_t rank)
{
	uint32_t threads = mr_team_active(c->ws->team);

	return (struct part){c, &c->ws->own[rank], rank, threads,
			     threads > 1 && c->n <= MR_FEW_ROWS};
}

static void sync(const struct part *p)
{
	mr_team_barrier(p->c->ws->team);
}

/* ---- who does what ---- */

/* What is between two barriers, for the units that threads take. */
enum layer_part {
	PART_NORM,
	PART_PROJECT,
	PART_ATTEND,
	PART_ATTN_INPUT,
	PART_O,
	PART_FFN_NORM,
	PART_FFN,
	PART_DOWN
};
_Static_assert(PART_DOWN + 1 == MR_LAYER_PARTS, "a count of units for each");

static int many(const struct part *p)
{
	return p->threads > 1 && p->c->n >= MR_MANY_ROWS;
}

/* The next unit of a part's work that no thread has taken. */
static uint32_t take(const struct part *p, enum layer_part part)
{
	return __atomic_fetch_add(&p->c->ws->taken[part].units, 1, __ATOMIC_RELAXED);
}

/* [0, count) in turns of this thread: its share, once, in units of @unit; or units of @many_unit, as it takes them. */
struct turns {
	enum layer_part part;
	uint32_t count, unit, many_unit;
	uint32_t begun;
	uint32_t first, end; /* this turn's */
};

/* This thread's share of @count, in units of @unit. */
static void share(const struct part *p, uint32_t count, uint32_t unit, uint32_t *first,
		  uint32_t *end)
{
	mr_team_part((count + unit - 1) / unit, p->rank, p->threads, first, end);
	*first *= unit;
	*end = *end * unit < count ? *end * unit : count;
}

/* The next turn; 0 where there is none. */
static int turn(const struct part *p, struct turns *t)
{
	if (many(p)) {
		uint64_t at = (uint64_t)take(p, t->part) * t->many_unit;

		if (at >= t->count)
			return 0;
		t->first = (uint32_t)at;
		t->end = t->count - t->first < t->many_unit ? t->count : t->first + t->many_unit;
		return 1;
	}
	if (t->begun++)
		return 0;
	share(p, t->count, t->unit, &t->first, &t->end);
	return t->first < t->end;
}

/* ---- products ---- */

#define MANY_OUTPUTS 32u /* output rows that a thread takes at a time */

static const void *weights_at(const struct mr_matrix *m, uint32_t row)
{
	return (const char *)m->data + row / 16 * mr_pack_bytes(m->packing, 16, m->cols);
}

/* Where this thread's rows of @m begin: what it will stream next. NULL = not known. */
static const void *share_at(const struct part *p, const struct mr_matrix *m, uint32_t unit)
{
	uint32_t row0, row1;

	if (many(p))
		return NULL;
	share(p, m->rows, unit, &row0, &row1);
	return weights_at(m, row0);
}

/* What this thread streams after its turn, most likely: others take as many meanwhile. */
static const void *after_turn(const struct part *p, const struct turns *t,
			      const struct mr_matrix *m, const void *after_share)
{
	uint64_t row = (uint64_t)t->first + (uint64_t)p->threads * t->many_unit;

	if (!many(p))
		return after_share;
	return row < m->rows ? weights_at(m, (uint32_t)row) : NULL;
}

/* x += w * in, this thread's columns of x. */
static void product_add(const struct part *p, enum layer_part part, const struct mr_matrix *w,
			const struct mr_q8 *in, const void *next)
{
	const struct call *c = p->c;
	size_t width = c->s->width;
	struct turns t = {part, w->rows, 16, MANY_OUTPUTS};

	while (turn(p, &t)) {
		c->kern->matmul(w, in, c->ws->out, width, t.first, t.end,
				after_turn(p, &t, w, next));
		for (uint32_t i = 0; i < c->n; i++)
			c->kern->add(c->x + i * width + t.first, c->ws->out + i * width + t.first,
				     t.end - t.first);
	}
}

/* ---- int8 input ---- */

static struct mr_q8 *q8_shape(struct mr_q8 *q, uint32_t rows, size_t cols)
{
	q->rows = rows;
	q->cols = (uint32_t)cols;
	return q;
}

/* Columns of row @i of @q from @x on, whole blocks of 32. */
static void quantize_cols(const struct part *p, const struct mr_q8 *q, uint32_t i, uint32_t col0,
			  uint32_t cols, const float *x)
{
	size_t at = (size_t)i * q->cols + col0;
	struct mr_q8 view = {.q = q->q + at,
			     .scale = q->scale + at / 32,
			     .sum = q->sum + at / 32,
			     .scaled_sum = q->scaled_sum + at / 32,
			     .rows = 1,
			     .cols = cols,
			     .x = q->x ? q->x + at : NULL,
			     .bf16 = q->bf16 ? q->bf16 + at : NULL};

	p->c->kern->quantize(x, &view);
}

/*
 * An input that all need: turns over its rows, and where this thread makes it: shared with others, or, where it
 * makes all of it for itself, in its own space.
 */
static struct mr_q8 *input_begin(const struct part *p, enum layer_part part, struct mr_q8 *shared,
				 size_t cols, struct turns *t)
{
	*t = (struct turns){part, p->c->n, 1, 4};
	return p->alone ? q8_shape(&p->own->q8, p->c->n, cols) : shared;
}

static int input_turn(const struct part *p, struct turns *t)
{
	if (!p->alone)
		return turn(p, t);
	t->first = 0;
	t->end = t->count;
	return !t->begun++;
}

static const struct mr_q8 *input_end(const struct part *p, const struct mr_q8 *q)
{
	if (!p->alone)
		sync(p);
	return q;
}

static const struct mr_q8 *input_normed(const struct part *p, enum layer_part part,
					const float *weight)
{
	const struct call *c = p->c;
	uint32_t width = c->s->width;
	struct turns t;
	struct mr_q8 *q = input_begin(p, part, &c->ws->in, width, &t);

	while (input_turn(p, &t))
		for (uint32_t i = t.first; i < t.end; i++) {
			c->kern->rmsnorm(c->x + (size_t)i * width, weight, width, c->s->rms_eps,
					 p->own->row);
			quantize_cols(p, q, i, 0, width, p->own->row);
		}
	return input_end(p, q);
}

/* ---- attention ---- */

static const float *angles(const struct call *c, uint32_t row)
{
	return c->ws->cos_sin + (size_t)c->rows[row].position * c->s->head_dim;
}

/*
 * What some architectures do to columns [col, end) of a row of Q, K or V before RoPE: a bias, and a norm of
 * each head, which they then hold whole.
 */
static void finish_heads(const struct call *c, const float *bias, const float *norm, float *x,
			 uint32_t col, uint32_t end)
{
	uint32_t dim = c->s->head_dim;

	if (bias)
		c->kern->add(x + col, bias + col, end - col);
	for (; norm && col < end; col += dim)
		c->kern->rmsnorm(x + col, norm, dim, c->s->rms_eps, x + col);
}

/* Rotates columns [col, end) of a row of heads, which may begin and end within a head. */
static void rotate(const struct call *c, float *x, uint32_t col, uint32_t end, const float *cos_sin)
{
	for (uint32_t dim = c->s->head_dim, n; col < end; col += n) {
		uint32_t at = col % dim;

		n = dim - at < end - col ? dim - at : end - col;
		c->kern->rope(x + col, 1, n, cos_sin + at);
	}
}

/* Columns [col, end) of a row's K (or V, @value) to its KV memory. */
static void write_kv(const struct call *c, uint32_t row, int value, const float *x, uint32_t col,
		     uint32_t end)
{
	uint32_t pos = c->rows[row].position, dim = c->s->head_dim;
	uint16_t *to = (uint16_t *)(c->rows[row].kv[pos / 16] + c->kv_offset);

	to += (size_t)(value ? c->s->kv_heads : 0) * 16 * dim + (size_t)(pos % 16) * dim;
	for (uint32_t n; col < end; col += n) {
		uint32_t at = col % dim;

		n = dim - at < end - col ? dim - at : end - col;
		c->kern->to_half(x + col, n, to + (size_t)(col / dim) * 16 * dim + at);
	}
}

/* Rows [@first, @end) of query, key and value as one matrix. */
static void project_rows(const struct part *p, const struct mr_q8 *in, int with_q, uint32_t first,
			 uint32_t end)
{
	const struct call *c = p->c;
	struct mr_workspace *ws = c->ws;
	const struct mr_matrix *w[3] = {&c->layer->q, &c->layer->k, &c->layer->v};
	const float *bias[3] = {c->layer->q_bias, c->layer->k_bias, c->layer->v_bias};
	const float *norm[3] = {c->layer->q_norm, c->layer->k_norm, NULL};
	float *y[3] = {ws->q, ws->k, ws->v};

	for (int m = with_q ? 0 : 1; m < 3; m++) {
		uint32_t rows = w[m]->rows, row0 = first < rows ? first : rows;
		uint32_t row1 = end < rows ? end : rows;
		size_t stride = m ? ws->kv_cols : ws->attn_cols;

		first -= row0;
		end -= row1;
		if (row0 == row1)
			continue;
		c->kern->matmul(w[m], in, y[m], stride, row0, row1,
				m < 2 && end ? w[m + 1]->data : share_at(p, &c->layer->o, 16));
		for (uint32_t i = 0; i < c->n; i++) {
			float *x = y[m] + i * stride;

			finish_heads(c, bias[m], norm[m], x, row0, row1);
			if (m < 2)
				rotate(c, x, row0, row1, angles(c, i));
			if (m)
				write_kv(c, i, m == 2, x, row0, row1);
		}
	}
}

static void project(const struct part *p, const struct mr_q8 *in, int with_q)
{
	const struct mr_layer *l = p->c->layer;
	uint32_t total = l->k.rows + l->v.rows + (with_q ? l->q.rows : 0);
	/* A head that is normed must be one thread's. */
	uint32_t head = l->q_norm || l->k_norm ? p->c->s->head_dim : 0;
	struct turns t = {PART_PROJECT, total, head ? head : 16, head ? head : MANY_OUTPUTS};

	while (turn(p, &t))
		project_rows(p, in, with_q, t.first, t.end);
}

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

static void attend_all(const struct part *p)
{
	if (p->c->kern->attention_rows)
		attend_rows(p);
	else if (by_tiles(p))
		attend_tiles(p);
	else
		attend_heads(p);
}

/* What attention made, in int8. */
static const struct mr_q8 *input_attention(const struct part *p)
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

/* ---- the layer ---- */

/* SwiGLU of columns [@col, @end), quantised: whole blocks of 32. */
static void gate_up_cols(const struct part *p, const struct mr_q8 *in, uint32_t col, uint32_t end,
			 const void *next)
{
	const struct call *c = p->c;
	struct mr_workspace *ws = c->ws;
	const struct mr_layer *l = c->layer;
	uint32_t ffn = c->s->ffn, n;

	for (; col < end; col += n) {
		/* A lone row streams weights in long runs. */
		n = c->n == 1 || end - col < FFN_COLS ? end - col : FFN_COLS;
		c->kern->matmul(&l->gate, in, ws->gate, ffn, col, col + n, weights_at(&l->up, col));
		c->kern->matmul(&l->up, in, ws->up, ffn, col, col + n,
				col + n < end ? weights_at(&l->gate, col + n) : next);
		for (uint32_t i = 0; i < c->n; i++) {
			float *gate = ws->gate + (size_t)i * ffn + col;

			c->kern->swiglu(gate, ws->up + (size_t)i * ffn + col, n, gate);
			quantize_cols(p, &ws->ffn_q8, i, col, n, gate);
		}
	}
}

static void gate_up(const struct part *p, const struct mr_q8 *in)
{
	const struct mr_layer *l = p->c->layer;
	struct turns t = {PART_FFN, p->c->s->ffn, 32, FFN_COLS};

	while (turn(p, &t))
		gate_up_cols(p, in, t.first, t.end,
			     after_turn(p, &t, &l->gate, share_at(p, &l->down, 16)));
}

static void layer_rank(void *arg, uint32_t rank)
{
	const struct call *c = arg;
	const struct part part = part_of(c, rank), *p = &part;
	const struct mr_layer *l = c->layer;

	project(p, input_normed(p, PART_NORM, l->attn_norm), 1);
	sync(p);
	attend_all(p);
	sync(p);
	product_add(p, PART_O, &l->o, input_attention(p), share_at(p, &l->gate, 32));
	sync(p);
	gate_up(p, input_normed(p, PART_FFN_NORM, l->ffn_norm));
	sync(p);
	product_add(p, PART_DOWN, &l->down, &c->ws->ffn_q8, NULL);
}

static void kv_rank(void *arg, uint32_t rank)
{
	const struct call *c = arg;
	const struct part part = part_of(c, rank), *p = &part;

	project(p, input_normed(p, PART_NORM, c->layer->attn_norm), 0);
}

static void head_rank(void *arg, uint32_t rank)
{
	const struct call *c = arg;
	const struct part part = part_of(c, rank), *p = &part;
	const struct mr_q8 *in = input_normed(p, PART_NORM, c->norm);
	struct turns t = {PART_PROJECT, c->output->rows, 16, 4 * MANY_OUTPUTS};

	while (turn(p, &t))
		c->kern->matmul(c->output, in, c->logits, c->output->rows, t.first, t.end,
				after_turn(p, &t, c->output, NULL));
}

/* Before a run: its sizes, and no unit is taken. */
static void begin_call(struct mr_workspace *ws, const struct mr_shape *s, uint32_t n)
{
	q8_shape(&ws->in, n, s->width);
	q8_shape(&ws->attn_q8, n, ws->attn_cols);
	q8_shape(&ws->ffn_q8, n, s->ffn);
	for (int i = 0; i < (int)MR_LAYER_PARTS; i++)
		ws->taken[i].units = 0;
}

void mr_layer_forward(const struct mr_kernels *kern, const struct mr_shape *shape,
		      const struct mr_layer *layer, const struct mr_row *rows, uint32_t n,
		      size_t kv_offset, float *x, struct mr_workspace *ws)
{
	struct call c = {kern, shape, layer, rows, n, kv_offset, x, ws};

	begin_call(ws, shape, n);
	mr_team_run(ws->team, layer_rank, &c);
}

void mr_layer_kv_only(const struct mr_kernels *kern, const struct mr_shape *shape,
		      const struct mr_layer *layer, const struct mr_row *rows, uint32_t n,
		      size_t kv_offset, const float *x, struct mr_workspace *ws)
{
	/* Nothing on this way writes x. */
	struct call c = {kern, shape, layer, rows, n, kv_offset, (float *)x, ws};

	begin_call(ws, shape, n);
	mr_team_run(ws->team, kv_rank, &c);
}

void mr_head_forward(const struct mr_kernels *kern, const struct mr_shape *shape,
		     const float *output_norm, const struct mr_matrix *output, const float *x,
		     uint32_t n, float *logits, struct mr_workspace *ws)
{
	struct call c = {.kern = kern,
			 .s = shape,
			 .n = n,
			 .x = (float *)x,
			 .ws = ws,
			 .norm = output_norm,
			 .output = output,
			 .logits = logits};

	begin_call(ws, shape, n);
	mr_team_run(ws->team, head_rank, &c);
}

void mr_embed(const struct mr_kernels *kern, const struct mr_matrix *embd, const uint32_t *ids,
	      uint32_t n, float *x)
{
	for (uint32_t i = 0; i < n; i++)
		mr_unpack_row(embd, ids[i], x + (size_t)i * embd->cols);
}
