// SPDX-License-Identifier: Apache-2.0
/*
 * Prefill: one sequence at a time, first come first served, in chunks, one chunk under way. It writes KV
 * for every prompt token but the last, which the first DECODE is fed; so a prompt of one token passes
 * through without work.
 */
#include "driver/sched/internal.h"

/* 1 = @e is on its way (or ending), 0 = it has to wait for a slot. */
static int start(struct mr_sched *s, struct entry *e)
{
	struct mr_slot_config config = {.owner = e->owner, .positions = e->prompt};
	int status;

	if (s->shared) {
		status = mr_sched_open_decode(s, e);
		if (status == 0)
			return 0;
		if (e->ending)
			return 1;
	} else if (e->prompt > 1) {
		status = s->prefill->mem->slot_open(s->prefill, &config, &e->prefill_slot);
		/* With no slot of ours open, nobody will make room: then it is an error, not a wait. */
		if ((status == MR_E_FULL || status == MR_E_KV_EXHAUSTED) && s->prefill_slots > 0)
			return 0;
		if (status < 0) {
			mr_sched_end(s, e, status, MR_FINISH_ERROR);
			return 1;
		}
		e->prefill_open = 1;
		s->prefill_slots++;
	}
	e->start_ns = now_ns(s);
	mr_sched_move(e, STAGE_PREFILLING, NULL);
	s->prefilling = e;
	return 1;
}

/* All of the prompt but its last token has KV. */
static void complete(struct mr_sched *s, struct entry *e)
{
	s->prefilling = NULL;
	e->prefilled_ns = now_ns(s);
	if (s->shared)
		mr_sched_move(e, STAGE_DECODING, &s->decoding);
	else
		mr_sched_move(e, STAGE_JOINING, &s->joining);
}

/* 1 = posted or failed, 0 = the device is full. */
static int post_chunk(struct mr_sched *s, struct entry *e)
{
	struct mr_slot slot = s->shared ? e->decode_slot : e->prefill_slot;
	uint32_t left = e->prompt - 1 - e->prefilled;
	int status;

	e->chunk = left < s->chunk ? left : s->chunk;
	status = s->prefill->work->prefill(s->prefill, slot, e->request.tokens + e->prefilled,
					   e->chunk, e->prefilled, tag_of(TAG_PREFILL, e->index));
	if (status == MR_E_FULL)
		return 0;
	if (status < 0)
		mr_sched_end(s, e, status, MR_FINISH_ERROR);
	else
		e->inflight++;
	return 1;
}

int mr_sched_prefill_turn(struct mr_sched *s)
{
	struct entry *e;
	int did = 0;

	while (!s->prefilling && (e = TAILQ_FIRST(&s->waiting)) != NULL) {
		if (!start(s, e))
			return did;
		did++;
		if (s->prefilling && e->prompt == 1)
			complete(s, e);
	}
	e = s->prefilling;
	if (e && e->inflight == 0)
		did += post_chunk(s, e);
	return did;
}

void mr_sched_prefill_done(struct mr_sched *s, struct entry *e, int32_t status)
{
	if (mr_sched_work_done(s, e))
		return;
	if (status < 0) {
		mr_sched_end(s, e, status, MR_FINISH_ERROR);
		return;
	}
	e->prefilled += e->chunk;
	mr_count(MR_M_sched_prompt_tokens, e->chunk);
	if (e->prefilled == e->prompt - 1)
		complete(s, e);
}
