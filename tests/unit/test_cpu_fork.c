// SPDX-License-Identifier: Apache-2.0
/*
 * Forks, scores and KV events of the CPU backend on tests/tiny.gguf: a fork goes on with the bits of a plain
 * run, whatever becomes of its parent, on every kernel path; a score is what the logits of forced steps say;
 * KV that is told of is final; no block is lost or written by two.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "driver/cpu/cpu.h"
#include "driver/mem/arena.h"
#include "driver/model/model.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/sample.h"
#include "support/kv_storm.h"

#define PROMPT  45u /* the last of them is the first token fed to a decode */
#define ANSWER  24u /* steps of a whole run */
#define SCORED  100u
#define TOKENS  320u
#define CONTEXT 512u

static struct mr_arena *arena;
static struct mr_model *model;
static uint32_t tokens[TOKENS];
static uint64_t tags;

static struct mr_device *team_of(const char *kernels, uint32_t slots, uint64_t kv_tokens,
				 uint32_t threads)
{
	const struct mr_cpu_options options = {
		.arena = arena,
		.slots = slots,
		.context = CONTEXT,
		.kv_tokens = kv_tokens,
		.kernels = kernels,
		.numerics = MR_NUMERICS_STRICT, /* prefill's bits are compared with decode's */
		.cpu = -1,
		.threads = threads,
	};
	struct mr_device *dev;

	assert_int_equal(mr_cpu_open(&options, &dev), 0);
	assert_int_equal(dev->work->load(dev, model, NULL, NULL), 0);
	return dev;
}

static struct mr_device *device_of(const char *kernels, uint32_t slots, uint64_t kv_tokens)
{
	return team_of(kernels, slots, kv_tokens, 1);
}

/* Sleeps on wait_fd until there may be an event. */
static void wait_some(struct mr_device *dev)
{
	struct pollfd p = {.fd = dev->wait_fd, .events = POLLIN};

	if (!dev->work->arm(dev))
		assert_int_equal(poll(&p, 1, 20000), 1);
}

static struct mr_event next(struct mr_device *dev)
{
	struct mr_event e;

	while (!dev->work->poll(dev, &e, 1))
		wait_some(dev);
	return e;
}

static void finish(struct mr_device *dev, uint64_t tag)
{
	struct mr_event e = next(dev);

	assert_int_equal(e.type, MR_EVENT_DONE);
	assert_true(e.tag == tag);
	assert_int_equal(e.status, 0);
}

static struct mr_slot open_slot(struct mr_device *dev, const struct mr_sampling *sampling,
				uint32_t positions, uint32_t flags)
{
	struct mr_slot_config config = {.positions = positions, .flags = flags};
	struct mr_slot slot;

	if (sampling)
		config.sampling = *sampling;
	assert_int_equal(dev->mem->slot_open(dev, &config, &slot), 0);
	return slot;
}

static void prefill(struct mr_device *dev, struct mr_slot slot, uint32_t from, uint32_t to)
{
	assert_int_equal(dev->work->prefill(dev, slot, tokens + from, to - from, from, ++tags), 0);
	finish(dev, tags);
}

/* An answer as it was made: fed[i] made fed[i + 1] from logits with hash[i]. */
struct answer {
	uint32_t fed[ANSWER + 1];
	uint64_t hash[ANSWER];
	float logprob[ANSWER];
};

static uint64_t fnv(const void *data, size_t bytes)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (const unsigned char *p = data; bytes--; p++)
		h = (h ^ *p) * UINT64_C(0x100000001b3);
	return h;
}

static void post(struct mr_device *dev, struct mr_slot slot, const struct answer *a, uint32_t from,
		 uint32_t n)
{
	const struct mr_decode_entry e = {
		.slot = slot,
		.position = PROMPT - 1 + from,
		.token = a->fed[from],
		.flags = MR_DECODE_LOGITS,
	};

	assert_int_equal(dev->work->decode(dev, &e, 1, n, ++tags), 0);
}

