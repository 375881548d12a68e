// SPDX-License-Identifier: Apache-2.0
/*
 * KV and the slots that it lies in, on either device. A slot is held by a sequence, and afterwards kept for
 * as long as nobody needs its room, if the trie knows no other KV of the same tokens: a prompt that begins
 * alike then starts on a fork of it, over shared blocks. The devices count the blocks' references; here is
 * decided who shares, who is charged and who gives way.
 *
 * What gives way is what costs least to compute again for the room that it takes, and was not used lately
 * (greedy-dual: a newcomer's weight is its cost plus the weight of the last one that went, so that the
 * unused sink by and by). That may also be the KV of a paused sequence; it is computed again when needed.
 */
#include <stdlib.h>

#include "driver/sched/internal.h"

#define NODES_MAX 65536u /* a million tokens kept */

int mr_kv_create(struct mr_sched *s, enum pool_id id, struct mr_device *dev)
{
	struct pool *pool = &s->pool[id];
	uint64_t blocks = dev->caps.kv_tokens / MR_KV_BLOCK_TOKENS;

	pool->dev = dev;
	TAILQ_INIT(&pool->idle);
	pool->kv = calloc(dev->caps.slots, sizeof(*pool->kv));
	if (!pool->kv)
		return MR_E_NO_MEMORY;
	for (uint32_t i = 0; i < dev->caps.slots; i++)
		pool->kv[i] = (struct kv){.pool = (uint8_t)id, .leaf = NONE};
	return mr_trie_create(pool, blocks < NODES_MAX ? (uint32_t)blocks : NODES_MAX);
}

void mr_kv_destroy(struct pool *pool)
{
	for (uint32_t i = 0; pool->kv && i < pool->dev->caps.slots; i++)
		if (pool->kv[i].open)
			pool->dev->mem->slot_close(pool->dev, pool->kv[i].slot);
	free(pool->kv);
	mr_trie_destroy(pool);
}

void mr_kv_config(const struct mr_sched *s, const struct sequence *q, enum pool_id id,
		  uint32_t positions, struct mr_slot_config *config)
{
	uint32_t to = q->count - 1, from = q->history;

	*config = (struct mr_slot_config){.owner = q->owner, .positions = positions};
	if (id == PRE) {
		config->flags = MR_SLOT_KV_EVENTS;
		return;
	}
	config->sampling = q->entry->request.sampling;
	if (from >= to)
		return;
	if (to - from > MR_LPU_HISTORY_MAX)
		from = to - MR_LPU_HISTORY_MAX;
	config->history = q->tokens + from;
	config->history_count = to - from;
}

/* A paused sequence's client is not charged: what may be given up is in nobody's way. */
static void uncharge(struct kv *kv)
{
	if (!kv->idle)
		kv->seq->account->blocks[kv->pool] -= kv->blocks;
	kv->seq->kv[kv->pool] = NULL;
	kv->seq = NULL;
}

static void set_idle(struct pool *pool, struct kv *kv, int idle)
{
	if (kv->idle == idle)
		return;
	kv->idle = (uint8_t)idle;
	if (idle)
		TAILQ_INSERT_TAIL(&pool->idle, kv, idle_link);
	else
		TAILQ_REMOVE(&pool->idle, kv, idle_link);
}

/* A block's cost grows with its place: attention looks back at all before it. In 1/1024 of the first's. */
static void weigh(struct pool *pool, struct kv *kv)
{
	uint32_t blocks = kv->leaf != NONE ? kv->depth : blocks_of(kv->positions);

	kv->weight = pool->weight + 1024 + 2ull * blocks;
}

/* Closes the slot and forgets the KV, whoever had it. */
static void close_kv(struct mr_sched *s, struct kv *kv)
{
	struct pool *pool = &s->pool[kv->pool];

	mr_trie_remove(pool, kv);
	if (kv->seq)
		uncharge(kv);
	if (!kv->idle)
		pool->busy--;
	set_idle(pool, kv, 0);
	if (kv->pool == DEC)
		s->by_slot[kv->slot.index] = NULL;
	/* MR_E_STALE after the device was reset: it is closed either way. */
	pool->dev->mem->slot_close(pool->dev, kv->slot);
	kv->open = 0;
	pool->held--;
	pool->moved++;
}

