// SPDX-License-Identifier: Apache-2.0
/* The tokeniser on tests/tiny.gguf: merges against a plain reference, limits, control tokens, detokeniser. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <millrace/status.h>

#include "driver/model/model.h"
#include "driver/model/tokenizer_impl.h"

#define TEXT_BYTES 65536
#define IDS        (3 * TEXT_BYTES)

static struct mr_model *model;
static const struct mr_tokenizer *tok;
static struct mr_token_work *work;
static uint32_t ids[IDS], want[IDS];

static int open_tiny(void **state)
{
	char why[200];

	if (mr_model_open("tests/tiny.gguf", &model, why, sizeof(why))) {
		print_error("%s\n", why);
		return -1;
	}
	tok = model->tokenizer;
	return mr_token_work_create(tok, TEXT_BYTES, &work);
}

static int close_tiny(void **state)
{
	mr_token_work_destroy(work);
	mr_model_close(model);
	return 0;
}

static int encode(const char *text, unsigned flags)
{
	return mr_encode(tok, work, text, strlen(text), flags, ids, IDS);
}

/* Byte-pair encoding as the textbook has it: over and over, the first pair of the lowest rank. */
static size_t merge_plainly(const unsigned char *word, size_t bytes, uint32_t *out)
{
	size_t n = 0, made = 0;

	for (size_t i = 0; i < bytes; i++)
		out[n++] = tok->byte_id[word[i]];
	for (;;) {
		uint32_t best = NO_ID;
		size_t at = 0;

		for (size_t i = 0; i + 1 < n; i++)
			if (merge_rank(tok, out[i], out[i + 1]) < best) {
				best = merge_rank(tok, out[i], out[i + 1]);
				at = i;
			}
		if (best == NO_ID)
			break;
		out[at] = tok->merged[best];
		memmove(&out[at + 1], &out[at + 2], (n - at - 2) * sizeof(*out));
		n--;
	}
	for (size_t i = 0; i < n; i++)
		if (out[i] != NO_ID)
			out[made++] = out[i];
	return made;
}

/* Random texts out of the vocabulary's own pieces, so that merges are many. */
static void merges(void **state)
{
	static unsigned char text[2048];
	size_t merged = 0;

	srand(2);
	for (int round = 0; round < 3000; round++) {
		size_t bytes = 0, made = 0;
		int n;

		for (int k = rand() % 20; k >= 0; k--) {
			size_t piece;
			const char *p = mr_token_bytes(
				tok, 17 + (uint32_t)rand() % (tok->vocab - 17), &piece);

			memcpy(text + bytes, p, piece);
			bytes += piece;
		}
		for (size_t at = 0; at < bytes;) {
			int ill;
			size_t word = mr_tokenizer_split(tok->pre, text + at, text + bytes, &ill);

			/* What becomes of ill-formed bytes is the vectors' business. */
			if (ill)
				goto next;
			made += merge_plainly(text + at, word, want + made);
			at += word;
		}
		n = mr_encode(tok, work, (const char *)text, bytes, 0, ids, IDS);
		assert_int_equal(n, made);
		assert_memory_equal(ids, want, made * sizeof(*ids));
		merged += bytes - made;
	next:;
	}
	assert_true(merged > 1000);
}

