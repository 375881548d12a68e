// SPDX-License-Identifier: Apache-2.0
/*
 * Architectures, RoPE scalings and weight types: the tiny models of tests/models on the CPU backend against
 * what `transformers` made of them in float32, the same bits on every path, for any number of threads and
 * whether a prompt is prefilled or fed token by token; their tokenisers' special tokens; what of them the LPU
 * compiler refuses; and what becomes of their keys and bytes when changed.
 */
#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <json-c/json.h>

#include <millrace/status.h>

#include "driver/compile/compile.h"
#include "driver/cpu/cpu.h"
#include "driver/mem/arena.h"
#include "driver/model/gguf.h"
#include "driver/model/model.h"
#include "driver/model/tokenizer.h"
#include "firmware-sim/chips.h"
#include "kernels/cpu/kernels.h"
#include "userlib/spec/chip.h"

#define TOKENS_MAX 128u
#define VOCAB_MAX  128u

static struct mr_arena *arena; /* a model's: its regions last as long */
static char why[256];

static struct mr_model *open_model(const char *name)
{
	char path[128];
	struct mr_model *m;

	snprintf(path, sizeof(path), "tests/models/%s.gguf", name);
	if (mr_model_open(path, &m, why, sizeof(why)))
		fail_msg("%s: %s", name, why);
	return m;
}

/* How a model is run. */
struct way {
	const char *kernels;
	uint32_t threads;
	uint32_t prefill; /* so many tokens are prefilled, which have no logits */
	int exact;        /* 1 = in class P, where there is one; else prefill's bits are decode's */
};

/* Takes events until the work is done; the logits of each token to its row of (count, vocab). */
static void finish(struct mr_device *dev, float *logits)
{
	for (;;) {
		struct pollfd p = {.fd = dev->wait_fd, .events = POLLIN};
		uint32_t vocab = dev->caps.vocab;
		struct mr_event e;

		if (!dev->work->poll(dev, &e, 1)) {
			if (!dev->work->arm(dev))
				assert_int_equal(poll(&p, 1, 20000), 1);
			continue;
		}
		assert_int_equal(e.status, 0);
		if (e.type == MR_EVENT_DONE)
			return;
		if (e.type == MR_EVENT_TOKEN)
			memcpy(logits + (size_t)(e.position - 1) * vocab, e.logits,
			       vocab * sizeof(*logits));
	}
}

/* The logits after each of @count tokens, (count, vocab). */
static void run(const struct mr_model *m, const struct way *way, const uint32_t *tokens,
		uint32_t count, float *logits)
{
	const struct mr_cpu_options options = {
		.arena = arena,
		.slots = 1,
		.context = TOKENS_MAX,
		.kv_tokens = TOKENS_MAX,
		.kernels = way->kernels,
		.numerics = way->exact ? MR_NUMERICS_EXACT : MR_NUMERICS_STRICT,
		.cpu = -1,
		.threads = way->threads,
	};
	struct mr_slot_config config = {.owner = 1, .positions = count};
	struct mr_device *dev;
	struct mr_slot slot;

	assert_int_equal(mr_cpu_open(&options, &dev), 0);
	assert_int_equal(dev->work->load(dev, m, NULL, NULL), 0);
	assert_int_equal(dev->mem->slot_open(dev, &config, &slot), 0);
	if (way->prefill) {
		assert_int_equal(dev->work->prefill(dev, slot, tokens, way->prefill, 0, 1), 0);
		finish(dev, logits);
	}
	for (uint32_t i = way->prefill; i < count;) {
		struct mr_decode_entry entry = {.slot = slot,
						.position = i,
						.token = tokens[i],
						.forced = tokens + i + 1,
						.flags = MR_DECODE_LOGITS};
		uint32_t steps = count - i < 16 ? count - i : 16;

		entry.forced_count = steps - 1;
		assert_int_equal(dev->work->decode(dev, &entry, 1, steps, i), 0);
		finish(dev, logits);
		i += steps;
	}
	dev->admin->close(dev);
}