/* Gives up what costs least, but not @except; 0 = nothing is idle. */
static int give_up(struct mr_sched *s, struct pool *pool, const struct kv *except)
{
	struct kv *kv, *least_kv = NULL;

	TAILQ_FOREACH(kv, &pool->idle, idle_link)
	if (kv != except && (!least_kv || kv->weight < least_kv->weight))
		least_kv = kv;
	if (!least_kv)
		return 0;
	pool->weight = least_kv->weight;
	if (least_kv->seq) {
		least_kv->seq->fed = 0;
		mr_count(MR_M_kv_paused_evicted, 1);
	}
	mr_count(MR_M_kv_evicted_blocks, least_kv->blocks);
	close_kv(s, least_kv);
	return 1;
}

/* Takes over a slot that the device has just opened over @start shared positions. */
static struct kv *take(struct mr_sched *s, enum pool_id id, struct mr_slot slot, uint32_t positions,
		       uint32_t start)
{
	struct pool *pool = &s->pool[id];
	struct kv *kv;

	if (slot.index >= pool->dev->caps.slots || pool->kv[slot.index].open) {
		pool->dev->mem->slot_close(pool->dev, slot);
		return NULL; /* an index that is out of range or held already */
	}
	kv = &pool->kv[slot.index];
	*kv = (struct kv){
		.slot = slot,
		.pool = (uint8_t)id,
		.open = 1,
		.positions = positions,
		.start = start,
		.blocks = blocks_of(positions) - start / MR_KV_BLOCK_TOKENS,
		.leaf = NONE,
	};
	pool->held++;
	pool->busy++;
	return kv;
}

static int hold(struct mr_sched *s, struct sequence *q, struct kv *kv)
{
	if (!kv)
		return MR_E_PROTOCOL;
	kv->seq = q;
	q->kv[kv->pool] = kv;
	q->account->blocks[kv->pool] += kv->blocks;
	q->waited[kv->pool] = 0;
	if (kv->pool == DEC)
		s->by_slot[kv->slot.index] = q;
	return 1;
}

/* The most KV of @q's tokens that is there, but for the last token, which DECODE is fed. */
static struct kv *match(const struct mr_sched *s, const struct sequence *q, enum pool_id id,
			uint32_t *at)
{
	const struct pool *pool = &s->pool[id];
	uint32_t blocks = (q->count - 1) / MR_KV_BLOCK_TOKENS, depth, depth1 = 0;
	uint32_t n = mr_trie_match(pool, client_space(q->client), q->tokens, blocks, &depth);

	if (q->prefix) {
		uint32_t most = least(blocks, q->prefix_count / MR_KV_BLOCK_TOKENS);
		uint32_t n1 =
			mr_trie_match(pool, prefix_space(q->prefix), q->tokens, most, &depth1);

		if (depth1 > depth) {
			n = n1;
			depth = depth1;
		}
	}
	*at = depth * MR_KV_BLOCK_TOKENS;
	return n == NONE ? NULL : pool->nodes[n].holder;
}

uint32_t mr_kv_there(const struct mr_sched *s, const struct sequence *q, enum pool_id id)
{
	uint32_t at = 0;

	return !s->pool[id].no_fork && match(s, q, id, &at) ? at : 0;
}

/* The client's share of the decode device: whether @q may have @blocks more of it now. */
static int within_quota(const struct mr_sched *s, const struct sequence *q, enum pool_id id,
			uint32_t blocks)
{
	return !s->client_blocks || id != DEC ||
	       q->account->blocks[DEC] + blocks <= s->client_blocks;
}

/* One try at a slot: 1, 0 = something was given up, try again; or why not. */
static int attempt(struct mr_sched *s, struct sequence *q, enum pool_id id, struct kv *from,
		   uint32_t at, uint32_t positions)
{
	struct pool *pool = &s->pool[id];
	struct mr_slot_config config;
	struct mr_slot slot;
	int status;

	mr_kv_config(s, q, id, positions, &config);
	if (from)
		status = pool->dev->mem->kv_fork(pool->dev, from->slot, at, &config, &slot);
	else
		status = pool->dev->mem->slot_open(pool->dev, &config, &slot);
	if (status == 0)
		return hold(s, q, take(s, id, slot, positions, at));
	if (status == MR_E_KV_EXHAUSTED ||
	    (status == MR_E_FULL && pool->held == pool->dev->caps.slots))
		return give_up(s, pool, from) ? 0 : status;
	return status;
}

