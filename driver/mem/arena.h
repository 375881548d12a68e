/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena: all memory that a device, a NIC or a compute thread touches on the data path, pinned at
 * start and mapped once for each consumer.
 *
 * Concepts
 *   arena     one NUMA node's memory, in regions.
 *   region    a contiguous, page-aligned range with one role; named by its id, placed at one IOVA that
 *             is the same for every consumer. A buffer is named by IOVA (or region id and offset),
 *             never by pointer, across any boundary.
 *   role      what a region is for, which fixes the access each consumer is given (table below).
 *   consumer  something that maps regions: a device through its bus, DPDK, CUDA. It is told of every
 *             region that exists when it is added and of every one made later.
 *
 *   role      | device access | written by
 *   COMMANDS  | read          | driver: queues' submission entries, parameter blocks
 *   WEIGHTS   | read          | driver at load: program containers on their way to SRAM
 *   KV        | read          | CPU or GPU prefill: KV blocks on their way to the decode device
 *   RECORDS   | read, write   | device: completions and token records
 *   READBACK  | read, write   | device: logits, logs, KV_READ
 *   PACKETS   | none          | NIC: DPDK's mempool
 *
 * Pages are the best the host grants (1 GiB, 2 MiB, 4 KiB), bound to the node by libnuma, populated,
 * locked and verified. What an unprivileged run is not granted is one log line and a counter, never an
 * error. Setup calls are for one thread and may allocate and log; lookups are for any thread.
 */
#ifndef MR_DRIVER_MEM_ARENA_H
#define MR_DRIVER_MEM_ARENA_H

#include <stddef.h>
#include <stdint.h>

enum mr_region_role {
	MR_REGION_COMMANDS,
	MR_REGION_WEIGHTS,
	MR_REGION_KV,
	MR_REGION_RECORDS,
	MR_REGION_READBACK,
	MR_REGION_PACKETS,
	MR_REGION_ROLES
};

#define MR_DMA_READ  1u /* the consumer may read host memory */
#define MR_DMA_WRITE 2u /* the consumer may write host memory */

struct mr_region {
	void *base;
	uint64_t iova;       /* page-aligned, non-zero, below 2^48 */
	size_t bytes;        /* rounded up to the page size */
	uint32_t id;         /* index of the region in its arena, from 0 */
	uint32_t page_bytes; /* 4096, 2 MiB or 1 GiB: what the host granted */
	enum mr_region_role role;
};

struct mr_arena;

struct mr_arena_options {
	int node;        /* NUMA node, -1 = the node of the calling thread */
	int no_huge;     /* 1 = 4 KiB pages only */
	int shareable;   /* 1 = every region over a memfd, for a device in another process */
	size_t page_max; /* 0 = best granted; else the largest page size to try, bytes */
	void (*log)(void *arg, const char *line); /* NULL = silent; called at setup only */
	void *log_arg;
};

/* A consumer's two calls. @access is MR_DMA_*; returns 0 or a negative mr_status. */
struct mr_arena_consumer {
	int (*map)(void *ctx, const struct mr_region *region, uint32_t access);
	void (*unmap)(void *ctx, const struct mr_region *region);
	void *ctx;
};

/*
 * Makes an empty arena. Returns 0, MR_E_NO_MEMORY, or MR_E_INVALID for a node that does not exist.
 * mr_arena_destroy unmaps every consumer, then frees every region; NULL is allowed.
 */
int mr_arena_create(const struct mr_arena_options *options, struct mr_arena **arena);
void mr_arena_destroy(struct mr_arena *arena);

/*
 * Adds a zeroed region of at least @bytes and maps it for every consumer. The region lives until
 * the arena is destroyed. Returns 0, MR_E_INVALID (0 bytes, bad role), MR_E_NO_MEMORY, or what a
 * consumer's map said.
 */
int mr_arena_region(struct mr_arena *arena, enum mr_region_role role, size_t bytes,
		    const struct mr_region **region);

/*
 * Adds a consumer (copied) and maps every region for it but PACKETS. Returns 0, its map's status, or
 * MR_E_FULL (16 consumers).
 */
int mr_arena_add_consumer(struct mr_arena *arena, const struct mr_arena_consumer *consumer);
/* Unmaps and forgets the consumer added with @ctx; unknown is allowed. */
void mr_arena_remove_consumer(struct mr_arena *arena, const void *ctx);

/* The DMA access that a role gives to devices: MR_DMA_* bits. */
uint32_t mr_role_access(enum mr_region_role role);

/* Host address of [@iova, @iova + @bytes), or NULL where that is not inside one region. Any thread. */
void *mr_arena_at(const struct mr_arena *arena, uint64_t iova, size_t bytes);

/* IOVA of a pointer inside @region; the pointer is assumed to be inside. */
static inline uint64_t mr_region_iova(const struct mr_region *region, const void *p)
{
	return region->iova + (uint64_t)((const char *)p - (const char *)region->base);
}

/* The arena's NUMA node. */
int mr_arena_node(const struct mr_arena *arena);

#endif /* MR_DRIVER_MEM_ARENA_H */
