// SPDX-License-Identifier: Apache-2.0
/*
 * KV_FORK through the driver: what a fork decodes is what a plain run makes, bit for bit, and the account of
 * KV blocks is the same in the device, in the driver and here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "driver/lpu/lpu.h"
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

/* ---- the account, by a model of its own ---------------------------------------------------------- */

#define SLOTS  96u
#define DEEP   512u /* positions of a slot at most; ids are fed to the first 256 */
#define TABLE  (DEEP / 16)
#define BLOCKS 4096u

struct holder {
	struct mr_slot slot;
	uint32_t open, positions, length, blocks;
	uint32_t block[TABLE];
	uint32_t ids[DEEP];
};

struct model {
	struct holder holder[SLOTS];
	uint32_t refs[BLOCKS], next, used, most;
	uint32_t under_way; /* DECODEs and SCOREs */
	uint64_t seed;
};

static uint32_t draw(struct model *m, uint32_t below)
{
	m->seed = m->seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(m->seed >> 33) % below;
}

static void hold(struct model *m, struct holder *h, const struct holder *from, uint32_t shared)
{
	h->blocks = (h->positions + 15) / 16;
	for (uint32_t b = 0; b < h->blocks; b++) {
		if (b < shared) {
			h->block[b] = from->block[b];
		} else {
			while (m->refs[m->next])
				m->next = (m->next + 1) % BLOCKS;
			h->block[b] = m->next;
			m->used++;
		}
		m->refs[h->block[b]]++;
	}
	h->open = 1;
}

static void let_go(struct model *m, struct holder *h)
{
	for (uint32_t b = 0; b < h->blocks; b++)
		m->used -= --m->refs[h->block[b]] == 0;
	h->open = 0;
}

static struct holder *any(struct model *m, uint32_t open)
{
	for (uint32_t i = 0, at = draw(m, SLOTS); i < SLOTS; i++)
		if (m->holder[(at + i) % SLOTS].open == open)
			return &m->holder[(at + i) % SLOTS];
	return NULL;
}

/* A slot or a fork: the driver's answer is the one that the model expects. Returns 1 where KV ran out. */
static int grow(struct mr_device *dev, struct model *m)
{
	struct holder *h = any(m, 0), *from = draw(m, 4) ? any(m, 1) : NULL;
	uint32_t at = from ? draw(m, from->length + 1) : 0;
	struct mr_slot_config c = config_of(1 + draw(m, DEEP), NULL);
	uint32_t need = (c.positions + 15) / 16 - at / 16;
	int want = !h ? MR_E_FULL : 0, got;

	if (from && at > c.positions)
		want = MR_E_CONTEXT_FULL;
	else if (need > m->most - m->used)
		want = MR_E_KV_EXHAUSTED;
	struct holder none, *to = h ? h : &none;
	got = from ? dev->mem->kv_fork(dev, from->slot, at, &c, &to->slot)
		   : dev->mem->slot_open(dev, &c, &to->slot);
	assert_int_equal(got, want);
	if (got)
		return got == MR_E_KV_EXHAUSTED;
	h->positions = c.positions;
	h->length = at;
	if (at)
		memcpy(h->ids, from->ids, at * sizeof(h->ids[0]));
	hold(m, h, from, at / 16);
	return 0;
}

/* Feeds some ids to a slot, from its end or from an earlier place, by DECODE or SCORE; does not wait. */
static void write_some(struct mr_device *dev, struct model *m)
{
	struct holder *h = any(m, 1);
	uint32_t at = h && draw(m, 3) ? h->length
		      : h             ? draw(m, h->length + 1)
				      : 0,
		 n = 1 + draw(m, 20);
	uint32_t ids[21];
	int want, got;

	if (!h || at == h->positions || at > 230)
		return;
	if (n > h->positions - at)
		n = h->positions - at;
	for (uint32_t i = 0; i <= n; i++)
		ids[i] = 20 + draw(m, 200);
	want = m->refs[h->block[at / 16]] > 1 ? MR_E_BUSY : 0;
	struct mr_decode_entry entry = {h->slot, at, ids[0], ids + 1, n - 1, 0};
	got = draw(m, 2) ? dev->work->decode(dev, &entry, 1, n, ++tags)
			 : dev->work->score(dev, h->slot, ids, n + 1, at, ++tags);
	assert_int_equal(got, want);
	if (got)
		return;
	memcpy(h->ids + at, ids, n * sizeof(ids[0]));
	h->length = at + n;
	m->under_way++;
}

