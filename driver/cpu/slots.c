// SPDX-License-Identifier: Apache-2.0
/*
 * Slots and KV blocks: 16 tokens of all layers a block, out of one region of the arena; a slot takes the
 * blocks of all its positions when it is opened. Slots share whole blocks, from the first one on, and write
 * none that is shared. Runs on the host's thread.
 */
#include "driver/cpu/internal.h"

#include <stdlib.h>
#include <string.h>

#include "driver/mem/arena.h"
#include "userlib/spec/crc32c.h"

int cpu_slots_create(struct cpu *cpu)
{
	uint32_t slots = cpu->dev.caps.slots;
	size_t per_slot = (cpu->dev.caps.context + 15) / 16;
	uint32_t *blocks;
	uint8_t **kv;
	int status = mr_blocks_create(&cpu->pool, cpu->blocks);

	if (status)
		return status;
	cpu->slots = calloc(slots, sizeof(*cpu->slots));
	cpu->free_slots = calloc(slots, sizeof(*cpu->free_slots));
	cpu->slot_tables = calloc(slots * per_slot, sizeof(*blocks) + sizeof(*kv));
	if (!cpu->slots || !cpu->free_slots || !cpu->slot_tables)
		return MR_E_NO_MEMORY;
	kv = cpu->slot_tables;
	blocks = (uint32_t *)(kv + slots * per_slot);
	for (uint32_t i = 0; i < slots; i++) {
		cpu->slots[i].kv = kv + i * per_slot;
		cpu->slots[i].blocks = blocks + i * per_slot;
		cpu->free_slots[i] = slots - 1 - i;
	}
	cpu->free_slot_count = slots;
	return 0;
}

struct cpu_slot *cpu_slot_of(struct cpu *cpu, struct mr_slot slot)
{
	if (!cpu->slots || slot.index >= cpu->dev.caps.slots || !(slot.generation & 1) ||
	    cpu->slots[slot.index].generation != slot.generation)
		return NULL;
	return &cpu->slots[slot.index];
}

static int config_check(const struct cpu *cpu, const struct mr_slot_config *config)
{
	int status;

	if (!config->positions || config->flags & ~MR_SLOT_KV_EVENTS ||
	    (config->history_count && !config->history))
		return MR_E_INVALID;
	if (config->history_count > MR_SAMPLE_HISTORY)
		return MR_E_RANGE;
	for (uint32_t i = 0; i < config->history_count; i++)
		if (config->history[i] >= cpu->dev.caps.vocab)
			return MR_E_RANGE;
	status = mr_sampling_check(&config->sampling, cpu->dev.caps.vocab);
	if (status)
		return status;
	if (config->positions > cpu->dev.caps.context ||
	    ((uint64_t)config->positions + 15) / 16 > cpu->blocks)
		return MR_E_CONTEXT_FULL;
	return 0;
}

int cpu_slot_open_over(struct cpu *cpu, const struct mr_slot_config *config,
		       const struct cpu_slot *from, uint32_t shared, struct mr_slot *slot)
{
	uint32_t need = (uint32_t)(((uint64_t)config->positions + 15) / 16);
	struct cpu_slot *s;
	int status;

	if (!cpu->running)
		return MR_E_NOT_ACTIVE;
	status = config_check(cpu, config);
	if (status)
		return status;
	if (!cpu->free_slot_count)
		return MR_E_FULL;
	slot->index = cpu->free_slots[cpu->free_slot_count - 1];
	s = &cpu->slots[slot->index];
	status = mr_blocks_take(&cpu->pool, s->blocks + shared, need - shared);
	if (status)
		return status;
	if (shared) {
		memcpy(s->blocks, from->blocks, shared * sizeof(*s->blocks));
		mr_blocks_share(&cpu->pool, s->blocks, shared);
	}
	for (uint32_t b = 0; b < need; b++)
		s->kv[b] = (uint8_t *)cpu->kv_region->base + s->blocks[b] * cpu->block_bytes;
	cpu->free_slot_count--;
	slot->generation = ++s->generation;
	s->posted = s->written = s->ahead = s->marked = 0;
	s->config = *config;
	s->config.history = NULL;
	s->block_count = need;
	s->history_count = config->history_count;
	if (config->history_count)
		memcpy(s->history, config->history, config->history_count * sizeof(*s->history));
	return 0;
}

