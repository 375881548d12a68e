// SPDX-License-Identifier: Apache-2.0
/*
 * Which KV holds which tokens: a tree of prompts, one level a block of 16 tokens, for each device. A node
 * stands for the KV of a block after all that lies on the path to it; a struct kv lies on one path, from
 * the first block to its leaf. A child is found by a hash of (parent or space, tokens), then compared in
 * full, so that a colliding hash can never serve the wrong KV. Nodes come from a fixed pool; where it is
 * empty, less is kept. Called by kv.c only.
 */
#include <stdlib.h>

#include "driver/sched/internal.h"

static uint32_t bucket_of(const struct pool *pool, uint64_t space, uint32_t parent,
			  const uint32_t *tokens)
{
	uint64_t h = parent == NONE ? space : parent;

	for (uint32_t i = 0; i < MR_KV_BLOCK_TOKENS; i += 2)
		h = mix(h, (uint64_t)tokens[i] << 32 | tokens[i + 1]);
	return (uint32_t)h & pool->bucket_mask;
}

int mr_trie_create(struct pool *pool, uint32_t nodes)
{
	uint32_t buckets = 1;

	while (buckets < nodes)
		buckets *= 2;
	pool->nodes = calloc(nodes, sizeof(*pool->nodes));
	pool->buckets = malloc(buckets * sizeof(*pool->buckets));
	if (!pool->nodes || !pool->buckets)
		return MR_E_NO_MEMORY;
	for (uint32_t i = 0; i < buckets; i++)
		pool->buckets[i] = NONE;
	for (uint32_t i = 0; i < nodes; i++)
		pool->nodes[i].hash_next = i + 1 < nodes ? i + 1 : NONE;
	pool->bucket_mask = buckets - 1;
	pool->node_count = nodes;
	pool->free_node = nodes ? 0 : NONE;
	return 0;
}

void mr_trie_destroy(struct pool *pool)
{
	free(pool->nodes);
	free(pool->buckets);
}

static int same(const struct node *n, uint64_t space, uint32_t parent, const uint32_t *tokens)
{
	if (n->parent != parent || n->space != space)
		return 0;
	for (uint32_t i = 0; i < MR_KV_BLOCK_TOKENS; i++)
		if (n->tokens[i] != tokens[i])
			return 0;
	return 1;
}

static uint32_t find(const struct pool *pool, uint64_t space, uint32_t parent,
		     const uint32_t *tokens)
{
	uint32_t n = pool->buckets[bucket_of(pool, space, parent, tokens)];

	while (n != NONE && !same(&pool->nodes[n], space, parent, tokens))
		n = pool->nodes[n].hash_next;
	return n;
}

uint32_t mr_trie_match(const struct pool *pool, uint64_t space, const uint32_t *tokens,
		       uint32_t blocks, uint32_t *depth)
{
	uint32_t deepest = NONE;

	for (*depth = 0; *depth < blocks; ++*depth) {
		uint32_t n = find(pool, space, deepest, tokens + *depth * MR_KV_BLOCK_TOKENS);

		if (n == NONE)
			break;
		deepest = n;
	}
	return deepest;
}

static uint32_t add(struct pool *pool, uint64_t space, uint32_t parent, const uint32_t *tokens)
{
	uint32_t index = pool->free_node;
	struct node *n;

	if (index == NONE)
		return NONE;
	n = &pool->nodes[index];
	pool->free_node = n->hash_next;
	pool->nodes_used++;
	for (uint32_t i = 0; i < MR_KV_BLOCK_TOKENS; i++)
		n->tokens[i] = tokens[i];
	n->space = space;
	n->parent = parent;
	n->child = n->sibling = n->sibling_before = NONE;
	n->refs = 0;
	TAILQ_INIT(&n->leaves);
	n->bucket = bucket_of(pool, space, parent, tokens);
	n->hash_next = pool->buckets[n->bucket];
	pool->buckets[n->bucket] = index;
	if (parent == NONE)
		return index;
	n->sibling = pool->nodes[parent].child;
	if (n->sibling != NONE)
		pool->nodes[n->sibling].sibling_before = index;
	pool->nodes[parent].child = index;
	return index;
}

static void drop(struct pool *pool, uint32_t index)
{
	struct node *n = &pool->nodes[index];
	uint32_t *at = &pool->buckets[n->bucket];

	while (*at != index)
		at = &pool->nodes[*at].hash_next;
	*at = n->hash_next;
	if (n->sibling != NONE)
		pool->nodes[n->sibling].sibling_before = n->sibling_before;
	if (n->sibling_before != NONE)
		pool->nodes[n->sibling_before].sibling = n->sibling;
	else if (n->parent != NONE)
		pool->nodes[n->parent].child = n->sibling;
	n->hash_next = pool->free_node;
	pool->free_node = index;
	pool->nodes_used--;
}

uint32_t mr_trie_insert(struct pool *pool, struct kv *kv, uint64_t space, const uint32_t *tokens,
			uint32_t blocks)
{
	uint32_t at = NONE, fresh = 0;

	for (kv->depth = 0; kv->depth < blocks; kv->depth++) {
		const uint32_t *block = tokens + kv->depth * MR_KV_BLOCK_TOKENS;
		uint32_t n = find(pool, space, at, block);

		if (n == NONE) {
			n = add(pool, space, at, block);
			if (n == NONE)
				break;
			pool->nodes[n].holder = kv;
			fresh++;
		}
		pool->nodes[n].refs++;
		at = n;
	}
	kv->leaf = at;
	kv->space = space;
	if (at != NONE)
		TAILQ_INSERT_TAIL(&pool->nodes[at].leaves, kv, leaf_link);
	return fresh;
}

/* From the leaf up, so that a child's holder, which lies on its parent's path too, is right already. */
void mr_trie_remove(struct pool *pool, struct kv *kv)
{
	uint32_t at = kv->leaf;

	if (at == NONE)
		return;
	TAILQ_REMOVE(&pool->nodes[at].leaves, kv, leaf_link);
	while (at != NONE) {
		struct node *n = &pool->nodes[at];
		uint32_t parent = n->parent;

		if (--n->refs == 0)
			drop(pool, at);
		else if (n->holder == kv)
			n->holder = !TAILQ_EMPTY(&n->leaves) ? TAILQ_FIRST(&n->leaves)
							     : pool->nodes[n->child].holder;
		at = parent;
	}
	kv->leaf = NONE;
	kv->depth = 0;
}

void mr_trie_replace(struct pool *pool, struct kv *from, struct kv *to)
{
	to->leaf = from->leaf;
	to->depth = from->depth;
	to->space = from->space;
	from->leaf = NONE;
	from->depth = 0;
	if (to->leaf == NONE)
		return;
	TAILQ_REMOVE(&pool->nodes[to->leaf].leaves, from, leaf_link);
	TAILQ_INSERT_TAIL(&pool->nodes[to->leaf].leaves, to, leaf_link);
	for (uint32_t n = to->leaf; n != NONE; n = pool->nodes[n].parent)
		if (pool->nodes[n].holder == from)
			pool->nodes[n].holder = to;
}
