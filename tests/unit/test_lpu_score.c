// SPDX-License-Identifier: Apache-2.0
/*
 * SCORE through the driver: log-probabilities equal those that forced DECODEs and the CPU's logits give, bit
 * for bit, however the tokens fall into passes; refusals by name; and a device that lies about them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "driver/cpu/cpu.h"
#include "driver/lpu/lpu.h"
#include "driver/metrics.h"
#include "kernels/cpu/sample.h"
#include "support/lpu_liar.h"
#include "support/lpu_rig.h"

#define TOKENS 90u

static uint64_t tags = 100;

/* ln p(ids[i + 1]) after ids[0..i], by the logits of DECODEs with forced ids in pieces. */
static void forced(struct mr_device *dev, const uint32_t *ids, uint32_t n, float *logprob)
{
	struct mr_slot slot = lpu_rig_slot(dev, 128);

	for (uint32_t at = 0; at < n;) {
		uint32_t steps = n - at < dev->caps.steps_max ? n - at : dev->caps.steps_max;
		struct mr_decode_entry entry = {slot,         at,        ids[at],
						ids + at + 1, steps - 1, MR_DECODE_LOGITS};
		struct mr_event event = {.type = MR_EVENT_TOKEN};
		assert_int_equal(dev->work->decode(dev, &entry, 1, steps, ++tags), 0);
		while (event.type != MR_EVENT_DONE) {
			if (dev->work->poll(dev, &event, 1) < 1)
				event.type = MR_EVENT_KV; /* nothing came */
			if (event.type == MR_EVENT_TOKEN) {
				logprob[at] =
					mr_logprob(event.logits, dev->caps.vocab, ids[at + 1]);
				at++;
			}
		}
		assert_int_equal(event.status, 0);
	}
	assert_int_equal(dev->mem->slot_close(dev, slot), 0);
}

/* Scores ids[from..from + count) in @slot and compares with @want; returns the cycles of all. */
static uint64_t score(struct mr_device *dev, struct mr_slot slot, const uint32_t *ids,
		      uint32_t from, uint32_t count, const float *want)
{
	struct mr_event events[TOKENS + 2];
	uint64_t cycles = 0;

	assert_int_equal(dev->work->score(dev, slot, ids + from, count, from, ++tags), 0);
	assert_int_equal(lpu_rig_wait(dev, tags, events, TOKENS + 2), count);
	assert_int_equal(events[count - 1].status, 0);
	for (uint32_t i = 0; i + 1 < count; i++) {
		assert_int_equal(events[i].type, MR_EVENT_TOKEN);
		assert_int_equal(events[i].slot.index, slot.index);
		assert_int_equal(events[i].slot.generation, slot.generation);
		assert_int_equal(events[i].token, ids[from + i + 1]);
		assert_int_equal(events[i].position, from + i + 1);
		assert_int_equal(events[i].stopped, 0);
		assert_true(events[i].cycles > 0);
		assert_memory_equal(&events[i].logprob, &want[from + i], sizeof(float));
		cycles += events[i].cycles;
	}
	assert_int_equal(events[count - 1].cycles, cycles);
	return cycles;
}

