// SPDX-License-Identifier: Apache-2.0
#include "driver/compile/emit.h"

#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#define PORTS_MAX   256u
#define STREAMS_MAX 128u
#define BANKS       256u /* banks are told apart modulo this; the last entry is the KV's */
#define TRIES_MAX   4096u

/* Until when each thing is taken, in the body under way. */
struct taken {
	struct when stream[STREAMS_MAX], read[PORTS_MAX], write[PORTS_MAX], alu[PORTS_MAX];
	struct when bank[BANKS + 1];
	struct when queue[MR_ISA_QUEUES]; /* start of the queue's latest instruction */
	struct when mxm, host;
};

struct undo {
	struct when *what, was;
};

struct emitter {
	const struct mr_chip *chip;
	uint32_t chips;
	uint64_t bank_bytes;
	struct taken *taken; /* [chips] */
	struct when *link;   /* [chips][chips] */
	struct mr_isa *inst, *icu;
	uint32_t count, room, icu_count, icu_room;
	uint32_t body;
	enum mr_isa_register reg;
	enum mr_isa_register loop[2];
	uint32_t depth;
	struct when end;
	struct mr_prog_claim claim;
	int status;

	/* the chain being tried */
	int trying;
	uint32_t tries, count_before;
	struct when end_before, push; /* push: how much later it has to start */
	struct undo *log;
	uint32_t logged, log_room;
};

static uint64_t up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

int mr_emit_create(const struct mr_chip *chip, uint32_t chips, struct emitter **out)
{
	struct emitter *e = calloc(1, sizeof(*e));

	if (!e)
		return MR_E_NO_MEMORY;
	e->chip = chip;
	e->chips = chips;
	e->bank_bytes = chip->sram_bytes / (chip->sram_slices * chip->sram_banks);
	e->taken = calloc(chips, sizeof(*e->taken));
	e->link = calloc((size_t)chips * chips, sizeof(*e->link));
	if (!e->taken || !e->link) {
		mr_emit_destroy(e);
		return MR_E_NO_MEMORY;
	}
	*out = e;
	return 0;
}

void mr_emit_destroy(struct emitter *e)
{
	free(e->taken);
	free(e->link);
	free(e->inst);
	free(e->icu);
	free(e->log);
	free(e);
}

static void *more(struct emitter *e, void *array, uint32_t count, uint32_t *room, size_t size)
{
	if (count < *room)
		return array;
	void *larger = realloc(array, (size_t)(*room ? *room * 2 : 1024) * size);

	if (!larger) {
		e->status = MR_E_NO_MEMORY;
		return NULL;
	}
	*room = *room ? *room * 2 : 1024;
	return larger;
}

static struct mr_isa *append(struct emitter *e, struct mr_isa inst)
{
	struct mr_isa *array = more(e, e->inst, e->count, &e->room, sizeof(*e->inst));

	if (!array)
		return NULL;
	e->inst = array;
	e->inst[e->count] = inst;
	return &e->inst[e->count++];
}

static void append_icu(struct emitter *e, struct mr_isa inst)
{
	struct mr_isa *array = more(e, e->icu, e->icu_count, &e->icu_room, sizeof(*e->icu));

	if (!array)
		return;
	inst.src[0] = inst.src[1] = inst.src[2] = inst.dst = MR_ISA_NONE;
	e->icu = array;
	e->icu[e->icu_count++] = inst;
}

/* ---- the ICU ---- */

void mr_emit_body(struct emitter *e, enum mr_isa_register reg)
{
	memset(e->taken, 0, e->chips * sizeof(*e->taken));
	memset(e->link, 0, (size_t)e->chips * e->chips * sizeof(*e->link));
	e->end = (struct when){0, 0};
	e->reg = reg;
	e->logged = 0;
}

