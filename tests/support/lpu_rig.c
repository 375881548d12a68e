// SPDX-License-Identifier: Apache-2.0
#include "support/lpu_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "driver/bus/bus.h"
#include "driver/lpu/lpu.h"

#define WAIT_S 20

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void nap(void)
{
	const struct timespec t = {.tv_nsec = 20000};

	nanosleep(&t, NULL);
}

void lpu_rig_open(struct lpu_rig *rig, const struct lpu_rig_options *o)
{
	char why[256] = "";
	struct mr_sim_options sim = {
		.chip_path = o->chip ? o->chip : "tiny",
		.chips = o->chips,
		.fault = o->fault,
		.why = why,
		.why_bytes = sizeof(why),
	};
	struct mr_arena_options arena = {.node = -1, .no_huge = 1};
	struct mr_bus *bus;

	memset(rig, 0, sizeof(*rig));
	if (mr_model_open(MR_TEST_DATA "/tiny.gguf", &rig->model, why, sizeof(why)))
		fail_msg("tiny.gguf: %s", why);
	assert_int_equal(mr_arena_create(&arena, &rig->arena), 0);
	if (mr_sim_create(&sim, &rig->port))
		fail_msg("simulator: %s", why);
	assert_int_equal(mr_bus_local_open(&rig->port, &bus), 0);
	struct mr_lpu_options lpu = {
		.arena = rig->arena,
		.bus = bus,
		.slots = o->slots,
		.context = o->context ? o->context : 128,
		.batch_max = o->batch,
		.timeout_ms = o->timeout_ms,
		.coalesce = o->coalesce,
		.log = o->log,
		.log_arg = rig,
	};
	assert_int_equal(mr_lpu_open(&lpu, &rig->dev), 0);
	if (!o->no_load) {
		int status = rig->dev->work->load(rig->dev, rig->model, NULL, NULL);
		if (status)
			fail_msg("load: %s: %s", mr_status_name(status), mr_lpu_why(rig->dev));
	}
}

void lpu_rig_close(struct lpu_rig *rig)
{
	rig->dev->admin->close(rig->dev);
	mr_arena_destroy(rig->arena);
	mr_model_close(rig->model);
}

uint32_t lpu_rig_wait(struct mr_device *dev, uint64_t tag, struct mr_event *events, uint32_t max)
{
	uint64_t until = now_ms() + WAIT_S * 1000;
	uint32_t n = 0;

	for (;;) {
		/* One at a time, so that the logits of the last one are still valid when it returns. */
		int got = dev->work->poll(dev, &events[n], 1);
		assert_true(got >= 0);
		n += (uint32_t)got;
		if (got && events[n - 1].type == MR_EVENT_DONE && events[n - 1].tag == tag)
			return n;
		assert_true(n < max);
		if (now_ms() > until)
			fail_msg("no DONE of work %llu", (unsigned long long)tag);
		if (!got)
			nap();
	}
}

struct mr_slot lpu_rig_slot(struct mr_device *dev, uint32_t positions)
{
	struct mr_slot_config config = {.owner = 7, .positions = positions};
	struct mr_slot slot;

	assert_int_equal(dev->mem->slot_open(dev, &config, &slot), 0);
	return slot;
}

/* ---- raw host ----------------------------------------------------------------------------------- */

void raw_wait_status(struct raw_host *h, uint32_t want)
{
	uint64_t until = now_ms() + WAIT_S * 1000;

	while (h->port.ops->reg_read(h->port.ctx, MR_LPU_REG_STATUS) != want) {
		assert_true(now_ms() < until);
		nap();
	}
}

void raw_open(struct raw_host *h, const struct mr_sim_options *options, int io)
{
	const struct mr_lpu_port_ops *ops;

	memset(h, 0, sizeof(*h));
	assert_int_equal(mr_sim_create(options, &h->port), 0);
	ops = h->port.ops;
	h->mem = aligned_alloc(4096, RAW_BYTES);
	h->ro = aligned_alloc(4096, RAW_BYTES);
	memset(h->mem, 0, RAW_BYTES);
	memset(h->ro, 0, RAW_BYTES);
	assert_int_equal(ops->dma_map(h->port.ctx, RAW_IOVA, h->mem, RAW_BYTES,
				      MR_PORT_DMA_READ | MR_PORT_DMA_WRITE),
			 0);
	assert_int_equal(ops->dma_map(h->port.ctx, RAW_RO_IOVA, h->ro, RAW_BYTES, MR_PORT_DMA_READ),
			 0);
	/* The first two queues lie low, the others above what tests use. */
	for (uint32_t q = 0; q < RAW_QUEUES; q++) {
		uint8_t *at = h->mem + (q < 2 ? q * 4096 : 524288 + q * 8192);
		h->sq[q] = (void *)at;
		h->cq[q] = (void *)(at + 1024);
		h->ring[q] = (void *)(q < 2 ? h->mem + 8192 : at + 4096);
	}
	h->records = h->ring[1];
	raw_enable(h);
	if (io)
		assert_int_equal(raw_queue(h, 1), 0);
}

