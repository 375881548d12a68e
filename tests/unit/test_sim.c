// SPDX-License-Identifier: Apache-2.0
/*
 * The simulated device against lpu_spec.h, by a host that is not the driver: rings, phases, credit, wrong
 * commands, DMA to nowhere, interrupts, and cycles against the CLAIM.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/lpu_rig.h"

static const struct mr_sim_options tiny = {.chip_path = "tiny"};

static struct mr_lpu_command command(uint16_t opcode, uint32_t request)
{
	return (struct mr_lpu_command){.head = {opcode, 0, request}};
}

static void registers_say_what_it_is(void **state)
{
	struct raw_host h;

	raw_open(&h, &tiny, 0);
	const struct mr_lpu_port_ops *ops = h.port.ops;
	void *ctx = h.port.ctx;
	assert_int_equal(ops->reg_read(ctx, MR_LPU_REG_MAGIC), MR_LPU_MAGIC);
	assert_int_equal(ops->reg_read(ctx, MR_LPU_REG_VERSION), MR_LPU_VERSION);
	assert_int_equal(ops->reg_read(ctx, 0xffc), 0);
	/* Registers of the admin rings do not move under a running device. */
	ops->reg_write(ctx, MR_LPU_REG_ADMIN_ENTRIES, 64);
	ops->reg_write(ctx, MR_LPU_REG_MAGIC, 0);
	assert_int_equal(ops->reg_read(ctx, MR_LPU_REG_ADMIN_ENTRIES), RAW_ENTRIES);
	assert_int_equal(ops->reg_read(ctx, MR_LPU_REG_MAGIC), MR_LPU_MAGIC);
	struct mr_lpu_identify *id = (void *)(h.mem + 32768);
	struct mr_lpu_cmd_identify c = {
		.head = {MR_LPU_IDENTIFY, 0, 77}, .iova = raw_iova(&h, id), .bytes = sizeof(*id)};
	assert_int_equal(raw_do(&h, 0, &c, NULL), 0);
	/* It beats while it has nothing to do. */
	uint32_t beat = ops->reg_read(ctx, MR_LPU_REG_HEARTBEAT), waits = 0;
	while (ops->reg_read(ctx, MR_LPU_REG_HEARTBEAT) == beat) {
		assert_true(waits++ < 1000);
		usleep(1000);
	}
	assert_string_equal(id->product, "tiny");
	assert_int_equal(id->chips, 2);
	assert_int_equal(id->sram_bytes, 4 << 20);
	raw_close(&h);
}

static void phases_turn_with_each_lap(void **state)
{
	struct raw_host h;

	raw_open(&h, &tiny, 1);
	for (uint32_t i = 0; i < 5 * RAW_ENTRIES + 3; i++) {
		struct mr_lpu_command c = command(MR_LPU_FENCE, 1000 + i);
		assert_int_equal(raw_do(&h, 1, &c, NULL), 0);
	}
	assert_int_equal(raw_counters(&h).refused, 0);
	raw_close(&h);
}

static void a_full_ring_waits_for_credit(void **state)
{
	struct raw_host h;

	raw_open(&h, &tiny, 1);
	for (uint32_t i = 0; i < RAW_ENTRIES; i++) {
		struct mr_lpu_command c = command(MR_LPU_FENCE, i);
		raw_post(&h, 1, &c);
	}
	for (uint32_t i = 0; i < RAW_ENTRIES; i++)
		assert_int_equal(raw_complete(&h, 1, 0).request, i);
	/* The host has taken them all but not said so: the next has no place to complete. */
	for (uint32_t i = 0; i < 3; i++) {
		struct mr_lpu_command c = command(MR_LPU_FENCE, 100 + i);
		raw_post(&h, 1, &c);
	}
	assert_false(raw_completed(&h, 1, 30));
	h.port.ops->doorbell(h.port.ctx, 1, MR_LPU_DB_CQ_HEAD, 2);
	assert_int_equal(raw_complete(&h, 1, 0).request, 100);
	assert_int_equal(raw_complete(&h, 1, 0).request, 101);
	assert_false(raw_completed(&h, 1, 30));
	h.port.ops->doorbell(h.port.ctx, 1, MR_LPU_DB_CQ_HEAD, h.head[1]);
	assert_int_equal(raw_complete(&h, 1, 1).request, 102);
	/* Doorbells that no ring can mean change nothing, and count. */
	h.port.ops->doorbell(h.port.ctx, 1, MR_LPU_DB_SQ_TAIL, h.tail[1] + RAW_ENTRIES + 1);
	h.port.ops->doorbell(h.port.ctx, 1, MR_LPU_DB_CQ_HEAD, h.head[1] + 1);
	h.port.ops->doorbell(h.port.ctx, 99, MR_LPU_DB_CQ_HEAD, 5);
	assert_false(raw_completed(&h, 1, 30));
	assert_int_equal(raw_counters(&h).bad_doorbell, 2);
	struct mr_lpu_command c = command(MR_LPU_FENCE, 200);
	assert_int_equal(raw_do(&h, 1, &c, NULL), 0);
	raw_close(&h);
}

