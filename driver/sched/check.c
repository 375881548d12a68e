// SPDX-License-Identifier: Apache-2.0
/*
 * The orchestrator's invariants, checked by counting everything anew: each sequence is on the list of its
 * state, each slot has one holder and is charged to the right client, each node of the tries is referred to
 * as often as it says. Tests call it after every turn; nothing else does.
 */
#include <stdlib.h>

#include "driver/sched/internal.h"

#define DEMAND(condition, text)               \
	do {                                  \
		if (!(condition)) {           \
			*why = (text);        \
			return MR_E_INTERNAL; \
		}                             \
	} while (0)

static const struct sequence_list *list_of(const struct mr_sched *s, const struct sequence *q)
{
	switch (q->state) {
	case QUEUED:
	case PREFILLING:
		return q->due_ns ? &s->due : &q->account->queue[q->class];
	case DECODING:
		return &s->decoding[q->class];
	case SCORING:
		return &s->scoring;
	case ENDING:
		return q->inflight ? NULL : &s->ending;
	default:
		return NULL;
	}
}

static int check_sequence(const struct mr_sched *s, const struct sequence *q, const char **why)
{
	const struct entry *e = q->entry;

	DEMAND(q->on == list_of(s, q), "a sequence is not on the list of its state");
	DEMAND(q->ending == (q->state == ENDING), "a sequence is ending in name only");
	DEMAND(!e == (q->state == PAUSED) || q->ending, "only a paused sequence has no request");
	DEMAND(!e || (e->live && e->seq == q && e->request.tokens == q->tokens),
	       "a request and its sequence disagree");
	DEMAND(q->count > 0 && q->count <= s->context, "a sequence's length");
	DEMAND(q->fed <= q->count && q->written < q->count, "KV beyond the tokens");
	DEMAND(!q->chunk || q->inflight, "a chunk without work");
	DEMAND(q->state != PAUSED || q->inflight == 0, "work of a paused sequence");
	for (int id = 0; id < POOLS; id++)
		DEMAND(!q->kv[id] ||
			       (q->kv[id]->open && q->kv[id]->seq == q && q->kv[id]->pool == id),
		       "a sequence and its slot disagree");
	if (q->state == DECODING || q->state == SCORING) {
		DEMAND(q->kv[DEC] && !q->kv[PRE] && !q->hand_on, "a sequence decodes without KV");
		DEMAND(s->by_slot[q->kv[DEC]->slot.index] == q, "a slot without its sequence");
	}
	DEMAND(!q->hand_on || q->state == PREFILLING || q->state == HANDOVER,
	       "a hand-over of nobody");
	return 0;
}

static int check_sequences(const struct mr_sched *s, const char **why)
{
	uint32_t states[ENDING + 1] = {0}, active = 0, live = 0, chunks = 0;
	const struct sequence *q;

	for (uint32_t i = 0; i < s->sequence_count; i++) {
		q = &s->sequences[i];
		states[q->state]++;
		if (q->state == FREE)
			continue;
		live++;
		active += q->entry != NULL;
		chunks += q->chunk != 0;
		if (check_sequence(s, q, why))
			return MR_E_INTERNAL;
	}
	for (int i = 0; i <= ENDING; i++)
		DEMAND(states[i] == s->in_state[i], "sequences by state are miscounted");
	DEMAND(live == s->live && active == s->active && chunks == s->chunks,
	       "live sequences, active requests or chunks are miscounted");
	TAILQ_FOREACH(q, &s->due, link)
	DEMAND(!TAILQ_NEXT(q, link) || TAILQ_NEXT(q, link)->due_ns >= q->due_ns,
	       "deadlines out of order");
	for (int class = 0; class <= BACKGROUND; class ++)
		DEMAND(!s->claim[class] || s->claim[class]->state == QUEUED, "a claim of nobody");
	return 0;
}

