// SPDX-License-Identifier: Apache-2.0
/* The scratch of one compute thread, in one allocation, with the table of RoPE angles. */
#include <stdlib.h>

#include <millrace/status.h>

#include "kernels/cpu/math.h"
#include "kernels/cpu/workspace.h"

/* Hands out 64-byte aligned parts of one allocation; with no base it only adds up. */
struct carve {
	char *base;
	size_t used;
};

static void *carve(struct carve *c, size_t count, size_t size)
{
	void *p = c->base ? c->base + c->used : NULL;

	c->used += (count * size + 63) & ~(size_t)63;
	return p;
}

static void lay_out(struct mr_workspace *ws, const struct mr_shape *s, struct carve *c)
{
	size_t n = ws->rows, widest = s->width;

	if (ws->attn_cols > widest)
		widest = ws->attn_cols;
	if (s->ffn > widest)
		widest = s->ffn;
	ws->norm = carve(c, n * s->width, sizeof(float));
	ws->q = carve(c, n * ws->attn_cols, sizeof(float));
	ws->k = carve(c, n * ws->kv_cols, sizeof(float));
	ws->v = carve(c, n * ws->kv_cols, sizeof(float));
	ws->attn = carve(c, n * ws->attn_cols, sizeof(float));
	ws->gate = carve(c, n * s->ffn, sizeof(float));
	ws->up = carve(c, n * s->ffn, sizeof(float));
	ws->scratch = carve(c, MR_ATTENTION_SCRATCH(s->head_dim), sizeof(float));
	ws->cos_sin = carve(c, (size_t)ws->positions * s->head_dim, sizeof(float));
	ws->q8.q = carve(c, n * widest, 1);
	ws->q8.scale = carve(c, n * widest / 32, sizeof(float));
	ws->q8.sum = carve(c, n * widest / 32, sizeof(int32_t));
	if (s->float_weights)
		ws->q8.x = carve(c, n * widest, sizeof(float));
}

/* Angle of pair i at position p: p * base^(-2i / head_dim), or what the shape says instead. */
static void fill_angles(struct mr_workspace *ws, const struct mr_shape *s)
{
	double ln_base = mr_log((double)s->rope_base);

	for (uint32_t i = 0; i < s->head_dim; i += 2) {
		double step = s->rope_steps ? s->rope_steps[i / 2]
					    : mr_exp_double(-(double)i / s->head_dim * ln_base);
		double magnitude = s->rope_steps ? (double)s->rope_magnitude : 1;

		for (uint32_t p = 0; p < ws->positions; p++) {
			float *at = ws->cos_sin + (size_t)p * s->head_dim + i;
			double sine, cosine;

			mr_sincos(p * step, &sine, &cosine);
			at[0] = (float)(magnitude * cosine);
			at[1] = (float)(magnitude * sine);
		}
	}
}

int mr_workspace_create(const struct mr_shape *shape, uint32_t rows, uint32_t positions,
			struct mr_workspace **out)
{
	struct mr_workspace *ws = calloc(1, sizeof(*ws));
	struct carve c = {0};

	if (!ws)
		return MR_E_NO_MEMORY;
	ws->rows = rows;
	ws->positions = positions;
	ws->attn_cols = (size_t)shape->heads * shape->head_dim;
	ws->kv_cols = (size_t)shape->kv_heads * shape->head_dim;
	lay_out(ws, shape, &c);
	ws->memory = aligned_alloc(64, c.used);
	if (!ws->memory) {
		free(ws);
		return MR_E_NO_MEMORY;
	}
	c = (struct carve){.base = ws->memory};
	lay_out(ws, shape, &c);
	fill_angles(ws, shape);
	*out = ws;
	return 0;
}

void mr_workspace_destroy(struct mr_workspace *ws)
{
	if (!ws)
		return;
	free(ws->memory);
	free(ws);
}