/* Each byte that lpu_spec.h calls reserved, one at a time. */
static void reserved_must_be_zero(void **state)
{
	static const struct {
		uint16_t queue, opcode, from, to;
	} reserved[] = {
		{0, MR_LPU_IDENTIFY, offsetof(struct mr_lpu_cmd_identify, reserved0), 64},
		{0, MR_LPU_QUEUE_CREATE, offsetof(struct mr_lpu_cmd_queue_create, reserved), 64},
		{0, MR_LPU_QUEUE_DELETE, offsetof(struct mr_lpu_cmd_queue_delete, reserved0), 64},
		{0, MR_LPU_GET_LOG, offsetof(struct mr_lpu_cmd_get_log, reserved), 64},
		{0, MR_LPU_PROGRAM, offsetof(struct mr_lpu_cmd_program, reserved0), 16},
		{0, MR_LPU_PROGRAM, offsetof(struct mr_lpu_cmd_program, reserved), 64},
		{1, MR_LPU_SLOT_SET, offsetof(struct mr_lpu_cmd_slot_set, reserved0), 64},
		{1, MR_LPU_KV_WRITE, offsetof(struct mr_lpu_cmd_kv_write, reserved0), 64},
		{1, MR_LPU_KV_READ, offsetof(struct mr_lpu_cmd_kv_read, reserved0), 64},
		{1, MR_LPU_KV_FORK, offsetof(struct mr_lpu_cmd_kv_fork, reserved), 64},
		{1, MR_LPU_KV_FREE, offsetof(struct mr_lpu_cmd_kv_free, reserved), 64},
		{0, MR_LPU_FEATURES, offsetof(struct mr_lpu_cmd_features, reserved), 64},
		{0, MR_LPU_ASYNC_EVENT, 8, 64},
		{0, MR_LPU_ABORT, offsetof(struct mr_lpu_cmd_abort, reserved), 64},
		{0, MR_LPU_FIRMWARE, offsetof(struct mr_lpu_cmd_firmware, reserved), 64},
		{0, MR_LPU_RESET, offsetof(struct mr_lpu_cmd_reset, reserved0), 64},
		{1, MR_LPU_DECODE, offsetof(struct mr_lpu_cmd_decode, reserved0), 64},
		{1, MR_LPU_SCORE, offsetof(struct mr_lpu_cmd_score, reserved), 64},
		{1, MR_LPU_FENCE, 8, 64},
	};
	struct raw_host h;
	uint64_t tried = 0;

	raw_open(&h, &tiny, 1);
	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
		for (uint16_t b = reserved[i].from; b < reserved[i].to; b++, tried++) {
			struct mr_lpu_command c = command(reserved[i].opcode, b);
			((uint8_t *)&c)[b] = 0x80;
			assert_int_equal(raw_do(&h, reserved[i].queue, &c, NULL), MR_E_INVALID);
		}
		struct mr_lpu_command c = command(reserved[i].opcode, 1);
		c.head.flags = 1;
		assert_int_equal(raw_do(&h, reserved[i].queue, &c, NULL), MR_E_INVALID);
		tried++;
	}
	assert_int_equal(raw_counters(&h).bad_reserved, tried);
	raw_close(&h);
}

