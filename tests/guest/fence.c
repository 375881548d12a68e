// SPDX-License-Identifier: Apache-2.0
/*
 * A host by hand over a bus, without driver/lpu: registers, the admin queue, one I/O queue, FENCEs, an interrupt
 * for each. A device that can do no more than that is enough. In the guest the bus is vfio; with MR_VFIO_USER=socket
 * in the environment it is our own vfio-user client, and this program runs on the host.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver/bus/vfio.h"
#include "driver/bus/vfio_user.h"
#include "driver/mem/arena.h"
#include "tests/guest/guest.h"

#include <millrace/lpu_spec.h>
#include <millrace/status.h>

#define VENDOR  0xf00d /* of both our servers */
#define ENTRIES 8u
#define FENCES  20u /* more than two laps */
#define RECORDS 64u

struct host {
	struct mr_bus *bus;
	const struct mr_region *commands, *records;
	struct mr_lpu_command *sq[2];
	struct mr_lpu_completion *cq[2];
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

static void wait_status(struct mr_bus *bus, uint32_t want)
{
	for (int i = 0; bus->ops->reg_read(bus, MR_LPU_REG_STATUS) != want; i++) {
		CHECK(i < 5000, "STATUS is %x, not %x", bus->ops->reg_read(bus, MR_LPU_REG_STATUS),
		      want);
		usleep(1000);
	}
}

static void write64(struct mr_bus *bus, uint32_t offset, uint64_t value)
{
	bus->ops->reg_write(bus, offset, (uint32_t)value);
	bus->ops->reg_write(bus, offset + 4, (uint32_t)(value >> 32));
}

/* Arms the queue, posts, sleeps for the interrupt, takes the completion: its status as a mr_status. */
static int run(struct host *h, uint32_t queue, void *command)
{
	struct mr_lpu_completion *done = &h->cq[queue][h->head[queue] % ENTRIES];
	uint32_t phase = !(h->head[queue] / ENTRIES & 1);
	struct mr_lpu_head *head = command;

	head->request = 1000 * queue + h->tail[queue];
	memcpy(&h->sq[queue][h->tail[queue]++ % ENTRIES], command, sizeof(struct mr_lpu_command));
	h->bus->ops->doorbell(h->bus, queue, MR_LPU_DB_ARM, 1);
	h->bus->ops->reg_read(h->bus, MR_LPU_REG_STATUS);
	h->bus->ops->doorbell(h->bus, queue, MR_LPU_DB_SQ_TAIL, h->tail[queue]);
	CHECK(guest_wait(h->fd[queue], 10000), "queue %u: no interrupt", queue);
	CHECK((__atomic_load_n(&done->phase, __ATOMIC_ACQUIRE) & 1) == phase,
	      "queue %u: an interrupt without a completion", queue);
	CHECK(done->request == head->request, "queue %u: completion of request %u, not %u", queue,
	      done->request, head->request);
	int status = -(int)done->status;
	h->bus->ops->doorbell(h->bus, queue, MR_LPU_DB_CQ_HEAD, ++h->head[queue]);
	return status;
}

static struct mr_bus *open_bus(void)
{
	const struct mr_vfio_user_bus_options o = {.path = getenv("MR_VFIO_USER")};
	char address[16];
	struct mr_bus *bus;

	if (!o.path) {
		guest_bind(guest_find(VENDOR, MR_VFIO_ANY_ID, 0, address));
		return guest_open(address);
	}
	int status = mr_bus_vfio_user_open(&o, &bus);
	CHECK(!status, "%s: %s", o.path, mr_strerror(status));
	return bus;
}

void guest_fence(void)
{
	const struct mr_arena_options options = {.node = -1, .no_huge = 1, .shareable = 1};
	struct mr_arena *arena;
	struct host h = {.bus = open_bus()};
	const struct mr_arena_consumer consumer = {map, unmap, h.bus};
	struct mr_lpu_command fence = {.head.opcode = MR_LPU_FENCE}, odd = {.head.opcode = 0x7f};
	struct mr_lpu_cmd_queue_create create = {
		.head.opcode = MR_LPU_QUEUE_CREATE,
		.queue = 1,
		.entries = ENTRIES,
		.record_entries = RECORDS,
		.vector = 1,
	};

	CHECK(h.bus->ops->reg_read(h.bus, MR_LPU_REG_MAGIC) == MR_LPU_MAGIC, "MAGIC");
	CHECK(h.bus->ops->reg_read(h.bus, MR_LPU_REG_VERSION) >> 16 == MR_LPU_VERSION >> 16,
	      "VERSION");
	CHECK(!mr_arena_create(&options, &arena), "arena");
	CHECK(!mr_arena_region(arena, MR_REGION_COMMANDS, 8192, &h.commands) &&
		      !mr_arena_region(arena, MR_REGION_RECORDS, 16384, &h.records) &&
		      !mr_arena_add_consumer(arena, &consumer),
	      "regions");
	for (int q = 0; q < 2; q++) {
		h.sq[q] = (void *)((uint8_t *)h.commands->base + 4096 * q);
		h.cq[q] = (void *)((uint8_t *)h.records->base + 4096 * q);
		h.fd[q] = h.bus->ops->irq_fd(h.bus, (uint32_t)q);
		CHECK(h.fd[q] >= 0, "vector %d", q);
	}
	h.bus->ops->reg_write(h.bus, MR_LPU_REG_CONTROL, 0);
	wait_status(h.bus, 0);
	h.bus->ops->reg_write(h.bus, MR_LPU_REG_ADMIN_ENTRIES, ENTRIES);
	write64(h.bus, MR_LPU_REG_ADMIN_SQ_LO, mr_region_iova(h.commands, h.sq[0]));
	write64(h.bus, MR_LPU_REG_ADMIN_CQ_LO, mr_region_iova(h.records, h.cq[0]));
	h.bus->ops->reg_write(h.bus, MR_LPU_REG_CONTROL, MR_LPU_CONTROL_ENABLE);
	wait_status(h.bus, MR_LPU_STATUS_READY);
	int status = run(&h, 0, &odd);
	CHECK(status == MR_E_NOT_SUPPORTED, "an unknown admin command: %s", mr_status_name(status));
	guest_ok("admin queue: a command that is none is refused");
	create.sq_iova = mr_region_iova(h.commands, h.sq[1]);
	create.cq_iova = mr_region_iova(h.records, h.cq[1]);
	create.record_iova = mr_region_iova(h.records, (uint8_t *)h.records->base + 8192);
	status = run(&h, 0, &create);
	CHECK(!status, "QUEUE_CREATE: %s", mr_status_name(status));
	for (uint32_t i = 0; i < FENCES; i++) {
		status = run(&h, 1, &fence);
		CHECK(!status, "FENCE: %s", mr_status_name(status));
	}
	fence.word[3] = 1;
	status = run(&h, 1, &fence);
	CHECK(status == MR_E_INVALID, "a FENCE with a reserved word: %s", mr_status_name(status));
	guest_ok("I/O queue: %u FENCEs, each with an interrupt; one that is wrong is refused",
		 FENCES);
	h.bus->ops->reg_write(h.bus, MR_LPU_REG_CONTROL, 0);
	wait_status(h.bus, 0);
	mr_arena_remove_consumer(arena, h.bus);
	h.bus->ops->close(h.bus);
	mr_arena_destroy(arena);
}