static void drain(struct mr_device *dev, struct model *m, uint32_t until)
{
	struct mr_event event = {.type = MR_EVENT_TOKEN};

	while (dev->work->poll(dev, &event, 1) > 0 || m->under_way > until) {
		if (event.type != MR_EVENT_DONE)
			continue;
		assert_int_equal(event.status, 0);
		m->under_way--;
		event.type = MR_EVENT_TOKEN;
	}
}

/* The KV of @h is that of its ids: one more id after them says what it says in a fresh slot. */
static void audit(struct mr_device *dev, struct holder *h)
{
	struct mr_slot_config c = config_of(DEEP, NULL);
	struct mr_slot mine, fresh;
	struct mr_event a[1], b[256];

	if (h->length > 250)
		return;
	assert_int_equal(dev->mem->kv_fork(dev, h->slot, h->length, &c, &mine), 0);
	h->ids[h->length] = 33;
	feed(dev, mine, h->ids + h->length, 1, h->length, a);
	fresh = lpu_rig_slot(dev, DEEP);
	feed(dev, fresh, h->ids, h->length + 1, 0, b);
	assert_int_equal(a->token, b[h->length].token);
	assert_memory_equal(&a->logprob, &b[h->length].logprob, sizeof(float));
	assert_int_equal(dev->mem->slot_close(dev, mine), 0);
	assert_int_equal(dev->mem->slot_close(dev, fresh), 0);
}

static void a_storm_leaves_three_equal_accounts(void **state)
{
	static struct model m;
	struct mr_telemetry t;
	struct lpu_rig rig;
	uint32_t exhausted = 0;

	lpu_rig_open(&rig,
		     &(struct lpu_rig_options){.chips = 1, .context = DEEP, .slots = SLOTS + 2});
	struct mr_device *dev = rig.dev;
	assert_int_equal(dev->admin->telemetry(dev, &t), 0);
	assert_true(t.kv_blocks < BLOCKS);
	memset(&m, 0, sizeof(m));
	m.most = (uint32_t)t.kv_blocks;
	m.seed = 5;
	for (uint32_t i = 0; i < 6000; i++) {
		uint32_t what = draw(&m, 10);
		struct holder *h = any(&m, 1);
		if (what < 4) {
			if (any(&m, 0))
				exhausted += (uint32_t)grow(dev, &m);
		} else if (what < 6 && h) {
			assert_int_equal(dev->mem->slot_close(dev, h->slot), 0);
			assert_int_equal(dev->mem->slot_close(dev, h->slot), MR_E_STALE);
			let_go(&m, h);
		} else {
			write_some(dev, &m);
		}
		assert_int_equal(dev->admin->telemetry(dev, &t), 0);
		assert_int_equal(t.kv_blocks_used, m.used);
		drain(dev, &m, i % 500 == 499 ? 0 : 20);
		if (i % 500 == 499) {
			/* Room for the audit. */
			while ((h = any(&m, 1)) && m.most - m.used < 2 * TABLE) {
				assert_int_equal(dev->mem->slot_close(dev, h->slot), 0);
				let_go(&m, h);
			}
			assert_int_equal(device_blocks(dev), m.used);
			for (uint32_t k = 0; k < 4 && any(&m, 1); k++)
				audit(dev, any(&m, 1));
		}
	}
	drain(dev, &m, 0);
	for (struct holder *h; (h = any(&m, 1));) {
		assert_int_equal(dev->mem->slot_close(dev, h->slot), 0);
		let_go(&m, h);
	}
	assert_int_equal(m.used, 0);
	assert_int_equal(device_blocks(dev), 0);
	assert_true(exhausted > 100);
	lpu_rig_close(&rig);
}

