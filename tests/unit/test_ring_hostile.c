/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a hostile or mistaken client can send, each with all else valid and each with its exact refusal:
 * fields of an SQE, of a parameter block, of the handshake; and what the sealed files do not allow. The server
 * must serve another client as before after every one of them.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cmocka.h>

#include "tests/unit/ring_world.h"

#define DATA_BYTES  131072u
#define FIELD(name) ((uint32_t)offsetof(struct mr_sqe, name))
#define PARAM(name) (MR_FIELD_PARAMS + (uint32_t)offsetof(struct mr_params, name))
#define STOPS(name)                                             \
	(MR_FIELD_PARAMS + (uint32_t)sizeof(struct mr_params) + \
	 (uint32_t)offsetof(struct mr_stops, name))
#define SCORED(name) (MR_FIELD_CONTINUATIONS + (uint32_t)offsetof(struct mr_continuations, name))
#define KEPT         50u /* the key of a paused sequence */
#define NONE         51u /* the key of nothing */

static struct world w;
static struct mr_ring *ring;

static int set_up(void **state)
{
	struct mr_ring_options options = {.data_bytes = DATA_BYTES, .features = UINT64_MAX};

	if (world_make(&w, 4))
		return -1;
	world_run(&w);
	options.path = w.path;
	return mr_ring_connect(&options, &ring);
}

static int tear_down(void **state)
{
	mr_ring_disconnect(ring);
	world_end(&w);
	return 0;
}

static struct mr_cqe next(void)
{
	struct mr_cqe cqe = {0};

	assert_int_equal(mr_ring_wait(ring, 5000000000), 0);
	assert_int_equal(mr_ring_poll(ring, &cqe), 1);
	return cqe;
}

/* A SUBMIT that is right in everything: prompt at 0, parameter block at 4096. */
static struct mr_sqe good(void)
{
	struct mr_params params = {.version = MR_PARAMS_VERSION, .max_tokens = 3};

	memset(ring->data, 0, DATA_BYTES);
	memcpy(ring->data, "some words", 10);
	memcpy(ring->data + 4096, &params, sizeof(params));
	return (struct mr_sqe){.op = MR_OP_SUBMIT,
			       .flags = MR_SUBMIT_IGNORE_EOS,
			       .key = 1,
			       .data_bytes = 10,
			       .params_offset = 4096,
			       .params_bytes = sizeof(params)};
}

static struct mr_params *block(void)
{
	return (struct mr_params *)(ring->data + 4096);
}

static struct mr_stops *stops(void)
{
	return (struct mr_stops *)(block() + 1);
}

static void expect(const struct mr_sqe *sqe, int status, uint32_t field)
{
	struct mr_cqe cqe;

	assert_int_equal(mr_ring_push(ring, sqe), 0);
	cqe = next();
	if (cqe.type != MR_CQE_ERROR || cqe.status != status || cqe.token != field)
		fail_msg("wanted %s at %u, got type %u %s at %u", mr_status_name(status), field,
			 cqe.type, mr_status_name(cqe.status), cqe.token);
	assert_int_equal(cqe.key, sqe->key);
	assert_int_equal((uint8_t)sqe->op, cqe.op);
	/* Where something does not fit, by how much; and nothing left over from other refusals. */
	assert_int_equal(cqe.index, status == MR_E_CONTEXT_FULL ? ring->header->context : 0);
	assert_true(status == MR_E_CONTEXT_FULL ? cqe.position > cqe.index : cqe.position == 0);
	/* The same client is served as before. */
	assert_int_equal(mr_ring_nop(ring, 99), 0);
	assert_int_equal(next().type, MR_CQE_DONE);
}

