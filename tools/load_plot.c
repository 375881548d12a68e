// SPDX-License-Identifier: Apache-2.0
/* The files that a load may leave: every sample as CSV, and a plot of TTFT and ITL by gnuplot. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <millrace/status.h>

#include "tools/load.h"

#define PLOT_POINTS 2000u /* of one curve, at most */

static int cannot(const char *path)
{
	fprintf(stderr, "millrace: %s: %s\n", path, strerror(errno));
	return -1;
}

static long long after(const struct load_run *run, uint64_t at)
{
	return at ? (long long)(at - run->begin_ns) : -1;
}

int load_write_samples(const struct load_run *run, const char *path)
{
	FILE *out = fopen(path, "we");
	int bad;

	if (!out)
		return cannot(path);
	fprintf(out, "request,class,client,status,due_ns,sent_ns,event,at_ns\n");
	for (uint32_t i = 0; i < run->sent; i++) {
		const struct load_record *r = &run->records[i];
		const struct load_request *q = &run->plan->requests[i];
		char head[160];

		snprintf(head, sizeof(head), "%u,%s,%s,%s,%lld,%lld", i,
			 run->plan->classes.count ? run->plan->classes.name[q->class] : "",
			 run->plan->clients.count ? run->plan->clients.name[q->client] : "",
			 !r->ended       ? "unended"
			 : r->status < 0 ? mr_status_name(r->status)
					 : "ok",
			 after(run, r->due_ns), after(run, r->sent_ns));
		for (uint32_t t = 0; t < r->tokens; t++)
			fprintf(out, "%s,%u,%lld\n", head, t, after(run, r->at[t]));
		if (r->ended)
			fprintf(out, "%s,end,%lld\n", head, after(run, r->end_ns));
	}
	bad = ferror(out);
	bad |= fclose(out);
	return bad ? cannot(path) : 0;
}

/* Whether the shell would find @program. */
static int installed(const char *program)
{
	const char *path = getenv("PATH");
	char file[4096];

	while (path && *path) {
		size_t n = strcspn(path, ":");
		int m = snprintf(file, sizeof(file), "%.*s/%s", (int)n, path, program);

		if (m > 0 && (size_t)m < sizeof(file) && access(file, X_OK) == 0)
			return 1;
		path += n;
		path += *path == ':';
	}
	return 0;
}

static const char *terminal_of(const char *path)
{
	const char *dot = strrchr(path, '.');

	if (dot && !strcmp(dot, ".png"))
		return "pngcairo size 1000,500";
	if (dot && !strcmp(dot, ".svg"))
		return "svg size 1000,500";
	return NULL;
}

int load_plot_check(const char *path)
{
	if (!terminal_of(path) || strpbrk(path, "'\n")) {
		fprintf(stderr,
			"millrace: --plot takes a file that ends in .png or .svg and has no quote "
			"in its name, not '%s'\n",
			path);
		return -1;
	}
	if (installed("gnuplot"))
		return 0;
	fprintf(stderr,
		"millrace: --plot needs gnuplot, which is not installed here (Debian: apt-get "
		"install gnuplot-nox); --samples FILE keeps the raw samples without it (%s)\n",
		mr_status_name(MR_E_NOT_FOUND));
	return -1;
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* A block of gnuplot data: milliseconds, share of the samples that do not exceed them. Sorts @samples. */
static void write_curve(FILE *out, const char *name, uint32_t index, uint64_t *samples, uint64_t n)
{
	uint64_t step = n / PLOT_POINTS + 1;

	qsort(samples, n, sizeof(*samples), ascending);
	fprintf(out, "$%s%u << END\n", name, index);
	for (uint64_t i = 0; i < n; i += step)
		fprintf(out, "%.6f %.6f\n", (double)samples[i] * 1e-6, (double)(i + 1) / (double)n);
	if (n)
		fprintf(out, "%.6f 1\n", (double)samples[n - 1] * 1e-6);
	fprintf(out, "END\n");
}

/* TTFT or ITL of one class, or of all where there are none. */
static uint64_t collect(const struct load_run *run, uint32_t class, int itl, uint64_t *samples)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < run->sent; i++) {
		const struct load_record *r = &run->records[i];

		if (run->plan->classes.count && run->plan->requests[i].class != class)
			continue;
		if (!itl && r->tokens)
			samples[n++] = load_ttft(r);
		for (uint32_t t = 1; itl && t < r->tokens; t++)
			samples[n++] = r->at[t] - r->at[t - 1];
	}
	return n;
}

static void write_panel(FILE *out, const struct load_run *run, const char *title, const char *name,
			const uint64_t *counts, uint32_t curves)
{
	const char *sep = "plot ";

	fprintf(out, "set title '%s'\nset xlabel 'ms'\n", title);
	for (uint32_t c = 0; c < curves; c++) {
		if (!counts[c])
			continue;
		fprintf(out, "%s$%s%u with steps lw 2 title '%s'", sep, name, c,
			run->plan->classes.count ? run->plan->classes.name[c] : "all");
		sep = ", ";
	}
	/* A panel of nothing would be an error. */
	fprintf(out, "%s\n", *sep == 'p' ? "plot [1:10] [0:1] -1 title 'no samples'" : "");
}

static void write_plot(FILE *out, const struct load_run *run, const char *path, uint64_t *samples)
{
	uint32_t curves = run->plan->classes.count ? run->plan->classes.count : 1;
	uint64_t ttft[LOAD_LABELS_MAX], itl[LOAD_LABELS_MAX];

	for (uint32_t c = 0; c < curves; c++) {
		ttft[c] = collect(run, c, 0, samples);
		write_curve(out, "ttft", c, samples, ttft[c]);
		itl[c] = collect(run, c, 1, samples);
		write_curve(out, "itl", c, samples, itl[c]);
	}
	fprintf(out, "set terminal %s\nset output '%s'\n", terminal_of(path), path);
	fprintf(out, "set multiplot layout 1,2\nset logscale x\nset format x '%%g'\nset yrange "
		     "[0:1]\nset grid\n"
		     "set ylabel 'share of samples'\nset key bottom right\n");
	write_panel(out, run, "TTFT", "ttft", ttft, curves);
	write_panel(out, run, "ITL", "itl", itl, curves);
	fprintf(out, "unset multiplot\n");
}

int load_plot(const struct load_run *run, const char *path)
{
	uint64_t *samples = calloc((size_t)run->token_count + run->sent + 1, sizeof(*samples));
	FILE *out = samples ? popen("gnuplot", "we") : NULL;
	int status = -1;

	if (out) {
		write_plot(out, run, path, samples);
		status = pclose(out);
	}
	free(samples);
	if (status == 0)
		return 0;
	fprintf(stderr, "millrace: %s: gnuplot made no plot of it (%s)\n", path,
		mr_status_name(MR_E_IO));
	return -1;
}
