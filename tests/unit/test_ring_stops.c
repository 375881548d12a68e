/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stop strings over the ring, against a search of the whole answer's bytes: which string, at which token,
 * wherever tokens begin; what an answer keeps of it. And the log-probabilities of a SCORE's tokens. On the
 * nil device, whose answers count up from the prompt's last token.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "driver/model/tokenizer.h"
#include "driver/sched/internal.h"
#include "tests/unit/ring_world.h"

#define SECOND 1000000000ll
#define NEEDED                                                                          \
	(MR_FEATURE_STOPS | MR_FEATURE_LOGPROBS | MR_FEATURE_KEEP | MR_FEATURE_APPEND | \
	 MR_FEATURE_SCORE | MR_FEATURE_FORK)
#define KEEP   (MR_SUBMIT_KEEP | MR_SUBMIT_IGNORE_EOS)
#define TOKENS 60u

static struct world w;
static struct mr_ring *ring;

struct block {
	struct mr_params params;
	struct mr_stops stops;
};

static struct mr_ring *join(uint32_t cq_entries)
{
	struct mr_ring_options options = {
		.path = w.path, .cq_entries = cq_entries, .required = NEEDED};
	struct mr_ring *made = NULL;

	assert_int_equal(mr_ring_connect(&options, &made), 0);
	return made;
}

static int set_up(void **state)
{
	if (world_make(&w, 16))
		return -1;
	world_run(&w);
	ring = join(0);
	return 0;
}

static int tear_down(void **state)
{
	mr_ring_disconnect(ring);
	if (world_settle(&w.clients, 0) || world_settle(&w.active, 0) ||
	    mr_metric_read(MR_M_ring_overrun))
		return -1;
	world_end(&w);
	return 0;
}

static struct mr_cqe next(struct mr_ring *of)
{
	struct mr_cqe cqe = {0};

	assert_int_equal(mr_ring_wait(of, 5 * SECOND), 0);
	assert_int_equal(mr_ring_poll(of, &cqe), 1);
	return cqe;
}

static struct block plain(void)
{
	return (struct block){.params = {.version = MR_PARAMS_VERSION, .max_tokens = TOKENS}};
}

static int submit(uint64_t key, uint32_t first, uint16_t flags, const struct block *b)
{
	const struct mr_sqe sqe = {
		.op = MR_OP_SUBMIT, .flags = MR_SUBMIT_TOKENS | flags, .key = key};

	return mr_ring_submit(ring, &sqe, &first, sizeof(first), b, sizeof(*b));
}

/* The answer that follows token @first: its bytes, and where each token's end lies in them. */
struct text {
	char bytes[4096];
	uint32_t ends[TOKENS];
};

static void spell(uint32_t first, struct text *t)
{
	uint32_t at = 0;

	for (uint32_t i = 0; i < TOKENS; i++) {
		size_t n, j;
		const char *s = mr_token_bytes(w.model->tokenizer, first + 1 + i, &n);

		if (mr_token_is_control(w.model->tokenizer, first + 1 + i))
			n = 0;
		for (j = 0; s && j < n && at < sizeof(t->bytes); j++)
			t->bytes[at++] = s[j];
		t->ends[i] = at;
	}
}

/* Where the first of @stops is whole: bytes up to its end; *@which; UINT32_MAX = never. */
static uint32_t search(const struct text *t, const struct mr_stops *stops, uint32_t *which)
{
	for (uint32_t end = 1; end <= t->ends[TOKENS - 1]; end++)
		for (uint32_t i = 0, from = 0; i < stops->count; from = stops->ends[i++]) {
			uint32_t n = stops->ends[i] - from;

			if (n <= end && !memcmp(t->bytes + end - n, stops->text + from, n)) {
				*which = i;
				return end;
			}
		}
	return UINT32_MAX;
}

/* Takes the answer to @key, and compares with the search. */
static void against_search(uint64_t key, uint32_t first, const struct text *t,
			   const struct mr_stops *stops)
{
	uint32_t which = 0, end = search(t, stops, &which), count = TOKENS;
	struct mr_cqe cqe;

	if (end != UINT32_MAX)
		for (count = 1; t->ends[count - 1] < end;)
			count++;
	for (uint32_t i = 0; i < count; i++) {
		cqe = next(ring);
		assert_int_equal(cqe.key, key);
		assert_int_equal(cqe.type, MR_CQE_TOKEN);
		assert_int_equal(cqe.token, first + 1 + i);
	}
	cqe = next(ring);
	assert_int_equal(cqe.type, MR_CQE_DONE);
	assert_int_equal(cqe.index, count);
	assert_int_equal(cqe.ended, end == UINT32_MAX ? MR_ENDED_LENGTH : MR_ENDED_STOP_STRING);
	assert_int_equal(cqe.token, which);
}

