// SPDX-License-Identifier: Apache-2.0
/*
 * Faults by the thousand, through the whole stack: orchestrator, LPU driver, local bus, simulated LPU, on
 * tests/tiny.gguf. The device runs on this thread and everybody's time is the test's, so a seed names a run.
 *
 * One fault at a time: it is handed over, strikes, and must be noticed: its counter goes up by one within its
 * bound. At the end the totals of what was injected and what was noticed are equal, nothing leaks, all requests
 * that were accepted have ended once, and every token is the one of a quiet run.
 *
 * MR_SEED and MR_FAULTS name another run (make soak).
 */
#include <dirent.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "driver/bus/bus.h"
#include "driver/cpu/cpu.h"
#include "driver/lpu/lpu.h"
#include "driver/mem/arena.h"
#include "driver/metrics.h"
#include "driver/model/model.h"
#include "driver/sched/sched.h"
#include "firmware-sim/device.h"
#include "firmware-sim/sim.h"
#include "support/wrap_device.h"

#define PROMPTS  12u
#define ANSWER   24u
#define LIVE     6u /* requests at once */
#define REQUESTS 8u
#ifdef MR_ASAN
#define FAULTS 340u
#else
#define FAULTS 1700u
#endif

#define T_NS     8000000ull /* the driver's time limit */
#define NAP_NS   1000000ull /* the loop's sleep at most */
#define SLOW_US  "20000" /* 2.5 T: longer than the driver's first look, shorter than its patience */
#define SPOIL_US "3000"

struct live {
	uint32_t prompt, count;
	int busy;
};

struct quiet {
	uint32_t ids[ANSWER], count;
	float logprobs[ANSWER];
	uint32_t prompt[64], prompt_count;
};

struct world {
	uint64_t seed, draws, faults;
	uint64_t ns;
	uint32_t still; /* looks at the clock since the device last did something */
	struct mr_model *model;
	struct mr_arena *arena;
	struct mr_device *cpu, *dev;
	struct wrap_device calm; /* round the CPU: its work is done when it is polled */
	struct mr_work_ops calm_ops;
	const struct mr_work_ops *wrapped;
	uint32_t calm_done;
	struct mr_lpu_port port;
	struct mr_sched *sched;
	struct quiet quiet[PROMPTS];
	int learning;
	struct live live[LIVE];
	uint64_t key, accepted, ended, well, failed, tokens;
	const char *broken;
	uint64_t before[MR_METRIC_COUNT];
	uint64_t longest_ns[MR_SIM_FAULT_KINDS];
	char lines[4][200];
	uint32_t line;
};

static void demand(struct world *w, int condition, const char *rule)
{
	if (!condition && !w->broken)
		w->broken = rule;
}

static uint32_t below(struct world *w, uint32_t n)
{
	return (uint32_t)(wrap_random(&w->draws) % n);
}

/* ---- time ---- */

static int turns(struct world *w)
{
	int did = 0;

	for (int i = 0; i < 8 && mr_sim_turn(&w->port); i++)
		did = 1;
	w->still = did ? 0 : w->still + 1;
	return did;
}

static uint64_t world_us(void *arg)
{
	return ((struct world *)arg)->ns / 1000;
}

static uint64_t world_ns(void *arg)
{
	return ((struct world *)arg)->ns;
}

/* Whoever waits for the device looks at the clock: then it runs. Long waits go by quickly. */
static uint64_t driver_ns(void *arg)
{
	struct world *w = arg;

	turns(w);
	return w->ns += w->still < 64 ? 20000 : 1000000;
}

static void keep_line(void *arg, const char *line)
{
	struct world *w = arg;

	snprintf(w->lines[w->line++ % 4], sizeof(w->lines[0]), "%s", line);
}

/* As a loop sleeps: until the device says so, and NAP_NS at most. */
static void rest(struct world *w)
{
	struct pollfd p = {.fd = w->dev->wait_fd, .events = POLLIN};
	uint64_t until = w->ns + NAP_NS;

	if (mr_sched_arm(w->sched))
		return;
	while (w->ns < until) {
		int did = turns(w);
		w->ns += did ? 5000 : 100000;
		if (did && poll(&p, 1, 0) == 1)
			return;
	}
}

/* ---- the CPU, without surprises ---- */

