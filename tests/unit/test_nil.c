// SPDX-License-Identifier: Apache-2.0
/*
 * The nil device: its account of KV blocks against a model that lists them, what forks share and who may not
 * write it, scores, KV events, and the time model: when each event is due, to the nanosecond.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "driver/nil/nil.h"
#include "support/kv_storm.h"

#define LAYERS  4u
#define CONTEXT 256u
#define BLOCKS  40u
#define NEVER   UINT64_MAX

static uint64_t clock_ns;
static uint64_t tags;

static uint64_t now_ns(void *arg)
{
	return clock_ns;
}

static const struct mr_nil_costs costs = {
	.chunk_ns = 1000,
	.prompt_token_ns = 10,
	.step_ns = 500,
	.entry_ns = 20,
	.import_block_ns = 7,
	.context_ps = 2000,
};

static struct mr_device *open_nil(struct mr_nil_options options)
{
	struct mr_device *dev;

	clock_ns = 100;
	options.context = CONTEXT;
	options.layers = LAYERS;
	options.vocab = 1000;
	assert_int_equal(mr_nil_open(&options, &dev), 0);
	return dev;
}

static struct mr_slot open_slot(struct mr_device *dev, uint32_t positions, uint32_t flags)
{
	const struct mr_slot_config config = {.owner = 7, .positions = positions, .flags = flags};
	struct mr_slot slot;

	assert_int_equal(dev->mem->slot_open(dev, &config, &slot), 0);
	return slot;
}

static int prefill(struct mr_device *dev, struct mr_slot slot, uint32_t count, uint32_t position)
{
	static const uint32_t tokens[CONTEXT];

	return dev->work->prefill(dev, slot, tokens, count, position, ++tags);
}

static int decode(struct mr_device *dev, struct mr_slot slot, uint32_t position, uint32_t steps)
{
	const struct mr_decode_entry e = {.slot = slot, .position = position, .token = 5};

	return dev->work->decode(dev, &e, 1, steps, ++tags);
}

static int fork_slot(struct mr_device *dev, struct mr_slot from, uint32_t at, uint32_t positions,
		     struct mr_slot *slot)
{
	const struct mr_slot_config config = {.owner = 8, .positions = positions};

	return dev->mem->kv_fork(dev, from, at, &config, slot);
}

static void drain(struct mr_device *dev)
{
	struct mr_event e[16];
	uint64_t next;

	while ((next = mr_nil_next_ns(dev)) != NEVER) {
		clock_ns = next > clock_ns ? next : clock_ns;
		assert_true(dev->work->poll(dev, e, 16) > 0);
	}
	assert_int_equal(dev->work->poll(dev, e, 16), 0);
}

/* The one event that is there. */
static struct mr_event only(struct mr_device *dev)
{
	struct mr_event e[2];

	assert_int_equal(dev->work->poll(dev, e, 2), 1);
	return e[0];
}

