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
	/* What is computed again after its first token keeps the times that it had. */
	if (!q->entry->first_ns) {
		q->entry->prefilled_ns = now_ns(s);
		mr_histogram_add(MR_H_prefill, q->entry->prefilled_ns - q->entry->start_ns);
	}
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
	if (!q->entry->first_ns) {
		q->entry->reused = q->written;
		q->entry->start_ns = now_ns(s);
		mr_histogram_add(MR_H_queue, q->entry->start_ns - q->entry->submit_ns);
	}
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
	if (q->entry->request.itl_ns && (!bound || q->entry->request.itl_ns < bound))
		bound = q->entry->request.itl_ns;
	return bound;
}

/*
 * Tokens that chunks may have until the next DECODE. Beside one under way in the same pass: what rows it
 * leaves, but no less than half a pass.
 */
uint32_t mr_sched_round_tokens(const struct mr_sched *s)
{
	uint32_t most = s->chunk, rows = mixing_rows(s);
	uint64_t bound, tokens;

	if (!s->shared ||
	    (TAILQ_EMPTY(&s->decoding[FOREGROUND]) && TAILQ_EMPTY(&s->decoding[BACKGROUND])))
		return most;
	if (rows && s->batch_count)
		most = least(most, s->batch_count < rows / 2 ? rows - s->batch_count : rows / 2);
	bound = bound_ns(s);
	if (!bound || !s->prefill_token_ns)
		return most;
	/* An eighth is left for what a later chunk takes more: it looks back at more tokens. */
	bound -= bound / 8;
	tokens = bound > s->step_ns ? (bound - s->step_ns) * 16 / s->prefill_token_ns : 0;
	tokens = tokens / MR_KV_BLOCK_TOKENS * MR_KV_BLOCK_TOKENS;
	if (tokens < MR_KV_BLOCK_TOKENS)
		tokens = MR_KV_BLOCK_TOKENS;
	return tokens < most ? (uint32_t)tokens : most;
}

/*
 * Posts a chunk of at most @most tokens; where its KV goes elsewhere in whole blocks, but for a prompt's end.
 * Returns its tokens, 0 where it failed, or MR_E_FULL.
 */
static int post_chunk(struct mr_sched *s, struct sequence *q, uint32_t most)
{
	struct mr_slot slot = q->kv[prefill_pool(s)]->slot;
	uint32_t left = q->count - 1 - q->written, chunk;
	int status;

	chunk = least(left, most);
	if (!s->shared && chunk < left && chunk > MR_KV_BLOCK_TOKENS)
		chunk -= chunk % MR_KV_BLOCK_TOKENS;
	status = s->prefill->work->prefill(s->prefill, slot, q->tokens + q->written, chunk,
					   q->written, tag_of(TAG_PREFILL, q->index));
	if (status == MR_E_FULL)
		return status;
	if (status < 0) {
		mr_sched_end(s, q, status, MR_FINISH_ERROR);
		return 0;
	}
	q->inflight++;
	q->chunk = chunk;
	s->chunks++;
	s->chunk_ns = now_ns(s);
	mr_device_posted(PREFILL_ROW, s->chunk_ns);
	mr_trace_at(MR_T_chunk_begin, q->owner, PREFILL_ROW, q->chunk, s->chunk_ns);
	mr_sched_charge(s, q, chunk);
	return (int)chunk;
}

/* A round of chunks: of one sequence, or of several where the device takes their rows together. */
int mr_sched_prefill_turn(struct mr_sched *s)
{
	uint32_t tokens = s->chunks ? 0 : mr_sched_round_tokens(s);
	struct sequence *q;
	int did = 0, posted;

	while (tokens && (q = mr_sched_next(s)) != NULL) {
		if (q->state != PREFILLING) {
			if (start(s, q))
				did++;
			else if (!q->waited[PRE] && !q->waited[DEC])
				break; /* a command queue is full */
			continue;
		}
		/* One that is posted while a DECODE runs would miss its passes, this one and the next. */
		if (mixing_rows(s) && s->batch_count && !s->batch_fresh)
			break;
		posted = post_chunk(s, q, tokens);
		if (posted < 0)
			break;
		did++;
		if (!s->prefill->caps.pass_rows)
			break;
		tokens -= (uint32_t)posted;
		/* A shorter piece of a long prompt is not worth a work of its own. */
		if (tokens < MR_KV_BLOCK_TOKENS)
			break;
	}
	return did;
}

/* Chunks get dearer as a prompt goes on: up quickly, so that the bound holds; down as any average. */
static void learn_cost(struct mr_sched *s, uint64_t token_ns)
{
	if (s->prefill_token_ns && token_ns > s->prefill_token_ns)
		s->prefill_token_ns += (token_ns - s->prefill_token_ns) / 2;
	else
		average(&s->prefill_token_ns, token_ns);
}

/*
 * Works that go together end together, so what they took belongs to all of them: it is looked at when a round
 * of chunks has ended, and the DECODE too where it shares passes with them. What steps take is known from those
 * that had no company; prompts took the rest.
 */
void mr_sched_learn(struct mr_sched *s, uint64_t ns, uint32_t tokens, uint32_t steps)
{
	uint64_t rest;

	s->round_ns += ns;
	s->round_tokens += tokens;
	s->round_steps += steps;
	if (s->chunks || (s->batch_count && mixing_rows(s)))
		return;
	rest = s->round_steps * s->step_ns;
	rest = s->round_ns > rest ? s->round_ns - rest : 0;
	if (s->round_tokens)
		learn_cost(s, rest * 16 / s->round_tokens + 1);
	else
		average(&s->step_ns, s->round_ns / s->round_steps);
	s->round_ns = s->round_tokens = s->round_steps = 0;
}

void mr_sched_prefill_done(struct mr_sched *s, struct sequence *q, int32_t status)
{
	/* The same for all that end together: it says so. */
	uint64_t now = s->events_ns, ns = took_ns(s, prefill_pool(s), s->chunk_ns, now);
	uint32_t chunk = q->chunk;

	q->chunk = 0;
	s->chunks--;
	mr_sched_learn(s, ns, chunk, 0);
	mr_device_ended(PREFILL_ROW, now);
	mr_trace_at(MR_T_chunk_end, q->owner, PREFILL_ROW, (uint64_t)-status, now);
	mr_count(MR_M_sched_prefill_busy_ns, ns);
	if (mr_sched_work_done(s, q))
		return;
	if (status < 0) {
		mr_sched_end(s, q, status, MR_FINISH_ERROR);
		return;
	}
	q->written += chunk;
	mr_count(MR_M_sched_prompt_tokens, chunk);
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
