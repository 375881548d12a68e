// SPDX-License-Identifier: Apache-2.0
/*
 * The VFIO bus on QEMU's edu (docs/specs/edu.txt of QEMU): registers, MSI, DMA both ways with the access that
 * the map gives, an IOVA that is not mapped, bus mastering, reset. edu's DMA addresses have 28 bits.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "driver/bus/vfio.h"
#include "driver/mem/arena.h"
#include "tests/guest/guest.h"

#include <millrace/status.h>

enum {
	EDU_ID = 0x00,
	EDU_LIVENESS = 0x04,
	EDU_IRQ_STATUS = 0x24,
	EDU_IRQ_RAISE = 0x60,
	EDU_IRQ_ACK = 0x64,
	EDU_DMA_SRC = 0x80,
	EDU_DMA_DST = 0x88,
	EDU_DMA_COUNT = 0x90,
	EDU_DMA_CMD = 0x98,
	EDU_BUFFER = 0x40000,
};

#define DMA_START     1u
#define DMA_TO_HOST   2u
#define PAGE          4096u
#define BYTES         2048u /* a DMA; edu refuses one of its whole buffer */
#define IOVA_BOTH     0x100000u
#define IOVA_READ     0x200000u
#define IOVA_UNMAPPED 0x300000u
#define IOVA_GONE     0x400000u
#define INTERRUPTS    100

static void dma(struct mr_bus *bus, uint32_t src, uint32_t dst, uint32_t direction)
{
	bus->ops->reg_write(bus, EDU_DMA_SRC, src);
	bus->ops->reg_write(bus, EDU_DMA_DST, dst);
	bus->ops->reg_write(bus, EDU_DMA_COUNT, BYTES);
	bus->ops->reg_write(bus, EDU_DMA_CMD, DMA_START | direction);
	/* 100 ms by design of edu. */
	for (int i = 0; bus->ops->reg_read(bus, EDU_DMA_CMD) & DMA_START; i++) {
		CHECK(i < 2000, "edu's DMA does not end");
		usleep(5000);
	}
}

static void interrupts(struct mr_bus *bus)
{
	int fd = bus->ops->irq_fd(bus, 0);

	CHECK(fd >= 0, "irq_fd: %s", mr_bus_vfio_why(bus));
	CHECK(bus->ops->irq_fd(bus, 0) == fd, "another descriptor for the same vector");
	for (int i = 0; i < INTERRUPTS; i++) {
		bus->ops->reg_write(bus, EDU_IRQ_RAISE, 0x10);
		uint64_t count = guest_wait(fd, 2000);
		CHECK(count == 1, "interrupt %d: eventfd says %llu", i, (unsigned long long)count);
		CHECK(bus->ops->reg_read(bus, EDU_IRQ_STATUS) == 0x10, "interrupt status");
		bus->ops->reg_write(bus, EDU_IRQ_ACK, 0x10);
	}
	guest_ok("%d of %d MSI", INTERRUPTS, INTERRUPTS);
	CHECK(bus->ops->irq_fd(bus, 1) == MR_E_RANGE, "a second vector of one MSI");
}

/*
 * As when it is pulled: the root port above it does not pass its bus number on, so that its configuration space reads
 * all ones. QEMU answers 0 for memory where nobody is, real hosts all ones; a register of edu says that instead.
 */
static void set_port(const char *address, int pass)
{
	uint8_t number = pass ? (uint8_t)strtoul(address + 5, NULL, 16) : 0;
	char path[96], port[600], *slash;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s", address);
	CHECK(realpath(path, port), "no path of %s", address);
	slash = strrchr(port, '/');
	snprintf(slash, sizeof(port) - (size_t)(slash - port), "/config");
	fd = open(port, O_RDWR | O_CLOEXEC);
	CHECK(fd >= 0 && pwrite(fd, &number, 1, 0x19) == 1, "%s", port);
	close(fd);
}

