// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/dma.h"
#include "firmware-sim/mutant.h"

#include <string.h>

#include <millrace/lpu_port.h>

int mr_sim_dma_init(struct sim_dma *dma)
{
	return pthread_rwlock_init(&dma->lock, NULL) ? MR_E_NO_MEMORY : 0;
}

void mr_sim_dma_fini(struct sim_dma *dma)
{
	pthread_rwlock_destroy(&dma->lock);
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
	pthread_rwlock_wrlock(&dma->lock);
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
	pthread_rwlock_unlock(&dma->lock);
	return status;
}

int mr_sim_dma_unmap(struct sim_dma *dma, uint64_t iova)
{
	int status = MR_E_NOT_FOUND;

	pthread_rwlock_wrlock(&dma->lock);
	uint32_t at = below(dma, iova);
	struct sim_mapping *m = &dma->map[at];
	if (at && m[-1].iova == iova) {
		memmove(m - 1, m, (dma->count-- - at) * sizeof(*m));
		status = 0;
	}
	pthread_rwlock_unlock(&dma->lock);
	return status;
}

/* Under the lock: the host's bytes at @iova, and in *@most how many lie there side by side. */
static uint8_t *piece(struct sim_dma *dma, uint64_t iova, uint32_t access, size_t *most)
{
	uint32_t at = below(dma, iova);
	const struct sim_mapping *m = at ? &dma->map[at - 1] : NULL;

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
	pthread_rwlock_rdlock(&dma->lock);
	const uint32_t access = MUTANT(D_4) ? 0 : MR_PORT_DMA_READ;
	int there = covered(dma, iova, bytes, access);
	if (there)
		move(dma, iova, bytes, access, to, NULL);
	pthread_rwlock_unlock(&dma->lock);
	dma->read_bytes += there ? bytes : 0;
	dma->faults += !there;
	return there ? 0 : MR_E_DMA_FAULT;
}

int mr_sim_dma_write(struct sim_dma *dma, uint64_t iova, const void *from, size_t bytes)
{
	pthread_rwlock_rdlock(&dma->lock);
	const uint32_t access = MUTANT(D_5) ? 0 : MR_PORT_DMA_WRITE;
	int there = covered(dma, iova, bytes, access);
	if (!there && MUTANT(D_6) && covered(dma, iova, 4, access))
		move(dma, iova, 4, access, NULL, from);
	if (there)
		move(dma, iova, bytes, access, NULL, from);
	pthread_rwlock_unlock(&dma->lock);
	dma->write_bytes += there ? bytes : 0;
	dma->faults += !there;
	return there ? 0 : MR_E_DMA_FAULT;
}

int mr_sim_dma_load(struct sim_dma *dma, uint64_t iova, uint32_t *word, uint32_t count)
{
	pthread_rwlock_rdlock(&dma->lock);
	const uint8_t *from = translate(dma, iova, count * sizeof(*word), MR_PORT_DMA_READ);
	for (uint32_t i = 0; from && i < count; i++)
		word[i] =
			__atomic_load_n((const uint32_t *)(const void *)from + i, __ATOMIC_SEQ_CST);
	pthread_rwlock_unlock(&dma->lock);
	dma->faults += !from;
	return from ? 0 : MR_E_DMA_FAULT;
}

int mr_sim_dma_store(struct sim_dma *dma, uint64_t iova, uint32_t word)
{
	pthread_rwlock_rdlock(&dma->lock);
	uint8_t *to = translate(dma, iova, sizeof(word), MR_PORT_DMA_WRITE);
	if (to)
		__atomic_store_n((uint32_t *)(void *)to, word, __ATOMIC_SEQ_CST);
	pthread_rwlock_unlock(&dma->lock);
	dma->faults += !to;
	return to ? 0 : MR_E_DMA_FAULT;
}

int mr_sim_dma_publish(struct sim_dma *dma, uint64_t iova, const void *entry, size_t bytes)
{
	uint32_t phase;

	pthread_rwlock_rdlock(&dma->lock);
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
	pthread_rwlock_unlock(&dma->lock);
	dma->write_bytes += to ? bytes : 0;
	dma->faults += !to;
	return to ? 0 : MR_E_DMA_FAULT;
}
