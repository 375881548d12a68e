// SPDX-License-Identifier: Apache-2.0
/*
 * The KV block pool. Blocks that were never taken are counted, not listed, so a pool of millions is made in
 * no time; the pages of its tables are touched as it grows.
 */
#include "driver/mem/blocks.h"

#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#define RETURNED (1u << 31) /* in refs: the rest is the block's place in the stack */

int mr_blocks_create(struct mr_blocks *b, uint32_t count)
{
	*b = (struct mr_blocks){.count = count};
	if (count > MR_BLOCKS_MAX)
		return MR_E_RANGE;
	b->stack = calloc(count, sizeof(*b->stack));
	b->refs = calloc(count, sizeof(*b->refs));
	if (count && (!b->stack || !b->refs)) {
		mr_blocks_destroy(b);
		return MR_E_NO_MEMORY;
	}
	return 0;
}

void mr_blocks_destroy(struct mr_blocks *b)
{
	free(b->stack);
	free(b->refs);
	*b = (struct mr_blocks){0};
}

int mr_blocks_take(struct mr_blocks *b, uint32_t *out, uint32_t n)
{
	if (n > mr_blocks_free(b))
		return MR_E_KV_EXHAUSTED;
	for (uint32_t i = 0; i < n; i++) {
		out[i] = b->returned ? b->stack[--b->returned] : b->fresh++;
		b->refs[out[i]] = 1;
	}
	return 0;
}

void mr_blocks_share(struct mr_blocks *b, const uint32_t *blocks, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		b->refs[blocks[i]]++;
}

void mr_blocks_drop(struct mr_blocks *b, const uint32_t *blocks, uint32_t n)
{
	/* From the end, so that a taker gets them in the order in which this holder had them. */
	for (uint32_t i = n; i-- > 0;) {
		uint32_t block = blocks[i];

		if (--b->refs[block])
			continue;
		b->refs[block] = RETURNED | b->returned;
		b->stack[b->returned++] = block;
	}
}

int mr_blocks_check(const struct mr_blocks *b, const uint32_t *held)
{
	uint32_t used = 0;

	if (b->fresh > b->count || b->returned > b->fresh)
		return MR_E_INTERNAL;
	for (uint32_t i = 0; i < b->returned; i++)
		if (b->stack[i] >= b->fresh || b->refs[b->stack[i]] != (RETURNED | i))
			return MR_E_INTERNAL;
	for (uint32_t block = 0; block < b->count; block++) {
		uint32_t refs = b->refs[block];

		/* A free block that a holder dropped again, or shared, is no longer marked as it was. */
		if (refs & RETURNED && (refs & ~RETURNED) >= b->returned)
			return MR_E_INTERNAL;
		refs = refs & RETURNED ? 0 : refs;
		if ((block >= b->fresh && refs) || (held && refs != held[block]))
			return MR_E_INTERNAL;
		used += refs != 0;
	}
	return used == b->count - mr_blocks_free(b) ? 0 : MR_E_INTERNAL;
}
