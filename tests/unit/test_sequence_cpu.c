// SPDX-License-Identifier: Apache-2.0
/*
 * Forks, appends and shared prefixes on tests/tiny.gguf, bit for bit: each gives the ids and
 * log-probabilities of a plain run over the same tokens that shares nothing, on one CPU device and on two.
 * Sampled, not greedy: with greedy answers a wrong position or history would often not be seen.
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
#include "support/tile_emulated.h"
#include "support/wrap_device.h"

#define TURNS  20000000u
#define PROMPT 53u
#define FIRST  15u /* tokens before a fork or an append */
#define LAST   25u
#define MORE   21u /* tokens appended */

struct bench {
	struct mr_model *model;
	struct mr_arena *arena;
	struct mr_device *cpu[3]; /* two in class D, one with a class P for prompts */
	struct mr_sched *sched;
	struct sched_front front;
};

static int bench_open(void **state)
{
	static struct bench b;
	struct mr_arena_options arena = {.node = -1, .no_huge = 1};
	char why[256] = "";

	assert_int_equal(mr_model_open(MR_TEST_DATA "/tiny.gguf", &b.model, why, sizeof(why)), 0);
	assert_int_equal(mr_arena_create(&arena, &b.arena), 0);
	for (int i = 0; i < 2 + kernels_emulated_runnable(); i++) {
		struct mr_cpu_options cpu = {
			.arena = b.arena,
			.slots = 24,
			.kv_tokens = 8192,
			.table = i == 2 ? &kernels_emulated : NULL,
			.numerics = i == 2 ? MR_NUMERICS_EXACT : MR_NUMERICS_STRICT,
			.cpu = -1,
		};

		assert_int_equal(mr_cpu_open(&cpu, &b.cpu[i]), 0);
		assert_int_equal(b.cpu[i]->work->load(b.cpu[i], b.model, NULL, NULL), 0);
	}
	*state = &b;
	return 0;
}

static int bench_close(void **state)
{
	struct bench *b = *state;

	for (int i = 0; i < 3; i++)
		if (b->cpu[i])
			b->cpu[i]->admin->close(b->cpu[i]);
	mr_arena_destroy(b->arena);
	mr_model_close(b->model);
	return 0;
}

/* @split: 0 = one device, 1 = two, 2 = prompts in class P, answers in D. */
static void start(struct bench *b, int split, int cache)
{
	struct mr_sched_options o = {
		.model = b->model,
		.prefill = b->cpu[split],
		.decode = b->cpu[split == 2 ? 2 : 0],
		.requests = 8,
		.chunk = 32,
		.no_cache = !cache,
	};

	assert_int_equal(mr_sched_create(&o, &b->sched), 0);
	sched_front_init(&b->front, 16);
}

static void stop(struct bench *b)
{
	const char *why = "";

	assert_int_equal(b->front.broken, 0);
	if (mr_sched_check(b->sched, &why))
		fail_msg("%s", why);
	mr_sched_destroy(b->sched);
	for (int i = 0; i < 2 + !!b->cpu[2]; i++) {
		struct mr_telemetry t;

		assert_int_equal(b->cpu[i]->admin->telemetry(b->cpu[i], &t), 0);
		assert_int_equal(t.kv_blocks_used, 0);
	}
	sched_front_free(&b->front);
}

static struct mr_request *ask(struct bench *b, enum mr_request_op op, uint64_t key, uint32_t max)
{
	struct mr_request *r = mr_sched_request(b->sched);

	assert_non_null(r);
	r->ops = &sched_front_ops;
	r->front = &b->front;
	r->client = 1;
	r->key = key;
	r->op = op;
	r->max_tokens = max;
	r->flags = MR_REQUEST_IGNORE_EOS | (op == MR_REQUEST_FORK ? 0 : MR_REQUEST_TOKENS);
	r->sampling.temperature = 0.9f;
	r->sampling.seed = 77;
	return r;
}

/* Submits; @before = tokens of the sequence before the answer. */
static void go(struct bench *b, struct mr_request *r, uint32_t before)
{
	struct answer *a = &b->front.answers[r->key];

	*a = (struct answer){.key = r->key, .prompt = before, .accepted = 1, .credit = 1000};
	assert_int_equal(mr_sched_submit(b->sched, r), 0);
}

