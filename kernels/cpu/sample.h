/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one sampler: logits to a token, as struct mr_sampling says, with the same bits everywhere.
 * The CPU backend and the LPU's SAMPLE both call it.
 */
#ifndef MR_KERNELS_CPU_SAMPLE_H
#define MR_KERNELS_CPU_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include <millrace/sampling.h>

/* Bytes of scratch that mr_sample needs for @vocab ids; 64-byte aligned memory. */
size_t mr_sample_scratch(uint32_t vocab);

/* How many ids, the newest, a device keeps of a slot for penalties: those that DECODE was fed. */
#define MR_SAMPLE_HISTORY 64u

/*
 * Chooses the token for @position. @history: the last @history_count ids of the sequence, for
 * penalties. Ids outside the vocabulary are ignored. NaN logits count as minus infinity; where
 * nothing better is there, the choice is id 0. The draw is Philox with counter (position, 0, 0, 0)
 * and the seed as its key, its first two words as a 64-bit fraction of the kept weights' sum,
 * walked in ascending id.
 * @logprob: natural log of the token's probability under the unmodified logits. Returns the id.
 */
uint32_t mr_sample(const float *logits, uint32_t vocab, const struct mr_sampling *sampling,
		   uint32_t position, const uint32_t *history, uint32_t history_count,
		   void *scratch, float *logprob);

/* Natural log of @token's probability under @logits, the same bits as mr_sample's where it chooses @token. */
float mr_logprob(const float *logits, uint32_t vocab, uint32_t token);

/* 0, or MR_E_RANGE for parameters outside the ranges that sampling.h states. */
int mr_sampling_check(const struct mr_sampling *sampling, uint32_t vocab);

#endif /* MR_KERNELS_CPU_SAMPLE_H */
