// SPDX-License-Identifier: Apache-2.0
/* UTF-8 and character classes for the tokeniser. */
#include "driver/model/unicode.h"

#include <stddef.h>

#define L MR_CHAR_LETTER
#define N MR_CHAR_NUMBER
static const struct {
	uint32_t first, last;
	uint32_t class;
} ranges[] = {
#include "driver/model/unicode_table.h"
};
#undef L
#undef N

enum mr_char_class mr_char_class(uint32_t c)
{
	size_t low = 0, high = sizeof(ranges) / sizeof(ranges[0]);

	if (c < 0x80) {
		if (c - '0' < 10)
			return MR_CHAR_NUMBER;
		if ((c | 0x20) - 'a' < 26)
			return MR_CHAR_LETTER;
		return c == ' ' || c - '\t' < 5 ? MR_CHAR_SPACE : MR_CHAR_OTHER;
	}
	while (low < high) {
		size_t middle = (low + high) / 2;

		if (c > ranges[middle].last)
			low = middle + 1;
		else if (c < ranges[middle].first)
			high = middle;
		else
			return ranges[middle].class;
	}
	/* White_Space beyond ASCII; none of it is a letter or a number. */
	if (c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
	    c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000)
		return MR_CHAR_SPACE;
	return MR_CHAR_OTHER;
}

struct mr_utf8 mr_utf8_next(const uint8_t *at, const uint8_t *end)
{
	uint32_t lead = at[0], code, length;
	uint8_t low = 0x80, high = 0xbf; /* of the second byte */

	if (lead < 0x80)
		return (struct mr_utf8){lead, 1, MR_UTF8_OK};
	if (lead >= 0xc2 && lead <= 0xdf) {
		length = 2;
		code = lead & 0x1f;
	} else if (lead >= 0xe0 && lead <= 0xef) {
		length = 3;
		code = lead & 0x0f;
		low = lead == 0xe0 ? 0xa0 : 0x80;  /* below: overlong */
		high = lead == 0xed ? 0x9f : 0xbf; /* above: surrogates */
	} else if (lead >= 0xf0 && lead <= 0xf4) {
		length = 4;
		code = lead & 0x07;
		low = lead == 0xf0 ? 0x90 : 0x80;  /* below: overlong */
		high = lead == 0xf4 ? 0x8f : 0xbf; /* above: beyond U+10FFFF */
	} else {
		return (struct mr_utf8){0xfffd, 1, MR_UTF8_BAD};
	}
	for (uint32_t i = 1; i < length; i++) {
		if (at + i == end)
			return (struct mr_utf8){0xfffd, (uint16_t)i, MR_UTF8_CUT};
		if (at[i] < low || at[i] > high)
			return (struct mr_utf8){0xfffd, (uint16_t)i, MR_UTF8_BAD};
		code = code << 6 | (at[i] & 0x3f);
		low = 0x80;
		high = 0xbf;
	}
	return (struct mr_utf8){code, (uint16_t)length, MR_UTF8_OK};
}