void mr_emit_body_end(struct emitter *e)
{
	struct mr_prog_claim *c = &e->claim;

	if (e->end.a > UINT32_MAX || e->end.b > UINT16_MAX || e->body == UINT16_MAX)
		e->status = MR_E_NOT_SUPPORTED;
	append_icu(e, (struct mr_isa){.op = MR_I_NOP,
				      .form = (uint8_t)e->reg,
				      .body = (uint16_t)e->body,
				      .offset = (uint32_t)e->end.a,
				      .slope = (uint16_t)e->end.b});
	if (e->depth == 2) {
		c->tile += e->end.a;
		c->block += e->end.b;
	} else if (e->depth == 1) {
		c->slot += e->end.a;
		c->record = e->end.a; /* at last that of the program's last loop */
	} else {
		c->base += e->end.a;
		c->slot += e->end.b;
	}
	e->body++;
}

void mr_emit_loop(struct emitter *e, enum mr_isa_register reg)
{
	e->loop[e->depth++] = reg;
	append_icu(e, (struct mr_isa){.op = MR_I_LOOP, .form = (uint8_t)reg});
}

void mr_emit_loop_end(struct emitter *e)
{
	e->depth--;
	append_icu(e, (struct mr_isa){.op = MR_I_END});
}

/* ---- what is taken ---- */

static void change(struct emitter *e, struct when *what, struct when to)
{
	struct undo *log = more(e, e->log, e->logged, &e->log_room, sizeof(*e->log));

	if (!log)
		return;
	e->log = log;
	e->log[e->logged++] = (struct undo){what, *what};
	*what = to;
}

/* Notes how much later a chain has to start for @start to be at @from or after. */
static void need(struct emitter *e, struct when start, struct when from)
{
	if (from.a > start.a && from.a - start.a > e->push.a)
		e->push.a = from.a - start.a;
	if (from.b > start.b && from.b - start.b > e->push.b)
		e->push.b = from.b - start.b;
}

static int free_at(struct when until, struct when start)
{
	return until.a <= start.a && until.b <= start.b;
}

int mr_emit_try(struct emitter *e, struct when *t)
{
	int withdraw = e->push.a || e->push.b;

	if (!e->trying) {
		e->tries = 0;
		e->logged = 0;
		e->count_before = e->count;
		e->end_before = e->end;
		e->push = (struct when){0, 0};
		e->trying = 1;
		return 1;
	}
	if (!withdraw || e->status) {
		e->trying = 0;
		return 0;
	}
	while (e->logged) {
		e->logged--;
		*e->log[e->logged].what = e->log[e->logged].was;
	}
	e->count = e->count_before;
	e->end = e->end_before;
	t->a += e->push.a;
	t->b += e->push.b;
	e->push = (struct when){0, 0};
	if (++e->tries > TRIES_MAX)
		e->status = MR_E_NOT_SUPPORTED; /* the chain stands in its own way: too few ports */
	return 1;
}

/* One of @n from @start to @end: the first that is free, else the chain has to wait for the one free soonest. */
static uint32_t take_one(struct emitter *e, struct when *pool, uint32_t n, struct when start,
			 struct when end)
{
	uint32_t best = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (free_at(pool[i], start)) {
			best = i;
			break;
		}
		if (pool[i].a + 64 * pool[i].b < pool[best].a + 64 * pool[best].b)
			best = i;
	}
	need(e, start, pool[best]);
	change(e, &pool[best], end);
	return best;
}

static struct when rows_take(struct when start, uint32_t rows, uint8_t form, uint32_t interval)
{
	uint64_t cycles = (uint64_t)rows * interval;

	if (form & (MR_F_SLOTS | MR_F_BLOCKS))
		start.b += cycles;
	else
		start.a += cycles;
	return start;
}

static void ends(struct emitter *e, struct when end)
{
	e->end = when_later(e->end, end);
}

/* An instruction at @start, after the one before it in its queue. */
static struct mr_isa *issue(struct emitter *e, uint32_t chip, struct mr_isa inst, struct when start)
{
	struct taken *t = &e->taken[chip];
	uint32_t queue = mr_isa_queue(&inst);

