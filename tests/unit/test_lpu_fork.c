// SPDX-License-Identifier: Apache-2.0
/*
 * KV_FORK and SCORE through the driver: what a fork decodes and what a score says is what plain runs make,
 * bit for bit, and the account of KV blocks is the same in the device, in the driver and here.
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

#define PROMPT 21u
#define STEPS  30u
#define TOTAL  (PROMPT + STEPS)

static uint64_t tags = 100;

static struct mr_slot_config config_of(uint32_t positions, const struct mr_sampling *sampling)
{
	struct mr_slot_config c = {.owner = 7, .positions = positions};

	if (sampling)
		c.sampling = *sampling;
	return c;
}

/* Feeds ids[0..n) at @position and on; what is sampled after each goes to @next where that is not NULL. */
static void feed(struct mr_device *dev, struct mr_slot slot, const uint32_t *ids, uint32_t n,
		 uint32_t position, struct mr_event *next)
{
	struct mr_event *events = calloc(n + 1, sizeof(*events));
	struct mr_decode_entry entry = {slot, position, ids[0], ids + 1, n - 1, 0};

	assert_int_equal(dev->work->decode(dev, &entry, 1, n, ++tags), 0);
	assert_int_equal(lpu_rig_wait(dev, tags, events, n + 1), n + 1);
	assert_int_equal(events[n].status, 0);
	if (next)
		memcpy(next, events, n * sizeof(*events));
	free(events);
}

/* A whole run in one slot: ids[0..PROMPT) given, the rest made; events[i] made ids[PROMPT + i]. */
struct run {
	uint32_t ids[TOTAL];
	struct mr_event events[STEPS];
};

static void take(struct mr_device *dev, struct mr_slot slot, struct run *r, uint32_t from)
{
	struct mr_event events[STEPS + 1];
	struct mr_decode_entry entry = {slot, PROMPT - 1 + from, r->ids[PROMPT - 1 + from]};
	uint32_t n = STEPS - from;

	assert_int_equal(dev->work->decode(dev, &entry, 1, n, ++tags), 0);
	assert_int_equal(lpu_rig_wait(dev, tags, events, n + 1), n + 1);
	assert_int_equal(events[n].status, 0);
	for (uint32_t i = 0; i < n; i++) {
		r->ids[PROMPT + from + i] = events[i].token;
		r->events[from + i] = events[i];
	}
}

static void plain(struct mr_device *dev, const struct mr_sampling *sampling, struct run *r)
{
	struct mr_slot_config c = config_of(128, sampling);
	struct mr_slot slot;

	for (uint32_t i = 0; i < PROMPT; i++)
		r->ids[i] = 20 + i * 7 % 200;
	assert_int_equal(dev->mem->slot_open(dev, &c, &slot), 0);
	feed(dev, slot, r->ids, PROMPT - 1, 0, NULL);
	take(dev, slot, r, 0);
	assert_int_equal(dev->mem->slot_close(dev, slot), 0);
}

static void same(const struct run *a, const struct run *b, uint32_t from)
{
	assert_memory_equal(a->ids, b->ids, sizeof(a->ids));
	for (uint32_t i = from; i < STEPS; i++)
		assert_memory_equal(&a->events[i].logprob, &b->events[i].logprob, sizeof(float));
}

static uint32_t device_blocks(struct mr_device *dev)
{
	struct mr_lpu_counters c;
	struct mr_telemetry t;

	/* What is posted has run when a fork of nothing and its end have, and the decode after them. */
	struct mr_slot slot = lpu_rig_slot(dev, 1);
	struct mr_decode_entry entry = {slot, 0, 20};
	struct mr_event events[2];
	assert_int_equal(dev->work->decode(dev, &entry, 1, 1, ++tags), 0);
	assert_int_equal(lpu_rig_wait(dev, tags, events, 2), 2);
	assert_int_equal(mr_lpu_log(dev, MR_LPU_LOG_COUNTERS, &c, sizeof(c)), sizeof(c));
	assert_int_equal(dev->admin->telemetry(dev, &t), 0);
	assert_int_equal(c.kv_blocks_used, t.kv_blocks_used);
	assert_int_equal(c.kv_blocks, t.kv_blocks);
	assert_int_equal(dev->mem->slot_close(dev, slot), 0);
	return (uint32_t)c.kv_blocks_used - 1;
}

static const struct mr_sampling samplings[] = {
	{.seed = 0},
	{.seed = 9, .temperature = 1.2f, .top_k = 40, .repeat = 1.4f, .frequency = 0.3f},
};

/*
 * A fork in the middle of the answer, at every place in a block and at the edges. The parent goes on, feeds
 * something else, or is closed at once; the fork makes what the plain run made.
 */
static void a_fork_makes_what_a_plain_run_makes(void **state)
{
	struct lpu_rig rig;

	lpu_rig_open(&rig, &(struct lpu_rig_options){0});
	struct mr_device *dev = rig.dev;
	for (size_t k = 0; k < 2; k++) {
		struct run want;
		plain(dev, &samplings[k], &want);
		for (uint32_t at = 0; at < 20; at++) {
			struct mr_slot_config c = config_of(128, &samplings[k]);
			struct mr_slot parent, child;
			struct run got = want, on = want;
			assert_int_equal(dev->mem->slot_open(dev, &c, &parent), 0);
			feed(dev, parent, want.ids, PROMPT - 1, 0, NULL);
			c.history = want.ids;
			/* Fed so far: the prompt but its last id, then what the fork is to go on from. */
			if (at)
				feed(dev, parent, want.ids + PROMPT - 1, at, PROMPT - 1, NULL);
			c.history_count = PROMPT - 1 + at;
			assert_int_equal(
				dev->mem->kv_fork(dev, parent, PROMPT - 1 + at, &c, &child), 0);
			if (at % 3 == 0)
				assert_int_equal(dev->mem->slot_close(dev, parent), 0);
			if (at % 3 == 1)
				feed(dev, parent, (const uint32_t[]){99, 98, 97}, 3,
				     PROMPT - 1 + at, NULL);
			memset(got.events, 0, sizeof(got.events));
			take(dev, child, &got, at);
			same(&want, &got, at);
			if (at % 3 == 2) {
				memset(on.events, 0, sizeof(on.events));
				take(dev, parent, &on, at);
				same(&want, &on, at);
			}
			if (at % 3)
				assert_int_equal(dev->mem->slot_close(dev, parent), 0);
			assert_int_equal(dev->mem->slot_close(dev, child), 0);
			assert_int_equal(device_blocks(dev), 0);
		}
	}
	lpu_rig_close(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_fork_makes_what_a_plain_run_makes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
