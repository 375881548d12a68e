// SPDX-License-Identifier: Apache-2.0
/*
 * Pre-tokenisers: where a text is cut into words before byte-pair merges. encode.c asks for one
 * word after another.
 *
 * Words are found by hand rather than by a pattern engine: one pass, no memory, the same result as
 * the patterns that tokenizer_impl.h names (tests hold it to PCRE2 and to Hugging Face's
 * `tokenizers`).
 */
#include "driver/model/tokenizer_impl.h"
#include "driver/model/unicode.h"

/*
 * `'s|'t|'re|'ve|'m|'ll|'d` at @at, which is an apostrophe; its length, or 0. @fold is 0x20 where
 * the pattern ignores case, else 0.
 */
static size_t contraction(const unsigned char *at, const unsigned char *end, unsigned fold)
{
	size_t left = (size_t)(end - at);
	unsigned a = left > 1 ? at[1] | fold : 0, b = left > 2 ? at[2] | fold : 0;

	if (a == 's' || a == 't' || a == 'm' || a == 'd')
		return 2;
	if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
		return 3;
	/* U+017F, the long s, is an s where case is ignored. */
	return fold && left > 2 && at[1] == 0xc5 && at[2] == 0xbf ? 3 : 0;
}

/* A character's class and length; @ill is set where it is ill-formed. */
static enum mr_char_class class_at(const unsigned char *at, const unsigned char *end, size_t *bytes,
				   int *ill)
{
	struct mr_utf8 c = mr_utf8_next(at, end);

	*bytes = c.bytes;
	if (c.state == MR_UTF8_OK)
		return mr_char_class(c.code);
	*ill = 1;
	return MR_CHAR_OTHER;
}

/*
 * Where a run of @class ends that has begun before @p, after at most @most characters more. @last
 * is where its last character starts (unchanged where there is none), @next the class of what
 * follows (OTHER at the end).
 */
static const unsigned char *run(enum mr_char_class class, const unsigned char *p,
				const unsigned char *end, size_t most, int *ill,
				const unsigned char **last, enum mr_char_class *next)
{
	*next = MR_CHAR_OTHER;
	while (p < end) {
		int next_ill = 0;
		size_t bytes;

		*next = class_at(p, end, &bytes, &next_ill);
		if (*next != class || !most--)
			break;
		*ill |= next_ill;
		*last = p;
		p += bytes;
	}
	return p;
}

/* gpt-2, or smollm where @digits: numbers are cut out first, and no pattern sees beyond its part. */
static size_t split_gpt2(int digits, const unsigned char *at, const unsigned char *end, int *ill)
{
	const unsigned char *p = at, *last = at;
	enum mr_char_class class, next;
	size_t bytes;

	if (*at == '\'' && (bytes = contraction(at, end, 0)))
		return bytes;
	class = class_at(p, end, &bytes, ill);
	if (digits && class == MR_CHAR_NUMBER)
		return bytes;
	if (*at == ' ' && at + 1 < end) {
		int next_ill = 0;

		next = class_at(at + 1, end, &bytes, &next_ill);
		if (next != MR_CHAR_SPACE && !(digits && next == MR_CHAR_NUMBER)) {
			p++;
			class = next;
			*ill = next_ill;
		} else {
			bytes = 1;
		}
	}
	p = run(class, p + bytes, end, SIZE_MAX, ill, &last, &next);
	/* A run of spaces leaves its last one to the word after it, unless its part ends. */
	if (class == MR_CHAR_SPACE && p < end && !(digits && next == MR_CHAR_NUMBER) && last > at)
		return (size_t)(last - at);
	return (size_t)(p - at);
}

static int is_newline(unsigned char c)
{
	return c == '\r' || c == '\n';
}

/* llama-bpe and qwen2, which differ in how many @digits a word may have. */
static size_t split_llama(size_t digits, const unsigned char *at, const unsigned char *end,
			  int *ill)
{
	const unsigned char *p, *last = at;
	enum mr_char_class class, next = MR_CHAR_SPACE;
	size_t bytes, next_bytes = 0;
	int next_ill = 0;

	if (*at == '\'' && (bytes = contraction(at, end, 0x20)))
		return bytes;
	class = class_at(at, end, &bytes, ill);
	p = at + bytes;
	if (class == MR_CHAR_NUMBER)
		return (size_t)(run(class, p, end, digits - 1, ill, &last, &next) - at);
	if (class == MR_CHAR_LETTER)
		return (size_t)(run(class, p, end, SIZE_MAX, ill, &last, &next) - at);
	if (p < end)
		next = class_at(p, end, &next_bytes, &next_ill);
	/* Letters take one character before them along, unless it ends a line. */
	if (next == MR_CHAR_LETTER && !is_newline(*at))
		return (size_t)(run(next, p, end, SIZE_MAX, ill, &last, &next) - at);
	/* Signs take one space before them and the line's end after them along. */
	if (class == MR_CHAR_OTHER || (*at == ' ' && p < end && next == MR_CHAR_OTHER)) {
		p = run(MR_CHAR_OTHER, p, end, SIZE_MAX, ill, &last, &next);
		while (p < end && is_newline(*p))
			p++;
		return (size_t)(p - at);
	}
	p = run(MR_CHAR_SPACE, p, end, SIZE_MAX, ill, &last, &next);
	/* A run of spaces reaches to the end of its last line, */
	for (const unsigned char *q = p; q > at; q--)
		if (is_newline(q[-1]))
			return (size_t)(q - at);
	/* or leaves its last one to what comes after it. */
	return (size_t)((p < end && last > at ? last : p) - at);
}

size_t mr_tokenizer_split(enum mr_pre pre, const unsigned char *at, const unsigned char *end,
			  int *ill)
{
	*ill = 0;
	switch (pre) {
	case MR_PRE_GPT2:
		return split_gpt2(0, at, end, ill);
	case MR_PRE_SMOLLM:
		return split_gpt2(1, at, end, ill);
	case MR_PRE_LLAMA_BPE:
		return split_llama(3, at, end, ill);
	case MR_PRE_QWEN2:
		return split_llama(1, at, end, ill);
	}
	return (size_t)(end - at);
}