static int calm_poll(struct mr_device *dev, struct mr_event *events, uint32_t max)
{
	struct wrap_device *wrap = (struct wrap_device *)dev;
	struct world *w = wrap->arg;
	int n = 0;

	/* All of it at once, so that its thread's pace changes nothing. */
	do {
		int got = w->wrapped->poll(dev, events + n, max - (uint32_t)n);
		for (int i = n; i < n + got; i++)
			w->calm_done += events[i].type == MR_EVENT_DONE;
		n += got;
	} while ((uint32_t)n < max && w->calm_done < wrap->prefills);
	return n;
}

/* ---- the front ---- */

static uint32_t on_credit(void *front, const struct mr_request *r)
{
	return 1000;
}

static void on_token(void *front, struct mr_request *r, const struct mr_token *t)
{
	struct world *w = front;
	struct live *l = &w->live[r->front_word[0]];
	struct quiet *q = &w->quiet[l->prompt];

	demand(w, l->busy, "a token of nobody's request");
	demand(w, t->index == l->count && l->count < ANSWER, "tokens out of order");
	if (w->learning) {
		q->ids[l->count] = t->token;
		q->logprobs[l->count] = t->logprob;
		q->count = l->count + 1;
	} else {
		demand(w, l->count < q->count && t->token == q->ids[l->count],
		       "a token that the quiet run has not");
		demand(w, t->logprob == q->logprobs[l->count], "another log-probability");
	}
	l->count++;
	w->tokens++;
}

static void on_end(void *front, struct mr_request *r, const struct mr_end *end)
{
	struct world *w = front;
	struct live *l = &w->live[r->front_word[0]];

	demand(w, l->busy, "a request ended twice");
	demand(w, end->status <= 0 && strcmp(mr_status_name(end->status), "E_UNKNOWN"),
	       "an end without a name");
	if (end->status == 0)
		demand(w, l->count == (w->learning ? l->count : w->quiet[l->prompt].count),
		       "an answer ended early, and well");
	w->ended++;
	w->well += end->status == 0;
	w->failed += end->status != 0;
	l->busy = 0;
}

static const struct mr_front_ops ops = {on_credit, on_token, on_end, NULL};

static void submit(struct world *w, uint32_t at, uint32_t prompt)
{
	struct mr_request *r = mr_sched_request(w->sched);

	if (!r)
		return;
	w->live[at] = (struct live){.prompt = prompt, .busy = 1};
	r->front_word[0] = at;
	r->ops = &ops;
	r->front = w;
	r->key = ++w->key;
	r->client = 1 + prompt % 3;
	r->op = MR_REQUEST_SUBMIT;
	r->flags = MR_REQUEST_TOKENS | MR_REQUEST_IGNORE_EOS;
	r->max_tokens = ANSWER - prompt % 5;
	r->token_count = w->quiet[prompt].prompt_count;
	memcpy(r->tokens, w->quiet[prompt].prompt, r->token_count * sizeof(*r->tokens));
	/* Sampled ones too: a sampler that lost its place would show. */
	if (prompt % 2)
		r->sampling = (struct mr_sampling){
			.temperature = 0.9f, .top_p = 0.95f, .seed = prompt, .repeat = 1.1f};
	if (mr_sched_submit(w->sched, r)) {
		w->live[at].busy = 0;
		return;
	}
	w->accepted++;
}

/* One turn of the loop, with requests coming in as others end where @busy. */
static void loop(struct world *w, int busy)
{
	const char *why = NULL;

	for (uint32_t i = 0; busy && i < LIVE; i++)
		if (!w->live[i].busy && below(w, 4) == 0)
			submit(w, i, below(w, PROMPTS));
	int did = mr_sched_poll(w->sched);
	w->ns += 10000;
	if (below(w, 2))
		w->still = mr_sim_turn(&w->port) ? 0 : w->still;
	if (below(w, 64) == 0 && mr_sched_check(w->sched, &why))
		demand(w, 0, why);
	if (!did)
		rest(w);
}

static int drain(struct world *w)
{
	for (uint32_t i = 0; i < 200000 && mr_sched_active(w->sched) && !w->broken; i++)
		loop(w, 0);
	return mr_sched_active(w->sched) != 0;
}

/* ---- the world ---- */

