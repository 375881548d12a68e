// SPDX-License-Identifier: Apache-2.0
/*
 * The LPU driver as a device: KV from the CPU backend, slots and queues that run out, reset, sleeping; and
 * against a device that lies.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "driver/cpu/cpu.h"
#include "driver/lpu/lpu.h"
#include "driver/metrics.h"
#include "support/lpu_liar.h"
#include "support/lpu_rig.h"

#define PROMPT 37u
#define STEPS  60u

static uint64_t tags = 1000;

static int import_all(struct mr_device *from, struct mr_device *to, struct mr_slot source,
		      struct mr_slot slot, uint32_t owner, uint32_t layers)
{
	struct mr_kv_desc descs[MR_KV_DESCS_MAX];
	struct mr_event event;

	for (uint32_t l = 0; l < layers; l++) {
		int n = from->mem->kv_export(from, source, l, 0, owner, slot.generation, descs,
					     MR_KV_DESCS_MAX);
		assert_true(n > 0);
		assert_int_equal(to->mem->kv_import(to, slot, descs, (uint32_t)n, ++tags), 0);
		assert_int_equal(lpu_rig_wait(to, tags, &event, 1), 1);
		if (event.status)
			return event.status;
	}
	return 0;
}

struct run {
	uint32_t id[STEPS];
	float logprob[STEPS];
	float *logits;
};

/* STEPS tokens, in pieces as large as the device takes. */
static void take(struct mr_device *dev, struct mr_slot slot, uint32_t token, struct run *run)
{
	uint32_t vocab = dev->caps.vocab, n = 0;

	run->logits = calloc((size_t)STEPS * vocab, sizeof(float));
	while (n < STEPS) {
		uint32_t left = STEPS - n, end;
		uint32_t steps = left < dev->caps.steps_max ? left : dev->caps.steps_max;
		struct mr_decode_entry entry = {slot, PROMPT - 1 + n,  token, NULL,
						0,    MR_DECODE_LOGITS};
		struct mr_event event = {.type = MR_EVENT_TOKEN};
		assert_int_equal(dev->work->decode(dev, &entry, 1, steps, ++tags), 0);
		end = n + steps;
		while (event.type != MR_EVENT_DONE) {
			int got = dev->work->poll(dev, &event, 1);
			assert_true(got >= 0);
			if (!got || event.type == MR_EVENT_DONE) {
				event.type = got ? event.type : MR_EVENT_TOKEN;
				continue;
			}
			assert_true(n < end);
			run->id[n] = token = event.token;
			run->logprob[n] = event.logprob;
			memcpy(run->logits + (size_t)n++ * vocab, event.logits,
			       vocab * sizeof(float));
		}
		assert_int_equal(event.status, 0);
		assert_int_equal(n, end);
	}
}

/* CPU prefills; CPU and LPU decode from that KV: the same ids, log-probabilities and logits. */
static void the_cpu_hands_over(void **state)
{
	static const struct mr_sampling sampling[] = {
		{.seed = 0},
		{.seed = 3, .temperature = 1.5f, .top_k = 50, .top_p = 0.9f},
		{.seed = 4, .temperature = 0.8f, .repeat = 1.3f, .presence = 0.2f, .min_p = 0.01f},
	};
	struct lpu_rig rig;
	struct mr_device *cpu, *lpu;

	lpu_rig_open(&rig, &(struct lpu_rig_options){.chips = 2});
	lpu = rig.dev;
	struct mr_cpu_options o = {.arena = rig.arena, .slots = 4, .context = 128, .cpu = -1};
	assert_int_equal(mr_cpu_open(&o, &cpu), 0);
	assert_int_equal(cpu->work->load(cpu, rig.model, NULL, NULL), 0);
	for (size_t k = 0; k < sizeof(sampling) / sizeof(sampling[0]); k++) {
		struct mr_slot_config config = {
			.owner = 11, .positions = 128, .sampling = sampling[k]};
		uint32_t prompt[PROMPT];
		struct mr_slot here, there;
		struct mr_event event;
		struct run a, b;
		for (uint32_t i = 0; i < PROMPT; i++)
			prompt[i] = 20 + i * 7 % 200;
		assert_int_equal(cpu->mem->slot_open(cpu, &config, &here), 0);
		assert_int_equal(lpu->mem->slot_open(lpu, &config, &there), 0);
		assert_int_equal(cpu->work->prefill(cpu, here, prompt, PROMPT - 1, 0, ++tags), 0);
		assert_int_equal(lpu_rig_wait(cpu, tags, &event, 1), 1);
		assert_int_equal(import_all(cpu, lpu, here, there, 12, rig.model->shape.layers),
				 MR_E_STALE);
		assert_int_equal(import_all(cpu, lpu, here, there, 11, rig.model->shape.layers), 0);
		take(lpu, there, prompt[PROMPT - 1], &b);
		take(cpu, here, prompt[PROMPT - 1], &a);
		assert_memory_equal(a.id, b.id, sizeof(a.id));
		assert_memory_equal(a.logprob, b.logprob, sizeof(a.logprob));
		assert_memory_equal(a.logits, b.logits,
				    (size_t)STEPS * lpu->caps.vocab * sizeof(float));
		free(a.logits);
		free(b.logits);
		assert_int_equal(cpu->mem->slot_close(cpu, here), 0);
		assert_int_equal(lpu->mem->slot_close(lpu, there), 0);
	}
	assert_true(mr_metric_read(MR_M_copy_kv_lpu) > 0);
	cpu->admin->close(cpu);
	lpu_rig_close(&rig);
}