static void a_score_is_what_forced_decodes_and_the_cpu_say(void **state)
{
	static const uint32_t batches[] = {1, 4, 7, 64};
	float want[TOKENS], of_cpu[TOKENS];
	uint32_t ids[TOKENS + 1];
	uint64_t cycles[4];

	for (uint32_t i = 0; i <= TOKENS; i++)
		ids[i] = 20 + i * 37 % 200;
	for (size_t k = 0; k < 4; k++) {
		struct lpu_rig rig;
		lpu_rig_open(&rig, &(struct lpu_rig_options){.batch = batches[k]});
		struct mr_device *dev = rig.dev, *cpu;
		assert_true(dev->caps.stages & MR_STAGE_SCORE);
		forced(dev, ids, TOKENS, want);
		if (k == 0) {
			struct mr_cpu_options o = {
				.arena = rig.arena, .slots = 2, .context = 128, .cpu = -1};
			assert_int_equal(mr_cpu_open(&o, &cpu), 0);
			assert_int_equal(cpu->work->load(cpu, rig.model, NULL, NULL), 0);
			forced(cpu, ids, TOKENS, of_cpu);
			cpu->admin->close(cpu);
			assert_memory_equal(want, of_cpu, sizeof(want));
		}
		struct mr_slot slot = lpu_rig_slot(dev, 128), copy;
		cycles[k] = score(dev, slot, ids, 0, TOKENS, want);
		/* Its KV is there: in pieces from the middle, on a fork, and by DECODE after it. */
		score(dev, slot, ids, 33, 20, want);
		score(dev, slot, ids, 52, 2, want);
		struct mr_slot_config c = {.owner = 7, .positions = 128};
		assert_int_equal(dev->mem->kv_fork(dev, slot, 53, &c, &copy), 0);
		score(dev, copy, ids, 53, 30, want);
		struct mr_decode_entry entry = {slot, 53, ids[53], ids + 54, 4, MR_DECODE_LOGITS};
		struct mr_event events[6];
		assert_int_equal(dev->work->decode(dev, &entry, 1, 5, ++tags), 0);
		assert_int_equal(lpu_rig_wait(dev, tags, events, 6), 6);
		/* The greedy choice is at least as likely as what was given. */
		for (uint32_t i = 0; i < 5; i++)
			assert_true(events[i].logprob >= want[53 + i]);
		struct mr_lpu_counters n;
		assert_int_equal(mr_lpu_log(dev, MR_LPU_LOG_COUNTERS, &n, sizeof(n)), sizeof(n));
		assert_int_equal(n.score_records, TOKENS - 1 + 19 + 1 + 29);
		uint32_t b = batches[k];
		assert_int_equal(n.score_passes, (TOKENS - 1 + b - 1) / b + (19 + b - 1) / b + 1 +
							 (29 + b - 1) / b);
		assert_int_equal(n.steps, TOKENS + 5);
		struct mr_telemetry t;
		assert_int_equal(dev->admin->telemetry(dev, &t), 0);
		assert_int_equal(t.steps, n.steps);
		assert_int_equal(t.cycles, n.cycles);
		lpu_rig_close(&rig);
	}
	/* More tokens a pass install the weights less often. */
	for (size_t k = 1; k < 4; k++)
		assert_true(cycles[k] < cycles[k - 1]);
}

/* Penalties look at what DECODE was fed: a score in between changes nothing that is drawn. */
static void a_score_leaves_sampling_alone(void **state)
{
	struct mr_slot_config c = {.owner = 7,
				   .positions = 64,
				   .sampling = {.seed = 3, .temperature = 1, .repeat = 1.5f}};
	struct mr_event a[9], b[9];
	uint32_t ids[20];
	struct lpu_rig rig;
	struct mr_slot slot;

	lpu_rig_open(&rig, &(struct lpu_rig_options){0});
	struct mr_device *dev = rig.dev;
	for (uint32_t i = 0; i < 20; i++)
		ids[i] = 20 + i;
	for (int scored = 0; scored < 2; scored++) {
		struct mr_decode_entry entry = {0};
		assert_int_equal(dev->mem->slot_open(dev, &c, &slot), 0);
		entry = (struct mr_decode_entry){slot, 0, ids[0], ids + 1, 9, 0};
		assert_int_equal(dev->work->decode(dev, &entry, 1, 10, ++tags), 0);
		struct mr_event events[32];
		assert_int_equal(lpu_rig_wait(dev, tags, events, 32), 11);
		if (scored) {
			assert_int_equal(dev->work->score(dev, slot, ids, 20, 10, ++tags), 0);
			assert_int_equal(lpu_rig_wait(dev, tags, events, 32), 20);
		}
		entry = (struct mr_decode_entry){slot, 10, ids[10]};
		assert_int_equal(dev->work->decode(dev, &entry, 1, 8, ++tags), 0);
		assert_int_equal(lpu_rig_wait(dev, tags, scored ? b : a, 9), 9);
		assert_int_equal(dev->mem->slot_close(dev, slot), 0);
	}
	for (uint32_t i = 0; i < 8; i++) {
		assert_int_equal(a[i].token, b[i].token);
		assert_memory_equal(&a[i].logprob, &b[i].logprob, sizeof(float));
	}
	lpu_rig_close(&rig);
}

