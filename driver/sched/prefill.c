// SPDX-License-Identifier: Apache-2.0
/*
 * Prefill: gives a sequence whose turn it is its slot, over as much KV of its tokens as is kept, and writes
 * KV for the rest of them in chunks, one chunk under way on the device. It writes all positions but the
 * last token's, which the first DECODE is fed; so a prompt of one token passes through without work.
 *
 * Where prefill shares the device with decode, a chunk is no longer than the ITL bound of those who decode
 * leaves room for, by what chunks and steps took lately.
 */
#include "driver/sched/internal.h"

/* Everything but the last token has KV. */
static void complete(struct mr_sched *s, struct sequence *q)
{
	mr_sched_dequeue(s, q);
	q->entry->prefilled_ns = now_ns(s);
	mr_histogram_add(MR_H_prefill, q->entry->prefilled_ns - q->entry->start_ns);
	mr_kv_publish(s, q, prefill_pool(s), q->written);
	if (!s->shared) {
		mr_sched_move(s, q, HANDOVER, NULL);
		return;
	}
	q->fed = q->written;
	q->entry->joined_ns = q->entry->prefilled_ns;
	mr_sched_ready(s, q);
}

void mr_sched_ready(struct mr_sched *s, struct sequence *q)
{
	const struct mr_request *r = &q->entry->request;

	if (r->op == MR_REQUEST_SCORE)
		mr_sched_move(s, q, SCORING, &s->scoring);
	else if (r->max_tokens == 0 && q->fed == q->count - 1)
		mr_sched_end(s, q, 0, MR_FINISH_LENGTH);
	else
		mr_sched_move(s, q, DECODING, &s->decoding[q->class]);
}

/* No room, or an error: 0 = @q stays where it is, 1 = it is ending. */
static int put_off(struct mr_sched *s, struct sequence *q, int status)
{
	if (status == 0 && !s->claim[q->class])
		s->claim[q->class] = q;
	if (status == 0 || status == MR_E_QUOTA)
		return 0;
	mr_sched_end(s, q, status, MR_FINISH_ERROR);
	return 1;
}

/* The KV of an answer is gone: it is computed again, as a prompt's. */
static void forget_decoded(const struct mr_sched *s, struct sequence *q)
{
	if (q->decoded != NONE && !s->one_class)
		mr_count(MR_M_sched_other_numerics, 1);
	q->decoded = NONE;
}

/*
 * APPEND, on KV that is there: in a slot with room for more and the new sampling. Where prefill cannot
 * reach it, DECODE is fed the new tokens.
 */
static int resume(struct mr_sched *s, struct sequence *q)
{
	int status = mr_kv_fork(s, q, q->kv[DEC], q->fed, q->positions);

	if (status == MR_E_NOT_SUPPORTED) {
		mr_kv_drop(s, q, DEC);
		q->fed = 0;
		forget_decoded(s, q);
		return 1;
	}
	if (status <= 0)
		return put_off(s, q, status);
	q->written = q->fed;
	if (s->shared)
		return 1;
	q->entry->start_ns = q->entry->prefilled_ns = q->entry->joined_ns = now_ns(s);
	mr_sched_dequeue(s, q);
	mr_sched_ready(s, q);
	return 1;
}

/* Takes a queued sequence as far as it can go without computing. 1 = done so, or ending; 0 = no room. */
static int start(struct mr_sched *s, struct sequence *q)
{
	enum pool_id id = prefill_pool(s);
	int status = 1;

	if (q->kv[DEC] && q->fed == 0)
		mr_kv_drop(s, q, DEC);
	if (q->fed == 0)
		forget_decoded(s, q);
	if (q->kv[DEC] && (!resume(s, q) || q->ending))
		return q->ending;
	if (q->state != QUEUED)
		return 1;
	if (!q->kv[id] && (s->shared || q->count > 1)) {
		status = mr_kv_acquire(s, q, id, s->shared ? q->positions : q->count - 1, 1);
		if (status <= 0)
			return put_off(s, q, status);
		q->written = q->kv[id]->start;
	}
	if (s->claim[q->class] == q)
		s->claim[q->class] = NULL;
	mr_sched_set_state(s, q, PREFILLING);
	q->entry->reused = q->written;
	q->entry->start_ns = now_ns(s);
	mr_histogram_add(MR_H_queue, q->entry->start_ns - q->entry->submit_ns);
	if (!s->shared) {
		for (uint32_t l = 0; l < s->layers; l++)
			q->ready[l] = q->written;
		mr_sched_hand_move(q, &s->joining);
	}
	if (q->written == q->count - 1)
		complete(s, q);
	return 1;
}

