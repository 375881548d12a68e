/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decode with forced input: known tokens go through a device one by one, from an empty slot, and
 * the logits after each are looked at. Used by the commands that compare a device with references.
 */
#ifndef MR_TOOLS_FORCED_H
#define MR_TOOLS_FORCED_H

#include <stdint.h>

#include "driver/device.h"

struct tool_forced {
	const uint32_t *tokens;
	uint32_t count;   /* 1 or more */
	uint32_t prefill; /* how many of the first come in by prefill instead; below count */
};

struct tool_forced_step {
	uint32_t sequence;   /* index into the caller's sequences */
	uint32_t position;   /* of the token that was fed */
	uint32_t sampled;    /* what the device's greedy sampler made of the logits */
	uint64_t cycles;     /* device cycles of the step; 0 = unknown */
	const float *logits; /* vocab of them, valid during the call */
};

/*
 * Feeds every sequence, several slots in one DECODE, and calls @step for each token fed by decode:
 * in order of position within a sequence, sequences interleaved. Returns 0, what the device said,
 * or MR_E_TIMEOUT after a minute of silence. @progress (may be NULL) hears of tokens fed and to
 * feed.
 */
int tool_forced_run(struct mr_device *dev, const struct tool_forced *sequences, uint32_t count,
		    void (*step)(void *arg, const struct tool_forced_step *step),
		    void (*progress)(void *arg, uint64_t done, uint64_t all), void *arg);

/* Waits for at least one event, sleeping on wait_fd where the device has one. As work->poll, or
 * MR_E_TIMEOUT. */
int tool_device_wait(struct mr_device *dev, struct mr_event *events, uint32_t max);

/* The index of the largest of @n logits, the lowest of equals. */
uint32_t tool_argmax(const float *logits, uint32_t n);
/* ln of the sum of e^logit, in double: ln p(id) = logits[id] - that. */
double tool_log_sum_exp(const float *logits, uint32_t n);
/* The @k largest of @n logits into @ids, best first, ties to the lowest id. Returns how many (k or
 * n). */
uint32_t tool_top(const float *logits, uint32_t n, uint32_t *ids, uint32_t k);

#endif /* MR_TOOLS_FORCED_H */
