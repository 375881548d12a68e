// SPDX-License-Identifier: Apache-2.0
/*
 * The vfio-user bus against tests/conformance/vfio_user_server.py, a device written from the two documents
 * alone: bring-up, admin queue, a FENCE on an I/O queue with its interrupt.
 */
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <millrace/lpu_spec.h>

#include "driver/bus/bus.h"
#include "driver/bus/vfio_user.h"
#include "driver/mem/arena.h"

#define ENTRIES 4u
#define WAIT_MS 20000

struct ring {
	struct mr_lpu_command sq[ENTRIES];
	struct mr_lpu_completion cq[ENTRIES] __attribute__((aligned(64)));
};

static char folder[32], path[64];
static pid_t server;
static struct mr_arena *arena;
static struct mr_bus *bus;
static const struct mr_region *region;
static struct ring *rings; /* of queue 0 and 1 */
static uint32_t tail[2], head[2];

static void nap(void)
{
	const struct timespec t = {.tv_nsec = 100000};

	nanosleep(&t, NULL);
}

static void start(const char *option)
{
	struct mr_vfio_user_bus_options o = {.path = path, .timeout_ms = WAIT_MS};
	const struct mr_arena_options a = {.node = -1, .no_huge = 1, .shareable = 1};
	int status = MR_E_NOT_FOUND;

	strcpy(folder, "/tmp/mr-py-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/s", folder);
	server = fork();
	if (!server) {
		execlp("python3", "python3", MR_TEST_DATA "/conformance/vfio_user_server.py", path,
		       option, NULL);
		_exit(127);
	}
	for (int i = 0; status == MR_E_NOT_FOUND && i < WAIT_MS * 10; i++) {
		nap();
		status = mr_bus_vfio_user_open(&o, &bus);
	}
	assert_int_equal(status, 0);
	assert_int_equal(mr_arena_create(&a, &arena), 0);
	assert_int_equal(mr_arena_region(arena, MR_REGION_RECORDS, 16384, &region), 0);
	assert_int_equal(bus->ops->dma_map(bus, region->iova, region->base, region->bytes, 3), 0);
	rings = region->base;
	memset(tail, 0, sizeof(tail));
	memset(head, 0, sizeof(head));
}

static int stop(void **state)
{
	if (bus)
		bus->ops->close(bus);
	bus = NULL;
	mr_arena_destroy(arena);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	unlink(path);
	rmdir(folder);
	return 0;
}

static void reg_is(uint32_t at, uint32_t want)
{
	for (int i = 0; bus->ops->reg_read(bus, at) != want; i++) {
		assert_true(i < WAIT_MS * 10);
		nap();
	}
}

/* Posts and waits: the status as a negative mr_status. */
static int run(uint32_t q, const void *command, uint32_t *result)
{
	const struct mr_lpu_completion *c = &rings[q].cq[head[q] % ENTRIES];
	const struct mr_lpu_head *h = command;

	memcpy(&rings[q].sq[tail[q]++ % ENTRIES], command, 64);
	bus->ops->doorbell(bus, q, MR_LPU_DB_SQ_TAIL, tail[q]);
	for (int i = 0;
	     (__atomic_load_n(&c->phase, __ATOMIC_ACQUIRE) & 1) != !(head[q] / ENTRIES & 1); i++) {
		assert_true(i < WAIT_MS * 10);
		nap();
	}
	assert_int_equal(c->request, h->request);
	assert_int_equal(c->sq_head, tail[q]);
	if (result)
		*result = c->result;
	bus->ops->doorbell(bus, q, MR_LPU_DB_CQ_HEAD, ++head[q]);
	return -(int)c->status;
}

