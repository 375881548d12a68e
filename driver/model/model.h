/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model, opened: hyperparameters, tensors by their place in a layer, tokeniser, chat template.
 * Built on the GGUF reader (gguf.h); used by the backends' load, by driver/compile and by
 * driver/sched.
 *
 * The file stays mapped read-only while the model is open; every pointer below points into that
 * mapping or into the model and dies with mr_model_close. No length or offset in the file is
 * trusted.
 */
#ifndef MR_DRIVER_MODEL_MODEL_H
#define MR_DRIVER_MODEL_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/layer.h" /* struct mr_shape */

struct mr_gguf;
struct mr_tokenizer;

/* Tensor types of a GGUF that this version reads; the values are the file format's. */
enum mr_tensor_type {
	MR_TENSOR_F32 = 0,
	MR_TENSOR_F16 = 1,
	MR_TENSOR_Q4_0 = 2,
	MR_TENSOR_Q4_1 = 3,
	MR_TENSOR_Q8_0 = 8,
	MR_TENSOR_Q4_K = 12,
	MR_TENSOR_Q5_K = 13,
	MR_TENSOR_Q6_K = 14,
	MR_TENSOR_BF16 = 30,
};

/* A matrix is rows of columns: rows = outputs, cols = inputs (GGUF's ne[1] and ne[0]). */
struct mr_tensor {
	const char *name; /* NUL-terminated, inside the model */
	const void *data; /* in the file's own block layout, row after row */
	size_t bytes;
	enum mr_tensor_type type;
	uint32_t rows; /* 1 for a vector */
	uint32_t cols;
};

/*
 * RoPE turns adjacent pairs (2i, 2i+1) of a head. Where a file's architecture pairs (i, i + head_dim/2)
 * instead, the rows of q and k, their biases and their norms are put in that order here, which changes
 * no dot product of a query with a key; so nothing behind the model knows of two orders.
 */
struct mr_model_layer {
	struct mr_tensor attn_norm, q, k, v, o;
	struct mr_tensor ffn_norm, gate, up, down;
	/* Of some architectures; data is NULL where there is none. */
	struct mr_tensor q_bias, k_bias, v_bias;
	struct mr_tensor q_norm, k_norm;
};

struct mr_model {
	struct mr_shape shape;
	struct mr_tensor token_embd;
	struct mr_tensor output_norm;
	struct mr_tensor output; /* the same as token_embd where the file ties them */
	struct mr_model_layer *layers;
	struct mr_tokenizer *tokenizer;
	const struct mr_gguf *gguf;
	const char *name;         /* general.name, or "" */
	const char *architecture; /* "llama", "qwen2", "qwen3" */
	uint32_t eos, bos;
	uint32_t stop[8]; /* ids that end an answer: EOS and the file's other end tokens */
	uint32_t stop_count;
	struct mr_chat_ids {
		uint32_t known;      /* 1 where chat.h can render the file's template */
		uint32_t start, end; /* <|im_start|> and <|im_end|> */
	} chat;
	double *rope_steps; /* of the shape, or NULL */
	void *reordered;    /* rows of Q and K that were put in another order, or NULL */
};

/*
 * Opens @path. Returns 0, MR_E_NOT_FOUND, MR_E_PERMISSION, MR_E_IO, MR_E_FORMAT, MR_E_VERSION,
 * MR_E_TRUNCATED, MR_E_TOO_LARGE, MR_E_RANGE, MR_E_MODEL (architecture, tensor type or
 * pre-tokeniser not supported) or MR_E_NO_MEMORY. Where it fails, @why (may be NULL) gets one
 * sentence that names the key or tensor, at most @why_bytes with its NUL. An unknown chat template
 * is no failure: see chat.known.
 */
int mr_model_open(const char *path, struct mr_model **model, char *why, size_t why_bytes);
/* The same from memory, which must be 8-byte aligned and stay as it is until mr_model_close. */
int mr_model_open_memory(const void *data, size_t bytes, struct mr_model **model, char *why,
			 size_t why_bytes);
void mr_model_close(struct mr_model *model); /* NULL is allowed */

/* A tensor as it is in the file by its GGUF name, such as "blk.7.ffn_down.weight". 0 or MR_E_NOT_FOUND. */
int mr_model_tensor(const struct mr_model *model, const char *name, struct mr_tensor *out);

/* The packing of a matrix of @type (kernels/cpu/pack.h). 0, or MR_E_MODEL for what is no such type. */
int mr_model_packing(enum mr_tensor_type type, enum mr_packing *packing);

#endif /* MR_DRIVER_MODEL_MODEL_H */
