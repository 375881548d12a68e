// SPDX-License-Identifier: Apache-2.0
/* The admin commands, and which function answers an I/O opcode. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "firmware-sim/device.h"
#include "firmware-sim/mutant.h"

/* Commands arrive as words; each opcode's struct has the same 64 bytes. */
#define AS(type, cmd)                                                         \
	struct type c;                                                        \
	_Static_assert(sizeof(c) == sizeof(*(cmd)), "a command is 64 bytes"); \
	memcpy(&c, cmd, sizeof(c))

static int identify(struct sim *sim, const struct mr_lpu_command *cmd, uint32_t *result)
{
	AS(mr_lpu_cmd_identify, cmd);
	struct mr_lpu_identify id = {
		.magic = MR_LPU_MAGIC,
		.version = MR_LPU_VERSION,
		.vendor = "millrace",
		.chips = sim->chips,
		.slots_max = sim->slots_max,
		.queues_max = SIM_IO_QUEUES,
		.ring_entries_max = SIM_RING_MAX,
		.batch_max = SIM_BATCH_MAX,
		.steps_max = SIM_STEPS_MAX,
		.context_max = SIM_CONTEXT_MAX,
		.kv_block_tokens = MR_KV_BLOCK_TOKENS,
		.kv_type = MR_LPU_KV_FP16,
		.chip_bytes = sim->chip_bytes,
		.sram_bytes = sim->chip.sram_bytes,
		.cycle_ps = sim->chip.cycle_ps,
		.score_max = SIM_SCORE_MAX,
		.async_max = SIM_ASYNC_MAX,
		.options = MR_LPU_OPTION_MASK,
		.top_max = SIM_TOP_MAX,
		.features = mr_sim_features_known(),
		.logs = mr_sim_logs_known(),
		.firmware_max = SIM_FIRMWARE_MAX,
		.firmware_slots = SIM_FIRMWARE_SLOTS,
		.opcodes_admin = 1ull << MR_LPU_IDENTIFY | 1ull << MR_LPU_QUEUE_CREATE |
				 1ull << MR_LPU_QUEUE_DELETE | 1ull << MR_LPU_GET_LOG |
				 1ull << MR_LPU_FEATURES | 1ull << MR_LPU_ASYNC_EVENT |
				 1ull << MR_LPU_ABORT | 1ull << MR_LPU_PROGRAM |
				 1ull << MR_LPU_FIRMWARE | 1ull << MR_LPU_RESET,
		.opcodes_io = 1ull << (MR_LPU_SLOT_SET & 63) | 1ull << (MR_LPU_KV_WRITE & 63) |
			      1ull << (MR_LPU_KV_READ & 63) | 1ull << (MR_LPU_KV_FORK & 63) |
			      1ull << (MR_LPU_KV_FREE & 63) | 1ull << (MR_LPU_DECODE & 63) |
			      1ull << (MR_LPU_SCORE & 63) | 1ull << (MR_LPU_FENCE & 63),
	};

	if (c.reserved0 || !mr_sim_zero(c.reserved, sizeof(c.reserved)))
		return MR_E_INVALID;
	if (!c.bytes || (c.bytes > sizeof(id) && !MUTANT(I_1)))
		return MR_E_RANGE;
	if (MUTANT(I_1) && c.bytes > sizeof(id))
		c.bytes = sizeof(id);
	if (MUTANT(I_3))
		memset(id.vendor, 'm', sizeof(id.vendor));
	if (MUTANT(I_4))
		id.firmware_slots = MR_LPU_FIRMWARE_SLOTS_MAX + 1;
	if (MUTANT(I_5))
		id.opcodes_io |= 1ull << (MR_LPU_EXEC & 63);
	if (MUTANT(I_7))
		id.context_max += sim->counters.commands & 1;
	if (MUTANT(T_17))
		id.options = 0;
	if (MUTANT(G_1))
		id.reserved[23] = 1;
	memcpy(id.product, sim->chip.name, sizeof(id.product));
	memcpy(id.firmware, sim->firmware.version[sim->firmware.running - 1], sizeof(id.firmware));
	memcpy(id.classes[0], sim->chip.classes, sizeof(id.classes[0]));
	memcpy(id.chip_hash, sim->chip.hash, sizeof(id.chip_hash));
	if (MUTANT(I_6))
		id.chip_hash[31] ^= 1;
	if (MUTANT(FW_8))
		memcpy(id.firmware, "other", 6);
	int status = mr_sim_dma_write(&sim->dma, c.iova, &id,
				      c.bytes + (MUTANT(I_2) && c.bytes < 500 ? 4 : 0));
	*result = status ? 0 : c.bytes;
	return status;
}

