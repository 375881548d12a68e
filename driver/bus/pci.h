/* SPDX-License-Identifier: Apache-2.0 */
/* A PCI function's configuration space, read through whatever bus gives access to it: is it an LPU, and where is
 * its MSI-X? */
#ifndef MR_DRIVER_BUS_PCI_H
#define MR_DRIVER_BUS_PCI_H

#include <stddef.h>
#include <stdint.h>

/* Access to configuration space at byte @at: 0 or a negative mr_status. */
struct mr_pci_config {
	int (*read)(void *arg, uint32_t at, void *to, uint32_t bytes);
	int (*write)(void *arg, uint32_t at, const void *from, uint32_t bytes);
	void *arg;
};

struct mr_pci_function {
	uint16_t vendor, device;
	uint32_t class_code;
	uint32_t msix_at; /* of the capability */
	uint32_t vectors; /* of MSI-X */
	uint32_t table_bar, table_at;
};

/*
 * Reads what there is. @vendor and @device: which function is wanted, 0 = any. 0, MR_E_NOT_FOUND (nothing
 * answers), MR_E_NOT_SUPPORTED (another device, no MSI-X), MR_E_PROTOCOL (a list of capabilities that cannot be)
 * or what @config said; with a sentence in @why, which may be NULL.
 */
int mr_pci_read(const struct mr_pci_config *config, uint16_t vendor, uint16_t device,
		struct mr_pci_function *out, char *why, size_t why_bytes);

/* Memory decoding, MSI-X, and bus mastering last: from then on the function may do DMA. */
int mr_pci_enable(const struct mr_pci_config *config, const struct mr_pci_function *function);

#endif /* MR_DRIVER_BUS_PCI_H */
