/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compiler's prediction of cycles for payload `reference`: the first cost model, stated here. The
 * simulator has code of its own for the same statement (firmware-sim/clock.c); only the chip is shared.
 *
 * For each matrix (rows, cols, bytes): it is installed once a step, ceil(bytes / install_cycle_bytes) +
 * plane_latency, and each slot passes through it in ceil(ceil(rows / plane_cols) * ceil(cols / plane_rows)
 * / plane_count) cycles. A vector pass over e elements costs vector_latency a step and
 * ceil(e / vector_lanes) a slot: the embedding's row (width); in a layer two norms and two sums (width),
 * rotation (query and key), gate times up (ffn); the last norm (width). Attention costs, for each slot and
 * layer, ceil(bytes of a KV block of the layer / sram_cycle_bytes) a block and
 * ceil(heads * head_dim / vector_lanes) + vector_latency a tile of 16 blocks. Where work goes on to
 * another chip, and where the token goes back to the first: ceil(hop_ps / cycle_ps) a step and
 * ceil(time of the slot's bytes on the link / cycle_ps) a slot, bytes being 4 * width, back 4. Last,
 * ceil(vocab / vector_lanes) + sample_cycles + record_cycles a slot.
 *
 * A pass of SCORE over n tokens of one slot costs what a step of n slots costs, token i attending to the KV
 * blocks up to its own position: weights are installed once, and looking a probability up costs what
 * choosing a token does.
 */
#ifndef MR_DRIVER_COMPILE_COST_H
#define MR_DRIVER_COMPILE_COST_H

#include "userlib/spec/container.h"

/* Fills base, slot, block and tile of @claim for an otherwise complete container. */
void mr_cost_claim(const struct mr_container *c, const struct mr_chip *chip,
		   struct mr_prog_claim *claim);

#endif /* MR_DRIVER_COMPILE_COST_H */
