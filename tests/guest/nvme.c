// SPDX-License-Identifier: Apache-2.0
/*
 * The VFIO bus with an arena on QEMU's nvme: queues in regions at the arena's IOVAs, with the access of their
 * roles, two vectors of MSI-X, and a function-level reset, after which all of it works again. Registers and
 * commands: NVM Express base specification, 3.1 and 5.
 */
#include <string.h>
#include <unistd.h>

#include "driver/bus/vfio.h"
#include "driver/mem/arena.h"
#include "tests/guest/guest.h"

#include <millrace/status.h>

enum {
	NVME_CAP_HI = 0x04,
	NVME_CC = 0x14,
	NVME_CSTS = 0x1c,
	NVME_AQA = 0x24,
	NVME_ASQ = 0x28,
	NVME_ACQ = 0x30,
	NVME_DOORBELLS = 0x1000, /* SQ0 tail, CQ0 head, SQ1 tail, CQ1 head, ... */
};

#define ENTRIES 4u

struct command {
	uint32_t dw0, nsid, reserved[4];
	uint64_t prp1, prp2;
	uint32_t dw10, dw11, dw12, rest[3];
};
_Static_assert(sizeof(struct command) == 64, "as the specification says");

struct completion {
	uint32_t dw0, reserved, sq, status; /* status: phase in bit 16, code above */
};

struct rig {
	struct mr_bus *bus;
	const struct mr_region *commands, *records;
	struct command *sq[2];
	struct completion *cq[2];
	uint32_t tail[2], head[2];
	int fd[2];
};

static int map(void *ctx, const struct mr_region *region, uint32_t access)
{
	struct mr_bus *bus = ctx;

	return bus->ops->dma_map(bus, region->iova, region->base, region->bytes, access);
}

static void unmap(void *ctx, const struct mr_region *region)
{
	struct mr_bus *bus = ctx;

	bus->ops->dma_unmap(bus, region->iova);
}

static void wait_ready(struct mr_bus *bus, uint32_t want)
{
	for (int i = 0; (bus->ops->reg_read(bus, NVME_CSTS) & 1) != want; i++) {
		CHECK(i < 2000, "nvme does not become ready or unready");
		usleep(1000);
	}
}

static void write64(struct mr_bus *bus, uint32_t offset, uint64_t value)
{
	bus->ops->reg_write(bus, offset, (uint32_t)value);
	bus->ops->reg_write(bus, offset + 4, (uint32_t)(value >> 32));
}

static void enable(struct rig *r)
{
	memset(r->cq[0], 0, 2 * ENTRIES * sizeof(struct completion));
	memset(r->tail, 0, sizeof(r->tail));
	memset(r->head, 0, sizeof(r->head));
	r->bus->ops->reg_write(r->bus, NVME_AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1));
	write64(r->bus, NVME_ASQ, mr_region_iova(r->commands, r->sq[0]));
	write64(r->bus, NVME_ACQ, mr_region_iova(r->records, r->cq[0]));
	r->bus->ops->reg_write(r->bus, NVME_CC, 4 << 20 | 6 << 16 | 1);
	wait_ready(r->bus, 1);
}

/* Posts and waits for the queue's interrupt; the completion's status code. */
static uint32_t run(struct rig *r, int queue, struct command command)
{
	struct completion *done = &r->cq[queue][r->head[queue] % ENTRIES];
	uint32_t phase = !(r->head[queue] / ENTRIES & 1);

	r->sq[queue][r->tail[queue]++ % ENTRIES] = command;
	r->bus->ops->reg_write(r->bus, NVME_DOORBELLS + 8 * (uint32_t)queue,
			       r->tail[queue] % ENTRIES);
	CHECK(guest_wait(r->fd[queue], 3000) >= 1, "queue %d: no interrupt of vector %d", queue,
	      queue);
	uint32_t status = __atomic_load_n(&done->status, __ATOMIC_ACQUIRE);
	CHECK((status >> 16 & 1) == phase, "queue %d: an interrupt without a completion", queue);
	r->head[queue]++;
	r->bus->ops->reg_write(r->bus, NVME_DOORBELLS + 8 * (uint32_t)queue + 4,
			       r->head[queue] % ENTRIES);
	return status >> 17;
}

static uint32_t identify(struct rig *r, uint64_t iova)
{
	return run(r, 0, (struct command){.dw0 = 0x06, .prp1 = iova, .dw10 = 1});
}