static void take(struct mr_device *dev, struct answer *a, uint32_t from, uint32_t n)
{
	for (uint32_t i = from; i < from + n; i++) {
		struct mr_event e = next(dev);

		assert_int_equal(e.type, MR_EVENT_TOKEN);
		assert_int_equal(e.position, PROMPT + i);
		a->fed[i + 1] = e.token;
		a->hash[i] = fnv(e.logits, dev->caps.vocab * sizeof(float));
		a->logprob[i] = e.logprob;
	}
	finish(dev, tags);
}

/* Steps @from to @to - 1 of an answer, of at most 8 at a time. */
static void decode(struct mr_device *dev, struct mr_slot slot, struct answer *a, uint32_t from,
		   uint32_t to)
{
	for (uint32_t n; from < to; from += n) {
		n = to - from < 8 ? to - from : 8;
		post(dev, slot, a, from, n);
		take(dev, a, from, n);
	}
}

static struct mr_slot begin(struct mr_device *dev, const struct mr_sampling *sampling,
			    struct answer *a)
{
	struct mr_slot slot = open_slot(dev, sampling, PROMPT + ANSWER, 0);

	memset(a, 0, sizeof(*a));
	a->fed[0] = tokens[PROMPT - 1];
	prefill(dev, slot, 0, PROMPT - 1);
	return slot;
}

/* A fork after @step steps of @a, with the penalties' memory of them. */
static struct mr_slot fork_at(struct mr_device *dev, struct mr_slot from,
			      const struct mr_sampling *sampling, const struct answer *a,
			      uint32_t step)
{
	const struct mr_slot_config config = {
		.positions = PROMPT + ANSWER,
		.sampling = *sampling,
		.history_count = step,
		.history = a->fed,
	};
	struct mr_slot slot;

	assert_int_equal(dev->mem->kv_fork(dev, from, PROMPT - 1 + step, &config, &slot), 0);
	return slot;
}

static void same(const struct answer *a, const struct answer *b)
{
	assert_memory_equal(a->fed, b->fed, sizeof(a->fed));
	assert_memory_equal(a->hash, b->hash, sizeof(a->hash));
	assert_memory_equal(a->logprob, b->logprob, sizeof(a->logprob));
}

/* The fork is made while the steps before it are under way, and the parent is closed at once. */
static void orphan(struct mr_device *dev, const struct mr_sampling *sampling,
		   const struct answer *plain, uint32_t step)
{
	struct answer a;
	struct mr_slot parent = begin(dev, sampling, &a), child;

	/* The history is known beforehand here: it is the plain run's. */
	post(dev, parent, &a, 0, step);
	child = fork_at(dev, parent, sampling, plain, step);
	assert_int_equal(dev->mem->slot_close(dev, parent), 0);
	take(dev, &a, 0, step);
	decode(dev, child, &a, step, ANSWER);
	same(&a, plain);
	assert_int_equal(dev->mem->slot_close(dev, child), 0);
}

/* Parent and child go on together; the parent is fed something else where the child is to be read. */
static void siblings(struct mr_device *dev, const struct mr_sampling *sampling,
		     const struct answer *plain, uint32_t step)
{
	struct answer a, other;
	struct mr_slot parent = begin(dev, sampling, &a), child, second;

	decode(dev, parent, &a, 0, step);
	child = fork_at(dev, parent, sampling, &a, step);
	second = fork_at(dev, parent, sampling, &a, step);
	other = a;
	other.fed[step] = (a.fed[step] + 1) % dev->caps.vocab;
	decode(dev, parent, &other, step, ANSWER);
	decode(dev, child, &a, step, ANSWER);
	same(&a, plain);
	memset(a.hash + step, 0, sizeof(uint64_t) * (ANSWER - step));
	decode(dev, second, &a, step, ANSWER);
	same(&a, plain);
	assert_int_equal(dev->mem->slot_close(dev, parent), 0);
	assert_int_equal(dev->mem->slot_close(dev, child), 0);
	assert_int_equal(dev->mem->slot_close(dev, second), 0);
}

