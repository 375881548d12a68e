// SPDX-License-Identifier: Apache-2.0
/*
 * The figures of one device, taken by the thread that drives it: it is pinned, the device's thread is on another core.
 * FENCEs and cache lines go by turns in slices, so that a neighbour on the host disturbs both alike. A DECODE's own
 * CPU time is taken by the thread's clock around the call and around the polls once its records have come: looking
 * in vain meanwhile is waiting, as long as the device computes, and no work.
 */
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <x86intrin.h>

#include "driver/lpu/lpu.h"
#include "driver/metrics.h"
#include "tools/bench_lpu.h"
#include "tools/quiet.h"

#define SLICE     1000u
#define WARM      100u
#define SLICES    20u  /* a run */
#define STEPS     200u /* a run */
#define STEPS_MIN 20u  /* however long it takes */
#define POSITIONS 16u
#define LIMIT_S   0.5 /* of DECODEs of one kind, a run */

const char *const bench_lpu_names[LPU_FIGURES] = {
	[LPU_LINE] = "line",         [LPU_FENCE] = "fence",
	[LPU_RATIO] = "fence_ratio", [LPU_FENCE_POST] = "fence_post",
	[LPU_POST_1] = "post_1",     [LPU_RECORD_1] = "record_1",
	[LPU_STEP_1] = "step_1",     [LPU_CPU_1] = "cpu_1",
	[LPU_POST_16] = "post_16",   [LPU_RECORD_16] = "record_16",
	[LPU_STEP_16] = "step_16",   [LPU_CPU_16] = "cpu_16",
};

struct bench_lpu_echo {
	struct bench_lines lines;
	struct bench_line kind; /* 1 = answer pings */
	pthread_t thread;
	sem_t go;
	int cpu, stop;
};

struct samples {
	uint64_t *v, n;
};

struct meter {
	const struct bench_lpu_run *run;
	struct bench_lpu_found *found;
	struct samples of[LPU_FIGURES];
	uint64_t max; /* of each */
	struct mr_slot slots[BENCH_LPU_SLOTS];
	double ns_per_tick;
	uint64_t tag;
	uint32_t step, vain; /* vain: polls of the latest finish but the last */
};

/* ---- cache line ------------------------------------------------------------------------------- */

static void *answer(void *arg)
{
	struct bench_lpu_echo *e = arg;

	bench_pin(e->cpu);
	for (;;) {
		while (sem_wait(&e->go))
			;
		if (__atomic_load_n(&e->stop, __ATOMIC_RELAXED))
			return NULL;
		bench_line_echo(&e->lines, &e->kind, 1);
	}
}

int bench_lpu_echo_start(int cpu, struct bench_lpu_echo **echo)
{
	struct bench_lpu_echo *e = aligned_alloc(128, (sizeof(*e) + 127) & ~(size_t)127);

	if (!e)
		return MR_E_NO_MEMORY;
	memset(e, 0, sizeof(*e));
	e->cpu = cpu;
	sem_init(&e->go, 0, 0);
	if (pthread_create(&e->thread, NULL, answer, e)) {
		free(e);
		return MR_E_NO_MEMORY;
	}
	*echo = e;
	return 0;
}

void bench_lpu_echo_stop(struct bench_lpu_echo *e)
{
	if (!e)
		return;
	__atomic_store_n(&e->stop, 1, __ATOMIC_RELAXED);
	sem_post(&e->go);
	pthread_join(e->thread, NULL);
	sem_destroy(&e->go);
	free(e);
}

static void line_slice(struct meter *m)
{
	const struct timespec idle = {.tv_nsec = (long)m->run->idle_us * 1000};
	struct bench_lpu_echo *e = m->run->echo;
	uint64_t warm[WARM];

	nanosleep(&idle, NULL); /* the device's thread leaves the core */
	__atomic_store_n(&e->kind.word, 1, __ATOMIC_RELEASE);
	sem_post(&e->go);
	bench_line_round(&e->lines, warm, WARM);
	bench_line_round(&e->lines, m->of[LPU_LINE].v + m->of[LPU_LINE].n, SLICE);
	m->of[LPU_LINE].n += SLICE;
	__atomic_store_n(&e->kind.word, 0, __ATOMIC_RELEASE);
}

/* ---- time ------------------------------------------------------------------------------------- */

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Not before what comes before it in the program has been done. */
static uint64_t ticks_after(void)
{
	unsigned core;

	return __rdtscp(&core);
}

static void note(struct meter *m, enum bench_lpu_figure f, uint64_t value)
{
	if (m->of[f].n < m->max)
		m->of[f].v[m->of[f].n++] = value;
}

static void calibrate(struct meter *m)
{
	uint64_t ns = clock_ns(CLOCK_MONOTONIC), ticks = __rdtsc();

	while (clock_ns(CLOCK_MONOTONIC) - ns < 20000000)
		;
	m->ns_per_tick = (double)(clock_ns(CLOCK_MONOTONIC) - ns) / (double)(__rdtsc() - ticks);
}

