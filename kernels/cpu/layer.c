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

#include "kernels/cpu/pack.h"
#include "kernels/cpu/parts.h"

/* Columns of gate and up that are made, joined and quantised at a time, so that they stay in the cache. */
#define FFN_COLS 64u

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
	mr_attend(p);
	sync(p);
	product_add(p, PART_O, &l->o, mr_input_attention(p), share_at(p, &l->gate, 32));
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
