// SPDX-License-Identifier: Apache-2.0
/*
 * Opens a model: reads the llama architecture's numbers and tensors out of a GGUF, checks each
 * tensor against them, and finds the ids that end an answer. A tensor that nothing here uses is
 * refused, since to leave it out would compute another model.
 */
#include "driver/model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "driver/model/chat.h"
#include "driver/model/gguf.h"
#include "driver/model/tokenizer.h"
#include "driver/model/why.h"

#define LAYER_TENSORS 9
#define ARCHITECTURE  "llama"

/* Control tokens that end an answer wherever a vocabulary has them, as llama.cpp takes them. */
static const char *const end_tokens[] = {
	"<|im_end|>", "<|endoftext|>", "<|eot_id|>",    "<|end|>",    "<end_of_turn>",
	"<EOT>",      "<|fim_pad|>",   "<|repo_name|>", "<reponame>", "<|file_sep|>",
};

static int read_u32(const struct mr_gguf *g, const char *key, uint32_t least, uint32_t most,
		    uint32_t *out, const struct mr_why *why)
{
	int rc = mr_gguf_get_u32(g, key, out);

	if (rc == MR_E_NOT_FOUND)
		return mr_why(why, MR_E_FORMAT, "the file has no key %s", key);
	if (rc == MR_E_FORMAT)
		return mr_why(why, MR_E_MODEL, "%s is no single integer", key);
	if (rc)
		return mr_why(why, MR_E_RANGE, "%s is negative or above 32 bits", key);
	if (*out < least || *out > most)
		return mr_why(why, MR_E_RANGE, "%s is %u, outside %u to %u", key, *out, least,
			      most);
	return 0;
}

/* As read_u32, but @fallback where the file has no such key. */
static int read_u32_or(const struct mr_gguf *g, const char *key, uint32_t fallback, uint32_t least,
		       uint32_t most, uint32_t *out, const struct mr_why *why)
{
	*out = fallback;
	return mr_gguf_find(g, key) ? read_u32(g, key, least, most, out, why) : 0;
}

static int read_float(const struct mr_gguf *g, const char *key, float least, float most, float *out,
		      const struct mr_why *why)
{
	int rc = mr_gguf_get_float(g, key, out);

	if (rc)
		return mr_why(why, MR_E_FORMAT, "the file has no float %s", key);
	if (!(*out >= least && *out <= most)) /* not a number is outside too */
		return mr_why(why, MR_E_RANGE, "%s lies outside %g to %g", key, (double)least,
			      (double)most);
	return 0;
}

/* What would change the computation and is not computed here. */
static int refuse_unknown(const struct mr_gguf *g, const struct mr_why *why)
{
	struct mr_gguf_string s;

	if (mr_gguf_get_string(g, "general.architecture", &s))
		return mr_why(why, MR_E_FORMAT, "the file has no string general.architecture");
	if (s.bytes != strlen(ARCHITECTURE) || memcmp(s.data, ARCHITECTURE, s.bytes))
		return mr_why(why, MR_E_MODEL,
			      "architecture %s; only " ARCHITECTURE " is supported",
			      mr_show(s.data, s.bytes).text);
	if (!mr_gguf_get_string(g, "llama.rope.scaling.type", &s) &&
	    (s.bytes != 4 || memcmp(s.data, "none", 4)))
		return mr_why(why, MR_E_MODEL, "llama.rope.scaling.type %s is not supported",
			      mr_show(s.data, s.bytes).text);
	return 0;
}

static int read_shape(struct mr_model *m, uint32_t vocab, const struct mr_why *why)
{
	const struct mr_gguf *g = m->gguf;
	struct mr_shape *s = &m->shape;
	uint32_t same;
	int rc;

	s->vocab = vocab;
	if ((rc = read_u32(g, "llama.block_count", 1, 1024, &s->layers, why)) ||
	    (rc = read_u32(g, "llama.context_length", 1, 1u << 24, &s->context, why)) ||
	    (rc = read_u32(g, "llama.embedding_length", 32, 1u << 16, &s->width, why)) ||
	    (rc = read_u32(g, "llama.feed_forward_length", 32, 1u << 20, &s->ffn, why)) ||
	    (rc = read_u32(g, "llama.attention.head_count", 1, 1024, &s->heads, why)) ||
	    (rc = read_u32_or(g, "llama.attention.head_count_kv", s->heads, 1, s->heads,
			      &s->kv_heads, why)) ||
	    (rc = read_u32_or(g, "llama.attention.key_length", s->width / s->heads, 16, 1024,
			      &s->head_dim, why)) ||
	    (rc = read_float(g, "llama.attention.layer_norm_rms_epsilon", 1e-12f, 1e-1f,
			     &s->rms_eps, why)) ||
	    (rc = read_float(g, "llama.rope.freq_base", 1.0f, 1e12f, &s->rope_base, why)) ||
	    (rc = read_u32_or(g, "llama.attention.value_length", s->head_dim, s->head_dim,
			      s->head_dim, &same, why)) ||
	    (rc = read_u32_or(g, "llama.rope.dimension_count", s->head_dim, s->head_dim,
			      s->head_dim, &same, why)) ||
	    (rc = read_u32_or(g, "llama.vocab_size", vocab, vocab, vocab, &same, why)))
		return rc;
	if (s->width % 32 || s->ffn % 32 || s->head_dim % 16 || !s->head_dim ||
	    s->heads * s->head_dim % 32 || s->heads % s->kv_heads)
		return mr_why(
			why, MR_E_MODEL,
			"width %u, ffn %u, %u heads of %u over %u KV heads: width, ffn and heads "
			"together must be multiples of 32, a head of 16, and KV heads divide heads",
			s->width, s->ffn, s->heads, s->head_dim, s->kv_heads);
	return 0;
}

