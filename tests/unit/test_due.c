// SPDX-License-Identifier: Apache-2.0
/*
 * Deadlines and priorities in virtual time: on modelled devices without jitter, where the cost model can be
 * right, what is accepted is met; what is refused is told a time that is then accepted; others are not starved
 * by either; a device that becomes slower is late, and says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "driver/metrics.h"
#include "driver/model/model.h"
#include "driver/nil/nil.h"
#include "driver/sched/sched.h"
#include "support/wrap_device.h"

#define CONTEXT  1024u
#define VOCAB    4096u
#define LAYERS   2u
#define REQUESTS 256u
#define MS       1000000ull

struct answer {
	uint64_t due_ns, first_ns, start_ns;
	uint32_t tokens, late_token, ended, late;
};

struct rig {
	struct mr_model model;
	struct mr_device *nil[2];
	int shared;
	struct mr_sched *sched;
	uint64_t now;
	struct answer answers[REQUESTS * 8];
};

static struct rig rig;

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
	struct answer *a = &rig.answers[r->key];

	if (a->tokens++ == 0) {
		a->first_ns = rig.now;
		a->late_token = t->late;
	} else {
		assert_int_equal(t->late, 0);
	}
}

static void end(void *front, struct mr_request *r, const struct mr_end *e)
{
	struct answer *a = &rig.answers[r->key];

	a->ended = 1;
	a->late = e->late;
	a->start_ns = e->start_ns;
}

static const struct mr_front_ops ops = {credit, token, end, NULL};

/* A token of a prompt takes 10 us, a step 1 ms; chunks have 64 tokens. */
static void rig_open(int shared, uint32_t slots)
{
	struct mr_clock clock = {clock_now, &rig};
	struct mr_sched_options o = {
		.model = &rig.model, .clock = &clock, .requests = REQUESTS, .chunk = 64};

	memset(&rig, 0, sizeof(rig));
	rig.now = 1;
	rig.shared = shared;
	rig.model.shape.layers = LAYERS;
	rig.model.shape.context = CONTEXT;
	for (int i = 0; i < 2 - shared; i++) {
		const struct mr_nil_options nil = {
			.slots = slots,
			.context = CONTEXT,
			.vocab = VOCAB,
			.layers = LAYERS,
			.costs = {.prompt_token_ns = 10000, .step_ns = MS, .import_block_ns = 1000},
			.now_ns = clock_now,
			.arg = &rig,
		};

		assert_int_equal(mr_nil_open(&nil, &rig.nil[i]), 0);
	}
	o.prefill = rig.nil[0];
	o.decode = rig.nil[1 - shared];
	assert_int_equal(mr_sched_create(&o, &rig.sched), 0);
}

static void rig_close(void)
{
	mr_sched_destroy(rig.sched);
	for (int i = 0; i < 2 - rig.shared; i++)
		rig.nil[i]->admin->close(rig.nil[i]);
}

/* Goes on to @until, or until nothing is under way. */
static void run(uint64_t until)
{
	for (;;) {
		const char *why = "";
		uint64_t a, b;

		while (mr_sched_poll(rig.sched))
			if (mr_sched_check(rig.sched, &why))
				fail_msg("%s", why);
		a = mr_nil_next_ns(rig.nil[0]);
		b = rig.shared ? UINT64_MAX : mr_nil_next_ns(rig.nil[1]);
		a = a < b ? a : b;
		if (a > until || a == UINT64_MAX) {
			rig.now = until == UINT64_MAX ? rig.now : until;
			return;
		}
		rig.now = a > rig.now ? a : rig.now;
	}
}

static int submit(uint64_t client, uint64_t key, uint32_t prompt, uint32_t answer, uint64_t due_ns,
		  uint32_t priority)
{
	struct mr_request *r = mr_sched_request(rig.sched);

	assert_non_null(r);
	r->ops = &ops;
	r->client = client;
	r->key = key;
	r->flags = MR_REQUEST_TOKENS | MR_REQUEST_IGNORE_EOS;
	r->max_tokens = answer;
	r->due_ns = due_ns;
	r->priority = priority;
	r->token_count = prompt;
	for (uint32_t i = 0; i < prompt; i++)
		r->tokens[i] = (uint32_t)(key * 131 + i * 7) % VOCAB;
	rig.answers[key] = (struct answer){.due_ns = due_ns};
	return mr_sched_submit(rig.sched, r);
}

