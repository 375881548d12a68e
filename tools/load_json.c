// SPDX-License-Identifier: Apache-2.0
/* A load's figures as one JSON object, with the machine's facts and every answer in it. */
#include <json-c/json.h>

#include <millrace/status.h>

#include "tools/load.h"

static void add_count(struct json_object *o, const char *name, uint64_t value)
{
	json_object_object_add(o, name, json_object_new_uint64(value));
}

static void add_summary(struct json_object *o, const char *name, const struct tool_summary *s)
{
	struct json_object *into = json_object_new_object();

	add_count(into, "n", s->n);
	add_count(into, "min", s->min);
	add_count(into, "p50", s->p50);
	add_count(into, "p90", s->p90);
	add_count(into, "p99", s->p99);
	add_count(into, "max", s->max);
	json_object_object_add(o, name, into);
}

static void add_latencies(struct json_object *o, const struct load_latencies *l)
{
	add_summary(o, "ttft_ns", &l->ttft);
	add_summary(o, "ttft_from_sending_ns", &l->ttft_sent);
	add_summary(o, "itl_ns", &l->itl);
	add_summary(o, "end_to_end_ns", &l->total);
}

static struct json_object *classes_json(const struct load_run *run, const struct load_figures *f)
{
	struct json_object *classes = json_object_new_object();

	for (uint32_t c = 0; c < run->plan->classes.count; c++) {
		const struct load_latencies *l = &f->class[c];
		struct json_object *o = json_object_new_object();

		add_count(o, "requests", l->sent);
		add_count(o, "answered", l->good);
		add_count(o, "tokens", l->tokens);
		add_count(o, "prompt_tokens", l->prompt_tokens);
		add_latencies(o, l);
		add_summary(o, "itl_beside_ns", &l->itl_beside);
		json_object_object_add(classes, run->plan->classes.name[c], o);
	}
	return classes;
}

static struct json_object *answer_json(const struct load_run *run, uint32_t i)
{
	static const char *const finish[] = {"stop", "length", "cancel", "error"};
	const struct load_request *q = &run->plan->requests[i];
	const struct load_record *r = &run->records[i];
	struct json_object *o = json_object_new_object(), *ids = json_object_new_array();
	int status = r->ended ? r->status : MR_E_CANCELLED;

	if (q->prompt != LOAD_RANDOM)
		json_object_object_add(
			o, "prompt",
			json_object_new_string_len(run->plan->texts[q->prompt].text,
						   (int)run->plan->texts[q->prompt].bytes));
	else
		add_count(o, "random_tokens", q->prompt_tokens);
	json_object_object_add(o, "status", json_object_new_string(mr_status_name(status)));
	if (run->plan->classes.count)
		json_object_object_add(o, "class",
				       json_object_new_string(run->plan->classes.name[q->class]));
	if (run->plan->clients.count)
		json_object_object_add(o, "client",
				       json_object_new_string(run->plan->clients.name[q->client]));
	if (r->has_done) {
		json_object_object_add(o, "finish", json_object_new_string(finish[r->finish & 3]));
		add_count(o, "prompt_tokens", r->prompt_tokens);
		add_count(o, "cycles", r->cycles);
		add_count(o, "cycles_predicted", r->cycles - (uint64_t)(int64_t)r->cycles_off);
		add_count(o, "server_total_ns", r->total_ns);
	}
	if (r->limit)
		add_count(o, "limit", r->limit);
	add_count(o, "ttft_ns", load_ttft(r));
	for (uint32_t t = 0; t < r->tokens; t++)
		json_object_array_add(ids, json_object_new_int64(r->ids[t]));
	json_object_object_add(o, "ids", ids);
	return o;
}

static struct json_object *failures_json(const struct load_run *run)
{
	struct json_object *failures = json_object_new_object();

	for (int status = -1; status >= MR_E_INTERNAL; status--) {
		uint32_t limit, n = load_count_status(run, status, &limit);

		if (n)
			add_count(failures, mr_status_name(status), n);
	}
	return failures;
}

static struct json_object *generator_json(const struct load_run *run, const struct load_figures *f)
{
	struct json_object *o = json_object_new_object();

	add_count(o, "late", f->late);
	add_summary(o, "lag_ns", &f->lag);
	add_count(o, "no_room", run->held);
	add_count(o, "page_faults", run->faults);
	add_count(o, "preempted", run->preempted);
	return o;
}

static void add_server(struct json_object *o, const struct load_run *run,
		       const struct load_figures *f)
{
	struct json_object *copies = json_object_new_object(), *wire = json_object_new_object();

	add_summary(o, "server_queue_ns", &f->queue);
	add_summary(o, "server_prefill_ns", &f->prefill);
	json_object_object_add(o, "cycles_per_token", tool_json_number(f->cycles_per_token));
	for (uint32_t s = 0; s < run->copy_sites; s++)
		json_object_object_add(
			copies, load_site_name(s),
			tool_json_number(f->good ? (double)run->copies[s] / f->good : 0));
	json_object_object_add(o, "copies_per_request", copies);
	add_count(wire, "resends", run->wire.resends);
	add_count(wire, "repeated", run->wire.repeated);
	add_count(wire, "dropped", run->wire.dropped);
	json_object_object_add(o, "wire", wire);
}

void load_print_json(const struct load_run *run, const struct load_figures *f)
{
	const struct load_options *op = run->options;
	struct json_object *o = json_object_new_object(), *hiccup = json_object_new_object();
	struct json_object *answers = json_object_new_array();

	json_object_object_add(o, "transport", json_object_new_string(op->ring ? "ring" : "wire"));
	json_object_object_add(o, "arrivals",
			       json_object_new_string(op->trace      ? "trace"
						      : op->rate > 0 ? "poisson"
								     : "closed"));
	add_count(o, "requests", run->sent);
	add_count(o, "concurrency", run->plan->open ? 0 : op->concurrency);
	add_count(o, "answered", f->good);
	add_count(o, "failed", f->failed);
	add_count(o, "cut_off", f->cut);
	add_count(o, "never_sent", f->unsent);
	json_object_object_add(o, "failures", failures_json(run));
	json_object_object_add(o, "server_gone",
			       run->gone ? json_object_new_string(mr_status_name(run->gone))
					 : NULL);
	json_object_object_add(o, "seconds", tool_json_number(f->seconds));
	add_count(o, "tokens", f->all.tokens);
	json_object_object_add(o, "tokens_per_s", tool_json_number(f->tokens_per_s));
	json_object_object_add(o, "offered_per_s", tool_json_number(f->offered_per_s));
	json_object_object_add(o, "served_per_s", tool_json_number(f->served_per_s));
	add_latencies(o, &f->all);
	json_object_object_add(o, "classes", classes_json(run, f));
	json_object_object_add(o, "generator", generator_json(run, f));
	add_count(hiccup, "p99", run->hiccup_p99_ns);
	add_count(hiccup, "max", run->hiccup_max_ns);
	json_object_object_add(o, "hiccup_ns", hiccup);
	add_server(o, run, f);
	json_object_object_add(o, "machine", tool_facts_json());
	for (uint32_t i = 0; i < run->sent; i++)
		json_object_array_add(answers, answer_json(run, i));
	json_object_object_add(o, "answers", answers);
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
	json_object_put(o);
}
