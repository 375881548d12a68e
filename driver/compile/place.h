/* SPDX-License-Identifier: Apache-2.0 */
/* Where the layers go: cuts of the pipeline, and the KV that they leave room for. For compile.c. */
#ifndef MR_DRIVER_COMPILE_PLACE_H
#define MR_DRIVER_COMPILE_PLACE_H

#include <stdint.h>

#include "driver/compile/compile.h"

#define PLACE_CHIPS_MAX 64

/* A model's sizes as SRAM sees them, each a multiple of MR_PROG_ALIGN. */
struct place_sizes {
	const uint64_t *layer; /* [layers]: all tensors of a layer */
	uint32_t layers;
	uint64_t embed;     /* the embedding's matrix */
	uint64_t head;      /* output matrix and norm */
	uint64_t head_tied; /* the same where embedding and head share a chip and the matrix */
	uint64_t kv_layer;  /* a KV block of one layer */
	uint64_t each;      /* what every chip has beside: work area and tables */
};

struct placement {
	uint32_t chips;
	uint32_t first[PLACE_CHIPS_MAX];
	uint32_t layers[PLACE_CHIPS_MAX];
	uint32_t kv_blocks; /* the most that any cut allows */
};

/* 1 and the placement with most KV blocks, at least @blocks_least; 0 where none has that many. */
int mr_place_layers(const struct place_sizes *sizes, uint64_t sram_bytes, uint32_t chips,
		    uint32_t blocks_least, struct placement *out);

#endif /* MR_DRIVER_COMPILE_PLACE_H */