static void what_is_not_built_says_so(void **state)
{
	static const uint16_t admin[] = {0x0b, 0x0c, 0x3f, 0x40, 0x100, 0, MR_LPU_DECODE, 0xffff};
	static const uint16_t io[] = {0x8b, MR_LPU_EXEC, MR_LPU_IDENTIFY, 0, 0x8a, 0xffff,
				      0x80, 0xff};
	struct raw_host h;

	raw_open(&h, &tiny, 1);
	for (size_t i = 0; i < 8; i++) {
		struct mr_lpu_command a = command(admin[i], 1), b = command(io[i], 2);
		assert_int_equal(raw_do(&h, 0, &a, NULL), MR_E_NOT_SUPPORTED);
		assert_int_equal(raw_do(&h, 1, &b, NULL), MR_E_NOT_SUPPORTED);
	}
	assert_int_equal(raw_counters(&h).bad_opcode, 16);
	raw_close(&h);
}

static void errors_and_health_are_logged(void **state)
{
	struct mr_lpu_error errors[MR_LPU_ERRORS_MAX];
	struct mr_lpu_health health;
	struct raw_host h;

	raw_open(&h, &tiny, 1);
	assert_int_equal((int)raw_log(&h, MR_LPU_LOG_ERRORS, errors, sizeof(errors)), 0);
	assert_int_equal((int)raw_log(&h, MR_LPU_LOG_HEALTH, &health, sizeof(health)),
			 sizeof(health));
	assert_int_equal(health.errors, 0);
	assert_int_equal(health.chips_up, 2);
	assert_int_equal(health.power_mw, 0);
	assert_true(health.uptime_ms < 100000);
	for (uint32_t i = 0; i < 100; i++) {
		struct mr_lpu_command bad = command(i % 2 ? MR_LPU_EXEC : MR_LPU_FENCE, 500 + i);
		bad.word[6] = 1;
		assert_int_equal(raw_do(&h, 1, &bad, NULL),
				 i % 2 ? MR_E_NOT_SUPPORTED : MR_E_INVALID);
		if (i == 2)
			assert_int_equal(
				(int)raw_log(&h, MR_LPU_LOG_ERRORS, errors, sizeof(errors)),
				3 * sizeof(errors[0]));
	}
	assert_int_equal((int)raw_log(&h, MR_LPU_LOG_ERRORS, errors, sizeof(errors)),
			 sizeof(errors));
	for (uint32_t i = 0; i < MR_LPU_ERRORS_MAX; i++) {
		assert_int_equal(errors[i].number, 37 + i);
		assert_int_equal(errors[i].request, 500 + 36 + i);
		assert_int_equal(errors[i].queue, 1);
		assert_int_equal(errors[i].opcode, i % 2 ? MR_LPU_EXEC : MR_LPU_FENCE);
		assert_int_equal(errors[i].status, i % 2 ? -MR_E_NOT_SUPPORTED : -MR_E_INVALID);
		assert_true(!i || errors[i].time_ms >= errors[i - 1].time_ms);
	}
	assert_int_equal((int)raw_log(&h, MR_LPU_LOG_HEALTH, &health, sizeof(health)),
			 sizeof(health));
	assert_int_equal(health.errors, 100);
	assert_int_equal(raw_counters(&h).refused, 100);
	assert_int_equal(health.resets, 0);
	/* In pieces, and beyond the end. */
	struct mr_lpu_cmd_get_log c = {.head = {MR_LPU_GET_LOG, 0, 9},
				       .iova = RAW_IOVA + 65536,
				       .bytes = 64,
				       .log = MR_LPU_LOG_ERRORS,
				       .offset = sizeof(errors) - 32};
	uint32_t got;
	assert_int_equal(raw_do(&h, 0, &c, &got), 0);
	assert_int_equal(got, 32);
	assert_memory_equal(h.mem + 65536, &errors[MR_LPU_ERRORS_MAX - 1], 32);
	c.offset = sizeof(errors) + 1;
	assert_int_equal(raw_do(&h, 0, &c, &got), MR_E_RANGE);
	c.log = MR_LPU_LOG_POWER + 1;
	assert_int_equal(raw_do(&h, 0, &c, &got), MR_E_NOT_SUPPORTED);
	raw_close(&h);
}

