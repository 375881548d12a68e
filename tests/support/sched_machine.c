// SPDX-License-Identifier: Apache-2.0
#include "support/sched_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu/kernels.h"

void machine_open(struct machine *m, const void *container, size_t bytes,
		  const struct mr_chip *chip)
{
	const struct mr_container *c = &m->c;

	memset(m, 0, sizeof(*m));
	mr_numerics_enter();
	assert_int_equal(mr_container_open(container, bytes, &m->c, NULL, 0), 0);
	m->timing = *chip;
	assert_int_equal(mr_sim_sram_init(&m->sram, c->header->chips, chip->sram_bytes), 0);
	for (uint32_t i = 0; i < c->header->segments; i++)
		memcpy(sim_sram_at(&m->sram, c->segments[i].chip, c->segments[i].address),
		       (const uint8_t *)container + c->segments[i].offset, c->segments[i].bytes);
	m->blocks = (c->header->context + 15) / 16;
	m->ids = calloc((size_t)MACHINE_SLOTS * m->blocks, sizeof(*m->ids));
	m->kv = calloc((size_t)MACHINE_SLOTS * m->blocks * c->header->chips, sizeof(*m->kv));
	for (uint32_t s = 0; s < MACHINE_SLOTS; s++)
		for (uint32_t b = 0; b < m->blocks; b++) {
			uint32_t id = s * m->blocks + b;

			/* Slots share out what blocks there are; tests use few of both. */
			id %= c->ref->kv_blocks;
			m->ids[s * m->blocks + b] = id;
			for (uint32_t k = 0; k < c->header->chips; k++)
				m->kv[((size_t)s * c->header->chips + k) * m->blocks + b] =
					sim_sram_at(&m->sram, k,
						    c->chips[k].kv_address +
							    id * c->chips[k].kv_block_bytes);
		}
}

void machine_close(struct machine *m)
{
	mr_exec_destroy(m->exec);
	if (m->walker)
		mr_walker_destroy(m->walker);
	mr_sim_sram_fini(&m->sram);
	free(m->ids);
	free(m->kv);
}

static void start(struct machine *m)
{
	const struct mr_container *c = &m->c;
	struct exec_chip chip[SIM_CHIPS_MAX];
	struct exec_program p = {
		.icu = c->icu,
		.inst = c->instructions,
		.icu_count = c->sched->icu,
		.inst_count = c->sched->instructions,
		.chips = c->sched->chips,
		.slots = c->header->batch,
		.chip = chip,
		.timing = &m->timing,
	};

	for (uint32_t k = 0; k < p.chips; k++)
		chip[k] = (struct exec_chip){c->sched_chips[k].table_address,
					     c->sched_chips[k].table_stride, c->chips[k].kv_address,
					     c->chips[k].kv_block_bytes};
	assert_int_equal(mr_exec_create(&p, &m->sram, mr_kernels_select(NULL), &m->exec), 0);
}

static void walk(struct machine *m, const uint32_t *tokens, const uint32_t *positions, uint32_t n)
{
	struct walker_row rows[MACHINE_SLOTS];
	const float *logits;

	if (!m->walker)
		assert_int_equal(
			mr_walker_create(&m->c, &m->sram, mr_kernels_select(NULL), &m->walker), 0);
	for (uint32_t i = 0; i < n; i++)
		rows[i] = (struct walker_row){tokens[i], positions[i],
					      m->kv + (size_t)i * m->c.header->chips * m->blocks,
					      m->blocks};
	logits = mr_walker_step(m->walker, rows, n);
	for (uint32_t i = 0; i < n; i++)
		m->logits[i] = logits + (size_t)i * m->c.ref->vocab;
}

int machine_step(struct machine *m, const uint32_t *tokens, const uint32_t *positions, uint32_t n)
{
	struct exec_slot slots[MACHINE_SLOTS];

	assert_true(n <= MACHINE_SLOTS && n <= m->c.header->batch);
	if (!m->c.sched) {
		walk(m, tokens, positions, n);
		return 0;
	}
	if (!m->exec)
		start(m);
	for (uint32_t i = 0; i < n; i++)
		slots[i] = (struct exec_slot){tokens[i], positions[i], m->ids + i * m->blocks};
	return mr_exec_step(m->exec, slots, n, m->record, m->logits, &m->cycles);
}

uint64_t machine_claim(const struct machine *m, const uint32_t *positions, uint32_t n, uint32_t i)
{
	uint32_t blocks[MACHINE_SLOTS];

	for (uint32_t k = 0; k < n; k++)
		blocks[k] = positions[k] / 16 + 1;
	return mr_claim_cycles(m->c.claims, blocks, n) - (n - 1 - i) * m->c.claims->record;
}
