// SPDX-License-Identifier: Apache-2.0
/*
 * Stop strings: matched over an answer's bytes as its tokens come, so that it does not matter where tokens
 * begin. One automaton a string (Knuth, Morris, Pratt), stepped once a byte, in the request's entry; nothing is
 * looked at twice and nothing allocated. admit.c begins them, decode.c feeds them.
 */
#include "driver/sched/internal.h"

int mr_stops_check(const struct mr_stops *stops)
{
	uint32_t before = 0;

	if (stops->count > MR_STOP_STRINGS_MAX)
		return MR_E_RANGE;
	for (uint32_t i = 0; i < stops->count; before = stops->ends[i++])
		if (stops->ends[i] <= before || stops->ends[i] > MR_STOP_BYTES_MAX)
			return MR_E_RANGE;
	return 0;
}

void mr_stops_begin(struct entry *e)
{
	const struct mr_stops *stops = &e->request.stops;
	uint32_t from = 0;

	for (uint32_t i = 0; i < stops->count; from = stops->ends[i++]) {
		const unsigned char *text = stops->text + from;
		uint8_t *fail = e->stop_fail + from;
		uint32_t length = stops->ends[i] - from, at = 0;

		for (uint32_t n = 1; n < length; n++) {
			while (at && text[n] != text[at])
				at = fail[at - 1];
			at += text[n] == text[at];
			fail[n] = (uint8_t)at;
		}
	}
}

/* One byte more; the first string that ends with it, from 1, or 0. */
static uint32_t step(struct entry *e, unsigned char byte)
{
	const struct mr_stops *stops = &e->request.stops;
	uint32_t from = 0, hit = 0;

	for (uint32_t i = 0; i < stops->count; from = stops->ends[i++]) {
		const unsigned char *text = stops->text + from;
		uint32_t at = e->stop_at[i];

		while (at && byte != text[at])
			at = e->stop_fail[from + at - 1];
		at += byte == text[at];
		if (at < stops->ends[i] - from)
			e->stop_at[i] = (uint8_t)at;
		else if (!hit)
			hit = i + 1;
	}
	return hit;
}

uint32_t mr_stops_feed(struct entry *e, const char *bytes, size_t count)
{
	uint32_t hit = 0;

	for (size_t i = 0; i < count && !hit; i++)
		hit = step(e, (unsigned char)bytes[i]);
	return hit;
}
