// SPDX-License-Identifier: Apache-2.0
/* SCORE: tokens into command memory, where they stay to check the records against. */
#include <string.h>

#include "driver/lpu/internal.h"

int mr_lpu_score(struct mr_device *dev, struct mr_slot slot, const uint32_t *tokens, uint32_t count,
		 uint32_t position, uint64_t tag)
{
	struct lpu *lpu = lpu_of(dev);
	size_t bytes = count * sizeof(*tokens);
	struct pending *p;
	int status = mr_lpu_slot_check(lpu, slot);

	if (!(dev->caps.stages & MR_STAGE_SCORE))
		return MR_E_NOT_SUPPORTED;
	if (status)
		return status;
	if (count < 2 || count > dev->caps.chunk_max)
		return MR_E_RANGE;
	for (uint32_t i = 0; i < count; i++)
		if (tokens[i] >= lpu->vocab)
			return MR_E_RANGE;
	status = mr_lpu_slot_writable(lpu, slot.index, position, count - 1);
	if (status)
		return status;
	if (bytes > lpu->param_room.size)
		return MR_E_TOO_LARGE;
	struct mr_lpu_cmd_score *cmd = (void *)mr_lpu_next(lpu, lpu->slots_open, &p);
	uint64_t at = cmd ? fifo_take(&lpu->param_room, (bytes + 63) / 64 * 64) : FIFO_NONE;
	if (at == FIFO_NONE)
		return MR_E_FULL;
	uint32_t *ids = (void *)(lpu->params + at);
	memcpy(ids, tokens, bytes);
	cmd->head.opcode = MR_LPU_SCORE;
	cmd->slot = slot.index;
	cmd->generation = slot.generation;
	cmd->tokens_iova = mr_region_iova(lpu->commands, ids);
	cmd->count = count;
	cmd->position = position;
	lpu->slots[slot.index].end = position + count - 1;
	lpu->slots[slot.index].writer = lpu->sq_tail;
	p->kind = PENDING_SCORE;
	p->tag = tag;
	p->slot = slot.index;
	p->generation = slot.generation;
	p->given = ids + 1;
	p->given_count = count - 1;
	p->position = position + 1;
	mr_lpu_submit(lpu, 1);
	return 0;
}