/* Each step on a fork of the one before. */
static void chain(struct mr_device *dev, const struct mr_sampling *sampling,
		  const struct answer *plain)
{
	struct answer a;
	struct mr_slot slot = begin(dev, sampling, &a), child;

	for (uint32_t step = 0; step < ANSWER; step++) {
		child = fork_at(dev, slot, sampling, &a, step);
		assert_int_equal(dev->mem->slot_close(dev, slot), 0);
		slot = child;
		decode(dev, slot, &a, step, step + 1);
	}
	same(&a, plain);
	assert_int_equal(dev->mem->slot_close(dev, slot), 0);
}

static void forks(void **state)
{
	static const struct mr_sampling ways[] = {
		{.temperature = 0},
		{.temperature = 0, .repeat = 1.5f, .presence = 0.4f},
		{.seed = 7, .temperature = 1.3f, .top_k = 50, .repeat = 1.2f, .frequency = 0.6f},
	};
	struct answer answers[3];

	for (int k = 0; mr_kernels_all[k]; k++) {
		struct mr_device *dev;

		if (!mr_kernels_runnable(mr_kernels_all[k])) {
			print_message("SKIPPED: this CPU cannot run %s\n", mr_kernels_all[k]->name);
			continue;
		}
		dev = device_of(mr_kernels_all[k]->name, 4, 2048);
		for (int w = 0; w < 3; w++) {
			struct answer plain;
			struct mr_slot slot = begin(dev, &ways[w], &plain);

			decode(dev, slot, &plain, 0, ANSWER);
			assert_int_equal(dev->mem->slot_close(dev, slot), 0);
			if (k)
				same(&plain, &answers[w]);
			answers[w] = plain;
			/* 44 + 4 and 44 + 20 positions: nothing to copy */
			orphan(dev, &ways[w], &plain, 4);
			orphan(dev, &ways[w], &plain, 7);
			siblings(dev, &ways[w], &plain, 3);
			siblings(dev, &ways[w], &plain, 20);
			siblings(dev, &ways[w], &plain, 23);
			chain(dev, &ways[w], &plain);
			assert_int_equal(kv_blocks_used(dev), 0);
		}
		dev->admin->close(dev);
	}
	/* Else the penalties did nothing, and the history could not be missed. */
	assert_memory_not_equal(answers[0].fed, answers[1].fed, sizeof(answers[0].fed));
}