static void drain(struct bench *b)
{
	assert_int_equal(sched_front_drain(b->sched, TURNS), 0);
}

static void fill(const struct bench *b, uint32_t *to, uint32_t count, uint64_t seed)
{
	for (uint32_t i = 0; i < count; i++)
		to[i] = (uint32_t)(wrap_random(&seed) % b->model->shape.vocab);
}

/* A run of @ids alone, that shares nothing with anybody. */
static void plain(struct bench *b, int split, const uint32_t *ids, uint32_t count, uint32_t max,
		  float repeat, struct answer *out)
{
	struct mr_request *r;

	start(b, split, 0);
	r = ask(b, MR_REQUEST_SUBMIT, 0, max);
	memcpy(r->tokens, ids, count * sizeof(*ids));
	r->token_count = count;
	r->sampling.repeat = repeat;
	go(b, r, count);
	drain(b);
	*out = b->front.answers[0];
	assert_int_equal(out->end.status, 0);
	assert_int_equal(out->end.reused, 0);
	assert_int_equal(out->count, max);
	stop(b);
}

static void equal(const struct answer *got, const struct answer *want, uint32_t from,
		  uint32_t count)
{
	assert_int_equal(got->end.status, 0);
	assert_int_equal(got->count, count);
	assert_memory_equal(got->ids, want->ids + from, count * sizeof(got->ids[0]));
	assert_memory_equal(got->logprobs, want->logprobs + from, count * sizeof(got->logprobs[0]));
}

/* A fork goes on as its parent would have, from a paused one and from one that decodes meanwhile. */
static void fork_equals(struct bench *b, int split, float repeat)
{
	struct answer want;
	struct mr_request *r;
	uint32_t ids[PROMPT], at;

	fill(b, ids, PROMPT, 11);
	plain(b, split, ids, PROMPT, FIRST + LAST, repeat, &want);
	start(b, split, 1);
	r = ask(b, MR_REQUEST_SUBMIT, 1, FIRST);
	memcpy(r->tokens, ids, sizeof(ids));
	r->token_count = PROMPT;
	r->flags |= MR_REQUEST_KEEP;
	r->sampling.repeat = repeat;
	go(b, r, PROMPT);
	drain(b);
	equal(&b->front.answers[1], &want, 0, FIRST);
	for (uint64_t key = 2; key < 4; key++) { /* two of the same parent, and a chain */
		r = ask(b, MR_REQUEST_FORK, key, LAST);
		r->target = key - 1;
		r->sampling.repeat = repeat;
		if (key == 2) {
			r->max_tokens = 4;
			r->flags |= MR_REQUEST_KEEP;
		}
		go(b, r, PROMPT + FIRST + (key == 2 ? 0 : 4));
		drain(b);
	}
	equal(&b->front.answers[2], &want, FIRST, 4);
	assert_int_equal(b->front.answers[3].end.status, 0);
	assert_memory_equal(b->front.answers[3].ids, want.ids + FIRST + 4, (LAST - 4) * 4);
	/* A parent on its way. */
	r = ask(b, MR_REQUEST_SUBMIT, 5, FIRST + LAST);
	memcpy(r->tokens, ids, sizeof(ids));
	r->token_count = PROMPT;
	r->sampling.repeat = repeat;
	go(b, r, PROMPT);
	while (b->front.answers[5].count < 7)
		mr_sched_poll(b->sched);
	at = b->front.answers[5].count;
	r = ask(b, MR_REQUEST_FORK, 6, FIRST + LAST - at);
	r->target = 5;
	r->sampling.repeat = repeat;
	go(b, r, PROMPT + at);
	drain(b);
	equal(&b->front.answers[5], &want, 0, FIRST + LAST);
	equal(&b->front.answers[6], &want, at, FIRST + LAST - at);
	assert_int_equal(b->front.answers[6].end.reused, PROMPT + at - 1);
	stop(b);
}

static void forks(void **state)
{
	for (int split = 0; split < 2; split++)
		for (int repeat = 0; repeat < 2; repeat++)
			fork_equals(*state, split, repeat ? 1.3f : 0.0f);
}