static void removal(const char *address)
{
	struct mr_bus *bus = guest_open(address);

	CHECK(bus->ops->reg_read(bus, EDU_ID) == 0x010000ed && !bus->lost, "not there");
	set_port(address, 0);
	bus->ops->reg_write(bus, EDU_LIVENESS, 0);
	CHECK(bus->ops->reg_read(bus, EDU_LIVENESS) == UINT32_MAX, "liveness");
	CHECK(bus->lost == MR_E_DISCONNECTED, "lost is %d", bus->lost);
	CHECK(bus->ops->reset(bus) == MR_E_DISCONNECTED, "a reset of a function that is gone");
	guest_ok("%s", mr_bus_vfio_why(bus));
	set_port(address, 1);
	int status = bus->ops->reset(bus);
	CHECK(!status && !bus->lost, "reset: %s, lost %d", mr_bus_vfio_why(bus), bus->lost);
	CHECK(bus->ops->reg_read(bus, EDU_ID) == 0x010000ed, "not back");
	bus->ops->close(bus);
	guest_ok("it is back, and a reset finds it");
}

/* The same registers where no BAR can be mapped. */
static void by_calls(const char *address, uint8_t *page)
{
	const struct mr_vfio_options o = {
		.address = address,
		.vendor = MR_VFIO_ANY_ID,
		.device = MR_VFIO_ANY_ID,
		.by_calls = 1,
	};
	struct mr_bus *bus;
	char why[400];

	CHECK(!mr_bus_vfio_open(&o, &bus, why, sizeof(why)), "%s", why);
	CHECK(!mr_bus_vfio_facts(bus)->mapped[0], "BAR0 is mapped");
	CHECK(bus->ops->reg_read(bus, EDU_ID) == 0x010000ed, "identification");
	CHECK(bus->ops->reg_read(bus, 1 << 20) == UINT32_MAX, "a register beyond the BAR");
	CHECK(!bus->ops->dma_map(bus, IOVA_BOTH, page, PAGE, MR_DMA_READ | MR_DMA_WRITE),
	      "dma_map");
	bus->ops->reg_write(bus, EDU_LIVENESS, 0x87654321);
	CHECK(bus->ops->reg_read(bus, EDU_LIVENESS) == (uint32_t)~0x87654321, "liveness");
	memset(page, 0x33, PAGE);
	dma(bus, IOVA_BOTH, EDU_BUFFER, 0);
	memset(page, 0, PAGE);
	dma(bus, EDU_BUFFER, IOVA_BOTH, DMA_TO_HOST);
	CHECK(page[0] == 0x33 && page[BYTES - 1] == 0x33, "DMA");
	bus->ops->close(bus);
	CHECK(!(guest_command(address) & MR_VFIO_COMMAND_MASTER), "masters the bus after close");
	guest_ok("the same by system calls");
}

