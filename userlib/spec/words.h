/* SPDX-License-Identifier: Apache-2.0 */
/* Blank-separated words of a line of text, for the readers of chip files and shape files. */
#ifndef MR_USERLIB_SPEC_WORDS_H
#define MR_USERLIB_SPEC_WORDS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct word {
	const char *at;
	size_t bytes; /* 0 = the line has no more */
};

static inline int word_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static inline struct word next_word(const char **p, const char *end)
{
	while (*p < end && word_blank(**p))
		(*p)++;
	struct word w = {*p, 0};
	while (*p < end && !word_blank(**p))
		(*p)++;
	w.bytes = (size_t)(*p - w.at);
	return w;
}

static inline int word_is(struct word w, const char *text)
{
	return w.bytes == strlen(text) && !memcmp(w.at, text, w.bytes);
}

/* Letters, digits, '-', '_' and '.' only. */
static inline int word_is_name(struct word w)
{
	for (size_t i = 0; i < w.bytes; i++) {
		char c = w.at[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		      c == '-' || c == '_' || c == '.'))
			return 0;
	}
	return w.bytes > 0;
}

/* A decimal number: 0, -1 where it is none (*out is 0), 1 where it does not fit (UINT64_MAX). */
static inline int word_number(struct word w, uint64_t *out)
{
	uint64_t v = 0;

	*out = 0;
	if (!w.bytes)
		return -1;
	for (size_t i = 0; i < w.bytes; i++) {
		if (w.at[i] < '0' || w.at[i] > '9')
			return -1;
		uint64_t digit = (uint64_t)(w.at[i] - '0');
		if (v > (UINT64_MAX - digit) / 10) {
			*out = UINT64_MAX;
			return 1;
		}
		v = v * 10 + digit;
	}
	*out = v;
	return 0;
}

#endif /* MR_USERLIB_SPEC_WORDS_H */
