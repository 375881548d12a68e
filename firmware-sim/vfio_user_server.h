/* SPDX-License-Identifier: Apache-2.0 */
/* The server's inside: vfio_user.c answers messages, vfio_user_dma.c maps, vfio_user_pci.c is the function. */
#ifndef MR_FIRMWARE_SIM_VFIO_USER_SERVER_H
#define MR_FIRMWARE_SIM_VFIO_USER_SERVER_H

#include <stdint.h>

#include "firmware-sim/vfio_user.h"
#include "userlib/spec/vfio_user.h"

#define VU_MAPS        16384u /* behind an IOMMU of the client's each may be a page of 4 KiB */
#define VU_VECTORS_MAX 64u
#define VU_BAR4_BYTES  4096u
#define VU_IN_BYTES    (MR_VU_XFER_MAX + 256u) /* the longest message that is taken */

struct vu_map {
	uint64_t iova, bytes; /* 0 bytes = free entry */
	void *base;           /* NULL: no descriptor came, so the device has no such memory */
	size_t mapped;        /* of base, for munmap */
};

/* A command on its way through. */
struct vu_message {
	struct mr_vu_header head;
	const uint8_t *in; /* payload */
	uint32_t in_bytes;
	int fds[MR_VU_FDS_MAX]; /* closed after the command; -1 = kept by whom it was for */
	uint32_t fd_count;
	uint8_t *out; /* of the reply: MR_VU_XFER_MAX + 256 bytes */
	uint32_t out_bytes;
	int out_fd; /* the server's, -1 = none */
};

struct mr_vfio_user {
	struct mr_vfio_user_options o;
	struct mr_vfio_user_stats stats;
	uint64_t bar2_bytes;
	uint32_t quiet; /* lines about refusals that are left to this connection */
	int versioned;  /* VERSION is done */
	uint8_t config[MR_PCI_CONFIG_BYTES],
		writable[MR_PCI_CONFIG_BYTES]; /* bits the client may set */
	uint8_t bar4[VU_BAR4_BYTES];
	struct vu_map map[VU_MAPS];
	int irq[VU_VECTORS_MAX]; /* eventfds, -1 = none */
	uint8_t in[VU_IN_BYTES], out[VU_IN_BYTES];
};

__attribute__((format(printf, 2, 3))) void mr_vu_say(const struct mr_vfio_user *s,
						     const char *format, ...);

/* Handlers: 0, or the errno of the reply. */
int mr_vu_version(struct mr_vfio_user *s, struct vu_message *m);

int mr_vu_dma_map(struct mr_vfio_user *s, struct vu_message *m);
int mr_vu_dma_unmap(struct mr_vfio_user *s, struct vu_message *m);
void mr_vu_dma_forget(struct mr_vfio_user *s); /* every mapping */

void mr_vu_pci_init(struct mr_vfio_user *s); /* as after power-on */
int mr_vu_region_info(struct mr_vfio_user *s, struct vu_message *m);
int mr_vu_region_read(struct mr_vfio_user *s, struct vu_message *m);
int mr_vu_region_write(struct mr_vfio_user *s, struct vu_message *m);
int mr_vu_region_write_multi(struct mr_vfio_user *s, struct vu_message *m);
int mr_vu_reset(struct mr_vfio_user *s);

int mr_vu_irq_info(struct mr_vfio_user *s, struct vu_message *m);
int mr_vu_irq_set(struct mr_vfio_user *s, struct vu_message *m);
void mr_vu_irq_forget(struct mr_vfio_user *s); /* every eventfd */

#endif /* MR_FIRMWARE_SIM_VFIO_USER_SERVER_H */
