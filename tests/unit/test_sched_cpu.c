// SPDX-License-Identifier: Apache-2.0
/*
 * The orchestrator over CPU devices on tests/tiny.gguf: a sequence's tokens and log-probabilities do not
 * depend on its company, on chunks, on steps or on a hand-over between devices; corrupt KV is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "driver/cpu/cpu.h"
#include "driver/mem/arena.h"
#include "driver/metrics.h"
#include "driver/model/model.h"
#include "support/sched_front.h"
#include "support/wrap_device.h"

#define CROWD  24u
#define TOKENS 20u
#define PLENTY 1000000u
#define TURNS  20000000u

struct bench {
	struct mr_model *model;
	struct mr_arena *arena;
	struct mr_device *cpu[3];
	struct wrap_device
		wrap; /* round the second, which decodes; the third has class D for all */
};

static int bench_open(void **state)
{
	static struct bench b;
	struct mr_arena_options arena = {.node = -1, .no_huge = 1};
	char why[256] = "";

	assert_int_equal(mr_model_open(MR_TEST_DATA "/tiny.gguf", &b.model, why, sizeof(why)), 0);
	assert_int_equal(mr_arena_create(&arena, &b.arena), 0);
	for (int i = 0; i < 3; i++) {
		struct mr_cpu_options cpu = {
			.arena = b.arena,
			.slots = 40,
			.kv_tokens = 16384,
			.numerics = i == 2 ? MR_NUMERICS_STRICT : MR_NUMERICS_EXACT,
			.cpu = -1,
		};

		assert_int_equal(mr_cpu_open(&cpu, &b.cpu[i]), 0);
		assert_int_equal(b.cpu[i]->work->load(b.cpu[i], b.model, NULL, NULL), 0);
	}
	wrap_device(&b.wrap, b.cpu[1]);
	*state = &b;
	return 0;
}

static int bench_close(void **state)
{
	struct bench *b = *state;

	b->cpu[0]->admin->close(b->cpu[0]);
	b->cpu[1]->admin->close(b->cpu[1]);
	b->cpu[2]->admin->close(b->cpu[2]);
	mr_arena_destroy(b->arena);
	mr_model_close(b->model);
	return 0;
}

static uint32_t prompt_of(const struct bench *b, uint64_t key, uint32_t *ids)
{
	uint64_t seed = 1 + key * 7919;
	uint32_t count = key == 0 ? 1 : 1 + (uint32_t)(wrap_random(&seed) % 300);

	for (uint32_t i = 0; i < count; i++)
		ids[i] = (uint32_t)(wrap_random(&seed) % b->model->shape.vocab);
	return count;
}

static struct mr_sched *sched_of(struct bench *b, int split, uint32_t chunk, uint32_t steps)
{
	struct mr_sched_options o = {
		.model = b->model,
		.prefill = split ? b->cpu[0] : &b->wrap.dev,
		.decode = &b->wrap.dev,
		.requests = CROWD,
		.chunk = chunk,
		.steps = steps,
	};
	struct mr_sched *sched = NULL;

	assert_int_equal(mr_sched_create(&o, &sched), 0);
	return sched;
}

static void submit(struct bench *b, struct sched_front *front, struct mr_sched *sched, uint64_t key,
		   uint32_t credit)
{
	uint32_t ids[512], count = prompt_of(b, key, ids);

	assert_int_equal(sched_front_submit(front, sched, 1, key, ids, count,
					    TOKENS + (uint32_t)key, credit),
			 0);
}

/* Each prompt alone: what company must not change. */
static void alone(struct bench *b, struct sched_front *front)
{
	sched_front_init(front, CROWD);
	for (uint64_t key = 0; key < CROWD; key++) {
		struct mr_sched *sched = sched_of(b, 0, 128, 1);

		submit(b, front, sched, key, PLENTY);
		assert_int_equal(sched_front_drain(sched, TURNS), 0);
		assert_int_equal(front->answers[key].end.status, 0);
		mr_sched_destroy(sched);
	}
	assert_int_equal(front->broken, 0);
}

static void equal(const struct sched_front *a, const struct sched_front *b, uint64_t key)
{
	const struct answer *x = &a->answers[key], *y = &b->answers[key];

	assert_int_equal(y->end.status, 0);
	assert_int_equal(x->count, y->count);
	assert_memory_equal(x->ids, y->ids, x->count * sizeof(x->ids[0]));
	assert_memory_equal(x->logprobs, y->logprobs, x->count * sizeof(x->logprobs[0]));
}

/*
 * All prompts together, joining a few turns apart, some short of credit now and then, every fifth given up
 * on the way.
 */