static void forks_are_refused_by_name(void **state)
{
	struct mr_slot_config c = config_of(64, NULL);
	uint32_t ids[40], wrong[65] = {1};
	struct mr_slot parent, child, other;
	struct mr_kv_desc desc = {.block = 1, .length = 16, .owner = 7};
	struct lpu_rig rig;

	lpu_rig_open(&rig, &(struct lpu_rig_options){.slots = 3});
	struct mr_device *dev = rig.dev;
	for (uint32_t i = 0; i < 40; i++)
		ids[i] = 20 + i;
	parent = lpu_rig_slot(dev, 64);
	feed(dev, parent, ids, 40, 0, NULL);
#define FORK(from, positions) dev->mem->kv_fork(dev, from, positions, &c, &child)
	assert_int_equal(FORK(((struct mr_slot){parent.index, parent.generation - 1}), 8),
			 MR_E_STALE);
	assert_int_equal(FORK(((struct mr_slot){3, 1}), 8), MR_E_STALE);
	assert_int_equal(FORK(parent, 41), MR_E_TRUNCATED);
	assert_int_equal(FORK(parent, UINT32_MAX), MR_E_CONTEXT_FULL);
	c.positions = 39;
	assert_int_equal(FORK(parent, 40), MR_E_CONTEXT_FULL);
	c.positions = dev->caps.context + 1;
	assert_int_equal(FORK(parent, 40), MR_E_CONTEXT_FULL);
	c.positions = 0;
	assert_int_equal(FORK(parent, 0), MR_E_RANGE);
	c = config_of(64, NULL);
	c.history = wrong;
	c.history_count = 65;
	assert_int_equal(FORK(parent, 8), MR_E_RANGE);
	c.history_count = 1;
	wrong[0] = dev->caps.vocab;
	assert_int_equal(FORK(parent, 8), MR_E_RANGE);
	assert_int_equal(dev->mem->slot_open(dev, &c, &child), MR_E_RANGE);
	c.history = NULL;
	assert_int_equal(FORK(parent, 8), MR_E_RANGE);
	c.history_count = 0;
	c.flags = 2;
	assert_int_equal(FORK(parent, 8), MR_E_INVALID);
	c.flags = 0;
	c.sampling.top_p = 2;
	assert_int_equal(FORK(parent, 8), MR_E_RANGE);
	c.sampling.top_p = 0;
	assert_int_equal(device_blocks(dev), 4);

	/* Blocks 0 and 1 are shared, block 2 is not: writing goes on from position 32. */
	assert_int_equal(FORK(parent, 35), 0);
	assert_int_equal(device_blocks(dev), 4 + 2);
	other = child;
	struct mr_slot both[] = {parent, other};
	for (int i = 0; i < 2; i++) {
		struct mr_decode_entry entry = {both[i], 31, 20};
		desc.generation = both[i].generation;
		assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 1), MR_E_BUSY);
		assert_int_equal(dev->work->score(dev, both[i], ids, 2, 0, 1), MR_E_BUSY);
		assert_int_equal(dev->mem->kv_import(dev, both[i], &desc, 1, 1), MR_E_BUSY);
		feed(dev, both[i], ids, 3, 32, NULL);
	}
	assert_int_equal(FORK(parent, 36), MR_E_TRUNCATED); /* it went back to 32, then fed 3 */
	assert_int_equal(FORK(parent, 8), 0);
	assert_int_equal(FORK(parent, 8), MR_E_FULL); /* no slot */
	assert_int_equal(dev->mem->slot_close(dev, child), 0);
	/* Nobody shares with the one that is left. */
	assert_int_equal(dev->mem->slot_close(dev, parent), 0);
	feed(dev, other, ids, 3, 0, NULL);
	assert_int_equal(dev->mem->slot_close(dev, other), 0);
	assert_int_equal(device_blocks(dev), 0);

	/* A stop in a run of several steps leaves less KV than the run would have. */
	struct mr_event events[32];
	c = config_of(64, NULL);
	parent = lpu_rig_slot(dev, 64);
	feed(dev, parent, ids, 1, 0, events);
	c.sampling.stop_count = 1;
	c.sampling.stop[0] = events[0].token;
	assert_int_equal(FORK(parent, 0), 0);
	struct mr_decode_entry entry = {child, 0, ids[0]};
	assert_int_equal(dev->work->decode(dev, &entry, 1, 20, 2), 0);
	assert_int_equal(lpu_rig_wait(dev, 2, events, 32), 2);
	assert_int_equal(dev->mem->kv_fork(dev, child, 2, &c, &other), MR_E_TRUNCATED);
	assert_int_equal(dev->mem->kv_fork(dev, child, 1, &c, &other), 0);
	lpu_rig_close(&rig);
}

/*
 * What the driver cannot know, the device says: a fork of a place that a stop token kept from being reached
 * fails there, and the slot's work says why instead of that the slot is stale.
 */
