// SPDX-License-Identifier: Apache-2.0
/*
 * The simulated device's queues, by a host that is not the driver: several at once, credit, ABORT, shadow
 * doorbells, coalescing of interrupts, token masks and the n best.
 */
#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "firmware-sim/device.h"
#include "kernels/cpu/sample.h"
#include "support/lpu_rig.h"

static const struct mr_sim_options tiny = {.chip_path = "tiny"};

static struct mr_lpu_command fence(uint32_t request)
{
	return (struct mr_lpu_command){.head = {MR_LPU_FENCE, 0, request}};
}

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* A DECODE of one entry; entries of queue q lie apart. */
static struct mr_lpu_cmd_decode decode(struct raw_loaded *l, uint32_t q, uint32_t request,
				       uint32_t slot, uint32_t position, uint32_t steps,
				       struct mr_lpu_decode_entry **entry)
{
	struct mr_lpu_decode_entry *e = (void *)(l->h.mem + 24576 + q * 256);

	memset(e, 0, sizeof(*e));
	e->slot = slot;
	e->generation = 1;
	e->position = position;
	e->token = 20;
	*entry = e;
	return (struct mr_lpu_cmd_decode){
		.head = {MR_LPU_DECODE, 0, request},
		.entries_iova = raw_iova(&l->h, e),
		.count = 1,
		.steps = steps,
	};
}

/* Records on queue @q's ring that are there now, from @from on. */
static uint32_t count_records(struct raw_host *h, uint32_t q, uint32_t from)
{
	uint32_t n = from;

	while (__atomic_load_n(&h->ring[q][n % RAW_ENTRIES].phase, __ATOMIC_ACQUIRE) ==
	       n / RAW_ENTRIES + 1)
		n++;
	return n;
}

/*
 * One queue without record credit stands still; the others go on; with credit it goes on where it stood, and
 * no record is missing on any.
 */
static void a_full_ring_stalls_one_queue(void **state)
{
	struct mr_lpu_decode_entry *e;
	struct raw_loaded l;
	uint32_t next = 1;

	raw_load(&l, 2);
	struct raw_host *h = &l.h;
	for (uint32_t q = 2; q <= 4; q++)
		assert_int_equal(raw_queue(h, q), 0);
	for (uint32_t s = 0; s < 5; s++)
		assert_int_equal(raw_slot_set(&l, s, 1, 64), 0);
	struct mr_lpu_cmd_decode stuck = decode(&l, 1, 50, 1, 0, 30, &e);
	raw_post(h, 1, &stuck);
	uint64_t until = now_us() + 10000000;
	while (count_records(h, 1, 0) < RAW_ENTRIES)
		assert_true(now_us() < until);
	for (int round = 0; round < 5; round++) {
		for (uint32_t q = 2; q <= 4; q++) {
			struct mr_lpu_cmd_decode d =
				decode(&l, q, 60 + q, q, (uint32_t)round * 8, RAW_ENTRIES, &e);
			raw_post(h, q, &d);
		}
		for (uint32_t q = 2; q <= 4; q++) {
			uint32_t base = (uint32_t)round * RAW_ENTRIES;
			struct mr_lpu_completion c = raw_complete(h, q, 1);
			assert_int_equal(c.status, 0);
			assert_int_equal(c.result, RAW_ENTRIES);
			assert_int_equal(count_records(h, q, base), base + RAW_ENTRIES);
			for (uint32_t i = 0; i < RAW_ENTRIES; i++) {
				assert_int_equal(h->ring[q][i].slot, q);
				assert_int_equal(h->ring[q][i].position, base + i + 1);
			}
			raw_ring(h, q, MR_LPU_DB_RECORD_HEAD, base + RAW_ENTRIES);
		}
	}
	assert_false(raw_completed(h, 1, 0));
	assert_int_equal(count_records(h, 1, 0), RAW_ENTRIES); /* not one was overwritten */
	struct mr_lpu_record r;
	while (next <= 30) {
		assert_true(raw_record(&l, &r));
		assert_int_equal(r.slot, 1);
		assert_int_equal(r.position, next++);
		raw_ring(h, 1, MR_LPU_DB_RECORD_HEAD, h->record_head);
	}
	assert_int_equal(raw_complete(h, 1, 1).result, 30);
	struct mr_lpu_counters c = raw_counters(h);
	assert_int_equal(c.records, 30 + 5 * 3 * RAW_ENTRIES);
	assert_int_equal(c.steps, c.records);
	assert_true(c.credit_stalls > 0);
	raw_unload(&l);
}

