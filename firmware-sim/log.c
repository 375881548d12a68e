// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/log.h"

#include <time.h>

#include "firmware-sim/device.h"
#include "firmware-sim/mutant.h"

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
	if (MUTANT(L_9) && log->errors % 8 == 0)
		e->number++;
}

uint64_t mr_sim_uptime_ms(const struct sim *sim)
{
	return now_ms() - sim->log.power_on_ms;
}

uint64_t mr_sim_logs_known(void)
{
	uint64_t known = 0;

	for (uint32_t n = MR_LPU_LOG_COUNTERS; n <= MR_LPU_LOG_POWER; n++)
		known |= 1ull << n;
	return known;
}

static struct mr_lpu_counters counters_of(const struct sim *sim)
{
	struct mr_lpu_counters c = sim->counters;

	c.dma_faults = sim->dma.faults;
	c.dma_read_bytes = sim->dma.read_bytes;
	c.dma_write_bytes = sim->dma.write_bytes;
	c.kv_blocks = sim->kv.blocks;
	c.kv_blocks_used =
		sim->kv.blocks - sim->kv.free_count + (MUTANT(F_14) ? sim->kv.shared : 0);
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

static struct mr_lpu_health health_of(const struct sim *sim)
{
	const struct sim_sense *s = &sim->sense;

	return (struct mr_lpu_health){
		.uptime_ms = mr_sim_uptime_ms(sim),
		.errors = sim->log.errors + MUTANT(L_10),
		.ecc_corrected = s->was_corrected,
		.ecc_uncorrected = s->was_uncorrected,
		.power_mw = s->used_mw,
		.temperature_mk = s->was_mk,
		.chips_up = sim->chips,
		.resets = sim->log.resets,
	};
}

/* Room for any log but the chip file's text. */
union page {
	struct mr_lpu_counters counters;
	struct mr_lpu_error errors[MR_LPU_ERRORS_MAX];
	struct mr_lpu_health health;
	struct mr_lpu_firmware_log firmware;
	struct mr_lpu_power power;
};

/* Where log @log lies now, and its length; NULL = it is not known. */
static const void *find(struct sim *sim, uint32_t log, union page *page, uint64_t *bytes)
{
	switch (log) {
	case MR_LPU_LOG_COUNTERS:
		page->counters = counters_of(sim);
		*bytes = sizeof(page->counters);
		return page;
	case MR_LPU_LOG_CHIP:
		*bytes = sim->chip_bytes;
		return sim->chip_text;
	case MR_LPU_LOG_ERRORS:
		*bytes = errors_of(&sim->log, page->errors) * sizeof(page->errors[0]);
		return page;
	case MR_LPU_LOG_HEALTH:
		page->health = health_of(sim);
		*bytes = sizeof(page->health);
		return page;
	case MR_LPU_LOG_FIRMWARE:
		mr_sim_firmware_log(&sim->firmware, &page->firmware);
		*bytes = sizeof(page->firmware);
		return page;
	case MR_LPU_LOG_CRASH:
		*bytes = sim->sense.crash.number || MUTANT(L_12) ? sizeof(sim->sense.crash) : 0;
		return &sim->sense.crash;
	case MR_LPU_LOG_POWER:
		mr_sim_sense_power(sim, mr_sim_uptime_ms(sim), &page->power);
		*bytes = sizeof(page->power);
		return page;
	default:
		return NULL;
	}
}

int mr_sim_get_log(struct sim *sim, const struct mr_lpu_cmd_get_log *cmd, uint32_t *result)
{
	union page page;
	uint64_t bytes;
	int status = 0;

	if (!mr_sim_zero(cmd->reserved, sizeof(cmd->reserved)))
		return MR_E_INVALID;
	const char *log = find(sim, cmd->log, &page, &bytes);
	if (!log)
		return MUTANT(L_1) ? MR_E_RANGE : MR_E_NOT_SUPPORTED;
	if (cmd->offset > bytes)
		return MUTANT(L_2) ? 0 : MR_E_RANGE;
	bytes -= cmd->offset;
	if (bytes > cmd->bytes + (MUTANT(L_3) ? 1 : 0))
		bytes = cmd->bytes + (MUTANT(L_3) ? 1 : 0);
	if (bytes)
		status = mr_sim_dma_write(&sim->dma, cmd->iova,
					  MUTANT(L_4) ? log : log + cmd->offset, bytes);
	if (status)
		return status;
	*result = (uint32_t)bytes;
	if (!MUTANT(EV_4))
		mr_sim_events_heard(sim, cmd->log);
	if (cmd->log == MR_LPU_LOG_CRASH)
		sim->sense.crash_heard = sim->sense.crash.number;
	return 0;
}
