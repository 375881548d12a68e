/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is done with sequences over the ring, on the nil device, where every token and log-probability is
 * known: KEEP, APPEND, FORK, SCORE, PREFIX, RELEASE, QUERY, each with its CQEs field by field; slow readers;
 * a client that dies with all of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "driver/sched/internal.h"
#include "tests/unit/ring_world.h"

#define SECOND 1000000000ll
#define ALL                                                                           \
	(MR_FEATURE_APPEND | MR_FEATURE_FORK | MR_FEATURE_SCORE | MR_FEATURE_PREFIX | \
	 MR_FEATURE_QUERY | MR_FEATURE_KEEP | MR_FEATURE_ITL)
#define FIELD(name) ((uint32_t)offsetof(struct mr_sqe, name))
#define KEEP        (MR_SUBMIT_KEEP | MR_SUBMIT_IGNORE_EOS)

static struct world w;
static struct mr_ring *ring;
static const uint32_t IDS[] = {20, 21, 22};

static struct mr_ring *join(uint32_t cq_entries)
{
	struct mr_ring_options options = {
		.path = w.path, .cq_entries = cq_entries, .required = ALL};
	struct mr_ring *made = NULL;

	assert_int_equal(mr_ring_connect(&options, &made), 0);
	assert_int_equal(mr_ring_features(made), ALL);
	return made;
}

static int set_up_with(uint64_t kv_tokens)
{
	if (world_make_with(&w, 0, 16, kv_tokens))
		return -1;
	world_run(&w);
	ring = join(0);
	return 0;
}

static int set_up(void **state)
{
	return set_up_with(0);
}

static int set_up_small(void **state)
{
	return set_up_with(128);
}

