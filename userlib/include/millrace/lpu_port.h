/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The in-process port: how a device that lives in the same process is reached, given at run time.
 * Made by firmware-sim (mr_sim_create) or by a vendor's model of its own; handed by tools/ to
 * driver/bus. The driver never includes or links the maker.
 *
 * It carries what PCI would: registers, doorbells, DMA, interrupts; lpu_spec.h says what they mean.
 * DMA that the device does while it has a range is done by its own thread.
 */
#ifndef MILLRACE_LPU_PORT_H
#define MILLRACE_LPU_PORT_H

#include <stddef.h>
#include <stdint.h>

#include <millrace/status.h>

#define MR_PORT_DMA_READ  1u /* the device may read host memory */
#define MR_PORT_DMA_WRITE 2u /* the device may write host memory */

struct mr_lpu_port_ops {
	/* BAR0, aligned 32-bit accesses at byte @offset. Any thread. */
	uint32_t (*reg_read)(void *ctx, uint32_t offset);
	void (*reg_write)(void *ctx, uint32_t offset, uint32_t value);
	/*
	 * BAR2: @value to byte @offset (MR_LPU_DB_*) of @queue's page. Everything that the caller
	 * wrote before is visible to the device when it sees the value. Never waits; wakes a device
	 * thread that sleeps. One thread at a time for one queue.
	 */
	void (*doorbell)(void *ctx, uint32_t queue, uint32_t offset, uint32_t value);
	/*
	 * Lets the device use [@base, @base + @bytes) at [@iova, @iova + @bytes) with @access
	 * (MR_PORT_DMA_*, 1 or more). The memory must stay until dma_unmap returns. Returns 0,
	 * MR_E_INVALID (empty, wraps round, access), MR_E_EXISTS (overlaps another) or MR_E_FULL
	 * (no entry free). dma_unmap takes out the mapping that starts at @iova, after any DMA
	 * under way; 0 or MR_E_NOT_FOUND. Any thread; not on the data path.
	 */
	int (*dma_map)(void *ctx, uint64_t iova, void *base, size_t bytes, uint32_t access);
	int (*dma_unmap)(void *ctx, uint64_t iova);
	/*
	 * The device adds 1 to eventfd @fd when it raises @vector; -1 = nowhere. The descriptor
	 * stays the caller's and must outlive its use, which has ended for the one before once this
	 * returns. 0 or MR_E_RANGE.
	 */
	int (*irq)(void *ctx, uint32_t vector, int fd);
	/*
	 * Function-level reset: the device is as after power-on (registers, queues, features, program),
	 * but for what lpu_spec.h counts since power-on. DMA mappings and interrupts stay. Returns when
	 * it is done and no DMA of before will follow: 0, MR_E_TIMEOUT, or MR_E_NOT_SUPPORTED.
	 */
	int (*reset)(void *ctx);
	/* Stops the device and frees it; no call on it may be under way. */
	void (*close)(void *ctx);
};

struct mr_lpu_port {
	const struct mr_lpu_port_ops *ops;
	void *ctx;
};

#endif /* MILLRACE_LPU_PORT_H */
