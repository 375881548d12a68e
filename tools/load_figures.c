// SPDX-License-Identifier: Apache-2.0
/* The figures of a load, from its records: percentiles of everything, by class too where there are classes. */
#include <stdlib.h>

#include <millrace/status.h>

#include "tools/load.h"

/* A prompt that waits for its first token. */
struct wait {
	uint64_t begin, end;
};

struct scratch {
	const struct load_run *run;
	uint64_t *samples; /* as many as there are tokens and requests */
	struct wait *waits;
	uint32_t wait_count;
};

uint64_t load_ttft(const struct load_record *r)
{
	return r->tokens ? r->at[0] - r->due_ns : 0;
}

static uint64_t ttft_sent(const struct load_record *r)
{
	return r->tokens ? r->at[0] - r->sent_ns : 0;
}

static uint64_t total(const struct load_record *r)
{
	return r->ended && !r->status ? r->end_ns - r->due_ns : 0;
}

static uint64_t queue(const struct load_record *r)
{
	return r->queue_ns;
}

static uint64_t prefill(const struct load_record *r)
{
	return r->prefill_ns;
}

static int in_class(const struct scratch *s, uint32_t i, int class)
{
	return class < 0 || s->run->plan->requests[i].class == class;
}

/* Of the requests of @class (below 0: of all) for which @of is not 0. */
static struct tool_summary of_requests(struct scratch *s, int class,
				       uint64_t (*of)(const struct load_record *))
{
	uint64_t n = 0, v;

	for (uint32_t i = 0; i < s->run->sent; i++)
		if (in_class(s, i, class) && (v = of(&s->run->records[i])))
			s->samples[n++] = v;
	return tool_summarise(s->samples, n);
}

static int by_begin(const void *a, const void *b)
{
	const struct wait *x = a, *y = b;

	return (x->begin > y->begin) - (x->begin < y->begin);
}

/* When prompts of other classes than @class waited for their first tokens: in order, without overlap. */
static void find_waits(struct scratch *s, int class)
{
	uint32_t n = 0;

	s->wait_count = 0;
	for (uint32_t i = 0; i < s->run->sent; i++) {
		const struct load_record *r = &s->run->records[i];

		if (in_class(s, i, class) || (!r->tokens && !r->ended))
			continue;
		s->waits[n++] = (struct wait){r->sent_ns, r->tokens ? r->at[0] : r->end_ns};
	}
	qsort(s->waits, n, sizeof(*s->waits), by_begin);
	for (uint32_t i = 0; i < n; i++) {
		struct wait *last = s->wait_count ? &s->waits[s->wait_count - 1] : NULL;

		if (last && s->waits[i].begin <= last->end) {
			if (s->waits[i].end > last->end)
				last->end = s->waits[i].end;
		} else {
			s->waits[s->wait_count++] = s->waits[i];
		}
	}
}

/* Whether one of the waits has a part of the time from @begin to @end. */
static int beside(const struct scratch *s, uint64_t begin, uint64_t end)
{
	uint32_t low = 0, high = s->wait_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (s->waits[middle].end <= begin)
			low = middle + 1;
		else
			high = middle;
	}
	return low < s->wait_count && s->waits[low].begin < end;
}

/* Gaps between tokens; @only_beside: those that some other class's wait has a part of. */
static struct tool_summary gaps(struct scratch *s, int class, int only_beside)
{
	uint64_t n = 0;

	for (uint32_t i = 0; i < s->run->sent; i++) {
		const struct load_record *r = &s->run->records[i];

		if (!in_class(s, i, class))
			continue;
		for (uint32_t t = 1; t < r->tokens; t++)
			if (!only_beside || beside(s, r->at[t - 1], r->at[t]))
				s->samples[n++] = r->at[t] - r->at[t - 1];
	}
	return tool_summarise(s->samples, n);
}

static void latencies(struct scratch *s, int class, struct load_latencies *out)
{
	out->ttft = of_requests(s, class, load_ttft);
	out->ttft_sent = of_requests(s, class, ttft_sent);
	out->total = of_requests(s, class, total);
	out->itl = gaps(s, class, 0);
	if (class >= 0) {
		find_waits(s, class);
		out->itl_beside = gaps(s, class, 1);
	}
	for (uint32_t i = 0; i < s->run->sent; i++) {
		const struct load_record *r = &s->run->records[i];

		if (!in_class(s, i, class))
			continue;
		out->sent++;
		out->good += r->ended && r->status == 0;
		out->tokens += r->tokens;
		out->prompt_tokens += r->prompt_tokens;
	}
}

static void sum_up(struct scratch *s, struct load_figures *f)
{
	const struct load_run *run = s->run;
	uint64_t n = 0;

	for (uint32_t i = 0; i < run->sent; i++) {
		const struct load_record *r = &run->records[i];
		uint64_t lag = r->sent_ns - r->due_ns;

		f->good += r->ended && r->status == 0;
		f->cut += r->cut && r->status != 0;
		f->cut += r->cut && !r->ended;
		f->failed += r->ended && r->status != 0 && !r->cut;
		s->samples[n++] = lag;
		f->late += lag >= LOAD_LATE_NS;
		f->cycles += r->cycles;
		f->counted += r->cycles ? r->tokens : 0;
	}
	f->lag = tool_summarise(s->samples, run->plan->open ? n : 0);
	if (!run->plan->bounded)
		f->unsent = run->plan->count - run->sent;
	f->seconds = (double)(run->end_ns - run->begin_ns) * 1e-9;
	f->tokens_per_s = f->seconds > 0 ? (double)f->all.tokens / f->seconds : 0;
	f->served_per_s = f->seconds > 0 ? f->good / f->seconds : 0;
	if (run->plan->span_ns)
		f->offered_per_s = run->plan->count / ((double)run->plan->span_ns * 1e-9);
	f->cycles_per_token = f->counted ? (double)f->cycles / (double)f->counted : 0;
}

int load_figures(const struct load_run *run, struct load_figures *f)
{
	size_t room = (size_t)run->token_count + run->sent + 1;
	struct scratch s = {
		.run = run,
		.samples = calloc(room, sizeof(*s.samples)),
		.waits = calloc((size_t)run->sent + 1, sizeof(*s.waits)),
	};

	*f = (struct load_figures){0};
	if (s.samples && s.waits) {
		latencies(&s, -1, &f->all);
		for (uint32_t c = 0; c < run->plan->classes.count; c++)
			latencies(&s, (int)c, &f->class[c]);
		f->queue = of_requests(&s, -1, queue);
		f->prefill = of_requests(&s, -1, prefill);
		sum_up(&s, f);
	}
	free(s.samples);
	free(s.waits);
	return s.samples && s.waits ? 0 : MR_E_NO_MEMORY;
}

uint32_t load_count_status(const struct load_run *run, int status, uint32_t *limit)
{
	uint32_t n = 0;

	*limit = 0;
	for (uint32_t i = 0; i < run->sent; i++) {
		const struct load_record *r = &run->records[i];

		if (!r->ended || r->cut || r->status != status)
			continue;
		n++;
		if (r->limit)
			*limit = r->limit;
	}
	return n;
}
