// SPDX-License-Identifier: Apache-2.0
/*
 * What it gains that the CPU takes a DECODE's step and chunks of prompts in one pass over the weights: the same
 * load on two CPU devices, one of which keeps works apart, by turns.
 */
#include <stdlib.h>
#include <string.h>

#include "driver/metrics.h"
#include "tools/bench_sched.h"

#define PROMPT       512u
#define DECODERS_MAX 8u
#define SHORT        12u /* tokens of each of many prompts */
#define SHORTS       16u
#define ITL_MAX      65536u
#define RUNS_MAX     100u
#define BOUND        5u /* times the idle ITL */

enum way { TOGETHER, APART, WAYS };
enum figure { P50, P99, TTFT, RATE, FIGURES };

static const struct {
	const char *id, *text, *unit;
} figures[FIGURES] = {
	{"itl_p50", "ITL meanwhile, p50", "ms"},
	{"itl_p99", "ITL meanwhile, p99", "ms"},
	{"prompt", "TTFT of the prompt", "ms"},
	{"rate", "tokens of prompt and answers", "/s"},
};

struct world {
	struct tool_devices devices[WAYS];
	struct sched_rig rigs[WAYS];
	uint64_t *itl_ns;
	uint32_t prompt;
};

/* Turns until each of @n has made @tokens tokens. */
static int turn_until(struct sched_rig *rig, const struct sched_answer *a, uint32_t n,
		      uint32_t tokens)
{
	int status = 0;

	for (uint32_t i = 0; i < n; i++)
		while (!status && a[i].tokens < tokens && !a[i].ended)
			status = tool_stop ? MR_E_CANCELLED : sched_rig_turn(rig);
	return status;
}

/* @n decode, then a prompt comes. @idle: the ITL before it, p50. */
static int beside_prompt(struct world *w, struct sched_rig *rig, uint32_t n, uint64_t bound_ns,
			 double value[FIGURES], uint64_t *idle)
{
	const struct sched_ask decoder = {
		.count = 32, .max_tokens = 300, .itl_ns = bound_ns ? bound_ns : UINT64_MAX};
	const struct sched_ask prompt = {.client = 1, .count = w->prompt, .max_tokens = 1};
	struct sched_answer answers[DECODERS_MAX] = {0}, asked = {0};
	struct tool_summary itl;
	uint64_t ns;
	int status = 0;

	mr_sched_drop_cache(rig->sched);
	rig->itl_ns = w->itl_ns;
	rig->itl_max = ITL_MAX;
	rig->itl_count = 0;
	for (uint32_t i = 0; !status && i < n; i++)
		status = sched_rig_ask(rig, &decoder, &answers[i]);
	if (!status)
		status = turn_until(rig, answers, n, 4);
	rig->itl_count = 0;
	if (!status)
		status = turn_until(rig, answers, n, 12);
	*idle = tool_summarise(w->itl_ns, rig->itl_count).p50;
	rig->itl_count = 0;
	if (!status)
		status = sched_rig_ask(rig, &prompt, &asked);
	if (!status)
		status = sched_rig_wait(rig, &asked);
	rig->itl_ns = NULL;
	for (uint32_t i = 0; i < n; i++)
		if (answers[i].ended)
			status = status ? status : MR_E_INTERNAL; /* the window was not all seen */
	ns = asked.end.first_ns - asked.end.submit_ns;
	itl = tool_summarise(w->itl_ns, rig->itl_count);
	value[P50] = (double)itl.p50 / 1e6;
	value[P99] = (double)itl.p99 / 1e6;
	value[TTFT] = (double)ns / 1e6;
	value[RATE] = ns ? (double)(w->prompt + rig->itl_count) * 1e9 / (double)ns : 0;
	sched_rig_clear(rig);
	return status;
}

