// SPDX-License-Identifier: Apache-2.0
/*
 * Character classes and word splits, written by hand in driver/model, against PCRE2's reading of the
 * patterns that the file format names: every code point, and random texts made to hit the edges; and
 * against what Hugging Face's `tokenizers` makes of the texts in tests/fixtures/splits.txt.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "driver/model/tokenizer_impl.h"
#include "driver/model/unicode.h"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

#define LLAMA(digits)                                                              \
	"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits \
	"| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct {
	const char *name, *pattern;
} pres[] = {
	[MR_PRE_GPT2] = {"gpt-2", GPT2},
	[MR_PRE_SMOLLM] = {"smollm", GPT2},
	[MR_PRE_LLAMA_BPE] = {"llama-bpe", LLAMA("{1,3}")},
	[MR_PRE_QWEN2] = {"qwen2", LLAMA("")},
};
#define PRES (sizeof(pres) / sizeof(pres[0]))

static pcre2_code *compile(const char *pattern)
{
	int error;
	PCRE2_SIZE at;
	pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
					 PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);

	assert_non_null(code);
	return code;
}

static size_t put_utf8(uint32_t code, unsigned char *out)
{
	if (code < 0x80) {
		out[0] = (unsigned char)code;
		return 1;
	}
	if (code < 0x800) {
		out[0] = (unsigned char)(0xc0 | code >> 6);
		out[1] = (unsigned char)(0x80 | (code & 0x3f));
		return 2;
	}
	if (code < 0x10000) {
		out[0] = (unsigned char)(0xe0 | code >> 12);
		out[1] = (unsigned char)(0x80 | (code >> 6 & 0x3f));
		out[2] = (unsigned char)(0x80 | (code & 0x3f));
		return 3;
	}
	out[0] = (unsigned char)(0xf0 | code >> 18);
	out[1] = (unsigned char)(0x80 | (code >> 12 & 0x3f));
	out[2] = (unsigned char)(0x80 | (code >> 6 & 0x3f));
	out[3] = (unsigned char)(0x80 | (code & 0x3f));
	return 4;
}

static void every_code_point(void **state)
{
	static const struct {
		const char *pattern;
		enum mr_char_class class;
	} classes[] = {{"\\A\\p{L}", MR_CHAR_LETTER},
		       {"\\A\\p{N}", MR_CHAR_NUMBER},
		       {"\\A\\s", MR_CHAR_SPACE},
		       {"\\A[^\\s\\p{L}\\p{N}]", MR_CHAR_OTHER}};
	pcre2_match_data *match = pcre2_match_data_create(1, NULL);
	char version[32];

	pcre2_config(PCRE2_CONFIG_UNICODE_VERSION, version);
	if (strcmp(version, "14.0.0")) {
		printf("skipped: this PCRE2 has Unicode %s, the table 14.0.0\n", version);
		skip();
	}
	for (size_t k = 0; k < 4; k++) {
		pcre2_code *code = compile(classes[k].pattern);

		pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
		for (uint32_t c = 0; c <= 0x10ffff; c++) {
			unsigned char text[4];
			size_t bytes;
			int hit;

			/* U+180E is no White_Space since Unicode 6.3, but still \s to PCRE2. */
			if ((c >= 0xd800 && c <= 0xdfff) || c == 0x180e)
				continue;
			bytes = put_utf8(c, text);
			hit = pcre2_match(code, text, bytes, 0, 0, match, NULL) > 0;
			if (hit != (mr_char_class(c) == classes[k].class))
				fail_msg("U+%04X: class %d", c, mr_char_class(c));
		}
		pcre2_code_free(code);
	}
	assert_int_equal(mr_char_class(0x180e), MR_CHAR_OTHER);
	pcre2_match_data_free(match);
}

/* The length of the first match at @at, within the part that ends at @end. */
static size_t first_match(pcre2_code *code, pcre2_match_data *match, const unsigned char *at,
			  const unsigned char *end)
{
	int rc = pcre2_match(code, at, (size_t)(end - at), 0, PCRE2_ANCHORED, match, NULL);

	assert_true(rc > 0);
	return pcre2_get_ovector_pointer(match)[1];
}

/* Splits well-formed text both ways. */
static void compare_splits(enum mr_pre pre, pcre2_code *words, pcre2_code *number,
			   pcre2_match_data *match, const unsigned char *text, size_t bytes)
{
	const unsigned char *at = text, *end = text + bytes, *part = text;

	while (at < end) {
		size_t want, got;
		int ill;

		/* smollm's part ends at the next number; a number is a part of its own. */
		if (at == part && pre == MR_PRE_SMOLLM) {
			int rc = pcre2_match(number, at, (size_t)(end - at), 0, 0, match, NULL);
			PCRE2_SIZE *where = pcre2_get_ovector_pointer(match);

			part = rc < 0 ? end : where[0] ? at + where[0] : at + where[1];
		} else if (pre != MR_PRE_SMOLLM) {
			part = end;
		}
		want = first_match(words, match, at, part);
		got = mr_tokenizer_split(pre, at, end, &ill);
		if (want != got || ill)
			fail_msg("%s, at byte %zu of \"%.*s\": %zu bytes, want %zu", pres[pre].name,
				 (size_t)(at - text), (int)bytes, text, got, want);
		at += got;
	}
}

