// SPDX-License-Identifier: Apache-2.0
/*
 * Decode: continuous batching. At most one DECODE is under way; between two, sequences join and leave. A
 * DECODE takes every sequence whose client has room for its tokens, in turn where there are more than fit,
 * those with an ITL bound first; background fills the rest as far as the bound allows. A slow client's
 * sequences are left out, so that it slows only itself.
 *
 * A sequence that has more tokens than KV (an APPEND that prefill cannot reach) is fed them here, one a step;
 * what the device samples meanwhile is nobody's token.
 */
#include "driver/model/tokenizer.h"
#include "driver/sched/internal.h"

#define BACKGROUND_TURNS \
	16u /* in one of so many DECODEs background has a place whatever the bound */

static void note_starved(struct sequence *q, int starved)
{
	if (starved && !q->starved)
		mr_count(MR_M_sched_no_credit, 1);
	q->starved = (uint8_t)starved;
}

/* Tokens that DECODE can be fed before one comes out that counts. */
static uint32_t ahead(const struct sequence *q)
{
	return q->count - 1 - q->fed;
}

/* Adds ready sequences of @class to s->batch up to @most in all; returns how many there are then. */
static uint32_t collect(struct mr_sched *s, int class, uint32_t count, uint32_t most, int *more)
{
	struct sequence *q;

	TAILQ_FOREACH(q, &s->decoding[class], link)
	{
		struct entry *e = q->entry;

		if (count >= most) {
			*more = 1;
			break;
		}
		if (ahead(q) == 0) {
			q->credit = e->request.ops->credit(e->request.front, &e->request);
			note_starved(q, q->credit == 0);
			if (q->starved)
				continue;
		}
		s->batch[count++] = q;
	}
	return count;
}

