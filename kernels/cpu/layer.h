/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One decoder layer, the embedding and the output head, in numeric class D, for a batch of rows. The CPU
 * backend (driver/cpu) and the LPU's reference walker (firmware-sim) both run their models through these
 * calls, each over weights and KV in its own memory: equal inputs give equal bits.
 *
 * Shapes are (rows, columns), row-major FP32 unless said otherwise. Nothing here allocates after
 * mr_workspace_create, locks, prints or fails on data: sizes were checked by whoever made the shape.
 */
#ifndef MR_KERNELS_CPU_LAYER_H
#define MR_KERNELS_CPU_LAYER_H

#include <stddef.h>
#include <stdint.h>

struct mr_kernels; /* kernels.h: the table of one ISA path */

/* A model's numbers. head_dim is even and a multiple of 16; width, ffn and heads*head_dim of 32. */
struct mr_shape {
	uint32_t layers;
	uint32_t width;    /* of the residual stream */
	uint32_t heads;    /* query heads */
	uint32_t kv_heads; /* divides heads */
	uint32_t head_dim;
	uint32_t ffn;
	uint32_t vocab;
	uint32_t context; /* positions the model was made for */
	float rms_eps;
	float rope_base; /* rotation of adjacent pairs (2i, 2i+1) over the whole head */
	/*
	 * Where RoPE is scaled: the angle of each of head_dim/2 pairs a position, in place of
	 * rope_base^(-2i/head_dim), and what cosine and sine are multiplied by. NULL where it is not.
	 * Only mr_workspace_create reads them.
	 */
	const double *rope_steps;
	float rope_magnitude;
	uint32_t
		float_weights; /* 1 = some matrix is F32, F16 or BF16: products need inputs as floats */
	uint32_t bf16_inputs; /* 1 = layers are computed in a class P too */
};

/* A weight matrix as the kernels read it, (rows, cols): see pack.h for the layouts. */
enum mr_packing {
	MR_PACK_Q4_1X16, /* 16 rows interleaved, blocks of 32 columns */
	MR_PACK_Q8_0X16,
	/* not on the LPU's chip */
	MR_PACK_Q4_0X16,
	MR_PACK_Q4_KX16, /* blocks of 256 columns */
	MR_PACK_Q5_KX16,
	MR_PACK_Q6_KX16,
	MR_PACK_F32X16,
	MR_PACK_F16X16,
	MR_PACK_BF16X16,
	MR_PACK_BF16_TILES, /* of any type, rounded: for class P alone */
};
struct mr_matrix {
	const void *data; /* 64-byte aligned; mr_pack_bytes(packing, rows, cols) long */
	uint32_t rows, cols;
	enum mr_packing packing;
};

struct mr_layer {
	const float *attn_norm;    /* (width) */
	struct mr_matrix q;        /* (heads*head_dim, width) */
	struct mr_matrix k, v;     /* (kv_heads*head_dim, width) */
	struct mr_matrix o;        /* (width, heads*head_dim) */
	const float *ffn_norm;     /* (width) */
	struct mr_matrix gate, up; /* (ffn, width) */
	struct mr_matrix down;     /* (width, ffn) */
	/* Of some architectures; NULL where there is none. */
	const float *q_bias;          /* (heads*head_dim) */
	const float *k_bias, *v_bias; /* (kv_heads*head_dim) */
	const float *q_norm, *k_norm; /* (head_dim): RMSNorm of each head, before RoPE */
};

/*
 * A row of a batch: one token of one sequence. kv[b] points at the memory of the sequence's positions
 * 16b to 16b+15; the layer's part of it starts kv_offset bytes in (an argument of the call) and holds
 * K[kv_head][16][head_dim] then V[kv_head][16][head_dim], FP16. Rows of one sequence must come in
 * ascending position; a row attends to every position up to its own, rows of the same batch included.
 */
struct mr_row {
	uint8_t *const *kv;
	uint32_t position;
};

/* Bytes of one layer of one KV block of 16 tokens. */
static inline size_t mr_kv_layer_bytes(const struct mr_shape *s)
{
	return (size_t)2 * s->kv_heads * 16 * s->head_dim * sizeof(uint16_t);
}

/*
 * Scratch for batches of up to @rows rows and @positions positions, tables included: of one thread, or of a
 * team (team.h), which the calls below then run on. The team must outlive it.
 */
struct mr_workspace;
struct mr_team;
int mr_workspace_create(const struct mr_shape *shape, uint32_t rows, uint32_t positions,
			struct mr_workspace **ws);
int mr_workspace_create_team(const struct mr_shape *shape, uint32_t rows, uint32_t positions,
			     struct mr_team *team, struct mr_workspace **ws);
void mr_workspace_destroy(struct mr_workspace *ws);

/* x[i] = row token_ids[i] of @embd, dequantised: (n, width). Ids are below embd->rows. */
void mr_embed(const struct mr_kernels *kern, const struct mr_matrix *embd, const uint32_t *ids,
	      uint32_t n, float *x);

/* One layer in place on x (n, width); writes K and V of every row to its KV memory. n <= workspace rows. */
void mr_layer_forward(const struct mr_kernels *kern, const struct mr_shape *shape,
		      const struct mr_layer *layer, const struct mr_row *rows, uint32_t n,
		      size_t kv_offset, float *x, struct mr_workspace *ws);

/* Only K and V of the rows (for the last layer of a prompt whose output nobody needs). x is unchanged. */
void mr_layer_kv_only(const struct mr_kernels *kern, const struct mr_shape *shape,
		      const struct mr_layer *layer, const struct mr_row *rows, uint32_t n,
		      size_t kv_offset, const float *x, struct mr_workspace *ws);

/* logits (n, output->rows) of x (n, width). */
void mr_head_forward(const struct mr_kernels *kern, const struct mr_shape *shape,
		     const float *output_norm, const struct mr_matrix *output, const float *x,
		     uint32_t n, float *logits, struct mr_workspace *ws);

#endif /* MR_KERNELS_CPU_LAYER_H */
