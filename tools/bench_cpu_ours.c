// SPDX-License-Identifier: Apache-2.0
/*
 * The CPU backend driven at its ops, without orchestrator, as bench_cpu_ends.c times it: prefill of a prompt,
 * a first token, decode steps of a batch at one context.
 */
#include <poll.h>
#include <time.h>

#include "tools/bench_ours.h"

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Takes events until @jobs works have ended; their first failure. */
static int drain(struct mr_device *dev, uint32_t jobs)
{
	struct mr_event e[64];
	int status = 0;

	while (jobs) {
		int n = dev->work->poll(dev, e, 64);
		struct pollfd p = {.fd = dev->wait_fd, .events = POLLIN};

		for (int i = 0; i < n; i++) {
			jobs -= e[i].type == MR_EVENT_DONE;
			if (e[i].type == MR_EVENT_DONE && e[i].status && !status)
				status = e[i].status;
		}
		if (!n && !dev->work->arm(dev))
			poll(&p, 1, -1);
	}
	return status;
}

static int prefill(struct bench_ours *b, struct mr_slot slot, uint32_t count)
{
	uint32_t max = b->dev->caps.chunk_max;
	int status = 0;

	for (uint32_t at = 0, n; at < count && !status; at += n) {
		n = count - at < max ? count - at : max;
		status = b->dev->work->prefill(b->dev, slot, b->tokens + at, n, at, at);
		if (!status)
			status = drain(b->dev, 1);
	}
	return status;
}

static int decode(struct bench_ours *b, const struct bench_end *end, uint32_t position,
		  uint32_t steps)
{
	struct mr_decode_entry entries[BENCH_BATCH_MAX];
	uint32_t max = b->dev->caps.steps_max;
	int status = 0;

	for (uint32_t done = 0, n; done < steps && !status; done += n) {
		n = steps - done < max ? steps - done : max;
		for (uint32_t i = 0; i < end->batch; i++)
			entries[i] = (struct mr_decode_entry){
				.slot = b->slots[i],
				.position = position + done,
				.token = b->tokens[(position + done + i) % BENCH_TOKENS_MAX],
			};
		status = b->dev->work->decode(b->dev, entries, end->batch, n, done);
		if (!status)
			status = drain(b->dev, 1);
	}
	return status;
}

int bench_ours_prepare(struct bench_ours *b, const struct bench_end *end)
{
	uint32_t need = (end->prefill ? end->prefill : end->context) + end->steps + 1;
	uint32_t filled = end->prefill ? 0 : end->context;
	int status = 0;

	bench_ours_release(b);
	for (uint32_t i = 0; i < BENCH_TOKENS_MAX; i++)
		b->tokens[i] = i * 2654435761u % b->dev->caps.vocab;
	for (uint32_t i = 0; i < end->batch && !status; i++) {
		struct mr_slot_config config = {.owner = i, .positions = need};

		status = b->dev->mem->slot_open(b->dev, &config, &b->slots[i]);
		b->open += !status;
		if (!status && filled)
			status = prefill(b, b->slots[i], filled);
	}
	return status;
}

void bench_ours_release(struct bench_ours *b)
{
	while (b->open)
		b->dev->mem->slot_close(b->dev, b->slots[--b->open]);
}

int bench_ours_run(struct bench_ours *b, const struct bench_end *end, double *seconds)
{
	double start = now_s();
	int status = 0;

	if (end->prefill)
		status = prefill(b, b->slots[0], end->prefill - end->first);
	if (!status && end->first)
		status = decode(b, end, end->prefill - 1, 1);
	else if (!status && !end->prefill)
		status = decode(b, end, end->context, end->steps);
	*seconds = now_s() - start;
	return status;
}
