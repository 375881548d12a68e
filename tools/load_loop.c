// SPDX-License-Identifier: Apache-2.0
/*
 * The timing loop of `millrace load`: sends what is due, takes what came, and where there was nothing for a while,
 * sleeps until an answer or shortly before the next request is due. All its memory is there, and has been touched,
 * before the start. In an open loop a request's time counts from when it was due, whatever the loop was doing then.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <millrace/status.h>

#include "driver/model/model.h"
#include "driver/model/tokenizer.h"
#include "tools/load.h"

#define SPIN_NS       100000u      /* without work before it sleeps */
#define NAP_MAX_NS    10000000u    /* so that a signal is seen */
#define MARGIN_NS     100000u      /* it wakes so long before a request is due, and spins */
#define SEND_BURST    8            /* requests sent before answers get their turn */
#define LAST_WORDS_NS 500000000ull /* for the ends of cancelled requests */

/* What --stream has of the answer that it prints. */
struct load_stream {
	struct mr_detok detok;
};

/* ---- --stream ---- */

static void print_prompt(const struct load_run *run, uint32_t tag)
{
	const struct load_request *q = &run->plan->requests[tag];

	if (q->prompt == LOAD_RANDOM)
		printf("> (%u random tokens)\n", q->prompt_tokens);
	else
		printf("> %.*s\n", (int)run->plan->texts[q->prompt].bytes,
		       run->plan->texts[q->prompt].text);
}

static void print_token(struct load_run *run, uint32_t id)
{
	char text[MR_DETOK_MAX];
	size_t bytes = 0;
	int control = 0;
	const char *raw;

	if (run->options->model) {
		bytes = mr_detok_push(run->options->model->tokenizer, &run->stream->detok, id,
				      text);
		fwrite(text, 1, bytes, stdout);
	} else {
		raw = run->transport->token(run, id, &bytes, &control);
		if (raw && !control)
			fwrite(raw, 1, bytes, stdout);
	}
	fflush(stdout);
}

static void print_end(struct load_run *run, const struct load_record *r)
{
	char text[MR_DETOK_MAX];

	if (run->options->model)
		fwrite(text, 1, mr_detok_flush(&run->stream->detok, text), stdout);
	if (r->status)
		printf("[%s]", mr_status_name(r->status));
	if (r->cycles)
		printf("\n[%llu device cycles predicted, %llu counted]",
		       (unsigned long long)(r->cycles - (uint64_t)(int64_t)r->cycles_off),
		       (unsigned long long)r->cycles);
	printf("\n\n");
	fflush(stdout);
	run->stream->detok = (struct mr_detok){0};
}

/* One at a time is printed as it comes; several at once, each when it is whole. */
static int streams(const struct load_run *run)
{
	return run->options->stream && run->options->concurrency == 1;
}

/* ---- events ---- */

void load_token(struct load_run *run, uint32_t tag, uint32_t index, uint32_t id)
{
	struct load_record *r = &run->records[tag];

	/* A server that says more than was asked, or speaks after the end. */
	if (r->ended || index != r->tokens || index >= run->plan->requests[tag].max_tokens)
		return;
	r->at[index] = load_now();
	r->ids[index] = id;
	r->tokens = index + 1;
	__atomic_store_n(&run->token_count, run->token_count + 1, __ATOMIC_RELAXED);
	if (streams(run))
		print_token(run, id);
}

static void take_done(struct load_run *run, struct load_record *r, const struct load_done *done)
{
	r->has_done = 1;
	r->finish = (uint8_t)done->finish;
	r->prompt_tokens = done->prompt_tokens;
	r->queue_ns = done->queue_ns;
	r->prefill_ns = done->prefill_ns;
	r->total_ns = done->total_ns;
	r->cycles = done->cycles;
	r->cycles_off = done->cycles_off;
	if (done->copy_sites > run->copy_sites)
		run->copy_sites = done->copy_sites;
	for (uint32_t i = 0; r->status == 0 && i < done->copy_sites; i++)
		run->copies[i] += done->copies[i];
}

