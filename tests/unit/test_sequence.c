// SPDX-License-Identifier: Apache-2.0
/*
 * Every operation on a sequence in every state: what sched.h's table says, and that nothing is left behind.
 * Two modelled devices and a clock of our own hold the sequence in the state that is asked for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "driver/metrics.h"
#include "driver/model/model.h"
#include "driver/nil/nil.h"
#include "driver/sched/sched.h"

#define CONTEXT 256u
#define VOCAB   1000u
#define LAYERS  2u
#define PROMPT  50u
#define CLIENT  3u
#define KEY     100u
#define NAME    77u /* of a prefix */

struct rig {
	struct mr_model model;
	struct mr_device *nil[2];
	struct mr_sched *sched;
	uint64_t now;
	uint32_t tokens, ends, scores;
	uint32_t last;  /* token given */
	int32_t status; /* of the last end */
	struct mr_end end;
};

static uint64_t clock_now(void *arg)
{
	return ((struct rig *)arg)->now;
}

static uint32_t credit(void *front, const struct mr_request *r)
{
	return 100;
}

static void token(void *front, struct mr_request *r, const struct mr_token *t)
{
	struct rig *rig = front;

	rig->tokens++;
	rig->last = t->token;
}

static void end(void *front, struct mr_request *r, const struct mr_end *e)
{
	struct rig *rig = front;

	rig->ends++;
	rig->status = e->status;
	rig->end = *e;
}

static void score(void *front, struct mr_request *r, const struct mr_score *s)
{
	struct rig *rig = front;

	rig->scores++;
}

static const struct mr_front_ops ops = {credit, token, end, score};

static void rig_open(struct rig *rig, uint64_t kv_tokens)
{
	struct mr_clock clock = {clock_now, rig};
	struct mr_sched_options o = {
		.model = &rig->model, .clock = &clock, .requests = 8, .chunk = 32};

	memset(rig, 0, sizeof(*rig));
	rig->now = 1;
	rig->model.shape.layers = LAYERS;
	rig->model.shape.context = CONTEXT;
	for (int i = 0; i < 2; i++) {
		const struct mr_nil_options nil = {
			.slots = 16,
			.context = CONTEXT,
			.vocab = VOCAB,
			.layers = LAYERS,
			.kv_tokens = kv_tokens,
			.costs = {.chunk_ns = 1000, .step_ns = 1000, .import_block_ns = 100},
			.now_ns = clock_now,
			.arg = rig,
		};

		assert_int_equal(mr_nil_open(&nil, &rig->nil[i]), 0);
	}
	o.prefill = rig->nil[0];
	o.decode = rig->nil[1];
	assert_int_equal(mr_sched_create(&o, &rig->sched), 0);
}

static void check(const struct rig *rig)
{
	const char *why = "";

	if (mr_sched_check(rig->sched, &why))
		fail_msg("%s", why);
}

static uint64_t blocks(const struct rig *rig)
{
	uint64_t used = 0;

	for (int i = 0; i < 2; i++) {
		struct mr_telemetry t;

		assert_int_equal(rig->nil[i]->admin->telemetry(rig->nil[i], &t), 0);
		used += t.kv_blocks_used;
	}
	return used;
}

/* Polls until nothing is left to do now; then, if @advance, goes on to the next event. 0 = none. */
static int turn(struct rig *rig, int advance)
{
	uint64_t a, b;

	while (mr_sched_poll(rig->sched))
		check(rig);
	a = mr_nil_next_ns(rig->nil[0]);
	b = mr_nil_next_ns(rig->nil[1]);
	a = a < b ? a : b;
	if (a == UINT64_MAX || !advance)
		return 0;
	rig->now = a > rig->now ? a : rig->now;
	return 1;
}

static void drain(struct rig *rig)
{
	while (turn(rig, 1))
		;
	assert_int_equal(mr_sched_active(rig->sched), 0);
}

static void rig_close(struct rig *rig)
{
	drain(rig);
	mr_sched_cancel_client(rig->sched, CLIENT);
	drain(rig);
	mr_sched_drop_cache(rig->sched);
	check(rig);
	assert_int_equal(blocks(rig), 0);
	assert_int_equal(mr_sched_client_blocks(rig->sched, CLIENT), 0);
	mr_sched_destroy(rig->sched);
	for (int i = 0; i < 2; i++)
		rig->nil[i]->admin->close(rig->nil[i]);
}

static struct mr_request *request(struct rig *rig, enum mr_request_op op, uint64_t key)
{
	struct mr_request *r = mr_sched_request(rig->sched);

