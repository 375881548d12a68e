// SPDX-License-Identifier: Apache-2.0
/*
 * Opening models: what tests/tiny.gguf says, the script that makes it, and what becomes of it when it is cut
 * off or its bytes are changed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <millrace/status.h>

#include "driver/model/gguf.h"
#include "driver/model/model.h"
#include "driver/model/tokenizer.h"

#define TINY "tests/tiny.gguf"
#define SEED "tests/fuzz/corpus/gguf/seed.gguf"

static char why[256];

static uint8_t *read_file(const char *path, size_t *bytes)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data;

	assert_non_null(f);
	fseek(f, 0, SEEK_END);
	*bytes = (size_t)ftell(f);
	rewind(f);
	data = malloc(*bytes);
	assert_int_equal(fread(data, 1, *bytes, f), *bytes);
	fclose(f);
	return data;
}

/* Opens what must be refused or be usable; a refusal must say why. */
static int open_bytes(const uint8_t *data, size_t bytes)
{
	struct mr_model *m = NULL;
	int rc;

	why[0] = 0;
	rc = mr_model_open_memory(data, bytes, &m, why, sizeof(why));
	if (rc) {
		assert_true(rc < 0 && rc != MR_E_INTERNAL);
		assert_true(strlen(why) > 5);
		assert_null(m);
	} else {
		struct mr_token_work *work;
		uint32_t ids[64];
		int n;

		assert_int_equal(mr_token_work_create(m->tokenizer, 32, &work), 0);
		n = mr_encode(m->tokenizer, work, "the water", 9, MR_ENCODE_CONTROL, ids, 64);
		assert_in_range(n, 0, 9);
		mr_token_work_destroy(work);
		mr_model_close(m);
	}
	return rc;
}

static void tiny(void **state)
{
	struct mr_model *m;
	struct mr_tensor t;

	assert_int_equal(mr_model_open(TINY, &m, why, sizeof(why)), 0);
	assert_string_equal(m->name, "millrace tiny");
	assert_string_equal(m->architecture, "llama");
	assert_int_equal(m->shape.layers, 2);
	assert_int_equal(m->shape.width, 96);
	assert_int_equal(m->shape.heads, 6);
	assert_int_equal(m->shape.kv_heads, 2);
	assert_int_equal(m->shape.head_dim, 16);
	assert_int_equal(m->shape.ffn, 160);
	assert_int_equal(m->shape.context, 512);
	assert_int_equal(m->shape.vocab, mr_tokenizer_vocab(m->tokenizer));
	assert_ptr_equal(m->output.data, m->token_embd.data);
	assert_int_equal(m->token_embd.type, MR_TENSOR_Q8_0);
	assert_int_equal(m->layers[1].down.rows, 96);
	assert_int_equal(m->layers[1].down.cols, 160);
	assert_int_equal(m->layers[1].down.bytes, 96 * 160 / 32 * 20);
	assert_int_equal(mr_model_tensor(m, "blk.1.ffn_down.weight", &t), 0);
	assert_ptr_equal(t.data, m->layers[1].down.data);
	assert_int_equal(mr_model_tensor(m, "blk.2.ffn_down.weight", &t), MR_E_NOT_FOUND);
	assert_int_equal(m->eos, 2);
	assert_int_equal(m->stop_count, 3);
	assert_true(m->chat.known && m->chat.start == 1 && m->chat.end == 2);
	mr_model_close(m);
}

static void script_makes(const char *which, const char *committed)
{
	char path[] = "/tmp/mr-tiny-XXXXXX", command[256];
	uint8_t *want, *got;
	size_t want_bytes, got_bytes;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	close(fd);
	snprintf(command, sizeof(command), "python3 tests/make_tiny.py %s %s", which, path);
	assert_int_equal(system(command), 0);
	want = read_file(committed, &want_bytes);
	got = read_file(path, &got_bytes);
	unlink(path);
	assert_int_equal(got_bytes, want_bytes);
	assert_memory_equal(got, want, want_bytes);
	free(want);
	free(got);
}

static void the_script_makes_it(void **state)
{
	if (system("python3 -c '' 2>/dev/null")) {
		printf("skipped: no python3 to run tests/make_tiny.py\n");
		skip();
	}
	script_makes("tiny", TINY);
	script_makes("seed", SEED);
}

/* Cut anywhere, a file is refused; in its header at every 64 bytes, in its data more coarsely. */
static void cut_off(void **state)
{
	size_t bytes, header = 24576;
	uint8_t *data = read_file(TINY, &bytes);

	assert_int_equal(open_bytes(data, bytes), 0);
	for (size_t n = 0; n < bytes - 64; n += n < header ? 64 : 8192) {
		uint8_t *copy = malloc(n ? n : 1);

		memcpy(copy, data, n);
		assert_int_not_equal(open_bytes(copy, n), 0);
		free(copy);
	}
	free(data);
}

/* Every byte of the small file's header set to values that lengths, counts and types break at. */
static void changed_bytes(void **state)
{
	static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
	size_t bytes, refused = 0, header = 4600;
	uint8_t *data = read_file(SEED, &bytes);

	assert_int_equal(open_bytes(data, bytes), 0);
	assert_true(header < bytes);
	for (size_t i = 0; i < header; i++) {
		uint8_t was = data[i];

		for (size_t k = 0; k < sizeof(values); k++) {
			data[i] = values[k];
			refused += open_bytes(data, bytes) != 0;
		}
		data[i] = was;
	}
	assert_true(refused > header); /* most bytes matter */
	free(data);
}

