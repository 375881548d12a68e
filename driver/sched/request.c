// SPDX-License-Identifier: Apache-2.0
/*
 * A request's entry from the pool and back: the index by (client, key), cancel, and the one place where a
 * request ends.
 */
#include "driver/sched/internal.h"

static struct entry **bucket(const struct mr_sched *s, uint64_t client, uint64_t key)
{
	/* A client that picks colliding keys only lengthens a chain of the pool's size. */
	return &s->request_buckets[mix(client, key) & s->bucket_mask];
}

struct entry *mr_sched_find(const struct mr_sched *s, uint64_t client, uint64_t key)
{
	struct entry *e = *bucket(s, client, key);

	while (e && (e->request.client != client || e->request.key != key))
		e = e->hash_next;
	return e;
}

static void hash_remove(struct mr_sched *s, struct entry *e)
{
	struct entry **at = bucket(s, e->request.client, e->request.key);

	while (*at != e)
		at = &(*at)->hash_next;
	*at = e->hash_next;
}

struct mr_request *mr_sched_request(struct mr_sched *s)
{
	struct entry *e = TAILQ_FIRST(&s->free);
	char *text;
	uint32_t *own, index;

	if (!e)
		return NULL;
	TAILQ_REMOVE(&s->free, e, link);
	text = e->request.text;
	own = e->own;
	index = e->index;
	*e = (struct entry){
		.request = {.text = text, .tokens = own},
		.own = own,
		.index = index,
		.filling = 1,
	};
	return &e->request;
}

void mr_sched_put(struct mr_sched *s, struct entry *e)
{
	e->filling = e->live = 0;
	/* Last in, first out: the next request finds its text and tokens in the cache. */
	TAILQ_INSERT_HEAD(&s->free, e, link);
}

void mr_sched_abandon(struct mr_sched *s, struct mr_request *request)
{
	struct entry *e = (struct entry *)request;

	if (e->filling)
		mr_sched_put(s, e);
}

static const uint8_t ranks[] = {[MR_RANK_HIGH] = 0, [MR_RANK_NORMAL] = 1, [MR_RANK_LOW] = 2};

void mr_sched_accept(struct mr_sched *s, struct entry *e, struct sequence *q)
{
	struct entry **head = bucket(s, e->request.client, e->request.key);

	e->filling = 0;
	e->live = 1;
	e->seq = q;
	q->entry = e;
	q->class = e->request.itl_ns || e->request.due_ns ? FOREGROUND : BACKGROUND;
	q->due_ns = e->request.due_ns;
	q->rank = ranks[e->request.priority];
	mr_count(MR_M_sched_deadlines, q->due_ns != 0);
	e->request.tokens = q->tokens;
	e->request.owner = q->owner;
	e->submit_ns = now_ns(s);
	if (!e->request.arrival_ns)
		e->request.arrival_ns = e->submit_ns;
	mr_trace_at(MR_T_arrival, q->owner, MR_TRACE_NO_DEVICE, e->request.text_bytes,
		    e->request.arrival_ns);
	mr_trace_at(MR_T_tokenised, q->owner, MR_TRACE_NO_DEVICE, e->input, e->submit_ns);
	mr_trace_at(MR_T_queued, q->owner, MR_TRACE_NO_DEVICE, s->active + 1, e->submit_ns);
	e->hash_next = *head;
	*head = e;
	s->active++;
	s->dirty = 1;
	mr_count(MR_M_sched_requests, 1);
}

static void count_end(enum mr_finish finish)
{
	if (finish == MR_FINISH_CANCEL)
		mr_count(MR_M_sched_cancelled, 1);
	else if (finish == MR_FINISH_ERROR)
		mr_count(MR_M_sched_failed, 1);
	else
		mr_count(MR_M_sched_done, 1);
}

void mr_sched_finish(struct mr_sched *s, struct entry *e)
{
	struct sequence *q = e->seq;
	struct mr_end end;

	if (!e->first_ns && q->status != MR_E_CANCELLED)
		mr_sched_note_late(e, now_ns(s));
	end = (struct mr_end){
		.status = q->status,
		.finish = q->finish,
		.prompt_tokens = e->input,
		.reused = e->reused,
		.tokens = e->answered,
		.stop_string = e->stop_string,
		.late = e->late,
		.submit_ns = e->submit_ns,
		.start_ns = e->start_ns,
		.prefilled_ns = e->prefilled_ns,
		.joined_ns = e->joined_ns,
		.first_ns = e->first_ns,
		.end_ns = now_ns(s),
		.cycles = e->cycles,
		.predicted = e->predicted,
		.blocks_wanted = q->blocks_wanted,
		.blocks_there = q->blocks_there,
	};

	mr_trace_at(MR_T_end, q->owner, MR_TRACE_NO_DEVICE,
		    mr_trace_end_value(q->status, e->answered), end.end_ns);
	for (unsigned i = 0; i < MR_COPY_SITES; i++)
		end.copies[i] = e->request.copies[i];
	hash_remove(s, e);
	s->active--;
	count_end(q->finish);
	e->live = 0;
	q->entry = NULL;
	e->request.ops->end(e->request.front, &e->request, &end);
	mr_sched_put(s, e);
}

int mr_sched_cancel(struct mr_sched *s, uint64_t client, uint64_t key)
{
	struct entry *e = mr_sched_find(s, client, key);

	if (!e || e->seq->ending)
		return MR_E_NOT_FOUND;
	s->dirty = 1;
	mr_sched_end(s, e->seq, MR_E_CANCELLED, MR_FINISH_CANCEL);
	return 0;
}

const struct mr_request *mr_sched_ends(const struct mr_sched *s, uint64_t client, uint64_t key,
				       int release)
{
	const struct sequence *q = release ? mr_sched_sequence(s, client, key) : NULL;
	const struct entry *e = q ? q->entry : mr_sched_find(s, client, key);

	return e && !e->seq->ending ? &e->request : NULL;
}

int mr_sched_release(struct mr_sched *s, uint64_t client, uint64_t key)
{
	struct sequence *q = mr_sched_sequence(s, client, key);

	if (!q)
		return mr_sched_cancel(s, client, key) == 0
			       ? 0
			       : mr_sched_prefix_release(s, client, key);
	if (q->ending)
		return MR_E_NOT_FOUND;
	s->dirty = 1;
	mr_sched_end(s, q, MR_E_CANCELLED, MR_FINISH_CANCEL);
	return 0;
}

int mr_sched_cancel_client(struct mr_sched *s, uint64_t client)
{
	int count = 0;

	for (uint32_t i = 0; i < s->sequence_count; i++) {
		struct sequence *q = &s->sequences[i];

		if (q->state == FREE || q->ending || q->client != client)
			continue;
		count += q->entry != NULL;
		mr_sched_end(s, q, MR_E_CANCELLED, MR_FINISH_CANCEL);
		s->dirty = 1;
	}
	mr_sched_prefix_release_all(s, client);
	return count;
}
