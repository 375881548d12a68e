/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The device's cycle count: what a step costs on the chip, executed operation by operation for the batch at
 * hand. It follows the statement of the first cost model (driver/compile/cost.h gives it in words), in
 * code of its own, so that the compiler's CLAIM is a prediction that can fail.
 */
#ifndef MR_FIRMWARE_SIM_CLOCK_H
#define MR_FIRMWARE_SIM_CLOCK_H

#include "userlib/spec/container.h"

/* Cycles from a step's start to its first SAMPLE: @n slots, of which i attends to @blocks[i] KV blocks. */
uint64_t mr_clock_forward(const struct mr_container *c, const struct mr_chip *chip,
			  const uint32_t *blocks, uint32_t n);
/* Cycles of one slot's SAMPLE and RECORD. */
uint64_t mr_clock_sample(const struct mr_container *c, const struct mr_chip *chip);

#endif /* MR_FIRMWARE_SIM_CLOCK_H */