/* A word as long as a prompt is no attack: 64 KB within a second even under sanitizers. */
static void long_word(void **state)
{
	static char text[TEXT_BYTES];
	struct timespec a, b;
	int n;

	for (size_t i = 0; i < TEXT_BYTES; i++)
		text[i] = "the"[i % 3];
	clock_gettime(CLOCK_MONOTONIC, &a);
	n = mr_encode(tok, work, text, TEXT_BYTES, 0, ids, IDS);
	clock_gettime(CLOCK_MONOTONIC, &b);
	assert_in_range(n, TEXT_BYTES / 4, TEXT_BYTES);
	assert_true((double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9 < 1.0);
}

static void limits(void **state)
{
	static const char text[TEXT_BYTES + 1];
	int n = encode("the water of the mill", 0);

	assert_true(n > 3);
	assert_int_equal(mr_encode(tok, work, "the water of the mill", 21, 0, ids, (size_t)n), n);
	for (int cap = 0; cap < n; cap++) {
		ids[cap] = 12345;
		assert_int_equal(
			mr_encode(tok, work, "the water of the mill", 21, 0, ids, (size_t)cap),
			MR_E_CONTEXT_FULL);
		assert_int_equal(ids[cap], 12345);
	}
	assert_int_equal(mr_encode(tok, work, "<|im_end|>", 10, MR_ENCODE_CONTROL, ids, 0),
			 MR_E_CONTEXT_FULL);
	assert_int_equal(mr_encode(tok, work, text, TEXT_BYTES + 1, 0, ids, IDS), MR_E_TOO_LARGE);
	assert_int_equal(mr_encode(tok, work, text, TEXT_BYTES, 0, ids, IDS), TEXT_BYTES);
	assert_int_equal(mr_encode(tok, work, "a", 1, 4, ids, IDS), MR_E_INVALID);
	assert_int_equal(mr_encode(tok, work, "", 0, MR_ENCODE_CONTROL, ids, 0), 0);
}

static void controls(void **state)
{
	uint32_t id;
	size_t bytes;

	assert_int_equal(encode("<|im_start|><|endoftext|><|im_end|>", MR_ENCODE_CONTROL), 3);
	assert_int_equal(ids[0], 1);
	assert_int_equal(ids[1], 0);
	assert_int_equal(ids[2], 2);
	assert_true(encode("<|im_start|>", 0) > 1);
	for (int i = 0, n = encode("<|im_start|>", 0); i < n; i++)
		assert_false(mr_token_is_control(tok, ids[i]));
	/* Nearly one: text. */
	for (int i = 0, n = encode("<|im_start| ><im_end|>", MR_ENCODE_CONTROL); i < n; i++)
		assert_false(mr_token_is_control(tok, ids[i]));
	assert_int_equal(mr_tokenizer_control(tok, "<|im_end|>", &id), 0);
	assert_int_equal(id, 2);
	assert_int_equal(mr_tokenizer_control(tok, "the", &id), MR_E_NOT_FOUND);
	assert_true(mr_token_is_control(tok, 16));
	assert_false(mr_token_is_control(tok, 17));
	assert_false(mr_token_is_control(tok, tok->vocab));
	assert_null(mr_token_bytes(tok, tok->vocab, &bytes));
	assert_int_equal(mr_tokenizer_vocab(tok), model->shape.vocab);
}

/* A control token parts words: the look-ahead of one side does not see the other. */
static void control_parts_text(void **state)
{
	int left = encode("the  ", 0), right, both;

	memcpy(want, ids, (size_t)left * sizeof(*ids));
	want[left] = 2;
	right = encode("  mill", 0);
	memcpy(want + left + 1, ids, (size_t)right * sizeof(*ids));
	both = encode("the  <|im_end|>  mill", MR_ENCODE_CONTROL);
	assert_int_equal(both, left + 1 + right);
	assert_memory_equal(ids, want, (size_t)both * sizeof(*ids));
}

/* Bytes that the vocabulary lacks yield nothing, and the bytes beside them do not merge across. */
static void missing_bytes(void **state)
{
	int left, right;

	assert_int_equal(encode("\x04\x06\x13\x14\x16\x1d", 0), 0);
	assert_int_equal(encode("the", 0), 1);
	left = encode("th", 0);
	memcpy(want, ids, (size_t)left * sizeof(*ids));
	right = encode("e", 0);
	memcpy(want + left, ids, (size_t)right * sizeof(*ids));
	/* A control character is no letter, so the word is broken there; among others it is within. */
	assert_int_equal(encode("th\x04"
				"e",
				0),
			 left + right);
	assert_memory_equal(ids, want, (size_t)(left + right) * sizeof(*ids));
	assert_int_equal(encode("];", 0), 1);
	assert_int_equal(encode("]\x04;", 0), 2);
}

/* Every token alone, then cuts within characters: what was held comes with the byte that completes it. */
static void detok_holds_back(void **state)
{
	static const char text[] =
		"\xd0\x92\xd0\xbe\xd0\xb4\xd0\xb0 \xe6\xb0\xb4 \xf0\x9f\x98\x80!";
	char out[MR_DETOK_MAX], whole[256];
	struct mr_detok d = {0};
	size_t made = 0, n;

	/* One byte a token: nothing comes before a character is whole. */
	for (size_t i = 0; i < sizeof(text) - 1; i++) {
		uint32_t id = tok->byte_id[(unsigned char)text[i]];

		assert_int_not_equal(id, NO_ID);
		n = mr_detok_push(tok, &d, id, out);
		memcpy(whole + made, out, n);
		made += n;
		assert_int_equal(made + d.held_bytes, i + 1);
		assert_true(d.held_bytes <= 3);
		if (i + 1 < sizeof(text) - 1)
			assert_int_equal((text[i + 1] & 0xc0) == 0x80, d.held_bytes != 0);
	}
	assert_int_equal(made, sizeof(text) - 1);
	assert_memory_equal(whole, text, made);
	assert_int_equal(mr_detok_flush(&d, out), 0);

	/* A character that never comes whole: U+FFFD when that is clear, or at the end. */
	assert_int_equal(mr_detok_push(tok, &d, tok->byte_id[0xe6], out), 0);
	assert_int_equal(mr_detok_push(tok, &d, 2, out), 0); /* a control token gives none */
	n = mr_detok_push(tok, &d, tok->byte_id['a'], out);
	assert_int_equal(n, 4);
	assert_memory_equal(out,
			    "\xef\xbf\xbd"
			    "a",
			    4);
	assert_int_equal(mr_detok_push(tok, &d, tok->byte_id[0xe6], out), 0);
	assert_int_equal(mr_detok_push(tok, &d, tok->byte_id[0xb0], out), 0);
	assert_int_equal(mr_detok_flush(&d, out), 3);
	assert_memory_equal(out, "\xef\xbf\xbd", 3);
	assert_int_equal(mr_detok_flush(&d, out), 0);
	assert_int_equal(mr_detok_push(tok, &d, tok->vocab, out), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(merges),
		cmocka_unit_test(long_word),
		cmocka_unit_test(limits),
		cmocka_unit_test(controls),
		cmocka_unit_test(control_parts_text),
		cmocka_unit_test(missing_bytes),
		cmocka_unit_test(detok_holds_back),
	};

	return cmocka_run_group_tests(tests, open_tiny, close_tiny);
}
