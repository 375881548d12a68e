/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The IOVA map: what of the host's memory the device may touch, and how. Host threads map and unmap
 * (they may wait: set-up calls); the device's thread moves bytes and faults on all else.
 */
#ifndef MR_FIRMWARE_SIM_DMA_H
#define MR_FIRMWARE_SIM_DMA_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_DMA_MAPPINGS 16384 /* behind a client's IOMMU each may be a page of 4 KiB */

struct sim_mapping {
	uint64_t iova;
	uint64_t bytes;
	uint8_t *base;
	uint32_t access; /* MR_PORT_DMA_* */
};

struct sim_dma {
	pthread_mutex_t lock;  /* one host thread at a time changes the map */
	uint32_t held, wanted; /* dma.c: held while bytes move, so that unmap waits for them */
	uint32_t count;
	uint32_t last;                            /* the device thread's: which mapping it used */
	struct sim_mapping map[SIM_DMA_MAPPINGS]; /* in order of IOVA, without overlap */
	uint64_t faults, read_bytes, write_bytes; /* the device thread's */
};

int mr_sim_dma_init(struct sim_dma *dma);
void mr_sim_dma_fini(struct sim_dma *dma);
/* Any thread; as struct mr_lpu_port_ops says. */
int mr_sim_dma_map(struct sim_dma *dma, uint64_t iova, void *base, size_t bytes, uint32_t access);
int mr_sim_dma_unmap(struct sim_dma *dma, uint64_t iova);

/* A host's thread keeps the device's from the map, and from its interrupts' descriptors; and lets it go on. */
void mr_sim_dma_lock(struct sim_dma *dma);
void mr_sim_dma_unlock(struct sim_dma *dma);
/* The device's thread, around each use of them. */
void mr_sim_dma_hold(struct sim_dma *dma);
void mr_sim_dma_release(struct sim_dma *dma);

/*
 * Host to device, device to host: 0 or MR_E_DMA_FAULT, and then nothing was moved. A transfer may run over
 * several mappings, if there is no gap between them.
 */
int mr_sim_dma_read(struct sim_dma *dma, uint64_t iova, void *to, size_t bytes);
int mr_sim_dma_write(struct sim_dma *dma, uint64_t iova, const void *from, size_t bytes);
/*
 * @count 32-bit words of host memory in order, or one, each access sequentially consistent: for words that
 * both sides watch. They are not counted as bytes moved.
 */
int mr_sim_dma_load(struct sim_dma *dma, uint64_t iova, uint32_t *word, uint32_t count);
int mr_sim_dma_store(struct sim_dma *dma, uint64_t iova, uint32_t word);
/*
 * Writes an entry whose last 32-bit word is a phase: that word last, with release, so that whoever reads it
 * with acquire sees the rest. @iova is a multiple of @bytes, so that the entry lies within one page.
 */
int mr_sim_dma_publish(struct sim_dma *dma, uint64_t iova, const void *entry, size_t bytes);

#endif /* MR_FIRMWARE_SIM_DMA_H */
