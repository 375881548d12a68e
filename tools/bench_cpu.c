// SPDX-License-Identifier: Apache-2.0
/* See bench_cpu.h: the order of the tables, the roofs' table, and the CSV. */
#include "tools/bench_cpu.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "kernels/cpu/team.h"
#include "tools/bench.h"

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_median(double *values, uint32_t n)
{
	qsort(values, n, sizeof(*values), ascending);
	return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

void bench_cpu_csv_head(const struct bench_cpu_options *o)
{
	if (o->csv)
		fprintf(o->csv, "table,name,engine,threads,run,unit,value,of_roof,class\n");
}

void bench_cpu_csv(const struct bench_cpu_options *o, const char *table, const char *name,
		   const char *engine, uint32_t threads, uint32_t run, const char *unit,
		   double value, double of_roof, const char *class)
{
	if (o->csv)
		fprintf(o->csv, "%s,%s,%s,%u,%u,%s,%.6g,%.4f,%s\n", table, name, engine, threads,
			run, unit, value, of_roof, class);
}

static int wanted(const struct bench_cpu_options *o, const char *table)
{
	return !o->only || !strcmp(o->only, table);
}

/* The read roof for each number of threads; *one gets those of one thread. */
static int roofs(const struct bench_cpu_options *o, const struct mr_kernels *kern, uint64_t bytes,
		 struct bench_roofs *one)
{
	double rate[BENCH_RUNS_MAX];
	struct bench_buffer *buffer;
	int status = bench_buffer_create(bytes, &buffer);

	if (status)
		return status;
	bench_arithmetic(kern, &one->int8_macs_s, &one->float_macs_s);
	printf("  %-28s %8.1f GMAC/s int8, %.1f FP32, %.1f BF16 a thread\n", "peak in registers",
	       one->int8_macs_s / 1e9, one->float_macs_s / 1e9, bench_arithmetic_bf16() / 1e9);
	for (uint32_t t = 0; t < 2 && !status; t++) {
		struct mr_team *team = NULL;
		char name[64];

		if (!o->threads[t])
			continue;
		status = bench_team(o->threads[t], &team);
		for (uint32_t i = 0; i < o->runs && !status; i++) {
			rate[i] = bench_buffer_read(buffer, team);
			bench_cpu_csv(o, "roof", "read", "read", o->threads[t], i, "bytes/s",
				      rate[i], 1, "");
		}
		bench_team_end(team);
		if (status)
			break;
		if (o->threads[t] == 1)
			one->read_bytes_s = bench_median(rate, o->runs);
		snprintf(name, sizeof(name), "read roof, %u thread%s", o->threads[t],
			 o->threads[t] > 1 ? "s" : "");
		printf("  %-28s %8.1f GB/s = %.0f passes/s over %.1f MB\n", name,
		       bench_median(rate, o->runs) / 1e9,
		       bench_median(rate, o->runs) / (double)bytes, (double)bytes / 1e6);
	}
	bench_buffer_destroy(buffer);
	return status;
}

/* CPU time of the machine so far, in ticks: all, idle, and taken by the host. */
struct cpu_time {
	uint64_t all, idle, stolen;
	double own; /* seconds of this process and of children that have ended */
};

static struct cpu_time cpu_time(void)
{
	struct cpu_time t = {0};
	FILE *f = fopen("/proc/stat", "re");
	uint64_t v[8] = {0};
	struct rusage self, children;

	if (f && fscanf(f, "cpu %lu %lu %lu %lu %lu %lu %lu %lu", &v[0], &v[1], &v[2], &v[3], &v[4],
			&v[5], &v[6], &v[7]) == 8)
		for (int i = 0; i < 8; i++)
			t.all += v[i];
	if (f)
		fclose(f);
	t.idle = v[3] + v[4];
	t.stolen = v[7];
	getrusage(RUSAGE_SELF, &self);
	getrusage(RUSAGE_CHILDREN, &children);
	t.own = (double)(self.ru_utime.tv_sec + self.ru_stime.tv_sec + children.ru_utime.tv_sec +
			 children.ru_stime.tv_sec) +
		1e-6 * (double)(self.ru_utime.tv_usec + self.ru_stime.tv_usec +
				children.ru_utime.tv_usec + children.ru_stime.tv_usec);
	return t;
}

/* What the figures had to share the machine with. */
static void print_company(const struct cpu_time *from, uint64_t p99_ns, uint64_t max_ns)
{
	struct cpu_time now = cpu_time();
	double all = (double)(now.all - from->all), tick = 1.0 / (double)sysconf(_SC_CLK_TCK);
	double busy = all - (double)(now.idle - from->idle) - (double)(now.stolen - from->stolen);

	printf("  hiccups of the host: p99 %.1f us, max %.1f us\n", (double)p99_ns / 1e3,
	       (double)max_ns / 1e3);
	if (all > 0)
		printf("  CPU time: %.1f%% stolen by the host, %.1f%% used by other processes\n",
		       100 * (double)(now.stolen - from->stolen) / all,
		       100 * (busy - (now.own - from->own) / tick) / all);
}

int bench_cpu(const struct bench_cpu_options *o)
{
	const struct mr_kernels *kern = tool_kernels(o->kernels);
	struct mr_model *model = kern ? tool_model_open(o->model_path) : NULL;
	struct bench_roofs one = {0};
	struct cpu_time before = cpu_time();
	struct tool_hiccup *meter;
	uint64_t p99, max;
	int status = 0;

	if (!model)
		return TOOL_FAILED;
	bench_cpu_csv_head(o);
	meter = tool_hiccup_start();
	printf("cpu      %s, kernels %s, numerics %s: prompts in %s, %u runs\n", model->name,
	       kern->name, tool_numerics_name(o->numerics),
	       kern->prompt && o->numerics != MR_NUMERICS_STRICT ? kern->prompt->numerics
								 : kern->numerics,
	       o->runs);
	status = roofs(o, kern, bench_weight_bytes(model), &one);
	if (!status && wanted(o, "load"))
		status = bench_cpu_load(o, model);
	if (!status && wanted(o, "kernels"))
		status = bench_cpu_kernels(o, kern, &model->shape, &one);
	if (!status && wanted(o, "ends"))
		status = bench_cpu_ends(o, model);
	tool_hiccup_stop(meter, &p99, &max);
	print_company(&before, p99, max);
	mr_model_close(model);
	if (!status)
		return TOOL_OK;
	fprintf(stderr, "millrace: bench cpu: %s (%s)\n", mr_strerror(status),
		mr_status_name(status));
	return TOOL_FAILED;
}
