// SPDX-License-Identifier: Apache-2.0
/*
 * Brings a model's weights into the arena in the kernels' layout: one pass over the tensors adds up, a second
 * one places them, and then all threads of the team pack them, a run of rows at a time.
 */
#include "driver/cpu/internal.h"

#include <stdlib.h>
#include <string.h>

#include "driver/mem/arena.h"
#include "driver/model/model.h"
#include "kernels/cpu/pack.h"

#define MATRICES_LAYER 7u
#define PACK_ROWS      256u /* rows a thread takes at a time, a multiple of 16 */

/* A matrix to be packed: from the file's blocks to its place. */
struct pack {
	const struct mr_tensor *from;
	const struct mr_matrix *to;
};

/* Hands out the weights' region and notes what goes where; with no region it only adds up. */
struct place {
	char *base;
	size_t used;
	struct pack *packs;
	uint32_t count;
};

static void *place(struct place *p, size_t bytes)
{
	void *at = p->base ? p->base + p->used : NULL;

	p->used += (bytes + 63) & ~(size_t)63;
	return at;
}

static int place_matrix(struct place *p, const struct mr_tensor *t, uint32_t rows, uint32_t cols,
			struct mr_matrix *out)
{
	enum mr_packing packing;
	void *data;

	if (mr_model_packing(t->type, &packing) || t->rows != rows || t->cols != cols)
		return MR_E_MODEL;
	data = place(p, mr_pack_bytes(packing, rows, cols));
	*out = (struct mr_matrix){data, rows, cols, packing};
	if (data)
		p->packs[p->count++] = (struct pack){t, out};
	return 0;
}

static int place_vector(struct place *p, const struct mr_tensor *t, uint32_t n, const float **out)
{
	void *data;

	if (t->type != MR_TENSOR_F32 || t->rows != 1 || t->cols != n)
		return MR_E_MODEL;
	data = place(p, n * sizeof(float));
	if (data)
		memcpy(data, t->data, n * sizeof(float));
	*out = data;
	return 0;
}

/* A vector that only some architectures have. */
static int place_other(struct place *p, const struct mr_tensor *t, uint32_t n, const float **out)
{
	return t->data ? place_vector(p, t, n, out) : 0;
}

static int place_layer(struct place *p, const struct mr_shape *s, const struct mr_model_layer *in,
		       struct mr_layer *out)
{
	uint32_t attn = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
	int status = 0;

#define PLACE(call)  \
	if (!status) \
	status = (call)
	PLACE(place_vector(p, &in->attn_norm, s->width, &out->attn_norm));
	PLACE(place_matrix(p, &in->q, attn, s->width, &out->q));
	PLACE(place_matrix(p, &in->k, kv, s->width, &out->k));
	PLACE(place_matrix(p, &in->v, kv, s->width, &out->v));
	PLACE(place_other(p, &in->q_bias, attn, &out->q_bias));
	PLACE(place_other(p, &in->k_bias, kv, &out->k_bias));
	PLACE(place_other(p, &in->v_bias, kv, &out->v_bias));
	PLACE(place_other(p, &in->q_norm, s->head_dim, &out->q_norm));
	PLACE(place_other(p, &in->k_norm, s->head_dim, &out->k_norm));
	PLACE(place_matrix(p, &in->o, s->width, attn, &out->o));
	PLACE(place_vector(p, &in->ffn_norm, s->width, &out->ffn_norm));
	PLACE(place_matrix(p, &in->gate, s->ffn, s->width, &out->gate));
	PLACE(place_matrix(p, &in->up, s->ffn, s->width, &out->up));
	PLACE(place_matrix(p, &in->down, s->width, s->ffn, &out->down));
#undef PLACE
	return status;
}

/* All weights in the order in which a token meets them, the embedding first. */
static int place_all(struct cpu *cpu, const struct mr_model *model, struct place *p)
{
	const struct mr_shape *s = &model->shape;
	int tied = model->output.data == model->token_embd.data;
	int status = place_matrix(p, &model->token_embd, s->vocab, s->width, &cpu->embd);

	for (uint32_t l = 0; l < s->layers && !status; l++)
		status = place_layer(p, s, &model->layers[l], &cpu->layers[l]);
	if (!status)
		status = place_vector(p, &model->output_norm, s->width, &cpu->output_norm);
	if (!status && tied)
		cpu->output = cpu->embd;
	else if (!status)
		status = place_matrix(p, &model->output, s->vocab, s->width, &cpu->output);
	return status;
}

/* What the threads share while they pack. */
struct packing {
	const struct place *place;
	uint32_t total, next; /* runs of PACK_ROWS rows; next is taken by atomic addition */
	void (*progress)(void *arg, unsigned percent);
	void *arg;
};

static uint32_t runs_of(const struct pack *p)
{
	return (p->to->rows + PACK_ROWS - 1) / PACK_ROWS;
}

static void pack_run(const struct pack *p, uint32_t run)
{
	const struct mr_matrix *m = p->to;
	uint32_t row = run * PACK_ROWS, left = m->rows - row;
	const char *from = (const char *)p->from->data + (size_t)row * (p->from->bytes / m->rows);
	char *to = (char *)m->data + mr_pack_bytes(m->packing, row, m->cols);

	mr_pack(m->packing, from, left < PACK_ROWS ? left : PACK_ROWS, m->cols, to);
}

static void pack_rank(void *arg, uint32_t rank)
{
	struct packing *k = arg;
	const struct pack *p = k->place->packs;
	uint32_t first = 0, run;

	/* Runs are numbered through all matrices; a thread's own numbers only ascend. */
	while ((run = __atomic_fetch_add(&k->next, 1, __ATOMIC_RELAXED)) < k->total) {
		for (; run - first >= runs_of(p); p++)
			first += runs_of(p);
		pack_run(p, run - first);
		if (!rank && k->progress)
			k->progress(k->arg, 99 * run / k->total);
	}
}

int cpu_weights_load(struct cpu *cpu, const struct mr_model *model,
		     void (*progress)(void *arg, unsigned percent), void *arg)
{
	struct packing k = {.progress = progress, .arg = arg};
	const struct mr_region *weights;
	struct place p = {0};
	int status = place_all(cpu, model, &p);

	if (!status)
		status = mr_arena_region(cpu->arena, MR_REGION_WEIGHTS, p.used, &weights);
	if (status)
		return status;
	p = (struct place){.base = weights->base};
	p.packs = calloc(cpu->shape.layers * MATRICES_LAYER + 2, sizeof(*p.packs));
	if (!p.packs)
		return MR_E_NO_MEMORY;
	status = place_all(cpu, model, &p);
	k.place = &p;
	for (uint32_t i = 0; i < p.count; i++)
		k.total += runs_of(&p.packs[i]);
	if (!status)
		mr_team_run(cpu->team, pack_rank, &k);
	free(p.packs);
	return status;
}
