// SPDX-License-Identifier: Apache-2.0
/*
 * End to end: the same model file in this backend and in its peers, by turns, so that a noisy minute hits all
 * of them. Each run of ours has a read roof measured just before it.
 */
#include <stdlib.h>
#include <string.h>

#include "driver/cpu/cpu.h"
#include "driver/mem/arena.h"
#include "kernels/cpu/team.h"
#include "tools/bench.h"
#include "tools/bench_ours.h"
#include "tools/bench_peer.h"

static const struct bench_end ends[] = {
	{"decode-empty", .batch = 1, .context = 0, .steps = 32},
	{"decode-1024", .batch = 1, .context = 1024, .steps = 16},
	{"batch-16", .batch = 16, .context = 256, .steps = 8},
	{"batch-64", .batch = 64, .context = 256, .steps = 4},
	{"prefill-512", .batch = 1, .prefill = 512},
	{"first-token-64", .batch = 1, .prefill = 64, .first = 1},
};

#define ENDS (sizeof(ends) / sizeof(ends[0]))

/* What a table row is about: an engine under one number of threads. */
struct rows {
	double rate[BENCH_RUNS_MAX];    /* tokens/s, or 1/s of a first token */
	double of_roof[BENCH_RUNS_MAX]; /* bytes that it had to read, by the roof */
	uint32_t n;
};

struct world {
	const struct bench_cpu_options *o;
	const struct mr_model *model;
	uint32_t threads;
	struct mr_arena *arena;
	struct bench_ours ours;
	struct bench_buffer *buffer;
	struct mr_team *team;
	struct bench_peer *peers[BENCH_PEERS_MAX];
	double weight_bytes, kv_bytes; /* of all weights; of one position */
};

static double tokens_of(const struct bench_end *e)
{
	return e->first ? 1 : e->prefill ? e->prefill : (double)e->batch * e->steps;
}

/* Bytes that decode must read: the weights for each step, and each sequence's KV for each of its tokens. */
static double bytes_of(const struct world *w, const struct bench_end *e)
{
	double positions = e->context + (e->steps + 1) / 2.0;

	if (e->prefill)
		return 0;
	return e->steps * (w->weight_bytes + e->batch * positions * w->kv_bytes);
}

/* The numeric class of a row of ours; a first token is a prompt and a step. */
static const char *class_of(const struct world *w, const struct bench_end *e)
{
	const struct mr_caps *caps = &w->ours.dev->caps;

	return e->prefill ? caps->class_prefill : caps->class_decode;
}

static void add(const struct world *w, const struct bench_end *e, const char *engine,
		const char *class, double seconds, double roof, struct rows *r)
{
	double rate = tokens_of(e) / seconds, of_roof = bytes_of(w, e) / seconds / roof;

	bench_cpu_csv(w->o, "ends", e->name, engine, w->threads, r->n,
		      e->first ? "first/s" : "tokens/s", rate, of_roof, class);
	r->rate[r->n] = rate;
	r->of_roof[r->n++] = of_roof;
}

/* @class: of ours, NULL for a peer's */
static void print_row(const struct bench_end *e, const char *engine, const char *class,
		      uint32_t threads, struct rows *r, const struct rows *ours)
{
	double low = r->rate[0], high = low, median;

	for (uint32_t i = 1; i < r->n; i++) {
		low = r->rate[i] < low ? r->rate[i] : low;
		high = r->rate[i] > high ? r->rate[i] : high;
	}
	median = bench_median(r->rate, r->n);
	printf("  %-15s %-12s %2u ", e->name, engine, threads);
	if (e->first)
		printf("%9.1f %9.1f %9.1f ms", 1e3 / high, 1e3 / median, 1e3 / low);
	else
		printf("%9.1f %9.1f %9.1f   ", low, median, high);
	if (!e->prefill)
		printf(" %4.0f%%", 100 * bench_median(r->of_roof, r->n));
	else
		printf("     -");
	if (class)
		printf("  class %s", class);
	else
		printf("  %5.2fx", ours->rate[ours->n / 2] / median); /* sorted by its own row */
	putchar('\n');
	fflush(stdout);
}

