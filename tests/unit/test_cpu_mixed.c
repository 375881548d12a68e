// SPDX-License-Identifier: Apache-2.0
/*
 * Works of different slots in one pass of the CPU backend, on tests/tiny.gguf: the bits are those of each work
 * alone, events come in a sound order, nobody starves, no logits are made for prompts, a reset ends all once.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "driver/cpu/cpu.h"
#include "driver/mem/arena.h"
#include "driver/metrics.h"
#include "driver/model/model.h"
#include "support/tile_emulated.h"

#define CONTEXT 512u
#define SEQS    12u
#define ROUNDS  60u
#define DESCS   (CONTEXT / 16)

static struct mr_arena *arena;
static struct mr_model *model;
static uint32_t tokens[CONTEXT];

static struct mr_device *device_with(uint32_t threads, uint32_t apart,
				     const struct mr_kernels *table, enum mr_numerics numerics)
{
	const struct mr_cpu_options options = {
		.arena = arena,
		.slots = 70,
		.context = CONTEXT,
		.kv_tokens = 70 * CONTEXT,
		.cpu = -1,
		.threads = threads,
		.apart = apart,
		.table = table,
		.numerics = numerics,
	};
	struct mr_device *dev;

	assert_int_equal(mr_cpu_open(&options, &dev), 0);
	assert_int_equal(dev->work->load(dev, model, NULL, NULL), 0);
	return dev;
}

static struct mr_device *device_of(uint32_t threads, uint32_t apart)
{
	return device_with(threads, apart, NULL, MR_NUMERICS_STRICT);
}

static int take(struct mr_device *dev, struct mr_event *e)
{
	int n;

	while ((n = dev->work->poll(dev, e, 1)) == 0) {
		struct pollfd p = {.fd = dev->wait_fd, .events = POLLIN};

		if (!dev->work->arm(dev))
			assert_int_equal(poll(&p, 1, 20000), 1); /* else a wake-up was lost */
	}
	return n;
}

static struct mr_slot open_slot(struct mr_device *dev, uint32_t owner, uint32_t flags)
{
	const struct mr_slot_config config = {
		.owner = owner,
		.positions = CONTEXT,
		.flags = flags,
		/* Odd ones draw, with penalties, so that history and chance are in the comparison too. */
		.sampling = {.temperature = owner % 2 ? 0.8f : 0,
			     .seed = owner,
			     .repeat = owner % 2 ? 1.2f : 0},
	};
	struct mr_slot slot;

	assert_int_equal(dev->mem->slot_open(dev, &config, &slot), 0);
	return slot;
}

static uint64_t metric(enum mr_metric m)
{
	return mr_metric_read(m);
}

/* ---- the same bits ---- */

/* A sequence of a random load. Its works follow from the seed and its own state alone, not from time. */
struct seq {
	struct mr_slot slot;
	uint32_t at;      /* positions with KV */
	uint32_t next;    /* the token that a DECODE is fed */
	uint32_t planned; /* positions that posted work writes */
	uint64_t tag;     /* of its work under way, 0 = none */
	uint32_t expect;  /* position of its next TOKEN event */
	uint64_t hash;    /* of all that it was told */
};

static void fold(uint64_t *h, uint64_t v)
{
	*h = (*h ^ v) * UINT64_C(0x100000001b3);
	*h ^= *h >> 29;
}

static uint32_t draw(uint64_t *seed, uint32_t below)
{
	*seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(*seed >> 33) % below;
}

/* Posts a chunk of @q's prompt, or tokens to be scored. */
static void post_tokens(struct mr_device *dev, struct seq *q, uint32_t n, int score, uint64_t tag)
{
	int status = score ? dev->work->score(dev, q->slot, tokens + q->at, n + 1, q->at, tag)
			   : dev->work->prefill(dev, q->slot, tokens + q->at, n, q->at, tag);

	assert_int_equal(status, 0);
	q->tag = tag;
	q->planned = q->at + n;
	q->expect = q->at + 1;
	q->next = tokens[q->planned];
}

static void on_event(struct seq *seqs, uint64_t decode_tag, const struct mr_event *e)
{
	for (uint32_t i = 0; i < SEQS; i++) {
		struct seq *q = &seqs[i];

		if (e->type == MR_EVENT_DONE && q->tag == e->tag) {
			assert_int_equal(e->status, 0);
			assert_int_equal(e->position, 0);
			q->at = q->planned;
			q->tag = 0;
		} else if (e->type == MR_EVENT_TOKEN && e->slot.index == q->slot.index) {
			uint32_t bits;

			/* Of the work that it has under way, and in order. */
			assert_true(q->tag && q->tag == e->tag);
			assert_int_equal(e->position, q->expect++);
			memcpy(&bits, &e->logprob, sizeof(bits));
			fold(&q->hash, bits);
			fold(&q->hash, e->token);
			if (e->tag == decode_tag)
				q->next = e->token;
		}
	}
}

