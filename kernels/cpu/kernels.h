/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numeric class D as a table of functions, one table an instruction set, all with the same bits.
 *
 * The rules that make bits equal, on every path:
 *   - activations: int8 by blocks of 32 counted from column 0; d_x = amax/127 in FP32, q = round to
 *     nearest even of x * (1/d_x as FP32 127/amax), clamped to -127..127; a block whose amax is below
 *     2^-100 (all zeros among them) has d_x = 0 and q = 0; amax is NaN where a value is;
 *   - an output is one FP32 FMA chain in ascending block order: acc = fma(d_w*d_x, (float)dot, acc),
 *     then for Q4_1 acc = fma(m_w*d_x, (float)sum_q, acc), with exact int32 dot and sum_q; vector
 *     lanes are output rows, never parts of one sum;
 *   - the other weight types: Q4_0 as Q8_0, with weights q - 8; Q4_K and Q5_K as Q4_1, with
 *     d_w = d*scale and m_w = -(dmin*min) of each 32 columns (both products exact); Q6_K two links of
 *     the chain for 32 columns, 16 each, with d_w = d*scale and weights q - 32; F32, F16 and BF16
 *     acc = fma(w, x, acc) for each column, over the activations as they are, not quantised;
 *   - reductions across lanes are one fixed tree of 16 lanes (lane i + i+8, then i+4, i+2, i+1) over
 *     16 partial sums by index mod 16; attention runs over tiles of 256 positions counted from position
 *     0, each by itself (largest score, sum of weights, weighted values in ascending position), merged
 *     in order;
 *   - own exp, sin and cos; IEEE division and square root; no libm; -ffp-contract=off; MXCSR 0x1F80.
 */
#ifndef MR_KERNELS_CPU_KERNELS_H
#define MR_KERNELS_CPU_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/layer.h"

/*
 * Activations as products read them. In class D: (rows, cols) int8 with a scale and a sum for each block
 * of 32 columns; and as they were, for float weights. In a class P: BF16 alone.
 */
struct mr_q8 {
	int8_t *q;    /* (rows, cols) */
	float *scale; /* (rows, cols/32) */
	int32_t *sum; /* (rows, cols/32): the block's q added up */
	uint32_t rows, cols;
	float *x; /* (rows, cols): a copy of what was quantised; NULL where no weights are floats */
	uint16_t *bf16;    /* (rows, cols); for class P-amx-bf16 alone, else NULL */
	float *scaled_sum; /* (rows, cols/32): scale * sum; for class P-avx512 alone */
	/*
	 * 1 = a matrix product goes on with the chain that y holds, of the columns before these. Then,
	 * and otherwise too, cols may be fewer than the matrix's: data is that of the first one's block.
	 * Q4_1X16 and Q8_0X16 only.
	 */
	uint32_t chain;
};

/* Attention of one row's query heads that share a KV head, over positions 0 to count-1. */
struct mr_attention {
	uint8_t *const *kv; /* as mr_row.kv */
	size_t k_offset;    /* bytes from a block's start to this head's K[16][head_dim] */
	size_t v_offset;
	uint32_t count;
	uint32_t head_dim;
	uint32_t queries; /* 1 to MR_ATTENTION_QUERIES; q and y are (queries, head_dim) */
	float scale;      /* 1/sqrt(head_dim) */
	/*
	 * 1 = K and V are probably not in the caches: values are fetched while scores are made, and the
	 * keys of the next tile (of @next at tile @next_tile after the last one; NULL = none) meanwhile.
	 */
	uint32_t prefetch, next_tile;
	const struct mr_attention *next;
};

/*
 * Attention of consecutive rows of one sequence, each over the positions up to its own: @queries query heads
 * of each row, which share a KV head.
 */
struct mr_attention_rows {
	uint8_t *const *kv; /* as struct mr_attention */
	size_t k_offset, v_offset;
	uint32_t position;      /* of the first row */
	uint32_t rows, queries; /* rows * queries is at most MR_ATTENTION_ROWS_QUERIES */
	uint32_t head_dim;
	float scale;
	/* Query @h of row @i is at q + i * stride + h * head_dim, and so is its result at y. */
	const float *q;
	float *y;
	size_t stride;
};

#define MR_PREFETCH_BYTES    8192u /* how far ahead weights are fetched */
#define MR_Q8_AMAX_MIN       0x1p-100f
#define MR_ATTENTION_TILE    256u
#define MR_ATTENTION_QUERIES 4u
/* Floats of a tile's partial result: values, then largest score and sum of weights, padded. */
#define MR_ATTENTION_PART(head_dim) ((head_dim) + 16u)
/* Floats of scratch that attention needs. */
#define MR_ATTENTION_SCRATCH(head_dim) \
	(MR_ATTENTION_QUERIES * (MR_ATTENTION_TILE + 2 * MR_ATTENTION_PART(head_dim)))

