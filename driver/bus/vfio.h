/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus to a real PCI function, through the kernel's VFIO: group and container, type-1 v2 IOMMU. The
 * function must be bound to vfio-pci. Called by tools/ and by programs that embed the driver.
 *
 * The device may master the bus only while something is mapped: the command register's bit is set by the
 * first reg_write after a dma_map, so after the queues' memory is mapped and before the device is told of
 * it, and cleared first of all in reset and close, and before the last mapping goes. After a reset whoever
 * called it brings the device up again, which begins with a reg_write.
 *
 * A register that reads all ones makes the bus look whether the function is still there; where not, mr_bus.lost is
 * MR_E_DISCONNECTED until a reset finds it again.
 */
#ifndef MR_DRIVER_BUS_VFIO_H
#define MR_DRIVER_BUS_VFIO_H

#include "driver/bus/bus.h"
#include "driver/bus/vfio_pci.h"

struct mr_vfio_options {
	const char *address;         /* "0000:01:00.0"; the domain may be left out */
	uint16_t vendor, device;     /* what it must be; MR_VFIO_ANY_ID = any */
	uint64_t bar0_min, bar2_min; /* bytes that BAR0 and BAR2 must have; 0 = may be missing */
	int by_calls;      /* 1 = map no BAR, as where the kernel does not let one be mapped */
	const char *sysfs; /* NULL = "/sys" */
	const char *dev;   /* NULL = "/dev/vfio" */
};

struct mr_vfio_facts {
	struct mr_vfio_place place;
	struct mr_vfio_function function;
	uint64_t bar_bytes[2]; /* of BAR0 and BAR2 */
	int mapped[2];         /* 0 = reached by system calls: slow, but the same */
	uint32_t vectors;      /* of MSI-X, else MSI; 0 = no interrupts */
	int is_msix;
	int can_reset; /* the kernel knows a way to reset it alone */
};

/*
 * Opens the function. Returns 0 or, with one sentence in @why (@why_bytes) that says what to do about it:
 *   MR_E_INVALID        not an address
 *   MR_E_NOT_FOUND      no such function; no driver has it; no /dev/vfio
 *   MR_E_BUSY           another kernel driver has it or a function of its group; another process has the group
 *   MR_E_PERMISSION     this user may not open the group
 *   MR_E_NOT_SUPPORTED  no IOMMU, no type-1 v2, a bridge
 *   MR_E_VERSION        another vendor or device id; another VFIO
 *   MR_E_TRUNCATED      a BAR is smaller than it must be
 *   MR_E_FORMAT         its configuration space makes no sense
 *   MR_E_DISCONNECTED   it answers all ones
 *   MR_E_IO             the kernel said something else
 *   MR_E_NO_MEMORY
 */
int mr_bus_vfio_open(const struct mr_vfio_options *options, struct mr_bus **bus, char *why,
		     size_t why_bytes);

/* What was found out at open; lives as long as @bus. */
const struct mr_vfio_facts *mr_bus_vfio_facts(const struct mr_bus *bus);

/*
 * Why the last dma_map, irq_fd or reset of @bus failed, as a sentence that says what to do; "" = none has.
 * dma_map: MR_E_NO_MEMORY (RLIMIT_MEMLOCK), MR_E_RANGE (outside what the IOMMU translates), MR_E_EXISTS,
 * MR_E_FULL, MR_E_INVALID, MR_E_IO. irq_fd: MR_E_RANGE, MR_E_IO. reset: MR_E_NOT_SUPPORTED, MR_E_DISCONNECTED, MR_E_IO.
 */
const char *mr_bus_vfio_why(const struct mr_bus *bus);

#endif /* MR_DRIVER_BUS_VFIO_H */
