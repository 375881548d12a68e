// SPDX-License-Identifier: Apache-2.0
/*
 * Loads a model: its weights (weights.c), the KV pool and everything else whose size follows from it. What
 * fails half-way is freed by close.
 */
#include "driver/cpu/internal.h"

#include <stdlib.h>

#include "driver/mem/arena.h"
#include "driver/model/model.h"

#define KV_TOKENS_DEFAULT 16384u
#define SLOTS_DEFAULT     256u

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
	uint32_t vocab32 = cpu->shape.vocab;
	size_t width = cpu->shape.width, vocab = vocab32;
	int status = mr_workspace_create_team(&cpu->shape, CPU_ROWS, cpu->dev.caps.context,
					      cpu->team, &cpu->ws);

	if (status)
		return status;
	cpu->x = aligned_alloc(64, CPU_ROWS * width * sizeof(float));
	cpu->logits = aligned_alloc(64, CPU_BATCH_MAX * vocab * sizeof(float));
	cpu->scratch = aligned_alloc(64, mr_team_threads(cpu->team) *
						 ((mr_sample_scratch(vocab32) + 63) & ~63ul));
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

int cpu_load(struct mr_device *dev, const struct mr_model *model,
	     void (*progress)(void *arg, unsigned percent), void *arg)
{
	struct cpu *cpu = cpu_of(dev);
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
	status = cpu_team_create(cpu);
	if (!status)
		status = cpu_weights_load(cpu, model, progress, arg);
	if (!status)
		status = cpu_classes_load(cpu);
	if (!status)
		status = mr_arena_region(cpu->arena, MR_REGION_KV, cpu->blocks * cpu->block_bytes,
					 &cpu->kv_region);
	if (!status)
		status = make_buffers(cpu);
	if (!status)
		status = cpu_slots_create(cpu);
	if (!status)
		status = cpu_thread_start(cpu);
	if (!status && progress)
		progress(arg, 100);
	return status;
}