int cpu_slot_open(struct mr_device *dev, const struct mr_slot_config *config, struct mr_slot *slot)
{
	return cpu_slot_open_over(cpu_of(dev), config, NULL, 0, slot);
}

static void give_back(struct cpu *cpu, uint32_t index)
{
	struct cpu_slot *s = &cpu->slots[index];

	mr_blocks_drop(&cpu->pool, s->blocks, s->block_count);
	s->block_count = 0;
	s->closing = 0;
	cpu->free_slots[cpu->free_slot_count++] = index;
}

static void close_slot(struct cpu *cpu, uint32_t index)
{
	struct cpu_slot *s = &cpu->slots[index];

	s->generation++;
	s->closing = 1;
	if (!s->inflight)
		give_back(cpu, index);
}

int cpu_slot_close(struct mr_device *dev, struct mr_slot slot)
{
	struct cpu *cpu = cpu_of(dev);

	if (!cpu_slot_of(cpu, slot))
		return MR_E_STALE;
	close_slot(cpu, slot.index);
	return 0;
}

void cpu_slots_close_all(struct cpu *cpu)
{
	for (uint32_t i = 0; cpu->slots && i < cpu->dev.caps.slots; i++)
		if (cpu->slots[i].generation & 1)
			close_slot(cpu, i);
}

void cpu_slot_work_done(struct cpu *cpu, uint32_t index)
{
	struct cpu_slot *s = &cpu->slots[index];

	if (--s->inflight)
		return;
	if (s->closing)
		give_back(cpu, index);
	else
		s->posted = s->written; /* what failed, or stopped early, wrote none */
}

int cpu_slot_writable(const struct cpu *cpu, const struct cpu_slot *s, uint32_t position)
{
	if (position > s->posted)
		return MR_E_INVALID;
	/* Where this block is not shared, no later one is. */
	if (position < s->posted && mr_blocks_shared(&cpu->pool, s->blocks[position / 16]))
		return MR_E_BUSY;
	return 0;
}

void cpu_slot_write(struct cpu_slot *s, uint32_t from, uint32_t to)
{
	if (from < s->posted) {
		s->written = s->written < from ? s->written : from;
		s->ahead = 0;
	}
	s->posted = to;
}

void cpu_slot_written(struct cpu_slot *s, uint32_t to)
{
	to = to < s->posted ? to : s->posted;
	s->written = to > s->written ? to : s->written;
}

/* Positions of @layer that may be exported. */
static uint32_t exportable(const struct cpu_slot *s, uint32_t layer)
{
	uint32_t n = s->written;

	if (layer < s->ahead && s->ahead_position > n)
		n = s->ahead_position;
	/* A block that posted work will still write has no checksum yet. */
	return n < s->posted ? n - n % 16 : n;
}

int cpu_kv_export(struct mr_device *dev, struct mr_slot slot, uint32_t layer, uint32_t block,
		  uint32_t owner, uint32_t generation, struct mr_kv_desc *out, uint32_t max)
{
	struct cpu *cpu = cpu_of(dev);
	const struct cpu_slot *s = cpu_slot_of(cpu, slot);
	uint32_t count = 0, end;

	if (!s)
		return MR_E_STALE;
	if (layer >= cpu->shape.layers)
		return MR_E_RANGE;
	end = exportable(s, layer);
	for (; count < max && (uint64_t)block * 16 < end; block++, count++) {
		const uint8_t *p = s->kv[block] + layer * cpu->layer_bytes;
		uint32_t left = end - block * 16;

		out[count] = (struct mr_kv_desc){
			.iova = mr_region_iova(cpu->kv_region, p),
			.block = block,
			.layer = (uint16_t)layer,
			.length = (uint16_t)(left < 16 ? left : 16),
			.owner = owner,
			.generation = generation,
			.crc32c = mr_crc32c(0, p, cpu->layer_bytes),
		};
	}
	return (int)count;
}