	need(e, start, t->queue[queue]);
	change(e, &t->queue[queue], when_later(t->queue[queue], start));
	if (start.a > UINT32_MAX || start.b > UINT16_MAX)
		e->status = MR_E_NOT_SUPPORTED;
	inst.chip = (uint8_t)chip;
	inst.body = (uint16_t)e->body;
	inst.offset = (uint32_t)start.a;
	inst.slope = (uint16_t)start.b;
	return append(e, inst);
}

static uint32_t take_stream(struct emitter *e, uint32_t chip, struct when start, struct when end)
{
	return take_one(e, e->taken[chip].stream, (uint32_t)e->chip->streams, start, end);
}

/* A source's stream is not used again before what is made of it has begun, so that no unit reads where it writes. */
static void hold(struct emitter *e, uint32_t chip, uint32_t stream, struct when until)
{
	struct when *taken;

	if (stream >= e->chip->streams)
		return;
	taken = &e->taken[chip].stream[stream];
	change(e, taken, when_later(*taken, when_after(until, 1)));
}

#define NO_SOURCES                                    \
	{                                             \
		MR_ISA_NONE, MR_ISA_NONE, MR_ISA_NONE \
	}

static struct mr_isa blank(enum mr_isa_op op, uint8_t form, uint32_t rows, uint32_t interval,
			   uint32_t cols)
{
	return (struct mr_isa){
		.op = (uint8_t)op,
		.form = form,
		.src = NO_SOURCES,
		.dst = MR_ISA_NONE,
		.rows = (uint16_t)rows,
		.interval = (uint16_t)interval,
		.cols = cols,
	};
}

/* ---- MEM ---- */

uint32_t mr_emit_stream_cycles(const struct emitter *e, uint64_t bytes)
{
	return (uint32_t)up(bytes, 4 * e->chip->vector_lanes);
}

uint32_t mr_emit_vector_cycles(const struct emitter *e, uint32_t cols)
{
	return (uint32_t)up(cols, e->chip->vector_lanes);
}

uint32_t mr_emit_link_cycles(const struct emitter *e, uint64_t bytes)
{
	return (uint32_t)up(up(bytes * 8 * 1000000, e->chip->link_mbps), e->chip->cycle_ps);
}

/* A READ or GATHER whose first row is on a stream at @at. */
static struct flow fetch(struct emitter *e, uint32_t chip, struct mr_isa inst, struct when ready,
			 struct when at)
{
	uint64_t latency = e->chip->mem_latency;
	struct when start = at, end, passed;

	if (at.a < latency)
		need(e, at, (struct when){latency, 0});
	start.a = at.a < latency ? 0 : at.a - latency;
	need(e, start, ready);
	end = rows_take(start, inst.rows, inst.form, inst.interval);
	passed = when_after(end, latency);
	take_one(e, e->taken[chip].read, (uint32_t)e->chip->read_ports, start, end);
	inst.dst = (uint8_t)take_stream(e, chip, at, passed);
	issue(e, chip, inst, start);
	ends(e, passed);
	return (struct flow){chip, inst.dst, at, inst.rows, inst.cols, inst.interval, inst.form};
}

struct flow mr_emit_read(struct emitter *e, const struct place *p, uint32_t interval,
			 struct when at)
{
	struct mr_isa inst = blank(MR_I_READ, p->form, p->rows, interval, p->cols);

	inst.address = (uint32_t)(p->address / 8);
	inst.stride = p->stride;
	return fetch(e, p->chip, inst, p->ready, at);
}

struct flow mr_emit_gather(struct emitter *e, const struct place *p, enum mr_isa_index index,
			   uint32_t groups, uint32_t interval, struct when at)
{
	struct mr_isa inst = blank(MR_I_GATHER, p->form, p->rows, interval, p->cols);
	struct flow f;

	inst.src[0] = (uint8_t)index;
	if (index == MR_INDEX_BLOCKS)
		inst.src[2] = (uint8_t)groups;
	inst.address = (uint32_t)(p->address / 8);
	inst.stride = p->stride;
	f = fetch(e, p->chip, inst, p->ready, at);
	if (index != MR_INDEX_BLOCKS)
		f.form = (uint8_t)((f.form & 0xf0) | MR_T_F32);
	return f;
}

