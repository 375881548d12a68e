/* SPDX-License-Identifier: Apache-2.0 */
/* Between vfio_open.c, which finds and opens the function, and vfio.c, which drives it. Nobody else's. */
#ifndef MR_DRIVER_BUS_VFIO_OWN_H
#define MR_DRIVER_BUS_VFIO_OWN_H

#include "driver/bus/vfio.h"

#define VFIO_VECTORS   64
#define VFIO_MAPS      512 /* more than an arena has regions */
#define VFIO_APERTURES 8

enum { BAR_REGISTERS, BAR_DOORBELLS, BARS };

struct vfio_bar {
	uint8_t *map; /* NULL = by pread and pwrite */
	uint64_t bytes;
	uint64_t at; /* in the device's file */
};

struct vfio_range {
	uint64_t first, last; /* both inside */
};

struct vfio {
	struct mr_bus bus;
	struct vfio_bar bar[BARS];
	int mastering;
	uint16_t command;             /* the register, without the master bit */
	int device, group, container; /* -1 = not open */
	uint64_t config_at;           /* in the device's file */
	uint32_t irq_index;
	uint32_t irq_count; /* vectors that can be asked for */
	int irq_on;
	int fd[VFIO_VECTORS]; /* -1 = not asked for yet */
	uint32_t map_count;
	struct vfio_range maps[VFIO_MAPS]; /* by first */
	uint32_t aperture_count;           /* 0 = the kernel does not say */
	struct vfio_range apertures[VFIO_APERTURES];
	uint64_t page_bytes; /* least of the IOMMU */
	struct mr_vfio_facts facts;
	char why[400];
};

extern const struct mr_bus_ops mr_vfio_ops;

/* Keeps the sentence and returns @status. */
__attribute__((format(printf, 3, 4))) int mr_vfio_fail(struct vfio *v, int status,
						       const char *format, ...);

/* Memory space on, INTx off, and mastering as @on says. */
int mr_vfio_master(struct vfio *v, int on);

#endif /* MR_DRIVER_BUS_VFIO_OWN_H */
