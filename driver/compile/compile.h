/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compiler: a model and a chip -> a program container (userlib/spec/container.h) with payload
 * `schedule` or `reference`. Called by driver/lpu at load and by tools that plan. Layers go over the chips
 * as a pipeline, cut where it leaves most room for KV; what SRAM leaves over is KV. Deterministic: equal
 * input gives equal bytes.
 */
#ifndef MR_DRIVER_COMPILE_COMPILE_H
#define MR_DRIVER_COMPILE_COMPILE_H

#include <stddef.h>
#include <stdint.h>

#include "userlib/spec/chip.h"

struct mr_model;

struct mr_compile_options {
	const struct mr_chip *chip;
	uint32_t chips;   /* of the group, 1 to 64 */
	uint32_t batch;   /* entries of the largest DECODE, 1 or more */
	uint32_t context; /* positions a slot can hold; 0 = the model's */
	uint32_t payload; /* MR_PAYLOAD_SCHEDULE, or MR_PAYLOAD_REFERENCE, or 0 = that */
	/*
	 * How a schedule goes over the chips: layer after layer, or each matrix by columns of its product, or 0 =
	 * whichever takes fewer cycles for a full batch in the middle of the context.
	 */
	enum mr_split { MR_SPLIT_BEST, MR_SPLIT_PIPELINE, MR_SPLIT_COLUMNS } split;
	void (*progress)(void *arg, unsigned percent); /* of packing; may be NULL */
	void *progress_arg;
};

/* What the compiler found, also where it refuses: what is needed and what is there, in bytes. */
struct mr_fit {
	uint64_t matrices;    /* packed, copies counted */
	uint64_t vectors;     /* norms; of a schedule also its tables */
	uint64_t work;        /* of a schedule: activations, slot tables, logits */
	uint64_t kv_least;    /* KV of one slot of full context */
	uint64_t kv;          /* KV that the placement leaves room for; 0 where it does not fit */
	uint64_t sram;        /* of all chips */
	uint32_t kv_blocks;   /* of 16 positions, all layers */
	uint32_t chips;       /* asked for */
	uint32_t chips_least; /* smallest group that would do, 0 = none of up to 64 */
	enum mr_split split;  /* of a schedule: how it was cut */
};

struct mr_program {
	void *container; /* sealed; free with mr_program_free */
	size_t bytes;
	struct mr_fit fit;
};

/*
 * Compiles @model. Returns 0; MR_E_SRAM_FULL where it does not fit, then program->fit and @why give the
 * numbers; MR_E_NOT_SUPPORTED where the chip lacks a tensor's type; MR_E_MODEL, MR_E_RANGE,
 * MR_E_NO_MEMORY. @why (may be NULL) gets one sentence. program->container is NULL where it fails.
 * Allocates the whole container; takes time in the order of the model's size. Any thread.
 */
int mr_compile(const struct mr_model *model, const struct mr_compile_options *options,
	       struct mr_program *program, char *why, size_t why_bytes);
void mr_program_free(struct mr_program *program);

#endif /* MR_DRIVER_COMPILE_COMPILE_H */
