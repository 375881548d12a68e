// SPDX-License-Identifier: Apache-2.0
/*
 * KV_READ through the driver: KV comes back to the host as another slot can take it, and that slot then
 * decodes as the first one does. Nothing that an earlier sequence left in SRAM comes with it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "driver/lpu/lpu.h"
#include "driver/metrics.h"
#include "support/lpu_liar.h"
#include "support/lpu_rig.h"
#include "userlib/spec/crc32c.h"

static uint64_t tags = 100;

static void feed(struct mr_device *dev, struct mr_slot slot, uint32_t position, uint32_t n,
		 uint32_t first, struct mr_event *events)
{
	struct mr_event own[130];
	uint32_t ids[130];

	for (uint32_t i = 0; i < n; i++)
		ids[i] = first + i;
	struct mr_decode_entry entry = {slot, position, ids[0], ids + 1, n - 1, 0};
	events = events ? events : own;
	assert_int_equal(dev->work->decode(dev, &entry, 1, n, ++tags), 0);
	assert_int_equal(lpu_rig_wait(dev, tags, events, n + 1), n + 1);
	assert_int_equal(events[n].status, 0);
}

/* Reads and waits; the status of the DONE event, or of the call. */
static int read_back(struct mr_device *dev, struct mr_slot slot, uint32_t layer, uint32_t block,
		     uint32_t count, struct mr_slot to, const struct mr_kv_desc **descs)
{
	struct mr_event event;
	int status =
		mr_lpu_kv_read(dev, slot, layer, block, count, 7, to.generation, descs, ++tags);

	if (status)
		return status;
	assert_int_equal(lpu_rig_wait(dev, tags, &event, 1), 1);
	assert_int_equal(event.slot.index, slot.index);
	return event.status;
}

static void what_is_read_can_be_taken(void **state)
{
	const struct mr_kv_desc *descs;
	struct mr_event a[6], b[6], event;
	struct lpu_rig rig;

	lpu_rig_open(&rig, &(struct lpu_rig_options){0});
	struct mr_device *dev = rig.dev;
	uint32_t layers = rig.model->shape.layers, heads = rig.model->shape.kv_heads;
	size_t row = rig.model->shape.head_dim * 2, bytes = mr_kv_layer_bytes(&rig.model->shape);
	struct mr_slot from = lpu_rig_slot(dev, 64), to = lpu_rig_slot(dev, 64);
	feed(dev, to, 0, 3, 90, NULL); /* generations differ by more than the index */
	assert_int_equal(dev->mem->slot_close(dev, to), 0);
	feed(dev, from, 0, 60, 20, NULL);
	feed(dev, from, 36, 4, 150,
	     NULL); /* back, and so 40 positions: the end of block 2 is old */
	to = lpu_rig_slot(dev, 64);
	uint64_t copied = mr_metric_read(MR_M_copy_kv_lpu_back);
	for (uint32_t l = 0; l < layers; l++) {
		assert_int_equal(read_back(dev, from, l, 0, 3, to, &descs), 0);
		for (uint32_t i = 0; i < 3; i++) {
			const uint8_t *p = mr_arena_at(rig.arena, descs[i].iova, bytes);
			assert_non_null(p);
			assert_int_equal(descs[i].length, i == 2 ? 8 : 16);
			assert_int_equal(descs[i].crc32c, mr_crc32c(0, p, bytes));
			for (uint32_t h = 0; h < 2 * heads; h++)
				for (uint32_t t = 0; t < 16; t++) {
					const uint8_t *at = p + (h * 16 + t) * row;
					size_t k = 0;
					while (k < row && !at[k])
						k++;
					assert_int_equal(k == row, t >= descs[i].length);
				}
		}
		assert_int_equal(dev->mem->kv_import(dev, to, descs, 3, ++tags), 0);
		assert_int_equal(lpu_rig_wait(dev, tags, &event, 1), 1);
		assert_int_equal(event.status, 0);
	}
	assert_int_equal(mr_metric_read(MR_M_copy_kv_lpu_back) - copied, layers * 3 * bytes);
	feed(dev, from, 40, 5, 77, a);
	feed(dev, to, 40, 5, 77, b);
	for (uint32_t i = 0; i < 5; i++) {
		assert_int_equal(a[i].token, b[i].token);
		assert_memory_equal(&a[i].logprob, &b[i].logprob, sizeof(float));
	}
	struct mr_lpu_counters n;
	assert_int_equal(mr_lpu_log(dev, MR_LPU_LOG_COUNTERS, &n, sizeof(n)), sizeof(n));
	assert_int_equal(n.kv_read_blocks, layers * 3);
	lpu_rig_close(&rig);
}

