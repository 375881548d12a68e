// SPDX-License-Identifier: Apache-2.0
/*
 * Opens a model: reads its numbers (shape.c), checks each tensor against them, and finds the ids that
 * end an answer. A tensor that nothing here uses is refused, since to leave it out would compute
 * another model.
 */
#include "driver/model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "driver/model/chat.h"
#include "driver/model/gguf.h"
#include "driver/model/shape.h"
#include "driver/model/tokenizer.h"
#include "driver/model/why.h"

/* Control tokens that end an answer wherever a vocabulary has them, as llama.cpp takes them. */
static const char *const end_tokens[] = {
	"<|im_end|>", "<|endoftext|>", "<|eot_id|>",    "<|end|>",    "<end_of_turn>",
	"<EOT>",      "<|fim_pad|>",   "<|repo_name|>", "<reponame>", "<|file_sep|>",
};

/* Which of the file's tensors the model uses, by their index: what is left over is refused. */
struct taking {
	struct mr_model *m;
	const struct mr_architecture *arch;
	const struct mr_why *why;
	uint8_t *used;
};

/* Finds @name and checks that it is rows by cols; vectors are F32. */
static int take_tensor(const struct taking *t, const char *name, uint32_t rows, uint32_t cols,
		       struct mr_tensor *out)
{
	const struct mr_gguf *g = t->m->gguf;
	const struct mr_tensor *found = mr_gguf_tensor(g, name);

	if (!found)
		return mr_why(t->why, MR_E_FORMAT, "the file has no tensor %s", name);
	if (found->rows != rows || found->cols != cols)
		return mr_why(t->why, MR_E_FORMAT,
			      "tensor %s is %u by %u; the model's numbers want %u by %u", name,
			      found->rows, found->cols, rows, cols);
	if (rows == 1 && found->type != MR_TENSOR_F32)
		return mr_why(t->why, MR_E_MODEL,
			      "tensor %s is of type %s, which is not supported there", name,
			      mr_tensor_type_name(found->type));
	if (rows > 1 && (found->type == MR_TENSOR_F32 || found->type == MR_TENSOR_F16 ||
			 found->type == MR_TENSOR_BF16))
		t->m->shape.float_weights = 1;
	t->used[found - mr_gguf_tensor_at(g, 0)] = 1;
	*out = *found;
	return 0;
}

static int take_layer(const struct taking *t, uint32_t index)
{
	const struct mr_shape *s = &t->m->shape;
	struct mr_model_layer *l = &t->m->layers[index];
	uint32_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
	int bias = t->arch->qkv_bias, norm = t->arch->qk_norm;
	const struct {
		const char *name;
		uint32_t rows, cols;
		struct mr_tensor *out;
		int want; /* as mr_architecture.qkv_bias */
	} parts[] = {
		{"attn_norm.weight", 1, s->width, &l->attn_norm, 1},
		{"attn_q.weight", q, s->width, &l->q, 1},
		{"attn_k.weight", kv, s->width, &l->k, 1},
		{"attn_v.weight", kv, s->width, &l->v, 1},
		{"attn_output.weight", s->width, q, &l->o, 1},
		{"ffn_norm.weight", 1, s->width, &l->ffn_norm, 1},
		{"ffn_gate.weight", s->ffn, s->width, &l->gate, 1},
		{"ffn_up.weight", s->ffn, s->width, &l->up, 1},
		{"ffn_down.weight", s->width, s->ffn, &l->down, 1},
		{"attn_q.bias", 1, q, &l->q_bias, bias},
		{"attn_k.bias", 1, kv, &l->k_bias, bias},
		{"attn_v.bias", 1, kv, &l->v_bias, bias},
		{"attn_q_norm.weight", 1, s->head_dim, &l->q_norm, norm},
		{"attn_k_norm.weight", 1, s->head_dim, &l->k_norm, norm},
	};
	char name[64];

	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		int rc;

		snprintf(name, sizeof(name), "blk.%u.%s", index, parts[i].name);
		if (!parts[i].want || (parts[i].want < 0 && !mr_gguf_tensor(t->m->gguf, name)))
			continue;
		rc = take_tensor(t, name, parts[i].rows, parts[i].cols, parts[i].out);
		if (rc)
			return rc;
	}
	return 0;
}

