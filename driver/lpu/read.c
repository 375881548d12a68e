// SPDX-License-Identifier: Apache-2.0
/* KV_READ: one at a time, into a region of its own, where descriptors lie before the blocks. */
#include <string.h>

#include "driver/lpu/internal.h"
#include "driver/metrics.h"

#define DESCS_BYTES ((MR_KV_DESCS_MAX * sizeof(struct mr_kv_desc) + 4095) / 4096 * 4096)

static uint64_t block_iova(const struct lpu *lpu, uint32_t i)
{
	return lpu->kv_read->iova + DESCS_BYTES + i * lpu->kv_layer_bytes;
}

int mr_lpu_read_room(struct lpu *lpu)
{
	size_t bytes = DESCS_BYTES + MR_KV_DESCS_MAX * lpu->kv_layer_bytes;

	if (!(lpu->id.opcodes_io & 1ull << (MR_LPU_KV_READ & 63)) ||
	    (lpu->kv_read && lpu->kv_read->bytes >= bytes))
		return 0;
	return mr_arena_region(lpu->arena, MR_REGION_READBACK, bytes, &lpu->kv_read);
}

int mr_lpu_kv_read(struct mr_device *dev, struct mr_slot slot, uint32_t layer, uint32_t block,
		   uint32_t count, uint32_t owner, uint32_t generation,
		   const struct mr_kv_desc **descs, uint64_t tag)
{
	struct lpu *lpu = lpu_of(dev);
	int status = mr_lpu_slot_check(lpu, slot);
	struct pending *p;

	if (!(lpu->id.opcodes_io & 1ull << (MR_LPU_KV_READ & 63)))
		return MR_E_NOT_SUPPORTED;
	if (status)
		return status;
	const struct slot *s = &lpu->slots[slot.index];
	if (layer >= lpu->layers || !count || count > MR_KV_DESCS_MAX || block >= s->blocks ||
	    count > s->blocks - block)
		return MR_E_RANGE;
	if (lpu->reading)
		return MR_E_BUSY;
	struct mr_lpu_cmd_kv_read *cmd = (void *)mr_lpu_next(lpu, lpu->slots_open, &p);
	if (!cmd)
		return MR_E_FULL;
	cmd->head.opcode = MR_LPU_KV_READ;
	cmd->slot = slot.index;
	cmd->generation = slot.generation;
	cmd->iova = block_iova(lpu, 0);
	cmd->descs_iova = lpu->kv_read->iova;
	cmd->layer = p->layer = layer;
	cmd->block = p->block = block;
	cmd->count = p->count = count;
	cmd->owner = p->owner = owner;
	cmd->receiver = p->receiver = generation;
	p->kind = PENDING_READ;
	p->tag = tag;
	p->slot = slot.index;
	p->generation = slot.generation;
	lpu->reading = 1;
	*descs = lpu->read_descs;
	mr_count(MR_M_copy_kv_lpu_back, count * lpu->kv_layer_bytes);
	mr_lpu_submit(lpu, 1);
	return 0;
}

int mr_lpu_read_take(struct lpu *lpu, const struct pending *p)
{
	struct mr_kv_desc *d = lpu->read_descs;

	/* Read once: the device could write them again. */
	memcpy(d, lpu->kv_read->base, p->count * sizeof(*d));

	for (uint32_t i = 0; i < p->count; i++)
		if (d[i].iova != block_iova(lpu, i) || d[i].block != p->block + i ||
		    d[i].layer != p->layer || !d[i].length || d[i].length > MR_KV_BLOCK_TOKENS ||
		    d[i].owner != p->owner || d[i].generation != p->receiver || d[i].reserved)
			return MR_E_PROTOCOL;
	return 0;
}
