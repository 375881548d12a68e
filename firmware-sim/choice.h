/* SPDX-License-Identifier: Apache-2.0 */
/* What DECODE may be asked for at SAMPLE beside the token: a mask of allowed tokens, and the n best. */
#ifndef MR_FIRMWARE_SIM_CHOICE_H
#define MR_FIRMWARE_SIM_CHOICE_H

#include <stdint.h>

#include <millrace/lpu_spec.h>

#define SIM_TOP_MAX 32u

struct sim;

/* Scratch for a program's vocabulary. */
struct sim_choice {
	float *logits;
	uint32_t *allowed;
	uint32_t words; /* of allowed */
};

int mr_sim_choice_create(struct sim_choice *c, uint32_t vocab);
void mr_sim_choice_destroy(struct sim_choice *c);
/*
 * Reads the mask at @iova for the token at @position: 0, MR_E_MASK_LATE, MR_E_RANGE (it allows none) or
 * MR_E_DMA_FAULT. mr_sim_choice_apply then gives a copy of @logits in which the others cannot be chosen.
 */
int mr_sim_choice_read(struct sim *sim, uint64_t iova, uint32_t position);
const float *mr_sim_choice_apply(struct sim *sim, const float *logits);
/* Writes the @n best of @logits to @iova. */
int mr_sim_choice_top(struct sim *sim, const float *logits, uint32_t n, uint64_t iova);

#endif /* MR_FIRMWARE_SIM_CHOICE_H */
