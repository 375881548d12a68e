// SPDX-License-Identifier: Apache-2.0
/*
 * How long a model takes to load with its file in the page cache, and what packing class D's weights is of that;
 * beside it, by turns, the least that a file of packed weights would take in packing's place: read and checked.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "driver/cpu/cpu.h"
#include "driver/mem/arena.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/team.h"
#include "tools/bench_cpu.h"
#include "userlib/spec/crc32c.h"

#define PACK_ROWS  256u       /* that a thread takes at a time */
#define READ_BYTES (1u << 18) /* the same of the packed file: checked while it lies in the cache */

enum figure { ALL, OPEN, DEVICE, PACK, READ, FIGURES };
static const char *const names[FIGURES] = {"load, all of it", "  opening the file", "  the device",
					   "packing alone", "a packed file read and checked"};
static const char *const ids[FIGURES] = {"load", "open", "device", "pack", "read-packed"};

struct load {
	const struct bench_cpu_options *o;
	struct mr_team *team;
	struct mr_tensor *tensors;
	size_t *at; /* of each, in memory and file: [count] is the end */
	uint32_t count;
	char *memory; /* touched before anything is timed */
	int fd;       /* the packed file, without a name */
	uint32_t next, failed;
};

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static void add(struct load *l, const struct mr_tensor *t)
{
	enum mr_packing packing;

	if (mr_model_packing(t->type, &packing))
		return;
	l->tensors[l->count] = *t;
	l->at[l->count + 1] = l->at[l->count] + mr_pack_bytes(packing, t->rows, t->cols);
	l->count++;
}

static uint32_t units_of(const struct mr_tensor *t)
{
	return (t->rows + PACK_ROWS - 1) / PACK_ROWS;
}

static void pack_rank(void *arg, uint32_t rank)
{
	struct load *l = arg;
	uint32_t before = 0, i = 0, unit;

	/* Runs of rows are numbered through all matrices; a thread's own numbers only ascend. */
	for (;;) {
		const struct mr_tensor *t;
		enum mr_packing packing;
		uint32_t row;

		unit = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED);
		for (; i < l->count && unit - before >= units_of(&l->tensors[i]); i++)
			before += units_of(&l->tensors[i]);
		if (i == l->count)
			return;
		t = &l->tensors[i];
		row = (unit - before) * PACK_ROWS;
		mr_model_packing(t->type, &packing);
		mr_pack(packing, (const char *)t->data + (size_t)row * (t->bytes / t->rows),
			t->rows - row < PACK_ROWS ? t->rows - row : PACK_ROWS, t->cols,
			l->memory + l->at[i] + mr_pack_bytes(packing, row, t->cols));
	}
}

static void read_rank(void *arg, uint32_t rank)
{
	struct load *l = arg;
	size_t end = l->at[l->count];

	for (;;) {
		size_t at = (size_t)__atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED) * READ_BYTES;
		size_t n = at < end && end - at < READ_BYTES ? end - at : READ_BYTES;

		if (at >= end)
			return;
		if (pread(l->fd, l->memory + at, n, (off_t)at) != (ssize_t)n ||
		    mr_crc32c(0, l->memory + at, n) == 0)
			__atomic_store_n(&l->failed, 1, __ATOMIC_RELAXED);
	}
}

static double timed(struct load *l, void (*rank)(void *arg, uint32_t rank))
{
	double start = now_ms();

	l->next = 0;
	mr_team_run(l->team, rank, l);
	return now_ms() - start;
}

