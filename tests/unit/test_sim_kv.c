// SPDX-License-Identifier: Apache-2.0
/*
 * KV_FORK, KV_READ and SCORE of the simulated device against lpu_spec.h, by a host that is not the driver: refusals
 * by name, blocks counted, credit, cycles against the CLAIM, two queues at one slot.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/lpu_rig.h"

static struct mr_lpu_slot_param *param(struct raw_loaded *l, uint32_t positions)
{
	struct mr_lpu_slot_param *p = (void *)(l->h.mem + 20480);

	memset(p, 0, sizeof(*p));
	p->owner = 7;
	p->positions = positions;
	return p;
}

static struct mr_lpu_cmd_kv_fork fork_of(struct raw_loaded *l, uint32_t from, uint32_t generation,
					 uint32_t positions, uint32_t to)
{
	return (struct mr_lpu_cmd_kv_fork){
		.head = {MR_LPU_KV_FORK, 0, 30},
		.slot = to,
		.generation = 50 + to,
		.param_iova = raw_iova(&l->h, param(l, 64)),
		.param_bytes = sizeof(struct mr_lpu_slot_param),
		.from = from,
		.from_generation = generation,
		.positions = positions,
	};
}

static struct mr_lpu_cmd_score score_of(struct raw_loaded *l, uint32_t slot, uint32_t generation,
					uint32_t position, uint32_t count)
{
	uint32_t *ids = (void *)(l->h.mem + 28672);

	for (uint32_t i = 0; i < count && i < 128; i++)
		ids[i] = 20 + i;
	return (struct mr_lpu_cmd_score){
		.head = {MR_LPU_SCORE, 0, 31},
		.slot = slot,
		.generation = generation,
		.tokens_iova = raw_iova(&l->h, ids),
		.count = count,
		.position = position,
	};
}

/* Takes every record of @want and gives the credit back; the last one's cycle. */
static uint64_t take(struct raw_loaded *l, uint32_t want)
{
	struct mr_lpu_record r = {0};

	for (uint32_t i = 0; i < want; i++) {
		assert_true(raw_record(l, &r));
		l->h.port.ops->doorbell(l->h.port.ctx, 1, MR_LPU_DB_RECORD_HEAD, l->h.record_head);
	}
	return r.cycle;
}

/* KV for positions 0 to @n - 1 of @slot. */
static void fill(struct raw_loaded *l, uint32_t slot, uint32_t generation, uint32_t n)
{
	struct mr_lpu_cmd_score c = score_of(l, slot, generation, 0, n + 1);

	raw_post(&l->h, 1, &c);
	take(l, n);
	struct mr_lpu_completion done = raw_complete(&l->h, 1, 1);
	assert_int_equal(done.status, 0);
	assert_int_equal(done.result, n);
}

static int kv_free(struct raw_loaded *l, uint32_t slot, uint32_t generation)
{
	struct mr_lpu_cmd_kv_free c = {
		.head = {MR_LPU_KV_FREE, 0, 2}, .slot = slot, .generation = generation};

	return raw_do(&l->h, 1, &c, NULL);
}

