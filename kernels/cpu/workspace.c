// SPDX-License-Identifier: Apache-2.0
/* The scratch of a compute thread or a team, in one allocation, with the table of RoPE angles. */
#include <stdlib.h>

#include <millrace/status.h>

#include "kernels/cpu/math.h"
#include "kernels/cpu/team.h"
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

static void carve_q8(struct carve *c, size_t rows, size_t cols, const struct mr_shape *s,
		     struct mr_q8 *out)
{
	if (s->bf16_inputs)
		out->bf16 = carve(c, rows * cols, sizeof(uint16_t));
	if (s->float_weights)
		out->x = carve(c, rows * cols, sizeof(float));
	out->q = carve(c, rows * cols, 1);
	out->scale = carve(c, rows * cols / 32, sizeof(float));
	out->sum = carve(c, rows * cols / 32, sizeof(int32_t));
	out->scaled_sum = carve(c, rows * cols / 32, sizeof(float));
}

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

static void lay_out(struct mr_workspace *ws, const struct mr_shape *s, struct carve *c)
{
	size_t n = ws->rows, widest = larger(s->width, ws->attn_cols);
	uint32_t threads = mr_team_threads(ws->team);

	ws->out = carve(c, n * s->width, sizeof(float));
	ws->q = carve(c, n * ws->attn_cols, sizeof(float));
	ws->k = carve(c, n * ws->kv_cols, sizeof(float));
	ws->v = carve(c, n * ws->kv_cols, sizeof(float));
	ws->attn = carve(c, n * ws->attn_cols, sizeof(float));
	ws->gate = carve(c, n * s->ffn, sizeof(float));
	ws->up = carve(c, n * s->ffn, sizeof(float));
	if (threads > 1)
		ws->parts = carve(c,
				  (size_t)MR_FEW_ROWS * s->heads * ws->tiles *
					  MR_ATTENTION_PART(s->head_dim),
				  sizeof(float));
	ws->cos_sin = carve(c, (size_t)ws->positions * s->head_dim, sizeof(float));
	ws->taken = carve(c, MR_LAYER_PARTS, sizeof(*ws->taken));
	carve_q8(c, n, s->width, s, &ws->in);
	carve_q8(c, n, ws->attn_cols, s, &ws->attn_q8);
	carve_q8(c, n, s->ffn, s, &ws->ffn_q8);
	for (uint32_t t = 0; t < threads; t++) {
		struct mr_thread_space *own = &ws->own[t];

		own->row = carve(c, widest, sizeof(float));
		own->scratch = carve(c,
				     larger(MR_ATTENTION_SCRATCH(s->head_dim),
					    MR_ATTENTION_ROWS_SCRATCH(s->head_dim)),
				     sizeof(float));
		if (threads > 1)
			carve_q8(c, MR_FEW_ROWS, widest, s, &own->q8);
	}
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

int mr_workspace_create_team(const struct mr_shape *shape, uint32_t rows, uint32_t positions,
			     struct mr_team *team, struct mr_workspace **out)
{
	struct mr_workspace *ws = calloc(1, sizeof(*ws));
	struct carve c = {0};

	if (!ws)
		return MR_E_NO_MEMORY;
	ws->team = team;
	ws->rows = rows;
	ws->positions = positions;
	ws->tiles = (positions + MR_ATTENTION_TILE - 1) / MR_ATTENTION_TILE;
	ws->attn_cols = (size_t)shape->heads * shape->head_dim;
	ws->kv_cols = (size_t)shape->kv_heads * shape->head_dim;
	ws->own = calloc(mr_team_threads(team), sizeof(*ws->own));
	if (ws->own) {
		lay_out(ws, shape, &c);
		ws->memory = aligned_alloc(64, c.used);
	}
	if (!ws->memory) {
		mr_workspace_destroy(ws);
		return MR_E_NO_MEMORY;
	}
	c = (struct carve){.base = ws->memory};
	lay_out(ws, shape, &c);
	fill_angles(ws, shape);
	*out = ws;
	return 0;
}

int mr_workspace_create(const struct mr_shape *shape, uint32_t rows, uint32_t positions,
			struct mr_workspace **out)
{
	return mr_workspace_create_team(shape, rows, positions, NULL, out);
}

void mr_workspace_destroy(struct mr_workspace *ws)
{
	if (!ws)
		return;
	free(ws->memory);
	free(ws->own);
	free(ws);
}
