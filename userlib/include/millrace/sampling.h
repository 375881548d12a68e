/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a token is chosen: the one structure that names it on the ring, on the wire, towards a device
 * and inside the CPU backend, so that the same bytes make the same choice everywhere.
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

#ifdef __cplusplus
static_assert(sizeof(struct mr_sampling) == 64, "mr_sampling is 64 bytes");
#else
_Static_assert(sizeof(struct mr_sampling) == 64, "mr_sampling is 64 bytes");
#endif

#endif /* MILLRACE_SAMPLING_H */
