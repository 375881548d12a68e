// SPDX-License-Identifier: Apache-2.0
/*
 * The nil device's work. All of an answer is known when the work is posted; its events are made then, each
 * with the time at which it is due.
 */
#include "driver/nil/internal.h"

static uint64_t later(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* When work that is posted now starts on @engine; @ready: when its slot may be worked on. */
static uint64_t start_of(const struct nil_engine *engine, uint64_t now, uint64_t ready)
{
	return later(later(now, engine->busy), ready);
}

static int tokens_check(const struct nil *nil, const uint32_t *tokens, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (tokens[i] >= nil->dev.caps.vocab)
			return MR_E_RANGE;
	return 0;
}

static int import_check(const struct nil *nil, const struct nil_slot *s, uint32_t generation,
			const struct mr_kv_desc *desc)
{
	if (desc->generation != generation || desc->owner != s->owner)
		return MR_E_STALE;
	if (desc->length == 0 || desc->length > MR_KV_BLOCK_TOKENS || desc->reserved ||
	    (nil->layers && desc->layer >= nil->layers))
		return MR_E_RANGE;
	if ((uint64_t)desc->block * MR_KV_BLOCK_TOKENS + desc->length > s->positions)
		return MR_E_RANGE;
	return 0;
}

int nil_kv_import(struct mr_device *dev, struct mr_slot slot, const struct mr_kv_desc *descs,
		  uint32_t count, uint64_t tag)
{
	struct nil *nil = nil_of(dev);
	struct nil_slot *s = nil_slot_of(nil, slot);
	struct nil_engine *engine = nil->import_parallel ? &nil->dma : &nil->compute;
	struct nil_record *done;
	uint32_t filled;
	int status = 0;

	if (!s)
		return MR_E_STALE;
	if (count == 0 || count > MR_KV_DESCS_MAX)
		return MR_E_INVALID;
	for (uint32_t i = 0; i < count; i++)
		if (descs[i].block < s->block_count &&
		    mr_blocks_shared(&nil->pool, s->blocks[descs[i].block]))
			return MR_E_BUSY;
	if (nil_room(engine) < 1)
		return MR_E_FULL;
	filled = s->filled;
	for (uint32_t i = 0; i < count && status == 0; i++) {
		uint32_t end = descs[i].block * MR_KV_BLOCK_TOKENS + descs[i].length;

		status = import_check(nil, s, slot.generation, &descs[i]);
		filled = end > filled ? end : filled;
	}
	if (status == 0)
		s->filled = filled;
	if (nil->timed)
		s->ready = engine->busy = start_of(engine, nil_now(nil), s->ready) +
					  nil_jittered(nil, count * nil->costs.import_block_ns);
	nil->telemetry.commands++;
	nil->telemetry.errors += status != 0;
	done = nil_event(engine, MR_EVENT_DONE, slot, tag, s->ready);
	done->event.status = status;
	done->reach = status ? 0 : filled;
	return 0;
}

/* What prefill and score check alike. */
static int feed_check(const struct nil *nil, const struct nil_slot *s, const uint32_t *tokens,
		      uint32_t count, uint32_t fed, uint32_t position)
{
	int status = nil_slot_writable(nil, s, position);

	if (status)
		return status;
	if (fed > s->positions - position)
		return MR_E_CONTEXT_FULL;
	return tokens_check(nil, tokens, count);
}

/* Takes the compute engine's time to feed @count tokens at @position; returns when it starts. */
static uint64_t feed(struct nil *nil, struct nil_slot *s, uint32_t count, uint32_t position)
{
	const struct mr_nil_costs *c = &nil->costs;
	uint64_t before = (uint64_t)count * position + (uint64_t)count * (count - 1) / 2;
	uint64_t start;

	nil_slot_write(s, position, position + count);
	nil->telemetry.commands++;
	if (!nil->timed)
		return 0;
	start = start_of(&nil->compute, nil_now(nil), s->ready);
	s->ready = nil->compute.busy =
		start + nil_jittered(nil, c->chunk_ns + count * c->prompt_token_ns +
						  before * c->context_ps / 1000);
	return start;
}

int nil_prefill(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens, uint32_t count,
		uint32_t position, uint64_t tag)
{
	struct nil *nil = nil_of(dev);
	struct nil_slot *s = nil_slot_of(nil, slot);
	uint32_t layers = 0;
	uint64_t start;
	int status;

	if (!s)
		return MR_E_STALE;
	if (count == 0 || count > dev->caps.chunk_max)
		return MR_E_INVALID;
	status = feed_check(nil, s, tokens, count, count, position);
	if (status)
		return status;
	if (s->flags & MR_SLOT_KV_EVENTS)
		layers = nil->layers ? nil->layers : 1;
	if (nil_room(&nil->compute) < layers + 1)
		return MR_E_FULL;
	start = feed(nil, s, count, position);
	for (uint32_t l = 0; l < layers; l++) {
		uint64_t due = start + (s->ready - start) * (l + 1) / layers;
		struct nil_record *r = nil_event(&nil->compute, MR_EVENT_KV, slot, tag, due);

		r->event.layer = l;
		r->event.position = position + count;
	}
	nil_event(&nil->compute, MR_EVENT_DONE, slot, tag, s->ready)->reach = position + count;
	return 0;
}

int nil_score(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens, uint32_t count,
	      uint32_t position, uint64_t tag)
{
	struct nil *nil = nil_of(dev);
	struct nil_slot *s = nil_slot_of(nil, slot);
	uint64_t seen;
	int status;

	if (!s)
		return MR_E_STALE;
	if (count < 2 || count > dev->caps.chunk_max)
		return MR_E_INVALID;
	status = feed_check(nil, s, tokens, count, count - 1, position);
	if (status)
		return status;
	if (nil_room(&nil->compute) < count)
		return MR_E_FULL;
	feed(nil, s, count - 1, position);
	seen = nil->timed ? s->ready : nil_monotonic(NULL);
	for (uint32_t i = 1; i < count; i++) {
		struct mr_event *e =
			&nil_event(&nil->compute, MR_EVENT_TOKEN, slot, tag, s->ready)->event;

		e->position = position + i;
		e->token = tokens[i];
		e->logprob = mr_nil_logprob(tokens[i]);
		e->seen_ns = seen;
	}
	nil->telemetry.records += count - 1;
	nil_event(&nil->compute, MR_EVENT_DONE, slot, tag, s->ready)->reach = position + count - 1;
	return 0;
}

static uint32_t is_stop(const struct mr_sampling *sampling, uint32_t token)
{
	for (uint32_t i = 0; i < sampling->stop_count && i < MR_STOP_TOKENS_MAX; i++)
		if (sampling->stop[i] == token)
			return 1;
	return 0;
}

static int entry_check(struct nil *nil, const struct mr_decode_entry *e, uint32_t steps)
{
	struct nil_slot *s = nil_slot_of(nil, e->slot);
	int status;

	if (!s)
		return MR_E_STALE;
	if ((e->forced_count && (e->forced_count != steps - 1 || !e->forced)) ||
	    (e->flags & ~MR_DECODE_LOGITS) || s->marked == nil->decodes)
		return MR_E_INVALID;
	s->marked = nil->decodes;
	status = nil_slot_writable(nil, s, e->position);
	if (status)
		return status;
	if (e->token >= nil->dev.caps.vocab)
		return MR_E_RANGE;
	if (steps > s->positions - e->position)
		return MR_E_CONTEXT_FULL;
	return tokens_check(nil, e->forced, e->forced_count);
}

/* An entry that is still decoded: its token to be fed. */
struct live {
	uint32_t entry;
	uint32_t fed;
};

/* The @step-th token of one entry. Returns 1 where it stopped. */
static uint32_t step_one(struct nil *nil, const struct mr_decode_entry *e, uint32_t step,
			 struct live *live, uint64_t due, uint64_t seen, uint64_t tag)
{
	struct nil_slot *s = &nil->slots[e->slot.index];
	struct mr_event *event =
		&nil_event(&nil->compute, MR_EVENT_TOKEN, e->slot, tag, due)->event;

	event->position = e->position + step + 1;
	event->token = live->fed + 1 == nil->dev.caps.vocab ? 0 : live->fed + 1;
	event->stopped = is_stop(&s->sampling, event->token);
	event->seen_ns = seen;
	if (e->flags & MR_DECODE_LOGITS)
		event->logits = nil->logits;
	s->filled = event->position;
	s->ready = due;
	live->fed = step < e->forced_count ? e->forced[step] : event->token;
	return event->stopped;
}

/* What a step over the live entries costs. */
static uint64_t step_cost(const struct nil *nil, const struct mr_decode_entry *entries,
			  const struct live *live, uint32_t n, uint32_t step)
{
	const struct mr_nil_costs *c = &nil->costs;
	uint64_t before = 0;

	for (uint32_t i = 0; c->context_ps && i < n; i++)
		before += entries[live[i].entry].position + step;
	return c->step_ns + n * c->entry_ns + before * c->context_ps / 1000;
}

int nil_decode(struct mr_device *dev, const struct mr_decode_entry *entries, uint32_t count,
	       uint32_t steps, uint64_t tag)
{
	struct nil *nil = nil_of(dev);
	struct live live[NIL_BATCH_MAX];
	uint64_t ready = 0, at = 0, seen = 0;
	uint32_t n = count;

	if (count == 0 || count > dev->caps.batch_max || steps == 0 || steps > dev->caps.steps_max)
		return MR_E_INVALID;
	if (!++nil->decodes)
		nil->decodes = 1; /* 0 marks no slot */
	for (uint32_t i = 0; i < count; i++) {
		int status = entry_check(nil, &entries[i], steps);

		if (status < 0)
			return status;
	}
	if (nil_room(&nil->compute) < count * steps + 1)
		return MR_E_FULL;
	for (uint32_t i = 0; i < count; i++) {
		struct nil_slot *s = &nil->slots[entries[i].slot.index];

		live[i] = (struct live){i, entries[i].token};
		ready = later(ready, s->ready);
		nil_slot_write(s, entries[i].position, entries[i].position);
	}
	if (nil->timed)
		at = start_of(&nil->compute, nil_now(nil), ready);
	else
		seen = nil_monotonic(NULL);
	/* Step by step over the batch, as a device would. */
	for (uint32_t step = 0; step < steps; step++) {
		uint32_t left = 0;

		if (nil->timed && n)
			seen = at += nil_jittered(nil, step_cost(nil, entries, live, n, step));
		for (uint32_t i = 0; i < n; i++) {
			const struct mr_decode_entry *e = &entries[live[i].entry];

			if (!step_one(nil, e, step, &live[i], at, seen, tag))
				live[left++] = live[i];
			nil->telemetry.records++;
		}
		n = left;
	}
	nil->compute.busy = at;
	nil->telemetry.commands++;
	nil->telemetry.steps += steps;
	nil_event(&nil->compute, MR_EVENT_DONE, (struct mr_slot){0}, tag, at);
	return 0;
}