void guest_edu(void)
{
	uint8_t *both =
		mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *only = both + PAGE;
	char address[16];
	struct mr_bus *bus;

	CHECK(both != MAP_FAILED, "memory");
	guest_bind(guest_find(0x1234, 0x11e8, 0, address));
	bus = guest_open(address);
	const struct mr_vfio_facts *f = mr_bus_vfio_facts(bus);
	CHECK(f->function.vendor == 0x1234 && f->bar_bytes[0] == 1 << 20 && f->mapped[0] &&
		      f->bar_bytes[1] == 0 && !f->is_msix && f->vectors == 1,
	      "facts: BAR0 %llu bytes, mapped %d, %u vectors", (unsigned long long)f->bar_bytes[0],
	      f->mapped[0], f->vectors);
	CHECK(bus->ops->reg_read(bus, EDU_ID) == 0x010000ed, "identification");
	CHECK(bus->ops->reg_read(bus, 1 << 20) == UINT32_MAX, "a register beyond the BAR");
	bus->ops->reg_write(bus, EDU_LIVENESS, 0);
	CHECK(bus->ops->reg_read(bus, EDU_LIVENESS) == UINT32_MAX && !bus->lost,
	      "all ones of a device");
	guest_ok("BAR0 mapped: edu %s in group %d", address, f->place.group);

	CHECK(!(guest_command(address) & MR_VFIO_COMMAND_MASTER), "masters the bus before a map");
	memset(both, 0xa5, PAGE);
	memset(only, 0x5a, PAGE);
	int status = bus->ops->dma_map(bus, IOVA_BOTH, both, PAGE, MR_DMA_READ | MR_DMA_WRITE);
	CHECK(!status, "dma_map: %s", mr_bus_vfio_why(bus));
	status = bus->ops->dma_map(bus, IOVA_READ, only, PAGE, MR_DMA_READ);
	CHECK(!status, "dma_map: %s", mr_bus_vfio_why(bus));
	CHECK(!(guest_command(address) & MR_VFIO_COMMAND_MASTER),
	      "masters the bus with the first map");
	bus->ops->reg_write(bus, EDU_LIVENESS, 0x12345678);
	CHECK(bus->ops->reg_read(bus, EDU_LIVENESS) == (uint32_t)~0x12345678, "liveness");
	CHECK(guest_command(address) & MR_VFIO_COMMAND_MASTER, "does not master the bus");

	interrupts(bus);

	dma(bus, IOVA_READ, EDU_BUFFER, 0);
	dma(bus, EDU_BUFFER, IOVA_BOTH, DMA_TO_HOST);
	CHECK(both[0] == 0x5a && !memcmp(both, only, BYTES), "DMA: the page is not what was sent");
	guest_ok("DMA both ways");

	memset(both, 0xa5, PAGE);
	dma(bus, EDU_BUFFER, IOVA_UNMAPPED, DMA_TO_HOST);
	dma(bus, IOVA_UNMAPPED, EDU_BUFFER, 0);
	for (uint32_t i = 0; i < PAGE; i++)
		CHECK(both[i] == 0xa5 && only[i] == 0x5a,
		      "a DMA to an unmapped IOVA changed memory");
	dma(bus, IOVA_BOTH, EDU_BUFFER, 0);
	dma(bus, EDU_BUFFER, IOVA_READ, DMA_TO_HOST);
	CHECK(only[0] == 0x5a && only[BYTES - 1] == 0x5a, "a DMA wrote what it may only read");
	CHECK(bus->ops->reg_read(bus, EDU_ID) == 0x010000ed, "edu is gone after the faults");
	guest_ok("DMA to an unmapped IOVA, and to a page that may only be read, changes nothing");

	CHECK(bus->ops->dma_unmap(bus, IOVA_UNMAPPED) == MR_E_NOT_FOUND,
	      "unmapped what is not mapped");
	CHECK(!bus->ops->dma_unmap(bus, IOVA_READ), "dma_unmap: %s", mr_bus_vfio_why(bus));
	status = bus->ops->dma_map(bus, IOVA_GONE, only, PAGE, MR_DMA_READ | MR_DMA_WRITE);
	CHECK(!status, "dma_map: %s", mr_bus_vfio_why(bus));
	CHECK(!bus->ops->dma_unmap(bus, IOVA_GONE), "dma_unmap: %s", mr_bus_vfio_why(bus));
	dma(bus, EDU_BUFFER, IOVA_GONE, DMA_TO_HOST);
	CHECK(only[0] == 0x5a && only[BYTES - 1] == 0x5a, "a DMA wrote what was unmapped");
	CHECK(guest_command(address) & MR_VFIO_COMMAND_MASTER, "mastering ended with a map left");
	dma(bus, EDU_BUFFER, IOVA_BOTH, DMA_TO_HOST);
	CHECK(!bus->ops->dma_unmap(bus, IOVA_BOTH), "dma_unmap: %s", mr_bus_vfio_why(bus));
	CHECK(!(guest_command(address) & MR_VFIO_COMMAND_MASTER),
	      "masters the bus after the last map");
	memset(both, 0x77, PAGE);
	bus->ops->close(bus);
	CHECK(both[0] == 0x77, "memory changed after its map ended");
	guest_ok("bus mastering follows the maps");
	by_calls(address, both);
	removal(address);
}
