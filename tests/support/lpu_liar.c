// SPDX-License-Identifier: Apache-2.0
#include "support/lpu_liar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "driver/bus/bus.h"
#include "driver/lpu/lpu.h"
#include "firmware-sim/chips.h"
#include "userlib/spec/chip.h"

void *liar_at(struct liar *l, uint64_t iova)
{
	for (int i = 0; i < 32; i++)
		if (l->map[i].base && iova - l->map[i].iova < l->map[i].bytes)
			return l->map[i].base + (iova - l->map[i].iova);
	fail_msg("IOVA %llx is not mapped", (unsigned long long)iova);
	return NULL;
}

void liar_say(struct liar *l, uint32_t q, uint32_t request, uint16_t status, uint32_t result)
{
	uint32_t entries = q ? l->io.entries : 16;
	struct mr_lpu_completion *c = liar_at(l, q ? l->io.cq_iova : l->admin_cq);

	c[l->done[q] % entries] =
		(struct mr_lpu_completion){request, result, 0, status, !(l->done[q] / entries & 1)};
	l->done[q]++;
}

static struct mr_lpu_record *put(struct liar *l, struct mr_lpu_record record)
{
	struct mr_lpu_record *r = liar_at(l, l->io.record_iova);

	r += l->record % l->io.record_entries;
	record.phase = l->record++ / l->io.record_entries + 1;
	*r = record;
	return r;
}

struct mr_lpu_record *liar_put(struct liar *l, const struct mr_lpu_cmd_decode *c, uint32_t step)
{
	const struct mr_lpu_decode_entry *e = liar_at(l, c->entries_iova);

	return put(l, (struct mr_lpu_record){.cycle = step + 1,
					     .token = 1,
					     .position = e->position + 1 + step,
					     .generation = e->generation,
					     .slot = (uint16_t)e->slot});
}

struct mr_lpu_record *liar_put_score(struct liar *l, const struct mr_lpu_cmd_score *c, uint32_t i)
{
	const uint32_t *tokens = liar_at(l, c->tokens_iova);

	return put(l, (struct mr_lpu_record){.cycle = i + 1,
					     .token = tokens[i + 1],
					     .position = c->position + 1 + i,
					     .generation = c->generation,
					     .slot = (uint16_t)c->slot});
}

static void admin(struct liar *l, const struct mr_lpu_command *cmd)
{
	const struct mr_sim_builtin_chip *chip = mr_sim_builtin_chip("tiny");
	const struct mr_lpu_cmd_identify *identify = (const void *)cmd;
	const struct mr_lpu_cmd_get_log *log = (const void *)cmd;
	uint32_t result = 0;

	if (cmd->head.opcode == MR_LPU_ASYNC_EVENT ||
	    (cmd->head.opcode == MR_LPU_GET_LOG && log->log != MR_LPU_LOG_CHIP)) {
		if (l->event)
			l->event(l, cmd);
		return;
	}
	if (cmd->head.opcode == MR_LPU_ABORT && l->abort)
		l->abort(l, (const void *)cmd);
	l->loads += cmd->head.opcode == MR_LPU_PROGRAM;
	if (cmd->head.opcode == MR_LPU_IDENTIFY)
		memcpy(liar_at(l, identify->iova), &l->id, sizeof(l->id));
	if (cmd->head.opcode == MR_LPU_GET_LOG) {
		result = (uint32_t)(chip->end - chip->text);
		memcpy(liar_at(l, identify->iova), chip->text, result);
	}
	if (cmd->head.opcode == MR_LPU_QUEUE_CREATE)
		memcpy(&l->io, cmd, sizeof(l->io));
	liar_say(l, 0, cmd->head.request, 0, result);
}

static void liar_doorbell(void *ctx, uint32_t q, uint32_t offset, uint32_t value)
{
	struct liar *l = ctx;

	for (; offset == MR_LPU_DB_SQ_TAIL && l->head[q] != value; l->head[q]++) {
		const struct mr_lpu_command *sq = liar_at(l, q ? l->io.sq_iova : l->admin_sq);
		const struct mr_lpu_command *c = &sq[l->head[q] % (q ? l->io.entries : 16)];
		if (!q)
			admin(l, c);
		else if (c->head.opcode == MR_LPU_DECODE)
			l->decode(l, (const void *)c);
		else if (c->head.opcode == MR_LPU_SCORE)
			l->score(l, (const void *)c);
		else if (c->head.opcode == MR_LPU_KV_READ)
			l->read(l, (const void *)c);
		else
			liar_say(l, 1, c->head.request, 0, 0);
	}
}