/* Finds @name and checks that it is rows by cols; vectors are F32. */
static int take_tensor(const struct mr_gguf *g, const char *name, uint32_t rows, uint32_t cols,
		       struct mr_tensor *out, const struct mr_why *why)
{
	const struct mr_tensor *t = mr_gguf_tensor(g, name);
	int vector = rows == 1;

	if (!t)
		return mr_why(why, MR_E_FORMAT, "the file has no tensor %s", name);
	if (t->rows != rows || t->cols != cols)
		return mr_why(why, MR_E_FORMAT,
			      "tensor %s is %u by %u; the model's numbers want %u by %u", name,
			      t->rows, t->cols, rows, cols);
	if (vector && t->type != MR_TENSOR_F32)
		return mr_why(why, MR_E_MODEL,
			      "tensor %s is of type %s, which is not supported there", name,
			      mr_tensor_type_name(t->type));
	*out = *t;
	return 0;
}

static int take_layer(struct mr_model *m, uint32_t index, const struct mr_why *why)
{
	const struct mr_shape *s = &m->shape;
	struct mr_model_layer *l = &m->layers[index];
	uint32_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
	const struct {
		const char *name;
		uint32_t rows, cols;
		struct mr_tensor *out;
	} parts[LAYER_TENSORS] = {
		{"attn_norm", 1, s->width, &l->attn_norm}, {"attn_q", q, s->width, &l->q},
		{"attn_k", kv, s->width, &l->k},           {"attn_v", kv, s->width, &l->v},
		{"attn_output", s->width, q, &l->o},       {"ffn_norm", 1, s->width, &l->ffn_norm},
		{"ffn_gate", s->ffn, s->width, &l->gate},  {"ffn_up", s->ffn, s->width, &l->up},
		{"ffn_down", s->width, s->ffn, &l->down},
	};
	char name[64];

	for (int i = 0; i < LAYER_TENSORS; i++) {
		int rc;

		snprintf(name, sizeof(name), "blk.%u.%s.weight", index, parts[i].name);
		rc = take_tensor(m->gguf, name, parts[i].rows, parts[i].cols, parts[i].out, why);
		if (rc)
			return rc;
	}
	return 0;
}

static int take_tensors(struct mr_model *m, const struct mr_why *why)
{
	const struct mr_shape *s = &m->shape;
	int tied = !mr_gguf_tensor(m->gguf, "output.weight");
	uint32_t used = 2 + !tied + s->layers * LAYER_TENSORS;
	int rc;

	m->layers = calloc(s->layers, sizeof(*m->layers));
	if (!m->layers)
		return mr_why(why, MR_E_NO_MEMORY, "no memory for %u layers", s->layers);
	rc = take_tensor(m->gguf, "token_embd.weight", s->vocab, s->width, &m->token_embd, why);
	if (!rc)
		rc = take_tensor(m->gguf, "output_norm.weight", 1, s->width, &m->output_norm, why);
	m->output = m->token_embd;
	if (!rc && !tied)
		rc = take_tensor(m->gguf, "output.weight", s->vocab, s->width, &m->output, why);
	for (uint32_t i = 0; i < s->layers && !rc; i++)
		rc = take_layer(m, i, why);
	if (rc)
		return rc;
	if (mr_gguf_tensor_count(m->gguf) != used)
		return mr_why(
			why, MR_E_MODEL,
			"the file has %u tensors where the architecture has %u: biases, experts "
			"and RoPE factors are not supported",
			mr_gguf_tensor_count(m->gguf), used);
	return 0;
}

static void add_stop(struct mr_model *m, uint32_t id)
{
	for (uint32_t i = 0; i < m->stop_count; i++)
		if (m->stop[i] == id)
			return;
	if (m->stop_count < sizeof(m->stop) / sizeof(m->stop[0]))
		m->stop[m->stop_count++] = id;
}

