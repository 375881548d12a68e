// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/dma.h"

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

static int overlaps(const struct sim_mapping *m, uint64_t iova, uint64_t bytes)
{
	return m->bytes && iova < m->iova + m->bytes && m->iova < iova + bytes;
}

int mr_sim_dma_map(struct sim_dma *dma, uint64_t iova, void *base, size_t bytes, uint32_t access)
{
	const uint32_t known = MR_PORT_DMA_READ | MR_PORT_DMA_WRITE;
	struct sim_mapping *free_entry = NULL;
	int status = 0;

	if (!base || !bytes || iova + bytes < iova || !access || access & ~known)
		return MR_E_INVALID;
	pthread_rwlock_wrlock(&dma->lock);
	for (int i = 0; i < SIM_DMA_MAPPINGS; i++) {
		struct sim_mapping *m = &dma->map[i];
		if (overlaps(m, iova, bytes))
			status = MR_E_EXISTS;
		if (!m->bytes && !free_entry)
			free_entry = m;
	}
	if (!status && !free_entry)
		status = MR_E_FULL;
	if (!status)
		*free_entry = (struct sim_mapping){iova, bytes, base, access};
	pthread_rwlock_unlock(&dma->lock);
	return status;
}

int mr_sim_dma_unmap(struct sim_dma *dma, uint64_t iova)
{
	int status = MR_E_NOT_FOUND;

	pthread_rwlock_wrlock(&dma->lock);
	for (int i = 0; i < SIM_DMA_MAPPINGS; i++) {
		struct sim_mapping *m = &dma->map[i];
		if (m->bytes && m->iova == iova) {
			m->bytes = 0;
			status = 0;
		}
	}
	pthread_rwlock_unlock(&dma->lock);
	return status;
}

/* Under the lock. A transfer lies within one mapping, as a region of the host's arena does. */
static uint8_t *translate(struct sim_dma *dma, uint64_t iova, size_t bytes, uint32_t access)
{
	for (int i = 0; i < SIM_DMA_MAPPINGS; i++) {
		const struct sim_mapping *m = &dma->map[i];
		if (m->bytes && iova >= m->iova && iova - m->iova < m->bytes &&
		    bytes <= m->bytes - (iova - m->iova))
			return (m->access & access) == access ? m->base + (iova - m->iova) : NULL;
	}
	return NULL;
}

int mr_sim_dma_read(struct sim_dma *dma, uint64_t iova, void *to, size_t bytes)
{
	pthread_rwlock_rdlock(&dma->lock);
	const uint8_t *from = translate(dma, iova, bytes, MR_PORT_DMA_READ);
	if (from)
		memcpy(to, from, bytes);
	pthread_rwlock_unlock(&dma->lock);
	dma->read_bytes += from ? bytes : 0;
	dma->faults += !from;
	return from ? 0 : MR_E_DMA_FAULT;
}

int mr_sim_dma_write(struct sim_dma *dma, uint64_t iova, const void *from, size_t bytes)
{
	pthread_rwlock_rdlock(&dma->lock);
	uint8_t *to = translate(dma, iova, bytes, MR_PORT_DMA_WRITE);
	if (to)
		memcpy(to, from, bytes);
	pthread_rwlock_unlock(&dma->lock);
	dma->write_bytes += to ? bytes : 0;
	dma->faults += !to;
	return to ? 0 : MR_E_DMA_FAULT;
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