static void a_fork_that_the_device_refuses_says_why(void **state)
{
	struct mr_slot_config c = config_of(64, NULL);
	struct mr_slot first, parent, child;
	struct mr_event events[32];
	struct lpu_rig rig;

	lpu_rig_open(&rig, &(struct lpu_rig_options){0});
	struct mr_device *dev = rig.dev;
	first = lpu_rig_slot(dev, 64);
	feed(dev, first, (const uint32_t[]){20}, 1, 0, events);
	c.sampling.stop_count = 1;
	c.sampling.stop[0] = events[0].token;
	assert_int_equal(dev->mem->slot_open(dev, &c, &parent), 0);
	struct mr_decode_entry entry = {parent, 0, 20};
	assert_int_equal(dev->work->decode(dev, &entry, 1, 20, 1), 0);
	assert_int_equal(dev->mem->kv_fork(dev, parent, 20, &c, &child), 0);
	entry = (struct mr_decode_entry){child, 20, 20};
	assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 2), 0);
	assert_int_equal(dev->work->score(dev, child, (const uint32_t[]){1, 2}, 2, 20, 3), 0);
	assert_int_equal(lpu_rig_wait(dev, 2, events, 32), 3);
	assert_int_equal(events[2].status, MR_E_TRUNCATED);
	assert_int_equal(lpu_rig_wait(dev, 3, events, 32), 1);
	assert_int_equal(events[0].status, MR_E_TRUNCATED);
	assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 4), MR_E_TRUNCATED);
	assert_int_equal(dev->mem->slot_close(dev, child), 0);
	assert_int_equal(dev->mem->slot_close(dev, child), MR_E_STALE);
	assert_int_equal(dev->mem->slot_close(dev, parent), 0);
	assert_int_equal(device_blocks(dev), 4);
	struct mr_telemetry t;
	assert_int_equal(dev->admin->telemetry(dev, &t), 0);
	assert_int_equal(t.errors, 3); /* the fork, the DECODE and the SCORE; no KV_FREE was sent */
	lpu_rig_close(&rig);
}

static void a_reset_ends_forks_and_scores(void **state)
{
	struct mr_slot_config c = config_of(128, NULL);
	uint32_t ids[100];
	struct lpu_rig rig;

	lpu_rig_open(&rig, &(struct lpu_rig_options){0});
	struct mr_device *dev = rig.dev;
	for (uint32_t i = 0; i < 100; i++)
		ids[i] = 20 + i;
	for (int turn = 0; turn < 4; turn++) {
		struct mr_slot parent = lpu_rig_slot(dev, 128), child;
		struct mr_event events[128];
		uint32_t done = 0;
		feed(dev, parent, ids, 40, 0, NULL);
		assert_int_equal(dev->mem->kv_fork(dev, parent, 37, &c, &child), 0);
		assert_int_equal(dev->work->score(dev, child, ids, 90, 37, 1), 0);
		assert_int_equal(dev->mem->slot_close(dev, parent), 0);
		assert_int_equal(dev->work->score(dev, child, ids, 90, 37, 2), 0);
		if (turn % 2) /* let some of it run */
			while (!dev->work->poll(dev, events, 1))
				;
		assert_int_equal(dev->admin->reset(dev), 0);
		for (int n = 0; (n = dev->work->poll(dev, events, 128)) > 0;)
			for (int i = 0; i < n; i++) {
				assert_int_equal(events[i].type, MR_EVENT_DONE);
				assert_int_equal(events[i].status, MR_E_DEVICE);
				done++;
			}
		assert_int_equal(done, 2);
		assert_int_equal(dev->mem->kv_fork(dev, child, 1, &c, &parent), MR_E_STALE);
		assert_int_equal(device_blocks(dev), 0);
		/* The device's health outlives its resets. */
		struct mr_lpu_health health;
		assert_int_equal(mr_lpu_log(dev, MR_LPU_LOG_HEALTH, &health, sizeof(health)),
				 sizeof(health));
		assert_int_equal(health.resets, turn + 1);
		assert_int_equal(mr_lpu_log(dev, 99, &health, sizeof(health)), MR_E_NOT_SUPPORTED);
	}
	lpu_rig_close(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_fork_makes_what_a_plain_run_makes),
		cmocka_unit_test(a_storm_leaves_three_equal_accounts),
		cmocka_unit_test(forks_are_refused_by_name),
		cmocka_unit_test(a_fork_that_the_device_refuses_says_why),
		cmocka_unit_test(a_reset_ends_forks_and_scores),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