/* Largest difference from the reference, in units of the reference's own spread. */
static double distance(struct json_object *ref, const float *logits, uint32_t vocab)
{
	struct json_object *list = json_object_object_get(ref, "logits");
	double worst = 0, squares = 0, n = 0;

	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *at = json_object_array_get_idx(list, i);
		struct json_object *values = json_object_object_get(at, "values");
		int pos = json_object_get_int(json_object_object_get(at, "position"));

		assert_int_equal(json_object_array_length(values), vocab);
		for (uint32_t v = 0; v < vocab; v++) {
			double want = json_object_get_double(json_object_array_get_idx(values, v));

			worst = fmax(worst, fabs(want - logits[(size_t)pos * vocab + v]));
			squares += want * want;
			n++;
		}
	}
	return worst / sqrt(squares / n);
}

/*
 * Float weights leave activations as they are, and what is left is KV in FP16; quantised ones round
 * activations to 8 bits.
 */
static double limit_of(const char *name)
{
	return strcmp(name, "llama-k") ? 6e-3 : 6e-2;
}

/* What follows a prompt in class P: near the reference too, the same bits on any number of threads. */
static void check_prompt(const struct mr_model *m, struct json_object *ref,
			 const struct mr_kernels *kern, const uint32_t *tokens, uint32_t count,
			 const float *first)
{
	const char *name = json_object_get_string(json_object_object_get(ref, "model"));
	static float got[2][TOKENS_MAX * VOCAB_MAX];
	size_t bytes = (size_t)count * m->shape.vocab * sizeof(float);
	double off;

	for (uint32_t i = 0; i < 2; i++) {
		struct way way = {kern->name, 1 + 2 * i, count - 5, .exact = 1};

		memcpy(got[i], first, bytes);
		run(m, &way, tokens, count, got[i]);
	}
	assert_memory_equal(got[0], got[1], bytes);
	off = distance(ref, got[0], m->shape.vocab);
	printf("%-14s largest difference %.2g after a prompt in %s\n", name, off,
	       kern->prompt->numerics);
	if (!(off < limit_of(name)))
		fail_msg("%s: the limit is %g", name, limit_of(name));
}

static void check_model(struct json_object *ref)
{
	const char *name = json_object_get_string(json_object_object_get(ref, "model"));
	struct json_object *list = json_object_object_get(ref, "tokens");
	const struct mr_arena_options options = {.node = -1, .no_huge = 1};
	uint32_t tokens[TOKENS_MAX], count = (uint32_t)json_object_array_length(list);
	static float first[TOKENS_MAX * VOCAB_MAX], other[TOKENS_MAX * VOCAB_MAX];
	struct mr_model *m = open_model(name);
	double off;
	size_t vocab = m->shape.vocab, row = vocab * sizeof(float);

	assert_true(count <= TOKENS_MAX && m->shape.vocab <= VOCAB_MAX);
	for (uint32_t i = 0; i < count; i++)
		tokens[i] = (uint32_t)json_object_get_int(json_object_array_get_idx(list, i));
	assert_int_equal(mr_arena_create(&options, &arena), 0);
	run(m, &(struct way){"scalar", 1, 0}, tokens, count, first);
	off = distance(ref, first, m->shape.vocab);
	printf("%-14s largest difference %.2g of the logits' spread\n", name, off);
	if (!(off < limit_of(name)))
		fail_msg("%s: the limit is %g", name, limit_of(name));
	for (int i = 0; mr_kernels_all[i]; i++) {
		if (!mr_kernels_runnable(mr_kernels_all[i])) {
			printf("skipped: this CPU cannot run %s\n", mr_kernels_all[i]->name);
			continue;
		}
		for (uint32_t threads = 1; threads <= 3; threads++) {
			struct way way = {mr_kernels_all[i]->name, threads, 0};

			run(m, &way, tokens, count, other);
			assert_memory_equal(first, other, count * row);
			way.prefill = count - 5;
			memset(other, 0, count * row);
			run(m, &way, tokens, count, other);
			assert_memory_equal(first + way.prefill * vocab,
					    other + way.prefill * vocab, 5 * row);
		}
		/* On AMX a prompt is of BF16, and float weights' limits are not for that. */
		if (mr_kernels_all[i]->prompt && !mr_kernels_all[i]->prompt->tiles)
			check_prompt(m, ref, mr_kernels_all[i], tokens, count, first);
	}
	mr_arena_destroy(arena);
	mr_model_close(m);
}