static void reads_are_refused_by_name(void **state)
{
	const struct mr_kv_desc *descs;
	struct mr_event events[4];
	struct lpu_rig rig;

	lpu_rig_open(&rig, &(struct lpu_rig_options){0});
	struct mr_device *dev = rig.dev;
	struct mr_slot slot = lpu_rig_slot(dev, 64), old = slot;
	old.generation--;
	feed(dev, slot, 0, 20, 20, NULL);
	assert_int_equal(read_back(dev, old, 0, 0, 1, slot, &descs), MR_E_STALE);
	assert_int_equal(read_back(dev, slot, 2, 0, 1, slot, &descs), MR_E_RANGE);
	assert_int_equal(read_back(dev, slot, 0, 4, 1, slot, &descs), MR_E_RANGE);
	assert_int_equal(read_back(dev, slot, 0, 1, 4, slot, &descs), MR_E_RANGE);
	assert_int_equal(read_back(dev, slot, 0, 0, 0, slot, &descs), MR_E_RANGE);
	assert_int_equal(read_back(dev, slot, 0, 0, UINT32_MAX, slot, &descs), MR_E_RANGE);
	assert_int_equal(read_back(dev, slot, 0, 1, 2, slot, &descs), MR_E_TRUNCATED);
	assert_int_equal(read_back(dev, slot, 0, 1, 1, slot, &descs), 0);
	/* One at a time; a reset ends it. */
	assert_int_equal(mr_lpu_kv_read(dev, slot, 0, 0, 1, 7, 1, &descs, 5), 0);
	assert_int_equal(mr_lpu_kv_read(dev, slot, 0, 0, 1, 7, 1, &descs, 6), MR_E_BUSY);
	assert_int_equal(dev->admin->reset(dev), 0);
	assert_int_equal(dev->work->poll(dev, events, 4), 1);
	assert_int_equal(events[0].status, MR_E_DEVICE);
	assert_int_equal(events[0].tag, 5);
	slot = lpu_rig_slot(dev, 64);
	feed(dev, slot, 0, 20, 20, NULL);
	assert_int_equal(read_back(dev, slot, 1, 0, 2, slot, &descs), 0);
	lpu_rig_close(&rig);
}

static uint32_t spoil; /* which field of the descriptor is wrong, 0 = none */

static struct mr_kv_desc *written;

static void answer(struct liar *l, const struct mr_lpu_cmd_kv_read *c)
{
	struct mr_kv_desc *d = liar_at(l, c->descs_iova);

	*d = (struct mr_kv_desc){
		.iova = c->iova + (spoil == 1),
		.block = c->block + (spoil == 2),
		.layer = (uint16_t)(c->layer + (spoil == 3)),
		.length = (uint16_t)(spoil == 4 ? 17 : spoil != 5),
		.owner = c->owner + (spoil == 6),
		.generation = c->receiver + (spoil == 7),
		.reserved = spoil == 8,
	};
	written = d;
	liar_say(l, 1, c->head.request, 0, 1 + (spoil == 9));
}

static void a_lie_is_seen(void **state)
{
	struct mr_arena_options arena_options = {.node = -1, .no_huge = 1};
	const struct mr_kv_desc *descs;
	static struct liar liar;
	struct mr_arena *arena;
	struct mr_model *model;
	struct mr_device *dev;

	assert_int_equal(mr_model_open(MR_TEST_DATA "/tiny.gguf", &model, NULL, 0), 0);
	assert_int_equal(mr_arena_create(&arena_options, &arena), 0);
	for (int can = 0; can < 2; can++) {
		struct mr_lpu_identify id = liar.id;
		memset(&liar, 0, sizeof(liar));
		liar.id = id;
		if (can)
			liar.id.opcodes_io |= 1ull << (MR_LPU_KV_READ & 63);
		liar.read = answer;
		assert_int_equal(liar_open(&liar, arena, &dev), 0);
		assert_int_equal(dev->work->load(dev, model, NULL, NULL), 0);
		struct mr_slot slot = lpu_rig_slot(dev, 64);
		for (spoil = 0; spoil < 10; spoil++) {
			assert_int_equal(read_back(dev, slot, 1, 2, 1, slot, &descs),
					 !can    ? MR_E_NOT_SUPPORTED
					 : spoil ? MR_E_PROTOCOL
						 : 0);
			if (!can || spoil)
				continue;
			/* What was checked stays, whatever the device writes afterwards. */
			memset(written, 0xff, sizeof(*written));
			assert_int_equal(descs->block, 2);
			assert_int_equal(descs->reserved, 0);
		}
		dev->admin->close(dev);
	}
	mr_arena_destroy(arena);
	mr_model_close(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_read_can_be_taken),
		cmocka_unit_test(reads_are_refused_by_name),
		cmocka_unit_test(a_lie_is_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