/* As a command does it: file, arena, device. */
static int load_all(const struct bench_cpu_options *o, uint32_t threads, double ms[FIGURES])
{
	const struct mr_arena_options arena_options = {.node = -1, .no_huge = o->no_huge};
	struct mr_cpu_options cpu = {
		.kernels = o->kernels, .numerics = o->numerics, .cpu = -1, .threads = threads};
	double start = now_ms(), opened;
	struct mr_model *model = tool_model_open(o->model_path);
	struct mr_device *dev = NULL;
	int status = model ? mr_arena_create(&arena_options, &cpu.arena) : MR_E_NOT_FOUND;

	opened = now_ms();
	if (!status)
		status = mr_cpu_open(&cpu, &dev);
	if (!status)
		status = dev->work->load(dev, model, NULL, NULL);
	ms[ALL] = now_ms() - start;
	ms[OPEN] = opened - start;
	ms[DEVICE] = ms[ALL] - ms[OPEN];
	if (dev)
		dev->admin->close(dev);
	mr_arena_destroy(cpu.arena);
	mr_model_close(model);
	return status;
}

/* The tensors, memory for them packed, and the file, which is written once. */
static int prepare(struct load *l, const struct mr_model *model)
{
	uint32_t most = model->shape.layers * 7 + 2;
	FILE *f = tmpfile();
	int status = 0;

	l->tensors = calloc(most, sizeof(*l->tensors));
	l->at = calloc(most + 1, sizeof(*l->at));
	l->fd = f ? dup(fileno(f)) : -1;
	if (f)
		fclose(f);
	if (!l->tensors || !l->at || l->fd < 0)
		return MR_E_NO_MEMORY;
	add(l, &model->token_embd);
	for (uint32_t i = 0; i < model->shape.layers; i++) {
		const struct mr_model_layer *m = &model->layers[i];
		const struct mr_tensor *each[] = {&m->q,    &m->k,  &m->v,   &m->o,
						  &m->gate, &m->up, &m->down};

		for (int t = 0; t < 7; t++)
			add(l, each[t]);
	}
	if (model->output.data != model->token_embd.data)
		add(l, &model->output);
	l->memory = aligned_alloc(64, (l->at[l->count] + 63) & ~(size_t)63);
	if (!l->memory)
		return MR_E_NO_MEMORY;
	memset(l->memory, 1, l->at[l->count]);
	timed(l, pack_rank);
	for (size_t at = 0, end = l->at[l->count]; at < end && !status;) {
		ssize_t n = pwrite(l->fd, l->memory + at, end - at, (off_t)at);

		status = n > 0 ? 0 : MR_E_IO;
		at += n > 0 ? (size_t)n : 0;
	}
	return status;
}

static int run_threads(struct load *l, uint32_t threads)
{
	static double ms[FIGURES][BENCH_RUNS_MAX];
	const struct bench_cpu_options *o = l->o;
	int status = 0;

	for (uint32_t i = 0; i < o->runs && !status && !tool_stop; i++) {
		double one[FIGURES];

		status = load_all(o, threads, one);
		if (!status)
			status = bench_team(threads, &l->team);
		if (status)
			break;
		one[PACK] = timed(l, pack_rank);
		one[READ] = timed(l, read_rank);
		bench_team_end(l->team);
		l->team = NULL;
		for (uint32_t f = 0; f < FIGURES; f++) {
			ms[f][i] = one[f];
			bench_cpu_csv(o, "load", ids[f], "millrace", threads, i, "ms", one[f], 0,
				      "");
		}
	}
	if (status || tool_stop)
		return status ? status : MR_E_CANCELLED;
	for (uint32_t f = 0; f < FIGURES; f++)
		printf("  %-31s %2u %9.1f ms\n", names[f], threads, bench_median(ms[f], o->runs));
	return 0;
}

int bench_cpu_load(const struct bench_cpu_options *o, const struct mr_model *model)
{
	struct load l = {.o = o, .fd = -1};
	int status = prepare(&l, model);

	printf("  load, file in the page cache     T    median      %.1f MB packed\n",
	       status ? 0 : (double)l.at[l.count] / 1e6);
	for (uint32_t t = 0; t < 2 && !status; t++)
		if (o->threads[t])
			status = run_threads(&l, o->threads[t]);
	if (!status && l.failed)
		status = MR_E_IO;
	if (l.fd >= 0)
		close(l.fd);
	free(l.memory);
	free(l.tensors);
	free(l.at);
	return status;
}