/* Whether room for @positions will come by itself: 0 = wait, or @status. */
static int wait_or(struct sequence *q, const struct pool *pool, enum pool_id id, int status,
		   uint32_t positions, uint32_t own)
{
	if (status == MR_E_KV_EXHAUSTED || status == MR_E_CONTEXT_FULL) {
		q->blocks_wanted = blocks_of(positions);
		q->blocks_there = pool->dev->caps.kv_tokens / MR_KV_BLOCK_TOKENS;
	}
	if (status != MR_E_FULL && status != MR_E_KV_EXHAUSTED)
		return status;
	if (pool->held < pool->dev->caps.slots && status == MR_E_FULL)
		return 0; /* its command queue is full: the same at the next turn */
	if (pool->busy <= own)
		return status;
	q->waited[id] = pool->moved + 1ull;
	return 0;
}

int mr_kv_acquire(struct mr_sched *s, struct sequence *q, enum pool_id id, uint32_t positions,
		  int reuse)
{
	struct pool *pool = &s->pool[id];
	int status;

	if (q->waited[id] == pool->moved + 1ull)
		return 0;
	q->waited[id] = 0;
	if (!within_quota(s, q, id, blocks_of(positions))) {
		q->waited[id] = pool->moved + 1ull;
		return MR_E_QUOTA;
	}
	do {
		uint32_t at = 0;
		struct kv *from = reuse && !pool->no_fork ? match(s, q, id, &at) : NULL;

		if (from)
			weigh(pool, from);
		status = attempt(s, q, id, from, from ? at : 0, positions);
		if (from && status == 1)
			mr_count(MR_M_kv_shared_tokens, at);
		if (!from || status >= 0)
			continue;
		/* Not over this one, then: it gives way itself where it may, or is left alone. */
		if (status == MR_E_NOT_SUPPORTED)
			pool->no_fork = 1;
		reuse = 0;
		status = 0;
	} while (status == 0);
	return status > 0 ? status : wait_or(q, pool, id, status, positions, 0);
}

int mr_kv_fork(struct mr_sched *s, struct sequence *q, struct kv *from, uint32_t at,
	       uint32_t positions)
{
	enum pool_id id = from->pool;
	struct pool *pool = &s->pool[id];
	struct kv *own = q->kv[id];
	int status = MR_E_NOT_SUPPORTED;

	if (q->waited[id] == pool->moved + 1ull)
		return 0;
	q->waited[id] = 0;
	if (!pool->no_fork)
		while ((status = attempt(s, q, id, from, at, positions)) == 0)
			;
	if (status < 0) {
		q->kv[id] = own;
		return wait_or(q, pool, id, status, positions, own != NULL);
	}
	mr_count(MR_M_kv_shared_tokens, at);
	if (!own)
		return 1;
	/* It was held in @q's name until now. What the trie says of it holds for the new one too. */
	q->account->blocks[id] -= own->blocks;
	own->seq = NULL;
	if (own->depth * MR_KV_BLOCK_TOKENS <= at)
		mr_trie_replace(pool, own, q->kv[id]);
	close_kv(s, own);
	return 1;
}

/* The same KV in a slot that has room for no more than what is kept. NULL = that cannot be had. */
static struct kv *trim(struct mr_sched *s, struct kv *kv)
{
	struct pool *pool = &s->pool[kv->pool];
	uint32_t keep = kv->depth * MR_KV_BLOCK_TOKENS;
	const struct mr_slot_config config = {.owner = NONE, .positions = keep};
	struct mr_slot slot;
	struct kv *to;

	if (blocks_of(kv->positions) <= kv->depth + 1)
		return kv;
	if (pool->dev->mem->kv_fork(pool->dev, kv->slot, keep, &config, &slot) < 0)
		return NULL;
	to = take(s, kv->pool, slot, keep, 0);
	if (!to)
		return NULL;
	mr_trie_replace(pool, kv, to);
	close_kv(s, kv);
	return to;
}

void mr_kv_drop(struct mr_sched *s, struct sequence *q, enum pool_id id)
{
	if (q->kv[id])
		close_kv(s, q->kv[id]);
}

