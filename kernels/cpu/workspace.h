/* SPDX-License-Identifier: Apache-2.0 */
/* What a workspace holds; for workspace.c and layer.c only. */
#ifndef MR_KERNELS_CPU_WORKSPACE_H
#define MR_KERNELS_CPU_WORKSPACE_H

#include "kernels/cpu/kernels.h"

struct mr_workspace {
	uint32_t rows, positions;
	size_t attn_cols; /* heads * head_dim */
	size_t kv_cols;   /* kv_heads * head_dim */
	float *norm;      /* (rows, width): normed input of attention and FFN; then their output */
	float *q;         /* (rows, attn_cols) */
	float *k, *v;     /* (rows, kv_cols) */
	float *attn;      /* (rows, attn_cols) */
	float *gate, *up; /* (rows, ffn) */
	float *scratch;   /* MR_ATTENTION_SCRATCH(head_dim) */
	float *cos_sin;   /* (positions, head_dim): (cos, sin) of each pair */
	struct mr_q8 q8;  /* for rows of the widest of width, attn_cols, ffn */
	void *memory;     /* all of the above, one allocation */
};

#endif /* MR_KERNELS_CPU_WORKSPACE_H */