/* The tightest bound between tokens among those who decode; 0 = none. */
static uint64_t bound_ns(const struct mr_sched *s)
{
	const struct sequence *q;
	uint64_t bound = s->itl_ns;

	TAILQ_FOREACH(q, &s->decoding[FOREGROUND], link)
	if (!bound || q->entry->request.itl_ns < bound)
		bound = q->entry->request.itl_ns;
	return bound;
}

/* Tokens that the next chunk may have, in whole blocks, so that KV is handed over without gaps. */
static uint32_t chunk_tokens(const struct mr_sched *s)
{
	uint64_t bound, tokens;

	if (!s->shared || !s->prefill_token_ns ||
	    (TAILQ_EMPTY(&s->decoding[FOREGROUND]) && TAILQ_EMPTY(&s->decoding[BACKGROUND])))
		return s->chunk;
	bound = bound_ns(s);
	if (!bound)
		return s->chunk;
	/* An eighth is left for what a later chunk takes more: it looks back at more tokens. */
	bound -= bound / 8;
	tokens = bound > s->step_ns ? (bound - s->step_ns) * 16 / s->prefill_token_ns : 0;
	tokens = tokens / MR_KV_BLOCK_TOKENS * MR_KV_BLOCK_TOKENS;
	if (tokens < MR_KV_BLOCK_TOKENS)
		tokens = MR_KV_BLOCK_TOKENS;
	return tokens < s->chunk ? (uint32_t)tokens : s->chunk;
}

/* 1 = posted or failed, 0 = the device is full. */
static int post_chunk(struct mr_sched *s, struct sequence *q)
{
	struct mr_slot slot = q->kv[prefill_pool(s)]->slot;
	int status;

	q->chunk = least(q->count - 1 - q->written, chunk_tokens(s));
	status = s->prefill->work->prefill(s->prefill, slot, q->tokens + q->written, q->chunk,
					   q->written, tag_of(TAG_PREFILL, q->index));
	if (status == MR_E_FULL)
		return 0;
	if (status < 0) {
		mr_sched_end(s, q, status, MR_FINISH_ERROR);
		return 1;
	}
	q->inflight++;
	s->prefilling = q;
	s->chunk_ns = now_ns(s);
	mr_device_posted(PREFILL_ROW, s->chunk_ns);
	mr_trace_at(MR_T_chunk_begin, q->owner, PREFILL_ROW, q->chunk, s->chunk_ns);
	mr_sched_charge(s, q, q->chunk);
	return 1;
}

int mr_sched_prefill_turn(struct mr_sched *s)
{
	struct sequence *q;
	int did = 0;

	while (!s->prefilling && (q = mr_sched_next(s)) != NULL) {
		if (q->state == PREFILLING)
			return did + post_chunk(s, q);
		if (start(s, q))
			did++;
		else if (!q->waited[PRE] && !q->waited[DEC])
			return did; /* a command queue is full */
	}
	return did;
}

/* What the work took: from its post, or from the end of the one before it on the same device. */
static uint64_t took_ns(struct mr_sched *s, enum pool_id id, uint64_t posted_ns, uint64_t now)
{
	uint64_t from = posted_ns > s->free_ns[id] ? posted_ns : s->free_ns[id];

	s->free_ns[id] = now;
	return now - from;
}

/* Chunks get dearer as a prompt goes on: up quickly, so that the bound holds; down as any average. */
static void learn_cost(struct mr_sched *s, uint64_t token_ns)
{
	if (s->prefill_token_ns && token_ns > s->prefill_token_ns)
		s->prefill_token_ns += (token_ns - s->prefill_token_ns) / 2;
	else
		average(&s->prefill_token_ns, token_ns);
}

void mr_sched_prefill_done(struct mr_sched *s, struct sequence *q, int32_t status)
{
	uint64_t now = now_ns(s), ns = took_ns(s, prefill_pool(s), s->chunk_ns, now);

	s->prefilling = NULL;
	mr_device_ended(PREFILL_ROW, now);
	mr_trace_at(MR_T_chunk_end, q->owner, PREFILL_ROW, (uint64_t)-status, now);
	mr_count(MR_M_sched_prefill_busy_ns, ns);
	if (mr_sched_work_done(s, q))
		return;
	if (status < 0) {
		mr_sched_end(s, q, status, MR_FINISH_ERROR);
		return;
	}
	learn_cost(s, ns * 16 / q->chunk + 1);
	q->written += q->chunk;
	mr_count(MR_M_sched_prompt_tokens, q->chunk);
	for (uint32_t l = 0; !s->shared && l < s->layers; l++)
		q->ready[l] = q->written;
	if (q->written == q->count - 1)
		complete(s, q);
}

void mr_sched_kv_event(struct mr_sched *s, struct sequence *q, const struct mr_event *event)
{
	if (event->layer >= s->layers || event->position > q->count - 1 ||
	    event->position < q->ready[event->layer]) {
		mr_count(MR_M_sched_bad_event, 1);
		return;
	}
	q->ready[event->layer] = event->position;
}