static void open_sched(struct world *w)
{
	const struct mr_clock clock = {world_ns, w};
	struct mr_sched_options o = {
		.model = w->model,
		.prefill = &w->calm.dev,
		.decode = w->dev,
		.clock = &clock,
		.requests = REQUESTS,
		.chunk = 32,
		.steps = 1 + below(w, 4),
	};

	assert_int_equal(mr_sched_create(&o, &w->sched), 0);
}

static void learn(struct world *w)
{
	w->learning = 1;
	for (uint32_t p = 0; p < PROMPTS; p++) {
		struct quiet *q = &w->quiet[p];

		q->prompt_count = p == 0 ? 1 : 2 + below(w, 50);
		for (uint32_t i = 0; i < q->prompt_count; i++)
			q->prompt[i] =
				i < 16 && p % 3 == 0 ? i * 3 : below(w, w->model->shape.vocab);
		submit(w, 0, p);
		assert_int_equal(drain(w), 0);
		assert_int_equal(q->count, ANSWER - p % 5);
	}
	w->learning = 0;
}

static void world_open(struct world *w, uint64_t seed, uint64_t faults)
{
	struct mr_arena_options arena = {.node = -1, .no_huge = 1};
	struct mr_cpu_options cpu = {.cpu = -1,
				     .slots = 24,
				     .kv_tokens = 4096,
				     .context = 128,
				     .numerics = MR_NUMERICS_STRICT};
	char why[200] = "";
	struct mr_sim_options sim = {.chip_path = "tiny",
				     .seed = seed,
				     .manual = 1,
				     .now_us = world_us,
				     .clock_arg = w,
				     .why = why,
				     .why_bytes = sizeof(why)};
	struct mr_bus *bus;

	memset(w, 0, sizeof(*w));
	w->seed = seed;
	w->draws = seed * 0x9e3779b97f4a7c15u + 1;
	w->faults = faults;
	w->ns = 1;
	assert_int_equal(mr_model_open(MR_TEST_DATA "/tiny.gguf", &w->model, why, sizeof(why)), 0);
	assert_int_equal(mr_arena_create(&arena, &w->arena), 0);
	cpu.arena = w->arena;
	assert_int_equal(mr_cpu_open(&cpu, &w->cpu), 0);
	assert_int_equal(w->cpu->work->load(w->cpu, w->model, NULL, NULL), 0);
	wrap_device(&w->calm, w->cpu);
	w->wrapped = w->calm.dev.work;
	w->calm_ops = *w->wrapped;
	w->calm_ops.poll = calm_poll;
	w->calm.dev.work = &w->calm_ops;
	w->calm.arg = w;
	if (mr_sim_create(&sim, &w->port))
		fail_msg("simulator: %s", why);
	assert_int_equal(mr_bus_local_open(&w->port, &bus), 0);
	struct mr_lpu_options lpu = {.arena = w->arena,
				     .bus = bus,
				     .context = 128,
				     .slots = 16,
				     .timeout_ms = T_NS / 1000000,
				     .now_ns = driver_ns,
				     .clock_arg = w,
				     .log = keep_line,
				     .log_arg = w};
	assert_int_equal(mr_lpu_open(&lpu, &w->dev), 0);
	assert_int_equal(w->dev->work->load(w->dev, w->model, NULL, NULL), 0);
	open_sched(w);
	learn(w);
	for (uint32_t m = 0; m < MR_METRIC_COUNT; m++)
		w->before[m] = mr_metric_read(m);
}

static void world_close(struct world *w)
{
	mr_sched_destroy(w->sched);
	w->dev->admin->close(w->dev);
	w->cpu->admin->close(w->cpu);
	mr_arena_destroy(w->arena);
	mr_model_close(w->model);
}

/* What could leak, with nothing under way and nothing kept. */
struct held {
	uint64_t fds, mappings, device_blocks, lpu_blocks, cpu_blocks;
};

static struct held held_by(struct world *w)
{
	struct mr_telemetry lpu, cpu;
	struct mr_lpu_counters c;
	struct held held = {0};
	DIR *d;

