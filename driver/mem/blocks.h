/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pool of KV blocks by number: which are free, and how many holders each other one has. The memory behind
 * the numbers is the caller's. A device that shares blocks between slots (kv_fork) keeps one: the CPU
 * backend, the nil device, and the LPU driver for its device's blocks.
 *
 * One thread at a time. Nothing here allocates after create, and take, share and drop cost the same
 * however large the pool is.
 */
#ifndef MR_DRIVER_MEM_BLOCKS_H
#define MR_DRIVER_MEM_BLOCKS_H

#include <stdint.h>

#define MR_BLOCKS_MAX (1u << 30)

struct mr_blocks {
	uint32_t count;
	uint32_t fresh;    /* blocks from here on were never taken */
	uint32_t returned; /* entries of @stack: blocks that were taken and are free again */
	uint32_t *stack;   /* the one returned last is taken first: its memory is the warmest */
	uint32_t *refs;    /* holders of each block; of a returned one its place in @stack, marked */
};

/* 0, MR_E_NO_MEMORY, or MR_E_RANGE for more than MR_BLOCKS_MAX. */
int mr_blocks_create(struct mr_blocks *b, uint32_t count);
void mr_blocks_destroy(struct mr_blocks *b);

static inline uint32_t mr_blocks_free(const struct mr_blocks *b)
{
	return b->count - b->fresh + b->returned;
}

/* Takes @n blocks with one holder each, to @out; all of them, or none and MR_E_KV_EXHAUSTED. */
int mr_blocks_take(struct mr_blocks *b, uint32_t *out, uint32_t n);

/* One more holder for each of @n blocks that have one. */
void mr_blocks_share(struct mr_blocks *b, const uint32_t *blocks, uint32_t n);

/* One holder fewer for each; the block is free when the last one has let go. */
void mr_blocks_drop(struct mr_blocks *b, const uint32_t *blocks, uint32_t n);

/* 1 where more than one holder has @block, so that nobody may write it. */
static inline int mr_blocks_shared(const struct mr_blocks *b, uint32_t block)
{
	return b->refs[block] > 1;
}

/*
 * For tests: 0, or MR_E_INTERNAL where the pool's tables contradict each other or @held, which says for
 * each block how many holders there are (NULL = not known). Takes time in proportion to the pool.
 */
int mr_blocks_check(const struct mr_blocks *b, const uint32_t *held);

#endif /* MR_DRIVER_MEM_BLOCKS_H */