/* Strings cut out of the answer at random, some spoiled at their end so that they nearly match. */
static void test_search(void **state)
{
	uint64_t before = mr_metric_read(MR_M_sched_stop_strings), hits = 0;
	uint64_t random = 5;

	for (uint32_t round = 0; round < 400; round++) {
		uint32_t first = 20 + round % 150, which = 0;
		struct block b = plain();
		struct text t = {0};

		spell(first, &t);
		assert_true(t.ends[TOKENS - 1] > 20);
		for (uint32_t n = 1 + round % MR_STOP_STRINGS_MAX; n; n--) {
			uint32_t bytes, from;
			char cut[64];

			random = random * 6364136223846793005u + 1442695040888963407u;
			bytes = 1 + (uint32_t)(random >> 33) % 20;
			from = (uint32_t)(random >> 40) % (t.ends[TOKENS - 1] - bytes);
			memcpy(cut, t.bytes + from, bytes);
			cut[bytes - 1] = (char)(cut[bytes - 1] ^ ((random >> 20) % 4 ? 0x80 : 0));
			assert_true(mr_stops_add(&b.stops, cut, bytes) >= 0);
		}
		hits += search(&t, &b.stops, &which) != UINT32_MAX;
		assert_int_equal(submit(1, first, MR_SUBMIT_IGNORE_EOS, &b), 0);
		against_search(1, first, &t, &b.stops);
	}
	assert_true(hits > 100 && hits < 390);
	assert_int_equal(mr_metric_read(MR_M_sched_stop_strings), before + hits);
}

/* Texts of two letters, which match parts of themselves everywhere, in pieces of any length. */
static void test_letters(void **state)
{
	static struct entry e;
	uint64_t random = 9;

	for (int round = 0; round < 20000; round++) {
		struct text t = {.ends = {[TOKENS - 1] = 200}};
		uint32_t which = 0, at = 0, hit = 0, end;

		e = (struct entry){0};
		for (int i = 0; i < 200; i++) {
			random = random * 6364136223846793005u + 1442695040888963407u;
			t.bytes[i] = random >> 60 & 1 ? 'a' : 'b';
		}
		for (int n = 1 + round % 4; n; n--) {
			random = random * 6364136223846793005u + 1442695040888963407u;
			mr_stops_add(&e.request.stops, t.bytes + (random >> 33) % 180,
				     2 + (random >> 50) % 18);
		}
		mr_stops_begin(&e);
		end = search(&t, &e.request.stops, &which);
		while (!hit) {
			uint32_t n = 1 + (uint32_t)(random >> 13) % 3;

			assert_true(at < end);
			random = random * 6364136223846793005u + 1442695040888963407u;
			hit = mr_stops_feed(&e, t.bytes + at, n);
			at += n;
		}
		assert_int_equal(hit, which + 1);
		assert_true(at >= end && at < end + 3);
	}
}

/* One that falls back on a part of itself, the longest, as many as there may be, and what does not fit. */
static void test_edges(void **state)
{
	struct block b = plain();
	struct text t = {0};
	struct mr_stops s = {0};
	char all[MR_STOP_BYTES_MAX + 1] = {0};

	spell(60, &t);
	/* The answer's own bytes with a first byte doubled: a partial match is not thrown away. */
	all[0] = t.bytes[0];
	memcpy(all + 1, t.bytes, 6);
	assert_int_equal(mr_stops_add(&b.stops, all, 7), 0);
	assert_int_equal(mr_stops_add(&b.stops, t.bytes, 7), 1);
	assert_int_equal(submit(1, 60, MR_SUBMIT_IGNORE_EOS, &b), 0);
	against_search(1, 60, &t, &b.stops);
	/* Which one of two that end with the same byte: the first. */
	b.stops = s;
	assert_int_equal(mr_stops_add(&b.stops, t.bytes + 3, 4), 0);
	assert_int_equal(mr_stops_add(&b.stops, t.bytes + 5, 2), 1);
	assert_int_equal(submit(1, 60, MR_SUBMIT_IGNORE_EOS, &b), 0);
	against_search(1, 60, &t, &b.stops);
	/* All bytes there are, in one string and in eight. */
	assert_int_equal(mr_stops_add(&s, all, MR_STOP_BYTES_MAX + 1), MR_E_TOO_LARGE);
	assert_int_equal(mr_stops_add(&s, all, 0), MR_E_INVALID);
	assert_int_equal(mr_stops_add(&s, all, MR_STOP_BYTES_MAX), 0);
	assert_int_equal(mr_stops_add(&s, all, 1), MR_E_TOO_LARGE);
	b.stops = s;
	assert_int_equal(submit(1, 60, MR_SUBMIT_IGNORE_EOS, &b), 0);
	against_search(1, 60, &t, &b.stops);
	s = (struct mr_stops){0};
	for (int i = 0; i < MR_STOP_STRINGS_MAX; i++)
		assert_int_equal(mr_stops_add(&s, "\xff\xff", 2), i);
	assert_int_equal(mr_stops_add(&s, all, 1), MR_E_TOO_LARGE);
}