	mr_sched_drop_cache(w->sched);
	for (int i = 0; i < 200; i++)
		loop(w, 0);
	assert_int_equal(mr_lpu_log(w->dev, MR_LPU_LOG_COUNTERS, &c, sizeof(c)), sizeof(c));
	assert_int_equal(w->dev->admin->telemetry(w->dev, &lpu), 0);
	assert_int_equal(w->cpu->admin->telemetry(w->cpu, &cpu), 0);
	d = opendir("/proc/self/fd");
	assert_non_null(d);
	while (readdir(d))
		held.fds++;
	closedir(d);
	held.mappings = ((struct sim *)w->port.ctx)->dma.count;
	held.device_blocks = c.kv_blocks_used;
	held.lpu_blocks = lpu.kv_blocks_used;
	held.cpu_blocks = cpu.kv_blocks_used;
	return held;
}

/* ---- faults ---- */

static const struct {
	enum mr_metric noticed;
	const char *us;    /* how long it lasts */
	uint64_t bound_ns; /* from the strike to the notice */
} kinds[MR_SIM_FAULT_KINDS] = {
	/* Noticed after T, and told from one that is stuck when it is over. */
	[MR_SIM_FAULT_LATE] = {MR_M_lpu_slow, SLOW_US, 3 * T_NS},
	[MR_SIM_FAULT_SLOW] = {MR_M_lpu_slow, SLOW_US, 3 * T_NS},
	/* The heart beats: 12 T and a look, then the ABORT's answer. */
	[MR_SIM_FAULT_LOST] = {MR_M_lpu_lost_commands, NULL, 14 * T_NS},
	[MR_SIM_FAULT_DOORBELL] = {MR_M_lpu_lost_commands, NULL, 28 * T_NS},
	[MR_SIM_FAULT_REPEATED] = {MR_M_lpu_repeated, NULL, T_NS},
	[MR_SIM_FAULT_REORDERED] = {MR_M_lpu_reordered, NULL, T_NS},
	[MR_SIM_FAULT_CORRUPTED] = {MR_M_lpu_bad_completion, NULL, T_NS},
	[MR_SIM_FAULT_RECORD] = {MR_M_lpu_bad_record, NULL, T_NS},
	[MR_SIM_FAULT_GARBAGE] = {MR_M_lpu_garbage, SPOIL_US, T_NS},
	[MR_SIM_FAULT_INTERRUPT] = {MR_M_lpu_lost_interrupts, NULL, 2 * T_NS},
	[MR_SIM_FAULT_ECC] = {MR_M_lpu_ecc_corrected, NULL, T_NS},
	[MR_SIM_FAULT_ECC_LOST] = {MR_M_lpu_ecc_uncorrected, NULL, T_NS},
	[MR_SIM_FAULT_DMA] = {MR_M_lpu_dma_faults, NULL, T_NS},
	/* STATUS is read 16 times in T, from the first poll without progress on. */
	[MR_SIM_FAULT_LINK] = {MR_M_lpu_gone, NULL, T_NS / 2},
	[MR_SIM_FAULT_REMOVAL] = {MR_M_lpu_gone, NULL, T_NS / 2},
	[MR_SIM_FAULT_ASSERT] = {MR_M_lpu_crashes, NULL, T_NS},
	[MR_SIM_FAULT_HANG] = {MR_M_lpu_hangs, NULL, 2 * T_NS},
};

static uint64_t noticed(const struct world *w, enum mr_metric m)
{
	return mr_metric_read(m) - w->before[m];
}

/* Given up: everything has ended. Put back, it serves another orchestrator. */
static void put_back(struct world *w)
{
	struct mr_event e[64];

	demand(w, drain(w) == 0 && w->accepted == w->ended, "a request outlived its device");
	demand(w, noticed(w, MR_M_lpu_given_up) == mr_sim_injected(&w->port, MR_SIM_FAULT_REMOVAL),
	       "removals and times that the device was given up differ");
	mr_sched_destroy(w->sched);
	assert_int_equal(mr_sim_fault(&w->port, "plug"), 0);
	while (w->dev->work->poll(w->dev, e, 64) >= 0)
		;
	demand(w, w->dev->admin->reset(w->dev) == 0, "a device that was put back does not work");
	while (w->dev->work->poll(w->dev, e, 64) > 0)
		;
	open_sched(w);
}

