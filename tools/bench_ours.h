/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU backend as bench_cpu_ends.c drives it; see bench_cpu_ours.c. */
#ifndef MR_TOOLS_BENCH_OURS_H
#define MR_TOOLS_BENCH_OURS_H

#include "tools/bench_cpu.h"

#define BENCH_BATCH_MAX  64u
#define BENCH_TOKENS_MAX 4096u

struct bench_ours {
	struct mr_device *dev; /* loaded */
	uint32_t open;
	struct mr_slot slots[BENCH_BATCH_MAX];
	uint32_t tokens[BENCH_TOKENS_MAX];
};

/* Opens the slots that @end needs and fills their context. Returns 0 or a status. */
int bench_ours_prepare(struct bench_ours *b, const struct bench_end *end);
void bench_ours_release(struct bench_ours *b);
/* One timed run; can be repeated. */
int bench_ours_run(struct bench_ours *b, const struct bench_end *end, double *seconds);

#endif /* MR_TOOLS_BENCH_OURS_H */
