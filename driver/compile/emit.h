/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Instructions with their cycles: the compiler's arithmetic of time. A value is either in SRAM (struct place) or passes
 * by on a stream (struct flow); emit.c finds ports, streams and ALUs, and tells when a value is there. For schedule*.c.
 *
 * A time is a + b * r from its body's start, r being the body's register; one time is later than another where
 * it is so in both parts, whatever r is. What belongs together (a chain of flows) is emitted inside EMIT_CHAIN: where something
 * that it needs is taken, the chain is withdrawn and tried again as much later as that takes.
 */
#ifndef MR_DRIVER_COMPILE_EMIT_H
#define MR_DRIVER_COMPILE_EMIT_H

#include <stddef.h>
#include <stdint.h>

#include "userlib/spec/chip.h"
#include "userlib/spec/container.h"
#include "userlib/spec/isa.h"

struct when {
	uint64_t a, b;
};

static inline struct when when_later(struct when x, struct when y)
{
	return (struct when){x.a > y.a ? x.a : y.a, x.b > y.b ? x.b : y.b};
}

static inline struct when when_after(struct when x, uint64_t cycles)
{
	return (struct when){x.a + cycles, x.b};
}

/* Rows in a chip's SRAM: how many, what they are, and how an instruction reaches them. */
struct place {
	uint32_t chip;
	uint64_t address;
	uint32_t stride, rows, cols;
	uint8_t form;      /* type and MR_F_* */
	uint64_t span;     /* bytes from address to the end, all slots included */
	struct when ready; /* since when it may be read, in the body under way */
};

struct flow {
	uint32_t chip, stream;
	struct when at; /* first row */
	uint32_t rows, cols, interval;
	uint8_t form;
};

/* A source of a vector instruction; exactly one of the three. */
struct source {
	const struct flow *flow;
	const struct place *place;
	float immediate;
};

struct emitter;

int mr_emit_create(const struct mr_chip *chip, uint32_t chips, struct emitter **e);
void mr_emit_destroy(struct emitter *e);

/* The ICU's queue: a body, a loop. */
void mr_emit_body(struct emitter *e, enum mr_isa_register reg);
void mr_emit_body_end(struct emitter *e);
void mr_emit_loop(struct emitter *e, enum mr_isa_register reg);
void mr_emit_loop_end(struct emitter *e);

/* A chain from @t on, moved later until everything it needs is free. */
int mr_emit_try(struct emitter *e, struct when *t);
#define EMIT_CHAIN(e, t) for (; mr_emit_try(e, &(t));)

/* So that its first row is there at @at. */
struct flow mr_emit_read(struct emitter *e, const struct place *p, uint32_t interval,
			 struct when at);
struct flow mr_emit_gather(struct emitter *e, const struct place *p, enum mr_isa_index index,
			   uint32_t groups, uint32_t interval, struct when at);
/* From where the flow is; the place is ready when all of it is written. */
void mr_emit_write(struct emitter *e, const struct flow *f, struct place *p);
void mr_emit_scatter(struct emitter *e, const struct flow *f, uint64_t address, uint32_t groups);

/* op(a, b, c) at @t, where flows among the sources have to be; places among them are read. */
struct flow mr_emit_vector(struct emitter *e, uint32_t chip, enum mr_isa_op op,
			   const struct source s[3], uint32_t rows, uint32_t cols, uint8_t flags,
			   uint32_t interval, struct when t);
/* Immediate 0 and 1 of RSQRT. */
struct flow mr_emit_rsqrt(struct emitter *e, const struct flow *f, float divisor, float plus);

/* Installs a tile as soon as the matrix unit is free; returns when it is there. */
struct when mr_emit_loadw(struct emitter *e, uint32_t chip, uint32_t type, uint64_t address,
			  uint32_t stride, uint32_t rows, uint32_t cols);
/* The tile's product; @out (may be NULL) gets the sums. Inside EMIT_CHAIN. */
void mr_emit_mul(struct emitter *e, enum mr_isa_op op, const struct flow *x, uint32_t outputs,
		 struct flow *out);
/* DOTS and SUMS at x->at; @kv is emitted too, from @address of each block. */
struct flow mr_emit_blocks(struct emitter *e, enum mr_isa_op op, const struct flow *x,
			   uint64_t address, uint32_t groups, uint32_t cols, float factor);

/* To another chip; returns what arrives there. */
struct flow mr_emit_hop(struct emitter *e, const struct flow *f, uint32_t to);

/* @cycles of HOST's work after what it did before. */
void mr_emit_host(struct emitter *e, enum mr_isa_op op, const struct place *p, uint32_t interval);

/* Cycles of a row of @bytes through a stream, of @cols through the vector unit, on a link. */
uint32_t mr_emit_stream_cycles(const struct emitter *e, uint64_t bytes);
uint32_t mr_emit_vector_cycles(const struct emitter *e, uint32_t cols);
uint32_t mr_emit_link_cycles(const struct emitter *e, uint64_t bytes);

struct emitted {
	const struct mr_isa *icu, *inst;
	uint32_t icu_count, inst_count;
	struct mr_prog_claim claim; /* base, slot, block, tile and record filled */
};
/* 0, MR_E_NO_MEMORY, or MR_E_NOT_SUPPORTED: the chip lacks ports, or a number does not fit an instruction. */
int mr_emit_result(struct emitter *e, struct emitted *out);

#endif /* MR_DRIVER_COMPILE_EMIT_H */