static void slots_run_out_by_name(void **state)
{
	struct lpu_rig rig;
	struct mr_slot slot[64], again;
	struct mr_slot_config config = {.owner = 1, .positions = 16};

	lpu_rig_open(&rig, &(struct lpu_rig_options){.slots = 8});
	struct mr_device *dev = rig.dev;
	assert_int_equal(dev->caps.slots, 8);
	config.positions = dev->caps.context + 1;
	assert_int_equal(dev->mem->slot_open(dev, &config, &again), MR_E_CONTEXT_FULL);
	config.positions = 0;
	assert_int_equal(dev->mem->slot_open(dev, &config, &again), MR_E_RANGE);
	config.positions = 16;
	config.sampling.temperature = -1;
	assert_int_equal(dev->mem->slot_open(dev, &config, &again), MR_E_RANGE);
	config.sampling.temperature = 0;
	for (uint32_t i = 0; i < 8; i++)
		assert_int_equal(dev->mem->slot_open(dev, &config, &slot[i]), 0);
	assert_int_equal(dev->mem->slot_open(dev, &config, &again), MR_E_FULL);
	assert_int_equal(dev->work->load(dev, rig.model, NULL, NULL), MR_E_BUSY);
	assert_int_equal(dev->mem->slot_close(dev, slot[3]), 0);
	assert_int_equal(dev->mem->slot_close(dev, slot[3]), MR_E_STALE);
	assert_int_equal(dev->mem->slot_open(dev, &config, &again), 0);
	assert_int_equal(again.index, slot[3].index);
	assert_int_not_equal(again.generation, slot[3].generation);
	/* What names the old generation is refused, what names the new one works. */
	struct mr_decode_entry entry = {slot[3], 0, 20};
	struct mr_event event[2];
	assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 1), MR_E_STALE);
	assert_int_equal(dev->mem->kv_import(dev, slot[3], NULL, 1, 1), MR_E_STALE);
	entry.slot = again;
	assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 9), 0);
	assert_int_equal(lpu_rig_wait(dev, 9, event, 2), 2);
	assert_int_equal(event[1].status, 0);
	entry.token = dev->caps.vocab;
	assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 1), MR_E_RANGE);
	entry.token = 1;
	entry.position = 16;
	assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 1), MR_E_CONTEXT_FULL);
	struct mr_telemetry t;
	assert_int_equal(dev->admin->telemetry(dev, &t), 0);
	assert_int_equal(t.kv_blocks_used, 8);
	assert_int_equal(t.records, 1);
	lpu_rig_close(&rig);
}

/*
 * A queue that is full says so; nothing that was taken is lost, and closing always has its place. Often
 * enough for every ring to go round.
 */
