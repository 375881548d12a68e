/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The LPU device specification as C.
 */
#ifndef MILLRACE_LPU_SPEC_H
#define MILLRACE_LPU_SPEC_H

#include <stdint.h>

#define MR_KV_BLOCK_TOKENS 16u
#define MR_KV_DESCS_MAX	   128u

/* A KV block of one layer on its way to a device. 32 bytes. */
struct mr_kv_desc {
	uint64_t iova;	     /* of K[kv_head][16][head_dim] then V, FP16 */
	uint32_t block;	     /* index in the sequence: its first position / 16 */
	uint16_t layer;	     /* from 0 */
	uint16_t length;     /* positions of the block that hold KV, 1..16 */
	uint32_t owner;	     /* the sequence that holds the block */
	uint32_t generation; /* of the slot that is to receive it */
	uint32_t crc32c;     /* of the block's bytes, all 16 positions */
	uint32_t reserved;   /* 0 */
};

#endif /* MILLRACE_LPU_SPEC_H */
