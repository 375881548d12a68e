// SPDX-License-Identifier: Apache-2.0
/* The nil device's slots: who holds which KV blocks, forks, exports of KV that is nowhere. */
#include "driver/nil/internal.h"

#include <string.h>

static uint32_t blocks_of(uint32_t positions)
{
	return positions / MR_KV_BLOCK_TOKENS + (positions % MR_KV_BLOCK_TOKENS != 0);
}

static int config_check(const struct nil *nil, const struct mr_slot_config *config)
{
	if (!config->positions || config->flags & ~MR_SLOT_KV_EVENTS ||
	    (config->history_count && !config->history))
		return MR_E_INVALID;
	if (config->history_count > MR_LPU_HISTORY_MAX)
		return MR_E_RANGE;
	for (uint32_t i = 0; i < config->history_count; i++)
		if (config->history[i] >= nil->dev.caps.vocab)
			return MR_E_RANGE;
	if (config->positions > nil->dev.caps.context ||
	    blocks_of(config->positions) > nil->pool.count)
		return MR_E_CONTEXT_FULL;
	return 0;
}

/* Opens a slot whose first @shared blocks are those of @from. */
static int open_over(struct nil *nil, const struct mr_slot_config *config, const uint32_t *from,
		     uint32_t shared, struct mr_slot *slot)
{
	uint32_t need = blocks_of(config->positions);
	struct nil_slot *s;
	int status = config_check(nil, config);

	if (status)
		return status;
	if (nil->closing != NIL_NONE)
		nil_slots_sweep(nil, nil_now(nil));
	if (!nil->free_count)
		return MR_E_FULL;
	slot->index = nil->free_slots[nil->free_count - 1];
	s = &nil->slots[slot->index];
	status = mr_blocks_take(&nil->pool, s->blocks + shared, need - shared);
	if (status)
		return status;
	if (shared) {
		memcpy(s->blocks, from, shared * sizeof(*from));
		mr_blocks_share(&nil->pool, from, shared);
	}
	nil->free_count--;
	slot->generation = ++s->generation;
	s->block_count = need;
	s->filled = s->written = s->ahead = s->base = s->marked = 0;
	s->base_due = s->ready = 0;
	s->positions = config->positions;
	s->owner = config->owner;
	s->flags = config->flags;
	s->sampling = config->sampling;
	return 0;
}

int nil_slot_open(struct mr_device *dev, const struct mr_slot_config *config, struct mr_slot *slot)
{
	return open_over(nil_of(dev), config, NULL, 0, slot);
}

int nil_kv_fork(struct mr_device *dev, struct mr_slot from, uint32_t positions,
		const struct mr_slot_config *config, struct mr_slot *slot)
{
	struct nil *nil = nil_of(dev);
	const struct nil_slot *parent = nil_slot_of(nil, from);
	struct nil_slot *s;
	int status;

	if (!parent)
		return MR_E_STALE;
	if (positions > parent->filled)
		return MR_E_TRUNCATED;
	if (config->positions < positions)
		return MR_E_INVALID;
	status = open_over(nil, config, parent->blocks, positions / MR_KV_BLOCK_TOKENS, slot);
	if (status)
		return status;
	s = &nil->slots[slot->index];
	s->filled = s->base = positions;
	s->base_due = s->ready = parent->ready;
	return 0;
}

static void give_back(struct nil *nil, uint32_t index)
{
	struct nil_slot *s = &nil->slots[index];

	mr_blocks_drop(&nil->pool, s->blocks, s->block_count);
	s->block_count = 0;
	nil->free_slots[nil->free_count++] = index;
}

int nil_slot_close(struct mr_device *dev, struct mr_slot slot)
{
	struct nil *nil = nil_of(dev);
	struct nil_slot *s = nil_slot_of(nil, slot);

	if (!s)
		return MR_E_STALE;
	s->generation++;
	if (nil->timed && s->ready > nil_now(nil)) {
		s->next = nil->closing;
		nil->closing = slot.index;
	} else {
		give_back(nil, slot.index);
	}
	return 0;
}

void nil_slots_sweep(struct nil *nil, uint64_t now)
{
	uint32_t *link = &nil->closing;

	while (*link != NIL_NONE) {
		uint32_t index = *link;

		if (nil->slots[index].ready > now) {
			link = &nil->slots[index].next;
			continue;
		}
		*link = nil->slots[index].next;
		give_back(nil, index);
	}
}

void nil_slots_close_all(struct nil *nil)
{
	nil_slots_sweep(nil, UINT64_MAX);
	for (uint32_t i = nil->dev.caps.slots; i-- > 0;) {
		if (!(nil->slots[i].generation & 1))
			continue;
		nil->slots[i].generation++;
		give_back(nil, i);
	}
}

int nil_slot_writable(const struct nil *nil, const struct nil_slot *s, uint32_t position)
{
	if (position > s->filled)
		return MR_E_INVALID;
	/* Slots share whole blocks from the first on: where this one is not shared, no later one is. */
	if (position < s->filled &&
	    mr_blocks_shared(&nil->pool, s->blocks[position / MR_KV_BLOCK_TOKENS]))
		return MR_E_BUSY;
	return 0;
}

void nil_slot_write(struct nil_slot *s, uint32_t from, uint32_t to)
{
	if (from < s->filled) {
		s->written = s->written < from ? s->written : from;
		s->base = s->base < from ? s->base : from;
		s->ahead = 0;
	}
	s->filled = to;
}

/* Positions of @layer that may be exported. */
static uint32_t exportable(const struct nil *nil, const struct nil_slot *s, uint32_t layer)
{
	uint32_t n = s->written;

	if (layer < s->ahead && s->ahead_position > n)
		n = s->ahead_position;
	if (s->base > n && s->base_due <= nil_now(nil))
		n = s->base;
	/* A block that posted work will still write is not described yet. */
	return n < s->filled ? n - n % MR_KV_BLOCK_TOKENS : n;
}

int nil_kv_export(struct mr_device *dev, struct mr_slot slot, uint32_t layer, uint32_t block,
		  uint32_t owner, uint32_t generation, struct mr_kv_desc *out, uint32_t max)
{
	struct nil *nil = nil_of(dev);
	const struct nil_slot *s = nil_slot_of(nil, slot);
	uint32_t count = 0, end;

	if (!s)
		return MR_E_STALE;
	if (nil->layers && layer >= nil->layers)
		return MR_E_RANGE;
	end = exportable(nil, s, layer);
	for (; count < max && (uint64_t)block * MR_KV_BLOCK_TOKENS < end; block++, count++) {
		uint32_t left = end - block * MR_KV_BLOCK_TOKENS;

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
