// SPDX-License-Identifier: Apache-2.0
/*
 * The CPU backend on tests/tiny.gguf with a class P for prompts: P-avx512, and P-amx-bf16 over the emulated tile
 * unit and, where the CPU has one, the real one. What a prompt leaves behind does not depend on chunks, threads or
 * company and is near class D's; generated tokens stay class D's from the same KV; what each of exact, strict and
 * fast means.
 */
#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "driver/cpu/cpu.h"
#include "driver/mem/arena.h"
#include "driver/metrics.h"
#include "driver/model/model.h"
#include "support/tile_emulated.h"

#define PROMPT 270u /* more than one tile of attention */
#define STEPS  4u
#define VOCAB  4096u
#define LARGE  40u /* a decode batch that --numerics=fast computes in class P */

static struct mr_arena *arena;
static struct mr_model *model;
static uint32_t tokens[PROMPT + STEPS];
static uint64_t tags;

static struct mr_device *device_of(const struct mr_kernels *table, enum mr_numerics numerics,
				   uint32_t threads)
{
	const struct mr_cpu_options options = {
		.arena = arena,
		.slots = LARGE,
		.context = PROMPT + 32,
		.kv_tokens = 16 * 1024,
		.table = table,
		.numerics = numerics,
		.cpu = -1,
		.threads = threads,
	};
	struct mr_device *dev;

	assert_int_equal(mr_cpu_open(&options, &dev), 0);
	assert_int_equal(dev->work->load(dev, model, NULL, NULL), 0);
	assert_true(dev->caps.vocab <= VOCAB);
	return dev;
}

static struct mr_event next(struct mr_device *dev)
{
	struct mr_event e;

	while (!dev->work->poll(dev, &e, 1)) {
		struct pollfd p = {.fd = dev->wait_fd, .events = POLLIN};

		if (!dev->work->arm(dev))
			assert_int_equal(poll(&p, 1, 20000), 1);
	}
	return e;
}

static void finish(struct mr_device *dev)
{
	struct mr_event e = next(dev);

	assert_int_equal(e.type, MR_EVENT_DONE);
	assert_int_equal(e.status, 0);
}

static struct mr_slot open_slot(struct mr_device *dev)
{
	const struct mr_slot_config config = {.owner = 7, .positions = PROMPT + 32};
	struct mr_slot slot;

	assert_int_equal(dev->mem->slot_open(dev, &config, &slot), 0);
	return slot;
}

static void prefill(struct mr_device *dev, struct mr_slot slot, uint32_t chunk)
{
	for (uint32_t at = 0, n; at < PROMPT; at += n) {
		n = PROMPT - at < chunk ? PROMPT - at : chunk;
		assert_int_equal(dev->work->prefill(dev, slot, tokens + at, n, at, ++tags), 0);
		finish(dev);
	}
}

/* The last step's logits of STEPS forced steps after the prompt, and a hash of all. */
static uint64_t decode(struct mr_device *dev, struct mr_slot slot, float *logits)
{
	const struct mr_decode_entry entry = {
		.slot = slot,
		.position = PROMPT,
		.token = tokens[PROMPT],
		.forced = tokens + PROMPT + 1,
		.forced_count = STEPS - 1,
		.flags = MR_DECODE_LOGITS,
	};
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	assert_int_equal(dev->work->decode(dev, &entry, 1, STEPS, ++tags), 0);
	for (uint32_t i = 0; i < STEPS; i++) {
		struct mr_event e = next(dev);

		assert_int_equal(e.type, MR_EVENT_TOKEN);
		memcpy(logits, e.logits, dev->caps.vocab * sizeof(float));
		for (uint32_t v = 0; v < dev->caps.vocab * sizeof(float); v++)
			h = (h ^ ((const uint8_t *)logits)[v]) * UINT64_C(0x100000001b3);
	}
	finish(dev);
	return h;
}

static uint64_t prompt_and_decode(struct mr_device *dev, uint32_t chunk, float *logits)
{
	struct mr_slot slot = open_slot(dev);
	uint64_t h;

	prefill(dev, slot, chunk);
	h = decode(dev, slot, logits);
	assert_int_equal(dev->mem->slot_close(dev, slot), 0);
	return h;
}

/* Root mean square of the difference, as a part of that of @b. */
static double distance(const float *a, const float *b, uint32_t n)
{
	double d = 0, size = 0;

	for (uint32_t i = 0; i < n; i++) {
		d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
		size += (double)b[i] * b[i];
	}
	return sqrt(d / size);
}

static void each_unit(void (*check)(const struct mr_kernels *))
{
	const struct mr_kernels *real = mr_kernels_select("amx");
	const struct mr_kernels *avx512 = mr_kernels_select("avx512");

	if (avx512)
		check(avx512);
	if (kernels_emulated_runnable())
		check(&kernels_emulated);
	else
		print_message("skipped: class P needs AVX-512 with VNNI\n");
	if (real)
		check(real);
	else
		print_message("skipped: this CPU has no AMX; only the emulated unit was tested\n");
}