	assert_non_null(r);
	r->ops = &ops;
	r->front = rig;
	r->client = CLIENT;
	r->key = key;
	r->op = op;
	r->target = op == MR_REQUEST_SUBMIT ? 0 : KEY;
	r->max_tokens = op == MR_REQUEST_SCORE ? 0 : 5;
	r->flags = op == MR_REQUEST_FORK ? 0 : MR_REQUEST_TOKENS;
	if (op == MR_REQUEST_SUBMIT) {
		r->token_count = PROMPT;
		for (uint32_t i = 0; i < PROMPT; i++)
			r->tokens[i] = 200 + i;
		r->flags |= MR_REQUEST_KEEP;
	} else if (op == MR_REQUEST_APPEND) {
		r->token_count = 3;
		r->tokens[0] = r->tokens[1] = r->tokens[2] = 7;
	} else if (op == MR_REQUEST_SCORE) {
		r->token_count = 3;
		r->tokens[0] = r->tokens[1] = r->tokens[2] = 9;
		r->score_count = 2;
		r->score_ends[0] = 1;
		r->score_ends[1] = 3;
	}
	return r;
}

static enum mr_sequence_state state_of(const struct rig *rig)
{
	struct mr_sequence_info info;

	mr_sched_query(rig->sched, CLIENT, KEY, &info);
	return info.state;
}

/* Brings the sequence KEY into @state. */
static void bring(struct rig *rig, enum mr_sequence_state state)
{
	struct mr_request *r = request(rig, MR_REQUEST_SUBMIT, KEY);

	if (state == MR_SEQUENCE_ENDED)
		r->flags &= ~MR_REQUEST_KEEP;
	assert_int_equal(mr_sched_submit(rig->sched, r), 0);
	if (state == MR_SEQUENCE_QUEUED)
		return;
	for (int i = 0; i < 1000; i++) {
		turn(rig, 0);
		if (state_of(rig) == state)
			return;
		turn(rig, 1);
	}
	fail_msg("the sequence did not come into state %d", (int)state);
}

enum operation { SUBMIT, APPEND, FORK, SCORE, PREFIX, CANCEL, RELEASE, OPERATIONS };

static int perform(struct rig *rig, enum operation op)
{
	switch (op) {
	case PREFIX:
		return mr_sched_prefix(rig->sched, CLIENT, KEY, NAME);
	case CANCEL:
		return mr_sched_cancel(rig->sched, CLIENT, KEY);
	case RELEASE:
		return mr_sched_release(rig->sched, CLIENT, KEY);
	default:
		return mr_sched_submit(rig->sched, request(rig, (enum mr_request_op)op,
							   op == SUBMIT ? KEY : KEY + 1));
	}
}

#define BUSY      MR_E_BUSY
#define EXISTS    MR_E_EXISTS
#define NOT_FOUND MR_E_NOT_FOUND
static const int table[MR_SEQUENCE_STATES][OPERATIONS] = {
	/*                          SUBMIT  APPEND     FORK       SCORE      PREFIX     CANCEL     RELEASE */
	[MR_SEQUENCE_ENDED] = {0, NOT_FOUND, NOT_FOUND, NOT_FOUND, NOT_FOUND, NOT_FOUND, NOT_FOUND},
	[MR_SEQUENCE_QUEUED] = {EXISTS, BUSY, 0, 0, 0, 0, 0},
	[MR_SEQUENCE_PREFILLING] = {EXISTS, BUSY, 0, 0, 0, 0, 0},
	[MR_SEQUENCE_HANDOVER] = {EXISTS, BUSY, 0, 0, 0, 0, 0},
	[MR_SEQUENCE_DECODING] = {EXISTS, BUSY, 0, 0, 0, 0, 0},
	[MR_SEQUENCE_PAUSED] = {EXISTS, 0, 0, 0, 0, NOT_FOUND, 0},
};

