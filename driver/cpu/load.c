// SPDX-License-Identifier: Apache-2.0
/*
 * Brings a model's weights into the arena in the kernels' layout, and makes the KV pool and everything else
 * whose size follows from the model. What fails half-way is freed by close.
 */
#include "driver/cpu/internal.h"

#include <stdlib.h>
#include <string.h>

#include "driver/mem/arena.h"
#include "driver/model/model.h"
#include "kernels/cpu/pack.h"

#define KV_TOKENS_DEFAULT 16384u
#define SLOTS_DEFAULT     256u

/* Hands out the weights' region; with no region it only adds up. */
struct place {
	char *base;
	size_t used;
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
	if (data)
		mr_pack(packing, t->data, rows, cols, data);
	*out = (struct mr_matrix){data, rows, cols, packing};
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
static int place_all(struct cpu *cpu, const struct mr_model *model, struct place *p,
		     void (*progress)(void *arg, unsigned percent), void *arg)
{
	const struct mr_shape *s = &model->shape;
	int tied = model->output.data == model->token_embd.data;
	int status = place_matrix(p, &model->token_embd, s->vocab, s->width, &cpu->embd);

	for (uint32_t l = 0; l < s->layers && !status; l++) {
		status = place_layer(p, s, &model->layers[l], &cpu->layers[l]);
		if (p->base && progress)
			progress(arg, 99 * (l + 1) / s->layers);
	}
	if (!status)
		status = place_vector(p, &model->output_norm, s->width, &cpu->output_norm);
	if (!status && tied)
		cpu->output = cpu->embd;
	else if (!status)
		status = place_matrix(p, &model->output, s->vocab, s->width, &cpu->output);
	return status;
}

/* What the kernels assume (kernels/cpu/layer.h); the model reader has checked that nothing is absurd. */
static int shape_check(const struct mr_shape *s)
{
	if (!s->layers || !s->heads || !s->kv_heads || s->heads % s->kv_heads || !s->head_dim ||
	    s->head_dim % 16 || s->width % 32 || s->ffn % 32 || s->heads * s->head_dim % 32 ||
	    !s->width || !s->ffn || !s->vocab || !s->context || !(s->rope_base > 0))
		return MR_E_MODEL;
	return 0;
}

static void set_caps(struct cpu *cpu)
{
	struct mr_caps *c = &cpu->dev.caps;

	c->slots = cpu->options.slots ? cpu->options.slots : SLOTS_DEFAULT;
	c->context = cpu->options.context ? cpu->options.context : cpu->shape.context;
	c->kv_tokens = cpu->options.kv_tokens ? cpu->options.kv_tokens : KV_TOKENS_DEFAULT;
	if (!cpu->options.kv_tokens && c->kv_tokens < c->context)
		c->kv_tokens = c->context;
	c->kv_tokens = (c->kv_tokens + 15) & ~UINT64_C(15);
	c->vocab = cpu->shape.vocab;
	cpu->blocks = (uint32_t)(c->kv_tokens / 16);
	cpu->layer_bytes = mr_kv_layer_bytes(&cpu->shape);
	cpu->block_bytes = cpu->layer_bytes * cpu->shape.layers;
}

static int make_buffers(struct cpu *cpu)
{
	size_t width = cpu->shape.width, vocab = cpu->shape.vocab;
	int status = mr_workspace_create(&cpu->shape, CPU_ROWS, cpu->dev.caps.context, &cpu->ws);

	if (status)
		return status;
	cpu->x = aligned_alloc(64, CPU_ROWS * width * sizeof(float));
	cpu->logits = aligned_alloc(64, CPU_BATCH_MAX * vocab * sizeof(float));
	cpu->scratch = aligned_alloc(64, (mr_sample_scratch(cpu->shape.vocab) + 63) & ~63ul);
	cpu->jobs = calloc(CPU_JOBS, sizeof(*cpu->jobs));
	/* Two prefills that tell of each layer always find room. */
	cpu->event_cap = CPU_EVENTS;
	while (cpu->event_cap < 2 * (CPU_CHUNK_MAX / CPU_ROWS * cpu->shape.layers + 1))
		cpu->event_cap *= 2;
	cpu->events = calloc(cpu->event_cap, sizeof(*cpu->events));
	cpu->event_room = cpu->event_cap;
	return cpu->x && cpu->logits && cpu->scratch && cpu->jobs && cpu->events ? 0
										 : MR_E_NO_MEMORY;
}

/* On @options.cpu where one is named. */
static int start_thread(struct cpu *cpu)
{
	pthread_attr_t attr;
	cpu_set_t set;
	int failed;

	CPU_ZERO(&set);
	if (cpu->options.cpu >= CPU_SETSIZE)
		return MR_E_INVALID;
	pthread_attr_init(&attr);
	if (cpu->options.cpu >= 0) {
		CPU_SET(cpu->options.cpu, &set);
		pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	}
	failed = pthread_create(&cpu->thread, &attr, cpu_compute, cpu);
	pthread_attr_destroy(&attr);
	cpu->running = !failed;
	return failed ? MR_E_INVALID : 0;
}

int cpu_load(struct mr_device *dev, const struct mr_model *model,
	     void (*progress)(void *arg, unsigned percent), void *arg)
{
	struct cpu *cpu = cpu_of(dev);
	const struct mr_region *weights;
	struct place p = {0};
	int status = shape_check(&model->shape);

	if (cpu->layers)
		return MR_E_EXISTS;
	if (status)
		return status;
	cpu->shape = model->shape;
	cpu->layers = calloc(cpu->shape.layers, sizeof(*cpu->layers));
	if (!cpu->layers)
		return MR_E_NO_MEMORY;
	set_caps(cpu);
	status = place_all(cpu, model, &p, NULL, NULL);
	if (!status)
		status = mr_arena_region(cpu->arena, MR_REGION_WEIGHTS, p.used, &weights);
	if (!status) {
		p = (struct place){.base = weights->base};
		status = place_all(cpu, model, &p, progress, arg);
	}
	if (!status)
		status = mr_arena_region(cpu->arena, MR_REGION_KV, cpu->blocks * cpu->block_bytes,
					 &cpu->kv_region);
	if (!status)
		status = make_buffers(cpu);
	if (!status)
		status = cpu_slots_create(cpu);
	if (!status)
		status = start_thread(cpu);
	if (!status && progress)
		progress(arg, 100);
	return status;
}
