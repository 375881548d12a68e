// SPDX-License-Identifier: Apache-2.0
/*
 * Hand-over: KV goes from the prefill device's slot to a decode slot by descriptors that name the owner
 * and the receiving slot's generation, and carry a checksum. Nothing is copied here: kv_export describes
 * memory, kv_import has the decode device fetch it.
 *
 * It begins as soon as a decode slot is free, while the prompt is still being prefilled: whole blocks of
 * each layer go when the prefill device says that the layer is written, up to IMPORTS_MAX imports at once,
 * the last block when prefill is done. What the decode device shares from kept KV is not sent. Sequences
 * get their decode slots in the order in which they began. A refused hand-over is done once more from its
 * start into a fresh slot, then the sequence ends by that name. The prefill slot is given back after the
 * last import.
 */
#include "driver/sched/internal.h"

#define IMPORT_DESCS 32u /* describing means checksums, and a turn is to stay short */

/* How far layer @l of @q can be sent now: whole blocks, or, at the end, all. */
static uint32_t sendable(const struct sequence *q, uint32_t l)
{
	return q->state == HANDOVER ? q->count - 1
				    : q->ready[l] / MR_KV_BLOCK_TOKENS * MR_KV_BLOCK_TOKENS;
}

/* A layer that has something to send, from q->layer on, or NONE. */
static uint32_t next_layer(const struct mr_sched *s, const struct sequence *q)
{
	for (uint32_t i = 0, l = q->layer; i < s->layers; i++, l = l + 1 < s->layers ? l + 1 : 0)
		if (q->sent[l] < sendable(q, l))
			return l;
	return NONE;
}

/* The hand-over of @q is over, well (q->refused = 0) or not. No import is under way. */
static void conclude(struct mr_sched *s, struct sequence *q)
{
	int status = q->refused;

	if (status == 0) {
		mr_sched_hand_move(q, NULL);
		mr_kv_release(s, q, PRE);
		q->fed = q->count - 1;
		mr_kv_publish(s, q, DEC, q->fed);
		if (!q->entry->first_ns) {
			q->entry->joined_ns = now_ns(s);
			mr_histogram_add(MR_H_handover,
					 q->entry->joined_ns - q->entry->prefilled_ns);
			average(&s->handover_ns, q->entry->joined_ns - q->entry->prefilled_ns);
		}
		mr_sched_ready(s, q);
		return;
	}
	/* A fresh slot has a fresh generation: what is still wrong after that is wrong at the source. */
	int fresh =
		(status == MR_E_STALE || status == MR_E_CHECKSUM) && q->handovers < HANDOVERS_MAX;
	if (!fresh && !mr_sched_may_go_on(q, status)) {
		mr_sched_end(s, q, status, MR_FINISH_ERROR);
		return;
	}
	mr_kv_drop(s, q, DEC);
	mr_sched_hand_move(q, NULL);
	q->hand_on = &s->joining;
	TAILQ_INSERT_HEAD(&s->joining, q, hand_link);
}

/* Whether all of @q is sent, or a refusal makes more useless, and nothing is under way. */
static void conclude_if_done(struct mr_sched *s, struct sequence *q)
{
	if (q->imports == 0 && (q->refused || (q->state == HANDOVER && next_layer(s, q) == NONE)))
		conclude(s, q);
}

static void note_refusal(struct sequence *q, int32_t status)
{
	/* One refused import: which of its blocks was bad, the device does not say. */
	if (status == MR_E_STALE || status == MR_E_CHECKSUM)
		mr_count(MR_M_sched_kv_stale, 1);
	if (q->refused == 0)
		q->refused = status;
}

/*
 * Describes what can be sent, layer by layer, until @descs is full. Returns how many descriptors, and in
 * q->sent how far; *layers and @before say what that was, so that it can be undone.
 */
