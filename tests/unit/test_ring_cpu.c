/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences over the ring on the CPU device and tests/tiny.gguf, bit for bit: a FORK goes on exactly as its
 * parent would have, an APPEND as a plain SUBMIT of all its tokens, a prefix as a prompt with its tokens in
 * front, and a SCORE weighs tokens as the answer that made them did. The plain runs are another client's,
 * with whom nothing is shared.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/ring_world.h"

#define PROMPT 53u
#define FIRST  15u /* tokens of the answer before it forks, or is given more */
#define LAST   25u
#define MORE   21u
#define MOST   128u

static struct world w;
static struct mr_ring *ring, *plain;
static uint32_t prompt[MOST];

struct answer {
	uint32_t count, first; /* position of the first */
	uint32_t ids[MOST];
	float logprobs[MOST];
};

static int set_up(void **state)
{
	struct mr_ring_options options = {.path = w.path, .features = UINT64_MAX};
	uint64_t seed = 5;

	if (world_make_on(&w, 1, 16))
		return -1;
	world_run(&w);
	for (uint32_t i = 0; i < MOST; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		prompt[i] = (uint32_t)(seed >> 33) % w.model->shape.vocab;
	}
	return mr_ring_connect(&options, &ring) || mr_ring_connect(&options, &plain);
}

static int tear_down(void **state)
{
	mr_ring_disconnect(ring);
	mr_ring_disconnect(plain);
	world_end(&w);
	return 0;
}

static struct mr_cqe next(struct mr_ring *of)
{
	struct mr_cqe cqe = {0};

	assert_int_equal(mr_ring_wait(of, 20000000000), 0);
	assert_int_equal(mr_ring_poll(of, &cqe), 1);
	return cqe;
}

static struct answer answer(struct mr_ring *of, uint64_t key)
{
	struct answer a = {0};

	for (;;) {
		struct mr_cqe cqe = next(of);

		assert_int_equal(cqe.key, key);
		assert_int_equal(cqe.status, 0);
		if (cqe.type == MR_CQE_DONE)
			return a;
		if (!a.count)
			a.first = cqe.position;
		assert_int_equal(cqe.type, MR_CQE_TOKEN);
		assert_int_equal(cqe.position, a.first + a.count);
		a.ids[a.count] = cqe.token;
		a.logprobs[a.count++] = cqe.logprob;
	}
}

/* Sampled, and with penalties, which look back: greedy tokens would often hide a wrong position. */
static const struct mr_params *params(uint32_t max_tokens)
{
	static struct mr_params p;

	p = (struct mr_params){.version = MR_PARAMS_VERSION, .max_tokens = max_tokens};
	p.sampling.seed = 77;
	p.sampling.temperature = 1.2f;
	p.sampling.repeat = 1.3f;
	return &p;
}

static struct answer run(struct mr_ring *of, const uint32_t *ids, uint32_t count, uint32_t tokens,
			 uint32_t flags)
{
	assert_int_equal(mr_ring_submit_tokens(of, 1, ids, count, flags | MR_SUBMIT_IGNORE_EOS,
					       params(tokens)),
			 0);
	return answer(of, 1);
}

/* @b is what @a has from token @from on. */
static void goes_on(const struct answer *a, uint32_t from, const struct answer *b)
{
	assert_int_equal(b->count, a->count - from);
	assert_int_equal(b->first, a->first + from);
	assert_memory_equal(a->ids + from, b->ids, b->count * sizeof(b->ids[0]));
	assert_memory_equal(a->logprobs + from, b->logprobs, b->count * sizeof(b->logprobs[0]));
}

