// SPDX-License-Identifier: Apache-2.0
/* The I/O queue's memory, its creation on the device, posting and doorbells. */
#include <stdlib.h>
#include <string.h>

#include "driver/lpu/internal.h"
#include "driver/metrics.h"

#define PARAM_BYTES    (1u << 20)
#define DECODES_MAX    8192u
#define READBACK_BYTES (MR_CHIP_BYTES_MAX + EVENT_BYTES)

/* A device looks at those of every queue that it has; one with more does without. */
#define SHADOWS      65u
#define SHADOW_BYTES (SHADOWS * sizeof(struct mr_lpu_shadow))

/* A region's bytes, dealt out from the start, each piece on a cache line of its own. */
struct dealer {
	uint8_t *base;
	size_t used;
};

static void *deal(struct dealer *d, size_t bytes)
{
	void *p = d->base + d->used;

	d->used += (bytes + 127) / 128 * 128;
	return p;
}

int mr_lpu_queue_init(struct lpu *lpu)
{
	size_t ring = (size_t)lpu->record_entries * sizeof(*lpu->ring);
	size_t sq = (size_t)lpu->entries * sizeof(*lpu->sq);
	size_t cq = (size_t)lpu->entries * sizeof(*lpu->cq);
	int status;

	status = mr_arena_region(lpu->arena, MR_REGION_COMMANDS,
				 ADMIN_ENTRIES * sizeof(*lpu->admin_sq) + sq + PARAM_BYTES + 1024,
				 &lpu->commands);
	if (!status)
		status = mr_arena_region(lpu->arena, MR_REGION_RECORDS,
					 ADMIN_ENTRIES * sizeof(*lpu->admin_cq) + cq + ring +
						 SHADOW_BYTES + 1024,
					 &lpu->records);
	if (!status)
		status = mr_arena_region(lpu->arena, MR_REGION_READBACK, READBACK_BYTES,
					 &lpu->readback);
	if (status)
		return status;
	struct dealer out = {.base = lpu->commands->base}, in = {.base = lpu->records->base};
	lpu->admin_sq = deal(&out, ADMIN_ENTRIES * sizeof(*lpu->admin_sq));
	lpu->sq = deal(&out, sq);
	lpu->params = deal(&out, PARAM_BYTES);
	lpu->admin_cq = deal(&in, ADMIN_ENTRIES * sizeof(*lpu->admin_cq));
	lpu->cq = deal(&in, cq);
	lpu->ring = deal(&in, ring);
	lpu->shadow = deal(&in, SHADOW_BYTES);
	lpu->param_room.size = PARAM_BYTES;
	lpu->decode_room.size = DECODES_MAX;
	lpu->pending = calloc(lpu->entries, sizeof(*lpu->pending));
	lpu->decodes = calloc(DECODES_MAX, sizeof(*lpu->decodes));
	lpu->ended = calloc(lpu->entries, sizeof(*lpu->ended));
	return lpu->pending && lpu->decodes && lpu->ended ? 0 : MR_E_NO_MEMORY;
}

int mr_lpu_queue_create(struct lpu *lpu)
{
	struct mr_lpu_cmd_queue_create cmd = {
		.head.opcode = MR_LPU_QUEUE_CREATE,
		.queue = IO_QUEUE,
		.entries = lpu->entries,
		.sq_iova = mr_region_iova(lpu->commands, lpu->sq),
		.cq_iova = mr_region_iova(lpu->records, lpu->cq),
		.record_iova = mr_region_iova(lpu->records, lpu->ring),
		.record_entries = lpu->record_entries,
		.vector = IO_VECTOR,
	};

	memset(lpu->cq, 0, (size_t)lpu->entries * sizeof(*lpu->cq));
	memset(lpu->ring, 0, (size_t)lpu->record_entries * sizeof(*lpu->ring));
	lpu->sq_tail = lpu->sq_rung = lpu->sq_done = lpu->cq_head = lpu->cq_told = 0;
	lpu->cq_spoilt = lpu->ring_spoilt = lpu->armed = 0;
	lpu->abort_vain = 0;
	lpu->record_head = lpu->record_told = 0;
	lpu->param_room.head = lpu->param_room.tail;
	lpu->decode_room.head = lpu->decode_room.tail;
	lpu->row_room.head = lpu->rows_done = lpu->row_room.tail;
	return mr_lpu_admin(lpu, &cmd, NULL);
}

