// SPDX-License-Identifier: Apache-2.0
/*
 * Slots: the driver keeps the count of the device's KV blocks, so that opening a slot is answered at once
 * while SLOT_SET is on its way. The queue's order makes that safe: a KV_FREE posted before a SLOT_SET is
 * done before it.
 */
#include <string.h>

#include "driver/lpu/internal.h"
#include "driver/metrics.h"
#include "kernels/cpu/sample.h"

int mr_lpu_slot_check(const struct lpu *lpu, struct mr_slot slot)
{
	if (!lpu->loaded)
		return MR_E_NOT_ACTIVE;
	if (slot.index >= lpu->dev.caps.slots || !lpu->slots[slot.index].open ||
	    lpu->slots[slot.index].generation != slot.generation)
		return MR_E_STALE;
	return 0;
}

/* Any free slot, the one longest unused first. There is one. */
static uint32_t pick(struct lpu *lpu)
{
	while (lpu->slots[lpu->next_slot].open)
		lpu->next_slot = (lpu->next_slot + 1) % lpu->dev.caps.slots;
	uint32_t index = lpu->next_slot;
	lpu->next_slot = (index + 1) % lpu->dev.caps.slots;
	return index;
}

int mr_lpu_slot_open(struct mr_device *dev, const struct mr_slot_config *config,
		     struct mr_slot *slot)
{
	struct lpu *lpu = lpu_of(dev);
	uint32_t blocks = config->positions / MR_KV_BLOCK_TOKENS +
			  (config->positions % MR_KV_BLOCK_TOKENS != 0);
	struct pending *p;

	if (!lpu->loaded)
		return MR_E_NOT_ACTIVE;
	if (!config->positions || mr_sampling_check(&config->sampling, lpu->vocab))
		return MR_E_RANGE;
	if (config->positions > dev->caps.context || blocks > lpu->kv_blocks)
		return MR_E_CONTEXT_FULL;
	if (blocks > lpu->kv_free)
		return MR_E_KV_EXHAUSTED;
	if (lpu->slots_open == dev->caps.slots)
		return MR_E_FULL;
	/* Each open slot, this one too, keeps a place for its KV_FREE, so that closing cannot fail. */
	struct mr_lpu_cmd_slot_set *cmd = (void *)mr_lpu_next(lpu, lpu->slots_open + 1, &p);
	uint64_t at =
		cmd ? fifo_take(&lpu->param_room, sizeof(struct mr_lpu_slot_param)) : FIFO_NONE;
	if (at == FIFO_NONE)
		return MR_E_FULL;

	struct mr_lpu_slot_param *param = (void *)(lpu->params + at);
	memset(param, 0, sizeof(*param));
	param->owner = config->owner;
	param->positions = config->positions;
	param->sampling = config->sampling;
	slot->index = pick(lpu);
	struct slot *s = &lpu->slots[slot->index];
	slot->generation = ++s->generation;
	s->open = 1;
	s->positions = config->positions;
	s->blocks = blocks;
	lpu->kv_free -= blocks;
	lpu->slots_open++;
	cmd->head.opcode = MR_LPU_SLOT_SET;
	cmd->slot = slot->index;
	cmd->generation = slot->generation;
	cmd->param_iova = mr_region_iova(lpu->commands, param);
	cmd->param_bytes = sizeof(*param);
	mr_lpu_submit(lpu, 0);
	return 0;
}

int mr_lpu_slot_close(struct mr_device *dev, struct mr_slot slot)
{
	struct lpu *lpu = lpu_of(dev);
	int status = mr_lpu_slot_check(lpu, slot);
	struct pending *p;

	if (status)
		return status;
	struct slot *s = &lpu->slots[slot.index];
	s->open = 0;
	lpu->kv_free += s->blocks;
	lpu->slots_open--;
	struct mr_lpu_cmd_kv_free *cmd = (void *)mr_lpu_next(lpu, lpu->slots_open, &p);
	if (!cmd)
		return MR_E_INTERNAL; /* its place was kept */
	cmd->head.opcode = MR_LPU_KV_FREE;
	cmd->slot = slot.index;
	cmd->generation = slot.generation;
	mr_lpu_submit(lpu, 0);
	return 0;
}

int mr_lpu_kv_import(struct mr_device *dev, struct mr_slot slot, const struct mr_kv_desc *descs,
		     uint32_t count, uint64_t tag)
{
	struct lpu *lpu = lpu_of(dev);
	int status = mr_lpu_slot_check(lpu, slot);
	struct pending *p;

	if (status)
		return status;
	if (!count || count > MR_KV_DESCS_MAX)
		return MR_E_RANGE;
	struct mr_lpu_cmd_kv_write *cmd = (void *)mr_lpu_next(lpu, lpu->slots_open, &p);
	uint64_t at = cmd ? fifo_take(&lpu->param_room, (count * sizeof(*descs) + 63) / 64 * 64)
			  : FIFO_NONE;
	if (at == FIFO_NONE)
		return MR_E_FULL;
	memcpy(lpu->params + at, descs, count * sizeof(*descs));
	cmd->head.opcode = MR_LPU_KV_WRITE;
	cmd->slot = slot.index;
	cmd->generation = slot.generation;
	cmd->descs_iova = mr_region_iova(lpu->commands, lpu->params + at);
	cmd->count = count;
	p->kind = PENDING_IMPORT;
	p->tag = tag;
	p->slot = slot.index;
	p->generation = slot.generation;
	mr_count(MR_M_copy_kv_lpu, count * lpu->kv_layer_bytes);
	mr_lpu_submit(lpu, 0);
	return 0;
}