/* A sequence that a string ended goes on, and the next answer's bytes are searched by themselves. */
static void test_again(void **state)
{
	const struct mr_sqe append = {
		.op = MR_OP_APPEND, .flags = MR_SUBMIT_TOKENS | KEEP, .key = 2, .target = 1};
	struct block b = plain();
	struct text t = {0};
	uint32_t first = 70;

	spell(70, &t);
	assert_int_equal(mr_stops_add(&b.stops, t.bytes, 5), 0);
	for (int i = 0; i < 3; i++) {
		if (i == 0)
			assert_int_equal(submit(1, first, KEEP, &b), 0);
		else
			assert_int_equal(mr_ring_submit(ring, &append, &first, 4, &b, sizeof(b)),
					 0);
		against_search(i ? 2 : 1, first, &t, &b.stops);
	}
	assert_int_equal(mr_ring_release(ring, 3, 1), 0);
	assert_int_equal(next(ring).status, 0);
}

/* ---- the log-probabilities of a SCORE's tokens ---- */

static void scores(struct mr_ring *of, uint64_t key, const uint32_t *const *parts,
		   const size_t *counts, uint32_t count)
{
	struct mr_cqe cqe;

	for (uint32_t i = 0; i < count; i++) {
		float sum = 0;

		for (uint32_t j = 0; j < counts[i]; j++) {
			cqe = next(of);
			assert_int_equal(cqe.type, MR_CQE_TOKEN);
			assert_int_equal(cqe.op, MR_OP_SCORE);
			assert_int_equal(cqe.key, key);
			assert_int_equal(cqe.token, parts[i][j]);
			assert_int_equal(cqe.index, j);
			assert_int_equal(cqe.position, 1 + j);
			assert_true(cqe.logprob == mr_nil_logprob(parts[i][j]));
			sum += cqe.logprob;
		}
		cqe = next(of);
		assert_int_equal(cqe.type, MR_CQE_SCORE);
		assert_int_equal(cqe.index, i);
		assert_int_equal(cqe.token, counts[i]);
		assert_true(cqe.logprob == sum);
	}
	cqe = next(of);
	assert_int_equal(cqe.type, MR_CQE_DONE);
	assert_int_equal(cqe.index, count);
}

/* SCORE by hand: the block, then the ids. */
static void ask(struct mr_ring *of, uint64_t key, const uint32_t *const *parts,
		const size_t *counts, uint32_t count)
{
	const struct mr_sqe sqe = {.op = MR_OP_SCORE,
				   .flags = MR_SUBMIT_TOKENS | MR_SCORE_LOGPROBS,
				   .key = key,
				   .target = 1};
	struct {
		struct mr_continuations head;
		uint32_t ids[512];
	} data = {.head = {.version = MR_CONTINUATIONS_VERSION,
			   .bytes = sizeof(data.head),
			   .count = count}};
	uint32_t at = 0;

	for (uint32_t i = 0; i < count; i++) {
		for (uint32_t j = 0; j < counts[i]; j++)
			data.ids[at++] = parts[i][j];
		data.head.ends[i] = at;
	}
	assert_int_equal(mr_ring_submit(of, &sqe, &data, sizeof(data.head) + at * 4, NULL, 0), 0);
}