void raw_enable(struct raw_host *h)
{
	const struct mr_lpu_port_ops *ops = h->port.ops;

	h->shadow = NULL;
	h->record_head = 0;
	memset(h->tail, 0, sizeof(h->tail));
	memset(h->head, 0, sizeof(h->head));
	memset(h->cq[0], 0, RAW_ENTRIES * sizeof(*h->cq[0]));
	ops->reg_write(h->port.ctx, MR_LPU_REG_ADMIN_ENTRIES, RAW_ENTRIES);
	ops->reg_write(h->port.ctx, MR_LPU_REG_ADMIN_SQ_LO, (uint32_t)raw_iova(h, h->sq[0]));
	ops->reg_write(h->port.ctx, MR_LPU_REG_ADMIN_CQ_LO, (uint32_t)raw_iova(h, h->cq[0]));
	ops->reg_write(h->port.ctx, MR_LPU_REG_CONTROL, MR_LPU_CONTROL_ENABLE);
	raw_wait_status(h, MR_LPU_STATUS_READY);
}

int raw_queue(struct raw_host *h, uint32_t q)
{
	struct mr_lpu_cmd_queue_create c = {
		.head = {MR_LPU_QUEUE_CREATE, 0, 1},
		.queue = q,
		.entries = RAW_ENTRIES,
		.sq_iova = raw_iova(h, h->sq[q]),
		.cq_iova = raw_iova(h, h->cq[q]),
		.record_iova = raw_iova(h, h->ring[q]),
		.record_entries = RAW_ENTRIES,
		.vector = q,
	};

	memset(h->cq[q], 0, RAW_ENTRIES * sizeof(*h->cq[q]));
	memset(h->ring[q], 0, RAW_ENTRIES * sizeof(*h->ring[q]));
	return raw_do(h, 0, &c, NULL);
}

void raw_ring(struct raw_host *h, uint32_t q, uint32_t offset, uint32_t value)
{
	if (h->shadow) {
		uint32_t *word = &h->shadow[q].sq_tail + offset / 4;
		/* Pairs with the device's store of asleep and its look at the indices. */
		__atomic_store_n(word, value, __ATOMIC_SEQ_CST);
		if (!__atomic_load_n(&h->shadow[q].asleep, __ATOMIC_SEQ_CST))
			return;
	}
	h->rung++;
	h->port.ops->doorbell(h->port.ctx, q, offset, value);
}

uint32_t raw_log(struct raw_host *h, uint32_t log, void *out, uint32_t bytes)
{
	struct mr_lpu_cmd_get_log c = {.head = {MR_LPU_GET_LOG, 0, 9},
				       .iova = RAW_IOVA + 65536,
				       .bytes = bytes,
				       .log = log};
	uint32_t got;

	assert_int_equal(raw_do(h, 0, &c, &got), 0);
	assert_true(got <= bytes);
	memcpy(out, h->mem + 65536, got);
	return got;
}

int raw_feature(struct raw_host *h, uint32_t feature, uint32_t queue, int set, uint32_t *value)
{
	struct mr_lpu_cmd_features c = {.head = {MR_LPU_FEATURES, 0, 11},
					.feature = feature,
					.action = set ? MR_LPU_FEATURE_SET : MR_LPU_FEATURE_GET,
					.value = set ? *value : 0,
					.queue = queue};

	return raw_do(h, 0, &c, value);
}

void raw_close(struct raw_host *h)
{
	h->port.ops->close(h->port.ctx);
	free(h->mem);
	free(h->ro);
}

uint64_t raw_iova(const struct raw_host *h, const void *p)
{
	return RAW_IOVA + (uint64_t)((const uint8_t *)p - h->mem);
}

void raw_post(struct raw_host *h, uint32_t queue, const void *command)
{
	memcpy(&h->sq[queue][h->tail[queue]++ % RAW_ENTRIES], command,
	       sizeof(struct mr_lpu_command));
	raw_ring(h, queue, MR_LPU_DB_SQ_TAIL, h->tail[queue]);
}

int raw_completed(struct raw_host *h, uint32_t queue, unsigned ms)
{
	const struct mr_lpu_completion *c = &h->cq[queue][h->head[queue] % RAW_ENTRIES];
	uint32_t phase = !(h->head[queue] / RAW_ENTRIES & 1);
	uint64_t until = now_ms() + ms;

	while (__atomic_load_n(&c->phase, __ATOMIC_ACQUIRE) != phase) {
		if (now_ms() > until)
			return 0;
		nap();
	}
	return 1;
}

struct mr_lpu_completion raw_complete(struct raw_host *h, uint32_t queue, int credit)
{
	if (!raw_completed(h, queue, WAIT_S * 1000))
		fail_msg("no completion on queue %u", queue);
	struct mr_lpu_completion c = h->cq[queue][h->head[queue]++ % RAW_ENTRIES];
	if (credit)
		raw_ring(h, queue, MR_LPU_DB_CQ_HEAD, h->head[queue]);
	return c;
}

