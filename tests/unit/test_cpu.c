// SPDX-License-Identifier: Apache-2.0
/*
 * The CPU backend on tests/tiny.gguf: a row's bits do not depend on its company, on chunks or on when it
 * joined; every path gives the committed digest; KV goes from slot to slot by checked descriptors; what is
 * stale, out of range or too much is refused by name; a reset and a close in mid-work lose nothing.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "driver/cpu/cpu.h"
#include "driver/mem/arena.h"
#include "driver/model/model.h"
#include "kernels/cpu/kernels.h"

#define PROMPT  300u /* positions of the reference run: more than one attention tile */
#define ANSWERS 8u   /* forced steps whose logits are compared */

static struct mr_arena *arena;
static struct mr_model *model;
static uint32_t tokens[PROMPT + ANSWERS];
static uint64_t tags;

static uint64_t fnv(uint64_t h, const void *data, size_t bytes)
{
	for (const unsigned char *p = data; bytes--; p++)
		h = (h ^ *p) * UINT64_C(0x100000001b3);
	return h;
}
#define FNV_START UINT64_C(0xcbf29ce484222325)

static struct mr_device *device_of(const char *kernels, uint32_t slots, uint64_t kv_tokens)
{
	const struct mr_cpu_options options = {
		.arena = arena,
		.slots = slots,
		.context = 512,
		.kv_tokens = kv_tokens,
		.kernels = kernels,
		.numerics = MR_NUMERICS_STRICT, /* prefill's bits are compared with decode's */
		.cpu = -1,
	};
	struct mr_device *dev;

	assert_int_equal(mr_cpu_open(&options, &dev), 0);
	assert_int_equal(dev->work->load(dev, model, NULL, NULL), 0);
	return dev;
}

/* One event; sleeps on wait_fd as the orchestrator would. */
static struct mr_event next(struct mr_device *dev)
{
	struct mr_event e;

	for (int tries = 0; !dev->work->poll(dev, &e, 1); tries++) {
		struct pollfd p = {.fd = dev->wait_fd, .events = POLLIN};

		assert_true(tries < 1000);
		if (!dev->work->arm(dev))
			assert_int_equal(poll(&p, 1, 20000), 1); /* else a wake-up was lost */
	}
	return e;
}

static int finish(struct mr_device *dev, uint64_t tag)
{
	struct mr_event e = next(dev);

	assert_int_equal(e.type, MR_EVENT_DONE);
	assert_true(e.tag == tag);
	return e.status;
}

static struct mr_slot open_slot(struct mr_device *dev, uint32_t owner, uint32_t positions)
{
	struct mr_slot_config config = {.owner = owner, .positions = positions};
	struct mr_slot slot;

	assert_int_equal(dev->mem->slot_open(dev, &config, &slot), 0);
	return slot;
}

static void prefill(struct mr_device *dev, struct mr_slot slot, uint32_t from, uint32_t to,
		    uint32_t chunk)
{
	for (uint32_t at = from, n; at < to; at += n) {
		n = to - at < chunk ? to - at : chunk;
		assert_int_equal(dev->work->prefill(dev, slot, tokens + at, n, at, ++tags), 0);
		assert_int_equal(finish(dev, tags), 0);
	}
}

/* Hash of the logits of @n forced steps of one slot from @position on. */
static uint64_t decode_hash(struct mr_device *dev, struct mr_slot slot, uint32_t position,
			    uint32_t n)
{
	struct mr_decode_entry entry = {
		.slot = slot,
		.position = position,
		.token = tokens[position],
		.forced = tokens + position + 1,
		.forced_count = n - 1,
		.flags = MR_DECODE_LOGITS,
	};
	uint64_t h = FNV_START;

	assert_int_equal(dev->work->decode(dev, &entry, 1, n, ++tags), 0);
	for (uint32_t i = 0; i < n; i++) {
		struct mr_event e = next(dev);

		assert_int_equal(e.type, MR_EVENT_TOKEN);
		assert_int_equal(e.position, position + i + 1);
		assert_non_null(e.logits);
		h = fnv(h, e.logits, dev->caps.vocab * sizeof(float));
	}
	assert_int_equal(finish(dev, tags), 0);
	return h;
}

static uint64_t alone(struct mr_device *dev, uint32_t prompt, uint32_t chunk)
{
	struct mr_slot slot = open_slot(dev, 1, prompt + ANSWERS);
	uint64_t h;

	prefill(dev, slot, 0, prompt, chunk);
	h = decode_hash(dev, slot, prompt, ANSWERS);
	assert_int_equal(dev->mem->slot_close(dev, slot), 0);
	return h;
}