static void scores_are_refused_by_name(void **state)
{
	uint32_t ids[64] = {20, 21, 22};
	struct lpu_rig rig;

	lpu_rig_open(&rig, &(struct lpu_rig_options){0});
	struct mr_device *dev = rig.dev;
	struct mr_slot slot = lpu_rig_slot(dev, 16), old = slot;
	old.generation--;
#define SCORE(slot, count, position) dev->work->score(dev, slot, ids, count, position, 1)
	assert_int_equal(SCORE(old, 3, 0), MR_E_STALE);
	assert_int_equal(SCORE(slot, 0, 0), MR_E_RANGE);
	assert_int_equal(SCORE(slot, 1, 0), MR_E_RANGE);
	assert_int_equal(SCORE(slot, dev->caps.chunk_max + 1, 0), MR_E_RANGE);
	assert_int_equal(SCORE(slot, 18, 0), MR_E_CONTEXT_FULL);
	assert_int_equal(SCORE(slot, 3, 15), MR_E_CONTEXT_FULL);
	assert_int_equal(SCORE(slot, 3, UINT32_MAX), MR_E_CONTEXT_FULL);
	ids[2] = dev->caps.vocab;
	assert_int_equal(SCORE(slot, 3, 0), MR_E_RANGE);
	ids[2] = 22;
	/* Only the device knows that a position was never written. */
	struct mr_event event[20];
	assert_int_equal(dev->work->score(dev, slot, ids, 3, 5, 2), 0);
	assert_int_equal(lpu_rig_wait(dev, 2, event, 1), 1);
	assert_int_equal(event[0].status, MR_E_TRUNCATED);
	assert_int_equal(dev->work->score(dev, slot, ids, 17, 0, 3), 0); /* all of the slot */
	assert_int_equal(lpu_rig_wait(dev, 3, event, 20), 17);
	assert_int_equal(event[16].status, 0);
	lpu_rig_close(&rig);
}

static void honest(struct liar *l, const struct mr_lpu_cmd_score *c)
{
	for (uint32_t i = 0; i + 1 < c->count; i++)
		liar_put_score(l, c, i);
	liar_say(l, 1, c->head.request, 0, c->count - 1);
}
static void wrong_token(struct liar *l, const struct mr_lpu_cmd_score *c)
{
	liar_put_score(l, c, 0)->token ^= 1;
	liar_say(l, 1, c->head.request, 0, 1);
}
static void wrong_slot(struct liar *l, const struct mr_lpu_cmd_score *c)
{
	liar_put_score(l, c, 0)->slot ^= 1;
	liar_say(l, 1, c->head.request, 0, 1);
}
static void wrong_generation(struct liar *l, const struct mr_lpu_cmd_score *c)
{
	liar_put_score(l, c, 0)->generation ^= 1;
	liar_say(l, 1, c->head.request, 0, 1);
}
static void wrong_order(struct liar *l, const struct mr_lpu_cmd_score *c)
{
	liar_put_score(l, c, 1);
	liar_say(l, 1, c->head.request, 0, 1);
}
static void stopped(struct liar *l, const struct mr_lpu_cmd_score *c)
{
	liar_put_score(l, c, 0)->status = MR_LPU_RECORD_STOPPED;
	liar_say(l, 1, c->head.request, 0, 1);
}
static void back_in_time(struct liar *l, const struct mr_lpu_cmd_score *c)
{
	liar_put_score(l, c, 0)->cycle = 9;
	liar_put_score(l, c, 1)->cycle = 8;
	liar_say(l, 1, c->head.request, 0, 2);
}
static void too_many(struct liar *l, const struct mr_lpu_cmd_score *c)
{
	for (uint32_t i = 0; i + 1 < c->count; i++)
		liar_put_score(l, c, i);
	liar_put_score(l, c, 0)->position += c->count;
	liar_say(l, 1, c->head.request, 0, c->count);
}
static void too_few(struct liar *l, const struct mr_lpu_cmd_score *c)
{
	liar_put_score(l, c, 0);
	liar_say(l, 1, c->head.request, 0, 1);
}

