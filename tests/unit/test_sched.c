// SPDX-License-Identifier: Apache-2.0
/*
 * The orchestrator over the nil device: random submits, cancels and credit by seed, every way a request
 * can be refused, and what becomes of requests when a device fails.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "driver/metrics.h"
#include "driver/model/model.h"
#include "driver/nil/nil.h"
#include "support/sched_front.h"
#include "support/wrap_device.h"

#define CONTEXT 256u
#define VOCAB   1000u
#define LAYERS  3u
#define PLENTY  1000000u

struct rig {
	struct mr_model model;
	struct mr_device *nil[2]; /* prefill, decode; the same one where shared */
	struct wrap_device wrap[2];
	struct mr_sched *sched;
	struct sched_front front;
	uint64_t clock;
	int alone;
};

static uint64_t tick(void *arg)
{
	return ++*(uint64_t *)arg;
}

struct rig_options {
	int shared;
	uint32_t prefill_slots, decode_slots, requests, batch, chunk, steps, keys;
};

static void rig_open(struct rig *rig, const struct rig_options *o)
{
	struct mr_nil_options nil = {.context = CONTEXT, .vocab = VOCAB, .layers = LAYERS};
	struct mr_sched_options sched = {
		.model = &rig->model,
		.requests = o->requests,
		.batch_max = o->batch,
		.chunk = o->chunk,
		.steps = o->steps,
	};
	struct mr_clock clock = {tick, &rig->clock};

	memset(rig, 0, sizeof(*rig));
	rig->model.shape.layers = LAYERS;
	rig->model.shape.context = CONTEXT;
	rig->model.stop[0] = VOCAB - 1; /* reached by counting up */
	rig->model.stop_count = 1;
	nil.slots = o->decode_slots;
	assert_int_equal(mr_nil_open(&nil, &rig->nil[1]), 0);
	rig->nil[0] = rig->nil[1];
	nil.slots = o->prefill_slots;
	if (!o->shared)
		assert_int_equal(mr_nil_open(&nil, &rig->nil[0]), 0);
	wrap_device(&rig->wrap[0], rig->nil[0]);
	wrap_device(&rig->wrap[1], rig->nil[1]);
	sched.decode = &rig->wrap[1].dev;
	sched.prefill = o->shared ? &rig->wrap[1].dev : &rig->wrap[0].dev;
	sched.clock = &clock;
	assert_int_equal(mr_sched_create(&sched, &rig->sched), 0);
	sched_front_init(&rig->front, o->keys ? o->keys : 64);
}

static uint64_t slots_held(struct mr_device *dev)
{
	struct mr_telemetry t;

	assert_int_equal(dev->admin->telemetry(dev, &t), 0);
	return t.kv_blocks_used;
}

/* Ends the rig; nothing may be left on the devices or missing from the pool. */
static void rig_close(struct rig *rig, uint32_t requests)
{
	struct mr_request **all = calloc(requests + 1, sizeof(struct mr_request *));

	assert_int_equal(rig->front.broken, 0);
	assert_int_equal(mr_sched_active(rig->sched), 0);
	mr_sched_drop_cache(rig->sched);
	assert_int_equal(slots_held(rig->nil[0]), 0);
	assert_int_equal(slots_held(rig->nil[1]), 0);
	for (uint32_t i = 0; i < requests; i++)
		assert_non_null(all[i] = mr_sched_request(rig->sched));
	assert_null(mr_sched_request(rig->sched));
	for (uint32_t i = 0; i < requests; i++)
		mr_sched_abandon(rig->sched, all[i]);
	free(all);
	mr_sched_destroy(rig->sched);
	rig->nil[1]->admin->close(rig->nil[1]);
	if (rig->nil[0] != rig->nil[1])
		rig->nil[0]->admin->close(rig->nil[0]);
	sched_front_free(&rig->front);
}