/* An append, twice, against the whole conversation as one prompt */
static void append_equals(struct bench *b, int split)
{
	struct answer want;
	struct mr_request *r;
	uint32_t ids[PROMPT + 2 * (FIRST + MORE)], count = PROMPT;

	fill(b, ids, PROMPT, 12);
	start(b, split, 1);
	r = ask(b, MR_REQUEST_SUBMIT, 1, FIRST);
	memcpy(r->tokens, ids, PROMPT * sizeof(*ids));
	r->token_count = PROMPT;
	r->flags |= MR_REQUEST_KEEP;
	go(b, r, PROMPT);
	drain(b);
	for (uint64_t key = 2; key < 4; key++) {
		memcpy(ids + count, b->front.answers[key - 1].ids, FIRST * sizeof(*ids));
		count += FIRST;
		fill(b, ids + count, MORE, key);
		r = ask(b, MR_REQUEST_APPEND, key, FIRST);
		memcpy(r->tokens, ids + count, MORE * sizeof(*ids));
		r->token_count = MORE;
		r->target = 1;
		r->flags |= MR_REQUEST_KEEP;
		count += MORE;
		go(b, r, count);
		drain(b);
		assert_int_equal(b->front.answers[key].end.status, 0);
		assert_int_equal(b->front.answers[key].end.reused, count - MORE - 1);
	}
	{
		struct answer got = b->front.answers[3];

		stop(b);
		plain(b, split, ids, count, FIRST, 0.0f, &want);
		equal(&got, &want, 0, FIRST);
	}
}

static void appends(void **state)
{
	append_equals(*state, 0);
	append_equals(*state, 1);
}

/* A prompt over KV that others computed: the client's own by itself, anybody's by the prefix's name. */
static void prefix_equals(struct bench *b, int split)
{
	struct answer own, named;
	struct mr_request *r;
	uint32_t ids[PROMPT + MORE];

	fill(b, ids, PROMPT + MORE, 13);
	plain(b, split, ids, PROMPT + MORE, LAST, 0.0f, &own);
	start(b, split, 1);
	r = ask(b, MR_REQUEST_SUBMIT, 1, 0);
	memcpy(r->tokens, ids, PROMPT * sizeof(*ids));
	r->token_count = PROMPT;
	r->flags |= MR_REQUEST_KEEP;
	go(b, r, PROMPT);
	drain(b);
	assert_int_equal(mr_sched_prefix(b->sched, 1, 1, 99), 0);
	for (uint64_t key = 2; key < 5; key++) {
		int by_name =
			key >
			2; /* key 2: client 1 by itself; 3 and 4: client 2 by name, 4 after release of 1 */

		if (key == 4)
			assert_int_equal(mr_sched_release(b->sched, 1, 1), 0);
		r = ask(b, MR_REQUEST_SUBMIT, key, LAST);
		r->client = by_name ? 2 : 1;
		r->prefix = by_name ? 99 : 0;
		r->token_count = by_name ? MORE : PROMPT + MORE;
		memcpy(r->tokens, by_name ? ids + PROMPT : ids, r->token_count * sizeof(*ids));
		go(b, r, PROMPT + MORE);
		drain(b);
		equal(&b->front.answers[key], &own, 0, LAST);
		assert_true(b->front.answers[key].end.reused >= PROMPT / 16 * 16);
	}
	/* Without the name another client shares nothing. */
	r = ask(b, MR_REQUEST_SUBMIT, 6, LAST);
	r->client = 3;
	r->token_count = PROMPT + MORE;
	memcpy(r->tokens, ids, sizeof(ids));
	go(b, r, PROMPT + MORE);
	drain(b);
	equal(&b->front.answers[6], &own, 0, LAST);
	assert_int_equal(b->front.answers[6].end.reused, 0);
	named = b->front.answers[4];
	assert_int_equal(named.end.prompt_tokens, PROMPT + MORE);
	stop(b);
}

static void prefixes(void **state)
{
	prefix_equals(*state, 0);
	prefix_equals(*state, 1);
}

/*
 * Two classes: a prompt that holds an earlier answer shares that prompt's KV and not the answer's, by itself
 * and under a name, so it is answered as it would be alone.
 */
