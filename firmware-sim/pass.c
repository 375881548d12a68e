// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/pass.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "firmware-sim/clock.h"
#include "firmware-sim/device.h"
#include "firmware-sim/exec.h"
#include "firmware-sim/walker.h"

static int create_exec(struct sim *sim)
{
	const struct mr_container *c = &sim->program.c;
	struct exec_chip chip[SIM_CHIPS_MAX];
	struct exec_program p = {
		.icu = c->icu,
		.inst = c->instructions,
		.icu_count = c->sched->icu,
		.inst_count = c->sched->instructions,
		.chips = c->sched->chips,
		.slots = c->header->batch,
		.chip = chip,
		.timing = &sim->timing,
	};

	for (uint32_t k = 0; k < p.chips; k++)
		chip[k] = (struct exec_chip){
			.table_address = c->sched_chips[k].table_address,
			.table_stride = c->sched_chips[k].table_stride,
			.kv_address = c->chips[k].kv_address,
			.kv_block_bytes = c->chips[k].kv_block_bytes,
		};
	return mr_exec_create(&p, &sim->sram, sim->kernels, &sim->program.exec);
}

int mr_sim_pass_create(struct sim *sim)
{
	struct sim_pass *p = &sim->pass;
	uint32_t n = sim->program.c.header->batch;
	int status;

	memset(p, 0, sizeof(*p));
	p->record = calloc(n, sizeof(*p->record));
	p->logits = calloc(n, sizeof(*p->logits));
	p->slots = calloc(n, sizeof(*p->slots));
	p->walk = calloc(n, sizeof(*p->walk));
	p->blocks = calloc(n, sizeof(*p->blocks));
	if (!p->record || !p->logits || !p->slots || !p->walk || !p->blocks)
		status = MR_E_NO_MEMORY;
	else if (sim->program.c.sched)
		status = create_exec(sim);
	else
		status = mr_walker_create(&sim->program.c, &sim->sram, sim->kernels,
					  &sim->program.walker);
	return status;
}

void mr_sim_pass_destroy(struct sim *sim)
{
	struct sim_pass *p = &sim->pass;

	if (sim->program.walker)
		mr_walker_destroy(sim->program.walker);
	if (sim->program.exec)
		mr_exec_destroy(sim->program.exec);
	sim->program.walker = NULL;
	sim->program.exec = NULL;
	free(p->record);
	free(p->logits);
	free(p->slots);
	free(p->walk);
	free(p->blocks);
	memset(p, 0, sizeof(*p));
}

static void walk(struct sim *sim, const struct sim_row *rows, uint32_t n)
{
	struct sim_pass *p = &sim->pass;
	uint64_t sample = mr_clock_sample(&sim->program.c, &sim->chip);
	uint32_t vocab = sim->program.c.ref->vocab, live = 0;
	const float *logits;

	for (uint32_t i = 0; i < n; i++)
		if (!rows[i].idle)
			p->walk[live++] = (struct walker_row){rows[i].token, rows[i].position,
							      rows[i].slot->kv, sim->kv.blocks_max};
	p->cycles = mr_clock_forward(&sim->program.c, &sim->chip, p->blocks, n);
	logits = mr_walker_step(sim->program.walker, p->walk, live);
	live = 0;
	for (uint32_t i = 0; i < n; i++) {
		p->record[i] = p->cycles += sample;
		p->logits[i] = rows[i].idle ? NULL : logits + (size_t)live++ * vocab;
	}
}

/* Executes, and holds the device to what its program claims, to the cycle. */
static int execute(struct sim *sim, const struct sim_row *rows, uint32_t n)
{
	struct sim_pass *p = &sim->pass;
	const struct mr_prog_claim *claim = sim->program.c.claims;
	uint64_t last = mr_claim_cycles(claim, p->blocks, n);
	int status;

	for (uint32_t i = 0; i < n; i++)
		p->slots[i] =
			(struct exec_slot){rows[i].token, rows[i].position, rows[i].slot->block};
	status = mr_exec_step(sim->program.exec, p->slots, n, p->record, p->logits, &p->cycles);
	for (uint32_t i = 0; !status && i < n; i++)
		if (p->record[i] != last - (n - 1 - i) * claim->record)
			status = MR_E_SCHEDULE_VIOLATION;
	if (status)
		sim->counters.violations++;
	return status;
}

int mr_sim_pass(struct sim *sim, const struct sim_row *rows, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		sim->pass.blocks[i] = rows[i].position / MR_KV_BLOCK_TOKENS + 1;
	if (sim->program.exec)
		return execute(sim, rows, n);
	walk(sim, rows, n);
	return 0;
}

int mr_sim_perturb(struct sim *sim, const char *text)
{
	static const struct {
		const char *name;
		size_t offset;
		int in_ps;
	} units[] = {
		{"mem.latency", offsetof(struct mr_chip, mem_latency), 0},
		{"mxm.latency", offsetof(struct mr_chip, plane_latency), 0},
		{"vxm.latency", offsetof(struct mr_chip, vector_latency), 0},
		{"c2c.latency", offsetof(struct mr_chip, hop_ps), 1},
	};
	const char *by = strchr(text, '=');
	char *end;

	for (size_t i = 0; by && i < sizeof(units) / sizeof(units[0]); i++) {
		uint64_t *value = (uint64_t *)((char *)&sim->timing + units[i].offset);
		long cycles = strtol(by + 1, &end, 10);

		if (strlen(units[i].name) != (size_t)(by - text) ||
		    strncmp(text, units[i].name, (size_t)(by - text)))
			continue;
		if (end == by + 1 || *end || cycles < -65536 || cycles > 65536)
			return MR_E_INVALID;
		*value += (uint64_t)(cycles * (units[i].in_ps ? (long)sim->chip.cycle_ps : 1));
		return 0;
	}
	return MR_E_INVALID;
}