/* Five clients, by key; where rig->alone all are one client's, so that they are served in order. */
static int submit(struct rig *rig, uint64_t key, uint32_t prompt, uint32_t max, uint32_t credits)
{
	uint64_t client = rig->alone ? 1 : key % 5;
	uint32_t ids[CONTEXT];

	for (uint32_t i = 0; i < prompt; i++)
		ids[i] = (uint32_t)(key + i) % (VOCAB / 2);
	return sched_front_submit(&rig->front, rig->sched, client, key, ids, prompt, max, credits);
}

/* What the nil device makes of a prompt of submit(): it counts up from the last token to the stop. */
static void check_answer(const struct answer *a)
{
	uint32_t fed = (uint32_t)(a->key + a->prompt - 1) % (VOCAB / 2);

	for (uint32_t i = 0; i < a->count; i++)
		assert_int_equal(a->ids[i], (fed + 1 + i) % VOCAB);
	if (a->end.finish == MR_FINISH_CANCEL) {
		assert_int_equal(a->end.status, MR_E_CANCELLED);
		return;
	}
	assert_int_equal(a->end.status, 0);
	assert_true(a->count > 0);
	if (a->end.finish == MR_FINISH_STOP)
		assert_int_equal(a->ids[a->count - 1], VOCAB - 1);
	else
		assert_int_equal(a->end.finish, MR_FINISH_LENGTH);
	assert_true(a->end.submit_ns < a->end.start_ns && a->end.start_ns < a->end.prefilled_ns);
	assert_true(a->end.prefilled_ns < a->end.first_ns && a->end.first_ns < a->end.end_ns);
}

#define CROWD 3000u

static void crowd(const struct rig_options *o, uint64_t seed)
{
	struct rig rig;
	uint64_t next = 0, random = seed, cancelled = 0;
	uint32_t ended = 0;

	rig_open(&rig, o);
	rig.wrap[0].lag = 3;
	rig.wrap[1].lag = 5;
	rig.wrap[0].seed = seed + 1;
	rig.wrap[1].seed = seed + 2;
	for (uint32_t turn = 0; ended < CROWD && turn < 4000000; turn++) {
		uint64_t dice = wrap_random(&random);
		uint64_t key = next ? dice / 64 % next : 0;

		if (dice % 8 < 3 && next < CROWD) {
			uint32_t prompt = 1 + (uint32_t)(dice >> 8) % 100;
			uint32_t max = 1 + (uint32_t)(dice >> 20) % 40;
			int status = submit(&rig, next, prompt, max, (uint32_t)(dice >> 32) % 4);

			assert_true(status == 0 || status == MR_E_FULL);
			next += status == 0;
		} else if (dice % 64 == 7 && next) {
			int live = rig.front.answers[key].accepted && !rig.front.answers[key].ended;
			int status = mr_sched_cancel(rig.sched, key % 5, key);

			/* One that is ending already is not found, though its end is still to come. */
			assert_true(live ? status == 0 || status == MR_E_NOT_FOUND
					 : status == MR_E_NOT_FOUND);
			cancelled += status == 0;
		} else if (dice % 4096 == 15) {
			cancelled += (uint64_t)mr_sched_cancel_client(rig.sched, dice >> 40 & 3);
		} else if (next) {
			rig.front.answers[key].credit += (uint32_t)(dice >> 50) % 3;
		}
		/* Towards the end nobody is left without credit. */
		if (next == CROWD && dice % 4 == 0)
			for (uint32_t i = 0; i < CROWD; i++)
				rig.front.answers[i].credit += 1;
		mr_sched_poll(rig.sched);
		ended = rig.front.ended;
		assert_int_equal(mr_sched_active(rig.sched), next - ended);
		assert_int_equal(rig.front.broken, 0);
	}
	assert_int_equal(ended, CROWD);
	for (uint32_t i = 0; i < CROWD; i++) {
		assert_true(rig.front.answers[i].ended);
		if (rig.front.answers[i].end.finish != MR_FINISH_CANCEL)
			check_answer(&rig.front.answers[i]);
		cancelled -= rig.front.answers[i].end.finish == MR_FINISH_CANCEL;
	}
	assert_int_equal(cancelled, 0);
	rig_close(&rig, o->requests);
}