static void expect_good(const struct mr_sqe *sqe)
{
	assert_int_equal(mr_ring_push(ring, sqe), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(next().type, MR_CQE_TOKEN);
	assert_int_equal(next().type, MR_CQE_DONE);
}

/* @change makes one thing wrong with a good SQE, called sqe. */
#define WRONG(made, change, status, field)   \
	do {                                 \
		sqe = made;                  \
		change;                      \
		expect(&sqe, status, field); \
	} while (0)
#define REFUSED(change, status, field) WRONG(good(), change, status, field)

/* A paused sequence, for what needs one. */
static void keep_one(void)
{
	struct mr_sqe sqe = good();

	sqe.flags |= MR_SUBMIT_KEEP;
	sqe.key = KEPT;
	expect_good(&sqe);
}

static struct mr_continuations *continuations(void)
{
	return (struct mr_continuations *)(ring->data + 8192);
}

/* The same of any operation; SCORE's block and its two texts of three bytes are at 8192. */
static struct mr_sqe good_of(uint16_t op)
{
	struct mr_sqe sqe = good();

	sqe.op = op;
	sqe.target = op == MR_OP_NOP || op == MR_OP_SUBMIT ? 0 : KEPT;
	if (op == MR_OP_SUBMIT || op == MR_OP_APPEND)
		return sqe;
	sqe.flags = 0;
	sqe.data_bytes = 0;
	if (op == MR_OP_SCORE) {
		*continuations() = (struct mr_continuations){.version = MR_CONTINUATIONS_VERSION,
							     .bytes = 272,
							     .count = 2,
							     .ends = {3, 6}};
		memcpy(ring->data + 8192 + 272, "yesnay", 6);
		block()->max_tokens = 0;
		sqe.data_offset = 8192;
		sqe.data_bytes = 272 + 6;
	} else if (op != MR_OP_FORK) {
		sqe.params_offset = sqe.params_bytes = 0;
	}
	return sqe;
}

/* What an operation uses, as ring.h's lists say. */
static const struct {
	uint16_t flags;
	uint8_t data, params, target;
} USES[MR_OP_COUNT] = {
	[MR_OP_SUBMIT] = {15, 1, 1, 1},
	[MR_OP_APPEND] = {15, 1, 1, 1},
	[MR_OP_FORK] = {MR_SUBMIT_IGNORE_EOS | MR_SUBMIT_KEEP, 0, 1, 1},
	[MR_OP_SCORE] = {MR_SUBMIT_TOKENS | MR_SCORE_LOGPROBS, 1, 1, 1},
	[MR_OP_PREFIX] = {.target = 1},
	[MR_OP_CANCEL] = {.target = 1},
	[MR_OP_RELEASE] = {.target = 1},
	[MR_OP_QUERY] = {.target = 1},
};

static void test_operations(void **state)
{
	struct mr_sqe sqe = good();

	expect_good(&sqe);
	REFUSED(sqe.op = MR_OP_COUNT, MR_E_NOT_SUPPORTED, FIELD(op));
	REFUSED(sqe.op = 0xffff, MR_E_NOT_SUPPORTED, FIELD(op));
	keep_one();
	for (uint16_t op = MR_OP_NOP; op < MR_OP_COUNT; op++) {
		for (unsigned bit = 0; bit < 16; bit++)
			if (!(USES[op].flags & 1u << bit))
				WRONG(good_of(op), sqe.flags = (uint16_t)(1u << bit), MR_E_VERSION,
				      FIELD(flags));
		WRONG(good_of(op), sqe.reserved = 1, MR_E_INVALID, FIELD(reserved));
		WRONG(good_of(op), sqe.reserved = 1ull << 63, MR_E_INVALID, FIELD(reserved));
		WRONG(good_of(op), sqe.buffer = 1, USES[op].data ? MR_E_NOT_FOUND : MR_E_INVALID,
		      FIELD(buffer));
		WRONG(good_of(op), sqe.buffer = 1ull << 63,
		      USES[op].data ? MR_E_NOT_FOUND : MR_E_INVALID, FIELD(buffer));
		if (!USES[op].data) {
			WRONG(good_of(op), sqe.data_offset = 8, MR_E_INVALID, FIELD(data_offset));
			WRONG(good_of(op), sqe.data_bytes = 8, MR_E_INVALID, FIELD(data_bytes));
		}
		if (!USES[op].params) {
			WRONG(good_of(op), sqe.params_bytes = 128, MR_E_INVALID,
			      FIELD(params_bytes));
			WRONG(good_of(op), sqe.params_offset = 128, MR_E_INVALID,
			      FIELD(params_offset));
		}
		WRONG(good_of(op), sqe.target = NONE,
		      USES[op].target ? MR_E_NOT_FOUND : MR_E_INVALID, FIELD(target));
	}
	/* Nothing of all that has touched it. CANCEL finds no request of its name. */
	sqe = good_of(MR_OP_CANCEL);
	expect(&sqe, MR_E_NOT_FOUND, FIELD(target));
	WRONG(good_of(MR_OP_PREFIX), sqe.key = 0, MR_E_INVALID, FIELD(key));
	for (uint16_t op = MR_OP_SUBMIT; op <= MR_OP_SCORE; op++)
		WRONG(good_of(op), sqe.key = KEPT, MR_E_EXISTS, FIELD(key));
	sqe = good_of(MR_OP_APPEND);
	expect_good(&sqe);
	WRONG(good_of(MR_OP_APPEND), , MR_E_NOT_FOUND, FIELD(target)); /* it said no KEEP */
}

/* Input and parameters of the other operations; what they share with SUBMIT is tested there. */
static void test_others(void **state)
{
	struct mr_sqe sqe;

	keep_one();
	/* 3,600 bytes of text: more tokens than the context has. */
	WRONG(good_of(MR_OP_SCORE),
	      (memset(ring->data + 8192 + 272, '7', 3600), continuations()->ends[1] = 3600,
	       sqe.data_bytes = 272 + 3600),
	      MR_E_CONTEXT_FULL, 0);
	WRONG(good_of(MR_OP_APPEND), sqe.flags = MR_SUBMIT_CHAT | MR_SUBMIT_TOKENS, MR_E_INVALID,
	      FIELD(flags));
	WRONG(good_of(MR_OP_APPEND), sqe.data_bytes = 0, MR_E_INVALID, FIELD(data_bytes));
	WRONG(good_of(MR_OP_APPEND), sqe.data_offset = DATA_BYTES - 9, MR_E_RANGE,
	      FIELD(data_offset));
	WRONG(good_of(MR_OP_APPEND), block()->max_tokens = 0, MR_E_RANGE, PARAM(max_tokens));
	WRONG(good_of(MR_OP_APPEND), block()->max_tokens = UINT32_MAX, MR_E_CONTEXT_FULL, 0);
	WRONG(good_of(MR_OP_APPEND), block()->sampling.min_p = 2, MR_E_RANGE, PARAM(sampling));
	WRONG(good_of(MR_OP_FORK), block()->max_tokens = 0, MR_E_RANGE, PARAM(max_tokens));
	WRONG(good_of(MR_OP_FORK), block()->max_tokens = UINT32_MAX, MR_E_CONTEXT_FULL, 0);
	WRONG(good_of(MR_OP_FORK), block()->sampling.min_p = 2, MR_E_RANGE, PARAM(sampling));
	WRONG(good_of(MR_OP_FORK), block()->deadline_ns = 1, MR_E_DEADLINE, PARAM(deadline_ns));
	WRONG(good_of(MR_OP_APPEND), block()->deadline_ns = 1, MR_E_DEADLINE, PARAM(deadline_ns));
	WRONG(good_of(MR_OP_FORK), sqe.params_bytes = 64, MR_E_TRUNCATED, FIELD(params_bytes));
	WRONG(good_of(MR_OP_SCORE), block()->max_tokens = 1, MR_E_INVALID, PARAM(max_tokens));
	WRONG(good_of(MR_OP_SCORE), block()->sampling.seed = 1, MR_E_INVALID, PARAM(sampling));
	WRONG(good_of(MR_OP_SCORE), block()->sampling.stop[5] = 1, MR_E_INVALID, PARAM(sampling));
	WRONG(good_of(MR_OP_SCORE), block()->deadline_ns = 1, MR_E_INVALID, PARAM(deadline_ns));
	WRONG(good_of(MR_OP_SCORE), block()->priority = 3, MR_E_RANGE, PARAM(priority));
}

/* Two SCOREs, each time the same. */
static void expect_scores(const struct mr_sqe *sqe, struct mr_cqe want[2])
{
	assert_int_equal(mr_ring_push(ring, sqe), 0);
	for (int i = 0; i < 2; i++) {
		struct mr_cqe cqe = next();

		assert_int_equal(cqe.type, MR_CQE_SCORE);
		if (!want[i].type)
			want[i] = cqe;
		assert_int_equal(cqe.token, want[i].token);
		assert_true(cqe.logprob == want[i].logprob);
	}
	assert_int_equal(next().type, MR_CQE_DONE);
}

static void test_continuations(void **state)
{
	struct mr_cqe want[2] = {0};
	struct mr_sqe sqe;

	keep_one();
	sqe = good_of(MR_OP_SCORE);
	expect_scores(&sqe, want);
	sqe.params_offset = sqe.params_bytes = 0;
	expect_scores(&sqe, want);
	/* A block that has grown is taken when what it grew by is 0. */
	sqe = good_of(MR_OP_SCORE);
	continuations()->bytes = 280;
	memcpy(ring->data + 8192 + 272, "\0\0\0\0\0\0\0\0yesnay", 14);
	sqe.data_bytes = 280 + 6;
	expect_scores(&sqe, want);
#define BAD(change, status, field) WRONG(good_of(MR_OP_SCORE), change, status, field)
	BAD(sqe.data_bytes = 0, MR_E_INVALID, FIELD(data_bytes));
	BAD(sqe.data_bytes = 271, MR_E_TRUNCATED, FIELD(data_bytes));
	BAD(sqe.data_bytes = MR_PROMPT_BYTES_MAX + 1, MR_E_TOO_LARGE, FIELD(data_bytes));
	BAD(sqe.data_offset = 8196, MR_E_RANGE, FIELD(data_offset));
	BAD(sqe.data_offset = DATA_BYTES - 272, MR_E_RANGE, FIELD(data_offset));
	BAD(sqe.data_offset = UINT64_MAX - 7, MR_E_RANGE, FIELD(data_offset));
	BAD(continuations()->version = 2, MR_E_VERSION, SCORED(version));
	BAD(continuations()->bytes = 264, MR_E_TRUNCATED, SCORED(bytes));
	BAD(continuations()->bytes = 0, MR_E_TRUNCATED, SCORED(bytes));
	BAD(continuations()->bytes = 276, MR_E_RANGE, SCORED(bytes));
	BAD(continuations()->bytes = 280, MR_E_RANGE, SCORED(bytes)); /* more than the data */
	BAD(continuations()->bytes = UINT32_MAX - 7, MR_E_RANGE, SCORED(bytes));
	/* A longer block of a newer client: the texts are what it grew by, and not 0. */
	BAD((continuations()->bytes = 280, sqe.data_bytes = 300), MR_E_VERSION,
	    MR_FIELD_CONTINUATIONS + 272);
	BAD(continuations()->count = 0, MR_E_RANGE, SCORED(count));
	BAD(continuations()->count = MR_CONTINUATIONS_MAX + 1, MR_E_RANGE, SCORED(count));
	BAD(continuations()->count = UINT32_MAX, MR_E_RANGE, SCORED(count));
	BAD(continuations()->reserved = 1, MR_E_INVALID, SCORED(reserved));
	BAD(continuations()->ends[0] = 0, MR_E_RANGE, SCORED(ends));
	BAD(continuations()->ends[0] = 6, MR_E_RANGE, SCORED(ends) + 4);
	BAD(continuations()->ends[0] = UINT32_MAX, MR_E_RANGE, SCORED(ends));
	BAD(continuations()->ends[1] = 5, MR_E_RANGE, SCORED(ends) + 4);
	BAD(continuations()->ends[1] = 7, MR_E_RANGE, SCORED(ends) + 4);
	BAD(continuations()->count = 3, MR_E_RANGE, SCORED(ends) + 8);
	BAD(continuations()->ends[2] = 9, MR_E_INVALID, SCORED(ends) + 8);
	BAD(continuations()->ends[63] = 9, MR_E_INVALID, SCORED(ends) + 4 * 63);
	/* Token ids: ends count ids, and each is looked at. */
	BAD(sqe.flags = MR_SUBMIT_TOKENS, MR_E_RANGE, FIELD(data_bytes));
	BAD((sqe.flags = MR_SUBMIT_TOKENS, sqe.data_bytes = 272 + 24), MR_E_RANGE,
	    FIELD(data_offset)); /* "yesn" is no id */
	BAD((sqe.flags = MR_SUBMIT_TOKENS, sqe.data_bytes = 272 + 20), MR_E_RANGE,
	    SCORED(ends) + 4);
#undef BAD
}

/* A server that is to stop: the target of APPEND is not to blame. */
static void test_draining(void **state)
{
	struct mr_sqe sqe;

	keep_one();
	assert_int_equal(world_hold(&w), 0);
	mr_sched_drain(w.sched);
	world_let_go(&w);
	for (uint16_t op = MR_OP_SUBMIT; op <= MR_OP_SCORE; op++)
		WRONG(good_of(op), , MR_E_BUSY, 0);
	sqe = good_of(MR_OP_QUERY);
	assert_int_equal(mr_ring_push(ring, &sqe), 0);
	assert_int_equal(next().token, MR_STATE_PAUSED);
}

static void test_prompts(void **state)
{
	struct mr_sqe sqe = good();

	/* To the last byte, and one further; and where offset plus length wraps. */
	sqe.data_offset = DATA_BYTES - 10;
	memcpy(ring->data + sqe.data_offset, "last words", 10);
	expect_good(&sqe);
	REFUSED(sqe.data_offset = DATA_BYTES - 9, MR_E_RANGE, FIELD(data_offset));
	REFUSED(sqe.data_offset = DATA_BYTES + 64, MR_E_RANGE, FIELD(data_offset));
	REFUSED(sqe.data_offset = UINT64_MAX - 4, MR_E_RANGE, FIELD(data_offset));
	REFUSED(sqe.data_bytes = 0, MR_E_INVALID, FIELD(data_bytes));
	REFUSED(sqe.data_bytes = MR_PROMPT_BYTES_MAX + 1, MR_E_TOO_LARGE, FIELD(data_bytes));
	REFUSED(sqe.data_bytes = UINT32_MAX, MR_E_TOO_LARGE, FIELD(data_bytes));
	/* Longer than the context: the orchestrator's word. */
	REFUSED((memset(ring->data + 8192, '7', 4096), sqe.data_offset = 8192,
		 sqe.data_bytes = 4096),
		MR_E_CONTEXT_FULL, 0);
	/* Token ids. */
	REFUSED((sqe.flags = MR_SUBMIT_TOKENS, sqe.data_bytes = 7), MR_E_RANGE, FIELD(data_bytes));
	REFUSED((sqe.flags = MR_SUBMIT_TOKENS, sqe.data_bytes = 8, sqe.data_offset = 2), MR_E_RANGE,
		FIELD(data_offset));
	REFUSED((memset(ring->data, 0xff, 4), sqe.flags = MR_SUBMIT_TOKENS, sqe.data_bytes = 8),
		MR_E_RANGE, FIELD(data_offset));
	REFUSED((sqe.flags = MR_SUBMIT_TOKENS, sqe.data_offset = 8192, sqe.data_bytes = 65536),
		MR_E_CONTEXT_FULL, FIELD(data_offset));
}

static void test_params(void **state)
{
	struct mr_sqe sqe = good();

	/* A longer block of a newer client is taken when all the rest is 0. */
	sqe.params_bytes = MR_PARAMS_BYTES_MAX;
	expect_good(&sqe);
	REFUSED((sqe.params_bytes = 256, ring->data[4096 + 200] = 1), MR_E_VERSION,
		MR_FIELD_PARAMS + 200);
	REFUSED((sqe.params_bytes = 416, ring->data[4096 + 408] = 1), MR_E_VERSION,
		MR_FIELD_PARAMS + 408);
	REFUSED(sqe.params_bytes = 127, MR_E_TRUNCATED, FIELD(params_bytes));
	REFUSED(sqe.params_bytes = 1, MR_E_TRUNCATED, FIELD(params_bytes));
	REFUSED(sqe.params_bytes = 129, MR_E_RANGE, FIELD(params_bytes));
	REFUSED(sqe.params_bytes = MR_PARAMS_BYTES_MAX + 8, MR_E_TOO_LARGE, FIELD(params_bytes));
	REFUSED(sqe.params_bytes = 0, MR_E_INVALID, FIELD(params_offset));
	REFUSED(sqe.params_offset = 4097, MR_E_RANGE, FIELD(params_offset));
	REFUSED(sqe.params_offset = DATA_BYTES - 120, MR_E_RANGE, FIELD(params_offset));
	REFUSED(sqe.params_offset = UINT64_MAX - 127, MR_E_RANGE, FIELD(params_offset));
	REFUSED(block()->version = 2, MR_E_VERSION, PARAM(version));
	REFUSED(block()->max_tokens = 0, MR_E_RANGE, PARAM(max_tokens));
	REFUSED(block()->max_tokens = UINT32_MAX, MR_E_CONTEXT_FULL, 0);
	REFUSED(block()->deadline_ns = 1, MR_E_DEADLINE, PARAM(deadline_ns));
	REFUSED((block()->deadline_ns = 1, block()->max_tokens = 0, sqe.flags |= MR_SUBMIT_KEEP),
		MR_E_INVALID, PARAM(deadline_ns));
	REFUSED(block()->priority = 3, MR_E_RANGE, PARAM(priority));
	REFUSED(block()->priority = UINT32_MAX, MR_E_RANGE, PARAM(priority));
	REFUSED(block()->reserved0 = 1, MR_E_INVALID, PARAM(reserved0));
	for (unsigned i = 0; i < 4; i++)
		REFUSED(block()->reserved[i] = 1, MR_E_INVALID, PARAM(reserved) + 8 * i);
	REFUSED(block()->sampling.temperature = -1, MR_E_RANGE, PARAM(sampling));
	REFUSED(block()->sampling.top_p = __builtin_nanf(""), MR_E_RANGE, PARAM(sampling));
	REFUSED(block()->sampling.stop_count = 7, MR_E_RANGE, PARAM(sampling));
	REFUSED((block()->sampling.stop_count = 1, block()->sampling.stop[0] = UINT32_MAX),
		MR_E_RANGE, PARAM(sampling));
}

/* A good SUBMIT with a stop string of three bytes. */
static struct mr_sqe good_stops(void)
{
	struct mr_sqe sqe = good();

	sqe.params_bytes = MR_PARAMS_STOPS_BYTES;
	stops()->count = 1;
	stops()->ends[0] = 3;
	memcpy(stops()->text, "\001\001\001", 3);
	return sqe;
}

static void test_stops(void **state)
{
	struct mr_sqe sqe = good_stops();

	expect_good(&sqe);
	WRONG(good_stops(), stops()->count = 9, MR_E_RANGE, STOPS(count));
	WRONG(good_stops(), stops()->count = UINT32_MAX, MR_E_RANGE, STOPS(count));
	WRONG(good_stops(), stops()->count = 0, MR_E_INVALID, STOPS(ends));
	WRONG(good_stops(), stops()->count = 2, MR_E_RANGE, STOPS(ends) + 2);
	WRONG(good_stops(), stops()->reserved = 1, MR_E_INVALID, STOPS(reserved));
	WRONG(good_stops(), stops()->ends[0] = 0, MR_E_RANGE, STOPS(ends));
	WRONG(good_stops(), stops()->ends[0] = 257, MR_E_RANGE, STOPS(ends));
	WRONG(good_stops(), stops()->ends[7] = 4, MR_E_INVALID, STOPS(ends) + 14);
	WRONG(good_stops(), stops()->ends[0] = 2, MR_E_INVALID, STOPS(text) + 2);
	WRONG(good_stops(), stops()->text[255] = 1, MR_E_INVALID, STOPS(text) + 255);
	keep_one();
	WRONG(good_of(MR_OP_SCORE),
	      (sqe.params_bytes = MR_PARAMS_STOPS_BYTES, stops()->count = 1, stops()->ends[0] = 1),
	      MR_E_INVALID, STOPS(count));
}

/* Keys that are taken, and a pool that is empty; a full queue keeps the requests under way. */
static void test_limits(void **state)
{
	struct mr_ring_options options = {.path = w.path, .cq_entries = 16};
	struct mr_params params = {.version = MR_PARAMS_VERSION, .max_tokens = 100};
	struct mr_ring *mine;
	struct mr_cqe cqe;
	uint32_t ends = 0, exists = 0, full = 0, quota = 0;

	assert_int_equal(mr_ring_connect(&options, &mine), 0);
	/* All in one turn: else the first ones' tokens could leave room for one SQE alone. */
	assert_int_equal(world_hold(&w), 0);
	for (uint64_t key = 1; key <= 4; key++)
		assert_int_equal(
			mr_ring_submit_text(mine, key, "x y", 3, MR_SUBMIT_IGNORE_EOS, &params), 0);
	world_let_go(&w);
	assert_int_equal(world_settle(&w.active, 4), 4);
	/* The pool has four entries, and so has this client's share. */
	assert_int_equal(mr_ring_submit_text(ring, 7, "x", 1, 0, NULL), 0);
	cqe = next();
	assert_int_equal(cqe.status, MR_E_FULL);
	assert_int_equal(mr_ring_submit_text(mine, 5, "x y", 3, MR_SUBMIT_IGNORE_EOS, &params), 0);
	assert_int_equal(mr_ring_cancel(mine, 100, 2), 0);
	while (ends < 4) {
		assert_int_equal(mr_ring_wait(mine, 5000000000), 0);
		mr_ring_poll(mine, &cqe);
		quota += cqe.status == MR_E_QUOTA;
		full += cqe.status == MR_E_FULL;
		ends += cqe.type != MR_CQE_TOKEN && cqe.key <= 4;
	}
	assert_int_equal(quota + full, 1);
	/* The same key twice: whichever comes second while the first is under way. */
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			mr_ring_submit_text(mine, 1, "x y", 3, MR_SUBMIT_IGNORE_EOS, &params), 0);
	for (ends = 0; ends < 2;) {
		assert_int_equal(mr_ring_wait(mine, 5000000000), 0);
		mr_ring_poll(mine, &cqe);
		exists += cqe.status == MR_E_EXISTS && cqe.token == FIELD(key);
		ends += cqe.type != MR_CQE_TOKEN;
	}
	assert_int_equal(exists, 1);
	assert_int_equal(mr_metric_read(MR_M_ring_overrun), 0);
	mr_ring_disconnect(mine);
}