static void forks(void **state)
{
	struct mr_device *dev = open_nil((struct mr_nil_options){.slots = 4, .kv_tokens = 12 * 16});
	struct mr_slot a = open_slot(dev, 100, 0), b, c, d;
	struct mr_kv_desc desc[16] = {{.generation = 1, .owner = 8, .length = 16}};
	uint32_t bad = 1000;
	struct mr_slot_config config = {.positions = 16, .history_count = 1, .history = &bad};

	assert_int_equal(kv_blocks_used(dev), 7);
	assert_int_equal(prefill(dev, a, 40, 0), 0);
	assert_int_equal(fork_slot(dev, a, 41, 100, &b), MR_E_TRUNCATED);
	assert_int_equal(fork_slot(dev, a, 40, 39, &b), MR_E_INVALID);
	assert_int_equal(fork_slot(dev, a, 40, CONTEXT + 1, &b), MR_E_CONTEXT_FULL);
	assert_int_equal(fork_slot(dev, a, 40, 12 * 16 + 1, &b), MR_E_CONTEXT_FULL);
	assert_int_equal(fork_slot(dev, a, 40, 8 * 16, &b), MR_E_KV_EXHAUSTED);
	assert_int_equal(kv_blocks_used(dev), 7);
	assert_int_equal(fork_slot(dev, a, 40, 7 * 16, &b), 0); /* blocks 0 and 1 shared */
	assert_int_equal(kv_blocks_used(dev), 12);
	assert_int_equal(fork_slot(dev, b, 32, 32, &c), 0); /* wholly shared */
	assert_int_equal(fork_slot(dev, a, 16, 16, &d), 0);
	assert_int_equal(fork_slot(dev, a, 16, 16, &d), MR_E_FULL);
	assert_int_equal(kv_blocks_used(dev), 12);

	/* Beyond what is shared all may write; into it, nobody. */
	assert_int_equal(prefill(dev, a, 8, 31), MR_E_BUSY);
	assert_int_equal(prefill(dev, b, 1, 0), MR_E_BUSY);
	assert_int_equal(decode(dev, a, 16, 1), MR_E_BUSY);
	assert_int_equal(dev->work->score(dev, d, (uint32_t[]){1, 2}, 2, 0, 1), MR_E_BUSY);
	desc[0].generation = b.generation;
	assert_int_equal(dev->mem->kv_import(dev, b, desc, 1, 1), MR_E_BUSY);
	assert_int_equal(prefill(dev, a, 8, 41), MR_E_INVALID); /* a gap */
	assert_int_equal(decode(dev, a, 40, 2), 0);
	assert_int_equal(decode(dev, a, 32, 1), 0); /* its own copy; what was behind is gone */
	assert_int_equal(decode(dev, a, 34, 1), MR_E_INVALID);
	assert_int_equal(decode(dev, b, 40, 2), 0);
	drain(dev);
	assert_int_equal(dev->mem->kv_export(dev, a, 0, 0, 8, 1, desc, 16), 3);
	assert_int_equal(desc[2].length, 1);
	assert_int_equal(dev->mem->kv_export(dev, b, LAYERS, 0, 8, 1, desc, 16), MR_E_RANGE);

	/* The last holder of a block alone may write it again. */
	assert_int_equal(dev->mem->slot_close(dev, a), 0);
	assert_int_equal(kv_blocks_used(dev), 7);
	assert_int_equal(fork_slot(dev, a, 16, 16, &a), MR_E_STALE);
	assert_int_equal(prefill(dev, b, 8, 16), MR_E_BUSY);
	assert_int_equal(dev->mem->slot_close(dev, c), 0);
	assert_int_equal(prefill(dev, b, 8, 16), 0);
	assert_int_equal(prefill(dev, b, 8, 15), MR_E_BUSY);
	assert_int_equal(dev->mem->slot_close(dev, b), 0);
	assert_int_equal(kv_blocks_used(dev), 1);
	assert_int_equal(dev->mem->slot_close(dev, d), 0);
	assert_int_equal(kv_blocks_used(dev), 0);

	assert_int_equal(dev->mem->slot_open(dev, &config, &a), MR_E_RANGE);
	config.history_count = MR_LPU_HISTORY_MAX + 1;
	assert_int_equal(dev->mem->slot_open(dev, &config, &a), MR_E_RANGE);
	config.history = NULL;
	assert_int_equal(dev->mem->slot_open(dev, &config, &a), MR_E_INVALID);
	config = (struct mr_slot_config){.positions = 16, .flags = 2};
	assert_int_equal(dev->mem->slot_open(dev, &config, &a), MR_E_INVALID);
	drain(dev);
	dev->admin->close(dev);
}

static void scores(void **state)
{
	struct mr_device *dev = open_nil((struct mr_nil_options){.slots = 4});
	struct mr_slot a = open_slot(dev, 10, 0);
	uint32_t tokens[5] = {1, 9, 18, 27, 999};
	struct mr_event e[5];

	assert_int_equal(prefill(dev, a, 6, 0), 0);
	only(dev);
	assert_int_equal(dev->work->score(dev, a, tokens, 1, 6, 1), MR_E_INVALID);
	assert_int_equal(dev->work->score(dev, a, tokens, 5, 7, 1), MR_E_INVALID);
	assert_int_equal(dev->work->score(dev, a, tokens, 5, 6, 77),
			 0); /* feeds 4: room for these */
	assert_int_equal(dev->work->score(dev, a, tokens, 2, 10, 1), MR_E_CONTEXT_FULL);
	assert_int_equal(dev->work->poll(dev, e, 5), 5);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(e[i].type, MR_EVENT_TOKEN);
		assert_int_equal(e[i].token, tokens[i + 1]);
		assert_int_equal(e[i].position, 7 + i);
		assert_true(e[i].tag == 77 && e[i].logprob == -(float)(tokens[i + 1] % 8) / 8);
	}
	assert_int_equal(e[4].type, MR_EVENT_DONE);
	tokens[4] = 1000;
	assert_int_equal(dev->work->score(dev, a, tokens, 5, 6, 1), MR_E_RANGE);
	dev->admin->close(dev);
}

