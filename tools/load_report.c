// SPDX-License-Identifier: Apache-2.0
/* How a run of `millrace load` went: one table, or one JSON object that also holds every answer. */
#include <json-c/json.h>
#include <stdlib.h>

#include <millrace/status.h>

#include "driver/mem/copy.h"
#include "tools/load.h"

struct figures {
	struct tool_summary ttft, itl, queue, prefill;
	uint32_t good, failed, unended;
	uint64_t tokens, cycles, counted; /* counted: tokens of answers that say their cycles */
	double seconds, tokens_per_s, cycles_per_token;
	uint64_t copies[MR_WIRE_COPY_SITES_MAX]; /* of all good requests */
	uint32_t sites;
};

static const char *site_name(uint32_t site)
{
	return site < MR_COPY_SITES ? mr_metric_info[MR_COPY_SITES_FIRST + site].name
				    : "copy_other";
}

static struct tool_summary summarise(const struct load_run *run, uint64_t *samples,
				     uint64_t (*of)(const struct load_record *))
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < run->sent; i++) {
		uint64_t v = of(&run->records[i]);

		if (v)
			samples[n++] = v;
	}
	return tool_summarise(samples, n);
}

static uint64_t ttft_of(const struct load_record *r)
{
	return r->first_ns ? r->first_ns - r->sent_ns : 0;
}

static uint64_t queue_of(const struct load_record *r)
{
	return r->done.queue_ns;
}

static uint64_t prefill_of(const struct load_record *r)
{
	return r->done.prefill_ns;
}

static void sum_up(const struct load_run *run, struct figures *f)
{
	for (uint32_t i = 0; i < run->sent; i++) {
		const struct load_record *r = &run->records[i];

		f->tokens += r->tokens;
		f->unended += !r->ended;
		f->failed += r->ended && r->status != 0;
		f->good += r->ended && r->status == 0;
		if (!r->has_done)
			continue;
		f->cycles += r->done.cycles;
		f->counted += r->done.cycles ? r->done.tokens : 0;
		if (r->done.copy_sites > f->sites)
			f->sites = r->done.copy_sites;
		for (uint32_t s = 0; r->status == 0 && s < r->done.copy_sites; s++)
			f->copies[s] += r->copies[s];
	}
	f->seconds = (double)(run->end_ns - run->begin_ns) * 1e-9;
	f->tokens_per_s = f->seconds > 0 ? (double)f->tokens / f->seconds : 0;
	f->cycles_per_token = f->counted ? (double)f->cycles / (double)f->counted : 0;
}

static int gather(const struct load_run *run, struct figures *f)
{
	uint64_t *samples = calloc((size_t)run->sent + 1, sizeof(*samples));

	if (!samples)
		return -1;
	*f = (struct figures){0};
	f->ttft = summarise(run, samples, ttft_of);
	f->queue = summarise(run, samples, queue_of);
	f->prefill = summarise(run, samples, prefill_of);
	f->itl = tool_summarise(run->itl, run->itl_count);
	free(samples);
	sum_up(run, f);
	return 0;
}

static void print_row(const char *name, const struct tool_summary *s)
{
	if (s->n)
		printf("  %-28s %10.1f %10.1f %10.1f\n", name, (double)s->p50 * 1e-3,
		       (double)s->p99 * 1e-3, (double)s->max * 1e-3);
	else
		printf("  %-28s %10s %10s %10s\n", name, "-", "-", "-");
}

static void print_table(const struct load_run *run, const struct figures *f)
{
	const struct load_options *o = run->options;

	printf("  %-28s %10s %10s %10s\n", "microseconds", "p50", "p99", "max");
	print_row("TTFT", &f->ttft);
	print_row("ITL", &f->itl);
	print_row("server: queue", &f->queue);
	print_row("server: prefill", &f->prefill);
	printf("  %-28s %10s %10.1f %10.1f\n", "hiccups of this host", "",
	       (double)run->hiccup_p99_ns * 1e-3, (double)run->hiccup_max_ns * 1e-3);
	printf("  %-28s %10.1f\n", "tokens/s", f->tokens_per_s);
	if (f->counted)
		printf("  %-28s %10.0f\n", "LPU cycles per token", f->cycles_per_token);
	else
		printf("  %-28s %10s\n", "LPU cycles per token", "-");
	for (uint32_t s = 0; s < f->sites; s++)
		printf("  %-28s %10.1f\n", site_name(s),
		       f->good ? (double)f->copies[s] / f->good : 0);
	printf("  (copy_*: bytes copied per request, by site)\n");
	printf("  %u requests, %u at once: %u answered, %u failed; %llu tokens in %.2f s; "
	       "asked again %llu times\n",
	       o->requests, o->concurrency, f->good, f->failed, (unsigned long long)f->tokens,
	       f->seconds, (unsigned long long)(run->stats.resends + run->stats.repeated));
}

static struct json_object *summary_json(const struct tool_summary *s)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "n", json_object_new_uint64(s->n));
	json_object_object_add(o, "min", json_object_new_uint64(s->min));
	json_object_object_add(o, "p50", json_object_new_uint64(s->p50));
	json_object_object_add(o, "p90", json_object_new_uint64(s->p90));
	json_object_object_add(o, "p99", json_object_new_uint64(s->p99));
	json_object_object_add(o, "max", json_object_new_uint64(s->max));
	return o;
}