static void refusals(void **state)
{
	struct mr_device *dev = device_of(NULL, 3, 8 * 16);
	struct mr_slot a = open_slot(dev, NULL, 80, 0), b, c;
	struct mr_kv_desc desc = {.length = 16};
	uint32_t bad = dev->caps.vocab;
	struct mr_slot_config config = {.positions = 80};
	struct mr_decode_entry e = {.slot = a, .position = 31};
	const struct mr_memory_ops *mem = dev->mem;

	prefill(dev, a, 0, 40);
	assert_int_equal(mem->kv_fork(dev, a, 41, &config, &b), MR_E_TRUNCATED);
	config.positions = 39;
	assert_int_equal(mem->kv_fork(dev, a, 40, &config, &b), MR_E_INVALID);
	config.positions = 8 * 16 + 1;
	assert_int_equal(mem->kv_fork(dev, a, 40, &config, &b), MR_E_CONTEXT_FULL);
	config.positions = 6 * 16;
	assert_int_equal(mem->kv_fork(dev, a, 40, &config, &b), MR_E_KV_EXHAUSTED);
	assert_int_equal(kv_blocks_used(dev), 5);
	config.positions = 5 * 16;
	assert_int_equal(mem->kv_fork(dev, a, 40, &config, &b), 0);
	assert_int_equal(kv_blocks_used(dev), 8);
	config.positions = 32;
	assert_int_equal(mem->kv_fork(dev, a, 32, &config, &c), 0);
	assert_int_equal(mem->kv_fork(dev, a, 32, &config, &c), MR_E_FULL);
	assert_int_equal(kv_blocks_used(dev), 8);

	/* Into what is shared nobody may write. */
	assert_int_equal(dev->work->prefill(dev, a, tokens, 1, 31, 1), MR_E_BUSY);
	assert_int_equal(dev->work->prefill(dev, b, tokens, 1, 0, 1), MR_E_BUSY);
	assert_int_equal(dev->work->decode(dev, &e, 1, 1, 1), MR_E_BUSY);
	assert_int_equal(dev->work->score(dev, c, tokens, 2, 16, 1), MR_E_BUSY);
	assert_int_equal(mem->kv_import(dev, a, &desc, 1, 1), MR_E_BUSY);
	assert_int_equal(dev->work->score(dev, a, tokens, 1, 40, 1), MR_E_INVALID);
	assert_int_equal(dev->work->score(dev, a, tokens, 2, 41, 1), MR_E_INVALID);
	assert_int_equal(dev->work->score(dev, a, tokens, 42, 40, 1), MR_E_CONTEXT_FULL);
	assert_int_equal(dev->work->score(dev, a, &bad, 2, 40, 1), MR_E_RANGE);
	prefill(dev, a, 32, 40); /* its own */
	assert_int_equal(mem->slot_close(dev, a), 0);
	assert_int_equal(mem->kv_fork(dev, a, 16, &config, &a), MR_E_STALE);
	assert_int_equal(dev->work->score(dev, a, tokens, 2, 40, 1), MR_E_STALE);
	assert_int_equal(mem->slot_close(dev, c), 0);
	prefill(dev, b, 8, 40); /* nobody else's any more */

	/* What failed left nothing to fork from. */
	desc.generation = b.generation;
	desc.block = 4;
	desc.iova = UINT64_MAX - 8;
	assert_int_equal(mem->kv_import(dev, b, &desc, 1, 77), 0);
	assert_int_equal(next(dev).status, MR_E_DMA_FAULT);
	config.positions = 80;
	assert_int_equal(mem->kv_fork(dev, b, 41, &config, &c), MR_E_TRUNCATED);

	config = (struct mr_slot_config){.positions = 16, .history_count = 1, .history = &bad};
	assert_int_equal(mem->slot_open(dev, &config, &a), MR_E_RANGE);
	config.history_count = MR_LPU_HISTORY_MAX + 1;
	assert_int_equal(mem->slot_open(dev, &config, &a), MR_E_RANGE);
	config.history = NULL;
	assert_int_equal(mem->slot_open(dev, &config, &a), MR_E_INVALID);
	config = (struct mr_slot_config){.positions = 16, .flags = 2};
	assert_int_equal(mem->slot_open(dev, &config, &a), MR_E_INVALID);
	dev->admin->close(dev);
}