/* Each round some sequences decode, some have chunks or continuations posted; then all of it ends. */
static void load_of(uint32_t threads, uint32_t apart, enum mr_numerics numerics,
		    uint64_t hashes[SEQS])
{
	struct mr_device *dev = device_with(threads, apart, NULL, numerics);
	struct seq seqs[SEQS];
	uint64_t seed = 7, tag = 0;
	struct mr_kv_desc descs[DESCS];

	for (uint32_t i = 0; i < SEQS; i++)
		seqs[i] = (struct seq){.slot = open_slot(dev, i, 0), .hash = i};
	for (uint32_t round = 0; round < ROUNDS; round++) {
		struct mr_decode_entry entries[SEQS];
		uint64_t decode_tag = 0, under_way = 0;
		uint32_t n = 0, steps = 1 + draw(&seed, 3), decode_at = draw(&seed, SEQS);

		for (uint32_t k = 0; k < SEQS; k++) {
			struct seq *q = &seqs[k];
			uint32_t kind = draw(&seed, 4), size = 1 + draw(&seed, 90);

			if (k == decode_at)
				tag++; /* so that the DECODE's tag is between the others' */
			if (q->at + 100 > CONTEXT)
				continue;
			if (kind == 0 || q->at == 0) {
				post_tokens(dev, q, size, 0, ++tag);
				under_way++;
			} else if (kind == 1) {
				post_tokens(dev, q, 1 + size % 20, 1, ++tag);
				under_way++;
			} else if (kind == 2) {
				entries[n++] = (struct mr_decode_entry){
					.slot = q->slot, .position = q->at, .token = q->next};
			}
		}
		if (n) {
			decode_tag = ++tag;
			assert_int_equal(dev->work->decode(dev, entries, n, steps, decode_tag), 0);
			under_way++;
		}
		for (uint32_t k = 0; k < SEQS; k++)
			for (uint32_t i = 0; i < n; i++)
				if (seqs[k].slot.index == entries[i].slot.index) {
					seqs[k].tag = decode_tag;
					seqs[k].expect = seqs[k].at + 1;
					seqs[k].planned = seqs[k].at + steps;
				}
		while (under_way) {
			struct mr_event e;

			take(dev, &e);
			on_event(seqs, decode_tag, &e);
			under_way -= e.type == MR_EVENT_DONE;
		}
	}
	for (uint32_t i = 0; i < SEQS; i++) {
		for (uint32_t l = 0; l < model->shape.layers; l++) {
			int count =
				dev->mem->kv_export(dev, seqs[i].slot, l, 0, 1, 1, descs, DESCS);

			assert_int_equal(count, (seqs[i].at + 15) / 16);
			/* A last block that is not full holds whatever its memory held before. */
			for (uint32_t b = 0; b < seqs[i].at / 16; b++)
				fold(&seqs[i].hash, descs[b].crc32c);
		}
		hashes[i] = seqs[i].hash;
	}
	dev->admin->close(dev);
}

static void bits_in(enum mr_numerics numerics)
{
	uint64_t want[SEQS], got[SEQS], mixed = metric(MR_M_cpu_passes_mixed);

	load_of(1, 1, numerics, want);
	assert_true(metric(MR_M_cpu_passes_mixed) == mixed);
	for (uint32_t threads = 1; threads <= 3; threads++) {
		load_of(threads, 0, numerics, got);
		for (uint32_t i = 0; i < SEQS; i++)
			assert_true(got[i] == want[i]);
	}
	assert_true(metric(MR_M_cpu_passes_mixed) > mixed + ROUNDS);
}

static void bits(void **state)
{
	bits_in(MR_NUMERICS_STRICT);
	bits_in(MR_NUMERICS_EXACT);
}

/* ---- who goes together ---- */

static void wait_dones(struct mr_device *dev, uint32_t count)
{
	struct mr_event e;

	while (count) {
		take(dev, &e);
		assert_int_equal(e.status, 0);
		count -= e.type == MR_EVENT_DONE;
	}
}