static struct when put(struct emitter *e, const struct flow *f, struct mr_isa inst, uint32_t bank0,
		       uint32_t banks)
{
	struct taken *t = &e->taken[f->chip];
	struct when end = rows_take(f->at, f->rows, f->form, f->interval);
	struct when done = when_after(end, e->chip->mem_latency);

	take_one(e, t->write, (uint32_t)e->chip->write_ports, f->at, end);
	for (uint32_t b = bank0; b < bank0 + banks; b++) {
		struct when *bank = &t->bank[bank0 == BANKS ? BANKS : b % BANKS];

		need(e, f->at, *bank);
		change(e, bank, end);
	}
	inst.src[0] = (uint8_t)f->stream;
	issue(e, f->chip, inst, f->at);
	ends(e, done);
	return done;
}

void mr_emit_write(struct emitter *e, const struct flow *f, struct place *p)
{
	struct mr_isa inst =
		blank(MR_I_WRITE, p->form & (uint8_t)~MR_F_TILE, f->rows, f->interval, p->cols);
	uint64_t bank = p->address / e->bank_bytes;

	inst.address = (uint32_t)(p->address / 8);
	inst.stride = p->stride;
	p->ready = put(e, f, inst, (uint32_t)(bank % BANKS),
		       (uint32_t)((p->address + p->span - 1) / e->bank_bytes - bank + 1));
}

void mr_emit_scatter(struct emitter *e, const struct flow *f, uint64_t address, uint32_t groups)
{
	struct mr_isa inst = blank(MR_I_SCATTER, f->form, f->rows, f->interval, f->cols);

	inst.address = (uint32_t)(address / 8);
	inst.src[2] = (uint8_t)groups;
	put(e, f, inst, BANKS, 1);
}

/* ---- VXM ---- */

static struct flow vector(struct emitter *e, uint32_t chip, struct mr_isa inst, struct when t,
			  uint8_t type, uint32_t cols)
{
	struct when end = rows_take(t, inst.rows, inst.form, inst.interval), out = t;

	take_one(e, e->taken[chip].alu, (uint32_t)e->chip->vector_alus, t, end);
	out.a += e->chip->vector_latency;
	for (int k = 0; k < 3; k++)
		hold(e, chip, inst.src[k], out);
	inst.dst = (uint8_t)take_stream(e, chip, out, when_after(end, e->chip->vector_latency));
	issue(e, chip, inst, t);
	ends(e, when_after(end, e->chip->vector_latency));
	return (struct flow){chip,
			     inst.dst,
			     out,
			     inst.rows,
			     cols,
			     inst.interval,
			     (uint8_t)((inst.form & 0xf0) | type)};
}

struct flow mr_emit_vector(struct emitter *e, uint32_t chip, enum mr_isa_op op,
			   const struct source s[3], uint32_t rows, uint32_t cols, uint8_t flags,
			   uint32_t interval, struct when t)
{
	uint8_t type = op == MR_I_CVT ? MR_T_F16 : op == MR_I_QUANT32 ? MR_T_Q8 : MR_T_F32;
	int reduces = op == MR_I_SUM || op == MR_I_SUMSQ || op == MR_I_RMAX;
	uint32_t sources = op == MR_I_FILL                     ? 0
			   : op == MR_I_FMA || op == MR_I_MUL3 ? 3
			   : reduces || op == MR_I_CVT || op == MR_I_QUANT32 || op == MR_I_RSQRT
				   ? 1
				   : 2;
	struct mr_isa inst = blank(op, (uint8_t)(MR_T_F32 | flags), rows, interval, cols);

	for (uint32_t k = 0; k < sources; k++) {
		if (s[k].flow) {
			inst.src[k] = (uint8_t)s[k].flow->stream;
		} else if (s[k].place) {
			inst.src[k] = (uint8_t)mr_emit_read(e, s[k].place, interval, t).stream;
		} else {
			inst.src[k] = MR_ISA_IMM0;
			inst.address = mr_isa_bits(s[k].immediate);
		}
	}
	if (op == MR_I_FILL)
		inst.address = mr_isa_bits(s[0].immediate);
	return vector(e, chip, inst, t, type, reduces ? 1 : cols);
}

