// SPDX-License-Identifier: Apache-2.0
/* Decode with forced input, for `millrace model logits` and `millrace model vectors`. */
#include "tools/forced.h"

#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>

#define SILENCE_NS 60000000000ull

struct sequence {
	struct mr_slot slot;
	uint32_t fed; /* tokens whose step has ended */
	int open;
};

struct forced_run {
	struct mr_device *dev;
	const struct tool_forced *in;
	struct sequence *seq;
	uint32_t count;
	struct mr_decode_entry *entries;
	uint32_t *entry_sequence; /* of entries[i] */
	uint32_t steps_max;       /* of a DECODE with logits, as far as is known */
	uint64_t tag, done, all;
	void (*step)(void *arg, const struct tool_forced_step *step);
	void (*progress)(void *arg, uint64_t done, uint64_t all);
	void *arg;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int tool_device_wait(struct mr_device *dev, struct mr_event *events, uint32_t max)
{
	uint64_t start = now_ns();

	for (;;) {
		int n = dev->work->poll(dev, events, max);

		if (n)
			return n;
		if (now_ns() - start > SILENCE_NS)
			return MR_E_TIMEOUT;
		if (dev->wait_fd >= 0 && !dev->work->arm(dev)) {
			struct pollfd p = {.fd = dev->wait_fd, .events = POLLIN};

			/* Bounded, so that a lost wake-up is a delay and the clock above still ends
			 * it. */
			poll(&p, 1, 1000);
		} else {
			nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
		}
	}
}

/* Waits for the DONE of @run's tag; hands tokens to the caller. Returns the work's status. */
static int drain(struct forced_run *run, uint32_t entries)
{
	for (;;) {
		struct mr_event e;
		/* One at a time: logits are valid until the next poll. */
		int n = tool_device_wait(run->dev, &e, 1);
		struct tool_forced_step s;
		uint32_t i = 0;

		if (n < 0)
			return n;
		if (e.tag != run->tag)
			return MR_E_PROTOCOL;
		if (e.type == MR_EVENT_DONE)
			return e.status;
		if (e.status)
			return e.status;
		while (i < entries && run->entries[i].slot.index != e.slot.index)
			i++;
		if (i == entries || !e.logits)
			return MR_E_PROTOCOL;
		s = (struct tool_forced_step){
			.sequence = run->entry_sequence[i],
			.position = run->seq[run->entry_sequence[i]].fed++,
			.sampled = e.token,
			.cycles = e.cycles,
			.logits = e.logits,
		};
		/* The event names the position of the new token, one after the token that was fed.
		 */
		if (e.position != s.position + 1)
			return MR_E_PROTOCOL;
		run->step(run->arg, &s);
		if (run->progress)
			run->progress(run->arg, ++run->done, run->all);
	}
}

static int prefill(struct forced_run *run, uint32_t i)
{
	const struct tool_forced *in = &run->in[i];
	struct sequence *s = &run->seq[i];

	while (s->fed < in->prefill) {
		uint32_t n = in->prefill - s->fed;
		int status;

		if (n > run->dev->caps.chunk_max)
			n = run->dev->caps.chunk_max;
		status = run->dev->work->prefill(run->dev, s->slot, in->tokens + s->fed, n, s->fed,
						 ++run->tag);
		if (!status)
			status = drain(run, 0);
		if (status)
			return status;
		s->fed += n;
	}
	return 0;
}

/* Opens slots in order while there is room. 0, or why the first of all could not be opened. */
static int open_slots(struct forced_run *run)
{
	uint32_t open = 0;

	for (uint32_t i = 0; i < run->count; i++) {
		struct sequence *s = &run->seq[i];
		struct mr_slot_config config = {.owner = i + 1, .positions = run->in[i].count + 1};
		int status;

		if (s->open || s->fed == run->in[i].count) {
			open += s->open != 0;
			continue;
		}
		status = run->dev->mem->slot_open(run->dev, &config, &s->slot);
		if ((status == MR_E_FULL || status == MR_E_KV_EXHAUSTED) && open)
			return 0;
		if (status)
			return status;
		s->open = 1;
		open++;
		status = prefill(run, i);
		if (status)
			return status;
	}
	return 0;
}

/* Fills entries from the open sequences; returns how many, and the steps that all of them can take.
 */
static uint32_t gather(struct forced_run *run, uint32_t *steps)
{
	uint32_t n = 0;

	*steps = run->steps_max;
	for (uint32_t i = 0; i < run->count && n < run->dev->caps.batch_max; i++) {
		const struct sequence *s = &run->seq[i];
		uint32_t left = run->in[i].count - s->fed;

		if (!s->open)
			continue;
		if (left < *steps)
			*steps = left;
		run->entry_sequence[n] = i;
		run->entries[n++] = (struct mr_decode_entry){
			.slot = s->slot,
			.position = s->fed,
			.token = run->in[i].tokens[s->fed],
			.forced = run->in[i].tokens + s->fed + 1,
			.flags = MR_DECODE_LOGITS,
		};
	}
	return n;
}

/* One DECODE of @n entries and at most @steps steps, to its end. */
static int decode(struct forced_run *run, uint32_t n, uint32_t steps)
{
	int status;

	for (;;) {
		for (uint32_t i = 0; i < n; i++) {
			run->entries[i].forced_count = steps - 1;
			if (steps == 1)
				run->entries[i].forced = NULL;
		}
		status = run->dev->work->decode(run->dev, run->entries, n, steps, ++run->tag);
		if (status == MR_E_FULL) {
			/* Room of the last DECODE's logits is given back by a poll; no event is due. */
			struct mr_event e;

			if (run->dev->work->poll(run->dev, &e, 1))
				return MR_E_PROTOCOL;
			status = run->dev->work->decode(run->dev, run->entries, n, steps, run->tag);
		}
		/* Logits of this many steps may be more than the device can read back at once. */
		if (status != MR_E_TOO_LARGE || steps == 1)
			break;
		run->steps_max = steps /= 2;
	}
	return status ? status : drain(run, n);
}

static int close_ended(struct forced_run *run)
{
	for (uint32_t i = 0; i < run->count; i++) {
		struct sequence *s = &run->seq[i];
		int status;

		if (!s->open || s->fed < run->in[i].count)
			continue;
		s->open = 0;
		status = run->dev->mem->slot_close(run->dev, s->slot);
		if (status)
			return status;
	}
	return 0;
}

static int run_all(struct forced_run *run)
{
	for (;;) {
		uint32_t n, steps;
		int status = open_slots(run);

		if (status)
			return status;
		n = gather(run, &steps);
		if (!n)
			return 0;
		status = decode(run, n, steps);
		if (!status)
			status = close_ended(run);
		if (status)
			return status;
	}
}

int tool_forced_run(struct mr_device *dev, const struct tool_forced *sequences, uint32_t count,
		    void (*step)(void *arg, const struct tool_forced_step *step),
		    void (*progress)(void *arg, uint64_t done, uint64_t all), void *arg)
{
	struct forced_run run = {
		.dev = dev,
		.in = sequences,
		.count = count,
		.steps_max = dev->caps.steps_max,
		.step = step,
		.progress = progress,
		.arg = arg,
	};
	int status = MR_E_NO_MEMORY;

	for (uint32_t i = 0; i < count; i++)
		run.all += sequences[i].count - sequences[i].prefill;
	run.seq = calloc(count, sizeof(*run.seq));
	run.entries = calloc(count, sizeof(*run.entries));
	run.entry_sequence = calloc(count, sizeof(*run.entry_sequence));
	if (run.seq && run.entries && run.entry_sequence)
		status = run_all(&run);
	for (uint32_t i = 0; run.seq && i < count; i++)
		if (run.seq[i].open)
			dev->mem->slot_close(dev, run.seq[i].slot);
	free(run.seq);
	free(run.entries);
	free(run.entry_sequence);
	return status;
}

uint32_t tool_argmax(const float *logits, uint32_t n)
{
	uint32_t best = 0;

	for (uint32_t i = 1; i < n; i++)
		if (logits[i] > logits[best])
			best = i;
	return best;
}

double tool_log_sum_exp(const float *logits, uint32_t n)
{
	double max = (double)logits[tool_argmax(logits, n)], sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += exp((double)logits[i] - max);
	return max + log(sum);
}

uint32_t tool_top(const float *logits, uint32_t n, uint32_t *ids, uint32_t k)
{
	uint32_t have = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t at;

		/* Not strictly larger than the last: a later id never displaces an equal earlier
		 * one. */
		if (have == k && (!k || !(logits[i] > logits[ids[k - 1]])))
			continue;
		at = have < k ? have++ : k - 1;
		for (; at && logits[i] > logits[ids[at - 1]]; at--)
			ids[at] = ids[at - 1];
		ids[at] = i;
	}
	return have;
}