static uint32_t liar_read(void *ctx, uint32_t offset)
{
	struct liar *l = ctx;

	if (l->gone)
		return UINT32_MAX;
	if (offset == MR_LPU_REG_HEARTBEAT)
		return l->beat += l->beats;
	return offset == MR_LPU_REG_MAGIC        ? (l->magic ? l->magic : MR_LPU_MAGIC)
	       : offset == MR_LPU_REG_VERSION    ? (l->version ? l->version : MR_LPU_VERSION)
	       : offset == MR_LPU_REG_CAPS       ? 14
	       : offset == MR_LPU_REG_STATUS     ? l->ready | (l->ready ? l->fatal : 0)
	       : offset == MR_LPU_REG_TIMEOUT_MS ? 100
						 : 0;
}

static void liar_write(void *ctx, uint32_t offset, uint32_t value)
{
	struct liar *l = ctx;

	if (offset == MR_LPU_REG_CONTROL && !l->stuck) {
		l->ready = value;
		memset(l->head, 0, sizeof(l->head));
		memset(l->done, 0, sizeof(l->done));
		l->record = 0;
	}
	if (offset == MR_LPU_REG_ADMIN_SQ_LO)
		l->admin_sq = value;
	if (offset == MR_LPU_REG_ADMIN_SQ_HI)
		l->admin_sq |= (uint64_t)value << 32;
	if (offset == MR_LPU_REG_ADMIN_CQ_LO)
		l->admin_cq = value;
	if (offset == MR_LPU_REG_ADMIN_CQ_HI)
		l->admin_cq |= (uint64_t)value << 32;
}

static int liar_map(void *ctx, uint64_t iova, void *base, size_t bytes, uint32_t access)
{
	struct liar *l = ctx;
	int i = 0;

	while (l->map[i].base)
		i++;
	l->map[i].iova = iova;
	l->map[i].base = base;
	l->map[i].bytes = bytes;
	return 0;
}

static int liar_unmap(void *ctx, uint64_t iova)
{
	return 0;
}

static int liar_irq(void *ctx, uint32_t vector, int fd)
{
	return 0;
}

static int liar_reset(void *ctx)
{
	struct liar *l = ctx;

	l->resets++;
	if (l->stuck != 1)
		return l->stuck || l->gone ? MR_E_TIMEOUT : 0;
	l->stuck = 0;
	liar_write(l, MR_LPU_REG_CONTROL, 0);
	return 0;
}

static void liar_close(void *ctx)
{
}

static const struct mr_lpu_port_ops liar_ops = {
	liar_read,  liar_write, liar_doorbell, liar_map,
	liar_unmap, liar_irq,   liar_reset,    liar_close,
};

int liar_open(struct liar *l, struct mr_arena *arena, struct mr_device **dev)
{
	const struct mr_sim_builtin_chip *text = mr_sim_builtin_chip("tiny");
	struct mr_lpu_port port = {&liar_ops, l};
	struct mr_chip chip;
	struct mr_bus *bus;

	assert_int_equal(
		mr_chip_parse(text->text, (size_t)(text->end - text->text), &chip, NULL, 0), 0);
	if (!l->id.magic)
		l->id = (struct mr_lpu_identify){
			.magic = MR_LPU_MAGIC,
			.version = MR_LPU_VERSION,
			.product = "liar",
			.chips = 2,
			.slots_max = 4,
			.queues_max = 1,
			.ring_entries_max = 4096,
			.batch_max = 8,
			.steps_max = 8,
			.context_max = 128,
			.kv_block_tokens = 16,
			.kv_type = MR_LPU_KV_FP16,
			.chip_bytes = (uint32_t)(text->end - text->text),
			.cycle_ps = 1000,
			.opcodes_io = 1ull << (MR_LPU_SCORE & 63),
			.score_max = 8,
		};
	memcpy(l->id.chip_hash, chip.hash, 32);
	l->id.chip_hash[7] ^= l->hash;
	assert_int_equal(mr_bus_local_open(&port, &bus), 0);
	struct mr_lpu_options o = {.arena = arena,
				   .bus = bus,
				   .context = 64,
				   .timeout_ms = 50,
				   .now_ns = l->now_ns,
				   .clock_arg = l};
	int status = mr_lpu_open(&o, dev);
	if (status)
		bus->ops->close(bus);
	return status;
}