/* The costs are learnt from one prompt. */
static void warm_up(void)
{
	assert_int_equal(submit(9, 0, 500, 8, 0, 0), 0);
	run(UINT64_MAX);
	assert_int_equal(rig.answers[0].ended, 1);
}

/* A random crowd with deadlines of its own, and one client that has none. */
static void crowd(int shared, uint64_t seed)
{
	uint64_t accepted = mr_metric_read(MR_M_sched_deadlines);
	uint64_t refused = mr_metric_read(MR_M_sched_deadline_refused);
	uint64_t late = mr_metric_read(MR_M_sched_late), again = 0, wanted, there;
	uint32_t key = 1, met = 0;

	rig_open(shared, 128);
	warm_up();
	for (; key <= 600; key++) {
		uint64_t dice = wrap_random(&seed);
		uint32_t prompt = 2 + (uint32_t)(dice >> 8) % 200;
		uint64_t due = rig.now + 1 + (dice >> 20) % (60 * MS);
		int status;

		run(rig.now + (dice >> 24) % (4 * MS));
		due = due > rig.now ? due : rig.now + 1;
		if (key % 8 == 0) {
			assert_int_equal(submit(7, key, prompt, 2, 0, 0), 0);
			continue;
		}
		status = submit(1 + dice % 4, key, prompt, 2, due, 0);
		if (status == 0)
			continue;
		assert_int_equal(status, MR_E_DEADLINE);
		mr_sched_refusal(rig.sched, &wanted, &there);
		assert_int_equal(wanted, due);
		assert_true(there > due);
		/* A nanosecond before is refused, and what was told is promised. */
		assert_int_equal(submit(1 + dice % 4, key, prompt, 2, there - 1, 0), MR_E_DEADLINE);
		if (dice % 2) {
			assert_int_equal(submit(1 + dice % 4, key, prompt, 2, there, 0), 0);
			again++;
		}
	}
	run(UINT64_MAX);
	for (uint32_t i = 1; i < key; i++) {
		const struct answer *a = &rig.answers[i];

		if (!a->ended)
			continue;
		assert_int_equal(a->late, 0);
		if (a->due_ns && a->first_ns > a->due_ns)
			fail_msg("%u was promised %llu and came at %llu", i,
				 (unsigned long long)a->due_ns, (unsigned long long)a->first_ns);
		met += a->due_ns != 0;
	}
	assert_true(again > 10 && met > 200);
	assert_int_equal(mr_metric_read(MR_M_sched_deadlines) - accepted, met);
	assert_true(mr_metric_read(MR_M_sched_deadline_refused) - refused > 2 * again);
	assert_int_equal(mr_metric_read(MR_M_sched_late), late);
	rig_close();
}

static void promises_are_kept(void **state)
{
	for (uint64_t seed = 1; seed <= 4; seed++) {
		crowd(0, seed);
		crowd(1, seed);
	}
}

/* The earliest goes first, whoever came first; others have one chunk in five of a crowd with deadlines. */
static void earliest_first(void **state)
{
	rig_open(0, 128);
	warm_up();
	/* Before those that have none, and behind what is promised earlier. */
	assert_int_equal(submit(1, 1, 200, 1, 0, 0), 0);
	assert_int_equal(submit(2, 2, 200, 1, rig.now + 90 * MS, 0), 0);
	assert_int_equal(submit(3, 3, 200, 1, rig.now + 60 * MS, 0), 0);
	assert_int_equal(submit(2, 4, 200, 1, rig.now + 30 * MS, 0), 0);
	run(UINT64_MAX);
	assert_true(rig.answers[4].start_ns < rig.answers[3].start_ns);
	assert_true(rig.answers[3].start_ns < rig.answers[2].start_ns);
	assert_true(rig.answers[4].first_ns < rig.answers[1].first_ns);
	/* 100 prompts of 200 tokens are 200 ms; the one without a deadline has its four chunks after 16. */
	for (uint64_t key = 10; key < 110; key++)
		assert_int_equal(submit(2, key, 200, 1, rig.now + 2000 * MS, 0), 0);
	assert_int_equal(submit(1, 5, 200, 1, 0, 0), 0);
	run(UINT64_MAX);
	assert_true(rig.answers[5].first_ns - rig.answers[10].start_ns < 25 * MS);
	assert_true(rig.answers[109].first_ns > rig.answers[5].first_ns + 100 * MS);
	rig_close();
}