void load_end(struct load_run *run, uint32_t tag, int status, uint32_t limit,
	      const struct load_done *done)
{
	struct load_record *r = &run->records[tag];

	if (r->ended)
		return;
	r->end_ns = load_now();
	r->ended = 1;
	r->status = (int16_t)status;
	r->limit = limit;
	if (done)
		take_done(run, r, done);
	__atomic_store_n(&run->ended, run->ended + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&run->active, run->active - 1, __ATOMIC_RELAXED);
	if (!run->options->stream)
		return;
	if (!streams(run)) {
		print_prompt(run, tag);
		for (uint32_t i = 0; i < r->tokens; i++)
			print_token(run, r->ids[i]);
	}
	print_end(run, r);
}

/* ---- sending ---- */

static void input_of(const struct load_run *run, uint32_t tag, struct load_input *input)
{
	const struct load_request *q = &run->plan->requests[tag];

	if (q->prompt == LOAD_RANDOM) {
		load_pool_prompt(run, tag, input);
		if (!run->transport->takes_ids)
			input->ids = NULL;
		return;
	}
	*input = (struct load_input){
		.text = run->plan->texts[q->prompt].text,
		.bytes = run->plan->texts[q->prompt].bytes,
	};
}

/* Sends the next request. Returns MR_E_FULL where there is no room, else 0: an error is its end. */
static int send_next(struct load_run *run, uint64_t now)
{
	uint32_t tag = run->sent;
	const struct load_request *q = &run->plan->requests[tag];
	struct load_record *r = &run->records[tag];
	struct load_input input;
	int status;

	r->at = run->at_memory + run->prompts_end;
	r->ids = run->id_memory + run->prompts_end;
	r->sent_ns = now;
	r->due_ns = run->plan->open ? run->begin_ns + q->due_ns : now;
	input_of(run, tag, &input);
	__atomic_store_n(&run->sent, tag + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&run->active, run->active + 1, __ATOMIC_RELAXED);
	status = run->transport->send(run, tag, &input);
	if (status == MR_E_FULL) {
		__atomic_store_n(&run->sent, tag, __ATOMIC_RELAXED);
		__atomic_store_n(&run->active, run->active - 1, __ATOMIC_RELAXED);
		run->held += !run->last_held;
		run->last_held = 1;
		return status;
	}
	run->last_held = 0;
	run->prompts_end += q->max_tokens;
	if (streams(run))
		print_prompt(run, tag);
	if (status)
		load_end(run, tag, status, 0, NULL);
	return 0;
}

static int more(const struct load_run *run, uint64_t now)
{
	const struct load_options *o = run->options;

	if (run->sent == run->plan->count)
		return 0;
	return run->plan->open || o->seconds <= 0 ||
	       (double)(now - run->begin_ns) < o->seconds * 1e9;
}

/* Whether the next request may go now. */
static int due(const struct load_run *run, uint64_t now)
{
	if (run->plan->open)
		return run->begin_ns + run->plan->requests[run->sent].due_ns <= now;
	return run->active < run->options->concurrency;
}

static int send_due(struct load_run *run)
{
	int n = 0;

	for (; n < SEND_BURST; n++) {
		uint64_t now = load_now();

		if (!more(run, now) || !due(run, now))
			break;
		if (run->active == LOAD_FLIGHT_MAX) {
			run->held += !run->last_held;
			run->last_held = 1;
			break;
		}
		if (send_next(run, now) != 0)
			break;
	}
	return n;
}

/* ---- the loop ---- */

static void rest(struct load_run *run, uint64_t now, uint64_t *idle_since)
{
	uint64_t nap = NAP_MAX_NS, next;

	if (*idle_since == 0)
		*idle_since = now;
	if (run->options->busy || now - *idle_since < SPIN_NS) {
		__builtin_ia32_pause();
		return;
	}
	if (run->last_held) {
		nap = MARGIN_NS; /* room may come without an answer */
	} else if (run->plan->open && run->sent < run->plan->count) {
		next = run->begin_ns + run->plan->requests[run->sent].due_ns;
		if (next < now + 2 * MARGIN_NS) {
			__builtin_ia32_pause();
			return;
		}
		if (next - now - MARGIN_NS < nap)
			nap = next - now - MARGIN_NS;
	}
	run->transport->sleep(run, nap);
}

