// SPDX-License-Identifier: Apache-2.0
/*
 * What a decode step costs the loop's thread, over nil devices that answer at once: CPU time, allocations,
 * system calls. A turn of the loop is one step there: it takes a DECODE's tokens to their fronts and posts the
 * next DECODE.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>

#include "driver/metrics.h"
#include "driver/trace.h"
#include "tools/bench_sched.h"
#include "tools/quiet.h"

#define SIZES       5u
#define STEPS       200u /* of a round */
#define ROUNDS_MAX  1600u
#define QUIET_STEPS 1000u
#define QUIET_BATCH 64u

static const struct {
	uint32_t count;
	int traced; /* with the trace on, as in a server */
} sizes[SIZES] = {{1}, {16}, {64}, {64, 1}, {256}};

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ns of CPU a DECODE, over a round. */
static uint64_t round_of(struct sched_rig *rig)
{
	uint64_t steps = mr_metric_read(MR_M_sched_steps), before = cpu_ns(), after;

	for (uint32_t i = 0; i < STEPS; i++)
		mr_sched_poll(rig->sched);
	after = cpu_ns();
	steps = mr_metric_read(MR_M_sched_steps) - steps;
	return steps ? (after - before) / steps : 0;
}

/* The same for the device alone: the calls that a DECODE makes of it. */
static uint64_t device_round(struct mr_device *dev, struct mr_decode_entry *entries, uint32_t count)
{
	struct mr_event events[64];
	uint64_t before = cpu_ns();

	for (uint32_t i = 0; i < STEPS; i++) {
		dev->work->decode(dev, entries, count, 1, 0);
		for (uint32_t n = 0; n < count; n++)
			entries[n].position++;
		while (dev->work->poll(dev, events, 64) == 64)
			;
	}
	return (cpu_ns() - before) / STEPS;
}

/* Makes all @count decode, with answers that do not end while rounds are taken. */
static int fill(struct sched_rig *rig, struct sched_answer *answers, uint32_t count,
		uint32_t rounds)
{
	const struct sched_ask ask = {
		.op = MR_REQUEST_SUBMIT,
		.count = 32,
		.max_tokens = (rounds + 4) * STEPS + 4 * count,
		.itl_ns = 1000000000,
	};
	int status = 0;

	for (uint32_t i = 0; !status && i < count; i++)
		status = sched_rig_ask(rig, &ask, &answers[i]);
	for (uint32_t i = 0; !status && i < 3 * count + 200; i++)
		status = sched_rig_turn(rig);
	for (uint32_t i = 0; !status && i < count; i++)
		if (!answers[i].tokens || answers[i].ended)
			status = MR_E_INTERNAL;
	return status;
}

static int measure_size(struct sched_rig *rig, uint32_t count, uint32_t rounds, uint64_t *ns)
{
	struct sched_answer *answers = calloc(count, sizeof(*answers));
	int status = answers ? fill(rig, answers, count, rounds) : MR_E_NO_MEMORY;

	for (uint32_t i = 0; !status && i < rounds; i++)
		ns[i] = round_of(rig);
	for (uint32_t i = 0; !status && i < count; i++)
		if (answers[i].ended)
			status = MR_E_INTERNAL; /* then it was not @count that decoded */
	sched_rig_clear(rig);
	mr_sched_drop_cache(rig->sched);
	free(answers);
	return status;
}

static int measure_device(uint32_t count, uint32_t rounds, uint64_t *ns)
{
	const struct mr_nil_options options = {.slots = count, .context = (rounds + 2) * STEPS};
	const struct mr_slot_config config = {.positions = options.context};
	struct mr_decode_entry *entries = calloc(count, sizeof(*entries));
	struct mr_device *dev = NULL;
	int status = entries ? mr_nil_open(&options, &dev) : MR_E_NO_MEMORY;

	for (uint32_t i = 0; !status && i < count; i++)
		status = dev->mem->slot_open(dev, &config, &entries[i].slot);
	for (uint32_t i = 0; !status && i < rounds; i++)
		ns[i] = device_round(dev, entries, count);
	if (dev)
		dev->admin->close(dev);
	free(entries);
	return status;
}