/* ---- FENCE ------------------------------------------------------------------------------------ */

/* Polls until DONE of the latest tag. @first: when the first event was seen, or NULL. 0 or a status. */
static int finish(struct meter *m, uint64_t *first)
{
	struct mr_event events[BENCH_LPU_SLOTS + 1];
	struct mr_device *dev = m->run->dev;

	for (m->vain = 0;; m->vain++) {
		int n = dev->work->poll(dev, events, BENCH_LPU_SLOTS + 1);
		if (n < 0)
			return n;
		if (n && first && !*first)
			*first = ticks_after();
		if (n && events[n - 1].type == MR_EVENT_DONE && events[n - 1].tag == m->tag)
			return events[n - 1].status;
		if (tool_stop)
			return MR_E_CANCELLED;
	}
}

static int fences(struct meter *m, uint32_t count, int noted)
{
	int status = 0;

	for (uint32_t i = 0; !status && i < count; i++) {
		uint64_t before = __rdtsc(), posted, after;

		status = mr_lpu_fence(m->run->dev, ++m->tag);
		posted = ticks_after();
		if (!status)
			status = finish(m, NULL);
		after = ticks_after();
		if (noted) {
			note(m, LPU_FENCE_POST, posted - before);
			note(m, LPU_FENCE, after - before);
		}
	}
	return status;
}

/* The latest slice of each, for the means: a median's steps are as coarse as the time stamp counter's. */
static void note_ratio(struct meter *m)
{
	uint64_t line = 0, fence = 0;

	for (uint32_t i = 1; i <= SLICE; i++) {
		line += m->of[LPU_LINE].v[m->of[LPU_LINE].n - i];
		fence += m->of[LPU_FENCE].v[m->of[LPU_FENCE].n - i];
	}
	note(m, LPU_RATIO, fence * 1000 / line);
}

static int fence_slices(struct meter *m)
{
	int status = 0;

	for (uint32_t i = 0; !status && i < SLICES * m->run->runs; i++) {
		if (m->run->echo)
			line_slice(m);
		/* The first ones find the device asleep. */
		status = fences(m, WARM, 0);
		uint64_t rung = mr_metric_read(MR_M_lpu_doorbells);
		uint64_t avoided = mr_metric_read(MR_M_lpu_doorbells_avoided);
		if (!status)
			status = fences(m, SLICE, 1);
		m->found->doorbells += mr_metric_read(MR_M_lpu_doorbells) - rung;
		m->found->avoided += mr_metric_read(MR_M_lpu_doorbells_avoided) - avoided;
		m->found->posted += SLICE;
		if (!status && m->run->echo)
			note_ratio(m);
	}
	return status;
}

/* ---- DECODE ----------------------------------------------------------------------------------- */

/* Each slot goes round in its first positions, so that no step costs the device more than another. */
static int post(struct meter *m, struct mr_decode_entry *entries, uint32_t count)
{
	struct mr_device *dev = m->run->dev;
	uint32_t position = m->step++ % POSITIONS;

	for (uint32_t i = 0; i < count; i++)
		entries[i].position = position;
	return dev->work->decode(dev, entries, count, 1, ++m->tag);
}

/* 1 = enough, or it has taken long enough */
static int enough(const struct meter *m, uint32_t done, uint64_t since)
{
	double s = (double)(__rdtsc() - since) * m->ns_per_tick / 1e9;

	return done >= STEPS * m->run->runs || (done >= STEPS_MIN && s > LIMIT_S * m->run->runs);
}

/* As a loop that never sleeps does it. */
static int polled(struct meter *m, struct mr_decode_entry *entries, uint32_t count, int first)
{
	uint64_t since = __rdtsc(), rung = mr_metric_read(MR_M_lpu_doorbells);
	uint64_t avoided = mr_metric_read(MR_M_lpu_doorbells_avoided);
	uint32_t done = 0;
	int status = 0;

	for (; !status && !enough(m, done, since); done++) {
		uint64_t record = 0, before = __rdtsc(), posted;

		status = post(m, entries, count);
		posted = ticks_after();
		if (!status)
			status = finish(m, &record);
		note(m, first, posted - before);
		note(m, first + 1, record - posted);
		note(m, first + 2, ticks_after() - before);
	}
	m->found->doorbells += mr_metric_read(MR_M_lpu_doorbells) - rung;
	m->found->avoided += mr_metric_read(MR_M_lpu_doorbells_avoided) - avoided;
	m->found->posted += done;
	return status;
}