static int take_all(const struct taking *t)
{
	struct mr_model *m = t->m;
	const struct mr_shape *s = &m->shape;
	struct mr_tensor factors = {0};
	int rc;

	rc = take_tensor(t, "token_embd.weight", s->vocab, s->width, &m->token_embd);
	if (!rc)
		rc = take_tensor(t, "output_norm.weight", 1, s->width, &m->output_norm);
	m->output = m->token_embd;
	if (!rc && mr_gguf_tensor(m->gguf, "output.weight"))
		rc = take_tensor(t, "output.weight", s->vocab, s->width, &m->output);
	if (!rc && mr_gguf_tensor(m->gguf, "rope_freqs.weight"))
		rc = take_tensor(t, "rope_freqs.weight", 1, s->head_dim / 2, &factors);
	for (uint32_t i = 0; i < s->layers && !rc; i++)
		rc = take_layer(t, i);
	if (!rc)
		rc = mr_shape_rope(m, factors.data, t->why);
	for (uint32_t i = 0; i < mr_gguf_tensor_count(m->gguf) && !rc; i++) {
		const char *name = mr_gguf_tensor_at(m->gguf, i)->name;

		if (!t->used[i])
			rc = mr_why(t->why, MR_E_MODEL, "tensor %s is not supported with %s",
				    mr_show(name, strlen(name)).text, m->architecture);
	}
	return rc;
}

/* The rows of one tensor of @heads heads, or the values of a vector, from (i, i + half) to pairs. */
static void pair_up(struct mr_tensor *t, uint32_t heads, uint32_t head_dim, uint8_t **to)
{
	size_t count = (size_t)heads * head_dim, size = t->bytes / count;
	const uint8_t *from = t->data;

	for (size_t i = 0; i < count; i++) {
		size_t head = i / head_dim * head_dim, at = i % head_dim;

		memcpy(*to + i * size, from + (head + at % 2 * (head_dim / 2) + at / 2) * size,
		       size);
	}
	t->data = *to;
	*to += (t->bytes + 63) & ~(size_t)63;
}

static int pair_up_all(struct mr_model *m, const struct mr_why *why)
{
	const struct mr_shape *s = &m->shape;
	size_t bytes = 0;
	uint8_t *to = NULL;

	/* Once to add up, once to do it. */
	for (int pass = 0; pass < 2; pass++) {
		for (uint32_t i = 0; i < s->layers; i++) {
			struct mr_model_layer *l = &m->layers[i];
			const struct {
				struct mr_tensor *t;
				uint32_t heads;
			} parts[] = {{&l->q, s->heads},      {&l->k, s->kv_heads},
				     {&l->q_bias, s->heads}, {&l->k_bias, s->kv_heads},
				     {&l->q_norm, 1},        {&l->k_norm, 1}};

			for (size_t p = 0; p < sizeof(parts) / sizeof(parts[0]); p++) {
				if (!parts[p].t->data)
					continue;
				if (pass)
					pair_up(parts[p].t, parts[p].heads, s->head_dim, &to);
				else
					bytes += (parts[p].t->bytes + 63) & ~(size_t)63;
			}
		}
		if (pass)
			break;
		/* Tensors that share the file's bytes could ask for any multiple of it. */
		if (bytes > 2 * mr_gguf_file_bytes(m->gguf))
			return mr_why(why, MR_E_FORMAT, "tensors of Q and K share bytes");
		to = m->reordered = aligned_alloc(64, bytes);
		if (!to)
			return mr_why(why, MR_E_NO_MEMORY, "no memory for Q and K in order");
	}
	return 0;
}

static int take_tensors(struct mr_model *m, const struct mr_architecture *arch,
			const struct mr_why *why)
{
	struct taking t = {m, arch, why, calloc(mr_gguf_tensor_count(m->gguf) + 1, 1)};
	int rc = MR_E_NO_MEMORY;

	m->layers = calloc(m->shape.layers, sizeof(*m->layers));
	if (!m->layers || !t.used)
		mr_why(why, rc, "no memory for %u layers", m->shape.layers);
	else
		rc = take_all(&t);
	if (!rc && arch->half_pairs)
		rc = pair_up_all(m, why);
	free(t.used);
	return rc;
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

	rc = mr_shape_u32(m->gguf, "tokenizer.ggml.eos_token_id", 0, last, &m->eos, why);
	if (!rc)
		rc = mr_shape_u32_or(m->gguf, "tokenizer.ggml.bos_token_id", m->eos, 0, last,
				     &m->bos, why);
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
	const struct mr_architecture *arch = NULL;
	int rc = 0;

	if (!m) {
		mr_gguf_close(gguf);
		return mr_why(why, MR_E_NO_MEMORY, "no memory");
	}
	m->gguf = gguf;
	m->name = copy_string(gguf, "general.name");
	if (!m->name)
		rc = mr_why(why, MR_E_NO_MEMORY, "no memory");
	else
		arch = mr_architecture_of(gguf, why, &rc);
	if (arch)
		m->architecture = arch->name;
	if (!rc)
		rc = mr_tokenizer_create(gguf, &m->tokenizer, why->text, why->bytes);
	if (!rc)
		rc = mr_shape_read(m, mr_tokenizer_vocab(m->tokenizer), why);
	if (!rc)
		rc = take_tensors(m, arch, why);
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
	free(m->rope_steps);
	free(m->reordered);
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
