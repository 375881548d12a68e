// SPDX-License-Identifier: Apache-2.0
/*
 * The CPU backend on tests/tiny.gguf with 1 to 4 threads and every path: the same logits and tokens, bit for
 * bit, and the counter of the path that was asked for, and of no other, moves.
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
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/team.h"

#define PROMPT 270u /* more than one tile of attention */
#define BATCH  5u
#define STEPS  6u

static struct mr_arena *arena;
static struct mr_model *model;

static uint64_t fnv(uint64_t h, const void *data, size_t bytes)
{
	for (const unsigned char *p = data; bytes--; p++)
		h = (h ^ *p) * UINT64_C(0x100000001b3);
	return h;
}

/* Takes events until the work is done; returns @h with every token and its logits mixed in. */
static uint64_t finish(struct mr_device *dev, uint64_t h)
{
	for (;;) {
		struct pollfd p = {.fd = dev->wait_fd, .events = POLLIN};
		struct mr_event e;

		if (!dev->work->poll(dev, &e, 1)) {
			if (!dev->work->arm(dev))
				assert_int_equal(poll(&p, 1, 20000), 1);
			continue;
		}
		if (e.type == MR_EVENT_DONE) {
			assert_int_equal(e.status, 0);
			return h;
		}
		h = fnv(h, &e.token, sizeof(e.token));
		h = fnv(h, &e.logprob, sizeof(e.logprob));
		if (e.logits)
			h = fnv(h, e.logits, dev->caps.vocab * sizeof(float));
	}
}

/* A prompt each of different lengths, then steps of a batch of 5, 2 and 1. */
static uint64_t run(const char *kernels, uint32_t threads)
{
	const struct mr_cpu_options options = {
		.arena = arena,
		.slots = BATCH,
		.context = PROMPT + 32,
		.kernels = kernels,
		.numerics = MR_NUMERICS_STRICT,
		.cpu = -1,
		.threads = threads,
	};
	struct mr_decode_entry entries[BATCH];
	uint32_t tokens[PROMPT];
	struct mr_device *dev;
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	assert_int_equal(mr_cpu_open(&options, &dev), 0);
	assert_int_equal(dev->work->load(dev, model, NULL, NULL), 0);
	for (uint32_t i = 0; i < PROMPT; i++)
		tokens[i] = i * 2654435761u % dev->caps.vocab;
	for (uint32_t i = 0; i < BATCH; i++) {
		const struct mr_slot_config config = {.owner = i, .positions = PROMPT + 32};
		uint32_t n = PROMPT - 30 * i;

		entries[i] = (struct mr_decode_entry){
			.position = n, .token = i + 3, .flags = MR_DECODE_LOGITS};
		assert_int_equal(dev->mem->slot_open(dev, &config, &entries[i].slot), 0);
		assert_int_equal(dev->work->prefill(dev, entries[i].slot, tokens, n, 0, i), 0);
		h = finish(dev, h);
	}
	for (uint32_t batch = BATCH; batch; batch /= 2) {
		assert_int_equal(dev->work->decode(dev, entries, batch, STEPS, batch), 0);
		h = finish(dev, h);
	}
	dev->admin->close(dev);
	return h;
}

static void threads(void **state)
{
	static const enum mr_metric counters[] = {MR_M_cpu_jobs_scalar, MR_M_cpu_jobs_avx2,
						  MR_M_cpu_jobs_avx512, MR_M_cpu_jobs_amx};
	uint64_t want = run("scalar", 1);

	for (int k = 0; mr_kernels_all[k]; k++) {
		const char *name = mr_kernels_all[k]->name;

		if (!mr_kernels_runnable(mr_kernels_all[k])) {
			print_message("SKIPPED: this CPU cannot run %s\n", name);
			continue;
		}
		for (uint32_t t = 1; t <= 4; t++) {
			uint64_t before[4];

			for (int i = 0; i < 4; i++)
				before[i] = mr_metric_read(counters[i]);
			assert_true(run(name, t) == want);
			for (int i = 0; i < 4; i++)
				assert_int_equal(mr_metric_read(counters[i]) > before[i], i == k);
		}
	}
}

/* The environment names a path where the caller does not. */
static void environment(void **state)
{
	uint64_t before = mr_metric_read(MR_M_cpu_jobs_scalar);

	setenv("MR_CPU", "scalar", 1);
	run(NULL, 2);
	unsetenv("MR_CPU");
	assert_true(mr_metric_read(MR_M_cpu_jobs_scalar) > before);
}

static void refused(void **state)
{
	const struct mr_cpu_options options = {
		.arena = arena, .cpu = -1, .threads = MR_TEAM_THREADS_MAX + 1};
	struct mr_device *dev;

	assert_int_equal(mr_cpu_open(&options, &dev), MR_E_INVALID);
}

static int setup(void **state)
{
	const struct mr_arena_options options = {.node = -1};

	return mr_arena_create(&options, &arena) ||
	       mr_model_open(MR_TEST_DATA "/tiny.gguf", &model, NULL, 0);
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
		cmocka_unit_test(threads),
		cmocka_unit_test(environment),
		cmocka_unit_test(refused),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