/* What an accepted operation leads to, beside the sequence's own answer. */
static void check_outcome(struct rig *rig, enum operation op, enum mr_sequence_state state)
{
	uint32_t own = op == CANCEL || op == RELEASE ? 0 : 5, others = 0;

	if (op == SUBMIT || op == APPEND || op == FORK)
		others = 5;
	if (op == CANCEL || op == RELEASE)
		assert_true(rig->tokens < 5 || state == MR_SEQUENCE_PAUSED);
	else
		assert_int_equal(rig->tokens, own + others);
	assert_int_equal(rig->scores, op == SCORE ? 2 : 0);
	if (op == FORK) /* the parent's next token or, after its answer, the one after its last */
		assert_true(rig->last >= 200 + PROMPT);
	if (op == PREFIX) {
		struct mr_request *r = request(rig, MR_REQUEST_SUBMIT, KEY + 9);

		r->prefix = NAME;
		assert_int_equal(mr_sched_submit(rig->sched, r), 0);
		drain(rig);
		assert_int_equal(rig->status, 0);
		assert_true(rig->end.prompt_tokens >= 2 * PROMPT);
		assert_true(rig->end.reused >= 32); /* of the prefix, whole blocks */
		assert_int_equal(mr_sched_release(rig->sched, CLIENT, NAME), 0);
	}
}

static void every_pair(void **state)
{
	for (int at = 0; at < MR_SEQUENCE_STATES; at++) {
		for (int op = 0; op < OPERATIONS; op++) {
			struct rig rig;
			uint64_t before;
			int status;

			rig_open(&rig, 0);
			bring(&rig, (enum mr_sequence_state)at);
			assert_int_equal(state_of(&rig), at);
			before = blocks(&rig);
			status = perform(&rig, (enum operation)op);
			if (status != table[at][op])
				fail_msg("operation %d in state %d: %s", op, at,
					 mr_status_name(status));
			check(&rig);
			/* What is refused leaves all as it was. */
			if (status)
				assert_int_equal(blocks(&rig), before);
			drain(&rig);
			if (status == 0)
				check_outcome(&rig, (enum operation)op, (enum mr_sequence_state)at);
			if (status == 0 && (op == CANCEL || op == RELEASE)) {
				mr_sched_drop_cache(rig.sched);
				assert_int_equal(blocks(&rig), 0);
				assert_int_equal(state_of(&rig), MR_SEQUENCE_ENDED);
			}
			rig_close(&rig);
		}
	}
}

/* Fields that an operation does not use, and others' sequences, are refused by name. */
static void refusals(void **state)
{
	uint64_t wanted, there;
	struct mr_request *r;
	struct rig rig;

	rig_open(&rig, 0);
	bring(&rig, MR_SEQUENCE_PAUSED);
#define REFUSED(op, change, want)                                      \
	do {                                                           \
		r = request(&rig, op, KEY + 1);                        \
		change;                                                \
		assert_int_equal(mr_sched_submit(rig.sched, r), want); \
	} while (0)
	REFUSED(MR_REQUEST_SUBMIT, r->target = KEY, MR_E_INVALID);
	REFUSED(MR_REQUEST_SUBMIT, r->prefix = NAME, MR_E_NOT_FOUND);
	REFUSED(MR_REQUEST_SUBMIT, r->score_count = 1, MR_E_INVALID);
	REFUSED(MR_REQUEST_SUBMIT, (r->max_tokens = 0, r->flags = MR_REQUEST_TOKENS), MR_E_INVALID);
	REFUSED(MR_REQUEST_APPEND, r->token_count = 0, MR_E_INVALID);
	REFUSED(MR_REQUEST_APPEND, r->prefix = NAME, MR_E_INVALID);
	REFUSED(MR_REQUEST_APPEND, r->client = CLIENT + 1, MR_E_NOT_FOUND);
	REFUSED(MR_REQUEST_APPEND, r->tokens[1] = VOCAB, MR_E_RANGE);
	REFUSED(MR_REQUEST_APPEND, r->max_tokens = CONTEXT, MR_E_CONTEXT_FULL);
	mr_sched_refusal(rig.sched, &wanted, &there);
	assert_int_equal(wanted, PROMPT + 5 + 3 + CONTEXT);
	assert_int_equal(there, CONTEXT);
	REFUSED(MR_REQUEST_SUBMIT, r->token_count = CONTEXT + 7, MR_E_CONTEXT_FULL);
	mr_sched_refusal(rig.sched, &wanted, &there);
	assert_int_equal(wanted, CONTEXT + 7 + 5);
	REFUSED(MR_REQUEST_FORK, r->token_count = 1, MR_E_INVALID);
	REFUSED(MR_REQUEST_FORK, r->flags = MR_REQUEST_TOKENS, MR_E_INVALID);
	REFUSED(MR_REQUEST_FORK, r->max_tokens = CONTEXT, MR_E_CONTEXT_FULL);
	REFUSED(MR_REQUEST_FORK, r->key = KEY, MR_E_EXISTS);
	REFUSED(MR_REQUEST_SCORE, r->max_tokens = 1, MR_E_INVALID);
	REFUSED(MR_REQUEST_SCORE, r->score_count = 0, MR_E_INVALID);
	REFUSED(MR_REQUEST_SCORE, r->score_count = MR_SCORE_MAX + 1, MR_E_INVALID);
	REFUSED(MR_REQUEST_SCORE, r->score_ends[0] = 0, MR_E_RANGE);
	REFUSED(MR_REQUEST_SCORE, r->score_ends[1] = 4, MR_E_RANGE);
	REFUSED(MR_REQUEST_SCORE, r->score_ends[1] = 1, MR_E_RANGE);
	REFUSED(MR_REQUEST_SCORE, r->tokens[2] = VOCAB, MR_E_RANGE);
	REFUSED(MR_REQUEST_SCORE, r->flags |= MR_REQUEST_KEEP, MR_E_INVALID);
	assert_int_equal(mr_sched_prefix(rig.sched, CLIENT, KEY, 0), MR_E_INVALID);
	assert_int_equal(mr_sched_prefix(rig.sched, CLIENT, KEY, NAME), 0);
	assert_int_equal(mr_sched_prefix(rig.sched, CLIENT, KEY, NAME), MR_E_EXISTS);
	assert_int_equal(mr_sched_release(rig.sched, CLIENT + 1, NAME), MR_E_NOT_FOUND);
	assert_int_equal(mr_sched_release(rig.sched, CLIENT, NAME), 0);
	assert_int_equal(state_of(&rig), MR_SEQUENCE_PAUSED); /* as it was before all this */
	rig_close(&rig);
}