/* An event that must be due at @due exactly, and the next one not before. */
static struct mr_event at(struct mr_device *dev, uint64_t due)
{
	struct mr_event e;

	assert_true(mr_nil_next_ns(dev) == due);
	if (due > clock_ns) {
		clock_ns = due - 1;
		assert_int_equal(dev->work->poll(dev, &e, 1), 0);
		assert_int_equal(dev->work->arm(dev), 0);
		clock_ns = due;
	}
	assert_int_equal(dev->work->arm(dev), 1);
	assert_int_equal(dev->work->poll(dev, &e, 1), 1);
	return e;
}

static void kv_ready(struct mr_device *dev, struct mr_slot slot, uint32_t layer, int blocks,
		     int after)
{
	struct mr_kv_desc d[16];

	assert_int_equal(dev->mem->kv_export(dev, slot, layer, 0, 1, 1, d, 16), blocks);
	assert_int_equal(dev->mem->kv_export(dev, slot, layer + 1, 0, 1, 1, d, 16), after);
}

static void times(void **state)
{
	struct mr_device *dev = open_nil((struct mr_nil_options){
		.slots = 4, .costs = costs, .import_parallel = 1, .now_ns = now_ns});
	struct mr_slot a = open_slot(dev, 64, MR_SLOT_KV_EVENTS), b = open_slot(dev, 64, 0), c;
	struct mr_kv_desc descs[2] = {{.generation = b.generation, .owner = 7, .length = 16}};
	/* (1000 + 20 * 10 + 190 * 2), then as much again with 20 positions before each */
	uint64_t first = 100 + 1580, second = first + 1580 + 800;

	assert_int_equal(prefill(dev, a, 20, 0), 0);
	assert_int_equal(prefill(dev, a, 20, 20), 0);
	assert_int_equal(mr_nil_next_ns(dev), 100 + 1580 / 4);
	descs[1] = descs[0];
	descs[1].block = 1;
	descs[1].length = 1;
	assert_int_equal(dev->mem->kv_import(dev, b, descs, 2, 1), 0);
	assert_int_equal(at(dev, 114).type, MR_EVENT_DONE);
	kv_ready(dev, b, 0, 2, 2);
	for (uint32_t l = 0; l < LAYERS; l++) {
		struct mr_event e = at(dev, 100 + 1580 * (l + 1) / 4);

		assert_int_equal(e.type, MR_EVENT_KV);
		assert_int_equal(e.layer, l);
		assert_int_equal(e.position, 20);
		/* block 1 will be written again by the second chunk */
		if (l + 1 < LAYERS)
			kv_ready(dev, a, l, 1, 0);
	}
	assert_int_equal(at(dev, first).type, MR_EVENT_DONE);
	for (uint32_t l = 0; l < LAYERS; l++) {
		assert_int_equal(at(dev, first + 2380 * (l + 1) / 4).position, 40);
		if (l + 1 < LAYERS)
			kv_ready(dev, a, l, 3, 1);
	}

	/* A fork's blocks are there when the parent's are, and its work waits for them. */
	assert_int_equal(at(dev, second).type, MR_EVENT_DONE);
	assert_int_equal(decode(dev, a, 40, 2), 0);
	assert_int_equal(fork_slot(dev, a, 42, 64, &c), 0);
	kv_ready(dev, c, 0, 0, 0);
	assert_int_equal(decode(dev, c, 42, 1), 0);
	assert_int_equal(at(dev, second + 520 + 80).position, 41);
	assert_int_equal(at(dev, second + 600 + 520 + 82).position, 42);
	assert_int_equal(at(dev, second + 1202).type, MR_EVENT_DONE);
	kv_ready(dev, c, 0, 2, 2);
	assert_int_equal(at(dev, second + 1202 + 520 + 84).seen_ns, second + 1202 + 604);
	assert_int_equal(at(dev, second + 1806).type, MR_EVENT_DONE);
	assert_true(mr_nil_next_ns(dev) == NEVER);

	/* Closed with work under way: its blocks are free when that has ended. */
	assert_int_equal(kv_blocks_used(dev), 10);
	assert_int_equal(decode(dev, c, 43, 1), 0);
	assert_int_equal(dev->mem->slot_close(dev, c), 0);
	assert_int_equal(kv_blocks_used(dev), 10);
	drain(dev);
	assert_int_equal(kv_blocks_used(dev), 8);

	/* A reset: what has ended stays, what has not ends with one DONE. */
	assert_int_equal(decode(dev, b, 17, 3), 0);
	assert_int_equal(dev->mem->kv_import(dev, b, descs + 1, 1, 99), 0);
	clock_ns = mr_nil_next_ns(dev);
	assert_int_equal(prefill(dev, a, 1, 42), 0);
	assert_int_equal(dev->admin->reset(dev), 0);
	assert_int_equal(kv_blocks_used(dev), 0);
	assert_int_equal(at(dev, clock_ns).type, MR_EVENT_TOKEN);
	for (int i = 0; i < 3; i++) {
		struct mr_event e = at(dev, clock_ns);

		assert_int_equal(e.type, MR_EVENT_DONE);
		assert_int_equal(e.status, MR_E_DEVICE);
	}
	assert_true(mr_nil_next_ns(dev) == NEVER);
	dev->admin->close(dev);
}