struct flow mr_emit_rsqrt(struct emitter *e, const struct flow *f, float divisor, float plus)
{
	struct mr_isa inst =
		blank(MR_I_RSQRT, (uint8_t)((f->form & 0xf0) | MR_T_F32), f->rows, f->interval, 1);

	inst.src[0] = (uint8_t)f->stream;
	inst.address = mr_isa_bits(divisor);
	inst.stride = mr_isa_bits(plus);
	return vector(e, f->chip, inst, f->at, MR_T_F32, 1);
}

/* ---- MXM ---- */

struct when mr_emit_loadw(struct emitter *e, uint32_t chip, uint32_t type, uint64_t address,
			  uint32_t stride, uint32_t rows, uint32_t cols)
{
	struct when start = e->taken[chip].mxm, end = start;
	uint64_t bytes = type == MR_T_F16
				 ? 2ull * rows * cols
				 : up(rows, 16) * (cols / 32) * (type == MR_T_Q4_1X16 ? 320 : 544);
	struct mr_isa inst = blank(MR_I_LOADW, (uint8_t)type, rows, 0, cols);

	inst.address = (uint32_t)(address / 8);
	inst.stride = stride;
	EMIT_CHAIN(e, start)
	{
		end = when_after(start, up(bytes, e->chip->install_cycle_bytes));
		need(e, start, e->taken[chip].mxm);
		change(e, &e->taken[chip].mxm, end);
		issue(e, chip, inst, start);
		ends(e, end);
	}
	return end;
}

void mr_emit_mul(struct emitter *e, enum mr_isa_op op, const struct flow *x, uint32_t outputs,
		 struct flow *out)
{
	struct taken *t = &e->taken[x->chip];
	struct when end = rows_take(x->at, x->rows, x->form, x->interval);
	struct mr_isa inst = blank(op, x->form, x->rows, x->interval, x->cols);

	need(e, x->at, t->mxm);
	change(e, &t->mxm, end);
	inst.src[0] = (uint8_t)x->stream;
	inst.stride = outputs;
	if (out) {
		struct when at = when_after(x->at, e->chip->plane_latency);

		end = when_after(end, e->chip->plane_latency);
		hold(e, x->chip, x->stream, at);
		inst.dst = (uint8_t)take_stream(e, x->chip, at, end);
		*out = (struct flow){x->chip,
				     inst.dst,
				     at,
				     x->rows,
				     outputs,
				     x->interval,
				     (uint8_t)((x->form & 0xf0) | MR_T_F32)};
	}
	issue(e, x->chip, inst, x->at);
	ends(e, end);
}

