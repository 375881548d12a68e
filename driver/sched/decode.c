// SPDX-License-Identifier: Apache-2.0
/*
 * Decode: continuous batching. At most one DECODE is under way; between two, sequences join and leave. A
 * DECODE takes every sequence whose client has room for its tokens, in turn where there are more than fit.
 * A slow client's sequences are left out, so that it slows only itself.
 */
#include "driver/sched/internal.h"

static void note_starved(struct entry *e, int starved)
{
	if (starved && !e->starved)
		mr_count(MR_M_sched_no_credit, 1);
	e->starved = (uint8_t)starved;
}

/* Puts the next DECODE's sequences into s->batch; returns how many. *more = ready ones are left. */
static uint32_t collect(struct mr_sched *s, int *more)
{
	struct entry *e;
	uint32_t count = 0;

	*more = 0;
	TAILQ_FOREACH(e, &s->decoding, link)
	{
		if (count == s->batch_max) {
			*more = 1;
			break;
		}
		e->credit = e->request.ops->credit(e->request.front, &e->request);
		note_starved(e, e->credit == 0);
		if (!e->starved)
			s->batch[count++] = e;
	}
	return count;
}

/* How many steps all of the batch can take: more than one only while nobody waits to join. */
static uint32_t plan_steps(const struct mr_sched *s, uint32_t count, int more)
{
	uint32_t steps = s->steps;

	if (more || s->prefilling || !TAILQ_EMPTY(&s->waiting) || !TAILQ_EMPTY(&s->joining) ||
	    !TAILQ_EMPTY(&s->handover))
		return 1;
	for (uint32_t i = 0; i < count; i++) {
		const struct entry *e = s->batch[i];
		uint32_t left = e->request.max_tokens - e->answered;

		steps = left < steps ? left : steps;
		steps = e->credit < steps ? e->credit : steps;
	}
	return steps;
}

/*
 * Posts the first @count of s->batch. A batch that is refused is halved until it passes or one sequence
 * is left, which then fails alone; the others go with the next turn. Returns how many were posted, or
 * MR_E_FULL, or 0 where one failed.
 */
static int post(struct mr_sched *s, uint32_t count, uint32_t steps)
{
	int status;

	for (uint32_t i = 0; i < count; i++) {
		const struct entry *e = s->batch[i];
		uint32_t position = e->prompt - 1 + e->answered;

		s->decode_entries[i] = (struct mr_decode_entry){
			.slot = e->decode_slot,
			.position = position,
			.token = e->request.tokens[position],
		};
	}
	for (;; count /= 2) {
		status = s->decode->work->decode(s->decode, s->decode_entries, count, steps,
						 tag_of(TAG_DECODE, 0));
		if (status == 0)
			return (int)count;
		if (status == MR_E_FULL)
			return status;
		if (count == 1)
			break;
	}
	mr_sched_end(s, s->batch[0], status, MR_FINISH_ERROR);
	return 0;
}

int mr_sched_decode_turn(struct mr_sched *s)
{
	uint32_t count, steps;
	int more, posted;

	if (s->batch_count || TAILQ_EMPTY(&s->decoding))
		return 0;
	count = collect(s, &more);
	if (count == 0)
		return 0;
	steps = plan_steps(s, count, more);
	posted = post(s, count, steps);
	if (posted <= 0)
		return posted == 0;
	for (int i = 0; i < posted; i++) {
		struct entry *e = s->batch[i];

		e->inflight++;
		e->decoding = 1;
		e->got = 0;
		/* To the tail, so that a batch smaller than the crowd goes round. */
		mr_sched_move(e, STAGE_DECODING, &s->decoding);
	}
	s->batch_count = (uint32_t)posted;
	s->batch_steps = steps;
	mr_count(MR_M_sched_steps, 1);
	return 1;
}

static int is_stop(const struct mr_sched *s, const struct entry *e, uint32_t token)
{
	const struct mr_sampling *sampling = &e->request.sampling;

	for (uint32_t i = 0; i < sampling->stop_count; i++)
		if (sampling->stop[i] == token)
			return 1;
	if (e->request.flags & MR_REQUEST_IGNORE_EOS)
		return 0;
	for (uint32_t i = 0; i < s->model->stop_count; i++)
		if (s->model->stop[i] == token)
			return 1;
	return 0;
}

static struct entry *entry_of(struct mr_sched *s, const struct mr_event *event)
{
	struct entry *e;

	if (event->slot.index >= s->decode->caps.slots)
		return NULL;
	e = s->by_slot[event->slot.index];
	if (!e || !e->decoding || e->decode_slot.generation != event->slot.generation)
		return NULL;
	return e;
}

static void deliver(struct mr_sched *s, struct entry *e, const struct mr_event *event)
{
	struct mr_token token = {
		.token = event->token,
		.position = event->position,
		.index = e->answered,
		.logprob = event->logprob,
		.cycles = event->cycles,
		.seen_ns = event->seen_ns,
	};

	e->got++;
	e->cycles += event->cycles;
	e->request.tokens[event->position] = event->token;
	e->answered++;
	if (e->first_ns == 0)
		e->first_ns = now_ns(s);
	mr_count(MR_M_sched_tokens, 1);
	e->request.ops->token(e->request.front, &e->request, &token);
	if (is_stop(s, e, token.token))
		mr_sched_end(s, e, 0, MR_FINISH_STOP);
	else if (e->answered == e->request.max_tokens)
		mr_sched_end(s, e, 0, MR_FINISH_LENGTH);
}

void mr_sched_decode_token(struct mr_sched *s, const struct mr_event *event)
{
	struct entry *e = entry_of(s, event);

	if (!e) {
		mr_count(MR_M_sched_bad_event, 1);
		return;
	}
	if (e->ending)
		return; /* cancelled, or stopped within this DECODE */
	if (event->status < 0) {
		mr_sched_end(s, e, event->status, MR_FINISH_ERROR);
	} else if (event->position != e->prompt + e->answered || e->got == s->batch_steps ||
		   event->token >= s->decode->caps.vocab) {
		mr_count(MR_M_sched_bad_event, 1);
		mr_sched_end(s, e, MR_E_PROTOCOL, MR_FINISH_ERROR);
	} else {
		deliver(s, e, event);
	}
}

void mr_sched_decode_done(struct mr_sched *s, int32_t status)
{
	uint32_t count = s->batch_count;

	s->batch_count = 0;
	for (uint32_t i = 0; i < count; i++) {
		struct entry *e = s->batch[i];

		e->decoding = 0;
		if (mr_sched_work_done(s, e))
			continue;
		/* Who has all its tokens is well, whatever became of the others. */
		if (e->got < s->batch_steps)
			mr_sched_end(s, e, status < 0 ? status : MR_E_PROTOCOL, MR_FINISH_ERROR);
	}
}
