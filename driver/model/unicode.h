/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Characters: UTF-8 read without trust, and the three classes that pre-tokenisers split by. Used by
 * the tokeniser and the detokeniser.
 */
#ifndef MR_DRIVER_MODEL_UNICODE_H
#define MR_DRIVER_MODEL_UNICODE_H

#include <stdint.h>

#define MR_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

enum mr_utf8_state {
	MR_UTF8_OK,
	MR_UTF8_BAD, /* a maximal ill-formed subpart; reads as one U+FFFD */
	MR_UTF8_CUT, /* a beginning of a character, and then the end; reads as one U+FFFD if it
			stays so */
};

struct mr_utf8 {
	uint32_t code;  /* U+FFFD unless OK */
	uint16_t bytes; /* 1 to 4 that this character or subpart takes */
	uint16_t state; /* enum mr_utf8_state */
};

/* The character at @at, which is below @end. Overlong forms, surrogates and above U+10FFFF are
 * ill-formed. */
struct mr_utf8 mr_utf8_next(const uint8_t *at, const uint8_t *end);

enum mr_char_class {
	MR_CHAR_OTHER,
	MR_CHAR_LETTER, /* \p{L} */
	MR_CHAR_NUMBER, /* \p{N} */
	MR_CHAR_SPACE,  /* White_Space */
};
enum mr_char_class mr_char_class(uint32_t code);

#endif /* MR_DRIVER_MODEL_UNICODE_H */
