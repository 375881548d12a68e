// SPDX-License-Identifier: Apache-2.0
/*
 * The nil device: every work completes while it is posted, the next token is the fed one plus one.
 * It computes nothing but keeps every rule of driver/device.h (generations, positions, owners,
 * order of events, room), so that whoever breaks a rule meets it here first. Opened by tools/ and
 * by tests.
 */
#include "driver/nil/nil.h"

#include <stdlib.h>
#include <time.h>

#include "driver/model/model.h"

#define NIL_STEPS_MAX   16u
#define NIL_BATCH_MAX   256u
#define NIL_SLOTS_MAX   65536u
#define NIL_CONTEXT_MAX (1u << 20)

struct nil_slot {
	uint32_t generation; /* odd while open, so that 0 never names an open slot */
	uint32_t filled;     /* positions whose KV is there */
	struct mr_slot_config config;
};

struct nil {
	struct mr_device dev; /* first: a struct mr_device * is a struct nil * */
	struct nil_slot *slots;
	uint32_t *free_slots; /* a stack */
	uint32_t free_count;
	uint64_t kv_used; /* positions reserved by open slots */
	float *logits;    /* vocab zeros */
	struct mr_event *events;
	uint32_t event_cap;  /* a power of two */
	uint32_t head, tail; /* free-running: next to take, next to fill */
	struct mr_telemetry telemetry;
};

static struct nil *nil_of(struct mr_device *dev)
{
	return (struct nil *)dev;
}

static struct nil_slot *nil_slot_of(struct nil *nil, struct mr_slot slot)
{
	if (slot.index >= nil->dev.caps.slots || !(slot.generation & 1) ||
	    nil->slots[slot.index].generation != slot.generation)
		return NULL;
	return &nil->slots[slot.index];
}

static uint32_t nil_room(const struct nil *nil)
{
	return nil->event_cap - (nil->tail - nil->head);
}

static struct mr_event *nil_event(struct nil *nil, enum mr_event_type type, struct mr_slot slot,
				  uint64_t tag)
{
	struct mr_event *event = &nil->events[nil->tail++ & (nil->event_cap - 1)];

	*event = (struct mr_event){.type = type, .slot = slot, .tag = tag};
	return event;
}

static uint64_t nil_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int nil_slot_open(struct mr_device *dev, const struct mr_slot_config *config,
			 struct mr_slot *slot)
{
	struct nil *nil = nil_of(dev);
	struct nil_slot *s;

	if (config->positions > dev->caps.context)
		return MR_E_CONTEXT_FULL;
	if (nil->free_count == 0)
		return MR_E_FULL;
	if (nil->kv_used + config->positions > dev->caps.kv_tokens)
		return MR_E_KV_EXHAUSTED;
	slot->index = nil->free_slots[--nil->free_count];
	s = &nil->slots[slot->index];
	slot->generation = ++s->generation;
	s->filled = 0;
	s->config = *config;
	nil->kv_used += config->positions;
	return 0;
}

static int nil_slot_close(struct mr_device *dev, struct mr_slot slot)
{
	struct nil *nil = nil_of(dev);
	struct nil_slot *s = nil_slot_of(nil, slot);

	if (!s)
		return MR_E_STALE;
	s->generation++;
	nil->kv_used -= s->config.positions;
	nil->free_slots[nil->free_count++] = slot.index;
	return 0;
}

static int nil_kv_export(struct mr_device *dev, struct mr_slot slot, uint32_t layer, uint32_t block,
			 uint32_t owner, uint32_t generation, struct mr_kv_desc *out, uint32_t max)
{
	struct nil_slot *s = nil_slot_of(nil_of(dev), slot);
	uint32_t count = 0;

	if (!s)
		return MR_E_STALE;
	for (; count < max && (uint64_t)block * MR_KV_BLOCK_TOKENS < s->filled; block++, count++) {
		uint32_t left = s->filled - block * MR_KV_BLOCK_TOKENS;

		out[count] = (struct mr_kv_desc){
			.block = block,
			.layer = (uint16_t)layer,
			.length = (uint16_t)(left < MR_KV_BLOCK_TOKENS ? left : MR_KV_BLOCK_TOKENS),
			.owner = owner,
			.generation = generation,
		};
	}
	return (int)count;
}

static int nil_import_check(const struct nil_slot *s, uint32_t generation,
			    const struct mr_kv_desc *desc)
{
	if (desc->generation != generation || desc->owner != s->config.owner)
		return MR_E_STALE;
	if (desc->length == 0 || desc->length > MR_KV_BLOCK_TOKENS || desc->reserved)
		return MR_E_RANGE;
	if ((uint64_t)desc->block * MR_KV_BLOCK_TOKENS + desc->length > s->config.positions)
		return MR_E_RANGE;
	return 0;
}