static void io_queue(struct rig *r)
{
	uint32_t code;

	code = run(r, 0,
		   (struct command){.dw0 = 0x05,
				    .prp1 = mr_region_iova(r->records, r->cq[1]),
				    .dw10 = (ENTRIES - 1) << 16 | 1,
				    .dw11 = 1 << 16 | 3}); /* vector 1, armed, contiguous */
	CHECK(!code, "create completion queue: %x", code);
	code = run(r, 0,
		   (struct command){.dw0 = 0x01,
				    .prp1 = mr_region_iova(r->commands, r->sq[1]),
				    .dw10 = (ENTRIES - 1) << 16 | 1,
				    .dw11 = 1 << 16 | 1});
	CHECK(!code, "create submission queue: %x", code);
	code = run(r, 1, (struct command){.dw0 = 0x00, .nsid = 1}); /* flush */
	CHECK(!code, "flush: %x", code);
}

void guest_nvme(void)
{
	const struct mr_arena_options options = {.node = -1, .no_huge = 1};
	char address[16];
	struct mr_arena *arena;
	struct rig r = {0};

	guest_bind(guest_find(0x1b36, 0x0010, 0, address));
	r.bus = guest_open(address);
	const struct mr_arena_consumer consumer = {map, unmap, r.bus};
	const struct mr_vfio_facts *f = mr_bus_vfio_facts(r.bus);
	CHECK(f->is_msix && f->vectors > 1 && f->can_reset && f->function.flr,
	      "facts: %u vectors, MSI-X %d, can be reset %d, FLR %d", f->vectors, f->is_msix,
	      f->can_reset, f->function.flr);
	CHECK(!mr_arena_create(&options, &arena), "arena");
	CHECK(!mr_arena_region(arena, MR_REGION_COMMANDS, 16384, &r.commands), "commands");
	CHECK(!mr_arena_add_consumer(arena, &consumer), "add: %s", mr_bus_vfio_why(r.bus));
	CHECK(!mr_arena_region(arena, MR_REGION_RECORDS, 16384, &r.records), "records: %s",
	      mr_bus_vfio_why(r.bus));
	for (int i = 0; i < 2; i++) {
		r.sq[i] = (void *)((uint8_t *)r.commands->base + 4096 * i);
		r.cq[i] = (void *)((uint8_t *)r.records->base + 4096 * i);
		r.fd[i] = r.bus->ops->irq_fd(r.bus, (uint32_t)i);
		CHECK(r.fd[i] >= 0, "vector %d: %s", i, mr_bus_vfio_why(r.bus));
	}
	uint8_t *page = (uint8_t *)r.records->base + 8192;
	uint8_t *only = (uint8_t *)r.commands->base + 8192;
	r.bus->ops->reg_write(r.bus, NVME_CC, 0);
	wait_ready(r.bus, 0);
	for (int lap = 0; lap < 2; lap++) {
		enable(&r);
		memset(page, 0, 4096);
		memset(only, 0x5a, 4096);
		CHECK(!identify(&r, mr_region_iova(r.records, page)), "identify failed");
		CHECK(page[0] == 0x36 && page[1] == 0x1b, "identify: vendor %02x%02x", page[1],
		      page[0]);
		io_queue(&r);
		guest_ok("queues in the arena at IOVA 0x%llx, vectors 0 and 1 of %u of MSI-X",
			 (unsigned long long)r.commands->iova, f->vectors);
		uint32_t code = identify(&r, mr_region_iova(r.commands, only));
		for (int i = 0; i < 4096; i++)
			CHECK(only[i] == 0x5a, "the device wrote a region of commands (status %x)",
			      code);
		guest_ok("a region of commands cannot be written by the device");
		int status = r.bus->ops->reset(r.bus);
		CHECK(!status, "reset: %s", mr_bus_vfio_why(r.bus));
		CHECK(!(r.bus->ops->reg_read(r.bus, NVME_CC) & 1) &&
			      !(r.bus->ops->reg_read(r.bus, NVME_CSTS) & 1),
		      "enabled after a reset");
		CHECK(!(guest_command(address) & MR_VFIO_COMMAND_MASTER),
		      "masters the bus after a reset");
		guest_ok("function-level reset %d", lap + 1);
	}
	mr_arena_remove_consumer(arena, r.bus);
	r.bus->ops->close(r.bus);
	mr_arena_destroy(arena);
}