static void digest(void **state)
{
	unsigned long long want = 0;
	FILE *f = fopen("tests/digest/tiny-logits", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%llx", &want), 1);
	fclose(f);
	for (int i = 0; mr_kernels_all[i]; i++) {
		struct mr_device *dev;
		uint64_t h;

		if (!mr_kernels_runnable(mr_kernels_all[i])) {
			print_message("SKIPPED: this CPU cannot run %s\n", mr_kernels_all[i]->name);
			continue;
		}
		dev = device_of(mr_kernels_all[i]->name, 2, 1024);
		h = alone(dev, PROMPT, 512);
		if (h != want)
			print_message("%s: digest %016llx\n", dev->caps.name,
				      (unsigned long long)h);
		assert_true(h == want);
		dev->admin->close(dev);
	}
}

static void chunks(void **state)
{
	static const uint32_t sizes[] = {1, 2, 7, 16, 31, 63, 64, 65, 100, 128, 255, 299};
	struct mr_device *dev = device_of(NULL, 2, 1024);
	uint64_t want = alone(dev, PROMPT, 512);
	struct mr_slot slot = open_slot(dev, 1, PROMPT + ANSWERS);

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		assert_true(alone(dev, PROMPT, sizes[i]) == want);
	/* what decode writes is what prefill writes */
	prefill(dev, slot, 0, 250, 100);
	for (uint32_t at = 250; at < PROMPT; at += 5)
		decode_hash(dev, slot, at, 5);
	assert_true(decode_hash(dev, slot, PROMPT, ANSWERS) == want);
	dev->admin->close(dev);
}

struct member {
	struct mr_slot slot;
	uint32_t prompt, at;
	uint64_t hash, want;
};

/* One step for the members that have joined and not left; returns how many there are. */
static uint32_t step(struct mr_device *dev, struct member *m, uint32_t joined)
{
	struct mr_decode_entry entries[64];
	uint32_t who[64], n = 0;

	for (uint32_t i = joined; i-- > 0;) { /* not in the order of slots */
		if (m[i].at == m[i].prompt + ANSWERS)
			continue;
		who[n] = i;
		entries[n++] = (struct mr_decode_entry){
			.slot = m[i].slot,
			.position = m[i].at,
			.token = tokens[m[i].at],
			.flags = MR_DECODE_LOGITS,
		};
	}
	if (!n)
		return 0;
	assert_int_equal(dev->work->decode(dev, entries, n, 1, ++tags), 0);
	for (uint32_t i = 0; i < n; i++) {
		struct mr_event e = next(dev);

		assert_int_equal(e.type, MR_EVENT_TOKEN);
		assert_int_equal(e.slot.index, m[who[i]].slot.index);
		m[who[i]].hash = fnv(m[who[i]].hash, e.logits, dev->caps.vocab * sizeof(float));
		m[who[i]].at++;
	}
	assert_int_equal(finish(dev, tags), 0);
	return n;
}

/* Up to 64 sequences of different lengths; every step one or more join, and each leaves when done. */
static void company(struct mr_device *dev, uint32_t members, uint32_t joining)
{
	struct member m[64];
	uint32_t joined = 0;

	for (uint32_t i = 0; i < members; i++) {
		m[i] = (struct member){.prompt = 1 + i * 37 % 290, .hash = FNV_START};
		m[i].want = alone(dev, m[i].prompt, 64);
	}
	do {
		for (uint32_t i = 0; i < joining && joined < members; i++, joined++) {
			m[joined].slot = open_slot(dev, joined, m[joined].prompt + ANSWERS);
			prefill(dev, m[joined].slot, 0, m[joined].prompt, 50);
			m[joined].at = m[joined].prompt;
		}
	} while (step(dev, m, joined) || joined < members);
	for (uint32_t i = 0; i < members; i++) {
		assert_true(m[i].hash == m[i].want);
		assert_int_equal(dev->mem->slot_close(dev, m[i].slot), 0);
	}
}

static void batches(void **state)
{
	static const uint32_t sizes[] = {2, 3, 4, 5, 8, 9, 17, 33, 64};
	struct mr_device *dev = device_of(NULL, 65, 65 * 320);

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		company(dev, sizes[i], sizes[i]);
		company(dev, sizes[i], 1 + sizes[i] / 5);
	}
	dev->admin->close(dev);
}

/* Exports the slot's KV for another and imports it; returns the DONE's status. @break_it: see below. */
static int hand_over(struct mr_device *from, struct mr_slot slot, struct mr_device *to,
		     struct mr_slot dest, uint32_t owner, void (*break_it)(struct mr_kv_desc *))
{
	struct mr_kv_desc descs[MR_KV_DESCS_MAX];
	int status = 0;