/* strict is class D to the bit; exact is not, is near it, and does not depend on chunks or threads. */
static void prompts_on(const struct mr_kernels *table)
{
	static const uint32_t chunks[] = {33, 1, 7, 16, 64, 512};
	struct mr_device *d = device_of(mr_kernels_select("scalar"), MR_NUMERICS_EXACT, 1);
	struct mr_device *strict = device_of(table, MR_NUMERICS_STRICT, 2);
	float want[VOCAB], got[VOCAB];
	uint64_t h_d = prompt_and_decode(d, 64, want), h_p = 0;
	uint64_t before = mr_metric_read(MR_M_cpu_prefill_tokens_p);

	assert_string_equal(d->caps.class_prefill, "D");
	assert_string_equal(strict->caps.class_prefill, "D");
	assert_int_equal(strict->caps.class_bytes, 0);
	assert_true(prompt_and_decode(strict, 64, got) == h_d);
	assert_int_equal(mr_metric_read(MR_M_cpu_prefill_tokens_p), before);
	for (uint32_t threads = 1; threads <= 3; threads++) {
		struct mr_device *p = device_of(table, MR_NUMERICS_EXACT, threads);

		assert_string_equal(p->caps.class_prefill, table->prompt->numerics);
		assert_string_equal(p->caps.class_decode, "D");
		assert_int_equal(p->caps.class_bytes > 0, table->prompt->tiles);
		/* All chunks on two threads, one of them on the others. */
		for (size_t i = 0; i < (threads == 2 ? 6 : 1); i++) {
			uint64_t h = prompt_and_decode(p, chunks[i], got);

			h_p = h_p ? h_p : h;
			if (h != h_p)
				fail_msg("%s: %u threads, chunks of %u", table->name, threads,
					 chunks[i]);
		}
		p->admin->close(p);
	}
	assert_true(h_p != h_d);
	assert_int_equal(mr_metric_read(MR_M_cpu_prefill_tokens_p) - before, 8 * PROMPT);
	if (distance(got, want, d->caps.vocab) > 0.05)
		fail_msg("%s: %g of class D's logits", table->name,
			 distance(got, want, d->caps.vocab));
	strict->admin->close(strict);
	d->admin->close(d);
}

static void prompts(void **state)
{
	each_unit(prompts_on);
}

/* A prompt and another sequence's steps posted together, in class P and in class D: each as alone. */
static void beside_a_step(struct mr_device *dev, uint64_t want)
{
	struct mr_slot ready = open_slot(dev), filled = open_slot(dev);
	float alone[VOCAB], logits[VOCAB];
	struct mr_decode_entry entry = {.slot = ready,
					.position = PROMPT,
					.token = tokens[PROMPT],
					.flags = MR_DECODE_LOGITS};

	prefill(dev, ready, 64);
	assert_int_equal(dev->work->decode(dev, &entry, 1, 1, ++tags), 0);
	memcpy(alone, next(dev).logits, dev->caps.vocab * sizeof(float));
	finish(dev);
	for (uint32_t at = 0, n; at < PROMPT; at += n) {
		n = PROMPT - at < 50 ? PROMPT - at : 50;
		assert_int_equal(dev->work->prefill(dev, filled, tokens + at, n, at, ++tags), 0);
		assert_int_equal(dev->work->decode(dev, &entry, 1, 1, ++tags), 0);
		for (uint32_t left = 2; left;) {
			struct mr_event e = next(dev);

			assert_int_equal(e.status, 0);
			left -= e.type == MR_EVENT_DONE;
			if (e.type == MR_EVENT_TOKEN)
				memcpy(logits, e.logits, dev->caps.vocab * sizeof(float));
		}
		assert_memory_equal(logits, alone, dev->caps.vocab * sizeof(float));
	}
	assert_true(decode(dev, filled, logits) == want);
}

/* Two prompts posted together leave what each leaves alone. */
static void company_on(const struct mr_kernels *table)
{
	struct mr_device *dev = device_of(table, MR_NUMERICS_EXACT, 2);
	struct mr_slot a = open_slot(dev), b = open_slot(dev);
	float logits[VOCAB];
	uint64_t want = prompt_and_decode(dev, 512, logits);

	for (uint32_t at = 0, n; at < PROMPT; at += n) {
		n = PROMPT - at < 45 ? PROMPT - at : 45;
		assert_int_equal(dev->work->prefill(dev, a, tokens + at, n, at, ++tags), 0);
		assert_int_equal(dev->work->prefill(dev, b, tokens + at, n, at, ++tags), 0);
		finish(dev);
		finish(dev);
	}
	assert_true(decode(dev, b, logits) == want);
	assert_true(decode(dev, a, logits) == want);
	beside_a_step(dev, want);
	dev->admin->close(dev);
}

static void company(void **state)
{
	each_unit(company_on);
}

