/* SPDX-License-Identifier: Apache-2.0 */
/* FEATURES: values that the host reads and sets, back at their reset values after each reset. */
#ifndef MR_FIRMWARE_SIM_FEATURES_H
#define MR_FIRMWARE_SIM_FEATURES_H

#include <stdint.h>

#include <millrace/lpu_spec.h>

struct sim;

struct sim_features {
	uint32_t queues, heartbeat_ms, over_mk, under_mk, events;
	uint32_t coalesce[5]; /* by queue; SIM_IO_QUEUES + 1 */
	uint32_t shadow;      /* 1 = indices come from shadow_iova, see shadow.c */
	uint64_t shadow_iova;
};

void mr_sim_features_reset(struct sim_features *f);
/* identify.features */
uint64_t mr_sim_features_known(void);
int mr_sim_features_command(struct sim *sim, const struct mr_lpu_cmd_features *cmd,
			    uint32_t *result);

#endif /* MR_FIRMWARE_SIM_FEATURES_H */
