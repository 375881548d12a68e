/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The walker of payload `reference`: runs one step for a batch over the payload's list of layers, with
 * weights and KV where they lie in SRAM. The one object of the simulator that knows what a layer is.
 */
#ifndef MR_FIRMWARE_SIM_WALKER_H
#define MR_FIRMWARE_SIM_WALKER_H

#include <stdint.h>

#include "firmware-sim/sram.h"
#include "userlib/spec/container.h"

struct mr_kernels;
struct walker;

struct walker_row {
	uint32_t token;
	uint32_t position;
	uint8_t *const *kv; /* [chips][stride] blocks of the sequence */
	uint32_t stride;
};

/* For a verified container, which must stay. Rows: up to its batch. 0 or MR_E_NO_MEMORY. */
int mr_walker_create(const struct mr_container *c, const struct sim_sram *sram,
		     const struct mr_kernels *kernels, struct walker **walker);
void mr_walker_destroy(struct walker *walker);

/* Writes KV of every row and returns logits (n, vocab), the walker's until the next step. */
const float *mr_walker_step(struct walker *walker, const struct walker_row *rows, uint32_t n);

#endif /* MR_FIRMWARE_SIM_WALKER_H */