	for (uint32_t l = 0; l < model->shape.layers && !status; l++) {
		int n = from->mem->kv_export(from, slot, l, 0, owner, dest.generation, descs,
					     MR_KV_DESCS_MAX);

		assert_int_equal(n, (PROMPT + 15) / 16);
		assert_int_equal(descs[n - 1].length, PROMPT % 16 ? PROMPT % 16 : 16);
		if (break_it)
			break_it(&descs[n / 2]);
		assert_int_equal(to->mem->kv_import(to, dest, descs, (uint32_t)n, ++tags), 0);
		status = finish(to, tags);
	}
	return status;
}

static void break_owner(struct mr_kv_desc *d)
{
	d->owner++;
}
static void break_generation(struct mr_kv_desc *d)
{
	d->generation += 2;
}
static void break_crc(struct mr_kv_desc *d)
{
	d->crc32c ^= 1;
}
static void break_layer(struct mr_kv_desc *d)
{
	d->layer = 999;
}
static void break_block(struct mr_kv_desc *d)
{
	d->block = UINT32_MAX;
}
static void break_length(struct mr_kv_desc *d)
{
	d->length = 17;
}
static void break_iova(struct mr_kv_desc *d)
{
	d->iova = UINT64_MAX - 8;
}
static void break_reserved(struct mr_kv_desc *d)
{
	d->reserved = 1;
}

static void handover(void **state)
{
	static const struct {
		void (*f)(struct mr_kv_desc *);
		int status;
	} breaks[] = {
		{break_owner, MR_E_STALE},    {break_generation, MR_E_STALE},
		{break_crc, MR_E_CHECKSUM},   {break_layer, MR_E_RANGE},
		{break_block, MR_E_RANGE},    {break_length, MR_E_RANGE},
		{break_iova, MR_E_DMA_FAULT}, {break_reserved, MR_E_RANGE},
	};
	struct mr_device *a = device_of("scalar", 4, 2048), *b = device_of(NULL, 4, 2048);
	struct mr_slot from = open_slot(a, 5, PROMPT), to = open_slot(b, 9, PROMPT + ANSWERS);
	struct mr_kv_desc desc;

	prefill(a, from, 0, PROMPT, 512);
	for (size_t i = 0; i < sizeof(breaks) / sizeof(breaks[0]); i++)
		assert_int_equal(hand_over(a, from, b, to, 9, breaks[i].f), breaks[i].status);
	assert_int_equal(hand_over(a, from, b, to, 9, NULL), 0);
	assert_true(decode_hash(b, to, PROMPT, ANSWERS) == alone(a, PROMPT, 512));
	assert_int_equal(a->mem->kv_export(a, from, model->shape.layers, 0, 1, 1, &desc, 1),
			 MR_E_RANGE);
	assert_int_equal(a->mem->kv_export(a, from, 0, 999, 1, 1, &desc, 1), 0);
	a->mem->slot_close(a, from);
	assert_int_equal(a->mem->kv_export(a, from, 0, 0, 1, 1, &desc, 1), MR_E_STALE);
	a->admin->close(a);
	b->admin->close(b);
}