/* SHORTS prompts at once, a token for each: until the last has it. */
static int many_prompts(struct sched_rig *rig, double *ms)
{
	const struct sched_ask ask = {.count = SHORT, .max_tokens = 1};
	struct sched_answer answers[SHORTS] = {0};
	uint64_t start, end = 0;
	int status = 0;

	mr_sched_drop_cache(rig->sched);
	start = sched_rig_now(rig);
	for (uint32_t i = 0; !status && i < SHORTS; i++)
		status = sched_rig_ask(rig, &ask, &answers[i]);
	for (uint32_t i = 0; !status && i < SHORTS; i++) {
		status = sched_rig_wait(rig, &answers[i]);
		end = answers[i].end.first_ns > end ? answers[i].end.first_ns : end;
	}
	sched_rig_clear(rig);
	*ms = (double)(end - start) / 1e6;
	return status;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, uint32_t n)
{
	qsort(values, n, sizeof(*values), ascending);
	return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

/* The median with works together, and of the runs' ratios to the one apart just beside it. */
static void add_pair(struct bench_rows *r, const char *id, const char *text, const char *unit,
		     double values[WAYS][RUNS_MAX], uint32_t runs)
{
	double ratios[RUNS_MAX];
	char ratio_id[32];

	for (uint32_t i = 0; i < runs; i++)
		ratios[i] = values[APART][i] > 0 ? values[TOGETHER][i] / values[APART][i] : 0;
	snprintf(ratio_id, sizeof(ratio_id), "%s_ratio", id);
	bench_row(r, id, text, median(values[TOGETHER], runs), unit, GOAL_NONE, 0);
	bench_row(r, ratio_id, "  of that with works apart", median(ratios, runs), "x", GOAL_NONE,
		  0);
}

static int add_beside(struct bench_rows *r, struct world *w, uint32_t n, int bounded, uint32_t runs)
{
	static double values[FIGURES][WAYS][RUNS_MAX];
	uint64_t idle = 0, bound = 0;
	double value[FIGURES];
	int status = beside_prompt(w, &w->rigs[APART], n, 0, value, &idle); /* warm, not counted */

	if (!status)
		status = beside_prompt(w, &w->rigs[TOGETHER], n, 0, value, &idle);
	bound = bounded ? BOUND * idle : 0;
	for (uint32_t i = 0; !status && i < runs; i++)
		for (uint32_t k = 0; !status && k < WAYS; k++) {
			uint32_t way = (k + i) % WAYS;

			status = beside_prompt(w, &w->rigs[way], n, bound, value, &idle);
			for (uint32_t f = 0; f < FIGURES; f++)
				values[f][way][i] = value[f];
		}
	if (status)
		return status;
	if (bounded)
		bench_row(r, "bound", "ITL bound, 5 times the idle ITL", (double)bound / 1e6, "ms",
			  GOAL_NONE, 0);
	for (uint32_t f = 0; f < FIGURES; f++)
		add_pair(r, figures[f].id, figures[f].text, figures[f].unit, values[f], runs);
	return 0;
}

static int add_many(struct bench_rows *r, struct world *w, uint32_t runs)
{
	double values[WAYS][RUNS_MAX], ms;
	int status = many_prompts(&w->rigs[APART], &ms);

	if (!status)
		status = many_prompts(&w->rigs[TOGETHER], &ms);
	for (uint32_t i = 0; !status && i < runs; i++)
		for (uint32_t k = 0; !status && k < WAYS; k++)
			status = many_prompts(&w->rigs[(k + i) % WAYS], &values[(k + i) % WAYS][i]);
	if (!status)
		add_pair(r, "all", "until all have their token", "ms", values, runs);
	return status;
}

static int measure(struct bench_rows *r, struct world *w, const char *name, uint32_t runs)
{
	static const struct {
		const char *prefix;
		uint32_t decoders;
		int bounded;
	} loads[] = {
		{"mixed_1", 1, 0},
		{"mixed_8", 8, 0},
		{"mixed_bound", 8, 1},
	};
	int status = 0;

	for (unsigned i = 0; !status && i < sizeof(loads) / sizeof(loads[0]); i++) {
		bench_part(r, loads[i].prefix,
			   "%u decode while %u tokens are taken in, measured: %s on %s, %u runs%s",
			   loads[i].decoders, w->prompt, name,
			   w->devices[TOGETHER].decode->caps.name, runs,
			   loads[i].bounded ? ", ITL bound" : "");
		status = add_beside(r, w, loads[i].decoders, loads[i].bounded, runs);
	}
	bench_part(r, "mixed_prompts",
		   "%u prompts of %u tokens at once, measured: %s on %s, %u runs", SHORTS, SHORT,
		   name, w->devices[TOGETHER].decode->caps.name, runs);
	return status ? status : add_many(r, w, runs);
}

int bench_sched_mixed(struct bench_rows *r, const struct mr_model *model,
		      const struct tool_devices_options *devices, uint32_t runs)
{
	struct world w = {.itl_ns = calloc(ITL_MAX, sizeof(*w.itl_ns))};
	struct tool_devices_options options = *devices;
	int status = w.itl_ns ? 0 : MR_E_NO_MEMORY;

	w.prompt = options.context < PROMPT + 2 ? options.context - 2 : PROMPT;
	for (uint32_t way = 0; !status && way < WAYS; way++) {
		const struct sched_rig_options rig = {
			.devices = &w.devices[way], .model = model, .requests = 32};

		options.device = "cpu";
		options.apart = way == APART;
		status = tool_devices_open(&options, model, &w.devices[way]) ? MR_E_DEVICE : 0;
		if (!status)
			status = sched_rig_open(&w.rigs[way], &rig);
	}
	if (!status)
		status = measure(r, &w, model->name, runs);
	for (uint32_t way = 0; way < WAYS; way++) {
		if (w.rigs[way].sched)
			sched_rig_close(&w.rigs[way]);
		if (w.devices[way].arena)
			tool_devices_close(&w.devices[way]);
	}
	free(w.itl_ns);
	return status;
}