static void a_full_queue_says_so(void **state)
{
	struct lpu_rig rig;
	struct mr_event events[64];

	lpu_rig_open(&rig, &(struct lpu_rig_options){.slots = 4});
	struct mr_device *dev = rig.dev;
	for (int round = 0; round < 4; round++) {
		uint32_t posted = 0, done = 0, records = 0, position[4] = {0};
		struct mr_slot slot[4];
		int status;
		for (uint32_t i = 0; i < 4; i++)
			slot[i] = lpu_rig_slot(dev, 128);
		do {
			uint32_t i = posted % 4;
			struct mr_decode_entry entry = {slot[i], position[i] % 120, 20 + i};
			status = dev->work->decode(dev, &entry, 1, 1, posted);
			position[i] += !status;
			posted += !status;
		} while (!status);
		assert_int_equal(status, MR_E_FULL);
		assert_true(posted > 500);
		for (uint32_t i = 0; i < 4; i++)
			assert_int_equal(dev->mem->slot_close(dev, slot[i]), 0);
		while (done < posted) {
			int n = dev->work->poll(dev, events, 64);
			assert_true(n >= 0);
			for (int i = 0; i < n; i++) {
				assert_int_equal(events[i].status, 0);
				assert_int_equal(events[i].tag, done);
				done += events[i].type == MR_EVENT_DONE;
				records += events[i].type == MR_EVENT_TOKEN;
			}
		}
		assert_int_equal(records, posted);
	}
	lpu_rig_close(&rig);
}

static void reset_ends_what_was_under_way(void **state)
{
	struct lpu_rig rig;
	struct mr_event events[STEPS + 4];
	uint32_t done = 0;

	lpu_rig_open(&rig, &(struct lpu_rig_options){0});
	struct mr_device *dev = rig.dev;
	for (int turn = 0; turn < 3; turn++) {
		struct mr_slot slot = lpu_rig_slot(dev, 128);
		struct mr_decode_entry entry = {slot, 0, 20};
		for (uint64_t tag = 0; tag < 3; tag++)
			assert_int_equal(dev->work->decode(dev, &entry, 1, STEPS, tag), 0);
		assert_int_equal(dev->admin->reset(dev), 0);
		/* Each accepted decode has one DONE, with the reset's status, before anything new. */
		int n = dev->work->poll(dev, events, STEPS);
		assert_int_equal(n, 3);
		for (int i = 0; i < 3; i++) {
			assert_int_equal(events[i].type, MR_EVENT_DONE);
			assert_int_equal(events[i].status, MR_E_DEVICE);
			assert_int_equal(events[i].tag, i);
			done++;
		}
		assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 9), MR_E_STALE);
		slot = lpu_rig_slot(dev, 128);
		entry.slot = slot;
		assert_int_equal(dev->work->decode(dev, &entry, 1, STEPS, 10), 0);
		assert_int_equal(lpu_rig_wait(dev, 10, events, STEPS + 4), STEPS + 1);
		assert_int_equal(events[STEPS].status, 0);
		assert_int_equal(dev->mem->slot_close(dev, slot), 0);
	}
	assert_int_equal(done, 9);
	lpu_rig_close(&rig);
}

static void sleeping_until_the_next_event(void **state)
{
	struct lpu_rig rig;
	struct mr_event event;
	uint32_t seen = 0;

	lpu_rig_open(&rig, &(struct lpu_rig_options){0});
	struct mr_device *dev = rig.dev;
	struct mr_slot slot = lpu_rig_slot(dev, 128);
	struct pollfd fd = {.fd = dev->wait_fd, .events = POLLIN};
	for (uint32_t i = 0; i < 100; i++) {
		struct mr_decode_entry entry = {slot, i, 20};
		int is_done = 0;
		assert_int_equal(dev->work->decode(dev, &entry, 1, 1, i), 0);
		while (!is_done) {
			if (!dev->work->arm(dev))
				assert_int_equal(poll(&fd, 1, 10000), 1);
			while (dev->work->poll(dev, &event, 1) > 0) {
				is_done |= event.type == MR_EVENT_DONE;
				seen++;
			}
		}
	}
	assert_int_equal(seen, 200);
	/* Nothing under way: armed, and nothing comes. */
	while (dev->work->arm(dev))
		dev->work->poll(dev, &event, 1);
	assert_int_equal(poll(&fd, 1, 20), 0);
	lpu_rig_close(&rig);
}

/* ---- a device that lies ------------------------------------------------------------------------- */

static void honest(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
	for (uint32_t i = 0; i < c->steps; i++)
		liar_put(l, c, i);
	liar_say(l, 1, c->head.request, 0, c->steps);
}