#define CHECK(make, change, want)                                         \
	do {                                                              \
		__typeof__(make) c = make;                                \
		change;                                                   \
		int got = raw_do(&l.h, 1, &c, NULL);                      \
		if (got != (want))                                        \
			fail_msg("%s: %s", #change, mr_status_name(got)); \
	} while (0)

static void forks_are_checked(void **state)
{
	struct raw_loaded l;

	raw_load(&l, 1);
	uint32_t vocab = l.model->shape.vocab;
	struct mr_lpu_slot_param *p = param(&l, 64);
	assert_int_equal(raw_slot_set(&l, 0, 5, 64), 0);
	assert_int_equal(raw_slot_set(&l, 1, 6, 64), 0);
	fill(&l, 0, 5, 40);
	uint64_t used = raw_counters(&l.h).kv_blocks_used, copies = 0;
#define FORK(change, want) CHECK(fork_of(&l, 0, 5, 40, 2), change, want)
	FORK(c.from_generation = 4, MR_E_STALE);
	FORK(c.from = 9, MR_E_STALE);
	FORK(c.from = 100000, MR_E_RANGE);
	FORK(c.slot = 100000, MR_E_RANGE);
	FORK(c.slot = 0, MR_E_EXISTS);
	FORK(c.slot = 1, MR_E_EXISTS);
	FORK(c.positions = 41, MR_E_TRUNCATED);
	FORK(c.positions = 65, MR_E_CONTEXT_FULL);
	FORK(c.positions = UINT32_MAX, MR_E_CONTEXT_FULL);
	FORK(p->positions = 39, MR_E_CONTEXT_FULL);
	FORK(p->positions = 129, MR_E_CONTEXT_FULL);
	FORK(p->positions = 0, MR_E_RANGE);
	FORK(c.param_bytes = 127, MR_E_RANGE);
	FORK(c.param_iova = 64, MR_E_DMA_FAULT);
	FORK(p->reserved[4] = 1, MR_E_INVALID);
	FORK(p->reserved0 = 1, MR_E_INVALID);
	FORK(p->history_iova = RAW_IOVA, MR_E_INVALID);
	FORK(p->history_count = 65, MR_E_RANGE);
	FORK(p->history_count = 1, MR_E_DMA_FAULT);
	*(uint32_t *)(void *)(l.h.mem + 24576) = vocab;
	FORK((p->history_count = 1, p->history_iova = RAW_IOVA + 24576), MR_E_RANGE);
	FORK(p->sampling.top_p = 7, MR_E_RANGE);
	FORK(c.reserved[2] = 1, MR_E_INVALID);
	assert_int_equal(raw_counters(&l.h).kv_blocks_used, used);
	assert_int_equal(raw_counters(&l.h).forks, 0);

	/* Blocks shared, copied, reserved: 2 + 1 + 1 of four. Then all of the parent, whose end is a block's. */
	FORK((void)0, 0);
	struct mr_lpu_counters n = raw_counters(&l.h);
	assert_int_equal(n.kv_blocks_used, used + 2);
	assert_int_equal(n.kv_blocks_shared, 2);
	assert_int_equal(n.forks, 1);
	assert_int_equal(n.fork_copies, ++copies);
	FORK((c.slot = 3, c.positions = 32), 0);
	n = raw_counters(&l.h);
	assert_int_equal(n.kv_blocks_used, used + 4);
	assert_int_equal(n.kv_blocks_shared, 2);
	assert_int_equal(n.fork_copies, copies);
	FORK((c.slot = 4, c.positions = 0), 0); /* of nothing: a slot */
	assert_int_equal(raw_counters(&l.h).kv_blocks_used, used + 8);
	FORK((c.slot = 5, c.positions = 16, c.from = 2, c.from_generation = 52), 0); /* of a fork */
	assert_int_equal(raw_counters(&l.h).kv_blocks_used, used + 11);

	/* A write into what is shared is refused, whichever command and slot; beyond it is not. */
	struct mr_lpu_decode_entry *e = (void *)(l.h.mem + 24576);
	struct mr_lpu_cmd_decode d = {.head = {MR_LPU_DECODE, 0, 3},
				      .entries_iova = RAW_IOVA + 24576,
				      .count = 1,
				      .steps = 1};
	struct mr_kv_desc *desc = (void *)(l.h.mem + 24576);
	struct mr_lpu_cmd_kv_write w = {
		.head = {MR_LPU_KV_WRITE, 0, 4}, .descs_iova = RAW_IOVA + 24576, .count = 1};
	static const struct {
		uint32_t slot, generation, shared;
	} holders[] = {{0, 5, 32}, {2, 52, 32}, {3, 52, 32}, {5, 52, 16}};
	for (int i = 0; i < 4; i++) {
		memset(e, 0, sizeof(*e));
		e->slot = holders[i].slot;
		e->generation = holders[i].generation;
		e->position = holders[i].shared - 1;
		assert_int_equal(raw_do(&l.h, 1, &d, NULL), MR_E_BUSY);
		e->position = 0;
		assert_int_equal(raw_do(&l.h, 1, &d, NULL), MR_E_BUSY);
		CHECK(score_of(&l, holders[i].slot, holders[i].generation, holders[i].shared - 1,
			       2),
		      (void)0, MR_E_BUSY);
		*desc = (struct mr_kv_desc){.iova = RAW_IOVA + 65536,
					    .block = holders[i].shared / 16 - 1,
					    .length = 16,
					    .owner = 7,
					    .generation = holders[i].generation};
		w.slot = holders[i].slot;
		w.generation = holders[i].generation;
		assert_int_equal(raw_do(&l.h, 1, &w, NULL), MR_E_BUSY);
		struct mr_lpu_cmd_score on =
			score_of(&l, holders[i].slot, holders[i].generation, holders[i].shared, 3);
		raw_post(&l.h, 1, &on);
		take(&l, 2);
		assert_int_equal(raw_complete(&l.h, 1, 1).status, 0);
	}
	/* Each block goes with its last holder, in whatever order they close. */
	assert_int_equal(kv_free(&l, 0, 5), 0);
	assert_int_equal(kv_free(&l, 2, 52), 0);
	assert_int_equal(kv_free(&l, 4, 52), 0);
	assert_int_equal(kv_free(&l, 4, 52), MR_E_STALE);
	n = raw_counters(&l.h);
	assert_int_equal(n.kv_blocks_used, 4 + 4 + 3);
	assert_int_equal(n.kv_blocks_shared, 1);
	assert_int_equal(kv_free(&l, 5, 52), 0);
	assert_int_equal(raw_counters(&l.h).kv_blocks_shared, 0);
	CHECK(fork_of(&l, 3, 52, 34, 2), (void)0, 0);
	assert_int_equal(kv_free(&l, 3, 52), 0);
	fill(&l, 2, 52, 40); /* alone again: all of it may be written */

	/* Room is needed beyond the shared blocks only. */
	uint32_t slot = 10;
	while (!raw_slot_set(&l, slot, 9, 128))
		slot++;
	assert_true(slot < 256);
	n = raw_counters(&l.h);
	uint64_t room = n.kv_blocks - n.kv_blocks_used;
	assert_true(room < 8);
	CHECK(fork_of(&l, 2, 52, 40, 3), p->positions = 128, room < 6 ? MR_E_KV_EXHAUSTED : 0);
	kv_free(&l, 3, 52);
	while (!raw_slot_set(&l, slot, 9, 1))
		slot++;
	CHECK(fork_of(&l, 2, 52, 40, 3), p->positions = 40, MR_E_KV_EXHAUSTED);
	CHECK(fork_of(&l, 2, 52, 32, 3), p->positions = 32, 0);
	raw_unload(&l);
}

static void scores_are_checked(void **state)
{
	struct raw_loaded l;

	raw_load(&l, 2);
	uint32_t vocab = l.model->shape.vocab;
	assert_int_equal(raw_slot_set(&l, 0, 5, 64), 0);
	uint32_t *ids = (void *)(l.h.mem + 28672);
#define SCORE(change, want) CHECK(score_of(&l, 0, 5, 0, 3), change, want)
	SCORE(c.generation = 4, MR_E_STALE);
	SCORE(c.slot = 1, MR_E_STALE);
	SCORE(c.slot = 100000, MR_E_RANGE);
	SCORE(c.count = 0, MR_E_RANGE);
	SCORE(c.count = 1, MR_E_RANGE);
	SCORE(c.count = 100000, MR_E_RANGE);
	SCORE(c.count = 66, MR_E_CONTEXT_FULL);
	SCORE(c.position = 1, MR_E_TRUNCATED);
	SCORE(c.position = 63, MR_E_CONTEXT_FULL);
	SCORE(c.position = UINT32_MAX, MR_E_CONTEXT_FULL);
	SCORE(c.tokens_iova = 64, MR_E_DMA_FAULT);
	SCORE(ids[0] = vocab, MR_E_RANGE);
	SCORE(ids[2] = vocab, MR_E_RANGE);
	SCORE(c.reserved[3] = 1, MR_E_INVALID);
	struct mr_lpu_counters n = raw_counters(&l.h);
	assert_int_equal(n.records, 0);
	assert_int_equal(n.score_passes, 0);
	raw_unload(&l);
}

static void reads_are_checked(void **state)
{
	struct raw_loaded l;

	raw_load(&l, 2);
	assert_int_equal(raw_slot_set(&l, 0, 5, 64), 0);
	fill(&l, 0, 5, 20);
	struct mr_lpu_cmd_kv_read good = {
		.head = {MR_LPU_KV_READ, 0, 32},
		.generation = 5,
		.iova = RAW_IOVA + 65536,
		.descs_iova = RAW_IOVA + 40960,
		.count = 2,
		.owner = 9,
		.receiver = 11,
	};
#define READ(change, want) CHECK(good, change, want)
	READ(c.generation = 4, MR_E_STALE);
	READ(c.slot = 1, MR_E_STALE);
	READ(c.slot = 100000, MR_E_RANGE);
	READ(c.layer = 2, MR_E_RANGE);
	READ(c.count = 0, MR_E_RANGE);
	READ(c.count = 129, MR_E_RANGE);
	READ(c.count = 5, MR_E_RANGE);
	READ(c.block = 4, MR_E_RANGE);
	READ(c.block = UINT32_MAX, MR_E_RANGE);
	READ(c.iova += 4, MR_E_RANGE);
	READ(c.iova = RAW_RO_IOVA, MR_E_DMA_FAULT); /* the device may only read there */
	READ(c.reserved[0] = 1, MR_E_INVALID);
	assert_int_equal(raw_counters(&l.h).kv_read_blocks, 0);
	READ(c.descs_iova = RAW_RO_IOVA, MR_E_DMA_FAULT);
	struct mr_lpu_cmd_kv_read three = good;
	uint32_t result;
	three.count = 3;
	assert_int_equal(raw_do(&l.h, 1, &three, &result), MR_E_TRUNCATED);
	assert_int_equal(result, 2);
	assert_int_equal(raw_do(&l.h, 1, &good, &result), 0);
	assert_int_equal(result, 2);
	const struct mr_kv_desc *d = (const void *)(l.h.mem + 40960);
	assert_int_equal(d[1].block, 1);
	assert_int_equal(d[1].length, 4);
	assert_int_equal(d[1].owner, 9);
	assert_int_equal(d[1].generation, 11);
	raw_unload(&l);
}

/* Evaluates the container's claim: the compiler's prediction, not the simulator's arithmetic. */
static uint64_t claimed(const struct mr_prog_claim *claim, uint32_t position, uint32_t n)
{
	uint64_t cycles = claim->base;

	for (uint32_t i = position; i < position + n; i++) {
		uint64_t blocks = i / 16 + 1;
		cycles += claim->slot + claim->block * blocks +
			  claim->tile * ((blocks + claim->tile_blocks - 1) / claim->tile_blocks);
	}
	return cycles;
}

/* The batch is 4, the ring holds 8: a pass waits for credit of 4, and costs what the CLAIM says of 4. */
static void passes_wait_for_credit_and_cost_what_is_claimed(void **state)
{
	struct mr_lpu_record r;
	struct raw_loaded l;
	uint64_t want = 0, cycle = 0;
	uint32_t got = 0;

	raw_load(&l, 2);
	assert_int_equal(raw_slot_set(&l, 3, 44, 128), 0);
	/* From position 2, so that passes run across the edges of blocks. */
	fill(&l, 3, 44, 2);
	uint64_t before_it = raw_counters(&l.h).cycles;
	struct mr_lpu_cmd_score c = score_of(&l, 3, 44, 2, 111);
	raw_post(&l.h, 1, &c);
	struct mr_lpu_command fence = {.head = {MR_LPU_FENCE, 0, 77}};
	raw_post(&l.h, 1, &fence);
	while (got < 110) {
		uint32_t before = got;
		while (raw_record(&l, &r)) {
			assert_int_equal(r.slot, 3);
			assert_int_equal(r.generation, 44);
			assert_int_equal(r.position, got + 3);
			assert_int_equal(r.token, 21 + got);
			assert_int_equal(r.status, 0);
			assert_true(r.cycle > cycle);
			assert_true(r.logprob < 0);
			cycle = r.cycle;
			if (++got % 4 == 0 || got == 110) {
				want += claimed(l.c.claims, 2 + (got - 1) / 4 * 4,
						(got - 1) % 4 + 1);
				assert_int_equal(cycle, want);
			}
		}
		assert_true(got > before || got % 4 == 0);
		if (got < 110)
			assert_false(raw_completed(&l.h, 1, 0));
		/* Three short of all taken: credit for one pass of the two that fit. */
		l.h.port.ops->doorbell(l.h.port.ctx, 1, MR_LPU_DB_RECORD_HEAD,
				       l.h.record_head - (got < 60 ? 3 : 0));
	}
	struct mr_lpu_completion done = raw_complete(&l.h, 1, 1);
	assert_int_equal(done.status, 0);
	assert_int_equal(done.result, 110);
	/* A FENCE completes after all before it, and not while that waits. */
	done = raw_complete(&l.h, 1, 1);
	assert_int_equal(done.request, 77);
	assert_int_equal(done.status, 0);
	struct mr_lpu_counters n = raw_counters(&l.h);
	assert_true(n.credit_stalls > 0);
	assert_int_equal(n.score_passes, 28 + 1);
	assert_int_equal(n.score_records, 112);
	assert_int_equal(n.records, 112);
	assert_int_equal(n.steps, 0);
	assert_int_equal(n.cycles - before_it, want);
	raw_unload(&l);
}

/* While queue 1's SCORE waits for credit, what queue 2 says about its slot is refused, about others not. */
static void a_slot_in_use_is_busy_for_other_queues(void **state)
{
	struct raw_loaded l;
	uint32_t tail = 0;

	raw_load(&l, 2);
	struct mr_lpu_completion *cq = (void *)(l.h.mem + 36864);
	struct mr_lpu_cmd_queue_create create = {
		.head = {MR_LPU_QUEUE_CREATE, 0, 1},
		.queue = 2,
		.entries = 64,
		.sq_iova = RAW_IOVA + 32768,
		.cq_iova = RAW_IOVA + 36864,
		.record_iova = RAW_IOVA + 40960,
		.record_entries = 8,
		.vector = 2,
	};
	assert_int_equal(raw_do(&l.h, 0, &create, NULL), 0);
	assert_int_equal(raw_slot_set(&l, 0, 5, 64), 0);
	assert_int_equal(raw_slot_set(&l, 1, 6, 64), 0);
	fill(&l, 1, 6, 20);
	struct mr_lpu_cmd_score c = score_of(&l, 0, 5, 0, 31);
	raw_post(&l.h, 1, &c);
	struct mr_lpu_record r;
	for (uint32_t i = 0; i < 8; i++)
		assert_true(raw_record(&l, &r)); /* and no credit */
#define ON2(command, want)                                                                    \
	do {                                                                                  \
		memcpy(l.h.mem + 32768 + tail * 64, &(command), 64);                          \
		l.h.port.ops->doorbell(l.h.port.ctx, 2, MR_LPU_DB_SQ_TAIL, ++tail);           \
		for (int t = 0; !__atomic_load_n(&cq[tail - 1].phase, __ATOMIC_ACQUIRE); t++) \
			assert_false(raw_completed(&l.h, 1, 1) || t > 5000);                  \
		assert_int_equal(-(int)cq[tail - 1].status, want);                            \
	} while (0)
	struct mr_lpu_cmd_kv_fork f = fork_of(&l, 0, 5, 0, 2);
	ON2(f, MR_E_BUSY);
	struct mr_lpu_cmd_score s = score_of(&l, 0, 5, 0, 2);
	ON2(s, MR_E_BUSY);
	struct mr_lpu_cmd_kv_free k = {.head = {MR_LPU_KV_FREE, 0, 2}, .slot = 0, .generation = 5};
	ON2(k, MR_E_BUSY);
	f = fork_of(&l, 1, 6, 20, 2);
	ON2(f, 0);
	k.slot = 2;
	k.generation = 52;
	ON2(k, 0);
	/* The queue goes, its command too, and the slot is free for others. */
	struct mr_lpu_cmd_queue_delete gone = {.head = {MR_LPU_QUEUE_DELETE, 0, 2}, .queue = 1};
	assert_int_equal(raw_do(&l.h, 0, &gone, NULL), 0);
	f = fork_of(&l, 0, 5, 8, 2);
	ON2(f, 0);
	k = (struct mr_lpu_cmd_kv_free){.head = {MR_LPU_KV_FREE, 0, 2}, .slot = 0, .generation = 5};
	ON2(k, 0);
	raw_unload(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forks_are_checked),
		cmocka_unit_test(scores_are_checked),
		cmocka_unit_test(reads_are_checked),
		cmocka_unit_test(passes_wait_for_credit_and_cost_what_is_claimed),
		cmocka_unit_test(a_slot_in_use_is_busy_for_other_queues),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
