// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/walker.h"

#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/layer.h"

struct walker {
	const struct mr_container *c;
	const struct sim_sram *sram;
	const struct mr_kernels *kernels;
	struct mr_shape shape;
	struct mr_workspace *ws;
	struct mr_row *rows; /* [batch] */
	uint32_t *ids;       /* [batch] */
	float *x;            /* (batch, width): the residual stream */
	float *logits;       /* (batch, vocab) */
};

static float *floats(uint64_t n)
{
	return aligned_alloc(64, (n * sizeof(float) + 63) / 64 * 64);
}

int mr_walker_create(const struct mr_container *c, const struct sim_sram *sram,
		     const struct mr_kernels *kernels, struct walker **out)
{
	const struct mr_ref_header *r = c->ref;
	uint32_t batch = c->header->batch;
	struct walker *w = calloc(1, sizeof(*w));

	if (!w)
		return MR_E_NO_MEMORY;
	w->c = c;
	w->sram = sram;
	w->kernels = kernels;
	w->shape = (struct mr_shape){
		.layers = r->layers,
		.width = r->width,
		.heads = r->heads,
		.kv_heads = r->kv_heads,
		.head_dim = r->head_dim,
		.ffn = r->ffn,
		.vocab = r->vocab,
		.context = r->context,
		.rms_eps = r->rms_eps,
		.rope_base = r->rope_base,
	};
	w->rows = calloc(batch, sizeof(*w->rows));
	w->ids = calloc(batch, sizeof(*w->ids));
	w->x = floats((uint64_t)batch * r->width);
	w->logits = floats((uint64_t)batch * r->vocab);
	if (!w->rows || !w->ids || !w->x || !w->logits ||
	    mr_workspace_create(&w->shape, batch, r->context, &w->ws)) {
		mr_walker_destroy(w);
		return MR_E_NO_MEMORY;
	}
	*out = w;
	return 0;
}

void mr_walker_destroy(struct walker *w)
{
	if (w->ws)
		mr_workspace_destroy(w->ws);
	free(w->rows);
	free(w->ids);
	free(w->x);
	free(w->logits);
	free(w);
}

static const void *data_of(const struct walker *w, uint32_t segment)
{
	const struct mr_prog_segment *s = &w->c->segments[segment];

	return sim_sram_at(w->sram, s->chip, s->address);
}

static struct mr_matrix matrix_of(const struct walker *w, uint32_t segment)
{
	const struct mr_prog_segment *s = &w->c->segments[segment];

	return (struct mr_matrix){
		.data = data_of(w, segment),
		.rows = s->rows,
		.cols = s->cols,
		.packing = s->layout == MR_LAYOUT_Q4_1X16 ? MR_PACK_Q4_1X16 : MR_PACK_Q8_0X16,
	};
}

static void layer(struct walker *w, const struct mr_ref_op *op, const struct walker_row *rows,
		  uint32_t n)
{
	const struct mr_layer l = {
		.attn_norm = data_of(w, op->segment[MR_REF_ATTN_NORM]),
		.q = matrix_of(w, op->segment[MR_REF_Q]),
		.k = matrix_of(w, op->segment[MR_REF_K]),
		.v = matrix_of(w, op->segment[MR_REF_V]),
		.o = matrix_of(w, op->segment[MR_REF_O]),
		.ffn_norm = data_of(w, op->segment[MR_REF_FFN_NORM]),
		.gate = matrix_of(w, op->segment[MR_REF_GATE]),
		.up = matrix_of(w, op->segment[MR_REF_UP]),
		.down = matrix_of(w, op->segment[MR_REF_DOWN]),
	};
	size_t kv_offset =
		(op->layer - w->c->chips[op->chip].first_layer) * mr_kv_layer_bytes(&w->shape);

	for (uint32_t i = 0; i < n; i++) {
		w->rows[i].kv = rows[i].kv + (size_t)op->chip * rows[i].stride;
		w->rows[i].position = rows[i].position;
	}
	mr_layer_forward(w->kernels, &w->shape, &l, w->rows, n, kv_offset, w->x, w->ws);
}

const float *mr_walker_step(struct walker *w, const struct walker_row *rows, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		w->ids[i] = rows[i].token;
	for (uint32_t i = 0; i < w->c->ref->ops; i++) {
		const struct mr_ref_op *op = &w->c->ops[i];
		struct mr_matrix m;
		switch (op->kind) {
		case MR_REF_EMBED:
			m = matrix_of(w, op->segment[0]);
			mr_embed(w->kernels, &m, w->ids, n, w->x);
			break;
		case MR_REF_LAYER:
			layer(w, op, rows, n);
			break;
		case MR_REF_HEAD:
			m = matrix_of(w, op->segment[1]);
			mr_head_forward(w->kernels, &w->shape, data_of(w, op->segment[0]), &m, w->x,
					n, w->logits, w->ws);
			break;
		}
	}
	return w->logits;
}