static void one(struct world *w, enum mr_sim_fault_kind kind)
{
	uint64_t struck = mr_sim_injected(&w->port, kind), seen = noticed(w, kinds[kind].noticed);
	uint64_t since, took, tokens;
	char list[64];

	snprintf(list, sizeof(list), "%s%s%s", mr_sim_fault_name(kind), kinds[kind].us ? "=" : "",
		 kinds[kind].us ? kinds[kind].us : "");
	assert_int_equal(mr_sim_fault(&w->port, list), 0);
	for (uint32_t i = 0; mr_sim_injected(&w->port, kind) == struck && !w->broken; i++) {
		loop(w, 1);
		demand(w, i < 100000, "it found no chance");
	}
	since = w->ns;
	while (noticed(w, kinds[kind].noticed) == seen && !w->broken) {
		loop(w, 1);
		demand(w,
		       w->ns - since < kinds[kind].bound_ns + 2 * NAP_NS ||
			       kind == MR_SIM_FAULT_ASSERT,
		       "it was not noticed in time");
		demand(w, w->ns - since < 1000000000000, "it was not noticed");
	}
	took = w->ns - since;
	if (took > w->longest_ns[kind])
		w->longest_ns[kind] = took;
	if (kind == MR_SIM_FAULT_REMOVAL && !w->broken)
		put_back(w);
	/* And the device goes on. */
	tokens = w->tokens;
	for (uint32_t i = 0; w->tokens == tokens && !w->broken; i++) {
		loop(w, 1);
		demand(w, i < 100000, "nothing came after it");
	}
}

static void check_totals(struct world *w)
{
	for (uint32_t i = 0; i < MR_SIM_FAULT_KINDS; i++) {
		uint64_t injected = 0;

		for (uint32_t k = 0; k < MR_SIM_FAULT_KINDS; k++)
			if (kinds[k].noticed == kinds[i].noticed)
				injected += mr_sim_injected(&w->port, k);
		demand(w, injected == noticed(w, kinds[i].noticed),
		       "injected and noticed are not equal in the end");
	}
	demand(w, noticed(w, MR_M_lpu_fatal) == mr_sim_injected(&w->port, MR_SIM_FAULT_ASSERT),
	       "asserts and FATALs found are not equal");
	demand(w, noticed(w, MR_M_sched_bad_event) == 0, "the orchestrator got a senseless event");
}

/* Faults are off: each prompt once more, well. */
static void check_calm(struct world *w)
{
	uint64_t failed;

	demand(w, drain(w) == 0, "requests that faults left behind do not end");
	failed = w->failed;
	for (uint32_t p = 0; p < PROMPTS && !w->broken; p++) {
		submit(w, p % LIVE, p);
		if (p % LIVE == LIVE - 1)
			demand(w, drain(w) == 0, "requests after all faults do not end");
	}
	demand(w, w->failed == failed, "a request failed without a fault");
	demand(w, w->accepted == w->ended, "accepted and ended requests are not equal");
}

static void check_leaks(struct world *w, const struct held *first)
{
	struct held last = held_by(w);

	demand(w, last.fds == first->fds, "descriptors leak");
	demand(w, last.mappings == first->mappings, "IOVA mappings leak");
	demand(w, !last.device_blocks, "KV blocks of the device leak");
	demand(w, !last.lpu_blocks, "KV blocks of the driver's account leak");
	demand(w, last.cpu_blocks == first->cpu_blocks, "KV blocks of the CPU leak");
}

static void report(struct world *w, const char *fault, uint64_t number)
{
	if (!w->broken)
		return;
	for (uint32_t k = 0; k < MR_SIM_FAULT_KINDS; k++)
		printf("  %-10s injected %llu, %s %llu\n", mr_sim_fault_name(k),
		       (unsigned long long)mr_sim_injected(&w->port, k),
		       mr_metric_info[kinds[k].noticed].name,
		       (unsigned long long)noticed(w, kinds[k].noticed));
	for (uint32_t l = 0; l < 4; l++)
		printf("  %s\n", w->lines[(w->line + l) % 4]);
	fail_msg("fault %llu (%s): %s; again: make soak SEED=%llu FAULTS=%llu",
		 (unsigned long long)number, fault, w->broken, (unsigned long long)w->seed,
		 (unsigned long long)w->faults);
}