/* Nobody holds it now: it stays while its room is not needed. */
static void keep(struct mr_sched *s, struct kv *kv)
{
	struct pool *pool = &s->pool[kv->pool];
	struct kv *kept = trim(s, kv);

	if (!kept) {
		close_kv(s, kv);
		return;
	}
	if (kept->pool == DEC)
		s->by_slot[kept->slot.index] = NULL;
	weigh(pool, kept);
	if (!kept->idle) {
		pool->busy--;
		set_idle(pool, kept, 1);
	}
	pool->moved++;
}

void mr_kv_release(struct mr_sched *s, struct sequence *q, enum pool_id id)
{
	struct kv *kv = q->kv[id];

	if (!kv)
		return;
	if (kv->leaf == NONE) {
		close_kv(s, kv);
		return;
	}
	uncharge(kv);
	keep(s, kv);
}

void mr_kv_idle(struct mr_sched *s, struct sequence *q, int idle)
{
	struct pool *pool = &s->pool[DEC];
	struct kv *kv = q->kv[DEC];

	if (!kv || kv->idle == idle)
		return;
	weigh(pool, kv);
	pool->busy += idle ? -1u : 1u;
	q->account->blocks[DEC] += idle ? -(uint64_t)kv->blocks : kv->blocks;
	set_idle(pool, kv, idle);
	if (idle)
		pool->moved++;
}

void mr_kv_publish(struct mr_sched *s, struct sequence *q, enum pool_id id, uint32_t count)
{
	struct pool *pool = &s->pool[id];
	struct kv *kv = q->kv[id];
	uint64_t space = client_space(q->client);
	uint32_t depth, blocks = shareable(s, q, count) / MR_KV_BLOCK_TOKENS;

	if (!kv || s->no_cache || pool->no_fork || (kv->leaf != NONE && kv->depth >= blocks))
		return;
	if (q->prefix) {
		uint32_t most = q->prefix_count / MR_KV_BLOCK_TOKENS;

		/* The first one after a prefix that has no KV of its own serves the prefix's others. */
		mr_trie_match(pool, prefix_space(q->prefix), q->tokens, most, &depth);
		if (depth < most && most <= blocks)
			space = prefix_space(q->prefix);
	}
	mr_trie_remove(pool, kv);
	if (mr_trie_insert(pool, kv, space, q->tokens, blocks) == 0)
		mr_trie_remove(pool, kv); /* all of it is there already */
}

void mr_kv_keep(struct mr_sched *s, struct sequence *q, enum pool_id id, uint64_t space,
		uint32_t count)
{
	struct pool *pool = &s->pool[id];
	struct kv *from = q->kv[id], *kv;
	struct mr_slot_config config = {.owner = NONE};
	struct mr_slot slot;
	uint32_t at = id == prefill_pool(s) && q->written > q->fed ? q->written : q->fed;

	if (s->no_cache || pool->no_fork)
		return;
	if (!from)
		from = match(s, q, id, &at);
	at = shareable(s, q, least(at, count)) / MR_KV_BLOCK_TOKENS * MR_KV_BLOCK_TOKENS;
	if (!from || at == 0)
		return;
	config.positions = at;
	if (pool->dev->mem->kv_fork(pool->dev, from->slot, at, &config, &slot) < 0)
		return;
	kv = take(s, id, slot, at, 0);
	if (!kv)
		return;
	if (mr_trie_insert(pool, kv, space, q->tokens, at / MR_KV_BLOCK_TOKENS))
		keep(s, kv);
	else
		close_kv(s, kv);
}

void mr_kv_forget(struct mr_sched *s, enum pool_id id, uint64_t space)
{
	struct pool *pool = &s->pool[id];

	for (uint32_t i = 0; i < pool->dev->caps.slots; i++) {
		struct kv *kv = &pool->kv[i];

		if (!kv->open || kv->leaf == NONE || (space && kv->space != space))
			continue;
		if (kv->seq)
			mr_trie_remove(pool, kv);
		else
			close_kv(s, kv);
	}
}

void mr_kv_lost(struct mr_sched *s, enum pool_id id)
{
	struct pool *pool = &s->pool[id];

	for (uint32_t i = 0; i < pool->dev->caps.slots; i++)
		if (pool->kv[i].open)
			close_kv(s, &pool->kv[i]);
}