int mr_lpu_shadow_start(struct lpu *lpu)
{
	struct mr_lpu_cmd_features cmd = {
		.head.opcode = MR_LPU_FEATURES,
		.feature = MR_LPU_FEATURE_SHADOW,
		.action = MR_LPU_FEATURE_SET,
		.value = 1,
		.iova = mr_region_iova(lpu->records, lpu->shadow),
	};
	uint32_t on;

	if (lpu->no_shadow || !(lpu->id.opcodes_admin & 1ull << MR_LPU_FEATURES) ||
	    !(lpu->id.features & 1ull << MR_LPU_FEATURE_SHADOW) || lpu->id.queues_max > SHADOWS - 1)
		return 0;
	/* What BAR2 has been told, this command's own tail with it. */
	memset(lpu->shadow, 0, SHADOW_BYTES);
	lpu->shadow[0].sq_tail = lpu->admin_tail + 1;
	lpu->shadow[0].cq_head = lpu->admin_head;
	int status = mr_lpu_admin(lpu, &cmd, &on);
	if (status || on != 1)
		return status ? status : MR_E_PROTOCOL;
	lpu->shadow_on = 1;
	/* Its own completion was given back to BAR2, where the device no longer looks. */
	mr_lpu_doorbell(lpu, 0, MR_LPU_DB_CQ_HEAD, lpu->admin_head);
	return 0;
}

void mr_lpu_doorbell(struct lpu *lpu, uint32_t queue, uint32_t offset, uint32_t value)
{
	if (lpu->shadow_on) {
		struct mr_lpu_shadow *s = &lpu->shadow[queue];
		/*
		 * Store, full fence, load: pairs with the device's store of asleep, fence, look at the
		 * indices, so that one side sees the other.
		 */
		__atomic_store_n(&s->sq_tail + offset / sizeof(value), value, __ATOMIC_SEQ_CST);
		if (!__atomic_load_n(&s->asleep, __ATOMIC_SEQ_CST)) {
			mr_count(MR_M_lpu_doorbells_avoided, 1);
			return;
		}
	}
	lpu->bus->ops->doorbell(lpu->bus, queue, offset, value);
	mr_count(MR_M_lpu_doorbells, 1);
}

struct mr_lpu_command *mr_lpu_next(struct lpu *lpu, uint32_t keep, struct pending **pending)
{
	uint32_t at = lpu->sq_tail & (lpu->entries - 1);
	size_t bytes = sizeof(**pending);

	/* Commands under way also need a place for their completion: both rings have `entries`. */
	if (lpu->sq_tail - lpu->sq_done + keep >= lpu->entries)
		return NULL;
	*pending = &lpu->pending[at];
	/* A length that the compiler knows becomes REP STOS, which takes longer to start than the rest of this. */
	__asm__("" : "+r"(bytes));
	memset(*pending, 0, bytes);
	memset(&lpu->sq[at], 0, sizeof(lpu->sq[at]));
	return &lpu->sq[at];
}

void mr_lpu_submit(struct lpu *lpu, int now)
{
	uint32_t at = lpu->sq_tail & (lpu->entries - 1);
	struct pending *p = &lpu->pending[at];

	p->request = lpu->sq_tail;
	p->param_end = lpu->param_room.tail;
	p->rows_end = lpu->row_room.tail;
	p->entries_end = lpu->decode_room.tail;
	lpu->sq[at].head.request = p->request;
	lpu->sq_tail++;
	lpu->seen.commands++;
	mr_count(MR_M_lpu_commands, 1);
	if (now)
		mr_lpu_ring(lpu);
}

void mr_lpu_ring(struct lpu *lpu)
{
	if (lpu->sq_rung != lpu->sq_tail) {
		mr_lpu_doorbell(lpu, IO_QUEUE, MR_LPU_DB_SQ_TAIL, lpu->sq_tail);
		lpu->sq_rung = lpu->sq_tail;
	}
}

int mr_lpu_fence(struct mr_device *dev, uint64_t tag)
{
	struct lpu *lpu = lpu_of(dev);
	struct pending *p;
	struct mr_lpu_command *cmd = mr_lpu_next(lpu, lpu->slots_open, &p);

	if (!cmd)
		return MR_E_FULL;
	cmd->head.opcode = MR_LPU_FENCE;
	p->kind = PENDING_FENCE;
	p->tag = tag;
	mr_lpu_submit(lpu, 1);
	return 0;
}
