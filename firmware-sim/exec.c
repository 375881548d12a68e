// SPDX-License-Identifier: Apache-2.0
/* The executor's clock: walks the ICU's queue, starts each body's instructions, knows when they start. */
#include "firmware-sim/exec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "firmware-sim/exec_parts.h"

static void *aligned(uint64_t bytes)
{
	void *p = aligned_alloc(64, (bytes + 64) / 64 * 64);

	if (p)
		memset(p, 0, (bytes + 64) / 64 * 64);
	return p;
}

/* LOOPs and their ENDs, and where each body's instructions begin. */
static int read_queues(struct exec *e)
{
	uint32_t open[4], depth = 0, at = 0;

	for (uint32_t i = 0; i < e->p.icu_count; i++) {
		switch (e->p.icu[i].op) {
		case MR_I_NOP:
			e->bodies++;
			break;
		case MR_I_LOOP:
			if (depth == 4)
				return MR_E_FORMAT;
			open[depth++] = i;
			break;
		case MR_I_END:
			if (!depth)
				return MR_E_FORMAT;
			e->icu_end[open[--depth]] = i;
			break;
		default:
			return MR_E_FORMAT;
		}
	}
	if (depth)
		return MR_E_FORMAT;
	e->body_first = calloc(e->bodies + 1, sizeof(*e->body_first));
	if (!e->body_first)
		return MR_E_NO_MEMORY;
	for (uint32_t b = 0; b < e->bodies; b++) {
		e->body_first[b] = at;
		while (at < e->p.inst_count && e->p.inst[at].body == b)
			at++;
	}
	e->body_first[e->bodies] = at;
	return at == e->p.inst_count ? 0 : MR_E_FORMAT;
}

/* 1 = the kernels have all products of the program. */
static int computable(const struct exec_program *p)
{
	for (uint32_t k = 0; k < p->inst_count; k++) {
		uint32_t type = mr_isa_type(&p->inst[k]);

		if (p->inst[k].op == MR_I_LOADW && type != MR_T_Q4_1X16 && type != MR_T_Q8_0X16)
			return 0;
	}
	return 1;
}

/* Bytes of the burst that an instruction puts on its stream, at most. */
static uint64_t burst_bytes(const struct exec *e, const struct mr_isa *i)
{
	uint64_t rows = (uint64_t)i->rows * (i->form & MR_F_SLOTS ? e->p.slots : 1);
	uint64_t cols = i->cols;

	if (i->op == MR_I_MUL || i->op == MR_I_ACC)
		cols = i->stride;
	if (i->op == MR_I_DOTS || i->op == MR_I_SUMS)
		rows = i->stride;
	return rows * 4 * (cols < MR_ISA_TILE ? MR_ISA_TILE : cols);
}

static int make_room_of_chip(struct exec *e, uint32_t c)
{
	struct matrix_unit *u = &e->unit[c];
	uint64_t slots = e->p.slots, outputs = 1, inputs = 32, rows = 1, next = 0;

	for (uint32_t k = e->p.inst_count; k-- > 0;) {
		const struct mr_isa *i = &e->p.inst[k];
		struct burst *b = exec_burst(e, i, i->dst);

		if (i->chip != c)
			continue;
		if (i->op == MR_I_LOADW) {
			outputs = outputs < i->rows ? i->rows : outputs;
			inputs = inputs < i->cols ? i->cols : inputs;
			e->after[k] = next ? (uint32_t)next : k;
			next = k;
		} else if (i->dst != MR_ISA_NONE && i->dst < e->streams) {
			uint64_t want = burst_bytes(e, i);

			b->offset = b->offset < want ? want : b->offset;
		}
		if (i->op == MR_I_DOTS || i->op == MR_I_SUMS)
			rows = rows < i->stride ? i->stride : rows;
	}
	for (uint32_t s = 0; s < e->streams; s++) {
		struct burst *b = &e->burst[c * e->streams + s];

		b->start = ~0ull;
		b->buffer = b->offset ? aligned(b->offset) : NULL;
		if (b->offset && !b->buffer)
			return MR_E_NO_MEMORY;
	}
	u->sums = aligned(4 * outputs * slots);
	u->rows = aligned(4 * MR_ISA_TILE * rows * 4);
	u->q8 = (struct mr_q8){.q = aligned(inputs * slots),
			       .scale = aligned(inputs * slots / 8),
			       .sum = aligned(inputs * slots / 8)};
	return u->sums && u->rows && u->q8.q && u->q8.scale && u->q8.sum ? 0 : MR_E_NO_MEMORY;
}

int mr_exec_create(const struct exec_program *program, const struct sim_sram *sram,
		   const struct mr_kernels *kernels, struct exec **out)
{
	struct exec *e = calloc(1, sizeof(*e));
	uint32_t chips = program->chips;
	int status = MR_E_NO_MEMORY;

	if (!e || !computable(program)) {
		free(e);
		return e ? MR_E_NOT_SUPPORTED : status;
	}
	e->p = *program;
	e->timing = *program->timing;
	e->sram = sram;
	e->kernels = kernels;
	e->streams = (uint32_t)e->timing.streams;
	e->chip = calloc(chips, sizeof(*e->chip));
	e->icu_end = calloc(program->icu_count + 1, sizeof(*e->icu_end));
	e->after = calloc(program->inst_count + 1, sizeof(*e->after));
	e->burst = calloc((size_t)chips * e->streams, sizeof(*e->burst));
	e->flight = calloc((size_t)chips * chips, sizeof(*e->flight));
	e->unit = calloc(chips, sizeof(*e->unit));
	e->host_free = calloc(chips, sizeof(*e->host_free));
	e->skew = calloc((size_t)chips * MR_ISA_QUEUES, sizeof(*e->skew));
	if (e->chip && e->icu_end && e->after && e->burst && e->flight && e->unit && e->host_free &&
	    e->skew) {
		memcpy(e->chip, program->chip, chips * sizeof(*e->chip));
		status = read_queues(e);
	}
	for (uint32_t c = 0; !status && c < chips; c++)
		status = make_room_of_chip(e, c);
	if (status) {
		mr_exec_destroy(e);
		return status;
	}
	*out = e;
	return 0;
}