/* A slot in use on one queue is busy on another, and a queue that goes frees it. */
static void queues_share_slots_one_at_a_time(void **state)
{
	struct mr_lpu_decode_entry *e;
	struct raw_loaded l;

	raw_load(&l, 2);
	assert_int_equal(raw_queue(&l.h, 2), 0);
	assert_int_equal(raw_slot_set(&l, 1, 1, 64), 0);
	struct mr_lpu_cmd_decode d = decode(&l, 1, 50, 1, 0, 30, &e);
	raw_post(&l.h, 1, &d); /* stands still after 8 records */
	uint64_t until = now_us() + 10000000;
	while (count_records(&l.h, 1, 0) < RAW_ENTRIES)
		assert_true(now_us() < until);
	struct mr_lpu_cmd_decode other = decode(&l, 2, 51, 1, 0, 1, &e);
	assert_int_equal(raw_do(&l.h, 2, &other, NULL), MR_E_BUSY);
	struct mr_lpu_cmd_queue_delete gone = {.head = {MR_LPU_QUEUE_DELETE, 0, 2}, .queue = 1};
	assert_int_equal(raw_do(&l.h, 0, &gone, NULL), 0);
	assert_false(raw_completed(&l.h, 1, 20));
	assert_int_equal(raw_do(&l.h, 2, &other, NULL), 0);
	raw_unload(&l);
}

static int do_abort(struct raw_host *h, uint32_t queue, uint32_t target, uint32_t *result)
{
	struct mr_lpu_cmd_abort a = {
		.head = {MR_LPU_ABORT, 0, 900}, .queue = queue, .target = target};

	return raw_do(h, 0, &a, result);
}

static void an_aborted_command_completes_once(void **state)
{
	struct mr_lpu_decode_entry *e;
	struct raw_loaded l;
	uint32_t result;

	raw_load(&l, 2);
	struct raw_host *h = &l.h;
	assert_int_equal(raw_slot_set(&l, 1, 1, 64), 0);
	struct mr_lpu_cmd_decode d = decode(&l, 1, 50, 1, 0, 30, &e);
	raw_post(h, 1, &d);
	for (uint32_t i = 51; i <= 54; i++) {
		struct mr_lpu_command c = fence(i);
		raw_post(h, 1, &c);
	}
	uint64_t until = now_us() + 10000000;
	while (count_records(h, 1, 0) < RAW_ENTRIES)
		assert_true(now_us() < until);
	/* One that waits, one that runs, one that is not there. */
	assert_int_equal(do_abort(h, 1, 52, &result), 0);
	assert_int_equal(result, 1);
	assert_int_equal(do_abort(h, 1, 99, &result), 0);
	assert_int_equal(result, 0);
	assert_false(raw_completed(h, 1, 10)); /* its turn has not come */
	assert_int_equal(do_abort(h, 1, 50, &result), 0);
	assert_int_equal(result, 1);
	for (uint32_t i = 50; i <= 54; i++) {
		struct mr_lpu_completion c = raw_complete(h, 1, 1);
		assert_int_equal(c.request, i);
		assert_int_equal(c.status, i == 50 || i == 52 ? -MR_E_CANCELLED : 0);
		assert_int_equal(c.result, i == 50 ? RAW_ENTRIES : 0);
	}
	assert_false(raw_completed(h, 1, 10));
	assert_int_equal(do_abort(h, 1, 53, &result), 0);
	assert_int_equal(result, 0); /* too late */
	assert_int_equal(do_abort(h, 2, 1, NULL), MR_E_NOT_FOUND);
	assert_int_equal(do_abort(h, 5, 1, NULL), MR_E_RANGE);
	/* The slot holds what was made and goes on; the mark does not stick to the ring's place. */
	raw_ring(h, 1, MR_LPU_DB_RECORD_HEAD, RAW_ENTRIES);
	d = decode(&l, 1, 60, 1, RAW_ENTRIES, 4, &e);
	assert_int_equal(raw_do(h, 1, &d, &result), 0);
	assert_int_equal(result, 4);
	for (uint32_t i = 0; i < 3 * RAW_ENTRIES; i++) {
		struct mr_lpu_command c = fence(i);
		assert_int_equal(raw_do(h, 1, &c, NULL), 0);
	}
	assert_int_equal(raw_counters(h).aborted, 2);
	raw_unload(&l);
}