/* What one turn posts goes in as few passes as its rows need, and only rows that want a token get logits. */
static void packing(void **state)
{
	struct mr_device *dev = device_of(2, 0);
	struct mr_slot slots[8];
	struct mr_decode_entry entries[3];
	uint64_t passes = metric(MR_M_cpu_passes), logits = metric(MR_M_cpu_logits);

	for (uint32_t i = 0; i < 8; i++)
		slots[i] = open_slot(dev, i, 0);
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(dev->work->prefill(dev, slots[i], tokens, 8, 0, i), 0);
	wait_dones(dev, 8);
	assert_true(metric(MR_M_cpu_passes) == passes + 1);
	assert_true(metric(MR_M_cpu_logits) == logits);

	for (uint32_t i = 0; i < 3; i++)
		entries[i] = (struct mr_decode_entry){.slot = slots[i], .position = 8};
	assert_int_equal(dev->work->prefill(dev, slots[3], tokens, 41, 8, 9), 0);
	assert_int_equal(dev->work->score(dev, slots[4], tokens, 21, 8, 10), 0);
	assert_int_equal(dev->work->decode(dev, entries, 3, 1, 11), 0);
	wait_dones(dev, 3);
	assert_true(metric(MR_M_cpu_passes) == passes + 2);
	assert_true(metric(MR_M_cpu_logits) == logits + 23);

	/* Works of one slot do not. */
	assert_int_equal(dev->work->prefill(dev, slots[5], tokens, 5, 8, 12), 0);
	assert_int_equal(dev->work->prefill(dev, slots[5], tokens, 5, 13, 13), 0);
	wait_dones(dev, 2);
	assert_true(metric(MR_M_cpu_passes) == passes + 4);
	dev->admin->close(dev);
}

/* Prompts in another numeric class, of other weights even, meet the rows with logits all the same. */
static void classes(void **state)
{
	struct mr_device *dev;
	struct mr_slot slots[4];
	struct mr_decode_entry entry;
	uint64_t passes, logits;

	if (!kernels_emulated_runnable()) {
		print_message("skipped: this CPU cannot run the emulated tiles\n");
		skip();
	}
	dev = device_with(1, 0, &kernels_emulated, MR_NUMERICS_EXACT);
	assert_string_not_equal(dev->caps.class_prefill, dev->caps.class_decode);
	for (uint32_t i = 0; i < 4; i++)
		slots[i] = open_slot(dev, i, 0);
	entry = (struct mr_decode_entry){.slot = slots[0]};
	passes = metric(MR_M_cpu_passes);
	logits = metric(MR_M_cpu_logits);
	assert_int_equal(dev->work->prefill(dev, slots[1], tokens, 8, 0, 1), 0);
	assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 2), 0);
	assert_int_equal(dev->work->prefill(dev, slots[2], tokens, 8, 0, 3), 0);
	assert_int_equal(dev->work->score(dev, slots[3], tokens, 8, 0, 4), 0);
	wait_dones(dev, 4);
	assert_true(metric(MR_M_cpu_passes) == passes + 1);
	assert_true(metric(MR_M_cpu_logits) == logits + 8);
	dev->admin->close(dev);
}

/* DECODEs of every size, one after the other, leave the oldest prompt its rows, and it them theirs. */
static void nobody_starves(void **state)
{
	struct mr_device *dev = device_of(1, 0);
	struct mr_slot slots[64], prompt;
	struct mr_decode_entry entries[64];

	for (uint32_t i = 0; i < 64; i++)
		slots[i] = open_slot(dev, i, 0);
	for (uint32_t n = 1; n <= 64; n += 7) {
		uint32_t decodes = 0, done = 0, at = 0;
		struct mr_event e;

		prompt = open_slot(dev, 99, 0);
		assert_int_equal(dev->work->prefill(dev, prompt, tokens, 256, 0, 1), 0);
		for (; !done; at++) {
			for (uint32_t i = 0; i < n; i++)
				entries[i] =
					(struct mr_decode_entry){.slot = slots[i], .position = at};
			assert_int_equal(dev->work->decode(dev, entries, n, 1, 2), 0);
			decodes++;
			do {
				take(dev, &e);
				done |= e.type == MR_EVENT_DONE && e.tag == 1;
			} while (e.type != MR_EVENT_DONE || e.tag != 2);
		}
		/* A block a pass at least; where a DECODE needs more than that leaves, it waits instead. */
		assert_true(decodes <= 256 / 16 + 1);
		assert_int_equal(dev->mem->slot_close(dev, prompt), 0);
	}
	dev->admin->close(dev);
}