/* Nobody knows when KV comes: nothing is promised, and no time told. */
static void no_slot_no_promise(void **state)
{
	uint64_t wanted, there;

	rig_open(1, 2);
	warm_up();
	for (uint64_t key = 1; key <= 3; key++)
		assert_int_equal(submit(key, key, 20, 50, 0, 0), 0);
	run(rig.now + 3 * MS);
	assert_int_equal(submit(9, 4, 20, 1, rig.now + 10000 * MS, 0), MR_E_DEADLINE);
	mr_sched_refusal(rig.sched, &wanted, &there);
	assert_int_equal(there, 0);
	run(UINT64_MAX);
	assert_int_equal(submit(9, 4, 20, 1, rig.now + 10000 * MS, 0), 0);
	run(UINT64_MAX);
	assert_int_equal(rig.answers[4].late, 0);
	rig_close();
}

/* The loop stands still for longer than there was time: the answer comes, marked, and is counted once. */
static void a_miss_is_marked(void **state)
{
	uint64_t late = mr_metric_read(MR_M_sched_late);

	rig_open(0, 16);
	warm_up();
	assert_int_equal(submit(1, 1, 100, 3, rig.now + 20 * MS, 0), 0);
	assert_int_equal(submit(1, 2, 100, 3, rig.now + 5000 * MS, 0), 0);
	assert_int_equal(submit(1, 3, 100, 3, rig.now + 20 * MS, 0), 0);
	run(rig.now + MS / 2);
	rig.now += 30 * MS;
	assert_int_equal(mr_sched_cancel(rig.sched, 1, 3), 0); /* whose client gave up */
	run(UINT64_MAX);
	assert_true(rig.answers[1].late && rig.answers[1].late_token);
	assert_int_equal(rig.answers[1].tokens, 3);
	assert_int_equal(rig.answers[2].late | rig.answers[2].late_token, 0);
	assert_int_equal(rig.answers[3].late, 0);
	assert_int_equal(mr_metric_read(MR_M_sched_late), late + 1);
	rig_close();
}

/* Among a client's own the higher goes first; another client's turn comes as if there were no priorities. */
static void priorities(void **state)
{
	uint64_t overtakes = mr_metric_read(MR_M_sched_overtakes), other[2];

	for (int round = 0; round < 2; round++) {
		rig_open(0, 128);
		warm_up();
		for (uint64_t key = 1; key <= 12; key++)
			assert_int_equal(submit(1, key, 100, 1, 0,
						round ? (uint32_t[]){0, 2, 1}[key % 3] : 0),
					 0);
		assert_int_equal(submit(2, 20, 200, 1, 0, 0), 0);
		run(UINT64_MAX);
		other[round] = rig.answers[20].first_ns - rig.answers[20].start_ns;
		assert_true(rig.answers[20].first_ns < rig.answers[12].first_ns);
		for (uint64_t key = 1; round && key <= 12; key++)
			for (uint64_t later = 1; later <= 12; later++) {
				static const uint32_t rank[] = {1, 2, 0};
				uint32_t a = rank[key % 3], b = rank[later % 3];

				if (a < b || (a == b && key < later))
					assert_true(rig.answers[key].start_ns <
						    rig.answers[later].start_ns);
			}
		rig_close();
	}
	assert_int_equal(other[0], other[1]);
	assert_true(mr_metric_read(MR_M_sched_overtakes) > overtakes);
	/* One that waits for a slot is not overtaken by what would wait for it. */
	rig_open(1, 2);
	for (uint64_t key = 1; key <= 2; key++)
		assert_int_equal(submit(2, key, 20, 20, 0, 0), 0);
	run(rig.now + 2 * MS);
	assert_int_equal(submit(1, 3, 20, 1, 0, 0), 0);
	run(rig.now + MS);
	assert_int_equal(submit(1, 4, 20, 1, 0, 1), 0);
	run(UINT64_MAX);
	assert_true(rig.answers[3].ended && rig.answers[4].ended);
	assert_int_equal(submit(1, 1, 10, 1, 0, MR_RANKS), MR_E_RANGE);
	rig_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(promises_are_kept),  cmocka_unit_test(earliest_first),
		cmocka_unit_test(no_slot_no_promise), cmocka_unit_test(a_miss_is_marked),
		cmocka_unit_test(priorities),
	};

	return cmocka_run_group_tests_name("due", tests, NULL, NULL);
}
