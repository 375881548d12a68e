/* SPDX-License-Identifier: Apache-2.0 */
/* Shadow doorbells: indices that the device reads from host memory, and its word that it sleeps. */
#ifndef MR_FIRMWARE_SIM_SHADOW_H
#define MR_FIRMWARE_SIM_SHADOW_H

#include <stdint.h>

struct sim;

/* 0, or MR_E_DMA_FAULT where the array at @iova is not mapped for reading and writing. */
int mr_sim_shadow_check(struct sim *sim, uint64_t iova);
/* Queue @index's sq_tail, cq_head and record_head; 0, or a crash: they could not be reached. */
int mr_sim_shadow_read(struct sim *sim, uint32_t index, uint32_t word[3]);
/* Writes every live queue's asleep word; a full fence lies between it and whatever is read next. */
void mr_sim_shadow_asleep(struct sim *sim, uint32_t asleep);

#endif /* MR_FIRMWARE_SIM_SHADOW_H */