/* The KV of a prompt in class P, handed over: every class D device goes on from it with the same bits. */
static void handover_on(const struct mr_kernels *table)
{
	struct mr_device *p = device_of(table, MR_NUMERICS_EXACT, 1);
	struct mr_device *d = device_of(mr_kernels_select("scalar"), MR_NUMERICS_EXACT, 1);
	struct mr_slot from = open_slot(p), to = open_slot(d), other = open_slot(d);
	float logits[VOCAB];
	uint64_t want;

	prefill(p, from, 64);
	prefill(d, other, 64);
	for (uint32_t l = 0; l < model->shape.layers; l++) {
		struct mr_kv_desc descs[32], own;
		int n = p->mem->kv_export(p, from, l, 0, 7, to.generation, descs, 32);

		assert_int_equal(n, (PROMPT + 15) / 16);
		assert_int_equal(d->mem->kv_export(d, other, l, 0, 7, to.generation, &own, 1), 1);
		assert_true(own.crc32c != descs[0].crc32c); /* class P made every layer */
		assert_int_equal(d->mem->kv_import(d, to, descs, (uint32_t)n, ++tags), 0);
		finish(d);
	}
	want = decode(p, from, logits);
	assert_true(decode(d, to, logits) == want);
	p->admin->close(p);
	d->admin->close(d);
}

static void handover(void **state)
{
	each_unit(handover_on);
}

/* One step of the first @n of LARGE slots that hold a prompt's first token; logits of the last row. */
static void step(struct mr_device *dev, const struct mr_slot *slots, uint32_t n, float *logits)
{
	struct mr_decode_entry entries[LARGE];

	for (uint32_t i = 0; i < n; i++)
		entries[i] = (struct mr_decode_entry){.slot = slots[LARGE - n + i],
						      .position = 1,
						      .token = tokens[LARGE - n + i],
						      .flags = MR_DECODE_LOGITS};
	assert_int_equal(dev->work->decode(dev, entries, n, 1, ++tags), 0);
	for (uint32_t i = 0; i < n; i++) {
		struct mr_event e = next(dev);

		assert_int_equal(e.type, MR_EVENT_TOKEN);
		memcpy(logits, e.logits, dev->caps.vocab * sizeof(float));
	}
	finish(dev);
}

/* fast: a large batch in class P, near class D, where the class is for that; a small one in class D. */
static void fast_on(const struct mr_kernels *table)
{
	int tiles = table->prompt->tiles;
	struct mr_device *exact = device_of(table, MR_NUMERICS_EXACT, 2);
	struct mr_device *fast = device_of(table, MR_NUMERICS_FAST, 2);
	struct mr_slot slots[2][LARGE];
	float want[VOCAB], got[VOCAB];
	size_t bytes = exact->caps.vocab * sizeof(float);
	uint64_t before = mr_metric_read(MR_M_cpu_decode_tokens_p);

	assert_string_equal(fast->caps.class_prefill, table->prompt->numerics);
	assert_string_equal(fast->caps.class_decode, tiles ? "D|P-amx-bf16" : "D");
	assert_int_equal(fast->caps.class_bytes > exact->caps.class_bytes, tiles);
	for (uint32_t i = 0; i < LARGE; i++)
		for (int k = 0; k < 2; k++) {
			struct mr_device *dev = k ? fast : exact;

			slots[k][i] = open_slot(dev);
			assert_int_equal(dev->work->prefill(dev, slots[k][i], tokens, 1, 0, ++tags),
					 0);
			finish(dev);
		}
	step(exact, slots[0], LARGE, want);
	step(exact, slots[0], 1, got);
	assert_memory_equal(got, want, bytes);
	step(fast, slots[1], 16, got);
	assert_memory_equal(got, want, bytes);
	assert_int_equal(mr_metric_read(MR_M_cpu_decode_tokens_p), before);
	step(fast, slots[1], LARGE, got);
	assert_int_equal(mr_metric_read(MR_M_cpu_decode_tokens_p) - before, tiles ? LARGE : 0);
	assert_int_equal(memcmp(got, want, bytes) != 0, tiles);
	assert_true(distance(got, want, exact->caps.vocab) < 0.05);
	exact->admin->close(exact);
	fast->admin->close(fast);
}

static void fast(void **state)
{
	each_unit(fast_on);
}

/* Without a class P there is nothing to choose, and the caps say so. */
static void no_class_p(void **state)
{
	for (int n = MR_NUMERICS_EXACT; n <= MR_NUMERICS_FAST; n++) {
		struct mr_device *dev =
			device_of(mr_kernels_select("avx2"), (enum mr_numerics)n, 1);

		assert_string_equal(dev->caps.class_prefill, "D");
		assert_string_equal(dev->caps.class_decode, "D");
		assert_int_equal(dev->caps.class_bytes, 0);
		dev->admin->close(dev);
	}
}

static int setup(void **state)
{
	const struct mr_arena_options options = {.node = -1};

	if (mr_arena_create(&options, &arena) ||
	    mr_model_open(MR_TEST_DATA "/tiny.gguf", &model, NULL, 0))
		return -1;
	for (uint32_t i = 0; i < PROMPT + STEPS; i++)
		tokens[i] = i * 2654435761u % model->shape.vocab;
	return 0;
}

static int teardown(void **state)
{
	mr_model_close(model);
	mr_arena_destroy(arena);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prompts), cmocka_unit_test(company),    cmocka_unit_test(handover),
		cmocka_unit_test(fast),    cmocka_unit_test(no_class_p),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