static void shadow_doorbells_lose_no_wake_up(void **state)
{
	struct mr_sim_options options = tiny;
	struct mr_lpu_shadow *shadow;
	struct raw_host h;

	options.spin_us = 80; /* so that it sleeps often, and is awake often */
	raw_open(&h, &options, 1);
	shadow = (void *)(h.mem + 40960);
	/* Filled before the command is posted, but for its own index. */
	for (uint32_t q = 0; q < RAW_QUEUES; q++) {
		shadow[q].sq_tail = h.tail[q] + !q;
		shadow[q].cq_head = h.head[q];
	}
	struct mr_lpu_cmd_features c = {.head = {MR_LPU_FEATURES, 0, 3},
					.feature = MR_LPU_FEATURE_SHADOW,
					.action = MR_LPU_FEATURE_SET,
					.value = 1,
					.iova = raw_iova(&h, shadow)};
	raw_post(&h, 0, &c);
	h.shadow = shadow;
	assert_int_equal(raw_complete(&h, 0, 1).status, 0);
	h.rung = 0;
	uint32_t slow = 0;
	for (uint32_t i = 0; i < 3000; i++) {
		struct mr_lpu_command f = fence(i);
		uint64_t from = now_us();
		assert_int_equal(raw_do(&h, 1, &f, NULL), 0);
		slow += now_us() - from > 90000; /* a lost wake-up waits for the heartbeat */
		if (i % 16 == 0)
			usleep(200);
	}
	assert_true(slow <= 2);
	printf("%u of 6000 doorbells written\n", h.rung);
	assert_true(h.rung > 0 && h.rung < 6000);
	/* What is written to BAR2 only wakes: no index comes from there. */
	h.port.ops->doorbell(h.port.ctx, 1, MR_LPU_DB_SQ_TAIL, h.tail[1] + 1);
	assert_false(raw_completed(&h, 1, 20));
	/* A senseless index is ignored and counted there too. */
	raw_ring(&h, 1, MR_LPU_DB_SQ_TAIL, h.tail[1] + 100);
	h.port.ops->doorbell(h.port.ctx, 1, MR_LPU_DB_SQ_TAIL, 0);
	assert_false(raw_completed(&h, 1, 20));
	assert_int_equal(raw_counters(&h).bad_doorbell, 1);
	raw_ring(&h, 1, MR_LPU_DB_SQ_TAIL, h.tail[1]);
	raw_close(&h);
}

static void interrupts_can_be_coalesced(void **state)
{
	int fd = eventfd(0, EFD_NONBLOCK);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint32_t v = MR_LPU_COALESCE(4, 1000000);
	struct raw_host h;
	uint64_t count;

	raw_open(&h, &tiny, 1);
	assert_int_equal(h.port.ops->irq(h.port.ctx, 1, fd), 0);
	assert_int_equal(raw_feature(&h, MR_LPU_FEATURE_COALESCE, 1, 1, &v), 0);
	h.port.ops->doorbell(h.port.ctx, 1, MR_LPU_DB_ARM, 1);
	for (uint32_t i = 0; i < 4; i++) {
		struct mr_lpu_command f = fence(i);
		assert_int_equal(poll(&p, 1, 2), 0);
		assert_int_equal(raw_do(&h, 1, &f, NULL), 0);
	}
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(read(fd, &count, 8), 8);
	assert_int_equal(count, 1);
	/* Fewer than that: after the time. */
	v = MR_LPU_COALESCE(100, 30000);
	assert_int_equal(raw_feature(&h, MR_LPU_FEATURE_COALESCE, 1, 1, &v), 0);
	h.port.ops->doorbell(h.port.ctx, 1, MR_LPU_DB_ARM, 1);
	struct mr_lpu_command f = fence(9);
	uint64_t from = now_us();
	assert_int_equal(raw_do(&h, 1, &f, NULL), 0);
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_true(now_us() - from >= 29000);
	assert_int_equal(raw_counters(&h).interrupts, 2);
	raw_close(&h);
	close(fd);
}

/* ---- what DECODE takes and gives beside tokens --------------------------------------------------- */