static void random_crowds(void **state)
{
	for (uint64_t seed = 1; seed <= 4; seed++) {
		crowd(&(struct rig_options){.shared = 0,
					    .prefill_slots = 3,
					    .decode_slots = 7,
					    .requests = 40,
					    .batch = 5,
					    .chunk = 16,
					    .steps = 4,
					    .keys = CROWD},
		      seed * 77);
		crowd(&(struct rig_options){.shared = 1,
					    .decode_slots = 6,
					    .requests = 24,
					    .batch = 0,
					    .chunk = 33,
					    .steps = 1,
					    .keys = CROWD},
		      seed * 1001);
	}
}

static const struct rig_options plain = {
	.prefill_slots = 2, .decode_slots = 2, .requests = 8, .chunk = 8, .steps = 1};

/* Everything of one request: what is submitted at which moment does not matter here, only its fields. */
static int refuse(struct rig *rig, void (*spoil)(struct mr_request *r))
{
	struct mr_request *r = mr_sched_request(rig->sched);
	uint64_t before = mr_metric_read(MR_M_sched_refused);
	int status;

	assert_non_null(r);
	r->ops = &sched_front_ops;
	r->front = &rig->front;
	r->key = 60;
	r->flags = MR_REQUEST_TOKENS;
	r->max_tokens = 4;
	r->token_count = 3;
	r->tokens[0] = r->tokens[1] = r->tokens[2] = 5;
	spoil(r);
	status = mr_sched_submit(rig->sched, r);
	assert_int_equal(mr_metric_read(MR_M_sched_refused) - before, status != 0);
	return status;
}

static void spoil_ops(struct mr_request *r)
{
	r->ops = NULL;
}
static void spoil_flags(struct mr_request *r)
{
	r->flags |= 1u << 20;
}
static void spoil_both(struct mr_request *r)
{
	r->flags |= MR_REQUEST_CHAT;
}
static void spoil_max(struct mr_request *r)
{
	r->max_tokens = 0;
}
static void spoil_count(struct mr_request *r)
{
	r->token_count = 0;
}
static void spoil_long(struct mr_request *r)
{
	r->token_count = CONTEXT + 1;
}
static void spoil_answer(struct mr_request *r)
{
	r->max_tokens = CONTEXT - 2;
}
static void spoil_overflow(struct mr_request *r)
{
	r->max_tokens = UINT32_MAX;
}
static void spoil_id(struct mr_request *r)
{
	r->tokens[2] = VOCAB;
}
static void spoil_temperature(struct mr_request *r)
{
	r->sampling.temperature = -1.0f;
}
static void spoil_stops(struct mr_request *r)
{
	r->sampling.stop_count = MR_STOP_TOKENS_MAX + 1;
}
static void spoil_text(struct mr_request *r)
{
	r->flags = 0;
	r->text_bytes = 3;
}
static void spoil_key(struct mr_request *r)
{
	r->client = 2;
	r->key = 7;
}
static void spoil_nothing(struct mr_request *r)
{
	r->max_tokens = CONTEXT - 3;
}

static void refusals(void **state)
{
	struct rig rig;

	rig_open(&rig, &plain);
	assert_int_equal(submit(&rig, 7, 3, 4, 0), 0); /* live, without credit: holds (2, 7) */
	assert_int_equal(refuse(&rig, spoil_ops), MR_E_INVALID);
	assert_int_equal(refuse(&rig, spoil_flags), MR_E_INVALID);
	assert_int_equal(refuse(&rig, spoil_both), MR_E_INVALID);
	assert_int_equal(refuse(&rig, spoil_max), MR_E_INVALID);
	assert_int_equal(refuse(&rig, spoil_count), MR_E_INVALID);
	assert_int_equal(refuse(&rig, spoil_long), MR_E_CONTEXT_FULL);
	assert_int_equal(refuse(&rig, spoil_answer), MR_E_CONTEXT_FULL);
	assert_int_equal(refuse(&rig, spoil_overflow), MR_E_CONTEXT_FULL);
	assert_int_equal(refuse(&rig, spoil_id), MR_E_RANGE);
	assert_int_equal(refuse(&rig, spoil_temperature), MR_E_RANGE);
	assert_int_equal(refuse(&rig, spoil_stops), MR_E_RANGE);
	assert_int_equal(refuse(&rig, spoil_text), MR_E_MODEL); /* no tokeniser here */
	assert_int_equal(refuse(&rig, spoil_key), MR_E_EXISTS);
	assert_int_equal(mr_sched_active(rig.sched), 1);
	rig.front.answers[60] =
		(struct answer){.key = 60, .prompt = 3, .accepted = 1, .credit = CONTEXT};
	assert_int_equal(refuse(&rig, spoil_nothing), 0); /* fits to the last position */
	rig.front.answers[7].credit = PLENTY;
	assert_int_equal(sched_front_drain(rig.sched, 10000), 0);
	assert_int_equal(rig.front.answers[60].count, CONTEXT - 3);
	assert_int_equal(mr_sched_cancel(rig.sched, 2, 7), MR_E_NOT_FOUND);
	rig_close(&rig, plain.requests);
}

