// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/dma.h"
#include "firmware-sim/mutant.h"

#include <sched.h>
#include <string.h>

#include <millrace/lpu_port.h>

int mr_sim_dma_init(struct sim_dma *dma)
{
	return pthread_mutex_init(&dma->lock, NULL) ? MR_E_NO_MEMORY : 0;
}

void mr_sim_dma_fini(struct sim_dma *dma)
{
	pthread_mutex_destroy(&dma->lock);
}

/*
 * The device's thread takes its side for every entry that it reads or writes, a host's thread rarely. So the
 * device's costs one full fence: each stores its own word, then looks at the other's, both sequentially
 * consistent, so that at least one of them sees the other, and it is the device that gives way.
 */
void mr_sim_dma_lock(struct sim_dma *dma)
{
	pthread_mutex_lock(&dma->lock);
	__atomic_store_n(&dma->wanted, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&dma->held, __ATOMIC_SEQ_CST))
		sched_yield();
}

void mr_sim_dma_unlock(struct sim_dma *dma)
{
	__atomic_store_n(&dma->wanted, 0, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&dma->lock);
}

void mr_sim_dma_hold(struct sim_dma *dma)
{
	__atomic_store_n(&dma->held, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(&dma->wanted, __ATOMIC_SEQ_CST)) {
		__atomic_store_n(&dma->held, 0, __ATOMIC_RELEASE);
		sched_yield();
		__atomic_store_n(&dma->held, 1, __ATOMIC_SEQ_CST);
	}
}

void mr_sim_dma_release(struct sim_dma *dma)
{
	__atomic_store_n(&dma->held, 0, __ATOMIC_RELEASE);
}

