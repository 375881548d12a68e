// SPDX-License-Identifier: Apache-2.0
/*
 * Hand-over: KV goes from the prefill device's slot to a decode slot by descriptors that name the owner
 * and the receiving slot's generation, and carry a checksum. Nothing is copied here: kv_export describes
 * memory, kv_import has the decode device fetch it. The prefill slot is given back after the last import.
 *
 * Requests join in order. One that finds no decode slot holds up those behind it, so none is overtaken.
 */
#include "driver/sched/internal.h"

#define HANDOVERS_MAX 2 /* the first and one retry, into a fresh slot */

int mr_sched_open_decode(struct mr_sched *s, struct entry *e)
{
	struct mr_slot_config config = {
		.owner = e->owner,
		.positions = e->prompt + e->request.max_tokens,
		.sampling = e->request.sampling,
	};
	int status = s->decode->mem->slot_open(s->decode, &config, &e->decode_slot);

	if ((status == MR_E_FULL || status == MR_E_KV_EXHAUSTED) && s->decode_slots > 0)
		return 0;
	if (status == 0 &&
	    (e->decode_slot.index >= s->decode->caps.slots || s->by_slot[e->decode_slot.index])) {
		s->decode->mem->slot_close(s->decode, e->decode_slot);
		status = MR_E_PROTOCOL; /* an index that is out of range or held already */
	}
	if (status < 0) {
		mr_sched_end(s, e, status, MR_FINISH_ERROR);
		return -1;
	}
	e->decode_open = 1;
	s->by_slot[e->decode_slot.index] = e;
	s->decode_slots++;
	return 1;
}

static uint32_t blocks_of(const struct entry *e)
{
	return (e->prompt - 1 + MR_KV_BLOCK_TOKENS - 1) / MR_KV_BLOCK_TOKENS;
}

/* The hand-over of @e is over, well (status 0) or not. No work names it. */
static void conclude(struct mr_sched *s, struct entry *e, int32_t status)
{
	if (status == 0) {
		mr_sched_close_prefill(s, e);
		mr_sched_move(e, STAGE_DECODING, &s->decoding);
		return;
	}
	if ((status != MR_E_STALE && status != MR_E_CHECKSUM) || e->handovers == HANDOVERS_MAX) {
		mr_sched_end(s, e, status, MR_FINISH_ERROR);
		return;
	}
	/* A fresh slot has a fresh generation: what is still wrong after that is wrong at the source. */
	mr_sched_close_decode(s, e);
	mr_sched_move(e, STAGE_JOINING, NULL);
	e->on = &s->joining;
	TAILQ_INSERT_HEAD(&s->joining, e, link);
}

static void note_refusal(struct entry *e, int32_t status)
{
	/* One refused import: which of its blocks was bad, the device does not say. */
	if (status == MR_E_STALE || status == MR_E_CHECKSUM)
		mr_count(MR_M_sched_kv_stale, 1);
	if (e->refused == 0)
		e->refused = status;
}

/*
 * Describes blocks from (layer, block) on, across layers, until @descs is full or all is described.
 * Returns how many, and where to go on.
 */
static int describe(struct mr_sched *s, struct entry *e, struct mr_kv_desc *descs, uint32_t *layer,
		    uint32_t *block)
{
	uint32_t blocks = blocks_of(e), count = 0;

	while (count < MR_KV_DESCS_MAX && *layer < s->layers) {
		uint32_t want = blocks - *block;
		int got;

		if (want > MR_KV_DESCS_MAX - count)
			want = MR_KV_DESCS_MAX - count;
		got = s->prefill->mem->kv_export(s->prefill, e->prefill_slot, *layer, *block,
						 e->owner, e->decode_slot.generation, descs + count,
						 want);
		if (got < 0)
			return got;
		if ((uint32_t)got != want)
			return MR_E_PROTOCOL;
		count += want;
		*block += want;
		if (*block == blocks) {
			*block = 0;
			++*layer;
		}
	}
	return (int)count;
}

/* Posts one import. 1 = posted or refused, 0 = the device is full: the same again later. */
static int post_import(struct mr_sched *s, struct entry *e)
{
	struct mr_kv_desc descs[MR_KV_DESCS_MAX];
	uint32_t layer = e->layer, block = e->block;
	uint64_t before = mr_metric_read(MR_M_copy_kv_lpu);
	int status = describe(s, e, descs, &layer, &block);

	if (status >= 0)
		status = s->decode->mem->kv_import(s->decode, e->decode_slot, descs,
						   (uint32_t)status, tag_of(TAG_IMPORT, e->index));
	if (status == MR_E_FULL)
		return 0;
	if (status < 0) {
		note_refusal(e, status);
		return 1;
	}
	e->inflight++;
	e->layer = layer;
	e->block = block;
	e->request.copies[MR_M_copy_kv_lpu - MR_COPY_SITES_FIRST] +=
		mr_metric_read(MR_M_copy_kv_lpu) - before;
	return 1;
}

/* Opens the receiving slot. 1 = begun (or ending, or already decoding), 0 = no slot free. */
static int begin(struct mr_sched *s, struct entry *e)
{
	int status = mr_sched_open_decode(s, e);

	if (status <= 0)
		return status != 0;
	if (e->start_ns == 0)
		e->start_ns = now_ns(s);
	if (e->prompt == 1) {
		mr_sched_move(e, STAGE_DECODING, &s->decoding);
		return 1;
	}
	e->handovers++;
	e->layer = e->block = 0;
	e->refused = 0;
	return 1;
}

/* One import a turn: describing means checksums, and a turn is to stay short. */
int mr_sched_handover_turn(struct mr_sched *s)
{
	struct entry *e = TAILQ_FIRST(&s->joining);
	int did = 0;

	if (!e)
		return 0;
	if (!e->decode_open) {
		did = begin(s, e);
		if (e->stage != STAGE_JOINING || !e->decode_open)
			return did;
	}
	did += post_import(s, e);
	if (e->refused == 0 && e->layer < s->layers)
		return did;
	/* All is posted, or no more is going to be: the next request's turn. */
	mr_sched_move(e, STAGE_HANDOVER, &s->handover);
	if (e->inflight == 0)
		conclude(s, e, e->refused);
	return did;
}

void mr_sched_import_done(struct mr_sched *s, struct entry *e, int32_t status)
{
	if (status < 0)
		note_refusal(e, status);
	if (mr_sched_work_done(s, e))
		return;
	if (e->stage == STAGE_HANDOVER && e->inflight == 0)
		conclude(s, e, e->refused);
}
