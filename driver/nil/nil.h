/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nil device: tokens count upwards and nothing is computed, but every rule of driver/device.h is kept,
 * KV blocks are accounted for one by one, and work takes the time that a model of a device says.
 *
 * Without costs all work completes while it is posted, and what is measured is the orchestrator and the
 * rings alone. With costs and a clock of the caller's it stands for a device in virtual time. Work then runs
 * in order on one engine, busy from max(now, end of the work before) for its cost, and imports run on a
 * second one if import_parallel says so; work on a slot never starts before earlier work on that slot has
 * ended. An event is visible to poll when the clock has reached the time at which it is due.
 */
#ifndef MR_DRIVER_NIL_NIL_H
#define MR_DRIVER_NIL_NIL_H

#include "driver/device.h"

/* A prefill takes chunk + count * prompt_token + context, and score the same for count - 1 tokens; a
 * step of a decode takes step + live entries * entry + context; an import takes count * import_block. */
struct mr_nil_costs {
	uint64_t chunk_ns;
	uint64_t prompt_token_ns;
	uint64_t step_ns;
	uint64_t entry_ns;
	uint64_t import_block_ns; /* of each descriptor: a block of one layer */
	uint64_t context_ps;      /* picoseconds, for each token fed and each one before it */
};

struct mr_nil_options {
	uint32_t slots;     /* 0 = 1024 */
	uint32_t context;   /* 0 = 8192 */
	uint32_t vocab;     /* 0 = 49152 */
	uint32_t layers;    /* of KV; 0 = the loaded model's, and before a load any */
	uint64_t kv_tokens; /* rounded up to blocks; 0 = what all slots need, at most 2^28 */
	struct mr_nil_costs costs;
	double jitter; /* each cost is multiplied by 1 - jitter to 1 + jitter; 0 to 1 */
	uint64_t seed; /* of jitter */
	uint32_t import_parallel;
	uint32_t pass_rows; /* caps.pass_rows: it says so, but runs one work at a time */
	uint64_t (*now_ns)(
		void *arg); /* never goes back; NULL = CLOCK_MONOTONIC, if costs matter */
	void *arg;
};

/* 0, MR_E_RANGE for options beyond their limits, MR_E_NO_MEMORY. */
int mr_nil_open(const struct mr_nil_options *options, struct mr_device **dev);

/* When the next event is due: not later than now where poll has one; UINT64_MAX = none under way. */
uint64_t mr_nil_next_ns(const struct mr_device *dev);

/* ln p that SCORE gives for @token: eighths, so that sums of them are exact. */
static inline float mr_nil_logprob(uint32_t token)
{
	return -(float)(token % 8) / 8;
}

#endif /* MR_DRIVER_NIL_NIL_H */
