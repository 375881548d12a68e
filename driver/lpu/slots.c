// SPDX-License-Identifier: Apache-2.0
/*
 * Slots: the driver keeps a copy of the device's account of KV blocks, so that opening and forking are
 * answered at once while SLOT_SET and KV_FORK are on their way. The queue's order makes that safe: what was
 * posted before is done before. Which id a block has is the device's affair; only how many are free and
 * which are shared is the same here.
 */
#include <stdlib.h>
#include <string.h>

#include "driver/lpu/internal.h"
#include "driver/metrics.h"
#include "kernels/cpu/sample.h"

int mr_lpu_slots_create(struct lpu *lpu, uint32_t kv_blocks)
{
	uint32_t blocks_max = (lpu->dev.caps.context + MR_KV_BLOCK_TOKENS - 1) / MR_KV_BLOCK_TOKENS;
	int status;

	mr_lpu_slots_destroy(lpu);
	status = mr_blocks_create(&lpu->kv, kv_blocks);
	if (status)
		return status;
	lpu->tables = calloc((size_t)lpu->dev.caps.slots * blocks_max, sizeof(*lpu->tables));
	if (!lpu->tables)
		return MR_E_NO_MEMORY;
	for (uint32_t i = 0; i < lpu->dev.caps.slots; i++)
		lpu->slots[i].block = lpu->tables + (size_t)i * blocks_max;
	return 0;
}

void mr_lpu_slots_destroy(struct lpu *lpu)
{
	mr_blocks_destroy(&lpu->kv);
	free(lpu->tables);
	lpu->tables = NULL;
}

static void forget(struct lpu *lpu, struct slot *s)
{
	s->open = 0;
	mr_blocks_drop(&lpu->kv, s->block, s->blocks);
	lpu->slots_open--;
}

void mr_lpu_slots_forget(struct lpu *lpu)
{
	for (uint32_t i = 0; i < lpu->dev.caps.slots; i++)
		if (lpu->slots[i].open)
			forget(lpu, &lpu->slots[i]);
}

int mr_lpu_slot_check(const struct lpu *lpu, struct mr_slot slot)
{
	if (!lpu->loaded)
		return MR_E_NOT_ACTIVE;
	if (slot.index >= lpu->dev.caps.slots || !lpu->slots[slot.index].open ||
	    lpu->slots[slot.index].generation != slot.generation)
		return MR_E_STALE;
	return lpu->slots[slot.index].status;
}