static int read_ends(struct mr_model *m, const struct mr_why *why)
{
	const uint32_t last = m->shape.vocab - 1;
	uint32_t id;
	int rc;

	rc = read_u32(m->gguf, "tokenizer.ggml.eos_token_id", 0, last, &m->eos, why);
	if (!rc)
		rc = read_u32_or(m->gguf, "tokenizer.ggml.bos_token_id", m->eos, 0, last, &m->bos,
				 why);
	if (rc)
		return rc;
	add_stop(m, m->eos);
	for (size_t i = 0; i < sizeof(end_tokens) / sizeof(end_tokens[0]); i++)
		if (!mr_tokenizer_control(m->tokenizer, end_tokens[i], &id))
			add_stop(m, id);
	return 0;
}

/* A string of the file as a C string of the model's own; "" where there is none. */
static char *copy_string(const struct mr_gguf *g, const char *key)
{
	struct mr_gguf_string s = {"", 0};

	mr_gguf_get_string(g, key, &s);
	return strndup(s.data, s.bytes);
}

/* Takes over @gguf, also where it fails. */
static int open_gguf(struct mr_gguf *gguf, struct mr_model **model, const struct mr_why *why)
{
	struct mr_model *m = calloc(1, sizeof(*m));
	int rc;

	if (!m) {
		mr_gguf_close(gguf);
		return mr_why(why, MR_E_NO_MEMORY, "no memory");
	}
	m->gguf = gguf;
	m->architecture = ARCHITECTURE;
	m->name = copy_string(gguf, "general.name");
	if (!m->name)
		rc = mr_why(why, MR_E_NO_MEMORY, "no memory");
	else
		rc = refuse_unknown(gguf, why);
	if (!rc)
		rc = mr_tokenizer_create(gguf, &m->tokenizer, why->text, why->bytes);
	if (!rc)
		rc = read_shape(m, mr_tokenizer_vocab(m->tokenizer), why);
	if (!rc)
		rc = take_tensors(m, why);
	if (!rc)
		rc = read_ends(m, why);
	if (rc) {
		mr_model_close(m);
		return rc;
	}
	m->chat = mr_chat_recognise(m);
	*model = m;
	return 0;
}

int mr_model_open(const char *path, struct mr_model **model, char *why_text, size_t why_bytes)
{
	const struct mr_why why = {why_text, why_bytes};
	struct mr_gguf *gguf;
	int rc = mr_gguf_open(path, &gguf, why_text, why_bytes);

	return rc ? rc : open_gguf(gguf, model, &why);
}

int mr_model_open_memory(const void *data, size_t bytes, struct mr_model **model, char *why_text,
			 size_t why_bytes)
{
	const struct mr_why why = {why_text, why_bytes};
	struct mr_gguf *gguf;
	int rc = mr_gguf_open_memory(data, bytes, &gguf, why_text, why_bytes);

	return rc ? rc : open_gguf(gguf, model, &why);
}

void mr_model_close(struct mr_model *m)
{
	if (!m)
		return;
	mr_tokenizer_destroy(m->tokenizer);
	mr_gguf_close((struct mr_gguf *)(uintptr_t)m->gguf);
	free(m->layers);
	free((char *)(uintptr_t)m->name);
	free(m);
}

int mr_model_tensor(const struct mr_model *m, const char *name, struct mr_tensor *out)
{
	const struct mr_tensor *t = mr_gguf_tensor(m->gguf, name);

	if (!t)
		return MR_E_NOT_FOUND;
	*out = *t;
	return 0;
}

int mr_model_packing(enum mr_tensor_type type, enum mr_packing *packing)
{
	switch (type) {
	case MR_TENSOR_F32:
		*packing = MR_PACK_F32X16;
		return 0;
	case MR_TENSOR_F16:
		*packing = MR_PACK_F16X16;
		return 0;
	case MR_TENSOR_BF16:
		*packing = MR_PACK_BF16X16;
		return 0;
	case MR_TENSOR_Q4_0:
		*packing = MR_PACK_Q4_0X16;
		return 0;
	case MR_TENSOR_Q4_1:
		*packing = MR_PACK_Q4_1X16;
		return 0;
	case MR_TENSOR_Q8_0:
		*packing = MR_PACK_Q8_0X16;
		return 0;
	case MR_TENSOR_Q4_K:
		*packing = MR_PACK_Q4_KX16;
		return 0;
	case MR_TENSOR_Q5_K:
		*packing = MR_PACK_Q5_KX16;
		return 0;
	case MR_TENSOR_Q6_K:
		*packing = MR_PACK_Q6_KX16;
		return 0;
	}
	return MR_E_MODEL;
}