static void as_transformers_has_it(void **state)
{
	struct json_object *all = json_object_from_file("tests/models/logits.json");

	assert_non_null(all);
	assert_int_equal(json_object_array_length(all), 6);
	for (size_t i = 0; i < json_object_array_length(all); i++)
		check_model(json_object_array_get_idx(all, i));
	json_object_put(all);
}

static int encode(const struct mr_model *m, const char *text, unsigned flags, uint32_t *ids)
{
	struct mr_token_work *work;
	int n;

	assert_int_equal(mr_token_work_create(m->tokenizer, 256, &work), 0);
	n = mr_encode(m->tokenizer, work, text, strlen(text), flags, ids, 64);
	mr_token_work_destroy(work);
	return n;
}

static void special_tokens(void **state)
{
	struct mr_model *m = open_model("qwen2");
	uint32_t ids[64], user = m->shape.vocab - 2, id;
	struct mr_detok detok = {0};
	char out[MR_DETOK_MAX];
	size_t bytes;

	/* The user's own token is itself in plain text, and gives its text; the unused one neither. */
	assert_int_equal(encode(m, "<think>", 0, ids), 1);
	assert_int_equal(ids[0], user);
	assert_int_equal(encode(m, "the<think>the", 0, ids), 1 + 2 * encode(m, "the", 0, ids + 32));
	bytes = mr_detok_push(m->tokenizer, &detok, user, out);
	assert_memory_equal(out, "<think>", bytes);
	assert_int_equal(bytes, 7);
	assert_false(mr_token_is_control(m->tokenizer, user));
	assert_int_equal(mr_tokenizer_control(m->tokenizer, "<think>", &id), MR_E_NOT_FOUND);
	for (int i = encode(m, "[PAD0]", MR_ENCODE_CONTROL, ids); i > 0; i--)
		assert_int_not_equal(ids[i - 1], user + 1);
	assert_int_equal(mr_detok_push(m->tokenizer, &detok, user + 1, out), 0);
	assert_true(mr_token_is_control(m->tokenizer, user + 1));
	/* This file wants no BOS; a llama-bpe one that says nothing does. */
	assert_int_not_equal(encode(m, "the", MR_ENCODE_START, ids), 0);
	assert_int_not_equal(ids[0], m->bos);
	mr_model_close(m);
	m = open_model("llama-factors");
	assert_int_equal(encode(m, "", MR_ENCODE_START, ids), 1);
	assert_int_equal(ids[0], m->bos);
	assert_int_equal(encode(m, "", 0, ids), 0);
	mr_model_close(m);
}

static void refused_by(const char *name, const char *says)
{
	struct mr_model *m = open_model(name);
	struct mr_compile_options options = {.chips = 1, .batch = 1, .context = 64};
	struct mr_program program;
	const struct mr_sim_builtin_chip *text = mr_sim_builtin_chip("mr1");
	struct mr_chip chip;

	assert_int_equal(mr_chip_parse(text->text, (size_t)(text->end - text->text), &chip, why,
				       sizeof(why)),
			 0);
	options.chip = &chip;
	assert_int_equal(mr_compile(m, &options, &program, why, sizeof(why)), MR_E_NOT_SUPPORTED);
	if (!strstr(why, says))
		fail_msg("%s: \"%s\" does not name %s", name, why, says);
	mr_program_free(&program);
	mr_model_close(m);
}

static void the_lpu_refuses(void **state)
{
	refused_by("llama-linear", "scaled RoPE");
	refused_by("llama-factors", "scaled RoPE");
	refused_by("llama-k", "type Q6_K");
	refused_by("qwen2", "blk.0.attn_q.bias");
	refused_by("qwen3", "blk.0.attn_q_norm.weight");
}

static uint8_t *read_model(const char *name, size_t *bytes)
{
	char path[128];
	uint8_t *data;
	FILE *f;

	snprintf(path, sizeof(path), "tests/models/%s.gguf", name);
	f = fopen(path, "rb");
	assert_non_null(f);
	fseek(f, 0, SEEK_END);
	*bytes = (size_t)ftell(f);
	rewind(f);
	data = malloc(*bytes);
	assert_int_equal(fread(data, 1, *bytes, f), *bytes);
	fclose(f);
	return data;
}