static void dma_goes_where_it_was_mapped(void **state)
{
	struct raw_host h;

	raw_open(&h, &tiny, 1);
	struct mr_lpu_cmd_identify c = {.head = {MR_LPU_IDENTIFY, 0, 1}, .bytes = 512};
	static const uint64_t nowhere[] = {0, RAW_IOVA - 1, RAW_IOVA + RAW_BYTES - 511,
					   RAW_RO_IOVA, /* the device may only read there */
					   UINT64_MAX - 100};
	for (size_t i = 0; i < 5; i++) {
		c.iova = nowhere[i];
		assert_int_equal(raw_do(&h, 0, &c, NULL), MR_E_DMA_FAULT);
	}
	assert_int_equal(raw_counters(&h).dma_faults, 5);
	for (size_t i = 0; i < RAW_BYTES; i++)
		assert_int_equal(h.ro[i], 0);
	const struct mr_lpu_port_ops *ops = h.port.ops;
	void *ctx = h.port.ctx;
	assert_int_equal(ops->dma_map(ctx, RAW_IOVA + 4096, h.mem, 4096, 1), MR_E_EXISTS);
	assert_int_equal(ops->dma_map(ctx, 0x1000, h.mem, 4096, 4), MR_E_INVALID);
	assert_int_equal(ops->dma_map(ctx, UINT64_MAX - 10, h.mem, 4096, 1), MR_E_INVALID);
	assert_int_equal(ops->dma_unmap(ctx, 0x5000), MR_E_NOT_FOUND);
	assert_int_equal(ops->dma_unmap(ctx, RAW_RO_IOVA), 0);
	/* A ring that is no longer there leaves the device nothing to say with: it stops, alive. */
	assert_int_equal(ops->dma_unmap(ctx, RAW_IOVA), 0);
	struct mr_lpu_command fence = command(MR_LPU_FENCE, 1);
	raw_post(&h, 1, &fence);
	assert_false(raw_completed(&h, 1, 50));
	assert_true(ops->reg_read(ctx, MR_LPU_REG_STATUS) & MR_LPU_STATUS_FATAL);
	raw_close(&h);
}

/* As behind an IOMMU: IOVAs side by side, pages anywhere. */
static void dma_runs_over_mappings(void **state)
{
	struct mr_lpu_cmd_identify c = {.head = {MR_LPU_IDENTIFY, 0, 1}, .bytes = 512};
	const uint64_t iova = 0x1000000;
	struct mr_lpu_identify id;
	struct raw_host h;

	raw_open(&h, &tiny, 1);
	const struct mr_lpu_port_ops *ops = h.port.ops;
	void *ctx = h.port.ctx;
	uint8_t *first = h.ro + 8192, *second = h.ro; /* the other way round in memory */
	assert_int_equal(ops->dma_map(ctx, iova + 4096, second, 4096, 3), 0);
	assert_int_equal(ops->dma_map(ctx, iova, first, 4096, 3), 0);
	assert_int_equal(ops->dma_map(ctx, iova + 4095, h.mem, 1, 3), MR_E_EXISTS);
	c.iova = iova + 4096 - 200;
	assert_int_equal(raw_do(&h, 0, &c, NULL), 0);
	memcpy(&id, first + 4096 - 200, 200);
	memcpy((uint8_t *)&id + 200, second, 312);
	assert_int_equal(id.magic, MR_LPU_MAGIC);
	assert_string_equal(id.product, "tiny");
	assert_int_equal(id.score_max > 0, 1);
	assert_int_equal(second[312], 0);

	/* A gap, or a neighbour that may only be read: nothing is moved. */
	memset(h.ro, 0, RAW_BYTES);
	assert_int_equal(ops->dma_unmap(ctx, iova + 4096), 0);
	assert_int_equal(raw_do(&h, 0, &c, NULL), MR_E_DMA_FAULT);
	assert_int_equal(ops->dma_map(ctx, iova + 4096, second, 4096, 1), 0);
	assert_int_equal(raw_do(&h, 0, &c, NULL), MR_E_DMA_FAULT);
	for (size_t i = 0; i < RAW_BYTES; i++)
		assert_int_equal(h.ro[i], 0);

	/* As many as there may be, then no more. */
	int status = 0;
	uint32_t n = 0;
	for (; !status; n++)
		status = ops->dma_map(ctx, 0x200000000ull - n * 8192ull, h.mem, 4096, 3);
	assert_int_equal(status, MR_E_FULL);
	assert_true(n > 16000);
	while (--n)
		assert_int_equal(ops->dma_unmap(ctx, 0x200000000ull - (n - 1) * 8192ull), 0);
	raw_close(&h);
}

