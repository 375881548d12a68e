// SPDX-License-Identifier: Apache-2.0
/* A decoder layer, the embedding and the output head over a batch of rows: the walk, not the
 * arithmetic. */
#include "kernels/cpu/layer.h"

#include <immintrin.h>

#include "kernels/cpu/pack.h"
#include "kernels/cpu/workspace.h"

/* Quantises n rows of cols once, for the products that read them. */
static const struct mr_q8 *quantized(const struct mr_kernels *kern, struct mr_workspace *ws,
				     const float *x, uint32_t n, size_t cols)
{
	ws->q8.rows = n;
	ws->q8.cols = (uint32_t)cols;
	kern->quantize(x, &ws->q8);
	return &ws->q8;
}

static void product(const struct mr_kernels *kern, const struct mr_matrix *w, const struct mr_q8 *x,
		    float *y)
{
	kern->matmul(w, x, y, w->rows, 0, w->rows);
}

static const struct mr_q8 *normed(const struct mr_kernels *kern, const struct mr_shape *s,
				  struct mr_workspace *ws, const float *weight, const float *x,
				  uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		kern->rmsnorm(x + (size_t)i * s->width, weight, s->width, s->rms_eps,
			      ws->norm + (size_t)i * s->width);
	return quantized(kern, ws, ws->norm, n, s->width);
}

static const float *angles(const struct mr_shape *s, const struct mr_workspace *ws, uint32_t pos)
{
	return ws->cos_sin + (size_t)pos * s->head_dim;
}

/* What some architectures do to a row of Q, K or V before RoPE: a bias, and a norm of each head. */
static void finish_heads(const struct mr_kernels *kern, const struct mr_shape *s, const float *bias,
			 const float *norm, uint32_t heads, float *x)
{
	if (bias)
		kern->add(x, bias, heads * s->head_dim);
	for (uint32_t h = 0; norm && h < heads; h++, x += s->head_dim)
		kern->rmsnorm(x, norm, s->head_dim, s->rms_eps, x);
}

/* K and V of every row, K rotated, into the rows' KV memory. */
static void write_kv(const struct mr_kernels *kern, const struct mr_shape *s,
		     const struct mr_layer *layer, const struct mr_row *rows, uint32_t n,
		     size_t kv_offset, const struct mr_q8 *x, struct mr_workspace *ws)
{
	size_t head_halves = (size_t)16 * s->head_dim;

	product(kern, &layer->k, x, ws->k);
	product(kern, &layer->v, x, ws->v);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t pos = rows[i].position;
		uint16_t *to = (uint16_t *)(rows[i].kv[pos / 16] + kv_offset);
		float *k = ws->k + i * ws->kv_cols, *v = ws->v + i * ws->kv_cols;

		to += (size_t)(pos % 16) * s->head_dim;
		finish_heads(kern, s, layer->k_bias, layer->k_norm, s->kv_heads, k);
		finish_heads(kern, s, layer->v_bias, NULL, s->kv_heads, v);
		kern->rope(k, s->kv_heads, s->head_dim, angles(s, ws, pos));
		for (uint32_t h = 0; h < s->kv_heads; h++, to += head_halves) {
			kern->to_half(k + h * s->head_dim, s->head_dim, to);
			kern->to_half(v + h * s->head_dim, s->head_dim,
				      to + s->kv_heads * head_halves);
		}
	}
}

/* Every query head of every row over its sequence's positions up to its own: ws->q to ws->attn. */
static void attend(const struct mr_kernels *kern, const struct mr_shape *s,
		   const struct mr_layer *layer, const struct mr_row *rows, uint32_t n,
		   size_t kv_offset, struct mr_workspace *ws)
{
	size_t head_bytes = (size_t)16 * s->head_dim * sizeof(uint16_t);
	uint32_t group = s->heads / s->kv_heads;
	double dim = s->head_dim;
	float root = (float)_mm_cvtsd_f64(_mm_sqrt_pd(_mm_set_sd(dim)));

	for (uint32_t i = 0; i < n; i++) {
		float *q = ws->q + i * ws->attn_cols, *y = ws->attn + i * ws->attn_cols;

		finish_heads(kern, s, layer->q_bias, layer->q_norm, s->heads, q);
		kern->rope(q, s->heads, s->head_dim, angles(s, ws, rows[i].position));
		for (uint32_t h = 0; h < s->heads; h++) {
			struct mr_attention a = {
				.kv = rows[i].kv,
				.k_offset = kv_offset + h / group * head_bytes,
				.v_offset = kv_offset + (s->kv_heads + h / group) * head_bytes,
				.count = rows[i].position + 1,
				.head_dim = s->head_dim,
				.scale = 1.0f / root,
			};

			kern->attention(&a, q + h * s->head_dim, y + h * s->head_dim, ws->scratch);
		}
	}
}

void mr_layer_forward(const struct mr_kernels *kern, const struct mr_shape *shape,
		      const struct mr_layer *layer, const struct mr_row *rows, uint32_t n,
		      size_t kv_offset, float *x, struct mr_workspace *ws)
{
	uint32_t elements = n * shape->width;
	const struct mr_q8 *in;

	in = normed(kern, shape, ws, layer->attn_norm, x, n);
	product(kern, &layer->q, in, ws->q);
	write_kv(kern, shape, layer, rows, n, kv_offset, in, ws);
	attend(kern, shape, layer, rows, n, kv_offset, ws);
	in = quantized(kern, ws, ws->attn, n, ws->attn_cols);
	product(kern, &layer->o, in, ws->norm);
	kern->add(x, ws->norm, elements);

	in = normed(kern, shape, ws, layer->ffn_norm, x, n);
	product(kern, &layer->gate, in, ws->gate);
	product(kern, &layer->up, in, ws->up);
	kern->swiglu(ws->gate, ws->up, n * shape->ffn, ws->gate);
	in = quantized(kern, ws, ws->gate, n, shape->ffn);
	product(kern, &layer->down, in, ws->norm);
	kern->add(x, ws->norm, elements);
}

void mr_layer_kv_only(const struct mr_kernels *kern, const struct mr_shape *shape,
		      const struct mr_layer *layer, const struct mr_row *rows, uint32_t n,
		      size_t kv_offset, const float *x, struct mr_workspace *ws)
{
	const struct mr_q8 *in = normed(kern, shape, ws, layer->attn_norm, x, n);

	write_kv(kern, shape, layer, rows, n, kv_offset, in, ws);
}

void mr_head_forward(const struct mr_kernels *kern, const struct mr_shape *shape,
		     const float *output_norm, const struct mr_matrix *output, const float *x,
		     uint32_t n, float *logits, struct mr_workspace *ws)
{
	product(kern, output, normed(kern, shape, ws, output_norm, x, n), logits);
}

void mr_embed(const struct mr_kernels *kern, const struct mr_matrix *embd, const uint32_t *ids,
	      uint32_t n, float *x)
{
	for (uint32_t i = 0; i < n; i++)
		mr_unpack_row(embd, ids[i], x + (size_t)i * embd->cols);
}