/* Takes what came; what is still under way ends where the server is gone. Returns how much came. */
static int take(struct load_run *run)
{
	int n = run->transport->poll(run);

	if (n >= 0)
		return n;
	run->gone = n;
	for (uint32_t i = 0; i < run->sent; i++)
		load_end(run, i, n, 0, NULL);
	return 0;
}

/* Ends what is under way, and gives the server some time to say so. */
static void cut(struct load_run *run)
{
	uint64_t until = load_now() + LAST_WORDS_NS, idle_since = 0;

	for (uint32_t i = 0; i < run->sent; i++) {
		if (run->records[i].ended)
			continue;
		run->records[i].cut = 1;
		run->transport->cancel(run, i);
	}
	while (run->active && !run->gone && load_now() < until)
		if (!take(run))
			rest(run, load_now(), &idle_since);
}

static void drive(struct load_run *run)
{
	uint64_t now, idle_since = 0;

	run->begin_ns = load_now();
	for (;;) {
		int did = send_due(run) + take(run);

		now = load_now();
		if (tool_stop || run->gone || (!run->active && !more(run, now)))
			break;
		if (did)
			idle_since = 0;
		else
			rest(run, now, &idle_since);
	}
	run->end_ns = now;
	run->stopped = tool_stop != 0;
	if (run->active)
		cut(run);
}

/* ---- before and after ---- */

static int make_room(struct load_run *run)
{
	size_t tokens = run->plan->tokens, requests = run->plan->count;

	run->records = calloc(requests, sizeof(*run->records));
	run->id_memory = calloc(tokens, sizeof(*run->id_memory));
	run->at_memory = calloc(tokens, sizeof(*run->at_memory));
	run->stream = calloc(1, sizeof(*run->stream));
	if (!run->records || !run->id_memory || !run->at_memory || !run->stream) {
		fprintf(stderr, "millrace: %s\n", mr_strerror(MR_E_NO_MEMORY));
		return -1;
	}
	/* Touched now: a first touch in the loop would be a page fault there. */
	explicit_bzero(run->records, requests * sizeof(*run->records));
	explicit_bzero(run->id_memory, tokens * sizeof(*run->id_memory));
	explicit_bzero(run->at_memory, tokens * sizeof(*run->at_memory));
	return 0;
}

static void measure(struct load_run *run)
{
	struct tool_hiccup *hiccup = tool_hiccup_start();
	struct load_progress *progress = load_progress_start(run);
	struct rusage before, after;

	getrusage(RUSAGE_THREAD, &before);
	drive(run);
	getrusage(RUSAGE_THREAD, &after);
	load_progress_stop(progress);
	tool_hiccup_stop(hiccup, &run->hiccup_p99_ns, &run->hiccup_max_ns);
	run->faults =
		(uint64_t)(after.ru_minflt - before.ru_minflt + after.ru_majflt - before.ru_majflt);
	run->preempted = (uint64_t)(after.ru_nivcsw - before.ru_nivcsw);
}

int load_run(struct load_run *run, const struct load_options *options, const struct load_plan *plan)
{
	uint64_t until = load_now() + options->wait_ms * 1000000ull;
	int status;

	*run = (struct load_run){
		.options = options,
		.plan = plan,
		.transport = options->ring ? &load_ring : &load_net,
	};
	if (make_room(run))
		return -1;
	status = run->transport->open(run, until);
	if (!status)
		status = load_pool_make(run);
	if (!status) {
		prctl(PR_SET_TIMERSLACK, 1000); /* short sleeps are short */
		measure(run);
	}
	run->transport->close(run);
	return status;
}

void load_free(struct load_run *run)
{
	load_pool_free(&run->pool);
	free(run->records);
	free(run->id_memory);
	free(run->at_memory);
	free(run->stream);
}