static void queues_are_checked(void **state)
{
	struct raw_host h;

	raw_open(&h, &tiny, 1);
	struct mr_lpu_cmd_queue_create good = {
		.head = {MR_LPU_QUEUE_CREATE, 0, 1},
		.queue = 2,
		.entries = 8,
		.sq_iova = RAW_IOVA + 65536,
		.cq_iova = RAW_IOVA + 69632,
		.record_iova = RAW_IOVA + 73728,
		.record_entries = 8,
		.vector = 2,
	};
#define WRONG(field, value, want)                                \
	do {                                                     \
		struct mr_lpu_cmd_queue_create c = good;         \
		c.field = (value);                               \
		assert_int_equal(raw_do(&h, 0, &c, NULL), want); \
	} while (0)
	WRONG(queue, 0, MR_E_RANGE);
	WRONG(queue, 1, MR_E_EXISTS);
	WRONG(queue, 5, MR_E_RANGE);
	WRONG(entries, 0, MR_E_RANGE);
	WRONG(entries, 1, MR_E_RANGE);
	WRONG(entries, 12, MR_E_RANGE);
	WRONG(entries, 1u << 31, MR_E_RANGE);
	WRONG(record_entries, 3, MR_E_RANGE);
	WRONG(sq_iova, RAW_IOVA + 65537, MR_E_RANGE);
	WRONG(vector, 1000, MR_E_RANGE);
	assert_int_equal(raw_do(&h, 0, &good, NULL), 0);
	struct mr_lpu_cmd_queue_delete gone = {.head = {MR_LPU_QUEUE_DELETE, 0, 2}, .queue = 2};
	assert_int_equal(raw_do(&h, 0, &gone, NULL), 0);
	assert_int_equal(raw_do(&h, 0, &gone, NULL), MR_E_NOT_FOUND);
	raw_close(&h);
}

/* ---- with a program ----------------------------------------------------------------------------- */

static struct mr_lpu_cmd_decode decode(struct raw_loaded *l, uint32_t count, uint32_t steps)
{
	return (struct mr_lpu_cmd_decode){
		.head = {MR_LPU_DECODE, 0, 50},
		.entries_iova = raw_iova(&l->h, l->h.mem + 24576),
		.count = count,
		.steps = steps,
	};
}

static struct mr_lpu_decode_entry *entries(struct raw_loaded *l)
{
	struct mr_lpu_decode_entry *e = (void *)(l->h.mem + 24576);

	memset(e, 0, 4 * sizeof(*e));
	return e;
}

static void no_record_is_lost_for_want_of_credit(void **state)
{
	struct mr_lpu_record r;
	struct raw_loaded l;
	uint64_t cycle = 0;
	uint32_t got = 0;

	raw_load(&l, 2);
	assert_int_equal(raw_slot_set(&l, 3, 44, 64), 0);
	struct mr_lpu_decode_entry *e = entries(&l);
	e->slot = 3;
	e->generation = 44;
	e->token = 20;
	struct mr_lpu_cmd_decode c = decode(&l, 1, 30);
	raw_post(&l.h, 1, &c);
	/* Credit comes in odd pieces; between them the device stands still. */
	while (got < 30) {
		uint32_t before = got;
		while (raw_record(&l, &r)) {
			assert_int_equal(r.slot, 3);
			assert_int_equal(r.generation, 44);
			assert_int_equal(r.position, got + 1);
			assert_int_equal(r.status, 0);
			assert_true(r.cycle > cycle);
			cycle = r.cycle;
			got++;
		}
		assert_true(got - before <= RAW_ENTRIES);
		assert_true(got > before);
		if (got < 30)
			assert_false(raw_completed(&l.h, 1, 0));
		l.h.port.ops->doorbell(l.h.port.ctx, 1, MR_LPU_DB_RECORD_HEAD,
				       l.h.record_head - (got < 25 ? got % 3 : 0));
	}
	struct mr_lpu_completion done = raw_complete(&l.h, 1, 1);
	assert_int_equal(done.status, 0);
	assert_int_equal(done.result, 30);
	assert_true(raw_counters(&l.h).credit_stalls > 0);
	raw_unload(&l);
}