static void random_texts(void **state)
{
	static const uint32_t edges[] = {
		' ',    ' ',    ' ',    '\n',   '\t',   '\r',   0xa0,    0x85,    '\'',  '\'',
		's',    't',    'r',    'e',    'v',    'l',    'd',     'm',     'S',   '0',
		'7',    0xb2,   0x2167, 0x0663, '.',    '-',    '<',     0xe9,    0x301, 0x4e2d,
		0x3000, 0x2028, 0xad,   0x200b, 0x200d, 0xfeff, 0x1f642, 0x1d518, 0,     0x1f,
		0x17f,  'L',    'E',    '\n',   '\r',   '\''};
	pcre2_code *words[PRES], *number = compile("\\p{N}");
	pcre2_match_data *match = pcre2_match_data_create(1, NULL);
	unsigned char text[128];

	srand(1);
	for (size_t pre = 0; pre < PRES; pre++) {
		words[pre] = compile(pres[pre].pattern);
		pcre2_jit_compile(words[pre], PCRE2_JIT_COMPLETE);
	}
	for (int i = 0; i < 200000; i++) {
		size_t bytes = 0;

		for (int n = 1 + rand() % 12; n; n--)
			bytes +=
				put_utf8(edges[(size_t)rand() % (sizeof(edges) / sizeof(edges[0]))],
					 text + bytes);
		compare_splits((enum mr_pre)(i % PRES), words[i % PRES], number, match, text,
			       bytes);
	}
	pcre2_match_data_free(match);
	for (size_t pre = 0; pre < PRES; pre++)
		pcre2_code_free(words[pre]);
	pcre2_code_free(number);
}

/* A line of splits.txt: the text, then each pre-tokeniser's lengths, as the file's script says. */
static void check_line(char *line)
{
	char *rest, *hex = strtok_r(line, " \n", &rest);
	size_t bytes = strlen(hex) / 2;
	unsigned char text[256];

	assert_true(bytes <= sizeof(text));
	for (size_t i = 0; i < bytes; i++)
		sscanf(hex + 2 * i, "%2hhx", &text[i]);
	for (size_t pre = 0; pre < PRES; pre++) {
		char *want = strtok_r(NULL, " \n", &rest);
		const unsigned char *at = text;

		assert_non_null(want);
		for (; at < text + bytes; want += *want == ',') {
			int ill;
			size_t got = mr_tokenizer_split((enum mr_pre)pre, at, text + bytes, &ill);

			if (got != strtoul(want, &want, 10))
				fail_msg("%s, at byte %zu of %s: a word of %zu bytes",
					 pres[pre].name, (size_t)(at - text), hex, got);
			at += got;
		}
		assert_int_equal(*want, 0);
	}
}

static void as_tokenizers_has_it(void **state)
{
	FILE *f = fopen("tests/fixtures/splits.txt", "r");
	char line[4096];
	int lines = 0;

	assert_non_null(f);
	for (; fgets(line, sizeof(line), f); lines++)
		check_line(line);
	fclose(f);
	assert_true(lines > 400);
}

/* PCRE2 refuses exactly what mr_utf8_next calls ill-formed. */
static void ill_formed(void **state)
{
	pcre2_code *any = compile("\\A.*\\z");
	pcre2_match_data *match = pcre2_match_data_create(1, NULL);
	/* Lead bytes in full; the others at the limits that the encoding knows. */
	static const unsigned char tail[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
					     0xc0, 0xc2, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xff};
	unsigned char text[4];
	size_t good = 0;

	for (uint32_t i = 0; i < 1u << 20; i++) {
		const unsigned char *at = text, *end = text + 4;
		int ok = 1, rc;

		text[0] = (unsigned char)i;
		text[1] = tail[i >> 8 & 15];
		text[2] = tail[i >> 12 & 15];
		text[3] = tail[i >> 16 & 15];
		while (at < end) {
			struct mr_utf8 c = mr_utf8_next(at, end);

			assert_in_range(c.bytes, 1, (size_t)(end - at));
			ok &= c.state == MR_UTF8_OK;
			at += c.bytes;
		}
		good += (size_t)ok;
		rc = pcre2_match(any, text, 4, 0, 0, match, NULL);
		if (ok != (rc > PCRE2_ERROR_UTF8_ERR1 || rc < PCRE2_ERROR_UTF8_ERR21))
			fail_msg("%02x %02x %02x %02x: read as %s", text[0], text[1], text[2],
				 text[3], ok ? "well-formed" : "ill-formed");
	}
	assert_true(good > 0);
	pcre2_match_data_free(match);
	pcre2_code_free(any);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_code_point),
		cmocka_unit_test(random_texts),
		cmocka_unit_test(as_tokenizers_has_it),
		cmocka_unit_test(ill_formed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