static int cpu_time(struct meter *m, struct mr_decode_entry *entries, uint32_t count, int first)
{
	struct samples *step = &m->of[first + 2];
	uint64_t since = __rdtsc(), wait;
	uint32_t done = 0;
	int status = 0;

	if (!step->n)
		return 0;
	/* By then the device is done, as good as always. */
	wait = tool_summarise(step->v, step->n).p90;
	wait += wait / 4 + (uint64_t)(20000 / m->ns_per_tick);
	for (; !status && !enough(m, done, since); done++) {
		uint64_t ns, own, t[5];

		t[0] = clock_ns(CLOCK_THREAD_CPUTIME_ID);
		status = post(m, entries, count);
		t[1] = clock_ns(CLOCK_THREAD_CPUTIME_ID);
		for (uint64_t from = __rdtsc(); !status && __rdtsc() - from < wait;)
			_mm_pause();
		t[2] = clock_ns(CLOCK_THREAD_CPUTIME_ID);
		if (!status)
			status = finish(m, NULL);
		t[3] = clock_ns(CLOCK_THREAD_CPUTIME_ID);
		t[4] = clock_ns(CLOCK_THREAD_CPUTIME_ID);
		ns = t[1] - t[0] + t[3] - t[2];
		own = 2 * (t[4] -
			   t[3]); /* of looking at the clock: now, for it is not always the same */
		/* Else it was taken off its core meanwhile, and the polls have waited for it. */
		if (!m->vain && ns > own)
			note(m, first + 3, ns - own);
	}
	return status;
}

/* What polled DECODEs ask of the allocator and the kernel. */
static int quiet(struct meter *m, struct mr_decode_entry *entries)
{
	struct bench_lpu_found *f = m->found;
	struct tool_quiet found;
	int status = 0;

	f->calls_seen = !tool_quiet_start();
	for (uint32_t i = 0; !status && i < STEPS; i++) {
		tool_quiet_begin();
		status = post(m, entries, BENCH_LPU_SLOTS);
		if (!status)
			status = finish(m, NULL);
		tool_quiet_end();
	}
	found = tool_quiet_stop();
	f->allocations = (double)found.allocations / STEPS;
	f->calling = (double)found.calling_spans / STEPS;
	f->call = found.call;
	return status;
}

static int decodes(struct meter *m)
{
	static const struct {
		uint32_t count;
		int first;
	} kinds[] = {{1, LPU_POST_1}, {BENCH_LPU_SLOTS, LPU_POST_16}};
	const struct mr_slot_config config = {.positions = POSITIONS, .owner = 1};
	struct mr_decode_entry entries[BENCH_LPU_SLOTS] = {0};
	struct mr_device *dev = m->run->dev;
	int status = 0;

	for (uint32_t i = 0; !status && i < BENCH_LPU_SLOTS; i++) {
		status = dev->mem->slot_open(dev, &config, &m->slots[i]);
		entries[i].slot = m->slots[i];
		entries[i].token = 1;
	}
	/* Not counted: the first round, which all slots go together. */
	for (uint32_t i = 0; !status && i < POSITIONS; i++) {
		status = post(m, entries, BENCH_LPU_SLOTS);
		if (!status)
			status = finish(m, NULL);
	}
	for (unsigned k = 0; !status && k < 2; k++) {
		status = polled(m, entries, kinds[k].count, kinds[k].first);
		if (!status)
			status = cpu_time(m, entries, kinds[k].count, kinds[k].first);
	}
	return status ? status : quiet(m, entries);
}

/* ---- all of it -------------------------------------------------------------------------------- */

static int is_ticks(int figure)
{
	return figure != LPU_CPU_1 && figure != LPU_CPU_16 && figure != LPU_RATIO;
}

static void summarise(struct meter *m)
{
	static const double percent[] = {0, 1, 5, 10, 25, 50, 75, 90, 95, 99, 99.9, 100};

	for (int f = 0; f < LPU_FIGURES; f++) {
		struct samples *s = &m->of[f];

		for (uint64_t i = 0; is_ticks(f) && i < s->n; i++)
			s->v[i] = (uint64_t)((double)s->v[i] * m->ns_per_tick + 0.5);
		m->found->of[f] = tool_summarise(s->v, s->n);
		for (unsigned i = 0; s->n && m->run->csv && i < 12; i++)
			fprintf(m->run->csv, "%s,%s,%g,%llu\n", m->run->name, bench_lpu_names[f],
				percent[i],
				(unsigned long long)
					s->v[(uint64_t)(percent[i] / 100 * (double)(s->n - 1))]);
	}
}

int bench_lpu_measure(const struct bench_lpu_run *run, struct bench_lpu_found *found)
{
	struct meter m = {.run = run, .found = found, .max = (uint64_t)SLICES * SLICE * run->runs};
	uint64_t *all = calloc(LPU_FIGURES * m.max, sizeof(*all));
	int status = all ? 0 : MR_E_NO_MEMORY;

	memset(found, 0, sizeof(*found));
	for (int f = 0; all && f < LPU_FIGURES; f++)
		m.of[f].v = all + f * m.max;
	if (all) /* touched, so that no round pays for a page */
		memset(all, 1, LPU_FIGURES * m.max * sizeof(*all));
	calibrate(&m);
	if (!status && run->fences)
		status = fence_slices(&m);
	if (!status)
		status = decodes(&m);
	if (!status)
		summarise(&m);
	free(all);
	return status;
}
