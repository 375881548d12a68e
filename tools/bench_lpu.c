// SPDX-License-Identifier: Apache-2.0
/* Which ways `millrace bench lpu` takes to a device, and the rows of its table. See bench_lpu.h. */
#include "tools/bench_lpu.h"

#include <stdlib.h>
#include <string.h>

#include "driver/model/model.h"

#define SPIN_US 2000u /* the device's thread is awake while it is measured, and away soon after */
#define CONTEXT 64u

struct bench {
	const struct bench_lpu_options *o;
	const struct mr_model *model;
	struct bench_rows *rows;
	struct bench_lpu_echo *echo;
	int cpus[2];
};

static void row(struct bench_rows *r, const struct bench_lpu_found *f, enum bench_lpu_figure which,
		const char *text, enum bench_goal goal, double target)
{
	if (f->of[which].n)
		bench_row_of(r, bench_lpu_names[which], text, &f->of[which], 1, "ns", goal, target);
}

/* In microseconds: what the device computes is in it. */
static void row_us(struct bench_rows *r, const struct bench_lpu_found *f,
		   enum bench_lpu_figure which, const char *text, enum bench_goal goal,
		   double target)
{
	if (f->of[which].n)
		bench_row_of(r, bench_lpu_names[which], text, &f->of[which], 1e-3, "us", goal,
			     target);
}

static void add_rows(struct bench_rows *r, const struct bench_lpu_found *f, int far)
{
	uint64_t told = f->doorbells + f->avoided;

	row(r, f, LPU_LINE, "cache line, round trip", GOAL_NONE, 0);
	row(r, f, LPU_FENCE, "FENCE, round trip", GOAL_NONE, 0);
	if (f->of[LPU_RATIO].n)
		bench_row_of(r, "fence_ratio", "FENCE by cache line", &f->of[LPU_RATIO], 1e-3, "x",
			     far ? GOAL_AT_MOST : GOAL_NONE, 3);
	row(r, f, LPU_FENCE_POST, "FENCE, submission to doorbell", GOAL_BELOW, 300);
	/* Without a device all of a step is done in the call. */
	row(r, f, LPU_POST_1, told ? "DECODE, 1 slot, submission to doorbell" : "1 slot, DECODE",
	    told ? GOAL_BELOW : GOAL_NONE, 300);
	row(r, f, LPU_POST_16,
	    told ? "DECODE, 16 slots, submission to doorbell" : "16 slots, DECODE",
	    told ? GOAL_BELOW : GOAL_NONE, 300);
	if (told) {
		row_us(r, f, LPU_RECORD_1, "1 slot, doorbell to record", GOAL_NONE, 0);
		row_us(r, f, LPU_RECORD_16, "16 slots, doorbell to first record", GOAL_NONE, 0);
	}
	row_us(r, f, LPU_STEP_1, "1 slot, step", GOAL_NONE, 0);
	row_us(r, f, LPU_STEP_16, "16 slots, step", GOAL_NONE, 0);
	row_us(r, f, LPU_CPU_1, "1 slot, driver's CPU a step", GOAL_NONE, 0);
	row_us(r, f, LPU_CPU_16, "16 slots, driver's CPU a step", GOAL_BELOW, 2);
	if (told) {
		bench_row(r, "doorbells_avoided", "doorbells that shadows spared",
			  100 * (double)f->avoided / (double)told, "%", GOAL_NONE, 0);
		bench_row(r, "doorbells", "doorbells rung a command",
			  (double)f->doorbells / (double)f->posted, "", GOAL_NONE, 0);
	}
	bench_row(r, "allocations", "calls of malloc and free a step", f->allocations, "",
		  GOAL_AT_MOST, 0);
	if (f->calls_seen)
		bench_row(r, "system_calls", "steps with a system call", 100 * f->calling, "%",
			  GOAL_AT_MOST, 0);
	else
		bench_row_missing(r, "system_calls", "steps with a system call",
				  "this kernel has no syscall user dispatch");
}