int mr_lpu_slot_writable(const struct lpu *lpu, uint32_t slot, uint32_t position, uint32_t count)
{
	const struct slot *s = &lpu->slots[slot];

	if (position >= s->positions || count > s->positions - position)
		return MR_E_CONTEXT_FULL;
	/* Slots that share a block share all before it: where the first is not shared, none is. */
	return mr_blocks_shared(&lpu->kv, s->block[position / MR_KV_BLOCK_TOKENS]) ? MR_E_BUSY : 0;
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

/* What is wrong with @config for a slot that shares its first @shared blocks with another. */
static int check_config(const struct lpu *lpu, const struct mr_slot_config *config, uint32_t shared)
{
	uint32_t blocks = config->positions / MR_KV_BLOCK_TOKENS +
			  (config->positions % MR_KV_BLOCK_TOKENS != 0);

	if (config->flags & ~MR_SLOT_KV_EVENTS)
		return MR_E_INVALID;
	if (!config->positions || mr_sampling_check(&config->sampling, lpu->vocab) ||
	    config->history_count > MR_LPU_HISTORY_MAX ||
	    (config->history_count && !config->history))
		return MR_E_RANGE;
	for (uint32_t i = 0; i < config->history_count; i++)
		if (config->history[i] >= lpu->vocab)
			return MR_E_RANGE;
	if (config->positions > lpu->dev.caps.context || blocks > lpu->kv.count)
		return MR_E_CONTEXT_FULL;
	if (blocks - shared > mr_blocks_free(&lpu->kv))
		return MR_E_KV_EXHAUSTED;
	return lpu->slots_open == lpu->dev.caps.slots ? MR_E_FULL : 0;
}

/*
 * The next command's place and, at *@param, its slot_param, filled from @config; or NULL where there is no
 * room. Each open slot, the new one too, keeps a place for its KV_FREE, so that closing cannot fail.
 */
static struct mr_lpu_command *begin_open(struct lpu *lpu, const struct mr_slot_config *config,
					 struct mr_lpu_slot_param **param, struct pending **p)
{
	size_t ids = config->history_count * sizeof(*config->history);
	struct mr_lpu_command *cmd = mr_lpu_next(lpu, lpu->slots_open + 1, p);
	uint64_t at = cmd ? fifo_take(&lpu->param_room, (sizeof(**param) + ids + 63) / 64 * 64)
			  : FIFO_NONE;

	if (at == FIFO_NONE)
		return NULL;
	struct mr_lpu_slot_param *out = *param = (void *)(lpu->params + at);
	memset(out, 0, sizeof(*out));
	out->owner = config->owner;
	out->positions = config->positions;
	out->sampling = config->sampling;
	if (ids) {
		memcpy(out + 1, config->history, ids);
		out->history_iova = mr_region_iova(lpu->commands, out + 1);
		out->history_count = config->history_count;
	}
	return cmd;
}

/* Enters the new slot, whose first @shared blocks are @from's, and posts what begin_open gave. */
static struct mr_slot end_open(struct lpu *lpu, uint32_t index, const struct mr_slot_config *config,
			       struct pending *p, const struct slot *from, uint32_t shared)
{
	struct slot *s = &lpu->slots[index];

	s->open = 1;
	s->generation++;
	s->positions = config->positions;
	s->blocks = (config->positions + MR_KV_BLOCK_TOKENS - 1) / MR_KV_BLOCK_TOKENS;
	s->end = 0;
	s->status = 0;
	if (shared)
		memcpy(s->block, from->block, shared * sizeof(*s->block));
	mr_blocks_share(&lpu->kv, s->block, shared);
	mr_blocks_take(&lpu->kv, s->block + shared, s->blocks - shared); /* there are enough */
	lpu->slots_open++;
	p->kind = PENDING_OPEN;
	p->slot = index;
	p->generation = s->generation;
	mr_lpu_submit(lpu, 0);
	return (struct mr_slot){index, s->generation};
}

int mr_lpu_slot_open(struct mr_device *dev, const struct mr_slot_config *config,
		     struct mr_slot *slot)
{
	struct lpu *lpu = lpu_of(dev);
	struct mr_lpu_slot_param *param;
	struct pending *p;
	int status = lpu->loaded ? check_config(lpu, config, 0) : MR_E_NOT_ACTIVE;

	if (status)
		return status;
	struct mr_lpu_cmd_slot_set *cmd = (void *)begin_open(lpu, config, &param, &p);
	if (!cmd)
		return MR_E_FULL;
	cmd->head.opcode = MR_LPU_SLOT_SET;
	cmd->slot = pick(lpu);
	cmd->generation = lpu->slots[cmd->slot].generation + 1;
	cmd->param_iova = mr_region_iova(lpu->commands, param);
	cmd->param_bytes = sizeof(*param);
	*slot = end_open(lpu, cmd->slot, config, p, NULL, 0);
	return 0;
}

int mr_lpu_kv_fork(struct mr_device *dev, struct mr_slot from, uint32_t positions,
		   const struct mr_slot_config *config, struct mr_slot *slot)
{
	struct lpu *lpu = lpu_of(dev);
	uint32_t shared = positions / MR_KV_BLOCK_TOKENS;
	struct mr_lpu_slot_param *param;
	struct pending *p;
	int status = mr_lpu_slot_check(lpu, from);

	if (!(lpu->id.opcodes_io & 1ull << (MR_LPU_KV_FORK & 63)))
		return MR_E_NOT_SUPPORTED;
	if (status)
		return status;
	if (positions > config->positions)
		return MR_E_CONTEXT_FULL;
	if (positions > lpu->slots[from.index].end)
		return MR_E_TRUNCATED;
	status = check_config(lpu, config, shared);
	if (status)
		return status;
	struct mr_lpu_cmd_kv_fork *cmd = (void *)begin_open(lpu, config, &param, &p);
	if (!cmd)
		return MR_E_FULL;
	cmd->head.opcode = MR_LPU_KV_FORK;
	cmd->slot = pick(lpu);
	cmd->generation = lpu->slots[cmd->slot].generation + 1;
	cmd->param_iova = mr_region_iova(lpu->commands, param);
	cmd->param_bytes = sizeof(*param);
	cmd->from = from.index;
	cmd->from_generation = from.generation;
	cmd->positions = positions;
	*slot = end_open(lpu, cmd->slot, config, p, &lpu->slots[from.index], shared);
	lpu->slots[slot->index].end = positions;
	return 0;
}

int mr_lpu_slot_close(struct mr_device *dev, struct mr_slot slot)
{
	struct lpu *lpu = lpu_of(dev);
	int status = mr_lpu_slot_check(lpu, slot);
	struct pending *p;

	if (status == MR_E_NOT_ACTIVE || status == MR_E_STALE)
		return status;
	forget(lpu, &lpu->slots[slot.index]);
	/* The device never opened it; where its answer made no sense, it may have. */
	if (status && status != MR_E_PROTOCOL)
		return 0;
	struct mr_lpu_cmd_kv_free *cmd = (void *)mr_lpu_next(lpu, lpu->slots_open, &p);
	if (!cmd)
		return MR_E_INTERNAL; /* its place was kept */
	cmd->head.opcode = MR_LPU_KV_FREE;
	cmd->slot = slot.index;
	cmd->generation = slot.generation;
	p->slot = slot.index;
	p->generation = slot.generation;
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
	struct slot *s = &lpu->slots[slot.index];
	for (uint32_t i = 0; i < count; i++)
		if (descs[i].block < s->blocks &&
		    mr_blocks_shared(&lpu->kv, s->block[descs[i].block]))
			return MR_E_BUSY;
	struct mr_lpu_cmd_kv_write *cmd = (void *)mr_lpu_next(lpu, lpu->slots_open, &p);
	uint64_t at = cmd ? fifo_take(&lpu->param_room, (count * sizeof(*descs) + 63) / 64 * 64)
			  : FIFO_NONE;
	if (at == FIFO_NONE)
		return MR_E_FULL;
	memcpy(lpu->params + at, descs, count * sizeof(*descs));
	s->writer = lpu->sq_tail;
	for (uint32_t i = 0; i < count; i++)
		if (descs[i].block < s->blocks &&
		    s->end < descs[i].block * MR_KV_BLOCK_TOKENS + descs[i].length)
			s->end = descs[i].block * MR_KV_BLOCK_TOKENS + descs[i].length;
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