static int run_end(struct world *w, const struct bench_end *e)
{
	static struct rows ours, peer[BENCH_PEERS_MAX], roofs;
	const char *name = w->ours.dev->caps.name;
	double seconds, roof;
	int status = bench_ours_prepare(&w->ours, e);

	ours.n = roofs.n = 0;
	for (uint32_t p = 0; p < w->o->peer_count; p++) {
		peer[p].n = 0;
		bench_peer_prepare(w->peers[p], e);
	}
	/* The first, uncounted run brings caches and clock to where the others find them. */
	if (!status)
		status = bench_ours_run(&w->ours, e, &seconds);
	for (uint32_t i = 0; !status && i < w->o->runs && !tool_stop; i++) {
		status = bench_team(w->threads, &w->team);
		if (status)
			break;
		roof = bench_buffer_read(w->buffer, w->team);
		bench_team_end(w->team);
		w->team = NULL;
		bench_cpu_csv(w->o, "roof", e->name, "read", w->threads, i, "bytes/s", roof, 1, "");
		status = bench_ours_run(&w->ours, e, &seconds);
		if (!status)
			add(w, e, name, class_of(w, e), seconds, roof, &ours);
		for (uint32_t p = 0; p < w->o->peer_count; p++)
			if (!bench_peer_run(w->peers[p], e, &seconds))
				add(w, e, bench_peer_name(w->peers[p]), "", seconds, roof,
				    &peer[p]);
	}
	bench_ours_release(&w->ours);
	if (status || !ours.n)
		return status ? status : MR_E_CANCELLED;
	print_row(e, name, class_of(w, e), w->threads, &ours, &ours);
	for (uint32_t p = 0; p < w->o->peer_count; p++)
		if (peer[p].n)
			print_row(e, bench_peer_name(w->peers[p]), NULL, w->threads, &peer[p],
				  &ours);
	return 0;
}

static void close_world(struct world *w)
{
	for (uint32_t p = 0; p < w->o->peer_count; p++)
		bench_peer_close(w->peers[p]);
	if (w->ours.dev)
		w->ours.dev->admin->close(w->ours.dev);
	bench_buffer_destroy(w->buffer);
	mr_arena_destroy(w->arena);
}

static int open_world(struct world *w)
{
	const struct bench_cpu_options *o = w->o;
	const struct mr_arena_options arena = {.node = -1, .no_huge = o->no_huge};
	struct mr_cpu_options cpu = {
		.slots = BENCH_BATCH_MAX,
		.context = 1536,
		.kv_tokens = 64 * 288,
		.kernels = o->kernels,
		.numerics = o->numerics,
		.cpu = -1,
		.threads = w->threads,
	};
	const struct mr_shape *s = &w->model->shape;
	int status = mr_arena_create(&arena, &w->arena);

	w->weight_bytes = (double)bench_weight_bytes(w->model);
	w->kv_bytes = (double)mr_kv_layer_bytes(s) / 16 * s->layers;
	cpu.arena = w->arena;
	if (!status)
		status = bench_buffer_create((uint64_t)w->weight_bytes, &w->buffer);
	if (!status)
		status = mr_cpu_open(&cpu, &w->ours.dev);
	if (!status)
		status = w->ours.dev->work->load(w->ours.dev, w->model, NULL, NULL);
	for (uint32_t p = 0; p < o->peer_count && !status; p++)
		status = bench_peer_open(o->peers[p], o->model_path, w->threads, &w->peers[p]);
	return status;
}

int bench_cpu_ends(const struct bench_cpu_options *o, const struct mr_model *model)
{
	int status = 0;

	printf("  %-15s %-12s %2s %9s %9s %9s    %5s  %s\n", "tokens/s", "engine", "T", "min",
	       "median", "max", "roof", "ours by it");
	for (uint32_t t = 0; t < 2 && !status; t++) {
		struct world w = {.o = o, .model = model, .threads = o->threads[t]};

		if (!w.threads)
			continue;
		status = open_world(&w);
		for (uint32_t i = 0; i < ENDS && !status; i++)
			if (!o->row || !strcmp(o->row, ends[i].name))
				status = run_end(&w, &ends[i]);
		close_world(&w);
	}
	return status;
}
