/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What hardware would feel: temperature, power, ECC, and a firmware that asserts. Any thread sets them by
 * sim.h's calls; the device's thread makes logs, events and crashes of them.
 */
#ifndef MR_FIRMWARE_SIM_SENSE_H
#define MR_FIRMWARE_SIM_SENSE_H

#include <stdint.h>

#include <millrace/lpu_spec.h>

struct sim;
struct sim_queue;

struct sim_sense {
	/* any thread, atomic */
	uint32_t changed; /* 1 = the device's thread has not looked yet */
	uint32_t temperature_mk, power_mw, asserts;
	uint64_t ecc_corrected, ecc_uncorrected;
	/* the device thread's */
	uint32_t was_mk, peak_mk, peak_mw, used_mw;
	uint64_t was_corrected, was_uncorrected;
	uint64_t energy_uj, energy_ms; /* up to when */
	struct mr_lpu_crash crash;     /* number 0 = there was none */
	uint64_t crash_heard;          /* number of the one whose log was read */
};

/* Takes what has changed. Returns 1 where something has. */
int mr_sim_sense_run(struct sim *sim);
void mr_sim_sense_power(struct sim *sim, uint64_t now_ms, struct mr_lpu_power *out);
/* The device gives up: STATUS.FATAL, and a dump for MR_LPU_LOG_CRASH. @q: that was served, or NULL. */
void mr_sim_crash(struct sim *sim, uint32_t cause, const struct sim_queue *q, uint64_t iova,
		  const char *text);

#endif /* MR_FIRMWARE_SIM_SENSE_H */