static void soak(struct world *w, uint64_t seed, uint64_t faults)
{
	enum mr_sim_fault_kind kind = MR_SIM_FAULT_KINDS;
	struct held first;
	uint64_t i = 0;

	world_open(w, seed, faults);
	first = held_by(w);
	for (; i < faults && !w->broken; i++) {
		/* The first ones in turn, so that there are enough of each. */
		kind = (enum mr_sim_fault_kind)(i < faults / 2 ? i % MR_SIM_FAULT_KINDS
							       : below(w, MR_SIM_FAULT_KINDS));
		one(w, kind);
	}
	if (!w->broken) {
		kind = MR_SIM_FAULT_KINDS;
		check_calm(w);
		check_totals(w);
		check_leaks(w, &first);
	}
	report(w, kind < MR_SIM_FAULT_KINDS ? mr_sim_fault_name(kind) : "after all", i);
	for (uint32_t k = 0; k < MR_SIM_FAULT_KINDS; k++)
		assert_true(mr_sim_injected(&w->port, k) >= faults / 2 / MR_SIM_FAULT_KINDS);
}

static double cpu_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void faults_by_the_thousand(void **state)
{
	const char *seed = getenv("MR_SEED"), *count = getenv("MR_FAULTS");
	uint64_t faults = count ? strtoull(count, NULL, 0) : FAULTS;
	double start = cpu_seconds();
	static struct world w;

	soak(&w, seed ? strtoull(seed, NULL, 0) : 1, faults);
	printf("%-10s %9s  %-22s %9s\n", "fault", "injected", "noticed by", "within T");
	for (uint32_t k = 0; k < MR_SIM_FAULT_KINDS; k++)
		printf("%-10s %9llu  %-22s %9.2f\n", mr_sim_fault_name(k),
		       (unsigned long long)mr_sim_injected(&w.port, k),
		       mr_metric_info[kinds[k].noticed].name,
		       (double)w.longest_ns[k] / (double)T_NS);
	printf("%llu faults, %llu requests: %llu ended well, %llu with a named status; %llu "
	       "tokens, "
	       "all as in a quiet run; %llu sequences computed again; %.1f s of CPU, %.1f s of "
	       "virtual time\n",
	       (unsigned long long)faults, (unsigned long long)w.accepted,
	       (unsigned long long)w.well, (unsigned long long)w.failed,
	       (unsigned long long)w.tokens, (unsigned long long)noticed(&w, MR_M_sched_again),
	       cpu_seconds() - start, (double)w.ns / 1e9);
	world_close(&w);
}

/*
 * Several at once, by the device's own draw. Then one can hide another, and numbers are not compared; the rest
 * holds all the same.
 */
static void many_at_once(void **state)
{
	const char *seed = getenv("MR_SEED"), *count = getenv("MR_FAULTS");
	uint64_t faults = (count ? strtoull(count, NULL, 0) : FAULTS) / 10, struck = 0;
	static struct world w;
	struct held first;

	world_open(&w, seed ? strtoull(seed, NULL, 0) : 1, faults * 10);
	first = held_by(&w);
	assert_int_equal(
		mr_sim_fault(&w.port,
			     "random=12:late+lost+repeated+reordered+corrupted+record+garbage+"
			     "interrupt+doorbell+ecc+ecc-lost+dma+link+assert+hang+slow"),
		0);
	for (uint64_t i = 0; struck < faults && !w.broken; i++) {
		loop(&w, 1);
		struck = 0;
		for (uint32_t k = 0; k < MR_SIM_FAULT_KINDS; k++)
			struck += mr_sim_injected(&w.port, k);
		demand(&w, i < 200000 * (1 + faults), "faults do not come");
	}
	assert_int_equal(mr_sim_fault(&w.port, "off"), 0);
	if (!w.broken)
		check_calm(&w);
	if (!w.broken)
		check_leaks(&w, &first);
	/* Words are counted from power-on, so what a reset made the device forget to tell is not lost. */
	if (!w.broken)
		demand(&w,
		       noticed(&w, MR_M_lpu_ecc_corrected) ==
				       mr_sim_injected(&w.port, MR_SIM_FAULT_ECC) &&
			       noticed(&w, MR_M_lpu_ecc_uncorrected) ==
				       mr_sim_injected(&w.port, MR_SIM_FAULT_ECC_LOST),
		       "words that ECC corrected or lost are missing");
	report(&w, "many at once", struck);
	printf("%llu faults, %llu requests: %llu ended well, %llu with a named status\n",
	       (unsigned long long)struck, (unsigned long long)w.accepted,
	       (unsigned long long)w.well, (unsigned long long)w.failed);
	assert_true(w.well > w.failed);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(faults_by_the_thousand),
		cmocka_unit_test(many_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
