// SPDX-License-Identifier: Apache-2.0
/* The storm on a device's KV blocks: see the header. Tokens are all 0. */
#include "support/kv_storm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#define SLOTS KV_STORM_SLOTS

struct account {
	struct mr_slot slot;
	uint32_t open, positions, filled;
	uint32_t ids[KV_STORM_CONTEXT / 16]; /* blocks have names of their own here */
};

struct run {
	const struct kv_storm *of;
	struct account all[SLOTS];
	uint64_t seed, tags;
	uint32_t ids;
};

static uint32_t pick(struct run *r, uint32_t below)
{
	r->seed = r->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(r->seed >> 33) % below;
}

uint64_t kv_blocks_used(struct mr_device *dev)
{
	struct mr_telemetry t;

	assert_int_equal(dev->admin->telemetry(dev, &t), 0);
	return t.kv_blocks_used;
}

static uint32_t blocks_of(uint32_t positions)
{
	return (positions + 15) / 16;
}

/* How many blocks the accounts hold, each counted once. */
static uint32_t held(const struct run *r)
{
	uint32_t seen[SLOTS * KV_STORM_CONTEXT / 16], n = 0;

	for (const struct account *a = r->all; a < r->all + SLOTS; a++) {
		for (uint32_t b = 0; a->open && b < blocks_of(a->positions); b++) {
			uint32_t i = 0;

			while (i < n && seen[i] != a->ids[b])
				i++;
			if (i == n)
				seen[n++] = a->ids[b];
		}
	}
	return n;
}

static int shared(const struct run *r, const struct account *me, uint32_t id)
{
	for (const struct account *a = r->all; a < r->all + SLOTS; a++)
		for (uint32_t b = 0; a != me && a->open && b < blocks_of(a->positions); b++)
			if (a->ids[b] == id)
				return 1;
	return 0;
}

static void open_or_fork(struct run *r, struct account *a)
{
	struct mr_device *dev = r->of->dev;
	const struct account *from = &r->all[pick(r, SLOTS)];
	struct mr_slot_config config = {.positions = 1 + pick(r, 120)};
	uint32_t at = 0, need;
	int status;

	if (from->open && from->filled && pick(r, 3)) {
		at = 1 + pick(r, from->filled);
		config.positions += at - pick(r, 2);
		if (config.positions > KV_STORM_CONTEXT)
			config.positions = KV_STORM_CONTEXT;
	}
	need = blocks_of(config.positions) - at / 16;
	if (need > r->of->blocks - held(r) || pick(r, 2))
		r->of->drain(dev);
	status = at ? dev->mem->kv_fork(dev, from->slot, at, &config, &a->slot)
		    : dev->mem->slot_open(dev, &config, &a->slot);
	if (status == MR_E_FULL || status == MR_E_KV_EXHAUSTED) {
		/* A closed slot holds its blocks until its work has ended. */
		r->of->drain(dev);
		status = at ? dev->mem->kv_fork(dev, from->slot, at, &config, &a->slot)
			    : dev->mem->slot_open(dev, &config, &a->slot);
	}
	assert_int_equal(status, need > r->of->blocks - held(r) ? MR_E_KV_EXHAUSTED : 0);
	if (status)
		return;
	a->open = 1;
	a->positions = config.positions;
	a->filled = at;
	for (uint32_t b = 0; b < blocks_of(a->positions); b++)
		a->ids[b] = b < at / 16 ? from->ids[b] : ++r->ids;
}

static void write_some(struct run *r, struct account *a)
{
	static const uint32_t tokens[16];
	struct mr_device *dev = r->of->dev;
	uint32_t position = pick(r, 4) ? a->filled : pick(r, a->filled + 1);
	uint32_t n = 1 + pick(r, 16);
	struct mr_decode_entry e = {.slot = a->slot, .position = position};
	int status, want = 0;

	if (position == a->positions)
		return;
	n = n > a->positions - position ? a->positions - position : n;
	if (position < a->filled) {
		r->of->drain(dev);
		want = shared(r, a, a->ids[position / 16]) ? MR_E_BUSY : 0;
	}
	if (pick(r, 3))
		status = dev->work->prefill(dev, a->slot, tokens, n, position, ++r->tags);
	else
		status = dev->work->decode(dev, &e, 1, n, ++r->tags);
	if (status == MR_E_FULL) {
		r->of->drain(dev);
		return;
	}
	assert_int_equal(status, want);
	if (!status)
		a->filled = position + n;
}

static void turn(struct run *r)
{
	struct mr_device *dev = r->of->dev;
	struct account *a = &r->all[pick(r, SLOTS)];

	if (!a->open) {
		open_or_fork(r, a);
	} else if (pick(r, 4)) {
		write_some(r, a);
	} else {
		assert_int_equal(dev->mem->slot_close(dev, a->slot), 0);
		a->open = 0;
	}
	if (pick(r, r->of->resets) == 0) {
		assert_int_equal(dev->admin->reset(dev), 0);
		for (uint32_t s = 0; s < SLOTS; s++)
			r->all[s].open = 0;
	}
	assert_true(kv_blocks_used(dev) >= held(r));
	if (pick(r, 4))
		return;
	r->of->drain(dev);
	assert_int_equal(kv_blocks_used(dev), held(r) + r->of->kept);
}

void kv_storm(const struct kv_storm *storm)
{
	struct run r = {.of = storm, .seed = storm->seed};

	for (uint32_t i = 0; i < storm->rounds; i++)
		turn(&r);
	for (uint32_t s = 0; s < SLOTS; s++)
		if (r.all[s].open)
			assert_int_equal(storm->dev->mem->slot_close(storm->dev, r.all[s].slot), 0);
	storm->drain(storm->dev);
	assert_int_equal(kv_blocks_used(storm->dev), storm->kept);
}
