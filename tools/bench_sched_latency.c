// SPDX-License-Identifier: Apache-2.0
/*
 * What clients wait for: the first token after a prompt that is known in part, tokens while somebody's long
 * prompt is taken in, the hand-over of KV. The same scenarios in virtual time and on devices.
 */
#include <stdlib.h>
#include <string.h>

#include "driver/metrics.h"
#include "tools/bench_sched.h"

#define SHARED      1024u
#define OWN         16u
#define HIT_TARGET  5.0 /* % of a cold prompt */
#define DECODERS    8u
#define LONG_PROMPT 8000u
#define ITL_MAX     200000u
#define IDLE_TOKENS 400u /* of each decoder */
#define HANDED      2048u
#define RUNS_MAX    100u

/* Devices' classes, in ns. Where the costs come from is in Documentation/scheduler.rst. */
struct device_class {
	const char *name;
	uint32_t layers, chunk;
	struct mr_nil_costs costs;
};
static const struct device_class cpu = {
	.name = "CPU (135M)",
	.layers = 30,
	.chunk = 128,
	.costs = {.chunk_ns = 3200000,
		  .prompt_token_ns = 900000,
		  .step_ns = 3200000,
		  .entry_ns = 1200000,
		  .context_ps = 500000},
};
static const struct device_class lpu = {
	.name = "LPU (135M)",
	.layers = 30,
	.costs = {.step_ns = 24000, .entry_ns = 2400, .import_block_ns = 500},
};
static const struct device_class gpu = {
	.name = "H100 (8B)",
	.layers = 32,
	.chunk = 512,
	.costs = {.chunk_ns = 4800000, .prompt_token_ns = 22600, .context_ps = 1750},
};
static const struct device_class big_lpu = {
	.name = "LPU group (8B)",
	.layers = 32,
	.costs = {.step_ns = 1000000, .entry_ns = 20000, .import_block_ns = 1300},
};

enum first { COLD, HIT, PREFIX, FORK, APPEND, FIRSTS };
static const char *const first_ids[FIRSTS] = {"cold", "hit", "prefix", "fork", "append"};
static const char *const first_texts[FIRSTS] = {
	"TTFT, cold prompt",
	"prompt that begins as another of the client's",
	"named prefix and a prompt of 16",
	"fork",
	"append of 16 tokens",
};

static uint64_t ttft(const struct sched_answer *a)
{
	return a->end.first_ns - a->end.submit_ns;
}

static int ask_and_wait(struct sched_rig *rig, const struct sched_ask *ask, struct sched_answer *a)
{
	int status = sched_rig_ask(rig, ask, a);

	return status ? status : sched_rig_wait(rig, a);
}