/* The same of attention_rows: K and V of a tile, queries, sums, weights, and what each query knows. */
#define MR_ATTENTION_ROWS_QUERIES 192u
#define MR_ATTENTION_ROWS_TILE    64u
#define MR_ATTENTION_ROWS_SCRATCH(head_dim)                                    \
	((head_dim)*2 * (MR_ATTENTION_ROWS_TILE + MR_ATTENTION_ROWS_QUERIES) + \
	 48 * MR_ATTENTION_ROWS_TILE + 3 * MR_ATTENTION_ROWS_QUERIES)

/* Activation rows that the int8 tiles take at a time; fewer are left to AVX-512. */
#define MR_AMX_ROWS 16u

/* Lengths n are multiples of 16, cols of 32. */
struct mr_kernels {
	const char *name;     /* "scalar", "avx2", "avx512", "amx" */
	const char *numerics; /* numeric class: "D", "P-amx-bf16", "P-avx512" */
	/*
	 * The class P that this path has for prompts; NULL = none. Its result for a row depends on that row
	 * alone, too.
	 */
	const struct mr_kernels *prompt;
	/*
	 * Of a class P: 1 = it multiplies by matrices of MR_PACK_BF16_TILES, and gains in a DECODE of many rows
	 * too; 0 = by class D's matrices, and gains only where many rows are of one sequence.
	 */
	int tiles;

	/* fills out->rows rows of out->cols: in class D q, scale and sum, x where it is not NULL; else bf16 */
	void (*quantize)(const float *x, struct mr_q8 *out);
	/*
	 * y (x->rows, w->rows; row stride @stride floats) = x * w^T for output rows [row0, row1),
	 * both multiples of 16 or the matrix's end. @next: what this thread will stream after these
	 * weights, NULL = nothing known; its first MR_PREFETCH_BYTES are fetched meanwhile.
	 */
	void (*matmul)(const struct mr_matrix *w, const struct mr_q8 *x, float *y, size_t stride,
		       uint32_t row0, uint32_t row1, const void *next);
	void (*rmsnorm)(const float *x, const float *weight, uint32_t n, float eps, float *y);
	/* cos_sin: head_dim floats of one position, (cos, sin) of each pair in turn */
	void (*rope)(float *x, uint32_t heads, uint32_t head_dim, const float *cos_sin);
	void (*swiglu)(const float *gate, const float *up, uint32_t n, float *y);
	void (*add)(float *x, const float *y, uint32_t n);
	void (*attention)(const struct mr_attention *a, const float *q, float *y, float *scratch);
	/*
	 * The same in two steps, for threads that share a row: one tile's partial results of each query
	 * (query i's at part + i * stride floats), and all @tiles of one query (side by side) to y.
	 */
	void (*attend)(const struct mr_attention *a, const float *q, uint32_t tile, float *part,
		       size_t stride, float *scratch);
	void (*merge)(const float *parts, uint32_t tiles, uint32_t head_dim, float *y,
		      float *scratch);
	/*
	 * Attention of a class P, in place of the three above; NULL = it has class D's. Its result for a row
	 * depends on that row alone, too.
	 */
	void (*attention_rows)(const struct mr_attention_rows *a, float *scratch);
	void (*to_half)(const float *x, uint32_t n, uint16_t *y); /* round to nearest even */

	/* The pieces of the above over one row of any length n (lanes_rows.h). */
	void (*exps)(const float *x, float minus, uint32_t n, float *y); /* e^(x - minus) */
	float (*row_sum)(const float *x, uint32_t n);
	float (*row_squares)(const float *x, uint32_t n);
	float (*row_max)(const float *x, uint32_t n);
	/*
	 * Rows of 16 in blocks of FP16 that lie @offset bytes into block[b]. dots: y[i][16b+p] = scale *
	 * x[i] * row p of block b; sums: y[i] = p[i][j] * row j, added over the first @count rows. x is
	 * (rows, dim), y of dots and p (rows, MR_ATTENTION_TILE), y of sums (rows, dim).
	 */
	void (*half_dots)(uint8_t *const *block, size_t offset, uint32_t blocks, const float *x,
			  uint32_t rows, uint32_t dim, float scale, float *y);
	void (*half_sums)(uint8_t *const *block, size_t offset, uint32_t count, const float *p,
			  uint32_t rows, uint32_t dim, float *y);
};

/*
 * The table for @name ("scalar", "avx2", "avx512", "amx"), or for the widest path that this CPU has where
 * @name is NULL. The environment's MR_CPU overrides a NULL. Returns NULL where the CPU lacks it or
 * nobody knows the name.
 */
const struct mr_kernels *mr_kernels_select(const char *name);

/* All paths this build has, NULL at the end, whether or not the CPU can run them; and whether it can. */
extern const struct mr_kernels *const mr_kernels_all[];
int mr_kernels_runnable(const struct mr_kernels *kern);

/* Sets the calling thread's MXCSR to 0x1F80; each compute thread calls it once at start. */
void mr_numerics_enter(void);

#endif /* MR_KERNELS_CPU_KERNELS_H */