static void add_size(struct bench_rows *r, uint32_t i, const struct tool_summary *s)
{
	uint32_t count = sizes[i].count;
	int judged = count == 64 && !sizes[i].traced;
	char id[32], text[64];

	snprintf(id, sizeof(id), "cpu_%u%s", count, sizes[i].traced ? "_traced" : "");
	snprintf(text, sizeof(text), "CPU, %u sequences%s, p50", count,
		 sizes[i].traced ? ", trace on" : "");
	bench_row(r, id, text, (double)s->p50 / 1e3, "us", judged ? GOAL_BELOW : GOAL_NONE, 5);
	if (!judged)
		return;
	bench_row(r, "cpu_64_min", "  the best round", (double)s->min / 1e3, "us", GOAL_NONE, 0);
	bench_row(r, "cpu_64_p99", "  the worst of a hundred", (double)s->p99 / 1e3, "us",
		  GOAL_NONE, 0);
}

int bench_sched_step(struct bench_rows *r, uint32_t runs)
{
	const uint32_t rounds = 5, all = rounds * runs;
	const struct sched_rig_options options = {
		.layers = 32, .context = 4096, .requests = sizes[SIZES - 1].count};
	struct sched_rig rig;
	uint64_t *ns = calloc((size_t)SIZES * all, sizeof(*ns)), device[ROUNDS_MAX];
	int status = ns ? sched_rig_open(&rig, &options) : MR_E_NO_MEMORY;

	if (status || all > ROUNDS_MAX) {
		free(ns);
		return status ? status : MR_E_RANGE;
	}
	/* Sizes alternate, so that a neighbour on the host disturbs all alike. */
	for (uint32_t run = 0; !status && run < runs; run++)
		for (uint32_t i = 0; !status && i < SIZES; i++) {
			if (sizes[i].traced)
				status = mr_trace_open(0);
			if (!status)
				status = measure_size(&rig, sizes[i].count, rounds,
						      ns + i * all + run * rounds);
			if (sizes[i].traced)
				mr_trace_close();
		}
	sched_rig_close(&rig);
	bench_part(r, "step", "A decode step, nil devices without costs, %u rounds of %u steps",
		   all, STEPS);
	for (uint32_t i = 0; !status && i < SIZES; i++) {
		struct tool_summary s = tool_summarise(ns + i * all, all);

		add_size(r, i, &s);
		if (sizes[i].count != 64 || sizes[i].traced)
			continue;
		status = measure_device(64, all < 60 ? all : 60, device);
		if (!status)
			bench_row(r, "cpu_64_device", "  of it the nil device's own",
				  (double)tool_summarise(device, all < 60 ? all : 60).p50 / 1e3,
				  "us", GOAL_NONE, 0);
	}
	free(ns);
	return status;
}

/* Each answer's end asks for the next, of another length: joins and leaves all the time. */
static void ask_again(struct sched_answer *answer)
{
	const struct sched_ask ask = {
		.op = MR_REQUEST_SUBMIT,
		.client = answer->key % 7,
		.itl_ns = answer->key % 3 ? 1000000000 : 0,
		.family = (uint32_t)(answer->key % 5),
		.shared = 64,
		.count = 33 + (uint32_t)(answer->key * 37 % 100),
		.max_tokens = 8 + (uint32_t)(answer->key * 11 % 50),
	};

	answer->asked++;
	if (!answer->rig->status)
		answer->rig->status = sched_rig_ask(answer->rig, &ask, answer);
}