/* A prefill in many small passes tells of layers as often as it has room for, and of its end always. */
static void kv_events(void **state)
{
	struct mr_device *dev = device_of(1, 0);
	struct mr_slot slots[48], prompt = open_slot(dev, 99, MR_SLOT_KV_EVENTS);
	struct mr_decode_entry entries[48];
	uint32_t told = 0, layers = model->shape.layers, last = 0, done = 0;
	struct mr_event e;

	for (uint32_t i = 0; i < 48; i++) {
		slots[i] = open_slot(dev, i, 0);
		entries[i] = (struct mr_decode_entry){.slot = slots[i]};
	}
	assert_int_equal(dev->work->prefill(dev, prompt, tokens, 200, 0, 1), 0);
	for (uint32_t at = 0; !done; at++) {
		for (uint32_t i = 0; i < 48; i++)
			entries[i].position = at;
		assert_int_equal(dev->work->decode(dev, entries, 48, 1, 2), 0);
		do {
			take(dev, &e);
			if (e.type == MR_EVENT_KV) {
				assert_int_equal(e.layer, told % layers);
				assert_true(e.position > last || e.layer);
				last = e.position;
				told++;
			}
			if (e.type == MR_EVENT_DONE && e.tag == 1) {
				assert_int_equal(last, 200);
				done = 1;
			}
		} while (e.type != MR_EVENT_DONE || e.tag != 2);
	}
	assert_true(told >= layers && told <= 4 * layers);
	dev->admin->close(dev);
}

/* ---- resets ---- */

static void reset(void **state)
{
	struct mr_device *dev = device_of(2, 0);

	for (uint32_t round = 0; round < 40; round++) {
		struct mr_slot slots[4];
		struct mr_decode_entry entry;
		uint32_t dones[4] = {0}, lost = 0, n = 0;
		struct mr_telemetry t;

		for (uint32_t i = 0; i < 4; i++)
			slots[i] = open_slot(dev, i, i == 1 ? MR_SLOT_KV_EVENTS : 0);
		entry = (struct mr_decode_entry){.slot = slots[0]};
		assert_int_equal(dev->work->decode(dev, &entry, 1, 16, 0), 0);
		for (uint32_t i = 1; i < 4; i++)
			assert_int_equal(dev->work->prefill(dev, slots[i], tokens, 300, 0, i), 0);
		for (uint32_t i = 0; i < round % 8; i++) {
			struct mr_event e;

			take(dev, &e);
			if (e.type == MR_EVENT_DONE) {
				dones[e.tag]++;
				n++;
			}
		}
		assert_int_equal(dev->admin->reset(dev), 0);
		/* What is posted after a reset is none of its. */
		slots[0] = open_slot(dev, 0, 0);
		assert_int_equal(dev->work->prefill(dev, slots[0], tokens, 20, 0, 77), 0);
		for (int alive = 1; alive || n < 4;) {
			struct mr_event e;

			take(dev, &e);
			if (e.type != MR_EVENT_DONE)
				continue;
			if (e.tag == 77) {
				assert_int_equal(e.status, 0);
				alive = 0;
				continue;
			}
			assert_true(e.status == 0 || e.status == MR_E_DEVICE);
			lost += e.status != 0;
			dones[e.tag]++;
			n++;
		}
		for (uint32_t i = 0; i < 4; i++)
			assert_int_equal(dones[i], 1);
		assert_true(round % 8 || lost);
		assert_int_equal(dev->mem->slot_close(dev, slots[0]), 0);
		assert_int_equal(dev->admin->telemetry(dev, &t), 0);
		assert_int_equal(t.kv_blocks_used, 0);
		assert_int_equal(t.completions, t.commands);
	}
	dev->admin->close(dev);
}

static int setup(void **state)
{
	const struct mr_arena_options options = {.node = -1, .no_huge = 1};
	uint64_t seed = 42;

	assert_int_equal(mr_model_open("tests/tiny.gguf", &model, NULL, 0), 0);
	assert_int_equal(mr_arena_create(&options, &arena), 0);
	for (uint32_t i = 0; i < CONTEXT; i++)
		tokens[i] = draw(&seed, model->shape.vocab);
	return 0;
}

static int teardown(void **state)
{
	mr_arena_destroy(arena);
	mr_model_close(model);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bits),      cmocka_unit_test(packing),
		cmocka_unit_test(classes),   cmocka_unit_test(nobody_starves),
		cmocka_unit_test(kv_events), cmocka_unit_test(reset),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
