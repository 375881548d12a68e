/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One FP16 product of a shape file as a schedule over a group, verified: what it takes, for tools that plan and for
 * `millrace lpu validate`. No device runs it: chips with FP16 planes are described, not simulated.
 */
#ifndef MR_DRIVER_COMPILE_PRODUCT_H
#define MR_DRIVER_COMPILE_PRODUCT_H

#include <stddef.h>
#include <stdint.h>

#include "userlib/spec/chip.h"
#include "userlib/spec/shape.h"

struct mr_product_plan {
	uint64_t cycles;     /* from the first instruction to the last byte in SRAM */
	uint64_t sram_bytes; /* of the fullest chip */
	uint32_t instructions;
};

/*
 * The first product of @shape. Activations are on every chip that needs them. By columns (@by_k = 0): each chip has a
 * slice of the columns, and sends its results, as FP16, to chip 0 while it goes on. By K: each chip has a slice of the
 * inputs; the FP32 sums of all are then reduced, each chip's slice of the columns on that chip.
 * 0, MR_E_NOT_SUPPORTED (type, or sizes that the group does not divide), MR_E_SRAM_FULL, MR_E_NO_MEMORY, or what the
 * verifier found; @why (may be NULL) gets a sentence.
 */
int mr_product_plan(const struct mr_shape_file *shape, const struct mr_chip *chip, uint32_t chips,
		    int by_k, struct mr_product_plan *plan, char *why, size_t why_bytes);

#endif /* MR_DRIVER_COMPILE_PRODUCT_H */