static struct json_object *answer_json(const struct load_run *run, const struct load_record *r)
{
	static const char *const finish[] = {"stop", "length", "cancel", "error"};
	const struct load_prompt *p = &run->options->prompts[r->prompt];
	struct json_object *o = json_object_new_object(), *ids = json_object_new_array();
	int status = r->ended ? r->status : MR_E_CANCELLED;

	json_object_object_add(o, "prompt", json_object_new_string_len(p->text, (int)p->bytes));
	json_object_object_add(o, "status", json_object_new_string(mr_status_name(status)));
	if (r->has_done) {
		json_object_object_add(o, "finish", json_object_new_string(finish[r->done.finish]));
		json_object_object_add(o, "prompt_tokens",
				       json_object_new_int64(r->done.prompt_tokens));
		json_object_object_add(o, "cycles", json_object_new_uint64(r->done.cycles));
		json_object_object_add(o, "server_total_ns",
				       json_object_new_uint64(r->done.total_ns));
	}
	if (r->limit)
		json_object_object_add(o, "limit", json_object_new_int64(r->limit));
	json_object_object_add(o, "ttft_ns", json_object_new_uint64(ttft_of(r)));
	for (uint32_t i = 0; i < r->tokens; i++)
		json_object_array_add(ids, json_object_new_int64(r->ids[i]));
	json_object_object_add(o, "ids", ids);
	return o;
}

static void print_json(const struct load_run *run, const struct figures *f)
{
	struct json_object *o = json_object_new_object(), *copies = json_object_new_object();
	struct json_object *wire = json_object_new_object(), *hiccup = json_object_new_object();
	struct json_object *answers = json_object_new_array();

	json_object_object_add(o, "requests", json_object_new_int64(run->options->requests));
	json_object_object_add(o, "concurrency", json_object_new_int64(run->options->concurrency));
	json_object_object_add(o, "answered", json_object_new_int64(f->good));
	json_object_object_add(o, "failed", json_object_new_int64(f->failed));
	json_object_object_add(o, "unended", json_object_new_int64(f->unended));
	json_object_object_add(o, "seconds", tool_json_number(f->seconds));
	json_object_object_add(o, "tokens", json_object_new_uint64(f->tokens));
	json_object_object_add(o, "tokens_per_s", tool_json_number(f->tokens_per_s));
	json_object_object_add(o, "ttft_ns", summary_json(&f->ttft));
	json_object_object_add(o, "itl_ns", summary_json(&f->itl));
	json_object_object_add(o, "server_queue_ns", summary_json(&f->queue));
	json_object_object_add(o, "server_prefill_ns", summary_json(&f->prefill));
	json_object_object_add(hiccup, "p99", json_object_new_uint64(run->hiccup_p99_ns));
	json_object_object_add(hiccup, "max", json_object_new_uint64(run->hiccup_max_ns));
	json_object_object_add(o, "hiccup_ns", hiccup);
	json_object_object_add(o, "cycles_per_token", tool_json_number(f->cycles_per_token));
	for (uint32_t s = 0; s < f->sites; s++)
		json_object_object_add(
			copies, site_name(s),
			tool_json_number(f->good ? (double)f->copies[s] / f->good : 0));
	json_object_object_add(o, "copies_per_request", copies);
	json_object_object_add(wire, "resends", json_object_new_uint64(run->stats.resends));
	json_object_object_add(wire, "repeated", json_object_new_uint64(run->stats.repeated));
	json_object_object_add(wire, "dropped", json_object_new_uint64(run->stats.dropped));
	json_object_object_add(o, "wire", wire);
	json_object_object_add(o, "machine", tool_facts_json());
	for (uint32_t i = 0; i < run->sent; i++)
		json_object_array_add(answers, answer_json(run, &run->records[i]));
	json_object_object_add(o, "answers", answers);
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
	json_object_put(o);
}

/* The reasons, each once, with how often. */
static void print_failures(const struct load_run *run)
{
	for (int status = -1; status >= MR_E_INTERNAL; status--) {
		uint32_t n = 0, limit = 0;

		for (uint32_t i = 0; i < run->sent; i++) {
			n += run->records[i].ended && run->records[i].status == status;
			if (run->records[i].status == status)
				limit = run->records[i].limit;
		}
		if (n && limit)
			fprintf(stderr, "millrace: %u x %s: %s (the limit is %u)\n", n,
				mr_status_name(status), mr_strerror(status), limit);
		else if (n)
			fprintf(stderr, "millrace: %u x %s: %s\n", n, mr_status_name(status),
				mr_strerror(status));
	}
}

int load_report(const struct load_run *run)
{
	struct figures f;

	if (gather(run, &f) != 0) {
		fprintf(stderr, "millrace: %s\n", mr_strerror(MR_E_NO_MEMORY));
		return TOOL_FAILED;
	}
	if (run->options->json)
		print_json(run, &f);
	else
		print_table(run, &f);
	print_failures(run);
	return f.good == run->options->requests ? TOOL_OK : TOOL_FAILED;
}