static void masks_and_the_best(void **state)
{
	struct mr_lpu_decode_entry *e;
	struct mr_lpu_record r;
	struct raw_loaded l;
	uint32_t result;

	raw_load(&l, 2);
	uint32_t vocab = l.model->shape.vocab, words = (vocab + 31) / 32;
	uint32_t stride = 4 + words * 4;
	float *logits = (void *)(l.h.mem + 131072);
	struct mr_lpu_top *top = (void *)(l.h.mem + 65536);
	uint32_t *mask = (void *)(l.h.mem + 98304);
	assert_int_equal(raw_slot_set(&l, 1, 1, 64), 0);
	struct mr_lpu_cmd_decode d = decode(&l, 1, 50, 1, 0, 2, &e);
	e->logits_iova = raw_iova(&l.h, logits);
	e->top_iova = raw_iova(&l.h, top);
	d.logits_stride = 4 * vocab;
	d.top = 5;
	assert_int_equal(raw_do(&l.h, 1, &d, NULL), 0);
	for (uint32_t step = 0; step < 2; step++) {
		const float *x = logits + (size_t)step * vocab;
		assert_true(raw_record(&l, &r));
		assert_int_equal(top[step * 5].token, r.token);
		for (uint32_t k = 0; k < 5; k++) {
			const struct mr_lpu_top *t = &top[step * 5 + k];
			uint32_t better = 0;
			for (uint32_t i = 0; i < vocab; i++)
				better +=
					x[i] > x[t->token] || (x[i] == x[t->token] && i < t->token);
			assert_int_equal(better, k);
			float want = mr_logprob(x, vocab, t->token);
			assert_memory_equal(&t->logprob, &want, 4);
		}
	}
	uint32_t best = top[0].token, second = top[1].token;

	/* Masked: the best of what is allowed, with its probability under all of them. */
	d = decode(&l, 1, 51, 1, 0, 2, &e);
	e->mask_iova = raw_iova(&l.h, mask);
	d.mask_stride = stride;
	memset(mask, 0, 2 * stride);
	memset(mask + 1, 0xff, words * 4);
	mask[1 + best / 32] &= ~(1u << best % 32);
	mask[words + 1 + 1] = 1u << 7; /* step 1 may choose token 7 alone */
	mask[0] = 1;
	mask[words + 1] = 2;
	assert_int_equal(raw_do(&l.h, 1, &d, &result), 0);
	assert_true(raw_record(&l, &r));
	assert_int_equal(r.token, second);
	assert_memory_equal(&r.logprob, &top[1].logprob, 4);
	assert_true(raw_record(&l, &r));
	assert_int_equal(r.token, 7);

	/* The second mask is late: one record, by name, and the step can be done again. */
	mask[words + 1] = 1;
	assert_int_equal(raw_do(&l.h, 1, &d, &result), MR_E_MASK_LATE);
	assert_int_equal(result, 1);
	assert_true(raw_record(&l, &r));
	d = decode(&l, 1, 52, 1, 1, 1, &e);
	e->token = second;
	e->mask_iova = raw_iova(&l.h, mask) + stride;
	d.mask_stride = stride;
	mask[words + 1] = 2;
	assert_int_equal(raw_do(&l.h, 1, &d, &result), 0);
	assert_true(raw_record(&l, &r));
	assert_int_equal(r.token, 7);
	mask[words + 2] = 0;
	d.head.request = 53;
	assert_int_equal(raw_do(&l.h, 1, &d, &result), MR_E_RANGE); /* it allows none */
	e->mask_iova = 64;
	assert_int_equal(raw_do(&l.h, 1, &d, &result), MR_E_DMA_FAULT);
	struct mr_lpu_counters c = raw_counters(&l.h);
	assert_int_equal(c.masked, 4);
	assert_int_equal(c.mask_late, 1);
	raw_unload(&l);
}

/* Equal logits, which no model here gives, go by ascending id; NaN comes before nothing. */
static void equals_among_the_best_go_by_id(void **state)
{
	static const float logits[] = {1, 3, NAN, 3, -2, 3, 2};
	static const uint32_t want[] = {1, 3, 5, 6};
	static struct mr_lpu_top top[4] __attribute__((aligned(64)));
	static struct sim sim;
	const struct mr_ref_header ref = {.vocab = 7};

	sim.program.c.ref = &ref;
	assert_int_equal(mr_sim_dma_init(&sim.dma), 0);
	assert_int_equal(mr_sim_dma_map(&sim.dma, 4096, top, sizeof(top), MR_PORT_DMA_WRITE), 0);
	assert_int_equal(mr_sim_choice_top(&sim, logits, 4, 4096), 0);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(top[i].token, want[i]);
	mr_sim_dma_fini(&sim.dma);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_full_ring_stalls_one_queue),
		cmocka_unit_test(queues_share_slots_one_at_a_time),
		cmocka_unit_test(an_aborted_command_completes_once),
		cmocka_unit_test(shadow_doorbells_lose_no_wake_up),
		cmocka_unit_test(interrupts_can_be_coalesced),
		cmocka_unit_test(masks_and_the_best),
		cmocka_unit_test(equals_among_the_best_go_by_id),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
