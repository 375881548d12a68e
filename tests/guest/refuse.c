// SPDX-License-Identifier: Apache-2.0
/* What the VFIO bus refuses, each by its status and a sentence that says what to do. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver/bus/vfio.h"
#include "driver/mem/arena.h"
#include "tests/guest/guest.h"

#include <millrace/status.h>

#define BYTES (1u << 20)

static void refused(const struct mr_vfio_options *o, int want, const char *says)
{
	struct mr_bus *bus;
	char why[400];
	int status = mr_bus_vfio_open(o, &bus, why, sizeof(why));

	CHECK(status == want && strstr(why, says), "%s: status %d, not %d: '%s' does not say '%s'",
	      o->address, status, want, why, says);
	guest_ok("%s (%s)", why, mr_status_name(status));
}

static void bad_maps(struct mr_bus *bus, uint8_t *memory)
{
	const uint32_t both = MR_DMA_READ | MR_DMA_WRITE;

	CHECK(bus->ops->dma_map(bus, 1ull << 60, memory, BYTES, both) == MR_E_RANGE,
	      "IOVA 2^60: %s", mr_bus_vfio_why(bus));
	guest_ok("%s", mr_bus_vfio_why(bus));
	CHECK(bus->ops->dma_map(bus, 0xfee00000, memory, BYTES, both) == MR_E_RANGE,
	      "the window of the MSI: %s", mr_bus_vfio_why(bus));
	CHECK(bus->ops->dma_map(bus, 0x100, memory, BYTES, both) == MR_E_INVALID, "half a page");
	CHECK(bus->ops->dma_map(bus, 0, memory, 0, both) == MR_E_INVALID, "no bytes");
	CHECK(bus->ops->dma_map(bus, 0, memory, BYTES, 0) == MR_E_INVALID, "no access");
	CHECK(bus->ops->dma_map(bus, UINT64_MAX - 4095, memory, BYTES, both) == MR_E_INVALID,
	      "beyond the end");
	CHECK(!bus->ops->dma_map(bus, BYTES, memory, BYTES, both), "%s", mr_bus_vfio_why(bus));
	CHECK(bus->ops->dma_map(bus, BYTES + 4096, memory, 4096, both) == MR_E_EXISTS,
	      "overlap: %s", mr_bus_vfio_why(bus));
	guest_ok("maps out of range, misaligned, empty, twice are refused");
}

/* As a user without rights, who was given the group's file by a rule of udev. */
static void without_root(const struct mr_vfio_options *o, uint8_t *memory)
{
	const struct rlimit little = {64 << 10, 64 << 10};
	const struct mr_vfio_facts *f;
	char path[64], why[400];
	struct mr_bus *bus;
	int status;

	bus = guest_open(o->address);
	f = mr_bus_vfio_facts(bus);
	snprintf(path, sizeof(path), "/dev/vfio/%d", f->place.group);
	bus->ops->close(bus);
	fflush(stdout);
	pid_t child = fork();
	if (!child) {
		CHECK(!setgid(100) && !setuid(1000) && !setrlimit(RLIMIT_MEMLOCK, &little),
		      "no user");
		refused(o, MR_E_PERMISSION, "70-millrace-vfio.rules");
		fflush(stdout);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && !status, "the user's test failed");
	CHECK(!chown(path, 0, 100) && !chmod(path, 0660), "chown");
	child = fork();
	if (!child) {
		CHECK(!setgid(100) && !setuid(1000) && !setrlimit(RLIMIT_MEMLOCK, &little),
		      "no user");
		CHECK(!mr_bus_vfio_open(o, &bus, why, sizeof(why)), "a user of the group: %s", why);
		CHECK(!bus->ops->dma_map(bus, 0, memory, 16384, MR_DMA_READ), "%s",
		      mr_bus_vfio_why(bus));
		CHECK(bus->ops->dma_map(bus, BYTES, memory, BYTES, MR_DMA_READ) == MR_E_NO_MEMORY &&
			      strstr(mr_bus_vfio_why(bus), "RLIMIT_MEMLOCK is 64 KiB"),
		      "1 MiB with 64 KiB to lock: %s", mr_bus_vfio_why(bus));
		guest_ok("%s", mr_bus_vfio_why(bus));
		bus->ops->close(bus);
		fflush(stdout);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && !status, "the user's test failed");
}

void guest_refuse(void)
{
	uint8_t *memory =
		mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char address[16], other[16], shares[40];
	struct mr_vfio_options o = {.address = address, .vendor = 0x1234, .device = 0x11e8};
	struct mr_bus *bus;

	CHECK(memory != MAP_FAILED, "memory");
	guest_find(0x1234, 0x11e8, 0, address);
	guest_bind(address);
	o.device = 0x1111;
	refused(&o, MR_E_VERSION, "1234:11e8, not the 1234:1111");
	o.device = 0x11e8;
	o.bar2_min = 8192;
	refused(&o, MR_E_TRUNCATED, "BAR2 has 0 bytes, and must have 8192");
	o.bar2_min = 0;
	bus = guest_open(address);
	refused(&o, MR_E_BUSY, "another process has it open");
	bad_maps(bus, memory);
	bus->ops->close(bus);
	without_root(&o, memory);

	/* The second edu is a function of one device with the second nvme, and so in one group with it. */
	guest_find(0x1234, 0x11e8, 1, other);
	o.address = other;
	refused(&o, MR_E_NOT_FOUND, "bind the device to vfio-pci");
	guest_bind(other);
	snprintf(shares, sizeof(shares), "%s (nvme)", guest_find(0x1b36, 0x0010, 1, address));
	refused(&o, MR_E_BUSY, "not viable: these devices share it");
	refused(&o, MR_E_BUSY, shares);
	o.address = address;
	refused(&o, MR_E_BUSY, "the kernel's driver nvme has it");
}
