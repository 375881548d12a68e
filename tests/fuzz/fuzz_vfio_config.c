// SPDX-License-Identifier: Apache-2.0
/*
 * PCI configuration space as a device made it: the walk ends, stays inside, and what it reports is within
 * what PCI allows. The bytes are copied to memory of their own size, so that a sanitizer sees each overrun.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "driver/bus/vfio_pci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int truth)
{
	if (!truth)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	struct mr_vfio_function f;
	int status;

	must(copy != NULL);
	memcpy(copy, data, size);
	status = mr_vfio_config_parse(copy, size, &f);
	must(!status || status == MR_E_TRUNCATED || status == MR_E_DISCONNECTED ||
	     status == MR_E_NOT_SUPPORTED || status == MR_E_FORMAT);
	if (!status) {
		must(size >= 64 && f.vendor != 0xffff);
		must(f.msi_vectors <= 32 && f.msix_vectors <= 2048 && f.msix_bar <= 5);
		must(!f.msi == !f.msi_vectors && !f.msix == !f.msix_vectors);
		must((!f.msi || f.msi >= 64) && (!f.msix || f.msix >= 64));
	}
	free(copy);
	return 0;
}