/* All is given back by then, whatever the test did. */
static int tear_down(void **state)
{
	const char *why = "";

	mr_ring_disconnect(ring);
	if (world_settle(&w.clients, 0) || world_settle(&w.active, 0))
		return -1;
	world_halt(&w);
	mr_sched_drop_cache(w.sched);
	if (mr_sched_check(w.sched, &why) || w.sched->live || w.sched->pool[DEC].held ||
	    mr_metric_read(MR_M_ring_overrun)) {
		print_message("left behind: %u sequences, %u slots; %s\n", w.sched->live,
			      w.sched->pool[DEC].held, why);
		return -1;
	}
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

static const struct mr_params *params(uint32_t max_tokens)
{
	static struct mr_params p;

	p = (struct mr_params){.version = MR_PARAMS_VERSION, .max_tokens = max_tokens};
	return &p;
}

/* An ERROR that refuses an SQE, or the DONE of one that makes no request. */
static void answered(struct mr_ring *of, uint64_t key, uint8_t op, int status, uint32_t field)
{
	struct mr_cqe cqe = next(of);

	assert_int_equal(cqe.status, status);
	assert_int_equal(cqe.type, status ? MR_CQE_ERROR : MR_CQE_DONE);
	assert_int_equal(cqe.key, key);
	assert_int_equal(cqe.op, op);
	assert_int_equal(cqe.token, field);
	assert_int_equal(cqe.sequence | cqe.generation | cqe.ended, 0);
}

/* @count tokens from @first up at @position, and the end; returns the sequence's number. */
static uint32_t answer(struct mr_ring *of, uint64_t key, uint8_t op, uint32_t first,
		       uint32_t position, uint32_t count)
{
	struct mr_cqe cqe = {0};

	for (uint32_t i = 0; i <= count; i++) {
		cqe = next(of);
		assert_int_equal(cqe.key, key);
		assert_int_equal(cqe.op, op);
		assert_int_equal(cqe.status, 0);
		assert_int_equal(cqe.position, position + i);
		assert_int_equal(cqe.index, i);
		assert_int_equal(cqe.type, i < count ? MR_CQE_TOKEN : MR_CQE_DONE);
		assert_int_equal(cqe.token, i < count ? first + i : 0);
		assert_int_equal(cqe.generation, 1);
		assert_true(cqe.sequence > 0);
	}
	assert_int_equal(cqe.ended, MR_ENDED_LENGTH);
	return cqe.sequence;
}

/* Of a sequence, or with state 0 none. Returns its KV blocks. */
static uint64_t is(uint64_t target, uint32_t state, uint32_t tokens, uint32_t positions)
{
	struct mr_cqe cqe;

	assert_int_equal(mr_ring_query(ring, 900, target), 0);
	if (!state) {
		answered(ring, 900, MR_OP_QUERY, MR_E_NOT_FOUND, FIELD(target));
		return 0;
	}
	cqe = next(ring);
	assert_int_equal(cqe.type, MR_CQE_DONE);
	assert_int_equal(cqe.op, MR_OP_QUERY);
	assert_int_equal(cqe.key, 900);
	assert_int_equal(cqe.token, state);
	assert_int_equal(cqe.position, tokens);
	assert_int_equal(cqe.index, positions);
	assert_true(cqe.sequence > 0 && cqe.generation == 1);
	return cqe.cycles;
}

static void release(uint64_t target, int status)
{
	assert_int_equal(mr_ring_release(ring, 901, target), 0);
	answered(ring, 901, MR_OP_RELEASE, status, status ? FIELD(target) : 0);
}

static void test_append(void **state)
{
	static const uint32_t more[] = {40, 41};
	uint32_t sequence;

	assert_int_equal(mr_ring_submit_tokens(ring, 1, IDS, 3, KEEP, params(4)), 0);
	sequence = answer(ring, 1, MR_OP_SUBMIT, 23, 3, 4);
	assert_true(is(1, MR_STATE_PAUSED, 7, 6) > 0);
	/* Its key is taken as long as it is. */
	assert_int_equal(mr_ring_submit_tokens(ring, 1, IDS, 3, KEEP, params(4)), 0);
	answered(ring, 1, MR_OP_SUBMIT, MR_E_EXISTS, FIELD(key));
	assert_int_equal(mr_ring_append_tokens(ring, 2, 1, more, 2, KEEP, params(3)), 0);
	assert_int_equal(answer(ring, 2, MR_OP_APPEND, 42, 9, 3), sequence);
	is(1, MR_STATE_PAUSED, 12, 11);
	is(2, 0, 0, 0); /* the request's name, not a sequence's */
	/* Input alone, then text, and without KEEP it ends. */
	assert_int_equal(mr_ring_append_tokens(ring, 2, 1, more, 2, KEEP, params(0)), 0);
	assert_int_equal(answer(ring, 2, MR_OP_APPEND, 0, 14, 0), sequence);
	assert_int_equal(mr_ring_append_text(ring, 3, 1, "and", 3, MR_SUBMIT_IGNORE_EOS, params(1)),
			 0);
	while (next(ring).type == MR_CQE_TOKEN)
		;
	is(1, 0, 0, 0);
	assert_int_equal(mr_ring_append_tokens(ring, 4, 1, more, 2, KEEP, NULL), 0);
	answered(ring, 4, MR_OP_APPEND, MR_E_NOT_FOUND, FIELD(target));
	/* A prompt alone. */
	assert_int_equal(mr_ring_submit_tokens(ring, 1, IDS, 3, KEEP, params(0)), 0);
	assert_true(answer(ring, 1, MR_OP_SUBMIT, 0, 3, 0) > sequence);
	is(1, MR_STATE_PAUSED, 3, 2);
	assert_int_equal(mr_ring_append_tokens(ring, 2, 1, more, 2, 0, params(2)), 0);
	answer(ring, 2, MR_OP_APPEND, 42, 5, 2);
}

static void test_fork(void **state)
{
	static const uint32_t more[] = {60};
	uint32_t parent;

	assert_int_equal(mr_ring_submit_tokens(ring, 1, IDS, 3, KEEP, params(2)), 0);
	parent = answer(ring, 1, MR_OP_SUBMIT, 23, 3, 2);
	assert_int_equal(mr_ring_fork(ring, 2, 1, KEEP, params(4)), 0);
	assert_true(answer(ring, 2, MR_OP_FORK, 25, 5, 4) != parent);
	is(1, MR_STATE_PAUSED, 5, 4);
	is(2, MR_STATE_PAUSED, 9, 8);
	/* Each goes its own way, and either may end first. */
	assert_int_equal(mr_ring_append_tokens(ring, 3, 2, more, 1, KEEP, params(1)), 0);
	answer(ring, 3, MR_OP_APPEND, 61, 10, 1);
	assert_int_equal(mr_ring_fork(ring, 4, 1, KEEP, params(0)), 0);
	answer(ring, 4, MR_OP_FORK, 0, 5, 0);
	release(1, 0);
	is(1, 0, 0, 0);
	assert_int_equal(mr_ring_append_tokens(ring, 5, 4, more, 1, 0, params(1)), 0);
	answer(ring, 5, MR_OP_APPEND, 61, 6, 1);
	assert_int_equal(mr_ring_fork(ring, 6, 1, 0, NULL), 0);
	answered(ring, 6, MR_OP_FORK, MR_E_NOT_FOUND, FIELD(target));
	assert_int_equal(mr_ring_fork(ring, 2, 2, 0, NULL), 0);
	answered(ring, 2, MR_OP_FORK, MR_E_EXISTS, FIELD(key));
	release(2, 0);
	release(2, MR_E_NOT_FOUND);
}

/* ---- SCORE ---- */

static void scored(struct mr_ring *of, uint64_t key, uint32_t index, uint32_t tokens, float logprob)
{
	struct mr_cqe cqe = next(of);

	assert_int_equal(cqe.type, MR_CQE_SCORE);
	assert_int_equal(cqe.op, MR_OP_SCORE);
	assert_int_equal(cqe.key, key);
	assert_int_equal(cqe.status, 0);
	assert_int_equal(cqe.index, index);
	assert_int_equal(cqe.token, tokens);
	assert_int_equal(cqe.position, 3);
	assert_true(cqe.logprob == logprob);
}

static void scored_all(struct mr_ring *of, uint64_t key, uint32_t count)
{
	struct mr_cqe cqe = next(of);

	assert_int_equal(cqe.type, MR_CQE_DONE);
	assert_int_equal(cqe.op, MR_OP_SCORE);
	assert_int_equal(cqe.key, key);
	assert_int_equal(cqe.ended, MR_ENDED_LENGTH);
	assert_int_equal(cqe.index, count);
	assert_int_equal(cqe.position, 3);
}

static void test_score(void **state)
{
	static const uint32_t a[] = {33, 34}, b[] = {39}, c[] = {1, 2, 3};
	const uint32_t *const parts[] = {a, b, c};
	static const size_t counts[] = {2, 1, 3};
	static const char *const texts[] = {" buy", " hold", " sell"};
	float sum = 0;

	assert_int_equal(mr_ring_submit_tokens(ring, 1, IDS, 3, KEEP, params(0)), 0);
	answer(ring, 1, MR_OP_SUBMIT, 0, 3, 0);
	assert_int_equal(mr_ring_score_tokens(ring, 2, 1, parts, counts, 3, NULL), 0);
	for (uint32_t i = 0; i < 3; i++) {
		sum = 0;
		for (uint32_t j = 0; j < counts[i]; j++)
			sum += mr_nil_logprob(parts[i][j]);
		scored(ring, 2, i, (uint32_t)counts[i], sum);
	}
	scored_all(ring, 2, 3);
	is(1, MR_STATE_PAUSED, 3, 2);
	/* Texts: as many CQEs, and what the tokeniser makes of them. */
	assert_int_equal(mr_ring_score_text(ring, 3, 1, texts, NULL, 3, params(0)), 0);
	for (uint32_t i = 0; i < 3; i++) {
		struct mr_cqe cqe = next(ring);

		assert_int_equal(cqe.type, MR_CQE_SCORE);
		assert_int_equal(cqe.index, i);
		assert_true(cqe.token >= 1 && cqe.token <= 5 && cqe.logprob <= 0);
	}
	scored_all(ring, 3, 3);
	assert_int_equal(mr_ring_score_text(ring, 3, 1, texts, NULL, 0, NULL), MR_E_INVALID);
	assert_int_equal(mr_ring_score_text(ring, 3, 1, texts, NULL, 65, NULL), MR_E_INVALID);
	assert_int_equal(mr_ring_score_text(ring, 3, 1, texts, (const size_t[]){4, 0, 5}, 3, NULL),
			 MR_E_INVALID);
	assert_int_equal(
		mr_ring_score_text(ring, 3, 1, texts, (const size_t[]){4, SIZE_MAX, 5}, 3, NULL),
		MR_E_TOO_LARGE);
	/* It may ask about itself after an answer under way, and the target may go meanwhile. */
	release(1, 0);
	assert_int_equal(mr_ring_score_text(ring, 3, 1, texts, NULL, 3, NULL), 0);
	answered(ring, 3, MR_OP_SCORE, MR_E_NOT_FOUND, FIELD(target));
}

/* Two SCOREs of the most continuations into the smallest queue, read one at a time: each waits, none is lost. */
static void test_score_slowly(void **state)
{
	struct mr_ring *slow = join(8);
	const uint32_t *parts[MR_CONTINUATIONS_MAX];
	size_t counts[MR_CONTINUATIONS_MAX];
	uint32_t at[2] = {0};

	for (uint32_t i = 0; i < MR_CONTINUATIONS_MAX; i++) {
		parts[i] = IDS + i % 3;
		counts[i] = 1;
	}
	assert_int_equal(mr_ring_submit_tokens(slow, 1, IDS, 3, KEEP, params(0)), 0);
	answer(slow, 1, MR_OP_SUBMIT, 0, 3, 0);
	assert_int_equal(world_hold(&w), 0);
	for (uint64_t key = 2; key < 4; key++)
		assert_int_equal(mr_ring_score_tokens(slow, key, 1, parts, counts,
						      MR_CONTINUATIONS_MAX, NULL),
				 0);
	world_let_go(&w);
	for (uint32_t ended = 0; ended < 2;) {
		struct mr_cqe cqe = next(slow);

		usleep(500);
		assert_true(cqe.key == 2 || cqe.key == 3);
		assert_int_equal(cqe.status, 0);
		if (cqe.type == MR_CQE_SCORE) {
			assert_int_equal(cqe.index, at[cqe.key - 2]++);
			continue;
		}
		assert_int_equal(cqe.type, MR_CQE_DONE);
		assert_int_equal(cqe.index, MR_CONTINUATIONS_MAX);
		assert_int_equal(at[cqe.key - 2], MR_CONTINUATIONS_MAX);
		ended++;
	}
	/* One that reads nothing can end it all the same. */
	assert_int_equal(
		mr_ring_score_tokens(slow, 4, 1, parts, counts, MR_CONTINUATIONS_MAX, NULL), 0);
	assert_int_equal(mr_ring_cancel(slow, 5, 4), 0);
	for (int ends = 0; ends < 2;) {
		struct mr_cqe cqe = next(slow);

		if (cqe.key == 4 && cqe.type == MR_CQE_SCORE)
			continue;
		assert_int_equal(cqe.status, cqe.key == 4 ? MR_E_CANCELLED : 0);
		ends++;
	}
	mr_ring_disconnect(slow);
	assert_int_equal(world_settle(&w.clients, 1), 1);
}

/* ---- PREFIX ---- */

static void test_prefix(void **state)
{
	static uint32_t ids[64];
	struct mr_ring *other = join(0);

	for (uint32_t i = 0; i < 64; i++)
		ids[i] = 30 + i;
	assert_int_equal(mr_ring_submit_tokens(ring, 1, ids, 64, KEEP, params(0)), 0);
	answer(ring, 1, MR_OP_SUBMIT, 0, 64, 0);
	assert_int_equal(mr_ring_prefix(ring, 77, 1), 0);
	answered(ring, 77, MR_OP_PREFIX, 0, 0);
	assert_int_equal(mr_ring_prefix(ring, 77, 1), 0);
	answered(ring, 77, MR_OP_PREFIX, MR_E_EXISTS, FIELD(key));
	assert_int_equal(mr_ring_prefix(ring, 0, 1), 0);
	answered(ring, 0, MR_OP_PREFIX, MR_E_INVALID, FIELD(key));
	assert_int_equal(mr_ring_prefix(ring, 78, 9), 0);
	answered(ring, 78, MR_OP_PREFIX, MR_E_NOT_FOUND, FIELD(target));
	release(1, 0); /* the prefix outlives its sequence */
	/* The other client's prompt goes after it, as ids and as text. */
	assert_int_equal(mr_ring_submit_tokens_after(other, 1, 77, IDS, 3, KEEP, params(2)), 0);
	answer(other, 1, MR_OP_SUBMIT, 23, 67, 2);
	assert_int_equal(mr_ring_submit_text_after(other, 2, 77, "x", 1, KEEP, params(0)), 0);
	assert_true(next(other).position > 64);
	assert_int_equal(mr_ring_prefix(other, 77, 1), 0);
	answered(other, 77, MR_OP_PREFIX, MR_E_EXISTS, FIELD(key));
	/* It is its namer's to end. */
	assert_int_equal(mr_ring_release(other, 3, 77), 0);
	answered(other, 3, MR_OP_RELEASE, MR_E_NOT_FOUND, FIELD(target));
	release(77, 0);
	assert_int_equal(mr_ring_submit_tokens_after(other, 4, 77, IDS, 3, 0, NULL), 0);
	answered(other, 4, MR_OP_SUBMIT, MR_E_NOT_FOUND, FIELD(target));
	/* As many as there are places, three quarters for one client; the rest is refused until one is free. */
	for (uint64_t name = 100; name < 112; name++) {
		assert_int_equal(mr_ring_prefix(other, name, 1), 0);
		answered(other, name, MR_OP_PREFIX, 0, 0);
	}
	assert_int_equal(mr_ring_prefix(other, 112, 1), 0);
	answered(other, 112, MR_OP_PREFIX, MR_E_QUOTA, 0);
	assert_int_equal(mr_ring_submit_tokens(ring, 1, IDS, 3, KEEP, params(0)), 0);
	answer(ring, 1, MR_OP_SUBMIT, 0, 3, 0);
	for (uint64_t name = 200; name < 205; name++) {
		assert_int_equal(mr_ring_prefix(ring, name, 1), 0);
		answered(ring, name, MR_OP_PREFIX, name < 204 ? 0 : MR_E_FULL, 0);
	}
	mr_ring_disconnect(other);
	assert_int_equal(world_settle(&w.clients, 1), 1);
	/* They went with their client. */
	assert_int_equal(mr_ring_prefix(ring, 100, 1), 0);
	answered(ring, 100, MR_OP_PREFIX, 0, 0);
}

/* ---- while an answer is under way ---- */

/* A sequence of eight tokens that decodes, and waits for @slow to read. */
static struct mr_ring *stuck(uint64_t key)
{
	struct mr_params p = *params(100);
	struct mr_ring *slow = join(16);

	p.itl_ns = 1000000;
	assert_int_equal(mr_ring_submit_tokens(slow, key, IDS, 3, KEEP, &p), 0);
	while (__atomic_load_n(&slow->cq[(slow->cq_index + 4) & slow->cq_mask].published,
			       __ATOMIC_ACQUIRE) != slow->cq_index + 5)
		usleep(100);
	return slow;
}

/* Takes CQEs to the DONE or ERROR of @key. */
static struct mr_cqe until_end(struct mr_ring *of, uint64_t key)
{
	for (;;) {
		struct mr_cqe cqe = next(of);

		if (cqe.key == key && cqe.type != MR_CQE_TOKEN)
			return cqe;
	}
}

static void test_under_way(void **state)
{
	struct mr_ring *slow = stuck(1);
	struct mr_cqe cqe;

	/* The bound between tokens came with it. */
	assert_int_equal(world_hold(&w), 0);
	cqe.sequence = 0;
	for (uint32_t i = 0; i < w.sched->sequence_count; i++)
		if (w.sched->sequences[i].state == DECODING)
			cqe.sequence += w.sched->sequences[i].class == FOREGROUND &&
					w.sched->sequences[i].entry->request.itl_ns == 1000000;
	assert_int_equal(cqe.sequence, 1);
	world_let_go(&w);
	assert_int_equal(mr_ring_append_tokens(slow, 2, 1, IDS, 3, 0, NULL), 0);
	cqe = until_end(slow, 2);
	assert_int_equal(cqe.status, MR_E_BUSY);
	assert_int_equal(cqe.token, FIELD(target));
	mr_ring_disconnect(slow);
	slow = stuck(1);
	assert_int_equal(mr_ring_query(slow, 3, 1), 0);
	cqe = until_end(slow, 3);
	assert_int_equal(cqe.token, MR_STATE_DECODING);
	assert_true(cqe.position > 3 && cqe.index == cqe.position - 1 && cqe.cycles > 0);
	/* RELEASE ends what is under way, KEEP or not; both are answered. */
	assert_int_equal(mr_ring_release(slow, 4, 1), 0);
	assert_int_equal(until_end(slow, 4).status, 0);
	cqe = until_end(slow, 1);
	assert_int_equal(cqe.status, MR_E_CANCELLED);
	assert_int_equal(cqe.ended, MR_ENDED_CANCEL);
	assert_int_equal(mr_ring_query(slow, 3, 1), 0);
	assert_int_equal(until_end(slow, 3).status, MR_E_NOT_FOUND);
	/* CANCEL knows requests alone: a paused sequence has none. */
	assert_int_equal(mr_ring_submit_tokens(slow, 5, IDS, 3, KEEP, params(1)), 0);
	assert_int_equal(until_end(slow, 5).status, 0);
	assert_int_equal(mr_ring_cancel(slow, 6, 5), 0);
	cqe = until_end(slow, 6);
	assert_int_equal(cqe.status, MR_E_NOT_FOUND);
	assert_int_equal(cqe.token, FIELD(target));
	mr_ring_disconnect(slow);
	assert_int_equal(world_settle(&w.clients, 1), 1);
}

static void test_query_server(void **state)
{
	struct mr_ring *slow = stuck(1);
	struct mr_cqe cqe;

	assert_int_equal(mr_ring_submit_tokens(ring, 1, IDS, 3, KEEP, params(20)), 0);
	answer(ring, 1, MR_OP_SUBMIT, 23, 3, 20);
	assert_int_equal(mr_ring_query(ring, 2, 0), 0);
	cqe = next(ring);
	assert_int_equal(cqe.type, MR_CQE_DONE);
	assert_int_equal(cqe.op, MR_OP_QUERY);
	assert_int_equal(cqe.position, 1); /* the other's */
	assert_int_equal(cqe.index, 0);
	assert_int_equal(cqe.sequence | cqe.token, 0);
	assert_int_equal(cqe.cycles, 0); /* a paused sequence's are not counted */
	assert_int_equal(is(1, MR_STATE_PAUSED, 23, 22), 2);
	assert_int_equal(mr_ring_query(slow, 2, 0), 0);
	cqe = until_end(slow, 2);
	assert_int_equal(cqe.position, 1);
	assert_int_equal(cqe.index, 1);
	assert_int_equal(cqe.cycles, (3 + 100 + 15) / 16);
	mr_ring_disconnect(slow);
	assert_int_equal(world_settle(&w.clients, 1), 1);
}

/* A client goes with paused sequences, forks, a SCORE and an answer under way, and a name. */
static void test_death(void **state)
{
	struct mr_ring *doomed = stuck(1);
	uint64_t client = doomed->header->client;
	const char *why = "";
	const uint32_t *parts[2] = {IDS, IDS};
	static const size_t counts[2] = {3, 3};

	for (uint64_t key = 2; key < 5; key++) {
		assert_int_equal(mr_ring_fork(doomed, key, 1, KEEP, params(0)), 0);
		assert_int_equal(until_end(doomed, key).status, 0);
	}
	assert_int_equal(mr_ring_prefix(doomed, 55, 2), 0);
	assert_int_equal(until_end(doomed, 55).status, 0);
	for (uint64_t key = 10; key < 13; key++)
		assert_int_equal(mr_ring_score_tokens(doomed, key, 2, parts, counts, 2, NULL), 0);
	assert_int_equal(until_end(doomed, 10).status, 0);
	assert_int_equal(world_hold(&w), 0);
	assert_true(mr_sched_client_blocks(w.sched, client) > 0);
	assert_true(w.sched->live >= 4);
	world_let_go(&w);
	mr_ring_disconnect(doomed);
	assert_int_equal(world_settle(&w.clients, 1), 1);
	assert_int_equal(world_hold(&w), 0);
	assert_int_equal(mr_sched_client_blocks(w.sched, client), 0);
	assert_int_equal(w.sched->live, 0);
	assert_int_equal(mr_sched_check(w.sched, &why), 0);
	world_let_go(&w);
	assert_int_equal(mr_ring_submit_tokens_after(ring, 1, 55, IDS, 3, 0, NULL), 0);
	answered(ring, 1, MR_OP_SUBMIT, MR_E_NOT_FOUND, FIELD(target));
	/* The same with nothing under way: what is paused goes too. */
	doomed = join(0);
	client = doomed->header->client;
	assert_int_equal(mr_ring_submit_tokens(doomed, 1, IDS, 3, KEEP, params(1)), 0);
	answer(doomed, 1, MR_OP_SUBMIT, 23, 3, 1);
	mr_ring_disconnect(doomed);
	assert_int_equal(world_settle(&w.clients, 1), 1);
	assert_int_equal(world_hold(&w), 0);
	assert_int_equal(w.sched->live, 0);
	world_let_go(&w);
}

/* What the device can never hold ends with how many KV blocks it wants and how many there are. */
static void test_no_room(void **state)
{
	struct mr_cqe cqe;

	assert_int_equal(mr_ring_submit_tokens(ring, 1, IDS, 3, KEEP, params(200)), 0);
	cqe = until_end(ring, 1);
	assert_int_equal(cqe.type, MR_CQE_ERROR);
	assert_true(cqe.status == MR_E_CONTEXT_FULL || cqe.status == MR_E_KV_EXHAUSTED);
	assert_int_equal(cqe.ended, MR_ENDED_ERROR);
	assert_int_equal(cqe.position, (3 + 200 + 15) / 16);
	assert_int_equal(cqe.index, 128 / 16);
}

/* A client that wished for nothing gets nothing of all this. */
static void test_not_granted(void **state)
{
	static const uint16_t ops[] = {MR_OP_APPEND, MR_OP_FORK, MR_OP_SCORE, MR_OP_PREFIX,
				       MR_OP_QUERY};
	struct mr_ring_options options = {.path = w.path};
	struct mr_params p = *params(3);
	struct mr_ring *plain;
	struct mr_cqe cqe;

	assert_int_equal(mr_ring_connect(&options, &plain), 0);
	assert_int_equal(mr_ring_features(plain), 0);
	for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		struct mr_sqe sqe = {.op = ops[i], .key = 1, .target = 1};

		assert_int_equal(mr_ring_push(plain, &sqe), 0);
		answered(plain, 1, (uint8_t)ops[i], MR_E_NOT_SUPPORTED, FIELD(op));
	}
	assert_int_equal(mr_ring_submit_tokens(plain, 1, IDS, 3, KEEP, NULL), 0);
	answered(plain, 1, MR_OP_SUBMIT, MR_E_NOT_SUPPORTED, FIELD(flags));
	assert_int_equal(mr_ring_submit_tokens_after(plain, 1, 5, IDS, 3, 0, NULL), 0);
	answered(plain, 1, MR_OP_SUBMIT, MR_E_INVALID, FIELD(target));
	p.deadline_ns = UINT64_MAX;
	assert_int_equal(mr_ring_submit_tokens(plain, 1, IDS, 3, 0, &p), 0);
	cqe = next(plain);
	assert_int_equal(cqe.status, MR_E_NOT_SUPPORTED);
	assert_int_equal(cqe.token, MR_FIELD_PARAMS + offsetof(struct mr_params, deadline_ns));
	p.deadline_ns = 0;
	p.priority = 1;
	assert_int_equal(mr_ring_submit_tokens(plain, 1, IDS, 3, 0, &p), 0);
	cqe = next(plain);
	assert_int_equal(cqe.status, MR_E_NOT_SUPPORTED);
	assert_int_equal(cqe.token, MR_FIELD_PARAMS + offsetof(struct mr_params, priority));
	p.priority = 0;
	p.itl_ns = 1;
	assert_int_equal(mr_ring_submit_tokens(plain, 1, IDS, 3, 0, &p), 0);
	cqe = next(plain);
	assert_int_equal(cqe.status, MR_E_NOT_SUPPORTED);
	assert_int_equal(cqe.token, MR_FIELD_PARAMS + offsetof(struct mr_params, itl_ns));
	mr_ring_disconnect(plain);
	/* One bit is one bit. */
	options.features = MR_FEATURE_QUERY | 1ull << 60;
	assert_int_equal(mr_ring_connect(&options, &plain), 0);
	assert_int_equal(mr_ring_features(plain), MR_FEATURE_QUERY);
	assert_int_equal(mr_ring_query(plain, 1, 0), 0);
	assert_int_equal(next(plain).type, MR_CQE_DONE);
	mr_ring_disconnect(plain);
	options.required = MR_FEATURE_TOOL_CALL;
	assert_int_equal(mr_ring_connect(&options, &plain), MR_E_VERSION);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_append),
		TEST(test_fork),
		TEST(test_score),
		TEST(test_score_slowly),
		TEST(test_prefix),
		TEST(test_under_way),
		TEST(test_query_server),
		TEST(test_death),
		TEST(test_not_granted),
		cmocka_unit_test_setup_teardown(test_no_room, set_up_small, tear_down),
	};

	return cmocka_run_group_tests_name("ring_ops", tests, NULL, NULL);
}