static void refusals(void **state)
{
	struct mr_device *dev = device_of(NULL, 2, 256);
	struct mr_slot_config config = {.positions = 160};
	struct mr_slot s, other;
	struct mr_decode_entry e[2] = {{.token = 1}}, one;
	uint32_t bad[3] = {1, dev->caps.vocab, 1};
	const struct mr_work_ops *w = dev->work;

	assert_int_equal(w->load(dev, model, NULL, NULL), MR_E_EXISTS);
	assert_int_equal(dev->mem->slot_open(dev, &config, &s), 0);
	assert_int_equal(dev->mem->slot_open(dev, &config, &other), MR_E_KV_EXHAUSTED);
	config.positions = 16;
	assert_int_equal(dev->mem->slot_open(dev, &config, &other), 0);
	assert_int_equal(dev->mem->slot_open(dev, &config, &other), MR_E_FULL);
	config.positions = 513;
	assert_int_equal(dev->mem->slot_open(dev, &config, &other), MR_E_CONTEXT_FULL);
	config.positions = 0;
	assert_int_equal(dev->mem->slot_open(dev, &config, &other), MR_E_INVALID);
	config = (struct mr_slot_config){.positions = 16, .sampling.temperature = -1};
	assert_int_equal(dev->mem->slot_open(dev, &config, &other), MR_E_RANGE);

	assert_int_equal(w->prefill(dev, s, tokens, 0, 0, 1), MR_E_INVALID);
	assert_int_equal(w->prefill(dev, s, tokens, 513, 0, 1), MR_E_INVALID);
	assert_int_equal(w->prefill(dev, s, tokens, 1, 1, 1), MR_E_INVALID); /* leaves a gap */
	assert_int_equal(w->prefill(dev, s, tokens, 161, 0, 1), MR_E_CONTEXT_FULL);
	assert_int_equal(w->prefill(dev, s, bad, 3, 0, 1), MR_E_RANGE);
	e[0].slot = e[1].slot = s;
	assert_int_equal(w->decode(dev, e, 2, 1, 1), MR_E_INVALID); /* one slot twice */
	assert_int_equal(w->decode(dev, e, 0, 1, 1), MR_E_INVALID);
	assert_int_equal(w->decode(dev, e, 1, 0, 1), MR_E_INVALID);
	assert_int_equal(w->decode(dev, e, 1, dev->caps.steps_max + 1, 1), MR_E_INVALID);
	one = e[0];
	one.position = 1;
	assert_int_equal(w->decode(dev, &one, 1, 1, 1), MR_E_INVALID);
	one = e[0];
	one.token = dev->caps.vocab;
	assert_int_equal(w->decode(dev, &one, 1, 1, 1), MR_E_RANGE);
	one = e[0];
	one.forced = bad;
	one.forced_count = 3;
	assert_int_equal(w->decode(dev, &one, 1, 4, 1), MR_E_RANGE);
	assert_int_equal(w->decode(dev, &one, 1, 3, 1), MR_E_INVALID);
	one = e[0];
	one.flags = 0x80;
	assert_int_equal(w->decode(dev, &one, 1, 1, 1), MR_E_INVALID);

	assert_int_equal(dev->mem->slot_close(dev, s), 0);
	assert_int_equal(dev->mem->slot_close(dev, s), MR_E_STALE);
	assert_int_equal(w->prefill(dev, s, tokens, 1, 0, 1), MR_E_STALE);
	assert_int_equal(w->decode(dev, e, 1, 1, 1), MR_E_STALE);
	assert_int_equal(w->poll(dev, (struct mr_event[1]){{0}}, 1),
			 0); /* none of it made events */
	dev->admin->close(dev);
}

/* Decodes 8 free steps of @n slots at once; made[i] gets slot i's tokens, count[i] how many. */
static void decode_free(struct mr_device *dev, const struct mr_decode_entry *e, uint32_t n,
			uint32_t made[][8], uint32_t *count)
{
	assert_int_equal(dev->work->decode(dev, e, n, 8, ++tags), 0);
	memset(count, 0, n * sizeof(*count));
	for (;;) {
		struct mr_event ev = next(dev);
		uint32_t i = 0;

		if (ev.type == MR_EVENT_DONE)
			break;
		while (e[i].slot.index != ev.slot.index)
			i++;
		assert_true(i < n && ev.slot.generation == e[i].slot.generation);
		assert_true(ev.logprob <= 0 && !ev.logits && ev.seen_ns && count[i] < 8);
		assert_int_equal(ev.position, e[i].position + ++count[i]);
		made[i][count[i] - 1] = ev.token;
		if (ev.stopped)
			count[i] |= 0x80; /* no further token may come: the assertion above */
	}
	for (uint32_t i = 0; i < n; i++)
		count[i] &= 0x7f;
}

/* A stop token ends its own sequence in the midst of a decode and leaves the others as they were. */
static void stops(void **state)
{
	struct mr_device *dev = device_of(NULL, 6, 1024);
	struct mr_slot_config config = {.positions = 64, .sampling.stop_count = 1};
	struct mr_decode_entry e[3];
	uint32_t free_run[3][8], made[3][8], count[3], at = 1;

	for (uint32_t i = 0; i < 3; i++) {
		e[i] = (struct mr_decode_entry){.slot = open_slot(dev, i, 64), .token = tokens[i]};
		decode_free(dev, &e[i], 1, &free_run[i], &count[i]);
		assert_int_equal(count[i], 8);
	}
	/* a token of the first sequence that had not come before in it */
	while (at < 7 && free_run[0][at] == free_run[0][at - 1])
		at++;
	config.sampling.stop[0] = free_run[0][at];
	for (uint32_t i = 0; i < 3; i++) {
		if (i == 0)
			assert_int_equal(dev->mem->slot_open(dev, &config, &e[i].slot), 0);
		else
			e[i].slot = open_slot(dev, i, 64);
	}
	decode_free(dev, e, 3, made, count);
	assert_true(count[0] <= at + 1 && made[0][count[0] - 1] == free_run[0][at]);
	for (uint32_t i = 1; i < 3; i++)
		assert_int_equal(count[i], 8);
	for (uint32_t i = 0; i < 3; i++)
		assert_memory_equal(made[i], free_run[i], count[i] * sizeof(uint32_t));
	dev->admin->close(dev);
}