static void two_classes(void **state)
{
	struct bench *b = *state;
	struct answer want;
	struct mr_request *r;
	uint32_t ids[PROMPT + LAST + MORE], count = PROMPT + LAST + MORE;

	if (!b->cpu[2]) {
		print_message("skipped: the emulated tile unit needs AVX-512 with VNNI\n");
		skip();
	}
	fork_equals(b, 2, 1.3f);
	prefix_equals(b, 2);
	fill(b, ids, count, 14);
	plain(b, 2, ids, PROMPT, LAST, 0.0f, &want);
	memcpy(ids + PROMPT, want.ids, LAST * sizeof(*ids));
	plain(b, 2, ids, count, LAST, 0.0f, &want);
	start(b, 2, 1);
	r = ask(b, MR_REQUEST_SUBMIT, 1, LAST);
	memcpy(r->tokens, ids, PROMPT * sizeof(*ids));
	r->token_count = PROMPT;
	r->flags |= MR_REQUEST_KEEP;
	go(b, r, PROMPT);
	drain(b);
	assert_memory_equal(b->front.answers[1].ids, ids + PROMPT, LAST * sizeof(*ids));
	assert_int_equal(mr_sched_prefix(b->sched, 1, 1, 99), 0);
	assert_int_equal(mr_sched_release(b->sched, 1, 1), 0);
	for (uint64_t key = 2; key < 4; key++) {
		int by_name = key == 3;

		r = ask(b, MR_REQUEST_SUBMIT, key, LAST);
		r->client = by_name ? 2 : 1;
		r->prefix = by_name ? 99 : 0;
		r->token_count = by_name ? MORE : count;
		memcpy(r->tokens, by_name ? ids + PROMPT + LAST : ids,
		       r->token_count * sizeof(*ids));
		go(b, r, count);
		drain(b);
		equal(&b->front.answers[key], &want, 0, LAST);
		assert_true(b->front.answers[key].end.reused >= PROMPT / 16 * 16);
	}
	stop(b);
}

/* A sequence whose KV is lost goes on as a prompt of all its tokens would, and that is counted. */
static void other_numerics(void **state)
{
	struct bench *b = *state;
	struct mr_memory_ops no_fork;
	const struct mr_memory_ops *mem;
	struct answer want;
	struct mr_request *r;
	uint32_t ids[PROMPT + LAST + MORE], count = PROMPT + LAST + MORE;
	uint64_t before = mr_metric_read(MR_M_sched_other_numerics);

	if (!b->cpu[2]) {
		print_message("skipped: the emulated tile unit needs AVX-512 with VNNI\n");
		skip();
	}
	mem = b->cpu[2]->mem;
	no_fork = *mem;
	no_fork.kv_fork = mr_unsupported_kv_fork;
	fill(b, ids, count, 15);
	plain(b, 2, ids, PROMPT, LAST, 0.0f, &want);
	memcpy(ids + PROMPT, want.ids, LAST * sizeof(*ids));
	plain(b, 2, ids, count, LAST, 0.0f, &want);
	start(b, 2, 1);
	r = ask(b, MR_REQUEST_SUBMIT, 1, LAST);
	memcpy(r->tokens, ids, PROMPT * sizeof(*ids));
	r->token_count = PROMPT;
	r->flags |= MR_REQUEST_KEEP;
	go(b, r, PROMPT);
	drain(b);
	assert_true(mr_metric_read(MR_M_sched_other_numerics) == before);
	b->cpu[2]->mem = &no_fork; /* the append cannot go on from where it is */
	r = ask(b, MR_REQUEST_APPEND, 2, LAST);
	memcpy(r->tokens, ids + PROMPT + LAST, MORE * sizeof(*ids));
	r->token_count = MORE;
	r->target = 1;
	go(b, r, count);
	drain(b);
	b->cpu[2]->mem = mem;
	equal(&b->front.answers[2], &want, 0, LAST);
	assert_true(mr_metric_read(MR_M_sched_other_numerics) == before + 1);
	stop(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forks),          cmocka_unit_test(appends),
		cmocka_unit_test(prefixes),       cmocka_unit_test(two_classes),
		cmocka_unit_test(other_numerics),
	};

	return cmocka_run_group_tests(tests, bench_open, bench_close);
}
