// SPDX-License-Identifier: Apache-2.0
/* DECODE: entries and forced tokens into command memory, one doorbell, what must come back noted. */
#include <string.h>

#include "driver/lpu/internal.h"

/* What the call got wrong; *forced, *rows: how many tokens and logits rows it needs. */
static int check(const struct lpu *lpu, const struct mr_decode_entry *entries, uint32_t count,
		 uint32_t steps, uint64_t *forced, uint64_t *rows)
{
	const struct mr_caps *caps = &lpu->dev.caps;

	*forced = *rows = 0;
	if (!lpu->loaded)
		return MR_E_NOT_ACTIVE;
	if (!count || count > caps->batch_max || !steps || steps > caps->steps_max)
		return MR_E_RANGE;
	for (uint32_t i = 0; i < count; i++) {
		const struct mr_decode_entry *e = &entries[i];
		int status = mr_lpu_slot_check(lpu, e->slot);
		if (status)
			return status;
		if (e->flags & ~MR_DECODE_LOGITS)
			return MR_E_NOT_SUPPORTED;
		if (e->token >= caps->vocab ||
		    (e->forced_count && (!e->forced || e->forced_count != steps - 1)))
			return MR_E_RANGE;
		status = mr_lpu_slot_writable(lpu, e->slot.index, e->position, steps);
		if (status)
			return status;
		*forced += e->forced_count;
		*rows += e->flags & MR_DECODE_LOGITS ? steps : 0;
	}
	return *rows > lpu->row_room.size ? MR_E_TOO_LARGE : 0;
}

struct room {
	uint64_t params, rows, entries; /* offsets */
};

static int take_room(struct lpu *lpu, uint32_t count, uint64_t forced, uint64_t rows,
		     struct room *room)
{
	struct fifo params = lpu->param_room, row = lpu->row_room, entry = lpu->decode_room;
	uint64_t bytes = count * sizeof(struct mr_lpu_decode_entry) + forced * sizeof(uint32_t);

	room->params = fifo_take(&params, (bytes + 63) / 64 * 64);
	room->entries = fifo_take(&entry, count);
	room->rows = rows ? fifo_take(&row, rows) : 0;
	if (room->params == FIFO_NONE || room->entries == FIFO_NONE || room->rows == FIFO_NONE)
		return bytes > params.size ? MR_E_TOO_LARGE : MR_E_FULL;
	lpu->param_room = params;
	lpu->row_room = row;
	lpu->decode_room = entry;
	return 0;
}

int mr_lpu_decode(struct mr_device *dev, const struct mr_decode_entry *entries, uint32_t count,
		  uint32_t steps, uint64_t tag)
{
	struct lpu *lpu = lpu_of(dev);
	uint64_t forced, rows;
	struct pending *p;
	struct room room;
	int status = check(lpu, entries, count, steps, &forced, &rows);

	if (status)
		return status;
	struct mr_lpu_cmd_decode *cmd = (void *)mr_lpu_next(lpu, lpu->slots_open, &p);
	if (!cmd)
		return MR_E_FULL;
	status = take_room(lpu, count, forced, rows, &room);
	if (status)
		return status;

	struct mr_lpu_decode_entry *out = (void *)(lpu->params + room.params);
	uint32_t *ids = (uint32_t *)(out + count);
	uint8_t *row = rows ? (uint8_t *)lpu->logits->base + room.rows * lpu->row_bytes : NULL;
	memset(out, 0, count * sizeof(*out));
	for (uint32_t i = 0; i < count; i++) {
		const struct mr_decode_entry *e = &entries[i];
		struct decode_entry *d = &lpu->decodes[room.entries + i];
		*d = (struct decode_entry){
			.slot = e->slot.index,
			.generation = e->slot.generation,
			.position = e->position + 1,
		};
		lpu->slots[e->slot.index].end = e->position + steps;
		lpu->slots[e->slot.index].writer = lpu->sq_tail;
		out[i].slot = e->slot.index;
		out[i].generation = e->slot.generation;
		out[i].position = e->position;
		out[i].token = e->token;
		if (e->forced_count) {
			memcpy(ids, e->forced, e->forced_count * sizeof(*ids));
			out[i].forced_iova = mr_region_iova(lpu->commands, ids);
			out[i].forced_count = e->forced_count;
			ids += e->forced_count;
		}
		if (e->flags & MR_DECODE_LOGITS) {
			d->logits = (float *)(void *)row;
			out[i].logits_iova = mr_region_iova(lpu->logits, row);
			row += steps * lpu->row_bytes;
		}
	}
	cmd->head.opcode = MR_LPU_DECODE;
	cmd->entries_iova = mr_region_iova(lpu->commands, out);
	cmd->count = count;
	cmd->steps = steps;
	cmd->logits_stride = rows ? (uint32_t)lpu->row_bytes : 0;
	p->kind = PENDING_DECODE;
	p->tag = tag;
	p->entry_first = (uint32_t)room.entries;
	p->entry_count = count;
	p->steps = steps;
	mr_lpu_submit(lpu, 1); /* somebody waits for a token: no batching of this doorbell */
	return 0;
}