/* What is under way ends as it would have; what comes after is refused by name. */
static void drains(void **state)
{
	struct rig rig;

	rig_open(&rig, &plain);
	assert_int_equal(submit(&rig, 7, 3, 4, PLENTY), 0);
	mr_sched_drain(rig.sched);
	assert_int_equal(refuse(&rig, spoil_nothing), MR_E_BUSY);
	assert_int_equal(sched_front_drain(rig.sched, 10000), 0);
	assert_int_equal(rig.front.answers[7].count, 4);
	rig_close(&rig, plain.requests);
}

static void create_refuses(void **state)
{
	struct rig rig;
	struct mr_sched *sched;
	struct mr_sched_options o = {0};

	rig_open(&rig, &plain);
	o.model = &rig.model;
	o.prefill = rig.nil[0];
	assert_int_equal(mr_sched_create(&o, &sched), MR_E_INVALID);
	o.decode = rig.nil[1];
	rig.nil[1]->caps.stages = MR_STAGE_PREFILL;
	assert_int_equal(mr_sched_create(&o, &sched), MR_E_INVALID);
	rig.nil[1]->caps.stages = MR_STAGE_DECODE;
	rig.model.shape.layers = 0;
	assert_int_equal(mr_sched_create(&o, &sched), MR_E_INVALID);
	rig_close(&rig, plain.requests);
}

/* Three requests; the fault hits the second: it ends with the status, the others as if nothing was. */
static void one_fails(struct rig *rig, int32_t status)
{
	rig->alone = 1;
	for (uint64_t key = 0; key < 3; key++)
		assert_int_equal(submit(rig, key, 20, 6, PLENTY), 0);
	assert_int_equal(sched_front_drain(rig->sched, 10000), 0);
	assert_int_equal(rig->front.answers[1].end.status, status);
	assert_int_equal(rig->front.answers[1].end.finish, MR_FINISH_ERROR);
	for (uint64_t key = 0; key < 3; key += 2) {
		assert_int_equal(rig->front.answers[key].count, 6);
		check_answer(&rig->front.answers[key]);
	}
	rig_close(rig, plain.requests);
}

static void faults(void **state)
{
	struct rig rig;

	for (int in_event = 0; in_event < 2; in_event++) {
		/* 19 positions in chunks of 8: three calls a request. */
		rig_open(&rig, &plain);
		rig.wrap[0].prefill = (struct wrap_fault){MR_E_DMA_FAULT, 4, in_event};
		one_fails(&rig, MR_E_DMA_FAULT);
		/*
		 * 3 layers of 2 blocks: one import when the first block of each is whole, one at the
		 * end. A fault that is no refusal is not retried.
		 */
		rig_open(&rig, &plain);
		rig.wrap[1].import = (struct wrap_fault){MR_E_RANGE, 2, in_event};
		one_fails(&rig, MR_E_RANGE);
	}
}

