/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room in a ring that is taken in pieces without a wrap and given back in the order in which it was taken:
 * command parameters, logits rows, entries of DECODEs under way. Positions are free-running.
 */
#ifndef MR_DRIVER_LPU_FIFO_H
#define MR_DRIVER_LPU_FIFO_H

#include <stdint.h>

struct fifo {
	uint64_t size, head, tail; /* tail - head <= size */
	uint64_t at; /* where tail is in the room, less than size: no division on the data path */
};

#define FIFO_NONE UINT64_MAX

/* Offset of @n units side by side, or FIFO_NONE where they are not free now. fifo->tail marks their end. */
static inline uint64_t fifo_take(struct fifo *f, uint64_t n)
{
	uint64_t offset = f->at;
	uint64_t skip = n > f->size - offset ? f->size - offset : 0;

	if (n > f->size)
		return FIFO_NONE;
	/* Nothing is held: from the start once more, where the last ones are still in the cache. */
	if (f->head == f->tail) {
		skip = offset ? f->size - offset : 0;
		f->head += skip;
	}
	if (f->tail + skip + n - f->head > f->size)
		return FIFO_NONE;
	f->tail += skip + n;
	offset = skip ? 0 : offset;
	f->at = offset + n == f->size ? 0 : offset + n;
	return offset;
}

/* Everything taken before @end (a former tail) is free again. */
static inline void fifo_give(struct fifo *f, uint64_t end)
{
	/* What was skipped while nothing was held may lie beyond. */
	if (end - f->head <= f->tail - f->head)
		f->head = end;
}

#endif /* MR_DRIVER_LPU_FIFO_H */