static uint64_t bad_entries(void)
{
	return mr_metric_read(MR_M_lpu_bad_completion) + mr_metric_read(MR_M_lpu_bad_record);
}

static void a_lie_is_seen_and_counted(void **state)
{
	static const struct {
		void (*score)(struct liar *l, const struct mr_lpu_cmd_score *c);
		int status, tokens;
	} lies[] = {
		{honest, 0, 3},
		{wrong_token, MR_E_PROTOCOL, 0},
		{wrong_slot, MR_E_PROTOCOL, 0},
		{wrong_generation, MR_E_PROTOCOL, 0},
		{wrong_order, MR_E_PROTOCOL, 0},
		{stopped, MR_E_PROTOCOL, 0},
		{back_in_time, MR_E_PROTOCOL, 1},
		{too_many, MR_E_PROTOCOL, 3},
		{too_few, MR_E_PROTOCOL, 1},
		{honest, 0, 3},
	};
	struct mr_arena_options arena_options = {.node = -1, .no_huge = 1};
	const uint32_t ids[] = {20, 21, 22, 23};
	static struct liar liar;
	struct mr_arena *arena;
	struct mr_model *model;
	struct mr_device *dev;

	assert_int_equal(mr_model_open(MR_TEST_DATA "/tiny.gguf", &model, NULL, 0), 0);
	assert_int_equal(mr_arena_create(&arena_options, &arena), 0);
	assert_int_equal(liar_open(&liar, arena, &dev), 0);
	assert_int_equal(dev->work->load(dev, model, NULL, NULL), 0);
	struct mr_slot slot = lpu_rig_slot(dev, 64), fork;
	struct mr_slot_config c = {.owner = 7, .positions = 64};
	/* It does not say that it has KV_FORK. */
	assert_int_equal(dev->mem->kv_fork(dev, slot, 0, &c, &fork), MR_E_NOT_SUPPORTED);
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		uint64_t bad = bad_entries();
		struct mr_event events[16];
		int tokens = 0;
		liar.score = lies[i].score;
		assert_int_equal(dev->work->score(dev, slot, ids, 4, 0, i), 0);
		uint32_t n = lpu_rig_wait(dev, i, events, 16);
		for (uint32_t k = 0; k + 1 < n; k++)
			tokens += events[k].type == MR_EVENT_TOKEN;
		if (events[n - 1].status != lies[i].status || tokens != lies[i].tokens ||
		    (bad_entries() > bad) != (lies[i].status != 0))
			fail_msg("lie %zu: %s, %d tokens", i, mr_status_name(events[n - 1].status),
				 tokens);
	}
	dev->admin->close(dev);
	memset(&liar, 0, sizeof(liar));
	assert_int_equal(liar_open(&liar, arena, &dev), 0);
	struct mr_lpu_identify good = liar.id;
	dev->admin->close(dev);
	memset(&liar, 0, sizeof(liar));
	liar.id = good;
	liar.id.score_max = 1;
	assert_int_equal(liar_open(&liar, arena, &dev), MR_E_PROTOCOL);
	mr_arena_destroy(arena);
	mr_model_close(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_score_is_what_forced_decodes_and_the_cpu_say),
		cmocka_unit_test(a_score_leaves_sampling_alone),
		cmocka_unit_test(scores_are_refused_by_name),
		cmocka_unit_test(a_lie_is_seen_and_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
