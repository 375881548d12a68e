// SPDX-License-Identifier: Apache-2.0
/* Token ids back to text, a token at a time; an incomplete character waits for its other bytes. */
#include <string.h>

#include "driver/model/tokenizer_impl.h"
#include "driver/model/unicode.h"

#define REPLACEMENT_BYTES (sizeof(MR_REPLACEMENT) - 1)

/* Each byte of a push, and of what was held, may be ill-formed by itself. */
_Static_assert((TOKEN_BYTES_MAX + 3) * REPLACEMENT_BYTES <= MR_DETOK_MAX, "a push must fit");

size_t mr_detok_push(const struct mr_tokenizer *tokenizer, struct mr_detok *state, uint32_t id,
		     char *out)
{
	unsigned char text[sizeof(state->held) + TOKEN_BYTES_MAX];
	const unsigned char *at = text, *end;
	size_t bytes, made = 0;
	const char *token = mr_token_bytes(tokenizer, id, &bytes);

	if (!token || mr_token_is_control(tokenizer, id))
		return 0;
	memcpy(text, state->held, state->held_bytes);
	memcpy(text + state->held_bytes, token, bytes);
	end = text + state->held_bytes + bytes;
	state->held_bytes = 0;
	while (at < end) {
		struct mr_utf8 c = mr_utf8_next(at, end);

		if (c.state == MR_UTF8_CUT) {
			memcpy(state->held, at, c.bytes);
			state->held_bytes = c.bytes;
		} else if (c.state == MR_UTF8_OK) {
			memcpy(out + made, at, c.bytes);
			made += c.bytes;
		} else {
			memcpy(out + made, MR_REPLACEMENT, REPLACEMENT_BYTES);
			made += REPLACEMENT_BYTES;
		}
		at += c.bytes;
	}
	return made;
}

size_t mr_detok_flush(struct mr_detok *state, char *out)
{
	if (!state->held_bytes)
		return 0;
	state->held_bytes = 0;
	memcpy(out, MR_REPLACEMENT, REPLACEMENT_BYTES);
	return REPLACEMENT_BYTES;
}