/* A prompt without an answer: the sequence is there, paused, and can be asked. */
static void prompt_only(void **state)
{
	struct mr_request *r;
	struct rig rig;

	rig_open(&rig, 0);
	r = request(&rig, MR_REQUEST_SUBMIT, KEY);
	r->max_tokens = 0;
	assert_int_equal(mr_sched_submit(rig.sched, r), 0);
	drain(&rig);
	assert_int_equal(rig.ends, 1);
	assert_int_equal(rig.tokens, 0);
	assert_int_equal(state_of(&rig), MR_SEQUENCE_PAUSED);
	assert_int_equal(perform(&rig, SCORE), 0);
	drain(&rig);
	assert_int_equal(rig.scores, 2);
	assert_int_equal(perform(&rig, APPEND), 0);
	drain(&rig);
	assert_int_equal(rig.tokens, 5);
	assert_int_equal(rig.last, 7 + 5);
	rig_close(&rig);
}

/*
 * KV that is needed elsewhere is given up, a paused sequence's too; it is computed again when the client
 * goes on. What can never fit is refused by name, and the others go on.
 */
static void exhausted(void **state)
{
	uint64_t before = mr_metric_read(MR_M_kv_paused_evicted);
	struct mr_sequence_info info;
	struct rig rig;

	rig_open(&rig, 128);
	bring(&rig, MR_SEQUENCE_PAUSED);
	mr_sched_query(rig.sched, CLIENT, KEY, &info);
	assert_int_equal(info.tokens, PROMPT + 5);
	assert_int_equal(info.positions, PROMPT + 4);
	for (uint64_t key = 1; key <= 6; key++) {
		struct mr_request *r = request(&rig, MR_REQUEST_SUBMIT, key);

		for (uint32_t i = 0; i < PROMPT; i++)
			r->tokens[i] = (uint32_t)key + i;
		r->flags &= ~MR_REQUEST_KEEP;
		assert_int_equal(mr_sched_submit(rig.sched, r), 0);
	}
	drain(&rig);
	assert_int_equal(rig.ends, 7);
	assert_true(mr_metric_read(MR_M_kv_paused_evicted) > before);
	mr_sched_query(rig.sched, CLIENT, KEY, &info);
	assert_int_equal(info.state, MR_SEQUENCE_PAUSED);
	assert_int_equal(info.positions, 0);
	assert_int_equal(perform(&rig, APPEND), 0);
	drain(&rig);
	assert_int_equal(rig.status, 0);
	assert_int_equal(rig.end.prompt_tokens, PROMPT + 5 + 3);
	assert_int_equal(rig.last, 7 + 5);
	{
		struct mr_request *r = request(&rig, MR_REQUEST_SUBMIT, 50);

		r->max_tokens = 150; /* in the context, but not in the device */
		assert_int_equal(mr_sched_submit(rig.sched, r), 0);
		drain(&rig);
		assert_true(rig.status == MR_E_CONTEXT_FULL || rig.status == MR_E_KV_EXHAUSTED);
		assert_int_equal(rig.end.blocks_wanted, (PROMPT + 150 + 15) / 16);
		assert_int_equal(rig.end.blocks_there, 128 / 16);
	}
	rig_close(&rig);
}

