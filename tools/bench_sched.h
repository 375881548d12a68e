/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace bench sched`: the scheduler's figures, each beside its target. Those that depend on devices are
 * taken in virtual time, from costs that are printed with them, and so come out the same everywhere; then
 * measured on the devices that there are.
 *
 *   bench_sched.c           what is run, and how it is printed
 *   bench_sched_step.c      CPU time, allocations and system calls of a decode step
 *   bench_sched_latency.c   fork and prefix against a cold prompt, ITL beside a long prompt, hand-over
 *   bench_sched_mixed.c     steps and prompts in one pass against each in its own, on the CPU
 *   sched_rig.c             the orchestrator and devices that both ask
 */
#ifndef MR_TOOLS_BENCH_SCHED_H
#define MR_TOOLS_BENCH_SCHED_H

#include <stdint.h>
#include <stdio.h>

#include "tools/sched_rig.h"
#include "tools/tools.h"

#define BENCH_SCHED_ROWS 144u

enum bench_goal {
	GOAL_NONE, /* the figure is for reading beside others */
	GOAL_BELOW,
	GOAL_AT_MOST,
};

struct bench_row {
	char part[320]; /* the heading that it stands under: devices, costs */
	char id[48];    /* in JSON */
	char text[64];
	const char *unit;
	double value, target;
	enum bench_goal goal;
	char not_measured[96]; /* why, or "" */
};

struct bench_sched_result {
	struct bench_row rows[BENCH_SCHED_ROWS];
	uint32_t count;
	char part[320]; /* of the rows that are added next */
	const char *prefix;
	uint64_t hiccup_p99_ns, hiccup_max_ns;
};

struct bench_sched_options {
	const char *model;                   /* NULL = $MR_MODEL, then what `make model` fetched */
	struct tool_devices_options devices; /* device NULL = both cpu and lpu */
	uint32_t runs;
};

/* Starts a part: rows that follow have ids "@prefix.id" and stand under the heading. */
void bench_part(struct bench_sched_result *r, const char *prefix, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void bench_row(struct bench_sched_result *r, const char *id, const char *text, double value,
	       const char *unit, enum bench_goal goal, double target);
void bench_row_missing(struct bench_sched_result *r, const char *id, const char *text,
		       const char *why);

/* Each measures one part, adds its rows, and returns 0 or a status. */
int bench_sched_step(struct bench_sched_result *r, uint32_t runs);
int bench_sched_quiet(struct bench_sched_result *r);
/* The same counts over one answer on @rig's devices, where waking them may be a system call. */
int bench_sched_quiet_on(struct bench_sched_result *r, struct sched_rig *rig);
/* In virtual time. */
int bench_sched_virtual(struct bench_sched_result *r);
/* On devices that are open; what does not fit @model's context is measured shorter, or not. */
int bench_sched_real(struct bench_sched_result *r, const struct mr_model *model,
		     const struct tool_devices *devices, uint32_t runs);

/* On two CPU devices that it opens. */
int bench_sched_mixed(struct bench_sched_result *r, const struct mr_model *model,
		      const struct tool_devices_options *devices, uint32_t runs);

/* All of it. Returns an exit status, after a line on stderr where it is not 0. */
int bench_sched(const struct bench_sched_options *options, struct bench_sched_result *result);
void bench_sched_print(FILE *out, const struct bench_sched_result *result);
struct json_object *bench_sched_json(const struct bench_sched_result *result);

#endif /* MR_TOOLS_BENCH_SCHED_H */