static int describe(struct mr_sched *s, struct sequence *q, struct mr_kv_desc *descs,
		    uint32_t before[IMPORT_DESCS][2], uint32_t *layers)
{
	uint32_t count = 0, l;

	for (*layers = 0; count < IMPORT_DESCS && (l = next_layer(s, q)) != NONE; ++*layers) {
		uint32_t to = sendable(q, l), block = q->sent[l] / MR_KV_BLOCK_TOKENS;
		uint32_t want = least(blocks_of(to) - block, IMPORT_DESCS - count);
		int got = s->prefill->mem->kv_export(s->prefill, q->kv[PRE]->slot, l, block,
						     q->owner, q->kv[DEC]->slot.generation,
						     descs + count, want);

		if (got < 0)
			return got;
		if ((uint32_t)got != want)
			return MR_E_PROTOCOL;
		before[*layers][0] = l;
		before[*layers][1] = q->sent[l];
		count += want;
		q->sent[l] = least((block + want) * MR_KV_BLOCK_TOKENS, to);
		q->layer = l;
	}
	return (int)count;
}

/* Posts one import. 1 = posted or refused, 0 = the device is full: the same again later. */
static int post_import(struct mr_sched *s, struct sequence *q)
{
	struct mr_kv_desc descs[IMPORT_DESCS];
	uint32_t before[IMPORT_DESCS][2], layers;
	uint64_t copied = mr_metric_read(MR_M_copy_kv_lpu);
	int count = describe(s, q, descs, before, &layers), status = count;

	if (status > 0)
		status = s->decode->mem->kv_import(s->decode, q->kv[DEC]->slot, descs,
						   (uint32_t)count, tag_of(TAG_IMPORT, q->index));
	if (status == MR_E_FULL) {
		while (layers-- > 0)
			q->sent[before[layers][0]] = before[layers][1];
		return 0;
	}
	if (status < 0) {
		note_refusal(q, status);
		return 1;
	}
	q->inflight++;
	q->imports++;
	mr_device_posted(decode_row(s), now_ns(s));
	mr_trace_at(MR_T_handover_begin, q->owner, decode_row(s), (uint64_t)count, now_ns(s));
	mr_count(MR_M_sched_handover_blocks, (uint64_t)count);
	if (q->state != HANDOVER)
		mr_count(MR_M_sched_handover_hidden, (uint64_t)count);
	q->entry->request.copies[MR_M_copy_kv_lpu - MR_COPY_SITES_FIRST] +=
		mr_metric_read(MR_M_copy_kv_lpu) - copied;
	return 1;
}

/* Gives those who wait for one a decode slot, in order; returns how many. */
static int join(struct mr_sched *s)
{
	struct sequence *q, *next;
	int did = 0;

	for (q = TAILQ_FIRST(&s->joining); q; q = next) {
		int status = mr_kv_acquire(s, q, DEC, q->positions, q->handovers == 0);

		next = TAILQ_NEXT(q, hand_link);
		if (status == 0)
			break;
		if (status == MR_E_QUOTA)
			continue;
		did++;
		if (status < 0) {
			mr_sched_end(s, q, status, MR_FINISH_ERROR);
			continue;
		}
		q->handovers++;
		q->refused = 0;
		q->layer = 0;
		for (uint32_t l = 0; l < s->layers; l++)
			q->sent[l] = q->kv[DEC]->start;
		mr_sched_hand_move(q, &s->handing);
	}
	return did;
}

int mr_sched_handover_turn(struct mr_sched *s)
{
	struct sequence *q, *next;
	int did;

	if (s->shared)
		return 0;
	did = join(s);
	for (q = TAILQ_FIRST(&s->handing); q; q = next) {
		next = TAILQ_NEXT(q, hand_link);
		if (q->refused == 0 && q->imports < IMPORTS_MAX && next_layer(s, q) != NONE) {
			/* One a turn, and the next one's turn then. */
			did += post_import(s, q);
			mr_sched_hand_move(q, &s->handing);
			next = NULL;
		}
		conclude_if_done(s, q);
	}
	return did;
}

void mr_sched_handover_lost(struct mr_sched *s, struct sequence *q, int32_t status)
{
	if (q->refused == 0)
		q->refused = status;
	conclude_if_done(s, q);
}

void mr_sched_import_done(struct mr_sched *s, struct sequence *q, int32_t status)
{
	uint64_t now = now_ns(s);

	q->imports--;
	mr_device_ended(decode_row(s), now);
	mr_trace_at(MR_T_handover_end, q->owner, decode_row(s), (uint64_t)-status, now);
	if (status < 0)
		note_refusal(q, status);
	if (mr_sched_work_done(s, q))
		return;
	conclude_if_done(s, q);
}