static void wrong_slot(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
	liar_put(l, c, 0)->slot = 3;
	liar_say(l, 1, c->head.request, 0, 1);
}
static void wrong_generation(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
	liar_put(l, c, 0)->generation ^= 1;
	liar_say(l, 1, c->head.request, 0, 1);
}
static void wrong_position(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
	liar_put(l, c, 7);
	liar_say(l, 1, c->head.request, 0, 1);
}
static void wrong_token(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
	liar_put(l, c, 0)->token = 0xffffffff;
	liar_say(l, 1, c->head.request, 0, 1);
}
static void unknown_flag(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
	liar_put(l, c, 0)->status = 0x8000;
	liar_say(l, 1, c->head.request, 0, 1);
}
static void too_many(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
	for (uint32_t i = 0; i < c->steps + 5; i++)
		liar_put(l, c, i);
	liar_say(l, 1, c->head.request, 0, c->steps + 5);
}
static void too_few(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
	liar_say(l, 1, c->head.request, 0, c->steps);
}
static void half(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
	liar_put(l, c, 0);
	liar_say(l, 1, c->head.request, 0, 1);
}
static void wrong_request(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
	liar_say(l, 1, c->head.request + 1, 0, 0);
}
static void unknown_status(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
	liar_say(l, 1, c->head.request, 60000, 0);
}
static void fails_midway(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
	liar_put(l, c, 0);
	liar_say(l, 1, c->head.request, -MR_E_DEVICE, 1);
}

static uint64_t bad_entries(void)
{
	return mr_metric_read(MR_M_lpu_bad_completion) + mr_metric_read(MR_M_lpu_bad_record);
}

static void a_lie_is_seen_and_counted(void **state)
{
	static const struct {
		void (*decode)(struct liar *l, const struct mr_lpu_cmd_decode *c);
		int status, tokens, counts;
	} lies[] = {
		{honest, 0, 3, 0},
		{wrong_slot, MR_E_PROTOCOL, 0, 1},
		{wrong_generation, MR_E_PROTOCOL, 0, 1},
		{wrong_position, MR_E_PROTOCOL, 0, 1},
		{wrong_token, MR_E_PROTOCOL, 0, 1},
		{unknown_flag, MR_E_PROTOCOL, 0, 1},
		{too_many, MR_E_PROTOCOL, 3, 1},
		{too_few, MR_E_PROTOCOL, 0, 1},
		{half, MR_E_PROTOCOL, 1, 1},
		{wrong_request, MR_E_PROTOCOL, 0, 1},
		{unknown_status, MR_E_PROTOCOL, 0, 1},
		{fails_midway, MR_E_DEVICE, 1, 0},
		{honest, 0, 3, 0},
	};
	struct mr_arena_options arena_options = {.node = -1, .no_huge = 1};
	static struct liar liar;
	struct mr_arena *arena;
	struct mr_model *model;
	struct mr_device *dev;

	assert_int_equal(mr_model_open(MR_TEST_DATA "/tiny.gguf", &model, NULL, 0), 0);
	assert_int_equal(mr_arena_create(&arena_options, &arena), 0);
	assert_int_equal(liar_open(&liar, arena, &dev), 0);
	assert_int_equal(dev->work->load(dev, model, NULL, NULL), 0);
	struct mr_slot slot = lpu_rig_slot(dev, 64);
	struct mr_decode_entry entry = {slot, 3, 20};
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		uint64_t bad = bad_entries();
		struct mr_event events[16];
		int tokens = 0;
		liar.decode = lies[i].decode;
		assert_int_equal(dev->work->decode(dev, &entry, 1, 3, i), 0);
		uint32_t n = lpu_rig_wait(dev, i, events, 16);
		for (uint32_t k = 0; k + 1 < n; k++)
			tokens += events[k].type == MR_EVENT_TOKEN;
		if (events[n - 1].status != lies[i].status || tokens != lies[i].tokens ||
		    (bad_entries() > bad) != lies[i].counts)
			fail_msg("lie %zu: %s, %d tokens, %llu counted", i,
				 mr_status_name(events[n - 1].status), tokens,
				 (unsigned long long)bad_entries() - bad);
	}
	dev->admin->close(dev);
	mr_arena_destroy(arena);
	mr_model_close(model);
}

static void silent(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
}

