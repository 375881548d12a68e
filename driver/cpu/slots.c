// SPDX-License-Identifier: Apache-2.0
/*
 * Slots and KV blocks: 16 tokens of all layers a block, out of one region of the arena; a slot takes the
 * blocks of all its positions when it is opened. Runs on the host's thread.
 */
#include "driver/cpu/internal.h"

#include <stdlib.h>

#include "driver/mem/arena.h"
#include "userlib/spec/crc32c.h"

int cpu_slots_create(struct cpu *cpu)
{
	uint32_t slots = cpu->dev.caps.slots;
	size_t per_slot = (cpu->dev.caps.context + 15) / 16;
	uint32_t *blocks;
	uint8_t **kv;

	cpu->slots = calloc(slots, sizeof(*cpu->slots));
	cpu->free_slots = calloc(slots, sizeof(*cpu->free_slots));
	cpu->free_blocks = calloc(cpu->blocks, sizeof(*cpu->free_blocks));
	cpu->slot_tables = calloc(slots * per_slot, sizeof(*blocks) + sizeof(*kv));
	if (!cpu->slots || !cpu->free_slots || !cpu->free_blocks || !cpu->slot_tables)
		return MR_E_NO_MEMORY;
	kv = cpu->slot_tables;
	blocks = (uint32_t *)(kv + slots * per_slot);
	for (uint32_t i = 0; i < slots; i++) {
		cpu->slots[i].kv = kv + i * per_slot;
		cpu->slots[i].blocks = blocks + i * per_slot;
		cpu->free_slots[i] = slots - 1 - i;
	}
	cpu->free_slot_count = slots;
	for (uint32_t i = 0; i < cpu->blocks; i++)
		cpu->free_blocks[i] = cpu->blocks - 1 - i;
	cpu->free_block_count = cpu->blocks;
	return 0;
}

struct cpu_slot *cpu_slot_of(struct cpu *cpu, struct mr_slot slot)
{
	if (!cpu->slots || slot.index >= cpu->dev.caps.slots || !(slot.generation & 1) ||
	    cpu->slots[slot.index].generation != slot.generation)
		return NULL;
	return &cpu->slots[slot.index];
}

int cpu_slot_open(struct mr_device *dev, const struct mr_slot_config *config, struct mr_slot *slot)
{
	struct cpu *cpu = cpu_of(dev);
	uint32_t need = (uint32_t)(((uint64_t)config->positions + 15) / 16);
	struct cpu_slot *s;
	int status;

	if (!cpu->running)
		return MR_E_NOT_ACTIVE;
	if (!config->positions)
		return MR_E_INVALID;
	status = mr_sampling_check(&config->sampling, dev->caps.vocab);
	if (status)
		return status;
	if (config->positions > dev->caps.context || need > cpu->blocks)
		return MR_E_CONTEXT_FULL;
	if (!cpu->free_slot_count)
		return MR_E_FULL;
	if (need > cpu->free_block_count)
		return MR_E_KV_EXHAUSTED;
	slot->index = cpu->free_slots[--cpu->free_slot_count];
	s = &cpu->slots[slot->index];
	slot->generation = ++s->generation;
	s->posted = s->written = 0;
	s->history_count = 0;
	s->config = *config;
	s->block_count = need;
	for (uint32_t b = 0; b < need; b++) {
		s->blocks[b] = cpu->free_blocks[--cpu->free_block_count];
		s->kv[b] = (uint8_t *)cpu->kv_region->base + s->blocks[b] * cpu->block_bytes;
	}
	return 0;
}

static void give_back(struct cpu *cpu, uint32_t index)
{
	struct cpu_slot *s = &cpu->slots[index];

	for (uint32_t b = s->block_count; b-- > 0;)
		cpu->free_blocks[cpu->free_block_count++] = s->blocks[b];
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

	if (!--s->inflight && s->closing)
		give_back(cpu, index);
}

int cpu_kv_export(struct mr_device *dev, struct mr_slot slot, uint32_t layer, uint32_t block,
		  uint32_t owner, uint32_t generation, struct mr_kv_desc *out, uint32_t max)
{
	struct cpu *cpu = cpu_of(dev);
	const struct cpu_slot *s = cpu_slot_of(cpu, slot);
	uint32_t count = 0;

	if (!s)
		return MR_E_STALE;
	if (layer >= cpu->shape.layers)
		return MR_E_RANGE;
	for (; count < max && (uint64_t)block * 16 < s->written; block++, count++) {
		const uint8_t *p = s->kv[block] + layer * cpu->layer_bytes;
		uint32_t left = s->written - block * 16;

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
