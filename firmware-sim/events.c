// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/events.h"

#include "firmware-sim/device.h"
#include "firmware-sim/mutant.h"

static const uint8_t log_of[8] = {
	[MR_LPU_EVENT_DOORBELL] = MR_LPU_LOG_COUNTERS, [MR_LPU_EVENT_ERROR] = MR_LPU_LOG_ERRORS,
	[MR_LPU_EVENT_TEMPERATURE] = MR_LPU_LOG_POWER, [MR_LPU_EVENT_ECC] = MR_LPU_LOG_HEALTH,
	[MR_LPU_EVENT_FIRMWARE] = MR_LPU_LOG_FIRMWARE, [MR_LPU_EVENT_CRASH] = MR_LPU_LOG_CRASH,
};

int mr_sim_async_event(struct sim *sim, const struct mr_lpu_cmd_async_event *cmd)
{
	struct sim_events *e = &sim->events;

	if (!mr_sim_zero(cmd->reserved, sizeof(cmd->reserved)))
		return MR_E_INVALID;
	if (e->count == SIM_ASYNC_MAX - MUTANT(EV_1))
		return MR_E_FULL;
	e->request[e->count++] = cmd->head.request;
	return SIM_RUNNING;
}

void mr_sim_event(struct sim *sim, uint32_t type, uint32_t info)
{
	if (!(sim->features.events >> type & 1) && !MUTANT(EV_5))
		return;
	sim->events.waiting |= 1u << type;
	if (!MUTANT(EV_3))
		sim->events.info[type] = (uint16_t)info;
}

static uint32_t take_request(struct sim_events *e, uint32_t i)
{
	uint32_t request = e->request[i];

	for (e->count--; i < e->count; i++)
		e->request[i] = e->request[i + 1];
	return request;
}

int mr_sim_events_ready(const struct sim *sim)
{
	const struct sim_events *e = &sim->events;

	return e->count && e->waiting & ~e->silent && mr_sim_queue_room(&sim->queue[0]);
}

void mr_sim_events_run(struct sim *sim)
{
	struct sim_events *e = &sim->events;

	while (mr_sim_events_ready(sim)) {
		uint32_t type = (uint32_t)__builtin_ctz(e->waiting & ~e->silent);
		e->waiting &= ~(1u << type);
		e->silent |= 1u << type;
		sim->counters.events++;
		mr_sim_queue_complete(
			sim, &sim->queue[0], take_request(e, 0), 0,
			MR_LPU_EVENT(type, log_of[type] + MUTANT(EV_6), e->info[type]));
	}
}

void mr_sim_events_heard(struct sim *sim, uint32_t log)
{
	for (uint32_t type = 0; type < 8; type++)
		if (log_of[type] == log)
			sim->events.silent &= ~(1u << type);
}

int mr_sim_events_abort(struct sim *sim, uint32_t target)
{
	struct sim_events *e = &sim->events;

	for (uint32_t i = 0; i < e->count; i++) {
		/* Both this completion and ABORT's own need a place. */
		if (e->request[i] != target || mr_sim_queue_room(&sim->queue[0]) < 2)
			continue;
		mr_sim_queue_complete(sim, &sim->queue[0], take_request(e, i), MR_E_CANCELLED, 0);
		return 1;
	}
	return 0;
}
