// SPDX-License-Identifier: Apache-2.0
/* The chip file's reader: every key once, every value in range and with its source. */
#include "userlib/spec/chip.h"

#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <millrace/status.h>

#include "userlib/spec/words.h"

static const struct {
	const char *key;
	uint64_t lo, hi;
	size_t offset;
} values[] = {
#define X(key, lo, hi, text) {#key, lo, hi, offsetof(struct mr_chip, key)},
	MR_CHIP_VALUES(X)
#undef X
};
#define VALUES (sizeof(values) / sizeof(values[0]))
enum { KEY_NAME = VALUES, KEY_CLASS, KEY_TYPES, KEYS };

struct reader {
	struct mr_chip *chip;
	char *why;
	size_t why_bytes;
	unsigned line;
	uint32_t seen; /* bit a key */
};
_Static_assert(KEYS <= 32, "one bit a key");

static int fail(struct reader *r, int status, const char *format, ...)
{
	if (r->why && r->why_bytes) {
		int n = snprintf(r->why, r->why_bytes, "line %u: ", r->line);
		va_list args;
		va_start(args, format);
		if (n > 0 && (size_t)n < r->why_bytes)
			vsnprintf(r->why + n, r->why_bytes - (size_t)n, format, args);
		va_end(args);
	}
	return status;
}

static int key_of(struct word w)
{
	for (size_t i = 0; i < VALUES; i++)
		if (word_is(w, values[i].key))
			return (int)i;
	return word_is(w, "name")    ? KEY_NAME
	       : word_is(w, "class") ? KEY_CLASS
	       : word_is(w, "types") ? KEY_TYPES
				     : -1;
}

static int set_text(struct reader *r, struct word w, char *out, size_t room)
{
	if (w.bytes >= room)
		return fail(r, MR_E_RANGE, "the text is longer than %zu bytes", room - 1);
	if (!word_is_name(w))
		return fail(r, MR_E_FORMAT, "only letters, digits, '-', '_' and '.' are allowed");
	memcpy(out, w.at, w.bytes);
	return 0;
}

static int set_types(struct reader *r, struct word w)
{
	static const struct {
		const char *name;
		uint32_t bit;
	} types[] = {
		{"q4_1xq8", MR_CHIP_TYPE_Q4_1}, {"q8_0xq8", MR_CHIP_TYPE_Q8_0},
		{"i8xi8", MR_CHIP_TYPE_I8},     {"f16xf16", MR_CHIP_TYPE_F16},
		{"f8xf8", MR_CHIP_TYPE_F8},
	};
	const char *p = w.at, *end = w.at + w.bytes;

	while (p < end) {
		struct word one = {p, 0};
		while (p < end && *p != ',')
			p++;
		one.bytes = (size_t)(p - one.at);
		size_t i = 0;
		while (i < sizeof(types) / sizeof(types[0]) && !word_is(one, types[i].name))
			i++;
		if (i == sizeof(types) / sizeof(types[0]))
			return fail(r, MR_E_FORMAT, "unknown type of matrix product");
		r->chip->types |= types[i].bit;
		if (p < end)
			p++;
	}
	return 0;
}

static int set_number(struct reader *r, int key, struct word w)
{
	uint64_t v;
	int bad = word_number(w, &v);

	if (bad)
		return fail(r, bad < 0 ? MR_E_FORMAT : MR_E_RANGE, "%s: %s", values[key].key,
			    bad < 0 ? "not a decimal number" : "too large");
	if (v < values[key].lo || v > values[key].hi)
		return fail(r, MR_E_RANGE, "%s: not within %llu to %llu", values[key].key,
			    (unsigned long long)values[key].lo, (unsigned long long)values[key].hi);
	memcpy((char *)r->chip + values[key].offset, &v, sizeof(v));
	return 0;
}

static int read_line(struct reader *r, const char *p, const char *end)
{
	struct word key_word = next_word(&p, end);
	if (!key_word.bytes || key_word.at[0] == '#')
		return 0;
	struct word value = next_word(&p, end);
	struct word source = next_word(&p, end);
	int key = key_of(key_word);

	if (key < 0)
		return fail(r, MR_E_FORMAT, "unknown key");
	if (r->seen & 1u << key)
		return fail(r, MR_E_FORMAT, "the key came before");
	if (!value.bytes || !source.bytes)
		return fail(r, MR_E_FORMAT, "a line is `key value source`");
	r->seen |= 1u << key;
	r->chip->assumed += word_is(source, "assumed") || word_is(source, "assumed:");
	switch (key) {
	case KEY_NAME:
		return set_text(r, value, r->chip->name, sizeof(r->chip->name));
	case KEY_CLASS:
		return set_text(r, value, r->chip->classes, sizeof(r->chip->classes));
	case KEY_TYPES:
		return set_types(r, value);
	default:
		return set_number(r, key, value);
	}
}

static void hash_chip(struct mr_chip *chip)
{
	crypto_hash_sha256_state state;
	char line[128];
	int n;

	crypto_hash_sha256_init(&state);
	n = snprintf(line, sizeof(line), "name=%s\nclass=%s\ntypes=%u\n", chip->name, chip->classes,
		     chip->types);
	crypto_hash_sha256_update(&state, (const unsigned char *)line, (unsigned long long)n);
	for (size_t i = 0; i < VALUES; i++) {
		uint64_t v;
		memcpy(&v, (const char *)chip + values[i].offset, sizeof(v));
		n = snprintf(line, sizeof(line), "%s=%llu\n", values[i].key, (unsigned long long)v);
		crypto_hash_sha256_update(&state, (const unsigned char *)line,
					  (unsigned long long)n);
	}
	crypto_hash_sha256_final(&state, chip->hash);
}

int mr_chip_parse(const char *text, size_t bytes, struct mr_chip *chip, char *why, size_t why_bytes)
{
	struct reader r = {.chip = chip, .why = why, .why_bytes = why_bytes};
	const char *p = text, *end = text + bytes;

	memset(chip, 0, sizeof(*chip));
	if (bytes > MR_CHIP_BYTES_MAX)
		return fail(&r, MR_E_TOO_LARGE, "larger than %u bytes", MR_CHIP_BYTES_MAX);
	while (p < end) {
		const char *eol = memchr(p, '\n', (size_t)(end - p));
		if (!eol)
			eol = end;
		r.line++;
		int status = read_line(&r, p, eol);
		if (status)
			return status;
		p = eol + (eol < end);
	}
	for (int key = 0; key < KEYS; key++)
		if (!(r.seen & 1u << key))
			return fail(&r, MR_E_FORMAT, "the file ends without the key %s",
				    key < (int)VALUES  ? values[key].key
				    : key == KEY_NAME  ? "name"
				    : key == KEY_CLASS ? "class"
						       : "types");
	if (chip->sram_slices * chip->sram_banks > chip->sram_bytes)
		return fail(&r, MR_E_RANGE, "more SRAM banks than bytes");
	hash_chip(chip);
	return 0;
}