/* Jitter stays within its bounds, moves things, and is the same for the same seed. */
static void jitter(void **state)
{
	uint64_t ends[2][50], moved = 0;

	for (int run = 0; run < 2; run++) {
		struct mr_device *dev = open_nil((struct mr_nil_options){
			.costs = costs, .now_ns = now_ns, .jitter = 0.25, .seed = 3});
		struct mr_slot a = open_slot(dev, 200, 0);

		for (uint32_t i = 0; i < 50; i++) {
			uint64_t start = clock_ns, cost = 520 + 2 * i;

			assert_int_equal(decode(dev, a, i, 1), 0);
			drain(dev);
			ends[run][i] = clock_ns - start;
			assert_in_range(ends[run][i], cost * 3 / 4 - 1, cost * 5 / 4 + 1);
			moved += ends[run][i] != cost;
		}
		dev->admin->close(dev);
	}
	assert_true(moved > 80);
	assert_memory_equal(ends[0], ends[1], sizeof(ends[0]));
}

/* ---- storms: see support/kv_storm.h ---- */

static void storm(uint64_t seed, int timed)
{
	struct mr_nil_options options = {.slots = KV_STORM_SLOTS, .kv_tokens = BLOCKS * 16};
	struct kv_storm s = {.blocks = BLOCKS, .rounds = 4000, .seed = seed, .resets = 500};

	if (timed) {
		options.costs = costs;
		options.now_ns = now_ns;
		options.jitter = 1;
	}
	s.dev = open_nil(options);
	s.drain = drain;
	kv_storm(&s);
	s.dev->admin->close(s.dev);
}

static void storms(void **state)
{
	for (uint64_t seed = 1; seed <= 10; seed++) {
		storm(seed, 0);
		storm(seed, 1);
	}
}

static void limits(void **state)
{
	static const struct mr_nil_options bad[] = {
		{.slots = 65537}, {.context = (1u << 20) + 1}, {.layers = 1025}, {.jitter = 1.5},
		{.jitter = -0.1}, {.kv_tokens = UINT64_MAX},
	};
	struct mr_device *dev;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(mr_nil_open(&bad[i], &dev), MR_E_RANGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forks),  cmocka_unit_test(scores), cmocka_unit_test(times),
		cmocka_unit_test(jitter), cmocka_unit_test(storms), cmocka_unit_test(limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
