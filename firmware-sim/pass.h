/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pass: one token of each of some slots through the active program, whatever its payload. What DECODE's steps and
 * SCORE's passes have in common.
 */
#ifndef MR_FIRMWARE_SIM_PASS_H
#define MR_FIRMWARE_SIM_PASS_H

#include <stdint.h>

struct sim;
struct sim_slot;

struct sim_row {
	const struct sim_slot *slot;
	uint32_t token, position;
	uint32_t idle; /* 1 = keeps its place and its cycles, nobody wants its logits */
};

/* Of the latest pass; [rows], from ACTIVATE on. */
struct sim_pass {
	uint64_t cycles;
	uint64_t *record;     /* cycle of the row's record, from the pass's start */
	const float **logits; /* of a row that is not idle; until the next pass */
	struct exec_slot *slots;
	struct walker_row *walk;
	uint32_t *blocks;
};

/* For the active-to-be program: its walker or executor and the pass's arrays. 0 or a status. */
int mr_sim_pass_create(struct sim *sim);
void mr_sim_pass_destroy(struct sim *sim);

/* Runs @n rows: writes their KV and fills sim->pass. 0 or MR_E_SCHEDULE_VIOLATION. */
int mr_sim_pass(struct sim *sim, const struct sim_row *rows, uint32_t n);

/*
 * Takes @text, `UNIT.latency=+N` or `-N` (mem, mxm, vxm, c2c: cycles more or less than the chip file says), into the timing
 * that the executor runs by. 0 or MR_E_INVALID.
 */
int mr_sim_perturb(struct sim *sim, const char *text);

#endif /* MR_FIRMWARE_SIM_PASS_H */