static void a_device_that_is_no_lpu_is_not_opened(void **state)
{
	struct mr_arena_options arena_options = {.node = -1, .no_huge = 1};
	static struct liar liar;
	struct mr_arena *arena;
	struct mr_model *model;
	struct mr_device *dev;
	struct mr_event event;
	int status = 0;

	assert_int_equal(mr_model_open(MR_TEST_DATA "/tiny.gguf", &model, NULL, 0), 0);
	assert_int_equal(mr_arena_create(&arena_options, &arena), 0);
	assert_int_equal(liar_open(&liar, arena, &dev), 0);
	struct mr_lpu_identify good = liar.id;
	dev->admin->close(dev);
#define IDENTITY(change, want)                                         \
	do {                                                           \
		memset(&liar, 0, sizeof(liar));                        \
		liar.id = good;                                        \
		change;                                                \
		assert_int_equal(liar_open(&liar, arena, &dev), want); \
	} while (0)
	IDENTITY(liar.id.version = 2 << 16, MR_E_VERSION);
	IDENTITY(liar.id.chips = 65, MR_E_PROTOCOL);
	IDENTITY(liar.id.slots_max = 0, MR_E_PROTOCOL);
	IDENTITY(liar.id.batch_max = 0, MR_E_PROTOCOL);
	IDENTITY(memset(liar.id.product, 'x', 32), MR_E_PROTOCOL);
	IDENTITY(liar.id.kv_type = 2, MR_E_NOT_SUPPORTED);
	IDENTITY(liar.id.chip_bytes--, MR_E_PROTOCOL);
	/* One that takes a command and then falls silent is given up after the time limit. */
	IDENTITY((void)0, 0);
	liar.decode = silent;
	assert_int_equal(dev->work->load(dev, model, NULL, NULL), 0);
	struct mr_decode_entry entry = {lpu_rig_slot(dev, 64), 0, 20};
	assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 1), 0);
	time_t until = time(NULL) + 20;
	while (!status && time(NULL) < until)
		status = dev->work->poll(dev, &event, 1);
	assert_int_equal(status, MR_E_TIMEOUT);
	/* A reset brings it back, and the command that it swallowed has its end. */
	liar.decode = honest;
	assert_int_equal(dev->admin->reset(dev), 0);
	assert_int_equal(dev->work->poll(dev, &event, 1), 1);
	assert_int_equal(event.status, MR_E_DEVICE);
	entry.slot = lpu_rig_slot(dev, 64);
	assert_int_equal(dev->work->decode(dev, &entry, 1, 1, 2), 0);
	assert_int_equal(lpu_rig_wait(dev, 2, (struct mr_event[2]){{0}}, 2), 2);
	dev->admin->close(dev);
	mr_arena_destroy(arena);
	mr_model_close(model);
}

/* DONE of a FENCE comes behind all that was posted before it, and with room for none it is refused. */
static void a_fence_ends_last(void **state)
{
	struct lpu_rig rig;
	struct mr_event events[8];

	lpu_rig_open(&rig, &(struct lpu_rig_options){.context = 64, .slots = 2, .batch = 2});
	struct mr_device *dev = rig.dev;
	struct mr_slot slot = lpu_rig_slot(dev, 16);
	struct mr_decode_entry entry = {.slot = slot, .token = 1};
	assert_int_equal(dev->work->decode(dev, &entry, 1, 3, 1), 0);
	assert_int_equal(mr_lpu_fence(dev, 2), 0);
	assert_int_equal(lpu_rig_wait(dev, 2, events, 8), 5); /* 3 tokens, two ends */
	assert_int_equal(events[3].type, MR_EVENT_DONE);
	assert_int_equal(events[3].tag, 1);
	assert_int_equal(events[4].type, MR_EVENT_DONE);
	assert_int_equal(events[4].status, 0);
	uint32_t posted = 0;
	while (!mr_lpu_fence(dev, 100 + posted))
		assert_true(++posted < 100000);
	assert_int_equal(mr_lpu_fence(dev, 1), MR_E_FULL);
	assert_true(posted > 500);
	for (uint32_t i = 0; i < posted; i++) {
		assert_int_equal(lpu_rig_wait(dev, 100 + i, events, 1), 1);
		assert_int_equal(events[0].tag, 100 + i);
		assert_int_equal(events[0].status, 0);
	}
	assert_int_equal(dev->mem->slot_close(dev, slot), 0);
	lpu_rig_close(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_cpu_hands_over),
		cmocka_unit_test(slots_run_out_by_name),
		cmocka_unit_test(a_full_queue_says_so),
		cmocka_unit_test(a_fence_ends_last),
		cmocka_unit_test(reset_ends_what_was_under_way),
		cmocka_unit_test(sleeping_until_the_next_event),
		cmocka_unit_test(a_lie_is_seen_and_counted),
		cmocka_unit_test(a_device_that_is_no_lpu_is_not_opened),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
