// SPDX-License-Identifier: Apache-2.0
/*
 * SCORE: the continuations of one request are weighed one after the other on a sequence of its own, a fork
 * of the one that it asks about. Each begins again at the fork's last position, so the slot serves for all
 * of them. They wait for the front's credit as tokens do, and so do their tokens, where those are asked for.
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

/* How many tokens the front can take; 0 is noted once. */
static uint32_t credit_of(struct sequence *q)
{
	struct entry *e = q->entry;
	uint32_t credit = e->request.ops->credit(e->request.front, &e->request);

	if (!credit && !q->starved)
		mr_count(MR_M_sched_no_credit, 1);
	q->starved = credit == 0;
	return credit;
}

/* The continuation is weighed and its tokens, if they were asked for, are given. */
static void give_sum(struct mr_sched *s, struct sequence *q)
{
	struct entry *e = q->entry;
	const struct mr_score score = {
		.index = e->scored,
		.tokens = e->score_tokens,
		.logprob = e->logprob,
		.logprobs = logprobs_of(e),
	};

	e->giving = 0;
	e->scored++;
	e->request.ops->score(e->request.front, &e->request, &score);
	if (e->scored == e->request.score_count)
		mr_sched_end(s, q, 0, MR_FINISH_LENGTH);
	else /* to the tail: many at once take turns */
		mr_sched_move(s, q, SCORING, &s->scoring);
}

/* Its tokens, as far as the front has room, then the sum. Returns how many of them were given. */
static int give_tokens(struct mr_sched *s, struct sequence *q)
{
	struct entry *e = q->entry;
	uint32_t credit = credit_of(q), count = 0;

	for (; count < credit && e->given < e->score_tokens; count++, e->given++) {
		const struct mr_token token = {
			.token = q->tokens[q->count + e->given],
			.position = q->count + e->given,
			.index = e->given,
			.logprob = logprobs_of(e)[e->given],
			.seen_ns = s->events_ns,
		};

		e->request.ops->token(e->request.front, &e->request, &token);
		if (q->ending) /* the front thought better of it */
			return (int)count + 1;
	}
	mr_count(MR_M_sched_score_tokens, count);
	if (count < credit) {
		give_sum(s, q);
		count++;
	}
	return (int)count;
}

/* 1 = posted or failed, 0 = no credit, or the device is full. */
static int post(struct mr_sched *s, struct sequence *q)
{
	struct entry *e = q->entry;
	uint32_t from = start_of(e), count = e->request.score_ends[e->scored] - from;
	int status;

	if (!credit_of(q))
		return 0;
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

/* Once round by turning the list, since the front may end any of them from inside. */
int mr_sched_score_turn(struct mr_sched *s)
{
	uint32_t count = s->in_state[SCORING];
	struct sequence *q;
	int did = 0;

	for (; count && (q = TAILQ_FIRST(&s->scoring)) != NULL; count--) {
		mr_sched_move(s, q, SCORING, &s->scoring);
		if (q->inflight == 0)
			did += q->entry->giving ? give_tokens(s, q) : post(s, q);
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

	if (mr_sched_work_done(s, q))
		return;
	if (status == 0 && e->score_tokens != e->request.score_ends[e->scored] - start_of(e))
		status = MR_E_PROTOCOL;
	if (status < 0) {
		mr_sched_end(s, q, status, MR_FINISH_ERROR);
		return;
	}
	e->given = 0;
	if (e->request.flags & MR_REQUEST_LOGPROBS)
		e->giving = 1; /* with the turn that follows */
	else
		give_sum(s, q);
}
