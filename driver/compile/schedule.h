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

/*
 * Where a layer's tensors lie on each chip. As a pipeline all are on the layer's own chip. By columns every chip has
 * the norms and a slice of each matrix's rows (the columns of its product): sched_slice; NULL where it is empty.
 */
struct sched_layer {
	const struct mr_prog_segment *tensor[PLACE_CHIPS_MAX][MR_REF_TENSORS];
};

/* Rows [*first, *end) of @rows that chip @c of @chips has: whole blocks of 32, so that they are Q8's too. */
static inline void sched_slice(uint32_t rows, uint32_t c, uint32_t chips, uint32_t *first,
			       uint32_t *end)
{
	uint64_t units = (rows + 31) / 32;

	*first = (uint32_t)(units * c / chips * 32);
	*end = (uint32_t)(units * (c + 1) / chips * 32);
	*first = *first < rows ? *first : rows;
	*end = *end < rows ? *end : rows;
}

struct sched_input {
	const struct mr_shape *shape;
	const struct mr_chip *chip;
	uint32_t chips, batch, context;
	int columns;                   /* 0 = a pipeline */
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