/* Scores on a fork against the logits of forced steps on another; the parent stays as it was. */
static void scores(void **state)
{
	struct mr_device *dev = device_of(NULL, 4, 2048);
	struct mr_slot parent = open_slot(dev, NULL, 300, 0), forced, scored;
	struct mr_slot_config config = {.positions = 300};
	float want[SCORED], logprob[2];
	uint32_t count = SCORED + 1; /* more than one pass over the weights */

	prefill(dev, parent, 0, 50);
	assert_int_equal(dev->mem->kv_fork(dev, parent, 50, &config, &forced), 0);
	for (uint32_t i = 0; i < SCORED; i++) {
		struct mr_decode_entry e = {
			.slot = forced,
			.position = 50 + i,
			.token = tokens[50 + i],
			.flags = MR_DECODE_LOGITS,
		};
		struct mr_event ev;

		assert_int_equal(dev->work->decode(dev, &e, 1, 1, ++tags), 0);
		ev = next(dev);
		want[i] = mr_logprob(ev.logits, dev->caps.vocab, tokens[51 + i]);
		assert_true(ev.logprob == mr_logprob(ev.logits, dev->caps.vocab, ev.token));
		finish(dev, tags);
	}
	assert_int_equal(dev->mem->kv_fork(dev, parent, 50, &config, &scored), 0);
	assert_int_equal(dev->work->score(dev, scored, tokens + 50, count, 50, ++tags), 0);
	for (uint32_t i = 0; i < SCORED; i++) {
		struct mr_event e = next(dev);

		assert_int_equal(e.type, MR_EVENT_TOKEN);
		assert_int_equal(e.token, tokens[51 + i]);
		assert_int_equal(e.position, 51 + i);
		assert_true(e.tag == tags && !e.stopped && !e.logits && e.seen_ns);
		assert_memory_equal(&e.logprob, &want[i], sizeof(float));
	}
	finish(dev, tags);

	/* KV of what was scored is there: both slots make the same next token. */
	for (int i = 0; i < 2; i++) {
		struct mr_decode_entry e = {
			.slot = i ? scored : forced,
			.position = 50 + SCORED,
			.token = tokens[50 + SCORED],
		};

		assert_int_equal(dev->work->decode(dev, &e, 1, 1, ++tags), 0);
		logprob[i] = next(dev).logprob;
		finish(dev, tags);
	}
	assert_memory_equal(&logprob[0], &logprob[1], sizeof(float));
	dev->admin->close(dev);
}

/*
 * Three chunks at once; what each event tells of is exported when it comes and compared at the end, and with
 * what @crc holds of another run.
 */
static void kv_events_of(uint32_t threads, uint32_t crc[8][20])
{
	static const uint32_t reached[] = {64, 100, 164, 200, 264, 300};
	struct mr_device *dev = team_of(NULL, 2, 1024, threads);
	struct mr_slot slot = open_slot(dev, NULL, 301, MR_SLOT_KV_EVENTS), quiet;
	uint32_t layers = model->shape.layers, layer = 0, pass = 0, done = 0;
	uint32_t told[8] = {0};
	struct mr_kv_desc d[20];

	assert_true(layers <= 8);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(
			dev->work->prefill(dev, slot, tokens + 100 * i, 100, 100 * i, i + 1), 0);
	while (done < 3) {
		struct mr_event e = next(dev);
		int n;

		if (e.type == MR_EVENT_DONE) {
			assert_int_equal(e.status, 0);
			assert_true(e.tag == ++done && pass == 2 * done && layer == 0);
			continue;
		}
		assert_int_equal(e.type, MR_EVENT_KV);
		assert_true(e.tag == done + 1 && e.slot.generation == slot.generation);
		assert_int_equal(e.layer, layer);
		assert_int_equal(e.position, reached[pass]);
		told[layer] = e.position;
		/* Whole blocks while work is to come, and the last one when there is no more. */
		for (uint32_t l = 0; l < layers; l++) {
			uint32_t whole = told[l] == 300 ? 19 : told[l] / 16;

			n = dev->mem->kv_export(dev, slot, l, 0, 9, 9, d, 20);
			assert_int_equal(n, whole);
			for (int b = 0; b < n; b++) {
				assert_int_equal(d[b].length, b == 18 ? 12 : 16);
				if (crc[l][b])
					assert_int_equal(d[b].crc32c, crc[l][b]);
				crc[l][b] = d[b].crc32c;
			}
		}
		layer = (layer + 1) % layers;
		pass += layer == 0;
	}
	assert_int_equal(pass, 6);

	/* A slot that does not ask hears nothing. */
	quiet = open_slot(dev, NULL, 301, 0);
	prefill(dev, quiet, 0, 300);
	for (uint32_t l = 0; l < layers; l++) {
		assert_int_equal(dev->mem->kv_export(dev, quiet, l, 0, 9, 9, d, 20), 19);
		for (int b = 0; b < 18; b++)
			assert_int_equal(d[b].crc32c, crc[l][b]);
	}
	dev->admin->close(dev);
}

