/* SPDX-License-Identifier: Apache-2.0 */
/* The architectures that are read, and a model's numbers out of its metadata. For model.c only. */
#ifndef MR_DRIVER_MODEL_SHAPE_H
#define MR_DRIVER_MODEL_SHAPE_H

#include "driver/model/model.h"

struct mr_why;

/* What sets one architecture apart from another. */
struct mr_architecture {
	const char *name;
	int half_pairs; /* RoPE turns (i, i + head_dim/2), not (2i, 2i + 1) */
	int qkv_bias;   /* of Q, K and V: -1 where it may be there, 0 never, 1 always */
	int qk_norm;    /* each head of Q and K is normed before RoPE */
};

/* The architecture that the file names; NULL, with @why and @rc, where it is none of these. */
const struct mr_architecture *mr_architecture_of(const struct mr_gguf *gguf,
						 const struct mr_why *why, int *rc);

/*
 * Reads @m->shape, all but RoPE's steps, and refuses what would change the computation and is not
 * computed here. @vocab is the tokeniser's.
 */
int mr_shape_read(struct mr_model *m, uint32_t vocab, const struct mr_why *why);

/*
 * Sets @m->shape's RoPE steps where the file scales them: by its keys, and by @factors (head_dim/2 of
 * them; NULL where the file has none).
 */
int mr_shape_rope(struct mr_model *m, const float *factors, const struct mr_why *why);

/* An unsigned key; @least to @most, MR_E_RANGE outside. */
int mr_shape_u32(const struct mr_gguf *gguf, const char *key, uint32_t least, uint32_t most,
		 uint32_t *out, const struct mr_why *why);
/* The same, but @fallback where the file has no such key. */
int mr_shape_u32_or(const struct mr_gguf *gguf, const char *key, uint32_t fallback, uint32_t least,
		    uint32_t most, uint32_t *out, const struct mr_why *why);

#endif /* MR_DRIVER_MODEL_SHAPE_H */