static int get_log(struct sim *sim, const struct mr_lpu_command *cmd, uint32_t *result)
{
	AS(mr_lpu_cmd_get_log, cmd);

	return mr_sim_get_log(sim, &c, result);
}

static int ring_ok(uint32_t entries, uint32_t least)
{
	return entries >= least && entries <= SIM_RING_MAX && !(entries & (entries - 1));
}

static int queue_create(struct sim *sim, const struct mr_lpu_command *cmd)
{
	AS(mr_lpu_cmd_queue_create, cmd);

	if (!mr_sim_zero(c.reserved, sizeof(c.reserved)))
		return MR_E_INVALID;
	if (!c.queue || c.queue > (MUTANT(FE_6) ? SIM_IO_QUEUES : sim->features.queues) ||
	    !ring_ok(c.entries, 2) || !ring_ok(c.record_entries, 2) || c.vector >= SIM_VECTORS ||
	    (c.sq_iova % 64 && !MUTANT(Q_17)) || c.cq_iova % 64 || c.record_iova % 64)
		return MR_E_RANGE;
	struct sim_queue *q = &sim->queue[c.queue];
	if (q->live)
		return MUTANT(Q_18) ? 0 : MR_E_EXISTS;
	memset(q, 0, sizeof(*q));
	int status = mr_sim_decode_create(&q->decode);
	if (!status)
		status = mr_sim_score_create(&q->score);
	q->aborted = calloc(c.entries, sizeof(*q->aborted));
	if (!status && !q->aborted)
		status = MR_E_NO_MEMORY;
	if (status) {
		mr_sim_queue_stop(sim, q);
		return status;
	}
	struct sim_doorbells *db = sim_doorbells_of(&sim->regs, c.queue);
	if (!MUTANT(Q_16))
		__atomic_store_n(&db->sq_tail, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&db->cq_head, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&db->record_head, 0, __ATOMIC_SEQ_CST);
	q->index = c.queue;
	q->entries = c.entries;
	q->record_entries = c.record_entries;
	q->vector = c.vector;
	q->sq_iova = c.sq_iova;
	q->cq_iova = c.cq_iova;
	q->record_iova = c.record_iova;
	q->live = 1;
	return 0;
}

static int queue_delete(struct sim *sim, const struct mr_lpu_command *cmd)
{
	AS(mr_lpu_cmd_queue_delete, cmd);

	if (c.reserved0 || !mr_sim_zero(c.reserved, sizeof(c.reserved)))
		return MR_E_INVALID;
	if (!c.queue || c.queue > SIM_IO_QUEUES)
		return MR_E_RANGE;
	if (!sim->queue[c.queue].live)
		return MUTANT(Q_19) ? 0 : MR_E_NOT_FOUND;
	mr_sim_queue_stop(sim, &sim->queue[c.queue]);
	return 0;
}

static int program(struct sim *sim, const struct mr_lpu_command *cmd)
{
	AS(mr_lpu_cmd_program, cmd);

	return mr_sim_program_command(sim, &c);
}

static int features(struct sim *sim, const struct mr_lpu_command *cmd, uint32_t *result)
{
	AS(mr_lpu_cmd_features, cmd);

	return mr_sim_features_command(sim, &c, result);
}

static int async_event(struct sim *sim, const struct mr_lpu_command *cmd)
{
	AS(mr_lpu_cmd_async_event, cmd);

	return mr_sim_async_event(sim, &c);
}

static int abort_command(struct sim *sim, const struct mr_lpu_command *cmd, uint32_t *result)
{
	AS(mr_lpu_cmd_abort, cmd);

	return mr_sim_abort(sim, &c, result);
}

static int firmware(struct sim *sim, const struct mr_lpu_command *cmd)
{
	AS(mr_lpu_cmd_firmware, cmd);

	return mr_sim_firmware_command(sim, &c);
}

static int reset(struct sim *sim, const struct mr_lpu_command *cmd)
{
	AS(mr_lpu_cmd_reset, cmd);

	if (c.reserved0 || !mr_sim_zero(c.reserved, sizeof(c.reserved)))
		return MR_E_INVALID;
	if (c.kind != MR_LPU_RESET_CONTROLLER && c.kind != MR_LPU_RESET_ALL)
		return MR_E_RANGE;
	sim->reset_asked = c.kind; /* once this has completed */
	return 0;
}