static int nil_kv_import(struct mr_device *dev, struct mr_slot slot, const struct mr_kv_desc *descs,
			 uint32_t count, uint64_t tag)
{
	struct nil *nil = nil_of(dev);
	struct nil_slot *s = nil_slot_of(nil, slot);
	uint32_t filled;
	int status = 0;

	if (!s)
		return MR_E_STALE;
	if (count == 0 || count > MR_KV_DESCS_MAX)
		return MR_E_INVALID;
	if (nil_room(nil) < 1)
		return MR_E_FULL;
	filled = s->filled;
	for (uint32_t i = 0; i < count && status == 0; i++) {
		uint32_t end = descs[i].block * MR_KV_BLOCK_TOKENS + descs[i].length;

		status = nil_import_check(s, slot.generation, &descs[i]);
		filled = end > filled ? end : filled;
	}
	if (status == 0)
		s->filled = filled;
	nil->telemetry.commands++;
	nil_event(nil, MR_EVENT_DONE, slot, tag)->status = status;
	return 0;
}

static int nil_kv_fork(struct mr_device *dev, struct mr_slot from, uint32_t positions,
		       const struct mr_slot_config *config, struct mr_slot *slot)
{
	struct nil *nil = nil_of(dev);
	struct nil_slot *s = nil_slot_of(nil, from);
	int status;

	if (!s)
		return MR_E_STALE;
	if (positions > s->filled)
		return MR_E_TRUNCATED;
	if (config->positions < positions)
		return MR_E_INVALID;
	status = nil_slot_open(dev, config, slot);
	if (status == 0)
		nil->slots[slot->index].filled = positions;
	return status;
}

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
	if (progress)
		progress(arg, 100);
	return 0;
}

static int nil_prefill(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens,
		       uint32_t count, uint32_t position, uint64_t tag)
{
	struct nil *nil = nil_of(dev);
	struct nil_slot *s = nil_slot_of(nil, slot);

	if (!s)
		return MR_E_STALE;
	if (count == 0 || count > dev->caps.chunk_max || position != s->filled)
		return MR_E_INVALID;
	if (count > s->config.positions - position)
		return MR_E_CONTEXT_FULL;
	for (uint32_t i = 0; i < count; i++)
		if (tokens[i] >= dev->caps.vocab)
			return MR_E_RANGE;
	if (nil_room(nil) < 1)
		return MR_E_FULL;
	s->filled += count;
	nil->telemetry.commands++;
	nil_event(nil, MR_EVENT_DONE, slot, tag);
	return 0;
}

static int nil_is_stop(const struct mr_sampling *sampling, uint32_t token)
{
	for (uint32_t i = 0; i < sampling->stop_count && i < MR_STOP_TOKENS_MAX; i++)
		if (sampling->stop[i] == token)
			return 1;
	return 0;
}

static int nil_decode_check(struct nil *nil, const struct mr_decode_entry *e, uint32_t steps)
{
	const struct nil_slot *s = nil_slot_of(nil, e->slot);

	if (!s)
		return MR_E_STALE;
	if (e->position != s->filled || (e->forced_count && e->forced_count != steps - 1) ||
	    (e->forced_count && !e->forced) || (e->flags & ~MR_DECODE_LOGITS))
		return MR_E_INVALID;
	if (e->token >= nil->dev.caps.vocab)
		return MR_E_RANGE;
	if (steps > s->config.positions - e->position)
		return MR_E_CONTEXT_FULL;
	for (uint32_t i = 0; i < e->forced_count; i++)
		if (e->forced[i] >= nil->dev.caps.vocab)
			return MR_E_RANGE;
	return 0;
}

/* The @step-th token of one entry; @fed is its input. The event stays where it lies until polled.
 */
static const struct mr_event *nil_step(struct nil *nil, const struct mr_decode_entry *e,
				       uint32_t step, uint32_t fed, uint64_t now, uint64_t tag)
{
	struct nil_slot *s = &nil->slots[e->slot.index];
	struct mr_event *event = nil_event(nil, MR_EVENT_TOKEN, e->slot, tag);

	event->position = e->position + step + 1;
	event->token = (fed + 1) % nil->dev.caps.vocab;
	event->stopped = (uint32_t)nil_is_stop(&s->config.sampling, event->token);
	event->seen_ns = now;
	if (e->flags & MR_DECODE_LOGITS)
		event->logits = nil->logits;
	s->filled++;
	nil->telemetry.records++;
	return event;
}