/* How many mappings start at or below @iova. */
static uint32_t below(const struct sim_dma *dma, uint64_t iova)
{
	uint32_t low = 0, high = dma->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (dma->map[middle].iova <= iova)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int mr_sim_dma_map(struct sim_dma *dma, uint64_t iova, void *base, size_t bytes, uint32_t access)
{
	const uint32_t known = MR_PORT_DMA_READ | MR_PORT_DMA_WRITE;
	int status = 0;

	if (!base || !bytes || iova + bytes < iova || !access || access & ~known)
		return MR_E_INVALID;
	mr_sim_dma_lock(dma);
	uint32_t at = below(dma, iova);
	struct sim_mapping *m = &dma->map[at];
	if ((at && m[-1].iova + m[-1].bytes > iova) || (at < dma->count && m->iova < iova + bytes))
		status = MR_E_EXISTS;
	else if (dma->count == SIM_DMA_MAPPINGS)
		status = MR_E_FULL;
	if (!status) {
		memmove(m + 1, m, (dma->count++ - at) * sizeof(*m));
		*m = (struct sim_mapping){iova, bytes, base, access};
	}
	mr_sim_dma_unlock(dma);
	return status;
}

int mr_sim_dma_unmap(struct sim_dma *dma, uint64_t iova)
{
	int status = MR_E_NOT_FOUND;

	mr_sim_dma_lock(dma);
	uint32_t at = below(dma, iova);
	struct sim_mapping *m = &dma->map[at];
	if (at && m[-1].iova == iova) {
		memmove(m - 1, m, (dma->count-- - at) * sizeof(*m));
		status = 0;
	}
	mr_sim_dma_unlock(dma);
	return status;
}

/* Under the lock: the host's bytes at @iova, and in *@most how many lie there side by side. */
static uint8_t *piece(struct sim_dma *dma, uint64_t iova, uint32_t access, size_t *most)
{
	/* Mostly where the last one was. */
	const struct sim_mapping *m = &dma->map[dma->last];

	if (dma->last >= dma->count || iova - m->iova >= m->bytes) {
		uint32_t at = below(dma, iova);
		m = at ? &dma->map[at - 1] : NULL;
		dma->last = at ? at - 1 : 0;
	}
	if (!m || iova - m->iova >= m->bytes || (m->access & access) != access)
		return NULL;
	*most = m->bytes - (iova - m->iova);
	return m->base + (iova - m->iova);
}

/* Under the lock: @bytes that lie within one mapping, or NULL. */
static uint8_t *translate(struct sim_dma *dma, uint64_t iova, size_t bytes, uint32_t access)
{
	size_t most = 0;
	uint8_t *at = piece(dma, iova, access, &most);

	return at && bytes <= most ? at : NULL;
}

/* Under the lock: 1 where all of the range is mapped with @access, by as many mappings as it takes. */
static int covered(struct sim_dma *dma, uint64_t iova, size_t bytes, uint32_t access)
{
	for (size_t done = 0, most; done < bytes; done += most)
		if (!piece(dma, iova + done, access, &most))
			return 0;
	return 1;
}

/* Under the lock: moves @bytes between the host at @iova, which is covered, and @to or @from. */
static void move(struct sim_dma *dma, uint64_t iova, size_t bytes, uint32_t access, uint8_t *to,
		 const uint8_t *from)
{
	for (size_t done = 0, most; done < bytes; done += most) {
		uint8_t *host = piece(dma, iova + done, access, &most);

		if (most > bytes - done)
			most = bytes - done;
		if (to)
			memcpy(to + done, host, most);
		else
			memcpy(host, from + done, most);
	}
}

int mr_sim_dma_read(struct sim_dma *dma, uint64_t iova, void *to, size_t bytes)
{
	mr_sim_dma_hold(dma);
	const uint32_t access = MUTANT(D_4) ? 0 : MR_PORT_DMA_READ;
	int there = covered(dma, iova, bytes, access);
	if (there)
		move(dma, iova, bytes, access, to, NULL);
	mr_sim_dma_release(dma);
	dma->read_bytes += there ? bytes : 0;
	dma->faults += !there;
	return there ? 0 : MR_E_DMA_FAULT;
}

int mr_sim_dma_write(struct sim_dma *dma, uint64_t iova, const void *from, size_t bytes)
{
	mr_sim_dma_hold(dma);
	const uint32_t access = MUTANT(D_5) ? 0 : MR_PORT_DMA_WRITE;
	int there = covered(dma, iova, bytes, access);
	if (!there && MUTANT(D_6) && covered(dma, iova, 4, access))
		move(dma, iova, 4, access, NULL, from);
	if (there)
		move(dma, iova, bytes, access, NULL, from);
	mr_sim_dma_release(dma);
	dma->write_bytes += there ? bytes : 0;
	dma->faults += !there;
	return there ? 0 : MR_E_DMA_FAULT;
}

int mr_sim_dma_load(struct sim_dma *dma, uint64_t iova, uint32_t *word, uint32_t count)
{
	mr_sim_dma_hold(dma);
	const uint8_t *from = translate(dma, iova, count * sizeof(*word), MR_PORT_DMA_READ);
	for (uint32_t i = 0; from && i < count; i++)
		word[i] =
			__atomic_load_n((const uint32_t *)(const void *)from + i, __ATOMIC_SEQ_CST);
	mr_sim_dma_release(dma);
	dma->faults += !from;
	return from ? 0 : MR_E_DMA_FAULT;
}

int mr_sim_dma_store(struct sim_dma *dma, uint64_t iova, uint32_t word)
{
	mr_sim_dma_hold(dma);
	uint8_t *to = translate(dma, iova, sizeof(word), MR_PORT_DMA_WRITE);
	if (to)
		__atomic_store_n((uint32_t *)(void *)to, word, __ATOMIC_SEQ_CST);
	mr_sim_dma_release(dma);
	dma->faults += !to;
	return to ? 0 : MR_E_DMA_FAULT;
}

int mr_sim_dma_publish(struct sim_dma *dma, uint64_t iova, const void *entry, size_t bytes)
{
	uint32_t phase;

	mr_sim_dma_hold(dma);
	uint8_t *to = translate(dma, iova, bytes, MR_PORT_DMA_WRITE);
	if (to && MUTANT(M_1) && bytes == 32) {
		memcpy(to + bytes - 4, (const uint8_t *)entry + bytes - 4, 4);
		mr_sim_mutant_pause();
	}
	if (to) {
		memcpy(to, entry, bytes - sizeof(phase));
		memcpy(&phase, (const uint8_t *)entry + bytes - sizeof(phase), sizeof(phase));
		/* Pairs with the acquire with which the host reads a phase. */
		__atomic_store_n((uint32_t *)(void *)(to + bytes - sizeof(phase)), phase,
				 __ATOMIC_RELEASE);
	}
	mr_sim_dma_release(dma);
	dma->write_bytes += to ? bytes : 0;
	dma->faults += !to;
	return to ? 0 : MR_E_DMA_FAULT;
}