int mr_sim_admin_command(struct sim *sim, const struct mr_lpu_command *cmd, uint32_t *result)
{
	switch (cmd->head.opcode) {
	case MR_LPU_IDENTIFY:
		return identify(sim, cmd, result);
	case MR_LPU_QUEUE_CREATE:
		return queue_create(sim, cmd);
	case MR_LPU_QUEUE_DELETE:
		return queue_delete(sim, cmd);
	case MR_LPU_GET_LOG:
		return get_log(sim, cmd, result);
	case MR_LPU_PROGRAM:
		return program(sim, cmd);
	case MR_LPU_FEATURES:
		return features(sim, cmd, result);
	case MR_LPU_ASYNC_EVENT:
		return async_event(sim, cmd);
	case MR_LPU_ABORT:
		return abort_command(sim, cmd, result);
	case MR_LPU_FIRMWARE:
		return firmware(sim, cmd);
	case MR_LPU_RESET:
		return reset(sim, cmd);
	default:
		if ((MUTANT(C_6) && cmd->head.opcode == MR_LPU_FENCE) ||
		    (MUTANT(C_5) && cmd->head.opcode == 0x7f))
			return 0;
		return MR_E_NOT_SUPPORTED;
	}
}

static int slot_set(struct sim *sim, const struct mr_lpu_command *cmd)
{
	AS(mr_lpu_cmd_slot_set, cmd);

	return mr_sim_slot_set(sim, &c);
}

static int kv_write(struct sim *sim, struct sim_queue *q, const struct mr_lpu_command *cmd,
		    uint32_t *result)
{
	AS(mr_lpu_cmd_kv_write, cmd);

	return mr_sim_kv_write(sim, q, &c, result);
}

static int kv_read(struct sim *sim, const struct mr_lpu_command *cmd, uint32_t *result)
{
	AS(mr_lpu_cmd_kv_read, cmd);

	return mr_sim_kv_read(sim, &c, result);
}

static int kv_fork(struct sim *sim, const struct mr_lpu_command *cmd)
{
	AS(mr_lpu_cmd_kv_fork, cmd);

	return mr_sim_kv_fork(sim, &c);
}

static int kv_free(struct sim *sim, const struct mr_lpu_command *cmd)
{
	AS(mr_lpu_cmd_kv_free, cmd);

	return mr_sim_kv_free(sim, &c);
}

static int decode(struct sim *sim, struct sim_queue *q, const struct mr_lpu_command *cmd)
{
	AS(mr_lpu_cmd_decode, cmd);

	return mr_sim_decode_begin(sim, q, &c);
}

static int score(struct sim *sim, struct sim_queue *q, const struct mr_lpu_command *cmd)
{
	AS(mr_lpu_cmd_score, cmd);

	return mr_sim_score_begin(sim, q, &c);
}

int mr_sim_io_command(struct sim *sim, struct sim_queue *q, const struct mr_lpu_command *cmd,
		      uint32_t *result)
{
	switch (cmd->head.opcode) {
	case MR_LPU_SLOT_SET:
		return slot_set(sim, cmd);
	case MR_LPU_KV_WRITE:
		return kv_write(sim, q, cmd, result);
	case MR_LPU_KV_READ:
		return kv_read(sim, cmd, result);
	case MR_LPU_KV_FORK:
		return kv_fork(sim, cmd);
	case MR_LPU_KV_FREE:
		return kv_free(sim, cmd);
	case MR_LPU_DECODE:
		return decode(sim, q, cmd);
	case MR_LPU_SCORE:
		return score(sim, q, cmd);
	case MR_LPU_FENCE:
		return mr_sim_zero(cmd->word, sizeof(cmd->word)) || MUTANT(C_7) ? 0 : MR_E_INVALID;
	default:
		return MR_E_NOT_SUPPORTED;
	}
}

void mr_sim_disable(struct sim *sim)
{
	for (uint32_t i = 0; i <= SIM_IO_QUEUES; i++)
		if (sim->queue[i].live)
			mr_sim_queue_stop(sim, &sim->queue[i]);
	if (!MUTANT(R_7))
		mr_sim_kv_forget(&sim->kv);
	if (!MUTANT(FE_4))
		mr_sim_features_reset(&sim->features);
	sim->events = (struct sim_events){0};
	mr_sim_firmware_reset(&sim->firmware);
	mr_sim_inject_reset(sim, 0);
	sim->fatal = sim->reset_asked = 0;
	sim->log.resets++;
}