static int nil_decode(struct mr_device *dev, const struct mr_decode_entry *entries, uint32_t count,
		      uint32_t steps, uint64_t tag)
{
	struct nil *nil = nil_of(dev);
	uint32_t last[NIL_BATCH_MAX];
	uint8_t stopped[NIL_BATCH_MAX] = {0};
	uint64_t now = nil_now();

	if (count == 0 || count > dev->caps.batch_max || steps == 0 || steps > dev->caps.steps_max)
		return MR_E_INVALID;
	for (uint32_t i = 0; i < count; i++) {
		int status = nil_decode_check(nil, &entries[i], steps);

		if (status < 0)
			return status;
	}
	if (nil_room(nil) < count * steps + 1)
		return MR_E_FULL;
	/* Step by step over the batch, as a device would. */
	for (uint32_t step = 0; step < steps; step++) {
		for (uint32_t i = 0; i < count; i++) {
			const struct mr_decode_entry *e = &entries[i];
			uint32_t fed = step == 0         ? e->token
				       : e->forced_count ? e->forced[step - 1]
							 : last[i];
			const struct mr_event *event;

			if (stopped[i])
				continue;
			event = nil_step(nil, e, step, fed, now, tag);
			last[i] = event->token;
			stopped[i] = (uint8_t)event->stopped;
		}
	}
	nil->telemetry.commands++;
	nil->telemetry.steps += steps;
	nil_event(nil, MR_EVENT_DONE, (struct mr_slot){0}, tag);
	return 0;
}

static int nil_poll(struct mr_device *dev, struct mr_event *events, uint32_t max)
{
	struct nil *nil = nil_of(dev);
	uint32_t count = 0;

	while (count < max && nil->head != nil->tail)
		events[count++] = nil->events[nil->head++ & (nil->event_cap - 1)];
	nil->telemetry.completions += count;
	return (int)count;
}

/* Nothing is ever under way between a post and its events, so there is nothing to wait for. */
static int nil_arm(struct mr_device *dev)
{
	return nil_of(dev)->head != nil_of(dev)->tail;
}

static int nil_telemetry(struct mr_device *dev, struct mr_telemetry *out)
{
	struct nil *nil = nil_of(dev);

	*out = nil->telemetry;
	out->kv_blocks = dev->caps.kv_tokens / MR_KV_BLOCK_TOKENS;
	out->kv_blocks_used = nil->kv_used / MR_KV_BLOCK_TOKENS;
	return 0;
}

/* All work has ended when it was posted: what waits to be polled keeps its own status. */
static int nil_reset(struct mr_device *dev)
{
	struct nil *nil = nil_of(dev);

	nil->free_count = 0;
	for (uint32_t i = dev->caps.slots; i-- > 0;) {
		nil->slots[i].generation += nil->slots[i].generation & 1;
		nil->free_slots[nil->free_count++] = i;
	}
	nil->kv_used = 0;
	return 0;
}

static void nil_close(struct mr_device *dev)
{
	struct nil *nil = nil_of(dev);

	free(nil->slots);
	free(nil->free_slots);
	free(nil->logits);
	free(nil->events);
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
	.score = mr_unsupported_score,
	.poll = nil_poll,
	.arm = nil_arm,
};

static const struct mr_caps nil_caps = {
	.name = "nil",
	.stages = MR_STAGE_PREFILL | MR_STAGE_DECODE,
	.batch_max = NIL_BATCH_MAX,
	.steps_max = NIL_STEPS_MAX,
	.chunk_max = 4096,
	.class_prefill = "nil",
	.class_decode = "nil",
};

int mr_nil_open(const struct mr_nil_options *options, struct mr_device **dev)
{
	uint32_t slots = options->slots ? options->slots : 1024;
	uint32_t context = options->context ? options->context : 8192;
	uint32_t vocab = options->vocab ? options->vocab : 49152;
	struct nil *nil;

	if (slots > NIL_SLOTS_MAX || context > NIL_CONTEXT_MAX)
		return MR_E_RANGE;
	nil = calloc(1, sizeof(*nil));
	if (!nil)
		return MR_E_NO_MEMORY;
	nil->event_cap = 2 * NIL_STEPS_MAX * NIL_BATCH_MAX;
	nil->slots = calloc(slots, sizeof(*nil->slots));
	nil->free_slots = calloc(slots, sizeof(*nil->free_slots));
	nil->logits = calloc(vocab, sizeof(*nil->logits));
	nil->events = calloc(nil->event_cap, sizeof(*nil->events));
	if (!nil->slots || !nil->free_slots || !nil->logits || !nil->events) {
		nil_close(&nil->dev);
		return MR_E_NO_MEMORY;
	}
	nil->dev.admin = &nil_admin;
	nil->dev.mem = &nil_memory;
	nil->dev.work = &nil_work;
	nil->dev.wait_fd = -1;
	nil->dev.caps = nil_caps;
	nil->dev.caps.slots = slots;
	nil->dev.caps.context = context;
	nil->dev.caps.vocab = vocab;
	nil->dev.caps.kv_tokens = (uint64_t)slots * context;
	nil_reset(&nil->dev);
	*dev = &nil->dev;
	return 0;
}
