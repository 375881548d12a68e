// SPDX-License-Identifier: Apache-2.0
/* Which request is due when: prompts in turn, random ones, a mix or a trace; at once, by Poisson or by the trace. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "tools/load.h"

/* What a closed loop by --seconds keeps room for where -n does not say: more than the nil device makes. */
#define CLOSED_TOKENS_PER_S 2e6

double load_gap_ns(struct load_random *random, double rate)
{
	/* 53 bits, in (0, 1]: the logarithm is finite, and no gap is longer than 37 means. */
	double u = (double)((load_random_next(random) >> 11) + 1) * 0x1p-53;

	return -log(u) / rate * 1e9;
}

static int failed(int status, const char *what)
{
	fprintf(stderr, "millrace: %s: %s (%s)\n", what, mr_strerror(status),
		mr_status_name(status));
	return -1;
}

/* How many requests a closed loop may send. */
static uint32_t closed_count(const struct load_options *o, struct load_plan *plan)
{
	double n;

	if (o->requests)
		return o->requests;
	if (o->seconds <= 0)
		return o->prompt_count;
	plan->bounded = 1;
	n = o->seconds * CLOSED_TOKENS_PER_S;
	if (n > LOAD_TOKENS_MAX / 2)
		n = LOAD_TOKENS_MAX / 2;
	n /= o->max_tokens;
	if (n < o->concurrency)
		return o->concurrency;
	return n < LOAD_REQUESTS_MAX ? (uint32_t)n : LOAD_REQUESTS_MAX;
}

static int make_room(struct load_plan *plan, uint32_t *room, uint32_t wanted)
{
	struct load_request *more;

	if (wanted <= *room)
		return 0;
	more = reallocarray(plan->requests, wanted, sizeof(*more));
	if (!more)
		return MR_E_NO_MEMORY;
	plan->requests = more;
	*room = wanted;
	return 0;
}

/* Arrivals of a Poisson process, for o->seconds or o->requests, whichever ends first. */
static int poisson(const struct load_options *o, struct load_plan *plan)
{
	struct load_random random = {o->sampling.seed};
	uint32_t most = o->requests ? o->requests : o->seconds > 0 ? UINT32_MAX : o->prompt_count;
	double at = load_gap_ns(&random, o->rate);
	uint32_t room = 0;

	plan->open = 1;
	while (plan->count < most && (o->seconds <= 0 || at < o->seconds * 1e9)) {
		if (plan->count == LOAD_REQUESTS_MAX || at > 1e18)
			return MR_E_TOO_LARGE;
		if (plan->count == room && make_room(plan, &room, room ? 2 * room : 256))
			return MR_E_NO_MEMORY;
		plan->requests[plan->count++] = (struct load_request){.due_ns = (uint64_t)at};
		at += load_gap_ns(&random, o->rate);
	}
	/* The process went on for this long: also the time without an arrival at its end. */
	plan->span_ns = plan->count < most ? (uint64_t)(o->seconds * 1e9)
			: plan->count      ? plan->requests[plan->count - 1].due_ns
					   : 0;
	return 0;
}

static int closed(const struct load_options *o, struct load_plan *plan)
{
	plan->count = closed_count(o, plan);
	plan->requests = calloc((size_t)plan->count + 1, sizeof(*plan->requests));
	return plan->requests ? 0 : MR_E_NO_MEMORY;
}

/* What each request of a plan that is not of a trace asks. */
static void fill(const struct load_options *o, struct load_plan *plan)
{
	if (o->mix_every) {
		load_label(&plan->classes, "short", 5);
		load_label(&plan->classes, "long", 4);
	}
	for (uint32_t i = 0; i < plan->count; i++) {
		struct load_request *r = &plan->requests[i];

		r->max_tokens = o->max_tokens;
		r->client = (uint16_t)(i % o->clients);
		r->prompt = o->prompt_count ? i % o->prompt_count : LOAD_RANDOM;
		r->prompt_tokens = o->prompt_count ? 0 : o->prompt_tokens;
		if (!o->mix_every)
			continue;
		r->class = i % o->mix_every == o->mix_every - 1;
		r->prompt_tokens = r->class ? o->mix_long : o->mix_short;
	}
}

static int by_trace(const struct load_options *o, struct load_plan *plan)
{
	struct load_trace *t = &plan->trace;
	int status = load_trace_read(o->trace, t);

	if (status) {
		fprintf(stderr, "millrace: %s", o->trace);
		if (t->error_line)
			fprintf(stderr, ": line %u", t->error_line);
		fprintf(stderr, ": %s (%s)\n", t->error, mr_status_name(status));
		return -1;
	}
	plan->requests = calloc(t->count, sizeof(*plan->requests));
	if (!plan->requests)
		return failed(MR_E_NO_MEMORY, o->trace);
	plan->open = 1;
	plan->texts = t->texts;
	plan->classes = t->classes;
	plan->clients = t->clients;
	for (uint32_t i = 0; i < t->count; i++) {
		const struct load_trace_entry *e = &t->entries[i];

		if ((o->requests && i == o->requests) ||
		    (o->seconds > 0 && (double)e->arrival_ns >= o->seconds * 1e9))
			break;
		plan->requests[plan->count++] = (struct load_request){
			.due_ns = e->arrival_ns,
			.prompt = e->prompt_tokens ? LOAD_RANDOM : e->prompt,
			.prompt_tokens = e->prompt_tokens,
			.max_tokens = e->answer_tokens ? e->answer_tokens : o->max_tokens,
			.class = e->class,
			.client = e->client,
		};
		plan->span_ns = e->arrival_ns;
	}
	return 0;
}

/* Sums, and the limit on what is kept. */
static int finish(struct load_plan *plan)
{
	for (uint32_t i = 0; i < plan->count; i++) {
		const struct load_request *r = &plan->requests[i];

		plan->tokens += r->max_tokens;
		if (r->prompt == LOAD_RANDOM && r->prompt_tokens > plan->longest)
			plan->longest = r->prompt_tokens;
	}
	if (plan->count && plan->tokens <= LOAD_TOKENS_MAX)
		return 0;
	if (!plan->count)
		fprintf(stderr, "millrace: no request is due within that time (%s)\n",
			mr_status_name(MR_E_RANGE));
	else
		fprintf(stderr,
			"millrace: %u requests with up to %llu tokens of answers in all; %u are "
			"kept at most: fewer requests or a smaller --max-tokens (%s)\n",
			plan->count, (unsigned long long)plan->tokens, LOAD_TOKENS_MAX,
			mr_status_name(MR_E_TOO_LARGE));
	return -1;
}

int load_plan_make(const struct load_options *o, struct load_plan *plan)
{
	int status;

	*plan = (struct load_plan){.texts = o->prompts};
	if (o->trace) {
		status = by_trace(o, plan);
		return status ? status : finish(plan);
	}
	status = o->rate > 0 ? poisson(o, plan) : closed(o, plan);
	if (status)
		return failed(status, status == MR_E_TOO_LARGE ? "too many arrivals" : "the plan");
	fill(o, plan);
	return finish(plan);
}

void load_plan_free(struct load_plan *plan)
{
	free(plan->requests);
	load_trace_free(&plan->trace);
}