static void test_fork(void **state)
{
	struct answer whole = run(plain, prompt, PROMPT, FIRST + LAST, 0), part, fork;
	struct mr_params other = *params(LAST);

	assert_int_equal(whole.count, FIRST + LAST);
	part = run(ring, prompt, PROMPT, FIRST, MR_SUBMIT_KEEP);
	assert_memory_equal(whole.ids, part.ids, FIRST * sizeof(whole.ids[0]));
	assert_int_equal(mr_ring_fork(ring, 2, 1, MR_SUBMIT_IGNORE_EOS, params(LAST)), 0);
	fork = answer(ring, 2);
	goes_on(&whole, FIRST, &fork);
	/* Another seed, another way; and the parent is what it was. */
	other.sampling.seed = 78;
	assert_int_equal(mr_ring_fork(ring, 3, 1, MR_SUBMIT_IGNORE_EOS, &other), 0);
	fork = answer(ring, 3);
	assert_memory_not_equal(whole.ids + FIRST, fork.ids, LAST * sizeof(fork.ids[0]));
	assert_int_equal(mr_ring_fork(ring, 4, 1, MR_SUBMIT_IGNORE_EOS, params(LAST)), 0);
	fork = answer(ring, 4);
	goes_on(&whole, FIRST, &fork);
}

static void test_append(void **state)
{
	struct answer first = run(ring, prompt, PROMPT, FIRST, MR_SUBMIT_KEEP), second, whole;
	uint32_t all[MOST];

	assert_int_equal(mr_ring_append_tokens(ring, 2, 1, prompt + PROMPT, MORE,
					       MR_SUBMIT_IGNORE_EOS, params(LAST)),
			 0);
	second = answer(ring, 2);
	memcpy(all, prompt, PROMPT * sizeof(all[0]));
	memcpy(all + PROMPT, first.ids, FIRST * sizeof(all[0]));
	memcpy(all + PROMPT + FIRST, prompt + PROMPT, MORE * sizeof(all[0]));
	whole = run(plain, all, PROMPT + FIRST + MORE, LAST, 0);
	goes_on(&whole, 0, &second);
}

static void test_prefix(void **state)
{
	struct answer whole = run(plain, prompt, PROMPT + MORE, LAST, 0), after;

	run(ring, prompt, PROMPT, 0, MR_SUBMIT_KEEP);
	assert_int_equal(mr_ring_prefix(ring, 9, 1), 0);
	assert_int_equal(next(ring).type, MR_CQE_DONE);
	/* The other client's prompt begins with tokens that are not its own. */
	assert_int_equal(mr_ring_submit_tokens_after(plain, 2, 9, prompt + PROMPT, MORE,
						     MR_SUBMIT_IGNORE_EOS, params(LAST)),
			 0);
	after = answer(plain, 2);
	goes_on(&whole, 0, &after);
}

/* The log-probabilities of the answer's own tokens, summed, are those that it had as it was made. */
static void test_score(void **state)
{
	struct answer whole = run(plain, prompt, PROMPT, 8, 0), fork;
	const uint32_t *const parts[] = {whole.ids, prompt + PROMPT, whole.ids};
	static const size_t counts[] = {8, 5, 3};
	double sums[3] = {0};
	struct mr_cqe cqe[3];

	for (uint32_t i = 0; i < 8; i++) {
		sums[0] += (double)whole.logprobs[i];
		sums[2] += i < 3 ? (double)whole.logprobs[i] : 0;
	}
	run(ring, prompt, PROMPT, 0, MR_SUBMIT_KEEP);
	assert_int_equal(mr_ring_score_tokens(ring, 2, 1, parts, counts, 3, NULL), 0);
	for (uint32_t i = 0; i < 3; i++) {
		cqe[i] = next(ring);
		assert_int_equal(cqe[i].type, MR_CQE_SCORE);
		assert_int_equal(cqe[i].index, i);
		assert_int_equal(cqe[i].token, counts[i]);
		assert_int_equal(cqe[i].position, PROMPT);
	}
	assert_int_equal(next(ring).type, MR_CQE_DONE);
	assert_true(cqe[0].logprob == (float)sums[0]);
	assert_true(cqe[2].logprob == (float)sums[2]);
	assert_true(cqe[1].logprob < 0);
	/* The sequence is as it was. */
	assert_int_equal(mr_ring_fork(ring, 3, 1, MR_SUBMIT_IGNORE_EOS, params(8)), 0);
	fork = answer(ring, 3);
	goes_on(&whole, 0, &fork);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_fork),
		TEST(test_append),
		TEST(test_prefix),
		TEST(test_score),
	};

	return cmocka_run_group_tests_name("ring_cpu", tests, NULL, NULL);
}
