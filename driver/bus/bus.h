/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a device is reached: registers, doorbells, DMA mappings, interrupts. One implementation a way:
 * local.c (a device in this process, through struct mr_lpu_port), vfio_user.c (one behind a socket), vfio.c (a
 * PCI function). What the registers mean is lpu_spec.h's and driver/lpu's business.
 *
 * reg_read, reg_write and doorbell may be called from the one thread that owns the device; doorbell is
 * for the data path and never waits. The others are set-up calls.
 */
#ifndef MR_DRIVER_BUS_BUS_H
#define MR_DRIVER_BUS_BUS_H

#include <stddef.h>
#include <stdint.h>

struct mr_lpu_port;
struct mr_bus;

struct mr_bus_ops {
	uint32_t (*reg_read)(struct mr_bus *bus, uint32_t offset);
	/* Posted: a reg_read after it returns when the device has it, doorbells included. */
	void (*reg_write)(struct mr_bus *bus, uint32_t offset, uint32_t value);
	/* Everything written to DMA memory before is visible to the device when it sees @value. */
	void (*doorbell)(struct mr_bus *bus, uint32_t queue, uint32_t offset, uint32_t value);
	/* @access: MR_DMA_* of driver/mem/arena.h. 0 or a negative mr_status. */
	int (*dma_map)(struct mr_bus *bus, uint64_t iova, void *base, size_t bytes,
		       uint32_t access);
	int (*dma_unmap)(struct mr_bus *bus, uint64_t iova);
	/* An eventfd (non-blocking, the bus's) that counts @vector's interrupts; or a negative mr_status. */
	int (*irq_fd)(struct mr_bus *bus, uint32_t vector);
	/*
	 * Function-level reset, as struct mr_lpu_port_ops says. On a bus whose device went away it looks for
	 * it anew first, for 2 s. May sleep. 0, or a negative mr_status; `lost` then says whether any access
	 * will work.
	 */
	int (*reset)(struct mr_bus *bus);
	void (*close)(struct mr_bus *bus); /* frees the bus, and the device behind a port */
};

struct mr_bus {
	const struct mr_bus_ops *ops;
	/*
	 * 0, or the status with which the bus gave the device up (MR_E_DISCONNECTED, MR_E_TIMEOUT,
	 * MR_E_PROTOCOL): registers read all ones from then on. Any thread: relaxed atomics.
	 */
	int32_t lost;
};

/* A bus over @port (copied). The port is the bus's to close once this succeeds. 0 or MR_E_NO_MEMORY. */
int mr_bus_local_open(const struct mr_lpu_port *port, struct mr_bus **bus);

#endif /* MR_DRIVER_BUS_BUS_H */
