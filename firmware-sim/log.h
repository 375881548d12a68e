/* SPDX-License-Identifier: Apache-2.0 */
/* GET_LOG: counters, the chip file, the latest errors, health, firmware, crash dump, power. */
#ifndef MR_FIRMWARE_SIM_LOG_H
#define MR_FIRMWARE_SIM_LOG_H

#include <stdint.h>

#include <millrace/lpu_spec.h>

struct sim;
struct sim_queue;

struct sim_log {
	uint64_t power_on_ms; /* CLOCK_MONOTONIC */
	uint64_t errors;
	uint32_t resets;
	struct mr_lpu_error error[MR_LPU_ERRORS_MAX]; /* entry n at (n - 1) mod the size */
};

void mr_sim_log_start(struct sim_log *log);
uint64_t mr_sim_uptime_ms(const struct sim *sim);
uint64_t mr_sim_logs_known(void); /* identify.logs */
/* Enters a command of @q that ended with @status. */
void mr_sim_log_error(struct sim_log *log, const struct sim_queue *q, uint32_t request, int status);
int mr_sim_get_log(struct sim *sim, const struct mr_lpu_cmd_get_log *cmd, uint32_t *result);

#endif /* MR_FIRMWARE_SIM_LOG_H */