/* Overwrites @count bytes at @offset past the end of the first @find. */
static void check_changed(const char *model, const char *find, size_t offset, const void *to,
			  size_t count, int status, const char *names)
{
	size_t bytes;
	uint8_t *data = read_model(model, &bytes), *at = memmem(data, bytes, find, strlen(find));
	struct mr_model *m = NULL;
	int rc;

	assert_non_null(at);
	memcpy(at + strlen(find) + offset, to, count);
	rc = mr_model_open_memory(data, bytes, &m, why, sizeof(why));
	if (rc != status || !strstr(why, names))
		fail_msg("%s: %s, \"%s\"", find, mr_status_name(rc), why);
	mr_model_close(m);
	free(data);
}

/* As check_changed, of the text itself. */
static void check_renamed(const char *model, const char *from, const char *to, int status,
			  const char *names)
{
	assert_int_equal(strlen(from), strlen(to));
	check_changed(model, from, -strlen(from), to, strlen(to), status, names);
}

static void changed_files_are_refused(void **state)
{
	static const float small = 0.5f, huge = 1e7f;
	const float nan_value = __builtin_nanf("");
	uint32_t none = 0, many = 1u << 25;
	size_t bytes;
	uint8_t *data;
	struct mr_gguf *gguf;
	struct mr_model *m;
	float *factors;

	/* past the value's type and length */
	check_changed("llama-yarn", "rope.scaling.type", 12, "warn", 4, MR_E_MODEL, "warn");
	check_changed("llama-linear", "rope.scaling.type", 12, "lonear", 6, MR_E_MODEL, "lonear");
	check_changed("llama-linear", "llama.rope.scaling.factor", 4, &small, 4, MR_E_RANGE,
		      "rope.scaling.factor");
	check_changed("llama-linear", "llama.rope.scaling.factor", 4, &huge, 4, MR_E_RANGE,
		      "rope.scaling.factor");
	check_changed("llama-yarn", "llama.rope.scaling.factor", 4, &nan_value, 4, MR_E_RANGE,
		      "rope.scaling.factor");
	check_changed("llama-yarn", "original_context_length", 4, &none, 4, MR_E_RANGE,
		      "original_context_length");
	check_changed("llama-yarn", "original_context_length", 4, &many, 4, MR_E_RANGE,
		      "original_context_length");
	check_renamed("qwen2", "blk.1.attn_v.bias", "blk.1.attn_v.bios", MR_E_FORMAT,
		      "blk.1.attn_v.bias");
	check_renamed("qwen3", "blk.1.attn_k_norm.weight", "blk.1.attn_k_form.weight", MR_E_FORMAT,
		      "blk.1.attn_k_norm.weight");
	check_renamed("llama-factors", "rope_freqs.weight", "rope_freks.weight", MR_E_MODEL,
		      "rope_freks.weight");
	check_renamed("qwen3", "qwen3.attention.key_length", "qwen3.attention.key_longth",
		      MR_E_RANGE, "value_length");
	check_renamed("llama-linear", "llama.attention.value_length",
		      "llama.attn_logit_softcapping", MR_E_MODEL, "llama.attn_logit_softcapping");
	check_renamed("qwen2", "qwen2", "qwen7", MR_E_MODEL, "qwen7");
	/* What pairs' angles are divided by lies in a tensor's data. */
	data = read_model("llama-factors", &bytes);
	assert_int_equal(mr_gguf_open_memory(data, bytes, &gguf, NULL, 0), 0);
	factors = (float *)(uintptr_t)mr_gguf_tensor(gguf, "rope_freqs.weight")->data;
	factors[3] = 0;
	assert_int_equal(mr_model_open_memory(data, bytes, &m, why, sizeof(why)), MR_E_RANGE);
	assert_non_null(strstr(why, "rope_freqs"));
	mr_gguf_close(gguf);
	free(data);
}

static int setup(void **state)
{
	mr_numerics_enter();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_transformers_has_it),
		cmocka_unit_test(special_tokens),
		cmocka_unit_test(the_lpu_refuses),
		cmocka_unit_test(changed_files_are_refused),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
