/* SPDX-License-Identifier: Apache-2.0 */
/* The executor's inside, for exec.c (clock and walk), exec_move.c (MEM, C2C, HOST) and exec_math.c (MXM, VXM). */
#ifndef MR_FIRMWARE_SIM_EXEC_PARTS_H
#define MR_FIRMWARE_SIM_EXEC_PARTS_H

#include <stddef.h>

#include "firmware-sim/exec.h"
#include "kernels/cpu/kernels.h"

#define EXEC_TILE_BLOCKS (MR_ISA_TILE / MR_ISA_BLOCK)

/* What passes by on a stream, or is on its way to another chip. */
struct burst {
	uint64_t start; /* cycle of its first row */
	uint32_t rows, interval;
	uint32_t type, cols;
	uint32_t valid; /* elements of a row that are there: cols, or the tile's positions */
	size_t stride;
	const uint8_t *data; /* row i at data + i * stride */
	uint8_t *buffer;     /* the stream's own, where rows are made */
	/* of a GATHER of KV blocks, whose rows are blocks and valid positions */
	uint32_t groups;
	size_t offset;
	uint8_t *block[EXEC_TILE_BLOCKS];
};

struct matrix_unit {
	struct mr_matrix weights;
	uint32_t outputs, inputs; /* of the installed tile */
	uint64_t ready;           /* when LOADW ends */
	float *sums;              /* (slots, outputs) of MUL and ACC without a destination */
	struct mr_q8 q8;          /* activations, laid out for the kernels */
	float *rows;              /* staging of DOTS and SUMS */
};

struct exec {
	struct exec_program p;
	struct exec_chip *chip;
	struct mr_chip timing;
	const struct sim_sram *sram;
	const struct mr_kernels *kernels;
	uint32_t *icu_end;    /* [icu]: of a LOOP its END */
	uint32_t *body_first; /* [bodies + 1] */
	uint32_t *after;      /* [inst]: of a LOADW the next one of its chip, or itself */
	uint32_t bodies;
	uint32_t streams;
	struct burst *burst;  /* [chips][streams] */
	struct burst *flight; /* [chips][chips]: from, to */
	struct matrix_unit *unit;
	uint64_t *host_free; /* [chips] */
	uint64_t *skew;      /* [chips][MR_ISA_QUEUES], of the body under way */

	/* the step under way */
	const struct exec_slot *slots;
	uint32_t n, slot, tile;
	uint64_t now; /* start of the body under way */
	uint64_t *record;
	const float **logits;
	mr_exec_watch watch;
	void *watch_arg;
	char why[128];
};

static inline uint64_t exec_ceil(uint64_t a, uint64_t b)
{
	return (a + b - 1) / b;
}

static inline struct burst *exec_burst(struct exec *e, const struct mr_isa *i, uint32_t stream)
{
	return &e->burst[i->chip * e->streams + stream];
}

static inline uint8_t *exec_sram(const struct exec *e, const struct mr_isa *i)
{
	return sim_sram_at(e->sram, i->chip, 8ull * i->address);
}

/* KV blocks and positions of the current tile of the current slot. */
static inline uint32_t exec_tile_positions(const struct exec *e)
{
	uint32_t left = e->slots[e->slot].position + 1 - e->tile * MR_ISA_TILE;

	return left < MR_ISA_TILE ? left : MR_ISA_TILE;
}

static inline uint32_t exec_tile_blocks(const struct exec *e)
{
	return (exec_tile_positions(e) + MR_ISA_BLOCK - 1) / MR_ISA_BLOCK;
}

static inline uint32_t exec_rows(const struct exec *e, const struct mr_isa *i)
{
	return i->form & MR_F_SLOTS    ? i->rows * e->n
	       : i->form & MR_F_BLOCKS ? i->rows * exec_tile_blocks(e)
				       : i->rows;
}

int mr_exec_violation(struct exec *e, const struct mr_isa *i, uint64_t start, const char *what);

/* The burst that source @k takes at @start, or NULL: it is not there in that cycle. */
static inline struct burst *exec_take(struct exec *e, const struct mr_isa *i, int k, uint64_t start)
{
	struct burst *b = exec_burst(e, i, i->src[k]);

	return b->start == start ? b : NULL;
}

/* Fills the destination's burst; rows of it are made in its buffer unless data is set after. */
static inline struct burst *exec_put(struct exec *e, const struct mr_isa *i, uint64_t start,
				     uint32_t rows, uint32_t interval, uint32_t type, uint32_t cols)
{
	struct burst *b = exec_burst(e, i, i->dst);

	b->start = start;
	b->rows = rows;
	b->interval = interval;
	b->type = type;
	b->cols = b->valid = cols;
	b->stride = (size_t)mr_isa_row_bytes(type, cols);
	b->data = b->buffer;
	b->groups = 0;
	return b;
}

/* Each runs one instruction that starts at @start: 0 or MR_E_SCHEDULE_VIOLATION. *end = when it is over. */
int mr_exec_mem(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end);
int mr_exec_c2c(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end);
int mr_exec_host(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end);
int mr_exec_mxm(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end);
int mr_exec_vxm(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end);

#endif /* MR_FIRMWARE_SIM_EXEC_PARTS_H */