/* Evaluates the container's claim: the compiler's prediction, not the simulator's arithmetic. */
static uint64_t claimed(const struct mr_prog_claim *claim, const uint32_t *position, uint32_t n)
{
	uint64_t cycles = claim->base;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t blocks = position[i] / 16 + 1;
		cycles += claim->slot + claim->block * blocks +
			  claim->tile * ((blocks + claim->tile_blocks - 1) / claim->tile_blocks);
	}
	return cycles;
}

static void cycles_are_what_the_compiler_claimed(void **state)
{
	struct raw_loaded l;

	raw_load(&l, 2);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(raw_slot_set(&l, i, 1, 128), 0);
	for (uint32_t n = 1; n <= 4; n++) {
		uint32_t position[4] = {0};
		uint64_t sum = 0;
		struct mr_lpu_decode_entry *e = entries(&l);
		for (uint32_t i = 0; i < n; i++) {
			e[i].slot = i;
			e[i].generation = 1;
			e[i].token = 30 + i;
		}
		struct mr_lpu_cmd_decode c = decode(&l, n, 40);
		raw_post(&l.h, 1, &c);
		for (uint32_t step = 0; step < 40; step++) {
			struct mr_lpu_record r;
			for (uint32_t i = 0; i < n; i++) {
				assert_true(raw_record(&l, &r));
				assert_int_equal(r.slot, i);
				l.h.port.ops->doorbell(l.h.port.ctx, 1, MR_LPU_DB_RECORD_HEAD,
						       l.h.record_head);
			}
			sum += claimed(l.c.claims, position, n);
			assert_int_equal(r.cycle, sum);
			for (uint32_t i = 0; i < n; i++)
				position[i]++;
		}
		assert_int_equal(raw_complete(&l.h, 1, 1).status, 0);
	}
	raw_unload(&l);
}

