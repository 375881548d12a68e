// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/clock.h"

/* A cycle counter that work is spent on. */
struct meter {
	const struct mr_chip *chip;
	uint64_t cycles;
	uint32_t slots;
};

static uint64_t up(uint64_t amount, uint64_t rate)
{
	return amount / rate + (amount % rate != 0);
}

/* Weights go into the planes once; then every slot's activations go through. */
static void spend_matrix(struct meter *m, const struct mr_prog_segment *s)
{
	uint64_t down = up(s->cols, m->chip->plane_rows), across = up(s->rows, m->chip->plane_cols);

	m->cycles += up(s->bytes, m->chip->install_cycle_bytes);
	m->cycles += m->chip->plane_latency;
	m->cycles += m->slots * up(down * across, m->chip->plane_count);
}

static void spend_vector(struct meter *m, uint64_t elements)
{
	m->cycles += m->chip->vector_latency + m->slots * up(elements, m->chip->vector_lanes);
}

static void spend_link(struct meter *m, uint64_t bytes_a_slot)
{
	uint64_t picoseconds = up(bytes_a_slot * 8 * 1000000, m->chip->link_mbps);

	m->cycles += up(m->chip->hop_ps, m->chip->cycle_ps);
	m->cycles += m->slots * up(picoseconds, m->chip->cycle_ps);
}

static void spend_attention(struct meter *m, const struct mr_ref_header *r, const uint32_t *blocks)
{
	uint64_t block_bytes = (uint64_t)r->kv_heads * r->head_dim * 16 * 2 * 2;

	for (uint32_t i = 0; i < m->slots; i++) {
		for (uint32_t tile = 0; tile < blocks[i]; tile += 16) {
			uint32_t here = blocks[i] - tile < 16 ? blocks[i] - tile : 16;
			m->cycles += here * up(block_bytes, m->chip->sram_cycle_bytes);
			m->cycles += up((uint64_t)r->heads * r->head_dim, m->chip->vector_lanes);
			m->cycles += m->chip->vector_latency;
		}
	}
}

static void spend_layer(struct meter *m, const struct mr_container *c, const struct mr_ref_op *op,
			const uint32_t *blocks)
{
	const struct mr_ref_header *r = c->ref;

	spend_vector(m, r->width);
	for (int i = MR_REF_Q; i <= MR_REF_V; i++)
		spend_matrix(m, &c->segments[op->segment[i]]);
	spend_vector(m, (uint64_t)(r->heads + r->kv_heads) * r->head_dim);
	spend_attention(m, r, blocks);
	spend_matrix(m, &c->segments[op->segment[MR_REF_O]]);
	spend_vector(m, r->width);
	spend_vector(m, r->width);
	spend_matrix(m, &c->segments[op->segment[MR_REF_GATE]]);
	spend_matrix(m, &c->segments[op->segment[MR_REF_UP]]);
	spend_vector(m, r->ffn);
	spend_matrix(m, &c->segments[op->segment[MR_REF_DOWN]]);
	spend_vector(m, r->width);
}

uint64_t mr_clock_forward(const struct mr_container *c, const struct mr_chip *chip,
			  const uint32_t *blocks, uint32_t n)
{
	struct meter m = {.chip = chip, .slots = n};
	uint32_t at = c->ops[0].chip;

	for (uint32_t i = 0; i < c->ref->ops; i++) {
		const struct mr_ref_op *op = &c->ops[i];
		if (op->chip != at)
			spend_link(&m, 4ull * c->ref->width);
		at = op->chip;
		if (op->kind == MR_REF_LAYER)
			spend_layer(&m, c, op, blocks);
		else
			spend_vector(&m, c->ref->width);
		if (op->kind == MR_REF_HEAD)
			spend_matrix(&m, &c->segments[op->segment[1]]);
	}
	if (at != c->ops[0].chip)
		spend_link(&m, 4); /* the token, back to where the embedding is */
	return m.cycles;
}

uint64_t mr_clock_sample(const struct mr_container *c, const struct mr_chip *chip)
{
	return up(c->ref->vocab, chip->vector_lanes) + chip->sample_cycles + chip->record_cycles;
}
