/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests that run inside a QEMU guest, as its only program: init.c boots, binds devices to vfio-pci and calls the
 * tests that the kernel's command line names; run.sh starts the guest and reads what it said. Each check says one
 * line; the first that fails ends its test, and the guest with it.
 */
#ifndef MR_TESTS_GUEST_H
#define MR_TESTS_GUEST_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Prints "FAILED: ..." and leaves the guest. */
__attribute__((noreturn, format(printf, 1, 2))) void guest_fail(const char *format, ...);

#define CHECK(truth, ...)                        \
	do {                                     \
		if (!(truth))                    \
			guest_fail(__VA_ARGS__); \
	} while (0)

/* Says "ok: ..." */
__attribute__((format(printf, 1, 2))) void guest_ok(const char *format, ...);

/* The address of the @nth function (from 0) with these ids (0xffff: any device), in order; fails where none is. */
const char *guest_find(unsigned vendor, unsigned device, unsigned nth, char address[16]);

/* Takes a function from its driver and gives it to vfio-pci. */
void guest_bind(const char *address);

/* Writes @text to a file of sysfs; 0 or -1. */
int guest_write(const char *path, const char *text);

/* The function's command register, as the kernel reads it from the device. */
unsigned guest_command(const char *address);

/* The count of eventfd @fd, waited for up to @ms; 0 = none came. */
uint64_t guest_wait(int fd, int ms);

struct mr_bus;
/* Opens a bus on @address with any ids, or fails. */
struct mr_bus *guest_open(const char *address);

/* The tests. */
void guest_edu(void);    /* BARs, DMA, MSI, faults: QEMU's edu */
void guest_refuse(void); /* what cannot be opened or mapped says why */
void guest_nvme(void);   /* arena, MSI-X, FLR: QEMU's nvme */

void guest_lpu(
	void); /* the driver over VFIO decodes tests/tiny.gguf: `millrace lpu sim` behind vfio-user-pci */
void guest_fence(void); /* queues and FENCEs by hand, over vfio or, on the host, over vfio-user */
void guest_tool(void);  /* the same, opened as the tools do */
void guest_reset(void); /* function-level reset of the same */

#endif /* MR_TESTS_GUEST_H */
