// SPDX-License-Identifier: Apache-2.0
/* The CLAIM of a reference program, as the terms of cost.h summed over its list of layers. */
#include "driver/compile/cost.h"

#include <millrace/lpu_spec.h>

static uint64_t ceil_div(uint64_t a, uint64_t b)
{
	return (a + b - 1) / b;
}

static void add_matrix(const struct mr_prog_segment *s, const struct mr_chip *chip,
		       struct mr_prog_claim *claim)
{
	uint64_t tiles = ceil_div(s->rows, chip->plane_cols) * ceil_div(s->cols, chip->plane_rows);

	claim->base += ceil_div(s->bytes, chip->install_cycle_bytes) + chip->plane_latency;
	claim->slot += ceil_div(tiles, chip->plane_count);
}

static void add_vector(uint64_t elements, const struct mr_chip *chip, struct mr_prog_claim *claim)
{
	claim->base += chip->vector_latency;
	claim->slot += ceil_div(elements, chip->vector_lanes);
}

static void add_hop(uint64_t bytes, const struct mr_chip *chip, struct mr_prog_claim *claim)
{
	/* 8 bits a byte; a megabit a second is a bit in 10^6 ps. */
	uint64_t wire_ps = ceil_div(bytes * 8 * 1000000, chip->link_mbps);

	claim->base += ceil_div(chip->hop_ps, chip->cycle_ps);
	claim->slot += ceil_div(wire_ps, chip->cycle_ps);
}

static void add_layer(const struct mr_container *c, const struct mr_ref_op *op,
		      const struct mr_chip *chip, struct mr_prog_claim *claim)
{
	static const uint8_t matrices[] = {MR_REF_Q,    MR_REF_K,  MR_REF_V,   MR_REF_O,
					   MR_REF_GATE, MR_REF_UP, MR_REF_DOWN};
	const struct mr_ref_header *r = c->ref;
	uint64_t query = (uint64_t)r->heads * r->head_dim,
		 key = (uint64_t)r->kv_heads * r->head_dim;

	for (size_t i = 0; i < sizeof(matrices); i++)
		add_matrix(&c->segments[op->segment[matrices[i]]], chip, claim);
	for (int i = 0; i < 4; i++) /* two norms, two sums into the residual stream */
		add_vector(r->width, chip, claim);
	add_vector(query + key, chip, claim);
	add_vector(r->ffn, chip, claim);
	claim->block += ceil_div(2 * key * MR_KV_BLOCK_TOKENS * 2, chip->sram_cycle_bytes);
	claim->tile += ceil_div(query, chip->vector_lanes) + chip->vector_latency;
}

void mr_cost_claim(const struct mr_container *c, const struct mr_chip *chip,
		   struct mr_prog_claim *claim)
{
	const struct mr_ref_header *r = c->ref;

	claim->base = claim->slot = claim->block = claim->tile = 0;
	for (uint32_t i = 0; i < r->ops; i++) {
		const struct mr_ref_op *op = &c->ops[i];
		if (i && op->chip != op[-1].chip)
			add_hop(4ull * r->width, chip, claim);
		if (op->kind == MR_REF_LAYER) {
			add_layer(c, op, chip, claim);
		} else if (op->kind == MR_REF_EMBED) {
			add_vector(r->width, chip, claim);
		} else {
			add_vector(r->width, chip, claim);
			add_matrix(&c->segments[op->segment[1]], chip, claim);
		}
	}
	if (c->ops[r->ops - 1].chip != c->ops[0].chip)
		add_hop(4, chip, claim);
	claim->record =
		ceil_div(r->vocab, chip->vector_lanes) + chip->sample_cycles + chip->record_cycles;
	claim->slot +=
		ceil_div(r->vocab, chip->vector_lanes) + chip->sample_cycles + chip->record_cycles;
}
