/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A decoder's layers as instructions: what compile.c calls for payload `schedule`. Documentation/lpu-isa.rst
 * describes the machine, schedule.c how the layers are cut into bodies.
 */
#ifndef MR_DRIVER_COMPILE_SCHEDULE_H
#define MR_DRIVER_COMPILE_SCHEDULE_H

#include "driver/compile/emit.h"
#include "driver/compile/place.h"
#include "kernels/cpu/layer.h"

/* Where a chip's tensors lie; NULL where it has none. Rows of a matrix may be a slice. */
struct sched_layer {
	const struct mr_prog_segment *tensor[MR_REF_TENSORS];
};

struct sched_input {
	const struct mr_shape *shape;
	const struct mr_chip *chip;
	uint32_t chips, batch, context;
	const struct placement *place; /* whose layers' KV is where */
	const struct mr_prog_segment *embed, *norm, *head;
	const struct mr_prog_segment *const *angles; /* [chips]: cosine and sine of each position */
	const struct sched_layer *layers;            /* [layers] */
	const uint64_t *work;                        /* [chips]: address of the work area */
};

/* Bytes of a chip's work area; @head: the chip makes logits. */
uint64_t mr_schedule_work(const struct mr_shape *shape, uint32_t batch, uint32_t context, int head);
/* The areas that it consists of, at @address of @chip; returns how many (at most SCHED_AREAS). */
#define SCHED_AREAS 32u
uint32_t mr_schedule_areas(const struct mr_shape *shape, uint32_t batch, uint32_t context, int head,
			   uint32_t chip, uint64_t address, struct mr_sched_area *areas);
/* Of the slot table, which the work area begins with. */
uint32_t mr_schedule_table_stride(uint32_t context);

/* Emits a step. 0, or as mr_emit_result. */
int mr_schedule_emit(const struct sched_input *in, struct emitter *e, struct emitted *out);

#endif /* MR_DRIVER_COMPILE_SCHEDULE_H */
