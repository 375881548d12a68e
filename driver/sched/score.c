// SPDX-License-Identifier: Apache-2.0
/*
 * SCORE: the continuations of one request are weighed one after the other on a sequence of its own, a fork
 * of the one that it asks about. Each begins again at the fork's last position, so the slot serves for all
 * of them. They wait for the front's credit as tokens do.
 */
#include "driver/sched/internal.h"

static uint32_t start_of(const struct entry *e)
{
	return e->scored ? e->request.score_ends[e->scored - 1] : 0;
}

/* They take the place of the ids, of which the device has a copy. */
static float *logprobs_of(const struct entry *e)
{
	return (float *)(e->own + start_of(e));
}

/* 1 = posted or failed, 0 = no credit, or the device is full. */
static int post(struct mr_sched *s, struct sequence *q)
{
	struct entry *e = q->entry;
	uint32_t from = start_of(e), count = e->request.score_ends[e->scored] - from;
	int status;

	if (e->request.ops->credit(e->request.front, &e->request) == 0) {
		if (!q->starved)
			mr_count(MR_M_sched_no_credit, 1);
		q->starved = 1;
		return 0;
	}
	q->starved = 0;
	/* After the sequence's last token, which has no KV yet, as the device wants it: in one row. */
	copy_ids(q->tokens + q->count, e->own + from, count);
	status = s->decode->work->score(s->decode, q->kv[DEC]->slot, q->tokens + q->count - 1,
					count + 1, q->count - 1, tag_of(TAG_SCORE, q->index));
	if (status == MR_E_FULL)
		return 0;
	if (status < 0) {
		mr_sched_end(s, q, status, MR_FINISH_ERROR);
		return 1;
	}
	e->logprob = 0;
	e->score_tokens = 0;
	q->inflight++;
	return 1;
}

int mr_sched_score_turn(struct mr_sched *s)
{
	struct sequence *q, *next;
	int did = 0;

	for (q = TAILQ_FIRST(&s->scoring); q; q = next) {
		next = TAILQ_NEXT(q, link);
		if (q->inflight == 0)
			did += post(s, q);
	}
	return did;
}

void mr_sched_score_token(struct mr_sched *s, struct sequence *q, const struct mr_event *event)
{
	struct entry *e = q->entry;
	uint32_t from, count;

	if (q->ending)
		return;
	from = start_of(e);
	count = e->request.score_ends[e->scored] - from;
	if (event->status < 0) {
		mr_sched_end(s, q, event->status, MR_FINISH_ERROR);
		return;
	}
	if (e->score_tokens == count || event->token != q->tokens[q->count + e->score_tokens] ||
	    event->position != q->count + e->score_tokens) {
		mr_count(MR_M_sched_bad_event, 1);
		mr_sched_end(s, q, MR_E_PROTOCOL, MR_FINISH_ERROR);
		return;
	}
	if (e->first_ns == 0)
		e->first_ns = now_ns(s);
	logprobs_of(e)[e->score_tokens++] = event->logprob;
	e->logprob += event->logprob;
	e->cycles += event->cycles;
}

void mr_sched_score_done(struct mr_sched *s, struct sequence *q, int32_t status)
{
	struct entry *e = q->entry;
	struct mr_score score;

	if (mr_sched_work_done(s, q))
		return;
	score = (struct mr_score){
		.index = e->scored,
		.tokens = e->score_tokens,
		.logprob = e->logprob,
		.logprobs = logprobs_of(e),
	};
	if (status == 0 && score.tokens != e->request.score_ends[e->scored] - start_of(e))
		status = MR_E_PROTOCOL;
	if (status < 0) {
		mr_sched_end(s, q, status, MR_FINISH_ERROR);
		return;
	}
	e->scored++;
	e->request.ops->score(e->request.front, &e->request, &score);
	if (e->scored == e->request.score_count)
		mr_sched_end(s, q, 0, MR_FINISH_LENGTH);
	else /* to the tail: many at once take turns */
		mr_sched_move(s, q, SCORING, &s->scoring);
}