/* Posts until the device is full; every accepted job brings exactly one DONE, in order. */
static void full(void **state)
{
	struct mr_device *dev = device_of(NULL, 2, 1024);
	struct mr_slot s = open_slot(dev, 1, 512);
	struct mr_slot_config config = {.positions = 16};
	uint64_t first = tags + 1, posted = 0;
	int status;

	while (!(status = dev->work->prefill(dev, s, tokens, 300, 0, ++tags)))
		posted++;
	assert_int_equal(status, MR_E_FULL);
	assert_true(posted >= 16);
	/* Closed with work under way: that ends well, and only then is the slot free. */
	assert_int_equal(dev->mem->slot_close(dev, s), 0);
	open_slot(dev, 2, 512);
	assert_int_equal(dev->mem->slot_open(dev, &config, &s), MR_E_FULL);
	for (uint64_t i = 0; i < posted; i++)
		assert_int_equal(finish(dev, first + i), 0);
	open_slot(dev, 1, 512);
	dev->admin->close(dev);
}

static void reset(void **state)
{
	struct mr_device *dev = device_of("scalar", 2, 1024);
	struct mr_slot s = open_slot(dev, 1, 512);
	uint64_t first = tags + 1;
	struct mr_telemetry t;
	int failed = 0;

	for (int i = 0; i < 8; i++)
		assert_int_equal(dev->work->prefill(dev, s, tokens, 300, 0, ++tags), 0);
	assert_int_equal(dev->admin->reset(dev), 0);
	assert_int_equal(dev->work->prefill(dev, s, tokens, 1, 0, 1), MR_E_STALE);
	for (uint64_t i = 0; i < 8; i++) {
		int status = finish(dev, first + i);

		assert_true(status == 0 || status == MR_E_DEVICE);
		failed += status == MR_E_DEVICE;
	}
	assert_true(failed >= 6);
	assert_int_equal(dev->admin->telemetry(dev, &t), 0);
	assert_int_equal(t.kv_blocks_used, 0);
	assert_int_equal(t.commands, 8);
	assert_int_equal(t.completions, 8);
	alone(dev, PROMPT, 512);
	dev->admin->close(dev);
}

/* Logits wait for their reader: closing with unread ones, and resetting, must not hang. */
static void unread_logits(void **state)
{
	struct mr_device *dev = device_of(NULL, 2, 1024);
	struct mr_slot s = open_slot(dev, 1, 512);
	struct mr_decode_entry e = {.slot = s, .token = 1, .flags = MR_DECODE_LOGITS};
	struct mr_event ev;

	assert_int_equal(dev->work->decode(dev, &e, 1, 8, ++tags), 0);
	ev = next(dev);
	assert_non_null(ev.logits);
	dev->admin->reset(dev);
	while (next(dev).type != MR_EVENT_DONE)
		;
	e.slot = open_slot(dev, 1, 512);
	assert_int_equal(dev->work->decode(dev, &e, 1, 8, ++tags), 0);
	assert_non_null(next(dev).logits);
	dev->admin->close(dev);
}

static void no_such_path(void **state)
{
	const struct mr_cpu_options options = {.arena = arena, .kernels = "abacus", .cpu = -1};
	struct mr_device *dev;

	assert_int_equal(mr_cpu_open(&options, &dev), MR_E_NOT_SUPPORTED);
}

static int setup(void **state)
{
	const struct mr_arena_options options = {.node = -1, .no_huge = 1};
	uint32_t seed = 42;

	assert_int_equal(mr_model_open("tests/tiny.gguf", &model, NULL, 0), 0);
	assert_int_equal(mr_arena_create(&options, &arena), 0);
	for (uint32_t i = 0; i < PROMPT + ANSWERS; i++) {
		seed = seed * 1664525u + 1013904223u;
		tokens[i] = (seed >> 8) % model->shape.vocab;
	}
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
		cmocka_unit_test(digest),        cmocka_unit_test(chunks),
		cmocka_unit_test(batches),       cmocka_unit_test(handover),
		cmocka_unit_test(refusals),      cmocka_unit_test(stops),
		cmocka_unit_test(full),          cmocka_unit_test(reset),
		cmocka_unit_test(unread_logits), cmocka_unit_test(no_such_path),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