static void slots_and_decodes_are_checked(void **state)
{
	struct raw_loaded l;

	raw_load(&l, 2);
	assert_int_equal(raw_slot_set(&l, 0, 5, 64), 0);
	assert_int_equal(raw_slot_set(&l, 0, 6, 64), MR_E_EXISTS);
	assert_int_equal(raw_slot_set(&l, 256, 6, 64), MR_E_RANGE);
	assert_int_equal(raw_slot_set(&l, 1, 6, 0), MR_E_RANGE);
	assert_int_equal(raw_slot_set(&l, 1, 6, 129), MR_E_CONTEXT_FULL);
	uint32_t vocab = l.model->shape.vocab;
#define ENTRY(change, want)                                               \
	do {                                                              \
		struct mr_lpu_cmd_decode d = decode(&l, 1, 2);            \
		struct mr_lpu_decode_entry *e = entries(&l);              \
		e->generation = 5;                                        \
		change;                                                   \
		int got = raw_do(&l.h, 1, &d, NULL);                      \
		if (got != (want))                                        \
			fail_msg("%s: %s", #change, mr_status_name(got)); \
	} while (0)
	ENTRY(e->generation = 4, MR_E_STALE);
	ENTRY(e->slot = 1, MR_E_STALE);
	ENTRY(e->slot = 100000, MR_E_RANGE);
	ENTRY(e->token = vocab, MR_E_RANGE);
	ENTRY(e->position = 1, MR_E_TRUNCATED);
	ENTRY(e->position = 63, MR_E_CONTEXT_FULL);
	ENTRY(e->position = UINT32_MAX, MR_E_CONTEXT_FULL);
	ENTRY(e->flags = 1, MR_E_INVALID);
	ENTRY(e->reserved[0] = 1, MR_E_INVALID);
	ENTRY(e->mask_iova = RAW_IOVA, MR_E_RANGE); /* no stride */
	ENTRY((e->mask_iova = RAW_IOVA + 2, d.mask_stride = 4096), MR_E_RANGE);
	ENTRY(d.mask_stride = 2, MR_E_RANGE);
	ENTRY(e->top_iova = RAW_IOVA, MR_E_RANGE); /* no n */
	ENTRY((e->top_iova = RAW_IOVA + 4, d.top = 1), MR_E_RANGE);
	ENTRY(d.top = 1000, MR_E_RANGE);
	ENTRY(e->forced_iova = RAW_IOVA, MR_E_INVALID);
	ENTRY((e->forced_iova = 4096, e->forced_count = 1), MR_E_DMA_FAULT);
	ENTRY((e->forced_iova = RAW_IOVA, e->forced_count = 2), MR_E_RANGE);
	ENTRY((e->logits_iova = RAW_IOVA + 65536), MR_E_RANGE); /* no stride */
	ENTRY((e->logits_iova = RAW_IOVA + 65538, d.logits_stride = 4 * vocab), MR_E_RANGE);
	ENTRY((e[1] = e[0], d.count = 2), MR_E_INVALID); /* a slot twice */
	ENTRY(d.count = 0, MR_E_RANGE);
	ENTRY(d.count = 5, MR_E_RANGE);
	ENTRY(d.steps = 0, MR_E_RANGE);
	ENTRY(d.steps = 100000, MR_E_RANGE);
	ENTRY(d.logits_stride = 2, MR_E_RANGE);
	ENTRY(d.entries_iova = 64, MR_E_DMA_FAULT);
	assert_int_equal(raw_counters(&l.h).records, 0);
	ENTRY((void)0, 0);
	/* A program is not exchanged under a slot; a slot that is closed is not there. */
	struct mr_lpu_cmd_program begin = {
		.head = {MR_LPU_PROGRAM, 0, 1}, .action = MR_LPU_PROGRAM_BEGIN, .bytes = 8192};
	assert_int_equal(raw_do(&l.h, 0, &begin, NULL), MR_E_BUSY);
	struct mr_lpu_cmd_kv_free stop = {.head = {MR_LPU_KV_FREE, 0, 1}, .generation = 5};
	assert_int_equal(raw_do(&l.h, 1, &stop, NULL), 0);
	assert_int_equal(raw_do(&l.h, 1, &stop, NULL), MR_E_STALE);
	assert_int_equal(raw_counters(&l.h).kv_blocks_used, 0);
	/* KV runs out by name, and comes back. */
	uint32_t opened = 0;
	while (!raw_slot_set(&l, opened, 9, 128))
		opened++;
	assert_int_equal(raw_slot_set(&l, opened, 9, 128),
			 opened < 256 ? MR_E_KV_EXHAUSTED : MR_E_RANGE);
	raw_unload(&l);
}

static void an_armed_queue_interrupts_once(void **state)
{
	struct raw_host h;
	int fd = eventfd(0, EFD_NONBLOCK);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t count;

	raw_open(&h, &tiny, 1);
	assert_int_equal(h.port.ops->irq(h.port.ctx, 99, fd), MR_E_RANGE);
	assert_int_equal(h.port.ops->irq(h.port.ctx, 1, fd), 0);
	struct mr_lpu_command c = command(MR_LPU_FENCE, 1);
	assert_int_equal(raw_do(&h, 1, &c, NULL), 0);
	assert_int_equal(poll(&p, 1, 20), 0); /* not armed */
	for (int i = 0; i < 20; i++) {
		h.port.ops->doorbell(h.port.ctx, 1, MR_LPU_DB_ARM, 1);
		assert_int_equal(raw_do(&h, 1, &c, NULL), 0);
		assert_int_equal(raw_do(&h, 1, &c, NULL), 0);
		assert_int_equal(poll(&p, 1, 5000), 1);
		assert_int_equal(read(fd, &count, 8), 8);
		assert_int_equal(count, 1);
	}
	raw_close(&h);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registers_say_what_it_is),
		cmocka_unit_test(phases_turn_with_each_lap),
		cmocka_unit_test(a_full_ring_waits_for_credit),
		cmocka_unit_test(reserved_must_be_zero),
		cmocka_unit_test(what_is_not_built_says_so),
		cmocka_unit_test(errors_and_health_are_logged),
		cmocka_unit_test(dma_goes_where_it_was_mapped),
		cmocka_unit_test(dma_runs_over_mappings),
		cmocka_unit_test(queues_are_checked),
		cmocka_unit_test(no_record_is_lost_for_want_of_credit),
		cmocka_unit_test(cycles_are_what_the_compiler_claimed),
		cmocka_unit_test(slots_and_decodes_are_checked),
		cmocka_unit_test(an_armed_queue_interrupts_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