static void kv_events(void **state)
{
	uint32_t crc[8][20] = {{0}};

	for (uint32_t threads = 1; threads <= 3; threads++)
		kv_events_of(threads, crc);
}

/* A fork's blocks may be exported when its parent's have been written, not before. */
static void fork_export(void **state)
{
	struct mr_device *dev = device_of(NULL, 2, 1024);
	struct mr_slot slot = open_slot(dev, NULL, 320, 0), child;
	struct mr_slot_config config = {.positions = 320};
	struct mr_kv_desc parents[20], childs[20];
	struct mr_event e;
	int n = 0;

	for (int round = 0; round < 2; round++) { /* with and without a block to copy */
		uint32_t at = round ? 150 : 160;

		prefill(dev, slot, 0, 100);
		assert_int_equal(dev->work->prefill(dev, slot, tokens + 100, 200, 100, ++tags), 0);
		assert_int_equal(dev->mem->kv_fork(dev, slot, at, &config, &child), 0);
		assert_int_equal(dev->mem->kv_export(dev, child, 0, 0, 9, 9, childs, 20), 0);
		finish(dev, tags);
		while ((n = dev->mem->kv_export(dev, child, 0, 0, 9, 9, childs, 20)) == 0) {
			wait_some(dev);
			assert_int_equal(dev->work->poll(dev, &e, 1), 0);
		}
		assert_int_equal(n, 10);
		assert_int_equal(dev->mem->kv_export(dev, slot, 0, 0, 9, 9, parents, 20), 19);
		for (int b = 0; b < n; b++) {
			assert_int_equal(childs[b].crc32c, parents[b].crc32c);
			assert_int_equal(childs[b].iova == parents[b].iova, b < (int)at / 16);
		}
		assert_int_equal(dev->mem->slot_close(dev, child), 0);
	}
	dev->admin->close(dev);
}

/* A parent that is closed while its fork's copy waits behind other work: nobody gets its slot so far. */
static void slot_reuse(void **state)
{
	struct mr_device *dev = device_of(NULL, 4, 2048);
	struct mr_slot busy = open_slot(dev, NULL, 512, 0), parent = open_slot(dev, NULL, 320, 0);
	struct mr_slot_config config = {.positions = 320};
	struct mr_slot child, later;
	struct mr_kv_desc before[20], after[20];
	uint64_t first;

	prefill(dev, parent, 0, 150);
	assert_int_equal(dev->mem->kv_export(dev, parent, 1, 0, 9, 9, before, 20), 10);
	first = tags + 1;
	for (int i = 0; i < 4; i++)
		assert_int_equal(dev->work->prefill(dev, busy, tokens, 300, 0, ++tags), 0);
	assert_int_equal(dev->mem->kv_fork(dev, parent, 150, &config, &child), 0);
	assert_int_equal(dev->mem->slot_close(dev, parent), 0);
	later = open_slot(dev, NULL, 320, 0);
	assert_int_equal(dev->work->prefill(dev, later, tokens + 5, 200, 0, ++tags), 0);
	while (first <= tags)
		finish(dev, first++);
	assert_int_equal(dev->mem->kv_export(dev, child, 1, 0, 9, 9, after, 20), 10);
	for (int b = 0; b < 10; b++)
		assert_int_equal(before[b].crc32c, after[b].crc32c);
	dev->admin->close(dev);
}