/* How many steps all of the batch can take: more than one only while nobody waits to join. */
static uint32_t plan_steps(const struct mr_sched *s, uint32_t count, int more)
{
	uint32_t steps = s->steps;

	if (more || waiting(s) || !TAILQ_EMPTY(&s->joining) || !TAILQ_EMPTY(&s->handing) ||
	    !TAILQ_EMPTY(&s->scoring))
		return 1;
	for (uint32_t i = 0; i < count; i++) {
		const struct sequence *q = s->batch[i];

		if (ahead(q) == 0) {
			steps = least(steps, q->entry->request.max_tokens - q->entry->answered);
			steps = least(steps, q->credit);
		} else {
			steps = least(steps, ahead(q));
		}
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
		const struct sequence *q = s->batch[i];

		s->decode_entries[i] = (struct mr_decode_entry){
			.slot = q->kv[DEC]->slot,
			.position = q->fed,
			.token = q->tokens[q->fed],
		};
		if (steps > 1 && ahead(q)) {
			s->decode_entries[i].forced = q->tokens + q->fed + 1;
			s->decode_entries[i].forced_count = steps - 1;
		}
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
	uint32_t first, count, steps, background = s->background_max;
	int more = 0, posted;

	if (s->batch_count)
		return 0;
	if (s->background_turn % BACKGROUND_TURNS == 0 && background == 0)
		background = 1;
	first = collect(s, FOREGROUND, 0, s->batch_max, &more);
	/* With nobody's bound to keep, background has the device. */
	if (first == 0)
		background = s->batch_max;
	count = collect(s, BACKGROUND, first, least(s->batch_max, first + background), &more);
	if (count == 0)
		return 0;
	steps = plan_steps(s, count, more);
	posted = post(s, count, steps);
	if (posted <= 0)
		return posted == 0;
	for (int i = 0; i < posted; i++) {
		struct sequence *q = s->batch[i];

		if (q->decoded == NONE)
			q->decoded = q->fed;
		q->inflight++;
		q->decoding = 1;
		q->stopped = 0;
		q->got = 0;
		/* To the tail, so that a batch smaller than the crowd goes round; all in order stay so. */
		if (more || (uint32_t)posted < count)
			mr_sched_move(s, q, DECODING, &s->decoding[q->class]);
	}
	s->batch_count = (uint32_t)posted;
	s->batch_steps = steps;
	s->batch_fresh = 1;
	s->batch_ns = now_ns(s);
	mr_device_posted(decode_row(s), s->batch_ns);
	mr_trace_at(MR_T_step_begin, 0, decode_row(s), (uint64_t)posted, s->batch_ns);
	s->background_turn++;
	mr_count(MR_M_sched_steps, 1);
	mr_count(MR_M_sched_decode_entries, (uint64_t)posted);
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

/* The stop string that @token completes, from 1, or 0. */
static uint32_t stop_string(const struct mr_sched *s, struct entry *e, uint32_t token)
{
	const char *bytes;
	size_t count = 0;

	if (!e->request.stops.count || mr_token_is_control(s->model->tokenizer, token))
		return 0;
	bytes = mr_token_bytes(s->model->tokenizer, token, &count);
	return bytes ? mr_stops_feed(e, bytes, count) : 0;
}

static struct sequence *sequence_of(struct mr_sched *s, const struct mr_event *event)
{
	struct sequence *q;

	if (event->slot.index >= s->decode->caps.slots)
		return NULL;
	q = s->by_slot[event->slot.index];
	if (!q || !q->decoding || !q->kv[DEC] ||
	    q->kv[DEC]->slot.generation != event->slot.generation)
		return NULL;
	return q;
}

static void deliver(struct mr_sched *s, struct sequence *q, const struct mr_event *event)
{
	struct entry *e = q->entry;
	uint64_t now = s->events_ns;
	struct mr_token token = {
		.token = event->token,
		.position = event->position,
		.index = e->answered,
		.logprob = event->logprob,
		.cycles = event->cycles,
		.seen_ns = event->seen_ns,
	};

	if (e->first_ns == 0)
		mr_sched_note_late(e, now);
	token.late = e->late && e->first_ns == 0;

	q->tokens[q->count++] = event->token;
	q->again = 0;
	e->answered++;
	if (e->first_ns == 0) {
		e->first_ns = now;
		mr_histogram_add(MR_H_ttft, now - e->submit_ns);
	} else {
		mr_histogram_add(MR_H_itl, now - e->last_ns);
	}
	e->last_ns = now;
	mr_trace_at(MR_T_token, q->owner, decode_row(s), event->position, now);
	mr_count(MR_M_sched_tokens, 1);
	e->request.ops->token(e->request.front, &e->request, &token);
	e->stop_string = stop_string(s, e, token.token);
	mr_count(MR_M_sched_stop_strings, e->stop_string != 0);
	if (e->stop_string || is_stop(s, e, token.token))
		mr_sched_end(s, q, 0, MR_FINISH_STOP);
	else if (e->answered == e->request.max_tokens)
		mr_sched_end(s, q, 0, MR_FINISH_LENGTH);
}

void mr_sched_decode_token(struct mr_sched *s, const struct mr_event *event)
{
	struct sequence *q = sequence_of(s, event);

	if (!q) {
		mr_count(MR_M_sched_bad_event, 1);
		return;
	}
	if (q->ending)
		return; /* cancelled, or stopped within this DECODE */
	if (event->status < 0) {
		mr_sched_end(s, q, event->status, MR_FINISH_ERROR);
		return;
	}
	if (event->position != q->fed + 1 || q->got == s->batch_steps ||
	    event->token >= s->decode->caps.vocab) {
		mr_count(MR_M_sched_bad_event, 1);
		mr_sched_end(s, q, MR_E_PROTOCOL, MR_FINISH_ERROR);
		return;
	}
	q->got++;
	q->fed++;
	q->stopped |= event->stopped != 0;
	q->entry->cycles += event->cycles;
	q->entry->predicted += event->predicted;
	if (q->fed == q->count)
		deliver(s, q, event);
	else if (ahead(q) == 0 && q->entry->request.max_tokens == 0)
		mr_sched_end(s, q, 0, MR_FINISH_LENGTH);
}

/* Background gives way by halves where a step took longer than somebody's bound, and comes back by ones. */
static void mind_the_bound(struct mr_sched *s, uint32_t count, uint64_t step_ns)
{
	uint64_t bound = UINT64_MAX;

	for (uint32_t i = 0; i < count; i++)
		if (s->batch[i]->entry && s->batch[i]->entry->request.itl_ns &&
		    s->batch[i]->entry->request.itl_ns < bound)
			bound = s->batch[i]->entry->request.itl_ns;
	if (step_ns > bound)
		s->background_max /= 2;
	else if (s->background_max < s->batch_max)
		s->background_max++;
}

void mr_sched_decode_done(struct mr_sched *s, int32_t status)
{
	uint32_t count = s->batch_count;
	uint64_t now = s->events_ns, ns = took_ns(s, DEC, s->batch_ns, now);
	uint64_t step_ns = ns / s->batch_steps;

	mr_device_ended(decode_row(s), now);
	mr_trace_at(MR_T_step_end, 0, decode_row(s), (uint64_t)-status, now);
	mr_histogram_add(MR_H_step, (now - s->batch_ns) / s->batch_steps);
	mr_count(MR_M_sched_decode_busy_ns, ns);
	/* What prompts took in the same pass is no fault of the batch's. */
	mind_the_bound(s, count, mixing_rows(s) && s->chunks ? s->step_ns : step_ns);
	s->batch_count = 0;
	if (mixing_rows(s))
		mr_sched_learn(s, ns, 0, s->batch_steps);
	else
		average(&s->step_ns, step_ns);
	for (uint32_t i = 0; i < count; i++) {
		struct sequence *q = s->batch[i];

		q->decoding = 0;
		if (mr_sched_work_done(s, q))
			continue;
		/* Who has all its tokens is well, whatever became of the others, if its KV is there. */
		if ((q->got == s->batch_steps || q->stopped) && q->kv[DEC])
			continue;
		if (!mr_sched_again(s, q, status < 0 ? status : MR_E_PROTOCOL))
			mr_sched_end(s, q, status < 0 ? status : MR_E_PROTOCOL, MR_FINISH_ERROR);
	}
}
