/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host says about a PCI function, taken apart: its configuration space, and its place in sysfs.
 * Pure readers of bytes and of a tree of files, for driver/bus/vfio.c and its callers in tools/. A device
 * fills its own configuration space, so nothing of it is trusted.
 */
#ifndef MR_DRIVER_BUS_VFIO_PCI_H
#define MR_DRIVER_BUS_VFIO_PCI_H

#include <stddef.h>
#include <stdint.h>

#define MR_VFIO_CONFIG_BYTES   256u
#define MR_VFIO_COMMAND        0x04u
#define MR_VFIO_CLASS          0x08u /* and the revision */
#define MR_VFIO_COMMAND_MEMORY 0x002u
#define MR_VFIO_COMMAND_MASTER 0x004u
#define MR_VFIO_COMMAND_NOINTX 0x400u
#define MR_VFIO_ANY_ID         0xffffu

/* A function's configuration space. Offsets of capabilities are 0 where there is none. */
struct mr_vfio_function {
	uint16_t vendor, device, command;
	uint8_t msi, msix, express;
	uint8_t flr;           /* 1 = it says that it can reset itself (PCI Express or AF) */
	uint16_t msi_vectors;  /* that it could raise; 0 = no MSI */
	uint16_t msix_vectors; /* entries of its table; 0 = no MSI-X */
	uint8_t msix_bar;
	uint32_t msix_offset; /* of the table in that BAR */
};

/*
 * Reads @bytes of configuration space. Returns 0; MR_E_TRUNCATED (less than a header of 64 bytes);
 * MR_E_DISCONNECTED (all ones: nothing answers any more); MR_E_NOT_SUPPORTED (a bridge); MR_E_FORMAT (a list of
 * capabilities that runs in a circle or out of bounds).
 */
int mr_vfio_config_parse(const uint8_t *config, size_t bytes, struct mr_vfio_function *out);

/* Where a function stands on this host. */
struct mr_vfio_place {
	char address[20]; /* "0000:01:00.0" */
	char driver[32];  /* of the kernel; "" = none */
	int group;        /* IOMMU group; -1 = none, so no IOMMU translates for it */
	int node;         /* NUMA node; -1 = the firmware does not say */
};

/*
 * Finds @address ("0000:01:00.0", or "01:00.0" in domain 0) below @sysfs ("/sys"). Returns 0, MR_E_INVALID (not
 * an address) or MR_E_NOT_FOUND.
 */
int mr_vfio_find(const char *sysfs, const char *address, struct mr_vfio_place *out);

/*
 * Writes into @text which functions of IOMMU group @group have a kernel driver that is not vfio-pci:
 * "0000:00:1f.2 (ahci), ..."; as many as @bytes hold. Returns how many there are, or MR_E_NOT_FOUND.
 */
int mr_vfio_group_others(const char *sysfs, int group, char *text, size_t bytes);

#endif /* MR_DRIVER_BUS_VFIO_PCI_H */