/* A prefix whose KV had to give way serves its users as before: the next one computes it for the others. */
static void prefix_evicted(void **state)
{
	struct rig rig;

	rig_open(&rig, 192);
	bring(&rig, MR_SEQUENCE_PAUSED);
	assert_int_equal(perform(&rig, PREFIX), 0);
	assert_int_equal(perform(&rig, RELEASE), 0);
	drain(&rig);
	for (uint64_t key = 1; key <= 8; key++) {
		struct mr_request *r = request(&rig, MR_REQUEST_SUBMIT, key);

		/* One after the other: four strangers that need the room, then four users. */
		r->flags &= ~MR_REQUEST_KEEP;
		for (uint32_t i = 0; key <= 4 && i < PROMPT; i++)
			r->tokens[i] = (uint32_t)key * 20 + i;
		if (key <= 4)
			r->max_tokens = 100;
		else
			r->prefix = NAME;
		assert_int_equal(mr_sched_submit(rig.sched, r), 0);
		drain(&rig);
		assert_int_equal(rig.status, 0);
		if (key == 5)
			assert_int_equal(rig.end.reused, 0); /* all of it had gone */
		if (key > 5)
			assert_true(rig.end.reused >= (PROMPT + 5) / 16 * 16);
	}
	assert_int_equal(mr_sched_release(rig.sched, CLIENT, NAME), 0);
	rig_close(&rig);
}

/* A client's share of the KV holds up that client alone. */
static void quota(void **state)
{
	struct mr_sched_options o = {.requests = 8, .chunk = 32, .client_blocks = 8};
	struct mr_request *r;
	struct rig rig;

	rig_open(&rig, 0);
	mr_sched_destroy(rig.sched);
	o.model = &rig.model;
	o.clock = &(struct mr_clock){clock_now, &rig};
	o.prefill = rig.nil[0];
	o.decode = rig.nil[1];
	assert_int_equal(mr_sched_create(&o, &rig.sched), 0);
	r = request(&rig, MR_REQUEST_SUBMIT, 1);
	r->max_tokens = 100;
	assert_int_equal(mr_sched_submit(rig.sched, r), MR_E_QUOTA);
	for (uint64_t key = 1; key <= 4; key++) {
		r = request(&rig, MR_REQUEST_SUBMIT, key);
		r->tokens[0] = (uint32_t)key;
		r->flags &= ~MR_REQUEST_KEEP;
		r->client = key == 4 ? CLIENT + 1 : CLIENT;
		assert_int_equal(mr_sched_submit(rig.sched, r), 0);
	}
	while (turn(&rig, 1))
		assert_true(mr_sched_client_blocks(rig.sched, CLIENT) <= 8 + 4 * 3);
	assert_int_equal(rig.ends, 4);
	assert_int_equal(rig.status, 0);
	mr_sched_cancel_client(rig.sched, CLIENT + 1);
	rig_close(&rig);
}

/* No client has all the places for paused sequences, or all the names. */
static void places(void **state)
{
	struct rig rig;
	uint32_t kept = 0, names = 0;
	int status;

	rig_open(&rig, 0);
	do {
		status = mr_sched_submit(rig.sched, request(&rig, MR_REQUEST_SUBMIT, KEY + kept));
		kept += status == 0;
		drain(&rig);
	} while (status == 0);
	assert_int_equal(status, MR_E_QUOTA);
	assert_int_equal(kept, 6); /* of 16 sequences, 8 of them for requests */
	do {
		status = mr_sched_prefix(rig.sched, CLIENT, KEY, NAME + names);
		names += status == 0;
	} while (status == 0);
	assert_int_equal(status, MR_E_QUOTA);
	assert_int_equal(names, 12); /* of 16 */
	assert_int_equal(mr_sched_release(rig.sched, CLIENT, KEY + 1), 0);
	drain(&rig);
	assert_int_equal(mr_sched_submit(rig.sched, request(&rig, MR_REQUEST_SUBMIT, KEY + kept)),
			 0);
	rig_close(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_pair),     cmocka_unit_test(refusals),
		cmocka_unit_test(prompt_only),    cmocka_unit_test(exhausted),
		cmocka_unit_test(prefix_evicted), cmocka_unit_test(quota),
		cmocka_unit_test(places),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