/* A reset amid forks: one DONE for each posted work, nothing for the copies, no block lost. */
static void reset(void **state)
{
	struct mr_device *dev = device_of("scalar", 8, 4096);
	struct mr_slot slot = open_slot(dev, NULL, 330, MR_SLOT_KV_EVENTS), child;
	struct mr_slot_config config = {.positions = 320};
	uint64_t first = tags + 1;
	uint32_t dones = 0, failed = 0;
	struct mr_telemetry t;

	for (int i = 0; i < 6; i++) {
		uint32_t at = 300 + (uint32_t)i;

		assert_int_equal(i ? dev->work->score(dev, slot, tokens, 21, at - 1, ++tags)
				   : dev->work->prefill(dev, slot, tokens, 300, 0, ++tags),
				 0);
		assert_int_equal(dev->mem->kv_fork(dev, slot, at, &config, &child), 0);
	}
	assert_int_equal(dev->admin->reset(dev), 0);
	assert_int_equal(dev->mem->slot_close(dev, child), MR_E_STALE);
	while (dones < 6) {
		struct mr_event e = next(dev);

		if (e.type != MR_EVENT_DONE)
			continue;
		assert_true(e.tag == first + dones++);
		failed += e.status == MR_E_DEVICE;
	}
	assert_true(failed >= 4);
	assert_int_equal(dev->admin->telemetry(dev, &t), 0);
	assert_int_equal(t.commands, 6);
	for (int tries = 0; kv_blocks_used(dev) && tries < 100; tries++) {
		struct mr_event e;

		wait_some(dev);
		assert_int_equal(dev->work->poll(dev, &e, 1), 0);
	}
	assert_int_equal(kv_blocks_used(dev), 0);
	assert_int_equal(dev->admin->telemetry(dev, &t), 0);
	assert_int_equal(t.completions, 6);
	dev->admin->close(dev);
}

/* ---- storms: see support/kv_storm.h ---- */

#define STORM_BLOCKS 40u

static struct mr_slot marker; /* one slot and one block are kept for it */

static void take_some(struct mr_device *dev)
{
	struct mr_event e;

	if (!dev->work->poll(dev, &e, 1))
		wait_some(dev);
}

static void mark(struct mr_device *dev)
{
	const struct mr_slot_config config = {.positions = 1};
	struct mr_event e;
	int status;

	while ((status = dev->work->prefill(dev, marker, tokens, 1, 0, 0)) != 0) {
		/* A reset took it, and the slots that it closed are free when their work has ended. */
		if (status == MR_E_STALE)
			status = dev->mem->slot_open(dev, &config, &marker);
		if (status == MR_E_FULL || status == MR_E_KV_EXHAUSTED)
			take_some(dev);
		else
			assert_int_equal(status, 0);
	}
	do
		e = next(dev);
	while (e.tag || e.type != MR_EVENT_DONE);
}

/* Forks tell nobody, but end before whatever is posted when all that they waited for has ended. */
static void drain(struct mr_device *dev)
{
	struct mr_telemetry t;

	do {
		mark(dev);
		assert_int_equal(dev->admin->telemetry(dev, &t), 0);
	} while (t.completions != t.commands);
	mark(dev);
}

static void storms(void **state)
{
	for (uint64_t seed = 1; seed <= 3; seed++) {
		struct kv_storm s = {
			.dev = device_of(NULL, KV_STORM_SLOTS + 1, (STORM_BLOCKS + 1) * 16),
			.blocks = STORM_BLOCKS,
			.kept = 1,
			.rounds = 1000,
			.seed = seed,
			.resets = 60,
			.drain = drain,
		};

		marker = (struct mr_slot){0};
		drain(s.dev);
		kv_storm(&s);
		s.dev->admin->close(s.dev);
	}
}

static int setup(void **state)
{
	const struct mr_arena_options options = {.node = -1, .no_huge = 1};
	uint32_t seed = 42;

	assert_int_equal(mr_model_open("tests/tiny.gguf", &model, NULL, 0), 0);
	assert_int_equal(mr_arena_create(&options, &arena), 0);
	for (uint32_t i = 0; i < TOKENS; i++) {
		seed = seed * 1664525u + 1013904223u;
		tokens[i] = (seed >> 8) % model->shape.vocab;
	}
	return 0;
}

static int teardown(void **state)
{
	mr_arena_destroy(arena);
	mr_model_close(model);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forks),       cmocka_unit_test(refusals),
		cmocka_unit_test(scores),      cmocka_unit_test(kv_events),
		cmocka_unit_test(fork_export), cmocka_unit_test(reset),
		cmocka_unit_test(slot_reuse),  cmocka_unit_test(storms),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
