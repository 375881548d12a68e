// SPDX-License-Identifier: Apache-2.0
/* Opens, loads, resets and closes the nil device; its ops tables. Opened by tools/ and by tests. */
#include "driver/nil/internal.h"

#include <stdlib.h>

#include "driver/model/model.h"

#define KV_TOKENS_MOST (UINT64_C(1) << 28) /* of what is not asked for by number */

static int nil_load(struct mr_device *dev, const struct mr_model *model,
		    void (*progress)(void *arg, unsigned percent), void *arg)
{
	struct nil *nil = nil_of(dev);

	/* The model's vocabulary, where there is one, so that ids are ones its tokeniser knows. */
	if (model && model->shape.vocab) {
		float *logits = calloc(model->shape.vocab, sizeof(*logits));

		if (!logits)
			return MR_E_NO_MEMORY;
		free(nil->logits);
		nil->logits = logits;
		dev->caps.vocab = model->shape.vocab;
	}
	if (model && !nil->layers && model->shape.layers <= NIL_LAYERS_MAX)
		nil->layers = model->shape.layers;
	if (progress)
		progress(arg, 100);
	return 0;
}

static int nil_telemetry(struct mr_device *dev, struct mr_telemetry *out)
{
	struct nil *nil = nil_of(dev);

	if (nil->closing != NIL_NONE)
		nil_slots_sweep(nil, nil_now(nil));
	*out = nil->telemetry;
	out->kv_blocks = nil->pool.count;
	out->kv_blocks_used = nil->pool.count - mr_blocks_free(&nil->pool);
	return 0;
}

/* What has ended by now keeps its own status. */
static int nil_reset(struct mr_device *dev)
{
	struct nil *nil = nil_of(dev);
	uint64_t now = nil_now(nil);

	nil_engine_reset(&nil->compute, now);
	nil_engine_reset(&nil->dma, now);
	nil_slots_close_all(nil);
	return 0;
}

static void nil_close(struct mr_device *dev)
{
	struct nil *nil = nil_of(dev);

	mr_blocks_destroy(&nil->pool);
	free(nil->slots);
	free(nil->slot_blocks);
	free(nil->free_slots);
	free(nil->logits);
	free(nil->compute.records);
	free(nil->dma.records);
	free(nil);
}

static const struct mr_admin_ops nil_admin = {
	.reset = nil_reset,
	.telemetry = nil_telemetry,
	.close = nil_close,
};

static const struct mr_memory_ops nil_memory = {
	.slot_open = nil_slot_open,
	.slot_close = nil_slot_close,
	.kv_export = nil_kv_export,
	.kv_import = nil_kv_import,
	.kv_fork = nil_kv_fork,
};

static const struct mr_work_ops nil_work = {
	.load = nil_load,
	.prefill = nil_prefill,
	.decode = nil_decode,
	.score = nil_score,
	.poll = nil_poll,
	.arm = nil_arm,
};

static const struct mr_caps nil_caps = {
	.name = "nil",
	.stages = MR_STAGE_PREFILL | MR_STAGE_DECODE | MR_STAGE_SCORE,
	.batch_max = NIL_BATCH_MAX,
	.steps_max = NIL_STEPS_MAX,
	.chunk_max = NIL_CHUNK_MAX,
	.class_prefill = "nil",
	.class_decode = "nil",
};

static int has_costs(const struct mr_nil_costs *c)
{
	return c->chunk_ns || c->prompt_token_ns || c->step_ns || c->entry_ns ||
	       c->import_block_ns || c->context_ps;
}

/* Tables of slots and blocks, for dev.caps as it is. */
static int make_tables(struct nil *nil, uint64_t blocks)
{
	uint32_t slots = nil->dev.caps.slots;
	size_t per_slot = (nil->dev.caps.context + 15) / MR_KV_BLOCK_TOKENS;
	int status = mr_blocks_create(&nil->pool, (uint32_t)blocks);

	if (status)
		return status;
	nil->slots = calloc(slots, sizeof(*nil->slots));
	nil->slot_blocks = calloc(slots * per_slot, sizeof(*nil->slot_blocks));
	nil->free_slots = calloc(slots, sizeof(*nil->free_slots));
	nil->logits = calloc(nil->dev.caps.vocab, sizeof(*nil->logits));
	nil->compute.records = calloc(NIL_EVENTS, sizeof(*nil->compute.records));
	nil->dma.records = calloc(NIL_EVENTS, sizeof(*nil->dma.records));
	if (!nil->slots || !nil->slot_blocks || !nil->free_slots || !nil->logits ||
	    !nil->compute.records || !nil->dma.records)
		return MR_E_NO_MEMORY;
	for (uint32_t i = slots; i-- > 0;) {
		nil->slots[i].blocks = nil->slot_blocks + i * per_slot;
		nil->free_slots[nil->free_count++] = i;
	}
	return 0;
}

int mr_nil_open(const struct mr_nil_options *options, struct mr_device **dev)
{
	uint32_t slots = options->slots ? options->slots : 1024;
	uint32_t context = options->context ? options->context : 8192;
	uint64_t per_slot = (context + 15) / MR_KV_BLOCK_TOKENS;
	uint64_t blocks = options->kv_tokens / MR_KV_BLOCK_TOKENS +
			  (options->kv_tokens % MR_KV_BLOCK_TOKENS != 0);
	struct nil *nil;
	int status;

	if (slots > NIL_SLOTS_MAX || context > NIL_CONTEXT_MAX ||
	    options->layers > NIL_LAYERS_MAX || blocks > MR_BLOCKS_MAX ||
	    !(options->jitter >= 0 && options->jitter <= 1))
		return MR_E_RANGE;
	if (!blocks)
		blocks = slots * per_slot < KV_TOKENS_MOST / MR_KV_BLOCK_TOKENS
				 ? slots * per_slot
				 : KV_TOKENS_MOST / MR_KV_BLOCK_TOKENS;
	nil = calloc(1, sizeof(*nil));
	if (!nil)
		return MR_E_NO_MEMORY;
	nil->dev.admin = &nil_admin;
	nil->dev.mem = &nil_memory;
	nil->dev.work = &nil_work;
	nil->dev.wait_fd = -1;
	nil->dev.caps = nil_caps;
	nil->dev.caps.slots = slots;
	nil->dev.caps.context = context;
	nil->dev.caps.pass_rows = options->pass_rows;
	nil->dev.caps.vocab = options->vocab ? options->vocab : 49152;
	nil->dev.caps.kv_tokens = blocks * MR_KV_BLOCK_TOKENS;
	nil->layers = options->layers;
	nil->costs = options->costs;
	nil->timed = options->now_ns || has_costs(&options->costs);
	nil->now_ns = options->now_ns ? options->now_ns : nil_monotonic;
	nil->arg = options->arg;
	nil->import_parallel = nil->timed && options->import_parallel;
	nil->jitter = (uint32_t)(options->jitter * 65536);
	nil->seed = options->seed;
	nil->closing = NIL_NONE;
	status = make_tables(nil, blocks);
	if (status) {
		nil_close(&nil->dev);
		return status;
	}
	*dev = &nil->dev;
	return 0;
}
