/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a token is chosen: the one structure that names it on the ring, on the wire, towards a device
 * and inside the CPU backend, so that the same bytes make the same choice everywhere. And the strings at
 * which an answer stops, which the orchestrator looks for.
 *
 * Order of steps: penalties, temperature, top-k, top-p, min-p, then one draw. Probabilities are
 * fixed-point integers, ties go to the lowest id, and the draw is Philox-4x32-10 keyed by
 * (seed, position), so a token is a function of logits, parameters, seed and position alone.
 *
 * Little-endian, 64 bytes. All-zero means greedy: argmax with ties to the lowest id.
 */
#ifndef MILLRACE_SAMPLING_H
#define MILLRACE_SAMPLING_H

#include <stdint.h>

#define MR_STOP_TOKENS_MAX 6

struct mr_sampling {
	uint64_t seed;       /* any value */
	float temperature;   /* 0 = greedy; finite, 0..100 */
	float top_p;         /* 0 or 1 = off; else 0 < p < 1 */
	float min_p;         /* 0 = off; else 0 < p < 1, relative to the best token's probability */
	uint32_t top_k;      /* 0 = off */
	float repeat;        /* repetition penalty over the history window; 0 or 1 = off */
	float presence;      /* presence penalty, subtracted once; 0 = off */
	float frequency;     /* frequency penalty, subtracted for each occurrence; 0 = off */
	uint32_t stop_count; /* 0..MR_STOP_TOKENS_MAX entries of stop[] that hold */
	uint32_t stop[MR_STOP_TOKENS_MAX]; /* the token is delivered, then the sequence stops */
};

#define MR_STOP_STRINGS_MAX 8
#define MR_STOP_BYTES_MAX   256 /* of all strings together */

/*
 * Stop strings: looked for in the bytes of an answer's tokens, wherever tokens begin. The answer ends with
 * the token in which one is whole; that token is delivered, with what follows the string in it. Of two that
 * end with the same byte the first of the list counts. Control tokens have no bytes. All-zero = none.
 */
struct mr_stops {
	uint32_t count;                     /* 0..MR_STOP_STRINGS_MAX strings, none empty */
	uint32_t reserved;                  /* 0 */
	uint16_t ends[MR_STOP_STRINGS_MAX]; /* of each in text; ascending; 0 from [count] on */
	uint8_t text[MR_STOP_BYTES_MAX];    /* one directly after the other; then 0 */
};

#ifdef __cplusplus
static_assert(sizeof(struct mr_sampling) == 64, "mr_sampling is 64 bytes");
static_assert(sizeof(struct mr_stops) == 280, "mr_stops is 280 bytes");
#else
_Static_assert(sizeof(struct mr_sampling) == 64, "mr_sampling is 64 bytes");
_Static_assert(sizeof(struct mr_stops) == 280, "mr_stops is 280 bytes");
#endif

#endif /* MILLRACE_SAMPLING_H */
