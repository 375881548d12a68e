// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/log.h"

#include <time.h>

#include "firmware-sim/device.h"

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

void mr_sim_log_start(struct sim_log *log)
{
	log->power_on_ms = now_ms();
}

void mr_sim_log_error(struct sim_log *log, const struct sim_queue *q, uint32_t request, int status)
{
	struct mr_lpu_error *e = &log->error[log->errors % MR_LPU_ERRORS_MAX];

	*e = (struct mr_lpu_error){
		.number = ++log->errors,
		.time_ms = now_ms() - log->power_on_ms,
		.request = request,
		.queue = (uint16_t)q->index,
		.opcode = q->opcode,
		.status = (uint16_t)-status,
	};
}

static struct mr_lpu_counters counters_of(const struct sim *sim)
{
	struct mr_lpu_counters c = sim->counters;

	c.dma_faults = sim->dma.faults;
	c.dma_read_bytes = sim->dma.read_bytes;
	c.dma_write_bytes = sim->dma.write_bytes;
	c.kv_blocks = sim->kv.blocks;
	c.kv_blocks_used = sim->kv.blocks - sim->kv.free_count;
	c.kv_blocks_shared = sim->kv.shared;
	return c;
}

/* The latest errors in order, to @out; how many. */
static uint32_t errors_of(const struct sim_log *log, struct mr_lpu_error *out)
{
	uint32_t n = log->errors < MR_LPU_ERRORS_MAX ? (uint32_t)log->errors : MR_LPU_ERRORS_MAX;

	for (uint32_t i = 0; i < n; i++)
		out[i] = log->error[(log->errors - n + i) % MR_LPU_ERRORS_MAX];
	return n;
}

int mr_sim_get_log(struct sim *sim, const struct mr_lpu_cmd_get_log *cmd, uint32_t *result)
{
	struct mr_lpu_error errors[MR_LPU_ERRORS_MAX];
	struct mr_lpu_counters counters;
	struct mr_lpu_health health;
	const void *log;
	uint64_t bytes;

	if (!mr_sim_zero(cmd->reserved, sizeof(cmd->reserved)))
		return MR_E_INVALID;
	switch (cmd->log) {
	case MR_LPU_LOG_COUNTERS:
		counters = counters_of(sim);
		log = &counters;
		bytes = sizeof(counters);
		break;
	case MR_LPU_LOG_CHIP:
		log = sim->chip_text;
		bytes = sim->chip_bytes;
		break;
	case MR_LPU_LOG_ERRORS:
		log = errors;
		bytes = errors_of(&sim->log, errors) * sizeof(errors[0]);
		break;
	case MR_LPU_LOG_HEALTH:
		/* Nothing here has a temperature, draws power or loses bits. */
		health = (struct mr_lpu_health){
			.uptime_ms = now_ms() - sim->log.power_on_ms,
			.errors = sim->log.errors,
			.chips_up = sim->chips,
			.resets = sim->log.resets,
		};
		log = &health;
		bytes = sizeof(health);
		break;
	default:
		return MR_E_NOT_SUPPORTED;
	}
	if (cmd->offset > bytes)
		return MR_E_RANGE;
	bytes -= cmd->offset;
	if (bytes > cmd->bytes)
		bytes = cmd->bytes;
	*result = (uint32_t)bytes;
	return bytes ? mr_sim_dma_write(&sim->dma, cmd->iova, (const char *)log + cmd->offset,
					bytes)
		     : 0;
}