/* A DECODE that breaks off takes its sequences with it, what they had stays theirs, and the next one runs. */
static void decode_breaks(void **state)
{
	for (int in_event = 0; in_event < 2; in_event++) {
		struct rig rig;

		rig_open(&rig, &plain);
		rig.wrap[1].decode = (struct wrap_fault){MR_E_RANGE, 2, in_event};
		assert_int_equal(submit(&rig, 0, 20, 6, PLENTY), 0);
		assert_int_equal(sched_front_drain(rig.sched, 10000), 0);
		assert_int_equal(rig.front.answers[0].end.status, MR_E_RANGE);
		assert_int_equal(rig.front.answers[0].count, 2);
		assert_int_equal(submit(&rig, 1, 20, 6, PLENTY), 0);
		assert_int_equal(sched_front_drain(rig.sched, 10000), 0);
		check_answer(&rig.front.answers[1]);
		assert_int_equal(rig.front.answers[1].count, 6);
		rig_close(&rig, plain.requests);
	}
}

/* What the device did wrong, and not its orders: the sequence is computed again, and nobody notices. */
static void goes_on(void **state)
{
	static const int32_t said[] = {MR_E_DEVICE, MR_E_TIMEOUT, MR_E_PROTOCOL, MR_E_DMA_FAULT};

	for (size_t i = 0; i < 2 * sizeof(said) / sizeof(*said); i++) {
		uint64_t again = mr_metric_read(MR_M_sched_again);
		struct rig rig;

		rig_open(&rig, &plain);
		if (i % 2)
			rig.wrap[1].import = (struct wrap_fault){said[i / 2], 1, 1};
		else
			rig.wrap[1].decode = (struct wrap_fault){said[i / 2], 2, 1};
		assert_int_equal(submit(&rig, 0, 20, 6, PLENTY), 0);
		assert_int_equal(sched_front_drain(rig.sched, 10000), 0);
		assert_int_equal(rig.front.answers[0].end.status, 0);
		assert_int_equal(rig.front.answers[0].count, 6);
		check_answer(&rig.front.answers[0]);
		assert_int_equal(mr_metric_read(MR_M_sched_again), again + 1);
		rig_close(&rig, plain.requests);
	}
}

/* A batch that the device refuses is halved until the entry at fault is found. */
static void bad_entry(void **state)
{
	struct rig_options o = plain;
	struct rig rig;

	o.decode_slots = 3;
	rig_open(&rig, &o);
	assert_int_equal(submit(&rig, 0, 1, 6, PLENTY), 0);
	assert_int_equal(submit(&rig, 1, 1, 6, PLENTY), 0);
	assert_int_equal(submit(&rig, 2, 1, 6, PLENTY), 0);
	while (rig.front.answers[2].count == 0)
		mr_sched_poll(rig.sched);
	/* The slot goes away behind the orchestrator's back. */
	assert_int_equal(rig.nil[1]->mem->slot_close(rig.nil[1], (struct mr_slot){1, 1}), 0);
	assert_int_equal(sched_front_drain(rig.sched, 10000), 0);
	assert_int_equal(rig.front.answers[1].end.status, MR_E_STALE);
	for (uint64_t key = 0; key < 3; key += 2)
		assert_int_equal(rig.front.answers[key].count, 6);
	rig_close(&rig, plain.requests);
}

static void count_stale(void *arg, struct mr_kv_desc *descs, uint32_t count)
{
	int *left = arg;

	/* The last block, which goes once in each hand-over. */
	if (descs[count - 1].length == MR_KV_BLOCK_TOKENS)
		return;
	if (*left > 0)
		descs[count - 1].generation ^= 2;
	--*left;
}

/* A descriptor of another generation: refused, counted, handed over once more, then named. */
static void stale_handover(void **state)
{
	for (int times = 1; times <= 2; times++) {
		uint64_t before = mr_metric_read(MR_M_sched_kv_stale);
		struct rig rig;
		int left = times;

		rig_open(&rig, &plain);
		rig.alone = 1;
		rig.wrap[1].on_import = count_stale;
		rig.wrap[1].arg = &left;
		assert_int_equal(submit(&rig, 0, 40, 6, PLENTY), 0);
		assert_int_equal(submit(&rig, 1, 40, 6, PLENTY), 0);
		assert_int_equal(sched_front_drain(rig.sched, 10000), 0);
		assert_int_equal(mr_metric_read(MR_M_sched_kv_stale) - before, times);
		assert_int_equal(rig.front.answers[0].end.status, times == 1 ? 0 : MR_E_STALE);
		assert_int_equal(rig.front.answers[0].count, times == 1 ? 6 : 0);
		assert_int_equal(rig.front.answers[1].count, 6);
		rig_close(&rig, plain.requests);
	}
}

