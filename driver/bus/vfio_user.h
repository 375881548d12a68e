/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus to a device behind a socket, by the published vfio-user protocol (userlib/spec/vfio_user.h). Opened by
 * tools/ and tests, used by driver/lpu.
 *
 * Registers are messages, doorbells plain stores into a page of BAR2 that the server shares and polls (or
 * messages, where it shares none). Memory goes over as descriptors: it must come from an arena made with
 * `shareable`. Every wait has an end. The server is not trusted: replies are checked, and one that cannot be,
 * or does not come, ends the connection: then registers read all ones, mr_bus.lost says why, interrupt
 * descriptors become readable, so that whoever sleeps looks, and reset connects anew.
 */
#ifndef MR_DRIVER_BUS_VFIO_USER_H
#define MR_DRIVER_BUS_VFIO_USER_H

#include <stddef.h>
#include <stdint.h>

struct mr_bus;

struct mr_vfio_user_bus_options {
	const char *path;        /* of the server's socket; copied */
	uint32_t timeout_ms;     /* for a reply, 0 = 5000 */
	uint16_t vendor, device; /* which PCI function is wanted; 0 = any */
	char *why; /* where open fails: one sentence that says what to do; may be NULL */
	size_t why_bytes;
};

/*
 * Returns 0, MR_E_NOT_FOUND (no server there), MR_E_DISCONNECTED, MR_E_TIMEOUT, MR_E_PROTOCOL, MR_E_VERSION,
 * MR_E_NOT_SUPPORTED (another device, or one without what is needed), MR_E_INVALID (path), MR_E_IO or
 * MR_E_NO_MEMORY.
 */
int mr_bus_vfio_user_open(const struct mr_vfio_user_bus_options *options, struct mr_bus **bus);

#endif /* MR_DRIVER_BUS_VFIO_USER_H */
