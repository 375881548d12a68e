// SPDX-License-Identifier: Apache-2.0
/* Open, close, reset: the device's life, and the ops tables that the orchestrator sees. */
#include "driver/lpu/lpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/lpu/internal.h"
#include "driver/metrics.h"

static int map(void *ctx, const struct mr_region *region, uint32_t access)
{
	struct lpu *lpu = ctx;

	return lpu->bus->ops->dma_map(lpu->bus, region->iova, region->base, region->bytes, access);
}

static void unmap(void *ctx, const struct mr_region *region)
{
	struct lpu *lpu = ctx;

	lpu->bus->ops->dma_unmap(lpu->bus, region->iova);
}

static int lpu_reset(struct mr_device *dev)
{
	struct lpu *lpu = lpu_of(dev);
	int status;

	if (lpu->ended_next < lpu->ended_count)
		return MR_E_BUSY; /* poll first: the events of the last reset wait */
	lpu->ended_next = lpu->ended_count = 0;
	for (uint32_t i = lpu->sq_done; i != lpu->sq_tail; i++)
		lpu->ended[lpu->ended_count++] = lpu->pending[i % lpu->entries];
	lpu->sq_done = lpu->sq_tail;
	mr_lpu_slots_forget(lpu);
	status = mr_recover_reset(&lpu->recover);
	if (status)
		mr_count(MR_M_lpu_given_up, 1);
	lpu->lost = status;
	return status;
}

static int lpu_telemetry(struct mr_device *dev, struct mr_telemetry *out)
{
	struct lpu *lpu = lpu_of(dev);

	*out = lpu->seen;
	out->kv_blocks = lpu->kv.count;
	out->kv_blocks_used = lpu->kv.count - mr_blocks_free(&lpu->kv);
	return 0;
}

static void destroy(struct lpu *lpu)
{
	free(lpu->pending);
	free(lpu->decodes);
	free(lpu->ended);
	mr_lpu_slots_destroy(lpu);
	free(lpu->slots);
	free(lpu);
}

static void lpu_close(struct mr_device *dev)
{
	struct lpu *lpu = lpu_of(dev);

	mr_lpu_disable(lpu);
	mr_arena_remove_consumer(lpu->arena, lpu);
	lpu->bus->ops->close(lpu->bus);
	destroy(lpu);
}

static const struct mr_admin_ops admin_ops = {
	.reset = lpu_reset,
	.telemetry = lpu_telemetry,
	.close = lpu_close,
};
static const struct mr_memory_ops memory_ops = {
	.slot_open = mr_lpu_slot_open,
	.slot_close = mr_lpu_slot_close,
	.kv_export = mr_unsupported_kv_export,
	.kv_import = mr_lpu_kv_import,
	.kv_fork = mr_lpu_kv_fork,
};
static const struct mr_work_ops work_ops = {
	.load = mr_lpu_load,
	.prefill = mr_unsupported_prefill,
	.decode = mr_lpu_decode,
	.score = mr_lpu_score,
	.poll = mr_lpu_poll,
	.arm = mr_lpu_arm,
};

static uint32_t power_of_two(uint32_t at_least, uint32_t at_most)
{
	uint32_t n = 2;

	while (n < at_least && n * 2 <= at_most)
		n *= 2;
	return n;
}

static int bring_up(struct lpu *lpu)
{
	struct mr_caps *caps = &lpu->dev.caps;
	int status = mr_lpu_enable(lpu);

	if (!status)
		status = mr_lpu_read_identity(lpu);
	if (!status)
		status = mr_lpu_read_chip(lpu);
	/* The device's word on rings is known only now; they were made no larger than any may be. */
	if (!status && (lpu->entries > lpu->id.ring_entries_max ||
			lpu->record_entries > lpu->id.ring_entries_max))
		status = MR_E_NOT_SUPPORTED;
	if (!status)
		status = mr_lpu_start(lpu);
	if (status)
		return status;
	caps->slots = lpu->id.slots_max < lpu->entries / 2 ? lpu->id.slots_max : lpu->entries / 2;
	if (lpu->want_slots && lpu->want_slots < caps->slots)
		caps->slots = lpu->want_slots;
	lpu->slots = calloc(caps->slots, sizeof(*lpu->slots));
	if (!lpu->slots)
		return MR_E_NO_MEMORY;
	snprintf(caps->name, sizeof(caps->name), "lpu:%.16sx%u", lpu->id.product, lpu->id.chips);
	snprintf(caps->class_decode, sizeof(caps->class_decode), "%s", lpu->chip.classes);
	caps->stages = MR_STAGE_DECODE;
	if (lpu->id.opcodes_io & 1ull << (MR_LPU_SCORE & 63)) {
		caps->stages |= MR_STAGE_SCORE;
		caps->chunk_max = lpu->id.score_max;
	}
	caps->steps_max = lpu->id.steps_max;
	caps->cycle_ps = lpu->id.cycle_ps;
	lpu->dev.wait_fd = lpu->bus->ops->irq_fd(lpu->bus, IO_VECTOR);
	return lpu->dev.wait_fd < 0 ? lpu->dev.wait_fd : 0;
}

int mr_lpu_open(const struct mr_lpu_options *options, struct mr_device **dev)
{
	struct lpu *lpu = calloc(1, sizeof(*lpu));
	const struct mr_arena_consumer consumer = {map, unmap, lpu};
	int status;

	if (!lpu)
		return MR_E_NO_MEMORY;
	lpu->dev.admin = &admin_ops;
	lpu->dev.mem = &memory_ops;
	lpu->dev.work = &work_ops;
	lpu->dev.wait_fd = -1;
	lpu->arena = options->arena;
	lpu->bus = options->bus;
	lpu->timeout_ns = (options->timeout_ms ? options->timeout_ms : 5000) * 1000000;
	lpu->now_ns = options->now_ns ? options->now_ns : mr_lpu_monotonic_ns;
	lpu->clock_arg = options->clock_arg;
	lpu->coalesce = options->coalesce;
	lpu->no_shadow = options->no_shadow;
	lpu->log = options->log;
	lpu->log_arg = options->log_arg;
	mr_lpu_recover_init(lpu);
	lpu->want_slots = options->slots;
	lpu->want_context = options->context;
	lpu->want_batch = options->batch_max;
	uint32_t shift = lpu->bus->ops->reg_read(lpu->bus, MR_LPU_REG_CAPS) & 0xff;
	uint32_t largest = 1u << (shift < 16 ? shift : 16);
	uint32_t batch = options->batch_max ? options->batch_max : 64;
	lpu->entries =
		power_of_two(options->queue_entries ? options->queue_entries : 1024, largest);
	lpu->record_entries = power_of_two(batch > 256 ? batch * 4 : 1024, largest);
	if (options->slots > lpu->entries / 2)
		lpu->entries = power_of_two(options->slots * 2, largest);

	status = mr_arena_add_consumer(lpu->arena, &consumer);
	if (status) {
		destroy(lpu);
		return status;
	}
	status = mr_lpu_queue_init(lpu);
	if (!status)
		status = bring_up(lpu);
	if (status) {
		mr_lpu_disable(lpu);
		mr_arena_remove_consumer(lpu->arena, lpu);
		destroy(lpu);
		return status;
	}
	*dev = &lpu->dev;
	return 0;
}

const char *mr_lpu_why(const struct mr_device *dev)
{
	return ((const struct lpu *)dev)->why;
}

const struct mr_lpu_identify *mr_lpu_identity(const struct mr_device *dev)
{
	return &((const struct lpu *)dev)->id;
}