/* A device that is lost for good ends what runs and refuses what comes, both by name. */
static void device_lost(void **state)
{
	struct rig rig;

	rig_open(&rig, &plain);
	for (uint64_t key = 0; key < 5; key++)
		assert_int_equal(submit(&rig, key, 20, 100, PLENTY), 0);
	rig.wrap[1].lag = 2;
	for (int i = 0; i < 12; i++)
		mr_sched_poll(rig.sched);
	assert_int_equal(mr_sched_active(rig.sched), 5);
	rig.wrap[1].lost = MR_E_DEVICE;
	mr_sched_poll(rig.sched);
	assert_int_equal(mr_sched_active(rig.sched), 0);
	for (uint64_t key = 0; key < 5; key++)
		assert_int_equal(rig.front.answers[key].end.status, MR_E_DEVICE);
	assert_int_equal(submit(&rig, 6, 20, 100, PLENTY), MR_E_DEVICE);
	assert_int_equal(rig.nil[1]->admin->reset(rig.nil[1]), 0);
	rig_close(&rig, plain.requests);
}

static void steps_and_company(void **state)
{
	struct rig_options o = plain;
	struct rig rig;

	o.decode_slots = 8;
	o.steps = 8;
	rig_open(&rig, &o);
	assert_int_equal(submit(&rig, 0, 5, 40, 3), 0);
	for (int i = 0; i < 50; i++)
		mr_sched_poll(rig.sched);
	/* Three tokens of credit: one DECODE of three steps, never a fourth token. */
	assert_int_equal(rig.front.answers[0].count, 3);
	assert_int_equal(rig.wrap[1].decodes, 1);
	assert_int_equal(rig.wrap[1].most_steps, 3);
	rig.front.answers[0].credit = PLENTY;
	for (uint64_t key = 1; key < 6; key++)
		assert_int_equal(submit(&rig, key, 5, 40, PLENTY), 0);
	assert_int_equal(sched_front_drain(rig.sched, 10000), 0);
	assert_int_equal(rig.wrap[1].most_entries, 6);
	assert_int_equal(rig.wrap[1].most_steps, 8);
	for (uint64_t key = 0; key < 6; key++)
		check_answer(&rig.front.answers[key]);
	rig_close(&rig, o.requests);
}

/* What is under way when the orchestrator goes is cancelled, not lost. */
static void destroy_cancels(void **state)
{
	struct rig rig;

	rig_open(&rig, &plain);
	rig.wrap[0].lag = rig.wrap[1].lag = 2;
	for (uint64_t key = 0; key < 6; key++)
		assert_int_equal(submit(&rig, key, 30, 20, PLENTY), 0);
	for (int i = 0; i < 9; i++)
		mr_sched_poll(rig.sched);
	mr_sched_destroy(rig.sched);
	assert_int_equal(rig.front.ended, 6);
	assert_int_equal(rig.front.broken, 0);
	assert_int_equal(slots_held(rig.nil[0]) + slots_held(rig.nil[1]), 0);
	rig.nil[0]->admin->close(rig.nil[0]);
	rig.nil[1]->admin->close(rig.nil[1]);
	sched_front_free(&rig.front);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_crowds),
		cmocka_unit_test(refusals),
		cmocka_unit_test(drains),
		cmocka_unit_test(create_refuses),
		cmocka_unit_test(faults),
		cmocka_unit_test(bad_entry),
		cmocka_unit_test(decode_breaks),
		cmocka_unit_test(goes_on),
		cmocka_unit_test(stale_handover),
		cmocka_unit_test(device_lost),
		cmocka_unit_test(steps_and_company),
		cmocka_unit_test(destroy_cancels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
