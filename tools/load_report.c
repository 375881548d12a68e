// SPDX-License-Identifier: Apache-2.0
/* How a run of `millrace load` went: one table, the host's hiccups beside it, and what failed by name. */
#include <millrace/status.h>

#include "driver/mem/copy.h"
#include "tools/load.h"

const char *load_site_name(uint32_t site)
{
	return site < MR_COPY_SITES ? mr_metric_info[MR_COPY_SITES_FIRST + site].name
				    : "copy_other";
}

static void print_row(const char *name, const char *class, const struct tool_summary *s)
{
	char label[64];

	snprintf(label, sizeof(label), "%s%s%s", name, class ? ", " : "", class ? class : "");
	if (s->n)
		printf("  %-34s %10.1f %10.1f %10.1f %10.1f\n", label, (double)s->p50 * 1e-3,
		       (double)s->p90 * 1e-3, (double)s->p99 * 1e-3, (double)s->max * 1e-3);
	else
		printf("  %-34s %10s %10s %10s %10s\n", label, "-", "-", "-", "-");
}

static void print_latencies(const struct load_run *run, const struct load_latencies *l,
			    const char *class)
{
	print_row("TTFT", class, &l->ttft);
	if (run->plan->open && (l->ttft.p99 != l->ttft_sent.p99 || l->ttft.max != l->ttft_sent.max))
		print_row("TTFT from sending", class, &l->ttft_sent);
	print_row("ITL", class, &l->itl);
	if (l->itl_beside.n)
		print_row("ITL beside other prompts", class, &l->itl_beside);
	print_row("end to end", class, &l->total);
}

static void print_rates(const struct load_run *run, const struct load_figures *f)
{
	printf("  %-34s %10.1f\n", "tokens/s", f->tokens_per_s);
	if (run->plan->open)
		printf("  %-34s %10.2f\n", "requests/s offered", f->offered_per_s);
	printf("  %-34s %10.2f\n", "requests/s served", f->served_per_s);
	if (f->counted)
		printf("  %-34s %10.0f\n", "LPU cycles per token", f->cycles_per_token);
	for (uint32_t s = 0; s < run->copy_sites; s++)
		printf("  %-34s %10.1f\n", load_site_name(s),
		       f->good ? (double)run->copies[s] / f->good : 0);
	if (run->copy_sites)
		printf("  (copy_*: bytes copied per request, by site)\n");
}

static void print_counts(const struct load_run *run, const struct load_figures *f)
{
	const struct load_options *o = run->options;

	printf("  %u requests", run->sent);
	if (!run->plan->open)
		printf(", %u at once", o->concurrency);
	printf(": %u answered, %u failed", f->good, f->failed);
	if (f->cut)
		printf(", %u cut off", f->cut);
	if (f->unsent)
		printf(", %u never sent", f->unsent);
	printf("; %llu tokens in %.2f s", (unsigned long long)f->all.tokens, f->seconds);
	if (!o->ring)
		printf("; asked again %llu times",
		       (unsigned long long)(run->wire.resends + run->wire.repeated));
	printf("\n");
	for (uint32_t c = 0; c < run->plan->classes.count; c++)
		printf("  %s: %u requests, %u answered; prompts of %.1f tokens, answers of %.1f on "
		       "average\n",
		       run->plan->classes.name[c], f->class[c].sent, f->class[c].good,
		       f->class[c].good ? (double)f->class[c].prompt_tokens / f->class[c].good : 0,
		       f->class[c].sent ? (double)f->class[c].tokens / f->class[c].sent : 0);
	if (run->plan->open)
		printf("  generator: %u sent %u us or more late, at most %.1f us behind; no room "
		       "%llu times\n",
		       f->late, LOAD_LATE_NS / 1000, (double)f->lag.max * 1e-3,
		       (unsigned long long)run->held);
	printf("  generator: %llu page faults, taken off its core %llu times\n",
	       (unsigned long long)run->faults, (unsigned long long)run->preempted);
}

static void print_table(const struct load_run *run, const struct load_figures *f)
{
	const struct load_labels *classes = &run->plan->classes;

	printf("  %-34s %10s %10s %10s %10s\n", "microseconds", "p50", "p90", "p99", "max");
	print_latencies(run, &f->all, NULL);
	for (uint32_t c = 0; c < classes->count; c++)
		print_latencies(run, &f->class[c], classes -> name[c]);
	if (run->plan->open)
		print_row("sent after being due", NULL, &f->lag);
	if (f->queue.n)
		print_row("server: queue", NULL, &f->queue);
	if (f->prefill.n)
		print_row("server: prefill", NULL, &f->prefill);
	printf("  %-34s %10s %10s %10.1f %10.1f\n", "hiccups of this host", "", "",
	       (double)run->hiccup_p99_ns * 1e-3, (double)run->hiccup_max_ns * 1e-3);
	print_rates(run, f);
	print_counts(run, f);
}

/* The reasons, each once, with how often; and why the load ended where it did. */
static void print_failures(const struct load_run *run)
{
	uint32_t n, limit;

	for (int status = -1; status >= MR_E_INTERNAL; status--) {
		n = load_count_status(run, status, &limit);
		if (n && limit)
			fprintf(stderr, "millrace: %u x %s: %s (the limit is %u)\n", n,
				mr_status_name(status), mr_strerror(status), limit);
		else if (n)
			fprintf(stderr, "millrace: %u x %s: %s\n", n, mr_status_name(status),
				mr_strerror(status));
	}
	if (run->gone == MR_E_TIMEOUT)
		fprintf(stderr,
			"millrace: %s: the server said nothing for %u ms (%s); the load ends\n",
			run->options->where, run->options->timeout_ms, mr_status_name(run->gone));
	else if (run->gone)
		fprintf(stderr, "millrace: %s: the server went away: %s (%s); the load ends\n",
			run->options->where, mr_strerror(run->gone), mr_status_name(run->gone));
	if (run->plan->bounded && run->sent == run->plan->count)
		fprintf(stderr,
			"millrace: %u requests were sent before --seconds were over, and no more "
			"are kept: name a number with -n\n",
			run->sent);
}

int load_report(const struct load_run *run)
{
	const struct load_options *o = run->options;
	struct load_figures f;
	int bad = 0;

	if (load_figures(run, &f) != 0) {
		fprintf(stderr, "millrace: %s\n", mr_strerror(MR_E_NO_MEMORY));
		return TOOL_FAILED;
	}
	if (o->json)
		load_print_json(run, &f);
	else
		print_table(run, &f);
	fflush(stdout);
	print_failures(run);
	if (o->samples)
		bad |= load_write_samples(run, o->samples);
	if (o->plot)
		bad |= load_plot(run, o->plot);
	return !bad && !run->gone && f.good == run->sent && !f.unsent && f.good ? TOOL_OK
										: TOOL_FAILED;
}