static int run_quiet(struct sched_rig *rig, struct sched_answer *answers, struct tool_quiet *found,
		     int *calls_counted, uint64_t *ended)
{
	uint64_t until, before = 0;
	int status;

	for (uint32_t i = 0; i < QUIET_BATCH; i++) {
		answers[i].rig = rig;
		answers[i].key = i;
		answers[i].on_end = ask_again;
		ask_again(&answers[i]);
	}
	for (uint32_t i = 0; !rig->status && i < QUIET_STEPS; i++)
		mr_sched_poll(rig->sched);
	for (uint32_t i = 0; i < QUIET_BATCH; i++)
		before += answers[i].asked;
	until = mr_metric_read(MR_M_sched_steps) + QUIET_STEPS;
	*calls_counted = tool_quiet_start() == 0;
	while (!rig->status && mr_metric_read(MR_M_sched_steps) < until) {
		tool_quiet_begin();
		mr_sched_poll(rig->sched);
		tool_quiet_end();
	}
	*found = tool_quiet_stop();
	for (uint32_t i = 0; i < QUIET_BATCH; i++) {
		*ended += answers[i].asked;
		answers[i].on_end = NULL;
	}
	*ended -= before;
	status = rig->status;
	sched_rig_clear(rig);
	return status;
}

int bench_sched_quiet(struct bench_rows *r)
{
	const struct sched_rig_options options = {
		.layers = 32, .context = 512, .requests = 2 * QUIET_BATCH};
	struct sched_answer answers[QUIET_BATCH] = {0};
	struct tool_quiet found;
	struct sched_rig rig;
	uint64_t ended = 0;
	int calls = 0, status = sched_rig_open(&rig, &options);

	if (status)
		return status;
	status = run_quiet(&rig, answers, &found, &calls, &ended);
	sched_rig_close(&rig);
	if (status)
		return status;
	bench_part(r, "quiet", "%u decode steps of up to %u sequences, %llu joined and left",
		   QUIET_STEPS, QUIET_BATCH, (unsigned long long)ended);
	bench_row(r, "allocations", "calls of malloc and free", (double)found.allocations, "",
		  GOAL_AT_MOST, 0);
	if (calls)
		bench_row(r, "system_calls", "turns with a system call",
			  (double)found.calling_spans, "", GOAL_AT_MOST, 0);
	else
		bench_row_missing(r, "system_calls", "turns with a system call",
				  "the kernel has no syscall user dispatch");
	return 0;
}

/* Waking a simulated device's parked thread is a system call, where hardware's doorbell is a store. */
int bench_sched_quiet_on(struct bench_rows *r, struct sched_rig *rig)
{
	const struct sched_ask ask = {.client = 9, .count = 16, .max_tokens = 40};
	struct sched_answer answer = {0};
	struct tool_quiet found;
	uint64_t steps = 0;
	int status = sched_rig_ask(rig, &ask, &answer), calls;

	while (!status && answer.tokens < 4 && !tool_stop)
		mr_sched_poll(rig->sched);
	steps = mr_metric_read(MR_M_sched_steps);
	calls = tool_quiet_start() == 0;
	while (!status && answer.tokens < 36 && !answer.ended && !tool_stop) {
		tool_quiet_begin();
		mr_sched_poll(rig->sched);
		tool_quiet_end();
	}
	found = tool_quiet_stop();
	steps = mr_metric_read(MR_M_sched_steps) - steps;
	if (!status)
		status = sched_rig_wait(rig, &answer);
	sched_rig_clear(rig);
	if (status || !steps)
		return status ? status : MR_E_INTERNAL;
	bench_row(r, "allocations", "calls of malloc and free a step",
		  (double)found.allocations / (double)steps, "", GOAL_AT_MOST, 0);
	if (calls)
		bench_row(r, "system_calls",
			  found.call == SYS_futex ? "turns with a system call (futex) a step"
						  : "turns with a system call a step",
			  (double)found.calling_spans / (double)steps, "", GOAL_NONE, 0);
	return 0;
}