static void together(struct bench *b, const struct sched_front *want, int split, uint32_t chunk,
		     uint32_t steps)
{
	struct mr_sched *sched = sched_of(b, split, chunk, steps);
	struct sched_front front;
	uint64_t next = 0, random = chunk * 31 + steps;

	sched_front_init(&front, CROWD);
	b->wrap.most_entries = b->wrap.most_steps = 0;
	for (uint32_t turn = 0; turn < TURNS && front.ended < CROWD; turn++) {
		uint64_t dice = wrap_random(&random);

		if (next < CROWD && dice % 4 == 0)
			submit(b, &front, sched, next++, (uint32_t)(dice >> 8) % 8);
		for (uint64_t key = 0; key < next; key++)
			if (front.answers[key].credit == 0 && wrap_random(&random) % 4 == 0)
				front.answers[key].credit = 1 + (uint32_t)(dice >> 16) % 9;
		for (uint64_t key = 4; key < next; key += 5)
			if (front.answers[key].count == key % 7)
				mr_sched_cancel(sched, 1, key);
		mr_sched_poll(sched);
	}
	assert_int_equal(front.ended, CROWD);
	assert_int_equal(front.broken, 0);
	assert_true(b->wrap.most_entries > 1); /* they did share a DECODE */
	for (uint64_t key = 0; key < CROWD; key++)
		if (key % 5 != 4)
			equal(want, &front, key);
	mr_sched_destroy(sched);
	sched_front_free(&front);
}

static void company(void **state)
{
	static const uint32_t chunks[] = {1, 7, 16, 33, 128, 512};
	struct bench *b = *state;
	struct sched_front want;

	alone(b, &want);
	for (size_t i = 0; i < sizeof(chunks) / sizeof(*chunks); i++) {
		together(b, &want, 0, chunks[i], 1);
		together(b, &want, 1, chunks[i], i % 2 ? 4 : 1);
	}
	sched_front_free(&want);
}

struct corruption {
	int left;
	int refused; /* 0 = one is under way */
	uint32_t owner;
};

/*
 * Makes the last block's checksum wrong between the export and the device's look at it. The block itself must
 * stay: prefill of the next chunk may be reading it.
 */
/* Short prompts that come together share passes, and a chunk goes in each DECODE's pass, not between two. */
static void meet(void **state)
{
	struct bench *b = *state;
	const struct mr_sched_options o = {.model = b->model,
					   .prefill = b->cpu[2],
					   .decode = b->cpu[2],
					   .requests = CROWD,
					   .steps = 1};
	struct mr_sched *sched;
	struct sched_front front;
	uint64_t passes = mr_metric_read(MR_M_cpu_passes), mixed;
	uint32_t ids[300];

	assert_int_equal(mr_sched_create(&o, &sched), 0);
	for (uint32_t i = 0; i < 300; i++)
		ids[i] = (i * 7919 + 5) % b->model->shape.vocab;
	sched_front_init(&front, CROWD);
	for (uint64_t key = 0; key < 8; key++) {
		ids[0] = (uint32_t)key + 1;
		assert_int_equal(
			sched_front_submit(&front, sched, key % 3, key, ids, 13, 1, PLENTY), 0);
	}
	assert_int_equal(sched_front_drain(sched, TURNS), 0);
	/* 96 rows of prompts, 8 of a DECODE; the first two passes may have one of their own between them. */
	assert_in_range(mr_metric_read(MR_M_cpu_passes) - passes, 3, 4);

	assert_int_equal(sched_front_submit(&front, sched, 1, 8, ids, 20, 200, PLENTY), 0);
	while (front.answers[8].count < 5)
		mr_sched_poll(sched);
	passes = mr_metric_read(MR_M_cpu_passes);
	mixed = mr_metric_read(MR_M_cpu_passes_mixed);
	ids[0] = 99;
	assert_int_equal(sched_front_submit(&front, sched, 2, 9, ids, 300, 1, PLENTY), 0);
	while (!front.answers[9].ended)
		mr_sched_poll(sched);
	passes = mr_metric_read(MR_M_cpu_passes) - passes;
	mixed = mr_metric_read(MR_M_cpu_passes_mixed) - mixed;
	/* 299 tokens are 4 chunks of 63 and one of 47; the DECODE that runs before them, and their last token's, are not. */
	assert_int_equal(mixed, 5);
	assert_in_range(passes, 5, 8);
	mr_sched_cancel(sched, 1, 8);
	assert_int_equal(sched_front_drain(sched, TURNS), 0);
	assert_int_equal(front.broken, 0);
	sched_front_free(&front);
	mr_sched_destroy(sched);
}

static void corrupt(void *arg, struct mr_kv_desc *descs, uint32_t count)
{
	struct corruption *c = arg;

	/* Of the sequence that it began with alone: others' imports come between its two hand-overs. */
	if (!c->refused || (c->owner && descs->owner != c->owner) || c->left-- <= 0)
		return;
	c->owner = descs->owner;
	c->refused = 0;
	descs[count - 1].crc32c ^= 0x10;
}

static void refused(void *arg, const struct mr_event *event)
{
	struct corruption *c = arg;

	c->refused |= event->status == MR_E_CHECKSUM;
}