/* One device, opened as @options say. 0 or a status, after a line on stderr. */
static int measure(struct bench *b, const struct tool_devices_options *options, const char *name,
		   int far)
{
	struct tool_devices devices;
	struct bench_lpu_found *found;
	int status;

	if (tool_devices_open(options, b->model, &devices))
		return MR_E_DEVICE;
	const struct bench_lpu_run run = {
		.dev = devices.decode,
		.fences = !strcmp(options->device, "lpu"),
		.runs = b->o->runs,
		.idle_us = 2 * SPIN_US,
		.echo = b->echo,
		.csv = b->o->csv,
		.name = name,
	};
	found = calloc(1, sizeof(*found));
	status = found ? bench_lpu_measure(&run, found) : MR_E_NO_MEMORY;
	tool_devices_close(&devices);
	if (!status)
		add_rows(b->rows, found, far);
	else
		fprintf(stderr, "millrace: bench lpu: %s: %s (%s)\n", name, mr_strerror(status),
			mr_status_name(status));
	free(found);
	return status;
}

static int on_nil(struct bench *b, struct tool_devices_options options)
{
	options.device = "nil";
	bench_part(b->rows, "nil", "nil: no device, what is left of a step");
	return measure(b, &options, "nil", 0);
}

static int on_local(struct bench *b, struct tool_devices_options options)
{
	options.chip_cpu = b->cpus[1] + 1;
	bench_part(b->rows, "local", "local: the simulated LPU on a thread of this process");
	return measure(b, &options, "local", 0);
}

static int on_server(struct bench *b, struct tool_devices_options options)
{
	struct bench_lpu_server server;
	char lpu[160];
	int status = bench_lpu_server_start(&server, b->cpus[1], SPIN_US, &options);

	if (status)
		return status;
	snprintf(lpu, sizeof(lpu), "vfio-user:%s", server.socket);
	options.lpu = lpu;
	bench_part(b->rows, "vfio_user",
		   "vfio-user: 'millrace lpu sim', a process of its own, doorbells mapped");
	status = measure(b, &options, "vfio_user", 1);
	bench_lpu_server_stop(&server);
	return status;
}

/* What --lpu names: where its thread runs, if it has one, is its own affair. */
static int on_named(struct bench *b, const struct tool_devices_options *options)
{
	bench_part(b->rows, "named", "%s", options->lpu);
	return measure(b, options, "named", 0);
}

static int all_ways(struct bench *b)
{
	struct tool_devices_options options = b->o->devices;
	int status;

	options.device = "lpu";
	options.slots = BENCH_LPU_SLOTS;
	options.context = b->model->shape.context < CONTEXT ? b->model->shape.context : CONTEXT;
	options.decode_only = options.quiet = 1;
	options.spin_us = SPIN_US;
	status = on_nil(b, options);
	if (!status && options.lpu && strcmp(options.lpu, "local"))
		return on_named(b, &options);
	if (!status)
		status = on_local(b, options);
	if (!status && !options.lpu)
		status = on_server(b, options);
	return status;
}

int bench_lpu(const struct bench_lpu_options *o, struct bench_rows *rows)
{
	struct bench b = {.o = o, .rows = rows};
	struct tool_hiccup *meter;
	cpu_set_t allowed;
	int status;

	memset(rows, 0, sizeof(*rows));
	b.model = tool_model_open(o->model);
	if (!b.model)
		return TOOL_FAILED;
	if (o->csv)
		fputs("way,figure,percentile,ns\n", o->csv);
	pthread_getaffinity_np(pthread_self(), sizeof(allowed), &allowed);
	meter = tool_hiccup_start();
	status = bench_two_cpus(&allowed, b.cpus);
	if (!status) {
		status = bench_lpu_echo_start(b.cpus[1], &b.echo);
		bench_pin(b.cpus[0]);
	}
	if (status)
		fprintf(stderr, "millrace: bench lpu: two CPUs are needed: %s (%s)\n",
			mr_strerror(status), mr_status_name(status));
	else
		status = all_ways(&b);
	bench_lpu_echo_stop(b.echo);
	tool_hiccup_stop(meter, &rows->hiccup_p99_ns, &rows->hiccup_max_ns);
	pthread_setaffinity_np(pthread_self(), sizeof(allowed), &allowed);
	mr_model_close((struct mr_model *)b.model);
	return status ? TOOL_FAILED : TOOL_OK;
}