/* Replaces the only occurrence of @from, of the same length as @to. */
static void replace(uint8_t *data, size_t bytes, const char *from, const char *to, size_t count)
{
	uint8_t *at = memmem(data, bytes, from, count);

	assert_non_null(at);
	memcpy(at, to, count);
}

/* The value of a u32 key, in the file's bytes. */
static uint8_t *value_of(uint8_t *data, size_t bytes, const char *key)
{
	uint8_t *at = memmem(data, bytes, key, strlen(key));

	assert_non_null(at);
	return at + strlen(key) + 4;
}

static void check_key(const char *key, uint32_t value, int status, const char *names)
{
	size_t bytes;
	uint8_t *data = read_file(TINY, &bytes);
	int rc;

	memcpy(value_of(data, bytes, key), &value, sizeof(value));
	rc = open_bytes(data, bytes);
	if (rc != status || !strstr(why, names))
		fail_msg("%s = %u: %s, \"%s\"", key, value, mr_status_name(rc), why);
	free(data);
}

static void shapes_are_checked(void **state)
{
	float nan_value = __builtin_nanf("");
	uint32_t bits;

	check_key("llama.block_count", 0, MR_E_RANGE, "llama.block_count");
	check_key("llama.block_count", 0xffffffff, MR_E_RANGE, "llama.block_count");
	check_key("llama.block_count", 3, MR_E_FORMAT, "blk.2.attn_norm.weight");
	check_key("llama.block_count", 1, MR_E_MODEL, "tensor blk.1.attn_norm.weight");
	check_key("llama.embedding_length", 128, MR_E_RANGE, "rope.dimension_count is 16");
	check_key("llama.embedding_length", 100, MR_E_MODEL, "width 100");
	check_key("llama.feed_forward_length", 192, MR_E_FORMAT, "ffn_gate");
	check_key("llama.attention.head_count", 0, MR_E_RANGE, "head_count");
	check_key("llama.attention.head_count", 3, MR_E_RANGE, "rope.dimension_count");
	check_key("llama.attention.head_count_kv", 4, MR_E_MODEL, "4 KV heads");
	check_key("llama.attention.head_count_kv", 7, MR_E_RANGE, "head_count_kv");
	check_key("llama.attention.head_count_kv", 3, MR_E_FORMAT, "attn_k");
	check_key("llama.vocab_size", 701, MR_E_RANGE, "vocab_size");
	check_key("llama.context_length", 0, MR_E_RANGE, "context_length");
	check_key("tokenizer.ggml.eos_token_id", 702, MR_E_RANGE, "eos_token_id");
	memcpy(&bits, &nan_value, sizeof(bits));
	check_key("llama.rope.freq_base", bits, MR_E_RANGE, "freq_base");
	check_key("llama.attention.layer_norm_rms_epsilon", 0, MR_E_RANGE, "epsilon");
}

static void check_replaced(const char *from, const char *to, int status, const char *names)
{
	size_t bytes;
	uint8_t *data = read_file(TINY, &bytes);
	int rc;

	assert_int_equal(strlen(from), strlen(to));
	replace(data, bytes, from, to, strlen(from));
	rc = open_bytes(data, bytes);
	if (rc != status || (rc && !strstr(why, names)))
		fail_msg("%s for %s: %s, \"%s\"", to, from, mr_status_name(rc), why);
	free(data);
}

/* A tensor whose columns alone do not fit. */
static void tensors_are_checked(void **state)
{
	static const char name[] = "blk.0.attn_norm.weight";
	size_t bytes;
	uint8_t *data = read_file(TINY, &bytes), *at = memmem(data, bytes, name, strlen(name));

	assert_non_null(at);
	at += strlen(name) + 4; /* past the number of dimensions */
	assert_int_equal(*at, 96);
	*at = 64;
	assert_int_equal(open_bytes(data, bytes), MR_E_FORMAT);
	assert_non_null(strstr(why, "blk.0.attn_norm.weight is 1 by 64"));
	free(data);
}

static void other_models_are_refused(void **state)
{
	check_replaced("llama", "lemma", MR_E_MODEL, "lemma");
	check_replaced("gpt2", "bert", MR_E_MODEL, "bert");
	check_replaced("smollm", "llama3", MR_E_MODEL, "llama3");
	check_replaced("blk.0.attn_q.weight", "blk.0.attn_q.wei.ht", MR_E_FORMAT,
		       "blk.0.attn_q.weight");
	check_replaced("<|im_end|>", "<|im_endX>", 0, "");
	check_replaced("<|im_end|>", "<file_sep>", MR_E_FORMAT, "special tokens");
	/* A merge whose parts are no tokens; the first merge is that of a space and t. */
	check_replaced("\xc4\xa0 t", "\xc4\xa0 \x01", MR_E_FORMAT, "merge 0");
	check_replaced("{% for message in", "{% for massage in", 0, "");
}

/* A template that is not known leaves the model usable, for prompts as they are. */
static void unknown_template(void **state)
{
	size_t bytes;
	uint8_t *data = read_file(TINY, &bytes);
	struct mr_model *m;

	replace(data, bytes, "{% for message in", "{% for massage in", 17);
	assert_int_equal(mr_model_open_memory(data, bytes, &m, why, sizeof(why)), 0);
	assert_false(m->chat.known);
	mr_model_close(m);
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tiny),
		cmocka_unit_test(the_script_makes_it),
		cmocka_unit_test(cut_off),
		cmocka_unit_test(changed_bytes),
		cmocka_unit_test(shapes_are_checked),
		cmocka_unit_test(tensors_are_checked),
		cmocka_unit_test(other_models_are_refused),
		cmocka_unit_test(unknown_template),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
