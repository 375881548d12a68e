// SPDX-License-Identifier: Apache-2.0
/*
 * The sampler: Philox against its published answers, each step by hand, the whole against a plain second
 * implementation that sorts, and the draws' frequencies against the distribution.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <millrace/status.h>

#include "kernels/cpu/math.h"
#include "kernels/cpu/philox.h"
#include "kernels/cpu/sample.h"

#define VOCAB_MAX 2000

static void *scratch;
static uint32_t seed = 3;

static float rndf(void)
{
	seed = seed * 1664525u + 1013904223u;
	return (float)(seed >> 8) / (float)(1 << 24);
}

static uint32_t sample(const float *logits, uint32_t vocab, const struct mr_sampling *s,
		       uint32_t position, float *logprob)
{
	float ignored;

	return mr_sample(logits, vocab, s, position, NULL, 0, scratch,
			 logprob ? logprob : &ignored);
}

/* kat_vectors of Random123 */
static void philox(void **state)
{
	static const struct {
		uint32_t counter[4], key[2], out[4];
	} known[] = {
		{{0}, {0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
		 {0xffffffff, 0xffffffff},
		 {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
		 {0xa4093822, 0x299f31d0},
		 {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		uint32_t out[4];

		mr_philox(known[i].counter, known[i].key, out);
		assert_memory_equal(out, known[i].out, sizeof(out));
	}
}

static void greedy(void **state)
{
	struct mr_sampling s = {0};
	float l[37] = {0}, logprob;

	l[5] = l[36] = 2;
	assert_int_equal(sample(l, 37, &s, 0, &logprob), 5); /* the tie goes to the lower id */
	assert_true(fabs(logprob - (2 - log(35 + 2 * exp(2)))) < 1e-6);
	l[36] = 2.0001f;
	assert_int_equal(sample(l, 37, &s, 0, &logprob), 36);
}

/* What mr_logprob says of a token is, bit for bit, what mr_sample says when it chooses it. */
static void logprob_of_a_given_token(void **state)
{
	struct mr_sampling s = {.temperature = 50};
	float l[37], chosen, given;

	for (uint32_t i = 0; i < 37; i++)
		l[i] = (float)(i * 7 % 37) / 3;
	l[3] = NAN;
	l[4] = -INFINITY;
	for (uint32_t position = 0; position < 200; position++) {
		uint32_t token = sample(l, 37, &s, position, &chosen);
		given = mr_logprob(l, 37, token);
		assert_memory_equal(&given, &chosen, sizeof(given));
	}
	assert_true(mr_logprob(l, 37, 4) < -1e38f);
}

static void odd_logits(void **state)
{
	struct mr_sampling s = {0};
	float l[20], logprob;

	for (int i = 0; i < 20; i++)
		l[i] = NAN;
	for (int t = 0; t < 2; t++, s.temperature = 1) {
		assert_int_equal(sample(l, 20, &s, 0, &logprob), 0);
		l[7] = -3;
		assert_int_equal(sample(l, 20, &s, 9, &logprob), 7);
		assert_true(logprob == 0);
		l[8] = -INFINITY;
		assert_int_equal(sample(l, 20, &s, 9, &logprob), 7);
		l[9] = INFINITY;
		assert_int_equal(sample(l, 20, &s, 9, &logprob), 9);
		l[7] = l[8] = l[9] = NAN;
	}
	/* the smallest temperature divides by nothing that matters */
	s.temperature = 1e-38f;
	for (int i = 0; i < 20; i++)
		l[i] = (float)i;
	assert_int_equal(sample(l, 20, &s, 1, &logprob), 19);
}

static void penalties(void **state)
{
	static const uint32_t history[] = {1, 2, 1, 999999};
	float l[4] = {1.0f, 2.0f, -1.0f, 0.5f}, logprob;
	struct mr_sampling s = {.repeat = 2.5f};

	/* 2 / 2.5 < 1: the best falls behind; its own logprob is that of the unmodified logits */
	assert_int_equal(mr_sample(l, 4, &s, 0, history, 4, scratch, &logprob), 0);
	assert_true(fabs(logprob - (1 - log(exp(1) + exp(2) + exp(-1) + exp(0.5)))) < 1e-6);
	s = (struct mr_sampling){.presence = 0.9f};
	assert_int_equal(mr_sample(l, 4, &s, 0, history, 4, scratch, &logprob), 1);
	s.frequency = 0.1f; /* twice in the history: 2 - 0.9 - 0.2 < 1 */
	assert_int_equal(mr_sample(l, 4, &s, 0, history, 4, scratch, &logprob), 0);
	/* a negative logit is multiplied, so that it falls too */
	l[0] = -1.5f, l[1] = -1.4f, l[3] = -9;
	s = (struct mr_sampling){.repeat = 1.2f};
	assert_int_equal(mr_sample(l, 4, &s, 0, history + 1, 1, scratch, &logprob), 2);
	l[2] = -1.3f;
	assert_int_equal(mr_sample(l, 4, &s, 0, history + 1, 1, scratch, &logprob), 1);
}

struct ranked {
	float logit;
	uint32_t id;
	uint64_t weight;
};

static int better_first(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;

	if (x->logit != y->logit)
		return x->logit > y->logit ? -1 : 1;
	return x->id < y->id ? -1 : 1;
}

/* The plain version: sort all, cut, put back in order of id, walk. */
static uint32_t reference(const float *logits, uint32_t vocab, const struct mr_sampling *s,
			  uint32_t position)
{
	static struct ranked r[VOCAB_MAX];
	static uint64_t by_id[VOCAB_MAX];
	uint32_t n = vocab, random[4], key[2] = {(uint32_t)s->seed, (uint32_t)(s->seed >> 32)};
	uint32_t counter[4] = {position, 0, 0, 0};
	uint64_t total = 0, sum = 0;
	float best = logits[0];
	unsigned __int128 point;

	for (uint32_t i = 0; i < vocab; i++)
		best = logits[i] > best ? logits[i] : best;
	for (uint32_t i = 0; i < vocab; i++) {
		float weight = mr_exp((logits[i] - best) / s->temperature) * 1073741824.0f;

		r[i] = (struct ranked){logits[i], i, (uint64_t)weight};
		by_id[i] = 0;
	}
	qsort(r, vocab, sizeof(r[0]), better_first);
	if (s->top_k && s->top_k < n)
		n = s->top_k;
	for (uint32_t i = 0; i < n; i++)
		total += r[i].weight;
	if (s->top_p > 0 && s->top_p < 1) {
		uint32_t kept = 0;

		/* long double holds 64 bits: exact here, as weights are few and p has 24 */
		while (kept < n && (!kept || (long double)sum < (long double)total * s->top_p))
			sum += r[kept++].weight;
		n = kept;
	}
	total = 0;
	for (uint32_t i = 0; i < n; i++) {
		if ((double)r[i].weight < floor((double)s->min_p * 1073741824.0))
			continue;
		by_id[r[i].id] = r[i].weight;
		total += r[i].weight;
	}
	mr_philox(counter, key, random);
	point = ((unsigned __int128)random[1] << 32 | random[0]) * total >> 64;
	for (uint32_t i = 0;; i++) {
		if (point < by_id[i])
			return i;
		point -= by_id[i];
	}
}

static void against_reference(void **state)
{
	static float l[VOCAB_MAX];

	for (int t = 0; t < 3000; t++) {
		uint32_t vocab = 1 + (uint32_t)(rndf() * (t % 10 ? 60 : VOCAB_MAX - 1));
		float spread = rndf() * 20;
		struct mr_sampling s = {
			.seed = (uint64_t)t * UINT64_C(0x9e3779b97f4a7c15),
			.temperature = 0.05f + rndf() * 2,
			.top_k = t % 3 ? 0 : (uint32_t)(rndf() * 40),
			.top_p = t % 2 ? rndf() : 0,
			.min_p = t % 5 ? 0 : rndf() * 0.5f,
		};

		for (uint32_t i = 0; i < vocab; i++) {
			l[i] = (rndf() - 0.5f) * spread;
			if (t % 4 == 0)
				l[i] = roundf(l[i]); /* many ties */
		}
		assert_int_equal(sample(l, vocab, &s, (uint32_t)t, NULL),
				 reference(l, vocab, &s, (uint32_t)t));
	}
}

/* 100,000 draws, chi-square with 7 degrees of freedom: above 24.3 once in 1,000 honest runs. */
static void frequencies(void **state)
{
	static const float l[8] = {0.1f, 1.3f, -0.7f, 2.0f, 0.0f, 0.9f, -2.0f, 1.1f};
	struct mr_sampling s = {.seed = 77, .temperature = 0.7f};
	uint32_t count[8] = {0};
	double total = 0, chi = 0;

	for (uint32_t i = 0; i < 100000; i++)
		count[sample(l, 8, &s, i, NULL)]++;
	for (int i = 0; i < 8; i++)
		total += exp(l[i] / 0.7);
	for (int i = 0; i < 8; i++) {
		double want = 100000 * exp(l[i] / 0.7) / total;

		chi += (count[i] - want) * (count[i] - want) / want;
	}
	assert_true(chi < 24.3);
}

/* Another seed or another position is another draw. */
static void seeds(void **state)
{
	float l[64] = {0};
	struct mr_sampling a = {.seed = 1, .temperature = 1},
			   b = {.seed = 1ull << 40, .temperature = 1};
	uint32_t same = 0, moved = 0;

	for (uint32_t p = 0; p < 200; p++) {
		same += sample(l, 64, &a, p, NULL) == sample(l, 64, &b, p, NULL);
		moved += sample(l, 64, &a, p, NULL) != sample(l, 64, &a, p + 1, NULL);
	}
	assert_true(same < 20 && moved > 180);
}

static void ranges(void **state)
{
	const struct mr_sampling good = {
		.temperature = 100, .top_p = 1, .min_p = 0.99f, .repeat = 1};
	struct mr_sampling s;

	assert_int_equal(mr_sampling_check(&(struct mr_sampling){0}, 10), 0);
	assert_int_equal(mr_sampling_check(&good, 10), 0);
#define REFUSED(field, value) \
	s = good;             \
	s.field = (value);    \
	assert_int_equal(mr_sampling_check(&s, 10), MR_E_RANGE)
	REFUSED(temperature, -0.1f);
	REFUSED(temperature, 100.1f);
	REFUSED(temperature, NAN);
	REFUSED(temperature, INFINITY);
	REFUSED(top_p, -0.1f);
	REFUSED(top_p, 1.1f);
	REFUSED(top_p, NAN);
	REFUSED(min_p, 1);
	REFUSED(min_p, -0.5f);
	REFUSED(min_p, NAN);
	REFUSED(repeat, -1);
	REFUSED(repeat, NAN);
	REFUSED(repeat, INFINITY);
	REFUSED(presence, NAN);
	REFUSED(frequency, INFINITY);
	REFUSED(stop_count, MR_STOP_TOKENS_MAX + 1);
	s = good;
	s.stop[0] = 10; /* not among those that count */
	assert_int_equal(mr_sampling_check(&s, 10), 0);
	s.stop_count = 1;
	assert_int_equal(mr_sampling_check(&s, 10), MR_E_RANGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(philox),
		cmocka_unit_test(greedy),
		cmocka_unit_test(logprob_of_a_given_token),
		cmocka_unit_test(odd_logits),
		cmocka_unit_test(penalties),
		cmocka_unit_test(against_reference),
		cmocka_unit_test(frequencies),
		cmocka_unit_test(seeds),
		cmocka_unit_test(ranges),
	};
	int failed;

	scratch = aligned_alloc(64, (mr_sample_scratch(VOCAB_MAX) + 63) & ~(size_t)63);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	free(scratch);
	return failed;
}
