/* SPDX-License-Identifier: Apache-2.0 */
/* What a workspace holds; for workspace.c, layer.c and attend.c only. */
#ifndef MR_KERNELS_CPU_WORKSPACE_H
#define MR_KERNELS_CPU_WORKSPACE_H

#include "kernels/cpu/kernels.h"

/* Up to so many rows each thread of a team makes its int8 input for itself. */
#define MR_FEW_ROWS 2u

/* From so many rows on, threads take a layer's work in small units as they come to it. */
#define MR_MANY_ROWS   16u
#define MR_LAYER_PARTS 8u

/* One thread's own. */
struct mr_thread_space {
	float *row;      /* (the wider of width, attn_cols): a row before it is quantised */
	float *scratch;  /* of attention */
	struct mr_q8 q8; /* MR_FEW_ROWS rows of the widest; with a team only */
};

struct mr_workspace {
	struct mr_team *team; /* NULL = the caller alone */
	uint32_t rows, positions;
	uint32_t tiles;       /* of attention, of all positions */
	size_t attn_cols;     /* heads * head_dim */
	size_t kv_cols;       /* kv_heads * head_dim */
	float *out;           /* (rows, width): output of attention and FFN */
	float *q;             /* (rows, attn_cols) */
	float *k, *v;         /* (rows, kv_cols) */
	float *attn;          /* (rows, attn_cols) */
	float *gate, *up;     /* (rows, ffn) */
	float *parts;         /* (MR_FEW_ROWS, heads, tiles, MR_ATTENTION_PART); with a team only */
	float *cos_sin;       /* (positions, head_dim): (cos, sin) of each pair */
	struct mr_q8 in;      /* (rows, width): normed input */
	struct mr_q8 attn_q8; /* (rows, attn_cols) */
	struct mr_q8 ffn_q8;  /* (rows, ffn) */
	/* Units of each part of a layer that threads have taken, where they are not shared out beforehand. */
	struct mr_taken {
		_Alignas(64) uint32_t units;
	} * taken;                   /* [MR_LAYER_PARTS] */
	struct mr_thread_space *own; /* [threads] */
	void *memory;                /* all of the above but own, one allocation */
};

#endif /* MR_KERNELS_CPU_WORKSPACE_H */
