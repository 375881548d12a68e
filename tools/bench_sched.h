/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace bench sched`: the scheduler's figures, each beside its target. Those that depend on devices are
 * taken in virtual time, from costs that are printed with them, and so come out the same everywhere; then
 * measured on the devices that there are.
 *
 *   bench_sched.c           what is run
 *   bench_sched_step.c      CPU time, allocations and system calls of a decode step
 *   bench_sched_latency.c   fork and prefix against a cold prompt, ITL beside a long prompt, hand-over
 *   bench_sched_mixed.c     steps and prompts in one pass against each in its own, on the CPU
 *   sched_rig.c             the orchestrator and devices that both ask
 */
#ifndef MR_TOOLS_BENCH_SCHED_H
#define MR_TOOLS_BENCH_SCHED_H

#include <stdint.h>

#include "tools/bench_rows.h"
#include "tools/sched_rig.h"
#include "tools/tools.h"

struct bench_sched_options {
	const char *model;                   /* NULL = $MR_MODEL, then what `make model` fetched */
	struct tool_devices_options devices; /* device NULL = both cpu and lpu */
	uint32_t runs;
};

/* Each measures one part, adds its rows, and returns 0 or a status. */
int bench_sched_step(struct bench_rows *r, uint32_t runs);
int bench_sched_quiet(struct bench_rows *r);
/* The same counts over one answer on @rig's devices, where waking them may be a system call. */
int bench_sched_quiet_on(struct bench_rows *r, struct sched_rig *rig);
/* In virtual time. */
int bench_sched_virtual(struct bench_rows *r);
/* On devices that are open; what does not fit @model's context is measured shorter, or not. */
int bench_sched_real(struct bench_rows *r, const struct mr_model *model,
		     const struct tool_devices *devices, uint32_t runs);

/* On two CPU devices that it opens. */
int bench_sched_mixed(struct bench_rows *r, const struct mr_model *model,
		      const struct tool_devices_options *devices, uint32_t runs);

/* All of it. Returns an exit status, after a line on stderr where it is not 0. */
int bench_sched(const struct bench_sched_options *options, struct bench_rows *result);

#endif /* MR_TOOLS_BENCH_SCHED_H */