int raw_do(struct raw_host *h, uint32_t queue, const void *command, uint32_t *result)
{
	uint32_t request = ((const struct mr_lpu_head *)command)->request;

	raw_post(h, queue, command);
	struct mr_lpu_completion c = raw_complete(h, queue, 1);
	assert_int_equal(c.request, request);
	assert_int_equal(c.sq_head, (uint16_t)h->tail[queue]);
	if (result)
		*result = c.result;
	return -(int)c.status;
}

struct mr_lpu_counters raw_counters(struct raw_host *h)
{
	struct mr_lpu_counters *counters = (void *)(h->mem + 16384);
	struct mr_lpu_cmd_get_log c = {
		.head = {MR_LPU_GET_LOG, 0, 9},
		.iova = raw_iova(h, counters),
		.bytes = sizeof(*counters),
		.log = MR_LPU_LOG_COUNTERS,
	};
	uint32_t bytes;

	assert_int_equal(raw_do(h, 0, &c, &bytes), 0);
	assert_int_equal(bytes, sizeof(*counters));
	return *counters;
}

int raw_program(struct raw_host *h, const void *container, uint64_t bytes, uint32_t *action)
{
	uint8_t *piece = h->mem + 65536;
	struct mr_lpu_cmd_program c = {
		.head = {MR_LPU_PROGRAM, 0, 5},
		.action = *action = MR_LPU_PROGRAM_BEGIN,
		.bytes = bytes,
	};
	int status = raw_do(h, 0, &c, NULL);

	for (uint64_t at = 0; !status && at < bytes; at += c.bytes) {
		c.action = *action = MR_LPU_PROGRAM_WRITE;
		c.bytes = bytes - at < 65536 ? bytes - at : 65536;
		c.iova = raw_iova(h, piece);
		c.offset = at;
		memcpy(piece, (const uint8_t *)container + at, c.bytes);
		status = raw_do(h, 0, &c, NULL);
	}
	c.iova = c.offset = c.bytes = 0;
	for (uint32_t a = MR_LPU_PROGRAM_VERIFY; !status && a <= MR_LPU_PROGRAM_ACTIVATE; a++) {
		c.action = *action = a;
		status = raw_do(h, 0, &c, NULL);
	}
	return status;
}

void raw_load(struct raw_loaded *l, uint32_t chips)
{
	const struct mr_sim_options tiny = {.chip_path = "tiny", .chips = chips};
	struct mr_compile_options o = {.chips = chips, .batch = 4, .context = 128};
	struct mr_chip chip;
	uint32_t action, bytes;

	assert_int_equal(mr_model_open(MR_TEST_DATA "/tiny.gguf", &l->model, NULL, 0), 0);
	raw_open(&l->h, &tiny, 1);
	struct mr_lpu_cmd_get_log log = {.head = {MR_LPU_GET_LOG, 0, 3},
					 .iova = RAW_IOVA + 65536,
					 .bytes = 65536,
					 .log = MR_LPU_LOG_CHIP};
	assert_int_equal(raw_do(&l->h, 0, &log, &bytes), 0);
	assert_int_equal(mr_chip_parse((char *)l->h.mem + 65536, bytes, &chip, NULL, 0), 0);
	o.chip = &chip;
	assert_int_equal(mr_compile(l->model, &o, &l->program, NULL, 0), 0);
	assert_int_equal(raw_program(&l->h, l->program.container, l->program.bytes, &action), 0);
	assert_int_equal(mr_container_open(l->program.container, l->program.bytes, &l->c, NULL, 0),
			 0);
}

void raw_unload(struct raw_loaded *l)
{
	raw_close(&l->h);
	mr_program_free(&l->program);
	mr_model_close(l->model);
}

int raw_slot_set(struct raw_loaded *l, uint32_t slot, uint32_t generation, uint32_t positions)
{
	struct mr_lpu_slot_param *p = (void *)(l->h.mem + 20480);
	struct mr_lpu_cmd_slot_set c = {
		.head = {MR_LPU_SLOT_SET, 0, 8},
		.slot = slot,
		.generation = generation,
		.param_iova = raw_iova(&l->h, p),
		.param_bytes = sizeof(*p),
	};

	memset(p, 0, sizeof(*p));
	p->owner = 7;
	p->positions = positions;
	return raw_do(&l->h, 1, &c, NULL);
}

int raw_record(struct raw_loaded *l, struct mr_lpu_record *out)
{
	const struct mr_lpu_record *r = &l->h.records[l->h.record_head % RAW_ENTRIES];

	for (int i = 0; i < 200; i++) {
		if (__atomic_load_n(&r->phase, __ATOMIC_ACQUIRE) ==
		    l->h.record_head / RAW_ENTRIES + 1) {
			*out = *r;
			l->h.record_head++;
			return 1;
		}
		usleep(100);
	}
	return 0;
}