/* Blocks charged to each account, against what its sequences hold and is not idle. */
static int check_accounts(const struct mr_sched *s, const char **why)
{
	for (uint32_t b = 0; b <= s->bucket_mask; b++) {
		for (const struct account *a = s->account_buckets[b]; a; a = a->hash_next) {
			uint64_t blocks[POOLS] = {0};
			uint32_t refs = 0;

			for (uint32_t i = 0; i < s->sequence_count; i++) {
				const struct sequence *q = &s->sequences[i];

				if (q->state == FREE || q->account != a)
					continue;
				refs++;
				for (int id = 0; id < POOLS; id++)
					if (q->kv[id] && !q->kv[id]->idle)
						blocks[id] += q->kv[id]->blocks;
			}
			DEMAND(refs == a->refs, "an account's sequences are miscounted");
			DEMAND(blocks[PRE] == a->blocks[PRE] && blocks[DEC] == a->blocks[DEC],
			       "a client is charged for what it does not hold");
			for (int class = 0; class <= BACKGROUND; class ++)
				DEMAND(a->in_ring[class] == !TAILQ_EMPTY(&a->queue[class]),
				       "an account with work is out of its ring");
		}
	}
	return 0;
}

static int check_slots(const struct pool *pool, const char **why)
{
	uint32_t held = 0, busy = 0, idle = 0, listed = 0;
	const struct kv *kv;

	for (uint32_t i = 0; i < pool->dev->caps.slots; i++) {
		kv = &pool->kv[i];
		if (!kv->open)
			continue;
		held++;
		busy += !kv->idle;
		idle += kv->idle;
		DEMAND(!kv->seq || kv->seq->kv[kv->pool] == kv, "a slot's holder holds another");
		DEMAND(kv->seq || kv->idle, "a slot that nobody holds or may have");
		DEMAND(kv->seq || kv->leaf != NONE, "KV is kept that nobody can find");
		DEMAND(!kv->seq || !kv->idle || kv->seq->state == PAUSED ||
			       kv->seq->state == ENDING,
		       "KV in use may be given up");
	}
	TAILQ_FOREACH(kv, &pool->idle, idle_link)
	listed++;
	DEMAND(held == pool->held && busy == pool->busy && idle == listed,
	       "slots held, busy or idle are miscounted");
	return 0;
}

/* Counts the paths through each node anew. */
static int count_paths(const struct pool *pool, uint32_t *refs, const char **why)
{
	uint32_t used = 0;

	for (uint32_t i = 0; i < pool->dev->caps.slots; i++) {
		const struct kv *kv = &pool->kv[i];
		uint32_t depth = 0;

		for (uint32_t n = kv->open ? kv->leaf : NONE; n != NONE;
		     n = pool->nodes[n].parent) {
			DEMAND(pool->nodes[n].space == kv->space, "a path through two spaces");
			refs[n]++;
			depth++;
		}
		DEMAND(!kv->open || depth == kv->depth, "a path's depth");
	}
	for (uint32_t n = 0; n < pool->node_count; n++) {
		const struct kv *holder = pool->nodes[n].holder;
		uint32_t at;

		if (!refs[n])
			continue;
		used++;
		DEMAND(refs[n] == pool->nodes[n].refs, "a node's references are miscounted");
		DEMAND(holder && holder->open, "a node whose holder is gone");
		for (at = holder->leaf; at != NONE && at != n;)
			at = pool->nodes[at].parent;
		DEMAND(at == n, "a node whose holder holds something else");
	}
	DEMAND(used == pool->nodes_used, "nodes are lost");
	return 0;
}

static int check_trie(const struct pool *pool, const char **why)
{
	uint32_t *refs = calloc(pool->node_count + 1u, sizeof(*refs));
	int status;

	DEMAND(refs, "no memory for the check");
	status = count_paths(pool, refs, why);
	free(refs);
	return status;
}

int mr_sched_check(const struct mr_sched *s, const char **why)
{
	int status = check_sequences(s, why);

	if (status == 0)
		status = check_accounts(s, why);
	for (int id = 0; id < POOLS && status == 0; id++) {
		if (!s->pool[id].dev)
			continue;
		status = check_slots(&s->pool[id], why);
		if (status == 0)
			status = check_trie(&s->pool[id], why);
	}
	return status;
}