/* One TTFT of each kind. @family is a text that nobody has asked for yet. */
static int measure_firsts(struct sched_rig *rig, uint32_t shared, uint32_t family,
			  uint64_t ns[FIRSTS])
{
	const struct sched_ask prompt = {.client = 1,
					 .family = family,
					 .shared = shared,
					 .count = shared + OWN,
					 .max_tokens = 1};
	/* The last token of a sequence has no KV yet: one more than is to be shared. */
	struct sched_ask keep = {.flags = MR_REQUEST_KEEP,
				 .client = 1,
				 .family = family,
				 .shared = shared,
				 .count = shared + 1};
	struct sched_ask fork = {.op = MR_REQUEST_FORK, .client = 1, .max_tokens = 1};
	struct sched_ask named = {.client = 2, .prefix = family, .count = OWN, .max_tokens = 1};
	struct sched_ask append = {
		.op = MR_REQUEST_APPEND, .client = 1, .count = OWN, .max_tokens = 1};
	struct sched_answer a[FIRSTS] = {0}, kept = {0};
	int status;

	mr_sched_drop_cache(rig->sched);
	status = ask_and_wait(rig, &prompt, &a[COLD]);
	if (!status)
		status = ask_and_wait(rig, &prompt, &a[HIT]);
	if (!status)
		status = ask_and_wait(rig, &keep, &kept);
	fork.target = append.target = kept.key;
	if (!status)
		status = mr_sched_prefix(rig->sched, 1, kept.key, family);
	if (!status)
		status = ask_and_wait(rig, &fork, &a[FORK]);
	if (!status)
		status = ask_and_wait(rig, &named, &a[PREFIX]);
	if (!status)
		status = ask_and_wait(rig, &append, &a[APPEND]);
	sched_rig_clear(rig);
	for (uint32_t i = 0; !status && i < FIRSTS; i++) {
		ns[i] = ttft(&a[i]);
		/* What was computed anew is no hit. */
		if (i == COLD ? a[i].end.reused != 0 : a[i].end.reused + 16 < shared)
			status = MR_E_INTERNAL;
	}
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

/* Rows of medians over @runs; each ratio is to the cold prompt just before it. */
static int add_firsts(struct bench_rows *r, struct sched_rig *rig, uint32_t shared, uint32_t runs)
{
	double cold[RUNS_MAX], ratio[FIRSTS][RUNS_MAX];
	int status = 0;

	for (uint32_t i = 0; !status && i < runs; i++) {
		uint64_t ns[FIRSTS];

		status = measure_firsts(rig, shared, i + 1, ns);
		for (uint32_t k = 0; !status && k < FIRSTS; k++)
			ratio[k][i] = 100.0 * (double)ns[k] / (double)ns[COLD];
		cold[i] = status ? 0 : (double)ns[COLD] / 1e6;
	}
	if (status)
		return status;
	bench_row(r, first_ids[COLD], first_texts[COLD], median(cold, runs), "ms", GOAL_NONE, 0);
	for (uint32_t k = HIT; k < FIRSTS; k++)
		bench_row(r, first_ids[k], first_texts[k], median(ratio[k], runs), "%",
			  k == APPEND || shared < SHARED ? GOAL_NONE : GOAL_BELOW, HIT_TARGET);
	return 0;
}

static int open_virtual(struct sched_rig *rig, const struct device_class *prefill,
			const struct device_class *decode, uint32_t chunk)
{
	const struct sched_rig_options options = {
		.prefill = &prefill->costs,
		.decode = &decode->costs,
		.one_device = prefill == decode,
		.layers = prefill->layers,
		.context = 16384,
		.requests = 32,
		.chunk = chunk ? chunk : prefill->chunk,
	};

	return sched_rig_open(rig, &options);
}

static void name_costs(const struct device_class *c, char *text, size_t bytes)
{
	const struct mr_nil_costs *n = &c->costs;
	int used = snprintf(text, bytes, "%s", c->name);

	if (n->prompt_token_ns)
		used += snprintf(text + used, bytes - (size_t)used,
				 " chunk %g ms + %g us a token + %g ns a pair",
				 (double)n->chunk_ns / 1e6, (double)n->prompt_token_ns / 1e3,
				 (double)n->context_ps / 1e3);
	if (n->step_ns)
		used += snprintf(text + used, bytes - (size_t)used,
				 "%s step %g us + %g us a sequence", n->prompt_token_ns ? "," : "",
				 (double)n->step_ns / 1e3, (double)n->entry_ns / 1e3);
	if (n->import_block_ns)
		snprintf(text + used, bytes - (size_t)used, ", import %g us a block",
			 (double)n->import_block_ns / 1e3);
}

static int virtual_firsts(struct bench_rows *r, const char *prefix,
			  const struct device_class *prefill, const struct device_class *decode)
{
	struct sched_rig rig;
	char a[128], b[128];
	int status = open_virtual(&rig, prefill, decode, 0);

	if (status)
		return status;
	name_costs(prefill, a, sizeof(a));
	name_costs(decode, b, sizeof(b));
	bench_part(r, prefix, "1024 tokens shared, virtual: %s; %s", a, b);
	status = add_firsts(r, &rig, SHARED, 1);
	sched_rig_close(&rig);
	return status;
}

/* ITL of DECODERS sequences: alone, then while a prompt of LONG_PROMPT is taken in. */
struct itl {
	struct tool_summary idle, busy;
	uint64_t prompt_ns; /* TTFT of the long prompt */
};

static int measure_itl(struct sched_rig *rig, uint64_t bound_ns, struct itl *out)
{
	const struct sched_ask decoder = {
		.count = 64, .max_tokens = 15000, .itl_ns = bound_ns ? bound_ns : UINT64_MAX};
	const struct sched_ask prompt = {.client = 1, .count = LONG_PROMPT, .max_tokens = 1};
	struct sched_answer answers[DECODERS] = {0}, asked = {0};
	uint64_t *samples = calloc(ITL_MAX, sizeof(*samples));
	int status = samples ? 0 : MR_E_NO_MEMORY;

	for (uint32_t i = 0; !status && i < DECODERS; i++)
		status = sched_rig_ask(rig, &decoder, &answers[i]);
	while (!status && answers[DECODERS - 1].tokens < 32)
		status = sched_rig_turn(rig);
	rig->itl_ns = samples;
	rig->itl_max = ITL_MAX;
	while (!status && rig->itl_count < DECODERS * IDLE_TOKENS)
		status = sched_rig_turn(rig);
	out->idle = tool_summarise(samples, rig->itl_count);
	rig->itl_count = 0;
	if (!status)
		status = ask_and_wait(rig, &prompt, &asked);
	rig->itl_ns = NULL;
	if (!status && (rig->itl_count == ITL_MAX || answers[0].ended))
		status = MR_E_INTERNAL; /* then the window was not all seen */
	out->busy = tool_summarise(samples, rig->itl_count);
	out->prompt_ns = ttft(&asked);
	sched_rig_clear(rig);
	free(samples);
	return status;
}

static void add_itl(struct bench_rows *r, const char *id, const char *text, uint64_t ns,
		    enum bench_goal goal, uint64_t target_ns)
{
	bench_row(r, id, text, (double)ns / 1e6, "ms", goal, (double)target_ns / 1e6);
}

/* @bound_ns 0: the target is 1.5 times idle. @chunk 0: the class's own. */
static int virtual_itl(struct bench_rows *r, const char *prefix, const struct device_class *prefill,
		       const struct device_class *decode, uint32_t chunk, uint64_t bound_ns,
		       int judged)
{
	struct sched_rig rig;
	struct itl itl;
	int status = open_virtual(&rig, prefill, decode, chunk);

	if (status)
		return status;
	status = measure_itl(&rig, bound_ns, &itl);
	sched_rig_close(&rig);
	if (status)
		return status;
	bench_part(r, prefix, "8 decode while 8000 tokens are taken in, virtual: %s, %s%s",
		   prefill == decode ? "all on one" : "prefill on another device", prefill->name,
		   bound_ns ? ", ITL bound"
		   : chunk  ? ", chunks as large as the device takes"
			    : "");
	add_itl(r, "idle_p50", "ITL idle, p50", itl.idle.p50, GOAL_NONE, 0);
	add_itl(r, "idle_p99", "ITL idle, p99", itl.idle.p99, GOAL_NONE, 0);
	add_itl(r, "busy_p50", "ITL meanwhile, p50", itl.busy.p50, GOAL_NONE, 0);
	if (bound_ns)
		add_itl(r, "busy_p99", "ITL meanwhile, p99", itl.busy.p99, GOAL_AT_MOST, bound_ns);
	else
		add_itl(r, "busy_p99", "ITL meanwhile, p99", itl.busy.p99,
			judged ? GOAL_AT_MOST : GOAL_NONE, itl.idle.p99 * 3 / 2);
	add_itl(r, "busy_max", "ITL meanwhile, the longest", itl.busy.max, GOAL_NONE, 0);
	add_itl(r, "prompt", "TTFT of the long prompt", itl.prompt_ns, GOAL_NONE, 0);
	return 0;
}

/* Hand-over of one prompt with nothing beside it. */
static int add_handover(struct bench_rows *r, struct sched_rig *rig, uint32_t tokens, uint32_t runs)
{
	double hidden[RUNS_MAX], exposed[RUNS_MAX], share[RUNS_MAX], prefill[RUNS_MAX];
	int status = 0;

	for (uint32_t i = 0; i < runs; i++) {
		const struct sched_ask ask = {.count = tokens, .max_tokens = 1};
		uint64_t all = mr_metric_read(MR_M_sched_handover_blocks);
		uint64_t early = mr_metric_read(MR_M_sched_handover_hidden);
		struct sched_answer a = {0};

		mr_sched_drop_cache(rig->sched);
		status = ask_and_wait(rig, &ask, &a);
		sched_rig_clear(rig);
		if (status)
			return status;
		all = mr_metric_read(MR_M_sched_handover_blocks) - all;
		early = mr_metric_read(MR_M_sched_handover_hidden) - early;
		hidden[i] = all ? 100.0 * (double)early / (double)all : 0;
		prefill[i] = (double)(a.end.prefilled_ns - a.end.start_ns) / 1e6;
		exposed[i] = (double)(a.end.joined_ns - a.end.prefilled_ns) / 1e6;
		share[i] = 100.0 * exposed[i] / prefill[i];
	}
	bench_row(r, "hidden", "blocks sent while prefill went on", median(hidden, runs), "%",
		  GOAL_NONE, 0);
	bench_row(r, "prefill", "prefill", median(prefill, runs), "ms", GOAL_NONE, 0);
	bench_row(r, "exposed", "hand-over after it", median(exposed, runs), "ms", GOAL_NONE, 0);
	bench_row(r, "exposed_share", "  of prefill's time", median(share, runs), "%", GOAL_NONE,
		  0);
	return 0;
}

static int virtual_handover(struct bench_rows *r)
{
	struct sched_rig rig;
	char a[128], b[128];
	int status = open_virtual(&rig, &gpu, &big_lpu, 0);

	if (status)
		return status;
	name_costs(&gpu, a, sizeof(a));
	name_costs(&big_lpu, b, sizeof(b));
	bench_part(r, "handover", "Hand-over of 2048 tokens, virtual: %s; %s", a, b);
	status = add_handover(r, &rig, HANDED, 1);
	sched_rig_close(&rig);
	return status;
}

int bench_sched_virtual(struct bench_rows *r)
{
	int status = virtual_firsts(r, "first_cpu_lpu", &cpu, &lpu);

	if (!status)
		status = virtual_firsts(r, "first_gpu_lpu", &gpu, &big_lpu);
	if (!status)
		status = virtual_itl(r, "itl_other", &gpu, &big_lpu, 0, 0, 1);
	if (!status)
		status = virtual_itl(r, "itl_bound", &cpu, &cpu, 0, 100000000, 1);
	if (!status)
		status = virtual_itl(r, "itl_chunk", &cpu, &cpu, 0, 0, 0);
	if (!status)
		status = virtual_itl(r, "itl_whole", &cpu, &cpu, 4096, 0, 0);
	if (!status)
		status = virtual_handover(r);
	return status;
}

int bench_sched_real(struct bench_rows *r, const struct mr_model *model,
		     const struct tool_devices *devices, uint32_t runs)
{
	const struct sched_rig_options options = {
		.devices = devices, .model = model, .requests = 8};
	uint32_t room = devices->decode->caps.context, shared = SHARED, handed = HANDED;
	int two = devices->prefill != devices->decode, status;
	struct sched_rig rig;

	if (room < shared + 4 * OWN)
		shared = (room - 4 * OWN) / 16 * 16;
	if (room < handed + 2)
		handed = room - 2;
	status = sched_rig_open(&rig, &options);
	if (status)
		return status;
	bench_part(r, two ? "real_lpu" : "real_cpu",
		   "%u tokens shared, measured: %s, prefill on %s, decode on %s, %u runs", shared,
		   model->name, devices->prefill->caps.name, devices->decode->caps.name, runs);
	status = add_firsts(r, &rig, shared, runs);
	if (!status)
		status = bench_sched_quiet_on(r, &rig);
	if (!status && two) {
		bench_part(r, "real_handover",
			   "Hand-over of %u tokens, measured: %s to %s, %u runs", handed,
			   devices->prefill->caps.name, devices->decode->caps.name, runs);
		status = add_handover(r, &rig, handed, runs);
	}
	sched_rig_close(&rig);
	return status;
}