/* Once: the second hand-over heals it. Twice: the request ends by name, and only that one. */
static void corrupt_kv(void **state)
{
	struct bench *b = *state;
	struct sched_front want;

	alone(b, &want);
	for (int times = 1; times <= 2; times++) {
		struct corruption c = {.left = times, .refused = 1};
		uint64_t before = mr_metric_read(MR_M_sched_kv_stale);
		struct mr_sched *sched = sched_of(b, 1, 128, 1);
		struct sched_front front;

		sched_front_init(&front, CROWD);
		submit(b, &front, sched, 1, PLENTY);
		submit(b, &front, sched, 2, PLENTY);
		b->wrap.on_import = corrupt;
		b->wrap.on_event = refused;
		b->wrap.arg = &c;
		assert_int_equal(sched_front_drain(sched, TURNS), 0);
		b->wrap.on_import = NULL;
		b->wrap.on_event = NULL;
		assert_int_equal(c.refused, 1);
		if (times == 1) {
			equal(&want, &front, 1);
		} else {
			assert_int_equal(front.answers[1].end.status, MR_E_CHECKSUM);
			assert_int_equal(front.answers[1].count, 0);
		}
		equal(&want, &front, 2);
		assert_int_equal(mr_metric_read(MR_M_sched_kv_stale) - before, times);
		assert_int_equal(front.broken, 0);
		mr_sched_destroy(sched);
		sched_front_free(&front);
	}
	sched_front_free(&want);
}

/* Text and chat: refused by size and emptiness, else the model's own tokens in front. */
static void text(void **state)
{
	struct bench *b = *state;
	struct mr_sched *sched = sched_of(b, 0, 128, 1);
	static const uint32_t sizes[] = {0, MR_PROMPT_BYTES_MAX + 1, MR_PROMPT_BYTES_MAX, 5};
	static const int wants[] = {MR_E_INVALID, MR_E_TOO_LARGE, MR_E_CONTEXT_FULL, 0};
	struct sched_front front;

	sched_front_init(&front, CROWD);
	for (uint32_t flags = 0; flags <= MR_REQUEST_CHAT; flags++) {
		for (int i = 0; i < 4; i++) {
			struct mr_request *r = mr_sched_request(sched);

			assert_non_null(r);
			memset(r->text, '7', MR_PROMPT_BYTES_MAX);
			r->ops = &sched_front_ops;
			r->front = &front;
			r->key = flags;
			r->flags = flags;
			r->max_tokens = 2;
			r->text_bytes = sizes[i];
			assert_int_equal(mr_sched_submit(sched, r), wants[i]);
			if (wants[i] == 0)
				front.answers[flags] = (struct answer){
					.accepted = 1, .prompt = r->token_count, .credit = PLENTY};
		}
	}
	assert_int_equal(sched_front_drain(sched, TURNS), 0);
	assert_int_equal(front.ended, 2);
	assert_int_equal(front.broken, 0);
	assert_int_equal(front.answers[0].prompt, 5); /* a digit is a token of its own */
	assert_true(front.answers[1].prompt > 10);    /* the template round it */
	mr_sched_destroy(sched);
	sched_front_free(&front);
}

/* CHAT after a named prefix goes on with the conversation that was named, as an APPEND to it does. */
static void chat_after_prefix(void **state)
{
	static const char *const texts[] = {"7 and 5?", "And 3?", "And 3?"};
	struct bench *b = *state;
	struct mr_sched *sched = sched_of(b, 0, 128, 1);
	struct sched_front front;

	sched_front_init(&front, CROWD);
	for (uint64_t key = 0; key < 3; key++) {
		struct mr_request *r = mr_sched_request(sched);

		assert_non_null(r);
		memcpy(r->text, texts[key], strlen(texts[key]));
		r->text_bytes = (uint32_t)strlen(texts[key]);
		r->ops = &sched_front_ops;
		r->front = &front;
		r->key = key;
		r->flags = MR_REQUEST_CHAT | MR_REQUEST_IGNORE_EOS | (key ? 0 : MR_REQUEST_KEEP);
		r->max_tokens = 6;
		r->prefix = key == 1 ? 77 : 0;
		r->op = key == 2 ? MR_REQUEST_APPEND : MR_REQUEST_SUBMIT;
		r->target = 0;
		assert_int_equal(mr_sched_submit(sched, r), 0);
		front.answers[key] =
			(struct answer){.accepted = 1, .prompt = r->token_count, .credit = PLENTY};
		assert_int_equal(sched_front_drain(sched, TURNS), 0);
		assert_int_equal(front.answers[key].end.status, 0);
		if (key == 0)
			assert_int_equal(mr_sched_prefix(sched, 0, 0, 77), 0);
	}
	assert_int_equal(front.answers[1].prompt, front.answers[2].prompt);
	assert_memory_equal(front.answers[1].ids, front.answers[2].ids,
			    6 * sizeof(front.answers[1].ids[0]));
	assert_int_equal(front.broken, 0);
	mr_sched_destroy(sched);
	sched_front_free(&front);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(company),           cmocka_unit_test(meet),
		cmocka_unit_test(corrupt_kv),        cmocka_unit_test(text),
		cmocka_unit_test(chat_after_prefix),
	};

	return cmocka_run_group_tests(tests, bench_open, bench_close);
}
