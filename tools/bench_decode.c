// SPDX-License-Identifier: Apache-2.0
/*
 * Decode as a user gets it: requests through the orchestrator in this process, prefill and hand-over
 * included, no ring and no network. The front below counts tokens and takes the time of each.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "driver/sched/sched.h"
#include "tools/bench.h"

#define LIMIT_NS 120000000000ull /* of one run */

struct bench_front {
	uint32_t batch;
	uint32_t started, ended;    /* requests with a token, requests at their end */
	uint64_t tokens;            /* made while all requests decode */
	uint64_t first_ns, last_ns; /* of those */
	uint64_t cycles, cycle_tokens;
	uint64_t prefill_ns; /* of the first request, which had the device to itself */
	int32_t status;
};

static uint64_t now_ns(void)
{
	return mr_clock_monotonic.now_ns(mr_clock_monotonic.arg);
}

/*
 * Whoever has made its first token waits for the others, so that all decode together from there on, at the
 * same positions. front_word[0] counts a request's tokens.
 */
static uint32_t front_credit(void *front, const struct mr_request *request)
{
	const struct bench_front *f = front;

	if (f->started == f->batch)
		return UINT32_MAX;
	return request->front_word[0] ? 0 : 1;
}

static void front_token(void *front, struct mr_request *request, const struct mr_token *token)
{
	struct bench_front *f = front;
	uint64_t now = now_ns();

	request->front_word[0]++;
	if (token->index == 0 && ++f->started == f->batch) {
		f->first_ns = f->last_ns = now;
		return;
	}
	/* The window: from when the last request has begun until the first ends. */
	if (f->started < f->batch || f->ended)
		return;
	f->tokens++;
	f->last_ns = now;
	f->cycles += token->cycles;
	f->cycle_tokens += token->cycles != 0;
}

static void front_end(void *front, struct mr_request *request, const struct mr_end *end)
{
	struct bench_front *f = front;

	if (end->status)
		f->status = end->status;
	if (request->key == 0)
		f->prefill_ns = end->prefilled_ns - end->start_ns;
	f->ended++;
}

static const struct mr_front_ops front_ops = {front_credit, front_token, front_end};

static int submit(struct mr_sched *sched, const struct mr_model *model, struct bench_front *front,
		  const struct bench_decode_options *o, uint64_t key)
{
	struct mr_request *r = mr_sched_request(sched);

	if (!r)
		return MR_E_FULL;
	r->ops = &front_ops;
	r->front = front;
	r->key = key;
	r->flags = MR_REQUEST_TOKENS | MR_REQUEST_IGNORE_EOS;
	r->max_tokens = o->answer;
	r->token_count = o->prompt;
	/* Any ids will do: time does not depend on them. Spread over the vocabulary, each prompt its own. */
	for (uint32_t i = 0; i < o->prompt; i++)
		r->tokens[i] = (uint32_t)((key * 131 + i * 2654435761u) % model->shape.vocab);
	return mr_sched_submit(sched, r);
}

/* Turns the loop until @done requests have ended; sleeps on the devices when there is nothing to do. */
static int turn(struct mr_sched *sched, const struct tool_devices *d, const struct bench_front *f,
		uint32_t done)
{
	uint64_t start = now_ns();

	while (f->ended < done) {
		struct pollfd p[2] = {{.fd = d->prefill->wait_fd, .events = POLLIN},
				      {.fd = d->decode->wait_fd, .events = POLLIN}};

		if (mr_sched_poll(sched))
			continue;
		if (tool_stop)
			return MR_E_CANCELLED;
		if (now_ns() - start > LIMIT_NS)
			return MR_E_TIMEOUT;
		if (p[0].fd >= 0 && p[1].fd >= 0 && !mr_sched_arm(sched))
			poll(p, 2, 100);
	}
	return f->status;
}

int bench_decode_run(struct tool_devices *devices, const struct mr_model *model,
		     const struct bench_decode_options *o, struct bench_decode_result *out)
{
	const struct mr_sched_options options = {
		.model = model,
		.prefill = devices->prefill,
		.decode = devices->decode,
		.requests = o->batch,
		.batch_max = o->batch,
	};
	struct bench_front alone = {.batch = 1}, f = {.batch = o->batch};
	struct bench_decode_options one = *o;
	struct mr_sched *sched;
	int status = mr_sched_create(&options, &sched);

	if (status)
		return status;
	/* Prefill is timed with nothing beside it: one prompt, one token. */
	one.answer = 1;
	status = submit(sched, model, &alone, &one, 0);
	if (!status)
		status = turn(sched, devices, &alone, 1);
	for (uint64_t i = 0; !status && i < o->batch; i++)
		status = submit(sched, model, &f, o, i);
	if (!status)
		status = turn(sched, devices, &f, o->batch);
	mr_sched_destroy(sched);
	if (status)
		return status;
	if (!f.tokens || f.last_ns == f.first_ns)
		return MR_E_RANGE; /* the answers did not overlap: nothing was measured */
	/* Prefill makes KV for all positions of the prompt but the last. */
	out->prefill_tokens_s =
		alone.prefill_ns ? (o->prompt - 1) * 1e9 / (double)alone.prefill_ns : 0;
	out->decode_tokens_s = (double)f.tokens * 1e9 / (double)(f.last_ns - f.first_ns);
	out->cycles_token = f.cycle_tokens ? f.cycles / f.cycle_tokens : 0;
	return 0;
}