static void drive(void)
{
	struct mr_lpu_identify *id = (void *)((uint8_t *)region->base + 8192);
	struct mr_lpu_cmd_identify identify = {
		.head = {MR_LPU_IDENTIFY, 0, 1}, .iova = region->iova + 8192, .bytes = sizeof(*id)};
	struct mr_lpu_cmd_queue_create create = {
		.head = {MR_LPU_QUEUE_CREATE, 0, 2},
		.queue = 1,
		.entries = ENTRIES,
		.sq_iova = region->iova + sizeof(struct ring),
		.cq_iova = region->iova + sizeof(struct ring) + offsetof(struct ring, cq),
		.record_iova = region->iova + 4096,
		.record_entries = 8,
		.vector = 1,
	};
	struct mr_lpu_cmd_get_log log = {.head = {MR_LPU_GET_LOG, 0, 4},
					 .iova = region->iova + 8192,
					 .bytes = sizeof(struct mr_lpu_counters),
					 .log = MR_LPU_LOG_COUNTERS};
	const struct mr_lpu_counters *counters = (void *)id;
	struct mr_lpu_command fence = {.head = {MR_LPU_FENCE, 0, 3}};
	struct pollfd p = {.events = POLLIN};
	uint32_t result;

	p.fd = bus->ops->irq_fd(bus, 1);
	assert_true(p.fd >= 0);
	bus->ops->reg_write(bus, MR_LPU_REG_ADMIN_ENTRIES, ENTRIES);
	bus->ops->reg_write(bus, MR_LPU_REG_ADMIN_SQ_LO, (uint32_t)region->iova);
	bus->ops->reg_write(bus, MR_LPU_REG_ADMIN_SQ_HI, (uint32_t)(region->iova >> 32));
	uint64_t cq = region->iova + offsetof(struct ring, cq);
	bus->ops->reg_write(bus, MR_LPU_REG_ADMIN_CQ_LO, (uint32_t)cq);
	bus->ops->reg_write(bus, MR_LPU_REG_ADMIN_CQ_HI, (uint32_t)(cq >> 32));
	bus->ops->reg_write(bus, MR_LPU_REG_CONTROL, MR_LPU_CONTROL_ENABLE);
	reg_is(MR_LPU_REG_STATUS, MR_LPU_STATUS_READY);

	assert_int_equal(run(0, &identify, &result), 0);
	assert_int_equal(result, sizeof(*id));
	assert_int_equal(id->magic, MR_LPU_MAGIC);
	assert_string_equal(id->product, "fence");
	assert_string_equal(id->classes[0], "D");
	assert_int_equal(id->kv_block_tokens, MR_KV_BLOCK_TOKENS);
	assert_int_equal(id->opcodes_io, 1ull << (MR_LPU_FENCE & 63));
	assert_int_equal(run(0, &create, NULL), 0);
	assert_int_equal(run(0, &create, NULL), MR_E_EXISTS);
	create.entries = 3;
	assert_int_equal(run(0, &create, NULL), MR_E_RANGE);
	identify.iova = 0x1000;
	assert_int_equal(run(0, &identify, NULL), MR_E_DMA_FAULT);

	/* More laps than one, so that phases turn; the last one with an interrupt. */
	for (fence.head.request = 3; fence.head.request < 20; fence.head.request++)
		assert_int_equal(run(1, &fence, NULL), 0);
	assert_int_equal(poll(&p, 1, 0), 0);
	bus->ops->doorbell(bus, 1, MR_LPU_DB_ARM, 1);
	bus->ops->reg_read(bus, MR_LPU_REG_STATUS);
	assert_int_equal(run(1, &fence, NULL), 0);
	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	fence.word[3] = 1;
	assert_int_equal(run(1, &fence, NULL), MR_E_INVALID);
	fence.head.opcode = MR_LPU_DECODE;
	assert_int_equal(run(1, &fence, NULL), MR_E_NOT_SUPPORTED);

	assert_int_equal(run(0, &log, &result), 0);
	assert_int_equal(result, sizeof(*counters));
	assert_int_equal(counters->refused, 5);
	assert_int_equal(counters->commands, tail[0] + tail[1]);

	/* Function-level reset, and once more from the start. */
	assert_int_equal(bus->ops->reset(bus), 0);
	reg_is(MR_LPU_REG_STATUS, 0);
	assert_int_equal(bus->ops->reg_read(bus, MR_LPU_REG_ADMIN_ENTRIES), 0);
	assert_int_equal(bus->lost, 0);
}

static void doorbells_in_shared_memory(void **state)
{
	start(NULL);
	drive();
}

static void doorbells_by_message(void **state)
{
	start("--trapped");
	drive();
	/* Killed: noticed, and named. */
	kill(server, SIGKILL);
	assert_int_equal(bus->ops->reg_read(bus, MR_LPU_REG_MAGIC), ~0u);
	assert_int_equal(bus->lost, MR_E_DISCONNECTED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(doorbells_in_shared_memory, stop),
		cmocka_unit_test_teardown(doorbells_by_message, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
