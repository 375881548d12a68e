// SPDX-License-Identifier: Apache-2.0
/*
 * Deadlines of first tokens: what can be promised, by the cost model that prefill.c and decode.c learn, and who
 * of those that were promised something is next. The earliest deadline goes first, before all other prompts;
 * of what prefill can do, others have one part in DUE_RUN + 1 all the same, and the model leaves them that.
 * admit.c asks before it accepts, queue.c asks whose chunk is next.
 */
#include "driver/sched/internal.h"

#define DUE_RUN 4u

/* Tokens of @q that prefill has yet to be posted. */
static uint64_t left(const struct sequence *q)
{
	return q->state == PREFILLING ? q->count - 1 - q->written - q->chunk : q->due_work;
}

/*
 * What prefill takes for @tokens of a prompt. On a shared device a step follows each round of chunks; where it
 * takes no rows together, a round is of one prompt. Others' part is counted whether or not anybody waits now.
 */
static uint64_t prefill_ns(const struct mr_sched *s, uint64_t tokens)
{
	uint64_t ns = tokens * s->prefill_token_ns / 16, round;

	if (s->shared) {
		round = mr_sched_round_tokens(s);
		if (!s->prefill->caps.pass_rows)
			tokens += round - 1;
		ns += tokens / round * s->step_ns;
	}
	return ns * (DUE_RUN + 1) / DUE_RUN;
}

/* From the last chunk's end to the first token: on its way, the DECODE under way, its turn among others. */
static uint64_t tail_ns(const struct mr_sched *s)
{
	uint64_t rounds = s->in_state[DECODING] / s->batch_max + 1;

	return s->handover_ns + (s->steps + rounds) * s->step_ns;
}

/*
 * The earliest time at which a prompt with @tokens to be prefilled, and @extra_ns of other work of its own, can
 * have its first token without a promise broken: it goes behind all whose deadline is before that time, and
 * behind whoever it would make late. An eighth is added for what costs vary. 0 = cannot be told: somebody waits
 * for KV.
 */
static uint64_t earliest(const struct mr_sched *s, uint64_t tokens, uint64_t extra_ns)
{
	uint64_t now = now_ns(s), tail = tail_ns(s), own, at, time;
	const struct pool *pool = &s->pool[prefill_pool(s)];
	const struct sequence *q;

	if (s->claim[FOREGROUND] || pool->busy >= pool->dev->caps.slots ||
	    s->pool[DEC].busy >= s->pool[DEC].dev->caps.slots)
		return 0;
	own = prefill_ns(s, tokens);
	at = now + 2 * prefill_ns(s, s->chunk); /* one that was begun, and one that others have */
	time = at + own + tail + extra_ns;
	TAILQ_FOREACH(q, &s->due, link)
	{
		at += prefill_ns(s, left(q));
		if (q->due_ns >= time && at + own + tail <= q->due_ns)
			continue;
		time = at + own + tail + extra_ns;
		time = time > q->due_ns ? time : q->due_ns;
	}
	return time + (time - now) / 8;
}

/* What it takes of prefill, or of DECODE where prefill cannot reach its KV. */
static uint64_t work_of(const struct mr_sched *s, const struct sequence *q, uint64_t *extra_ns)
{
	uint32_t there = q->kv[DEC] ? q->fed : mr_kv_there(s, q, prefill_pool(s));
	uint32_t tokens = q->count - 1 > there ? q->count - 1 - there : 0;

	*extra_ns = 0;
	if (s->shared || !q->kv[DEC] || !q->fed)
		return tokens;
	*extra_ns = tokens * s->step_ns;
	return 0;
}

int mr_sched_promise(struct mr_sched *s, struct sequence *q, uint64_t due_ns, int computed)
{
	uint64_t extra_ns = 0, tokens = computed ? 0 : work_of(s, q, &extra_ns), time;

	q->due_work = tokens;
	if (!due_ns)
		return 0;
	time = earliest(s, tokens, extra_ns);
	s->wanted = due_ns;
	s->there = time;
	if (time && time <= due_ns)
		return 0;
	mr_count(MR_M_sched_deadline_refused, 1);
	return MR_E_DEADLINE;
}

void mr_sched_due_insert(struct mr_sched *s, struct sequence *q)
{
	struct sequence *before = TAILQ_LAST(&s->due, sequence_list);

	while (before && before->due_ns > q->due_ns)
		before = TAILQ_PREV(before, sequence_list, link);
	if (before)
		TAILQ_INSERT_AFTER(&s->due, before, q, link);
	else
		TAILQ_INSERT_HEAD(&s->due, q, link);
	q->on = &s->due;
}

int mr_sched_due_turn(const struct mr_sched *s)
{
	return s->due_tokens < (uint64_t)DUE_RUN * s->chunk ||
	       (TAILQ_EMPTY(&s->ring[FOREGROUND]) && TAILQ_EMPTY(&s->ring[BACKGROUND]));
}

void mr_sched_due_charge(struct mr_sched *s, const struct sequence *q, uint32_t tokens)
{
	uint64_t back = (uint64_t)DUE_RUN * tokens;

	if (q->due_ns)
		s->due_tokens += tokens;
	else
		s->due_tokens -= back < s->due_tokens ? back : s->due_tokens;
	/* What nobody else wanted is not owed to those who come later: one chunk is. */
	if (s->due_tokens > (uint64_t)DUE_RUN * s->chunk)
		s->due_tokens = (uint64_t)DUE_RUN * s->chunk;
}

void mr_sched_note_late(struct entry *e, uint64_t now)
{
	if (!e->seq->due_ns || e->late || now <= e->seq->due_ns)
		return;
	e->late = 1;
	mr_count(MR_M_sched_late, 1);
}
