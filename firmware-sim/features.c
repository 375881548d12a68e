// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/features.h"

#include "firmware-sim/device.h"
#include "firmware-sim/mutant.h"

_Static_assert(sizeof(((struct sim_features *)0)->coalesce) / sizeof(uint32_t) == SIM_IO_QUEUES + 1,
	       "a value a queue");

void mr_sim_features_reset(struct sim_features *f)
{
	*f = (struct sim_features){
		.queues = SIM_IO_QUEUES,
		.heartbeat_ms = 1000,
		.over_mk = 358150,
		.events = MR_LPU_EVENTS_ALL,
	};
}

uint64_t mr_sim_features_known(void)
{
	uint64_t known = 0;

	for (uint32_t n = MR_LPU_FEATURE_QUEUES; n <= MR_LPU_FEATURE_SHADOW; n++)
		known |= 1ull << n;
	return known;
}

static uint32_t *word_of(struct sim_features *f, const struct mr_lpu_cmd_features *cmd)
{
	switch (cmd->feature) {
	case MR_LPU_FEATURE_QUEUES:
		return &f->queues;
	case MR_LPU_FEATURE_COALESCE:
		return &f->coalesce[cmd->queue];
	case MR_LPU_FEATURE_HEARTBEAT_MS:
		return &f->heartbeat_ms;
	case MR_LPU_FEATURE_TEMP_OVER_MK:
		return &f->over_mk;
	case MR_LPU_FEATURE_TEMP_UNDER_MK:
		return &f->under_mk;
	case MR_LPU_FEATURE_EVENTS:
		return &f->events;
	default:
		return &f->shadow;
	}
}

static int set_queues(struct sim *sim, uint32_t value)
{
	for (uint32_t q = 1; q <= SIM_IO_QUEUES; q++)
		if (sim->queue[q].live && !MUTANT(FE_5))
			return MR_E_BUSY;
	return (value && value <= SIM_IO_QUEUES) || MUTANT(FE_2) ? 0 : MR_E_RANGE;
}

static int coalesce_ok(uint32_t value)
{
	uint32_t us = MR_LPU_COALESCE_US(value);

	return MR_LPU_COALESCE_ENTRIES(value) ? us && us <= MR_LPU_COALESCE_US_MAX : !us;
}

/* May the feature take the value? */
static int check(struct sim *sim, const struct mr_lpu_cmd_features *cmd)
{
	switch (cmd->feature) {
	case MR_LPU_FEATURE_QUEUES:
		return set_queues(sim, cmd->value);
	case MR_LPU_FEATURE_COALESCE:
		return coalesce_ok(cmd->value) ? 0 : MR_E_RANGE;
	case MR_LPU_FEATURE_HEARTBEAT_MS:
		return cmd->value >= 10 && cmd->value <= 60000 ? 0 : MR_E_RANGE;
	case MR_LPU_FEATURE_EVENTS:
		return cmd->value & ~MR_LPU_EVENTS_ALL ? MR_E_RANGE : 0;
	case MR_LPU_FEATURE_SHADOW:
		if (cmd->value > 1 || cmd->iova % 64)
			return MR_E_RANGE;
		return cmd->value ? mr_sim_shadow_check(sim, cmd->iova) : 0;
	default:
		return 0;
	}
}

int mr_sim_features_command(struct sim *sim, const struct mr_lpu_cmd_features *cmd,
			    uint32_t *result)
{
	int sets = cmd->action == MR_LPU_FEATURE_SET, status;
	int of_queue = cmd->feature == MR_LPU_FEATURE_COALESCE;

	if (!mr_sim_zero(cmd->reserved, sizeof(cmd->reserved)) || (!sets && cmd->value) ||
	    (!of_queue && cmd->queue) ||
	    (cmd->iova && !(sets && cmd->feature == MR_LPU_FEATURE_SHADOW && cmd->value)))
		return MR_E_INVALID;
	if (!cmd->feature || cmd->feature > MR_LPU_FEATURE_SHADOW)
		return MUTANT(FE_1) ? MR_E_RANGE : MR_E_NOT_SUPPORTED;
	if ((!sets && cmd->action != MR_LPU_FEATURE_GET) || cmd->queue > SIM_IO_QUEUES ||
	    (of_queue && !cmd->queue))
		return MR_E_RANGE;
	if (of_queue && !sim->queue[cmd->queue].live && !MUTANT(FE_7))
		return MR_E_NOT_FOUND;
	status = sets ? check(sim, cmd) : 0;
	if (status)
		return status;
	uint32_t *word = word_of(&sim->features, cmd);
	if (sets && !(MUTANT(FE_3) && cmd->feature == MR_LPU_FEATURE_HEARTBEAT_MS))
		*word = cmd->value;
	if (sets && cmd->feature == MR_LPU_FEATURE_SHADOW)
		sim->features.shadow_iova = cmd->iova;
	*result = *word;
	return 0;
}