struct flow mr_emit_blocks(struct emitter *e, enum mr_isa_op op, const struct flow *x,
			   uint64_t address, uint32_t groups, uint32_t cols, float factor)
{
	struct taken *t = &e->taken[x->chip];
	int dots = op == MR_I_DOTS;
	uint64_t passes = up(groups * up(cols, e->chip->plane_rows), e->chip->plane_count);
	uint64_t bytes = 2ull * groups * MR_ISA_BLOCK * cols;
	uint64_t interval = up(bytes, e->chip->sram_cycle_bytes);
	uint32_t wide = dots ? MR_ISA_TILE : cols;
	uint32_t step = mr_emit_vector_cycles(e, wide);
	struct mr_isa inst = blank(op, MR_T_F32 | MR_F_BLOCKS, 1, 0, cols);

	if (interval < MR_ISA_BLOCK * passes)
		interval = MR_ISA_BLOCK * passes;
	struct when kv_at = when_after(x->at, (uint64_t)x->rows * x->interval);
	struct place kv = {.chip = x->chip,
			   .address = address,
			   .rows = 1,
			   .cols = cols,
			   .form = MR_T_F16 | MR_F_BLOCKS};
	struct when through = {kv_at.a, kv_at.b + interval};
	struct when at = when_after(through, e->chip->plane_latency);
	hold(e, x->chip, x->stream, at);
	struct flow stream =
		mr_emit_gather(e, &kv, MR_INDEX_BLOCKS, groups, (uint32_t)interval, kv_at);
	struct when end = when_after(at, (uint64_t)x->rows * step);

	hold(e, x->chip, stream.stream, at);
	need(e, x->at, t->mxm);
	change(e, &t->mxm, through);
	inst.src[0] = (uint8_t)x->stream;
	inst.src[1] = (uint8_t)stream.stream;
	inst.interval = (uint16_t)interval;
	inst.stride = x->rows;
	inst.address = dots ? mr_isa_bits(factor) : 0;
	inst.dst = (uint8_t)take_stream(e, x->chip, at, end);
	issue(e, x->chip, inst, x->at);
	ends(e, end);
	if (interval > UINT16_MAX)
		e->status = MR_E_NOT_SUPPORTED;
	return (struct flow){x->chip, inst.dst, at, x->rows, wide, step, MR_T_F32};
}

/* ---- C2C and HOST ---- */

struct flow mr_emit_hop(struct emitter *e, const struct flow *f, uint32_t to)
{
	struct mr_isa inst = blank(MR_I_SEND, f->form, f->rows, f->interval, f->cols);
	struct when *link = &e->link[f->chip * e->chips + to];
	struct when end = rows_take(f->at, f->rows, f->form, f->interval), at, arrived;
	uint64_t hop = up(e->chip->hop_ps, e->chip->cycle_ps);

	need(e, f->at, *link);
	change(e, link, end);
	inst.src[0] = (uint8_t)f->stream;
	inst.peer = (uint8_t)to;
	issue(e, f->chip, inst, f->at);
	at = when_after(f->at, hop);
	arrived = when_after(end, hop);
	inst = blank(MR_I_RECV, f->form, f->rows, f->interval, f->cols);
	inst.peer = (uint8_t)f->chip;
	inst.dst = (uint8_t)take_stream(e, to, at, arrived);
	issue(e, to, inst, at);
	ends(e, arrived);
	return (struct flow){to, inst.dst, at, f->rows, f->cols, f->interval, f->form};
}

void mr_emit_host(struct emitter *e, enum mr_isa_op op, const struct place *p, uint32_t interval)
{
	struct when start = e->taken[p->chip].host, end;
	struct mr_isa inst = blank(op, p->form, p->rows, interval, p->cols);

	inst.address = (uint32_t)(p->address / 8);
	inst.stride = p->stride;
	switch (op) {
	case MR_I_DMA_IN:
		end = when_after(rows_take(start, p->rows, p->form, interval),
				 e->chip->mem_latency);
		break;
	case MR_I_SAMPLE:
		end = when_after(start, mr_emit_vector_cycles(e, p->cols) + e->chip->sample_cycles);
		break;
	case MR_I_RECORD:
		inst = blank(op, MR_T_NONE, 0, 0, 0);
		end = when_after(start, e->chip->record_cycles);
		break;
	default:
		end = when_after(start, 1);
	}
	EMIT_CHAIN(e, start)
	{
		change(e, &e->taken[p->chip].host, end);
		issue(e, p->chip, inst, start);
		ends(e, end);
	}
}

int mr_emit_result(struct emitter *e, struct emitted *out)
{
	*out = (struct emitted){e->icu, e->inst, e->icu_count, e->count, e->claim};
	return e->status;
}