static void test_logprobs(void **state)
{
	static uint32_t ids[40];
	const uint32_t *const parts[] = {ids, ids + 7, ids + 3};
	static const size_t counts[] = {40, 1, 13};
	uint64_t before = mr_metric_read(MR_M_sched_score_tokens);
	struct block b = plain();
	struct mr_ring *slow = join(8);
	const uint32_t prompt = 30;
	const struct mr_sqe sqe = {.op = MR_OP_SUBMIT, .flags = MR_SUBMIT_TOKENS | KEEP, .key = 1};

	for (uint32_t i = 0; i < 40; i++)
		ids[i] = 100 + 3 * i;
	b.params.max_tokens = 0;
	/* A queue that a fifth of the tokens fill: they come as they are read, and none is lost. */
	assert_int_equal(mr_ring_submit(slow, &sqe, &prompt, 4, &b, sizeof(b)), 0);
	assert_int_equal(next(slow).type, MR_CQE_DONE);
	ask(slow, 2, parts, counts, 3);
	usleep(20000);
	scores(slow, 2, parts, counts, 3);
	/* Cancelled in the middle of them. */
	ask(slow, 2, parts, counts, 3);
	assert_int_equal(next(slow).type, MR_CQE_TOKEN);
	assert_int_equal(mr_ring_cancel(slow, 3, 2), 0);
	for (int ends = 0; ends < 2;) {
		struct mr_cqe cqe = next(slow);

		ends += cqe.type == MR_CQE_DONE || cqe.type == MR_CQE_ERROR;
		if (cqe.key == 2 && cqe.type != MR_CQE_TOKEN)
			assert_int_equal(cqe.status, MR_E_CANCELLED);
	}
	mr_ring_disconnect(slow);
	assert_int_equal(world_settle(&w.clients, 1), 1);
	assert_true(mr_metric_read(MR_M_sched_score_tokens) >= before + 54);
	/* Two at once beside each other, and one without. */
	assert_int_equal(mr_ring_submit(ring, &sqe, &prompt, 4, &b, sizeof(b)), 0);
	assert_int_equal(next(ring).type, MR_CQE_DONE);
	ask(ring, 2, parts, counts, 3);
	scores(ring, 2, parts, counts, 3);
	assert_int_equal(mr_ring_score_tokens(ring, 4, 1, parts, counts, 3, NULL), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(next(ring).type, MR_CQE_SCORE);
	assert_int_equal(next(ring).type, MR_CQE_DONE);
}

/* Without the bits: the flag and the longer block are refused. */
static void test_not_granted(void **state)
{
	struct mr_ring_options options = {.path = w.path,
					  .required = MR_FEATURE_SCORE | MR_FEATURE_KEEP};
	struct mr_sqe sqe = {.op = MR_OP_SUBMIT, .flags = MR_SUBMIT_TOKENS, .key = 1};
	struct block b = plain();
	uint32_t id = 30;
	struct mr_ring *old;
	struct mr_cqe cqe;

	assert_int_equal(mr_ring_connect(&options, &old), 0);
	assert_int_equal(mr_stops_add(&b.stops, "x", 1), 0);
	assert_int_equal(mr_ring_submit(old, &sqe, &id, 4, &b, sizeof(b)), 0);
	cqe = next(old);
	assert_int_equal(cqe.status, MR_E_VERSION);
	assert_int_equal(cqe.token, MR_FIELD_PARAMS + sizeof(struct mr_params));
	sqe.op = MR_OP_SCORE;
	sqe.flags = MR_SCORE_LOGPROBS;
	assert_int_equal(mr_ring_submit(old, &sqe, NULL, 0, NULL, 0), 0);
	cqe = next(old);
	assert_int_equal(cqe.status, MR_E_NOT_SUPPORTED);
	assert_int_equal(cqe.token, offsetof(struct mr_sqe, flags));
	assert_int_equal(mr_ring_submit(old, &sqe, NULL, 1, NULL, 0), MR_E_INVALID);
	assert_int_equal(mr_ring_submit(old, &sqe, &id, 4, NULL, 8), MR_E_INVALID);
	assert_int_equal(mr_ring_submit(old, &sqe, &id, 4, &b, 12), MR_E_INVALID);
	assert_int_equal(mr_ring_submit(old, &sqe, &id, SIZE_MAX, &b, 8), MR_E_TOO_LARGE);
	mr_ring_disconnect(old);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_search), TEST(test_edges),    cmocka_unit_test(test_letters),
		TEST(test_again),  TEST(test_logprobs), TEST(test_not_granted),
	};

	return cmocka_run_group_tests_name("ring_stops", tests, NULL, NULL);
}