/* ---- the handshake ---- */

static int raw_socket(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, w.path);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static const struct mr_hello HELLO = {
	.magic = MR_HELLO_MAGIC, .version = MR_RING_VERSION, .bytes = sizeof(struct mr_hello)};

/* Sends @bytes of @hello, and gives the answer; @fds gets what comes with it. */
static struct mr_welcome greet(const void *hello, size_t bytes, int fds[MR_FD_COUNT], int *count)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int) * MR_FD_COUNT)];
	} control;
	struct mr_welcome welcome = {0};
	struct iovec part = {.iov_base = &welcome, .iov_len = sizeof(welcome)};
	struct msghdr message = {.msg_iov = &part,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control)};
	int fd = raw_socket();

	assert_int_equal(send(fd, hello, bytes, MSG_NOSIGNAL), bytes);
	assert_int_equal(recvmsg(fd, &message, MSG_CMSG_CLOEXEC), sizeof(welcome));
	assert_int_equal(welcome.magic, MR_WELCOME_MAGIC);
	*count = 0;
	if (message.msg_controllen) {
		*count = (int)((control.header.cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(fds, CMSG_DATA(&control.header), (size_t)*count * sizeof(int));
	}
	close(fd);
	return welcome;
}

/* @change makes one thing wrong with a good hello. */
#define TURNED_AWAY(change, want)                                                         \
	do {                                                                              \
		struct mr_hello hello = HELLO;                                            \
		change;                                                                   \
		assert_int_equal(greet(&hello, sizeof(hello), fds, &count).status, want); \
		assert_int_equal(count, 0);                                               \
	} while (0)

static void test_handshake(void **state)
{
	uint64_t before = mr_metric_read(MR_M_ring_bad_hello);
	int fds[MR_FD_COUNT], count;
	char junk[200] = "GET / HTTP/1.1";

	TURNED_AWAY(hello.magic++, MR_E_PROTOCOL);
	TURNED_AWAY(hello.version = 2, MR_E_VERSION);
	TURNED_AWAY(hello.bytes = 65, MR_E_VERSION);
	TURNED_AWAY(hello.required = MR_FEATURE_TOOL_CALL, MR_E_VERSION);
	TURNED_AWAY(hello.required = 1ull << 63, MR_E_VERSION);
	TURNED_AWAY(hello.reserved[0] = 1, MR_E_INVALID);
	TURNED_AWAY(hello.reserved[1] = 1, MR_E_INVALID);
	TURNED_AWAY(hello.sq_entries = MR_SQ_ENTRIES_MAX + 1, MR_E_RANGE);
	TURNED_AWAY(hello.cq_entries = UINT32_MAX, MR_E_RANGE);
	TURNED_AWAY(hello.data_bytes = MR_DATA_BYTES_MAX + 1, MR_E_RANGE);
	assert_int_equal(greet(&HELLO, 63, fds, &count).status, MR_E_PROTOCOL);
	assert_int_equal(greet(junk, sizeof(junk), fds, &count).status, MR_E_PROTOCOL);
	close(raw_socket()); /* says nothing */
	assert_true(mr_metric_read(MR_M_ring_bad_hello) >= before + 12);
	assert_int_equal(mr_ring_nop(ring, 1), 0);
	assert_int_equal(next().type, MR_CQE_DONE);
}

/* What the sealed files do not allow whoever holds them. */
static void test_seals(void **state)
{
	int fds[MR_FD_COUNT], count;
	struct mr_welcome welcome = greet(&HELLO, sizeof(HELLO), fds, &count);
	char byte;

	assert_int_equal(welcome.status, 0);
	assert_int_equal(count, MR_FD_COUNT);
	assert_int_equal(ftruncate(fds[MR_FD_MEMORY], 4096), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(ftruncate(fds[MR_FD_MEMORY], (off_t)welcome.memory_bytes * 2), -1);
	assert_int_equal(fcntl(fds[MR_FD_MEMORY], F_ADD_SEALS, F_SEAL_WRITE), -1);
	assert_int_equal(pwrite(fds[MR_FD_VOCAB], "x", 1, 0), -1);
	assert_int_equal(errno, EPERM);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fds[MR_FD_VOCAB], 0),
			 MAP_FAILED);
	assert_int_equal(pread(fds[MR_FD_VOCAB], &byte, 1, 0), 1);
	for (int i = 0; i < count; i++)
		close(fds[i]);
	assert_int_equal(world_settle(&w.clients, 1), 1);
}