void mr_exec_destroy(struct exec *e)
{
	if (!e)
		return;
	for (uint32_t k = 0; e->burst && k < e->p.chips * e->streams; k++)
		free(e->burst[k].buffer);
	for (uint32_t c = 0; e->unit && c < e->p.chips; c++) {
		free(e->unit[c].sums);
		free(e->unit[c].rows);
		free(e->unit[c].q8.q);
		free(e->unit[c].q8.scale);
		free(e->unit[c].q8.sum);
	}
	for (uint32_t k = 0; e->flight && k < e->p.chips * e->p.chips; k++)
		free(e->flight[k].buffer);
	free(e->chip);
	free(e->icu_end);
	free(e->body_first);
	free(e->after);
	free(e->burst);
	free(e->flight);
	free(e->unit);
	free(e->host_free);
	free(e->skew);
	free(e);
}

int mr_exec_violation(struct exec *e, const struct mr_isa *i, uint64_t start, const char *what)
{
	snprintf(e->why, sizeof(e->why), "body %u, cycle %llu, chip %u: %s: %s", i->body,
		 (unsigned long long)start, i->chip, mr_isa_name(i->op), what);
	return MR_E_SCHEDULE_VIOLATION;
}

const char *mr_exec_why(const struct exec *e)
{
	return e->why;
}

void mr_exec_watched(struct exec *e, mr_exec_watch watch, void *arg)
{
	e->watch = watch;
	e->watch_arg = arg;
}

static int run_one(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end)
{
	switch (mr_isa_queue(i)) {
	case MR_ISA_MEM:
	case MR_ISA_WRITES:
		return mr_exec_mem(e, i, start, end);
	case MR_ISA_MXM:
		return mr_exec_mxm(e, i, start, end);
	case MR_ISA_VXM:
		return mr_exec_vxm(e, i, start, end);
	case MR_ISA_C2C:
		return mr_exec_c2c(e, i, start, end);
	case MR_ISA_HOST:
		return mr_exec_host(e, i, start, end);
	default:
		return mr_exec_violation(e, i, start, "no such unit");
	}
}

static int run_body(struct exec *e, const struct mr_isa *icu, uint32_t body)
{
	uint64_t r = icu->form == MR_R_SLOTS    ? e->n
		     : icu->form == MR_R_BLOCKS ? exec_tile_blocks(e)
						: 0;
	int skewed = 0;

	for (uint32_t k = e->body_first[body]; k < e->body_first[body + 1]; k++) {
		const struct mr_isa *i = &e->p.inst[k];
		uint64_t start = e->now + i->offset + i->slope * r, end = start;
		int status;

		if (i->op == MR_I_NOP) {
			e->skew[i->chip * MR_ISA_QUEUES + i->peer] += i->offset;
			skewed = 1;
			continue;
		}
		if (skewed)
			start += e->skew[i->chip * MR_ISA_QUEUES + mr_isa_queue(i)];
		status = run_one(e, i, start, &end);
		if (status)
			return status;
		if (e->watch)
			e->watch(e->watch_arg, i, start, end);
	}
	if (skewed)
		memset(e->skew, 0, (size_t)e->p.chips * MR_ISA_QUEUES * sizeof(*e->skew));
	e->now += icu->offset + icu->slope * r;
	return 0;
}

/* What stands between two places of the ICU's queue; bodies before the first are counted in @body. */
static int run_range(struct exec *e, uint32_t from, uint32_t to, uint32_t *body)
{
	int status = 0;

	for (uint32_t i = from; !status && i < to; i++) {
		const struct mr_isa *icu = &e->p.icu[i];
		uint32_t first = *body, times, *counter;

		if (icu->op == MR_I_NOP) {
			status = run_body(e, icu, (*body)++);
			continue;
		}
		counter = icu->form == MR_R_SLOTS ? &e->slot : &e->tile;
		times = icu->form == MR_R_SLOTS ? e->n
						: e->slots[e->slot].position / MR_ISA_TILE + 1;
		for (*counter = 0; !status && *counter < times; ++*counter) {
			*body = first;
			status = run_range(e, i + 1, e->icu_end[i], body);
		}
		*counter = 0;
		i = e->icu_end[i];
	}
	return status;
}

int mr_exec_step(struct exec *e, const struct exec_slot *slots, uint32_t n, uint64_t *record,
		 const float **logits, uint64_t *cycles)
{
	uint32_t body = 0;
	int status;

	e->slots = slots;
	e->n = n;
	e->now = 0;
	e->record = record;
	e->logits = logits;
	memset(e->host_free, 0, e->p.chips * sizeof(*e->host_free));
	for (uint32_t k = 0; k < e->p.chips * e->streams; k++)
		e->burst[k].start = ~0ull;
	for (uint32_t k = 0; k < e->p.chips * e->p.chips; k++)
		e->flight[k].start = ~0ull;
	status = run_range(e, 0, e->p.icu_count, &body);
	*cycles = e->now;
	return status;
}
