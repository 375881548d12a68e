// SPDX-License-Identifier: Apache-2.0
/*
 * A request's entry from the pool and back: lists, the index by (client, key), cancel, and the one place
 * where a request ends. Slots are given back here, after the last work that names them.
 */
#include "driver/sched/internal.h"

static uint64_t mix(uint64_t client, uint64_t key)
{
	/* A multiplicative hash; a client that picks colliding keys only lengthens a chain of the pool's size. */
	uint64_t h = (client ^ (key * 0x9e3779b97f4a7c15u)) * 0xd6e8feb86659fd93u;

	return h ^ h >> 32;
}

struct entry *mr_sched_find(const struct mr_sched *s, uint64_t client, uint64_t key)
{
	struct entry *e = s->buckets[mix(client, key) & s->bucket_mask];

	while (e && (e->request.client != client || e->request.key != key))
		e = e->hash_next;
	return e;
}

void mr_sched_hash_add(struct mr_sched *s, struct entry *e)
{
	struct entry **head = &s->buckets[mix(e->request.client, e->request.key) & s->bucket_mask];

	e->hash_next = *head;
	*head = e;
}

static void hash_remove(struct mr_sched *s, struct entry *e)
{
	struct entry **at = &s->buckets[mix(e->request.client, e->request.key) & s->bucket_mask];

	while (*at != e)
		at = &(*at)->hash_next;
	*at = e->hash_next;
}

void mr_sched_move(struct entry *e, enum stage stage, struct entry_list *list)
{
	if (e->on)
		TAILQ_REMOVE(e->on, e, link);
	e->stage = stage;
	e->on = list;
	if (list)
		TAILQ_INSERT_TAIL(list, e, link);
}

struct mr_request *mr_sched_request(struct mr_sched *s)
{
	struct entry *e = TAILQ_FIRST(&s->free);
	char *text;
	uint32_t *tokens, index;

	if (!e)
		return NULL;
	mr_sched_move(e, STAGE_FILLING, NULL);
	text = e->request.text;
	tokens = e->request.tokens;
	index = e->index;
	*e = (struct entry){
		.request = {.text = text, .tokens = tokens},
		.index = index,
		.stage = STAGE_FILLING,
	};
	return &e->request;
}

void mr_sched_pool_put(struct mr_sched *s, struct entry *e)
{
	mr_sched_move(e, STAGE_FREE, NULL);
	e->on = &s->free;
	/* Last in, first out: the next request finds its text and tokens in the cache. */
	TAILQ_INSERT_HEAD(&s->free, e, link);
}

void mr_sched_abandon(struct mr_sched *s, struct mr_request *request)
{
	struct entry *e = (struct entry *)request;

	if (e->stage == STAGE_FILLING)
		mr_sched_pool_put(s, e);
}

void mr_sched_end(struct mr_sched *s, struct entry *e, int32_t status, enum mr_finish finish)
{
	if (e->ending)
		return;
	e->ending = 1;
	e->status = status;
	e->finish = finish;
	if (s->prefilling == e && e->inflight == 0)
		s->prefilling = NULL;
	mr_sched_move(e, STAGE_ENDING, e->inflight ? NULL : &s->ending);
}

int mr_sched_work_done(struct mr_sched *s, struct entry *e)
{
	e->inflight--;
	if (!e->ending)
		return 0;
	if (e->inflight == 0) {
		if (s->prefilling == e)
			s->prefilling = NULL;
		mr_sched_move(e, STAGE_ENDING, &s->ending);
	}
	return 1;
}

void mr_sched_close_prefill(struct mr_sched *s, struct entry *e)
{
	if (!e->prefill_open)
		return;
	/* MR_E_STALE after the device was reset: it is closed either way. */
	s->prefill->mem->slot_close(s->prefill, e->prefill_slot);
	e->prefill_open = 0;
	s->prefill_slots--;
}

void mr_sched_close_decode(struct mr_sched *s, struct entry *e)
{
	if (!e->decode_open)
		return;
	s->decode->mem->slot_close(s->decode, e->decode_slot);
	s->by_slot[e->decode_slot.index] = NULL;
	e->decode_open = 0;
	s->decode_slots--;
}

static void count_end(const struct entry *e)
{
	if (e->finish == MR_FINISH_CANCEL)
		mr_count(MR_M_sched_cancelled, 1);
	else if (e->finish == MR_FINISH_ERROR)
		mr_count(MR_M_sched_failed, 1);
	else
		mr_count(MR_M_sched_done, 1);
}

static void finish(struct mr_sched *s, struct entry *e)
{
	struct mr_end end = {
		.status = e->status,
		.finish = e->finish,
		.prompt_tokens = e->prompt,
		.tokens = e->answered,
		.submit_ns = e->submit_ns,
		.start_ns = e->start_ns,
		.prefilled_ns = e->prefilled_ns,
		.first_ns = e->first_ns,
		.end_ns = now_ns(s),
		.cycles = e->cycles,
	};

	for (unsigned i = 0; i < MR_COPY_SITES; i++)
		end.copies[i] = e->request.copies[i];
	mr_sched_close_prefill(s, e);
	mr_sched_close_decode(s, e);
	hash_remove(s, e);
	s->active--;
	count_end(e);
	mr_sched_move(e, STAGE_ENDING, NULL);
	e->request.ops->end(e->request.front, &e->request, &end);
	mr_sched_pool_put(s, e);
}

int mr_sched_reap(struct mr_sched *s)
{
	struct entry *e;
	int count = 0;

	for (; (e = TAILQ_FIRST(&s->ending)) != NULL; count++)
		finish(s, e);
	return count;
}

int mr_sched_cancel(struct mr_sched *s, uint64_t client, uint64_t key)
{
	struct entry *e = mr_sched_find(s, client, key);

	if (!e || e->ending)
		return MR_E_NOT_FOUND;
	s->dirty = 1;
	mr_sched_end(s, e, MR_E_CANCELLED, MR_FINISH_CANCEL);
	return 0;
}

int mr_sched_cancel_client(struct mr_sched *s, uint64_t client)
{
	int count = 0;

	for (uint32_t i = 0; i < s->requests; i++) {
		struct entry *e = &s->entries[i];

		if (e->stage <= STAGE_FILLING || e->ending || e->request.client != client)
			continue;
		mr_sched_end(s, e, MR_E_CANCELLED, MR_FINISH_CANCEL);
		count++;
	}
	s->dirty |= count != 0;
	return count;
}