/* Pages that the client takes away read as zeros: no SIGBUS, and the connection ends. */
static void test_punched(void **state)
{
	int fds[MR_FD_COUNT], count, fd = raw_socket();
	uint64_t before = mr_metric_read(MR_M_ring_bad_peer);

	assert_int_equal(greet(&HELLO, sizeof(HELLO), fds, &count).status, 0);
	assert_int_equal(world_settle(&w.clients, 1), 1); /* greet has closed its socket */
	for (int i = 0; i < count; i++)
		close(fds[i]);
	close(fd);
	/* With a ring of its own this time, whose memory is not mapped by a descriptor any more. */
	assert_int_equal(
		madvise(ring->sq, (ring->sq_mask + 1) * sizeof(struct mr_sqe), MADV_REMOVE), 0);
	mr_ring_kick(ring);
	assert_int_equal(world_settle(&w.clients, 0), 0);
	assert_int_equal(mr_metric_read(MR_M_ring_bad_peer), before + 1);
	assert_int_equal(mr_ring_wait(ring, 5000000000), MR_E_DISCONNECTED);
}

static void test_sockets(void **state)
{
	struct mr_ring_server_options options = {.socket_path = w.path};
	struct mr_ring_server *server;
	struct stat st;
	char path[96];
	int fd;

	assert_int_equal(stat(w.path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(mr_ring_server_create(&options, &server), MR_E_BUSY);
	/* A file that is no socket stays. */
	pair_path(path);
	fd = open(path, O_CREAT | O_EXCL | O_RDWR, 0600);
	assert_true(fd >= 0);
	options.socket_path = path;
	assert_int_equal(mr_ring_server_create(&options, &server), MR_E_EXISTS);
	assert_int_equal(unlink(path), 0);
	close(fd);
	assert_int_equal(mr_ring_server_create(&options, &server), 0);
	mr_ring_server_destroy(server);
	assert_int_equal(access(path, F_OK), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_operations, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_others, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_continuations, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_draining, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_prompts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_params, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_stops, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_limits, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_handshake, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_seals, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_punched, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_sockets, set_up, tear_down),
	};

	return cmocka_run_group_tests_name("ring_hostile", tests, NULL, NULL);
}
