/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client can always end what it has under way: with a completion queue that it does not read, with SQEs in
 * front that wait for room, with a submission queue that is full. Each SQE is still answered exactly once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/ring_world.h"

#define SECOND 1000000000ll

static struct world w;
static const uint32_t IDS[] = {20, 21, 22};
static const struct mr_params LONG = {.version = MR_PARAMS_VERSION, .max_tokens = 200};

static int set_up(void **state)
{
	if (world_make(&w, 16))
		return -1;
	world_run(&w);
	return 0;
}

static int tear_down(void **state)
{
	if (world_settle(&w.clients, 0) || world_settle(&w.active, 0) ||
	    mr_metric_read(MR_M_ring_overrun))
		return -1;
	world_end(&w);
	return 0;
}

static struct mr_ring *join(uint32_t sq_entries, uint32_t cq_entries)
{
	struct mr_ring_options options = {.path = w.path,
					  .sq_entries = sq_entries,
					  .cq_entries = cq_entries,
					  .required = MR_FEATURE_QUERY};
	struct mr_ring *made = NULL;

	assert_int_equal(mr_ring_connect(&options, &made), 0);
	return made;
}

static void submit(struct mr_ring *ring, uint64_t key)
{
	assert_int_equal(mr_ring_submit_tokens(ring, key, IDS, 3, MR_SUBMIT_IGNORE_EOS, &LONG), 0);
}

static struct mr_cqe next(struct mr_ring *ring)
{
	struct mr_cqe cqe = {0};

	assert_int_equal(mr_ring_wait(ring, 5 * SECOND), 0);
	assert_int_equal(mr_ring_poll(ring, &cqe), 1);
	return cqe;
}

/* Waits until the server has put the client off for want of room, so that nothing moves any more. */
static void until_full(struct mr_ring *ring)
{
	uint32_t head;

	do {
		head = __atomic_load_n(&ring->header->sq_head, __ATOMIC_ACQUIRE);
		usleep(20000);
	} while (head != __atomic_load_n(&ring->header->sq_head, __ATOMIC_ACQUIRE));
	assert_true(head != ring->sq_index);
}

/*
 * @requests under way, @nops behind them of which some wait, then a CANCEL or RELEASE for each: all have ended
 * before a single CQE is read.
 */
static void end_all(uint32_t cq_entries, uint32_t nops, int release)
{
	struct mr_ring *ring = join(256, cq_entries);
	uint32_t requests = ring->header->requests_max, ends = 0, dones = 0;
	uint64_t before = mr_metric_read(MR_M_ring_ahead), nop = 0;

	assert_int_equal(requests, cq_entries / 4);
	/* All in one turn: else the first ones' tokens could leave no room for the last. */
	assert_int_equal(world_hold(&w), 0);
	for (uint64_t key = 1; key <= requests; key++)
		submit(ring, key);
	world_let_go(&w);
	assert_int_equal(world_settle(&w.active, requests), requests);
	for (uint64_t i = 0; i < nops; i++)
		assert_int_equal(mr_ring_nop(ring, 1000 + i), 0);
	until_full(ring);
	for (uint64_t key = requests; key; key--)
		assert_int_equal(release ? mr_ring_release(ring, 100 + key, key)
					 : mr_ring_cancel(ring, 100 + key, key),
				 0);
	assert_int_equal(world_settle(&w.active, 0), 0);
	assert_int_equal(mr_metric_read(MR_M_ring_ahead), before + requests);
	while (ends < requests || dones < requests || nop < nops) {
		struct mr_cqe cqe = next(ring);

		if (cqe.type == MR_CQE_TOKEN)
			continue;
		if (cqe.op == MR_OP_NOP) {
			assert_int_equal(cqe.key,
					 1000 + nop++); /* SQEs that wait keep their order */
		} else if (cqe.key > 100) {
			assert_int_equal(cqe.status, 0);
			dones++;
		} else {
			assert_int_equal(cqe.status, MR_E_CANCELLED);
			ends++;
		}
	}
	mr_ring_nop(ring, 7);
	assert_int_equal(next(ring).key, 7);
	mr_ring_disconnect(ring);
	assert_int_equal(world_settle(&w.clients, 0), 0);
}

static void test_all(void **state)
{
	end_all(8, 9, 0);
	end_all(16, 20, 1);
	end_all(64, 100, 0); /* more than a turn looks at */
}

/* What does not end a request under way has to wait for its turn, and is right then. */
static void test_in_turn(void **state)
{
	struct mr_ring *ring = join(64, 8);
	uint32_t seen[6] = {0};
	int unknown = 0;

	submit(ring, 1);
	assert_int_equal(world_settle(&w.active, 1), 1);
	for (uint64_t i = 0; i < 9; i++)
		assert_int_equal(mr_ring_nop(ring, 50), 0);
	until_full(ring);
	submit(ring, 2);                                 /* waits, */
	assert_int_equal(mr_ring_cancel(ring, 3, 2), 0); /* and so does this, which names it; */
	assert_int_equal(mr_ring_cancel(ring, 4, 1), 0); /* this does not, */
	assert_int_equal(mr_ring_cancel(ring, 5, 1), 0); /* and then there is none for this one */
	assert_int_equal(world_settle(&w.active, 0), 0);
	for (int ends = 0; ends < 5;) {
		struct mr_cqe cqe = next(ring);

		if (cqe.type == MR_CQE_TOKEN || cqe.op == MR_OP_NOP)
			continue;
		assert_in_range(cqe.key, 1, 5);
		assert_int_equal(seen[cqe.key]++, 0);
		if (cqe.op == MR_OP_SUBMIT)
			assert_int_equal(cqe.status, MR_E_CANCELLED);
		else if (cqe.key == 5)
			unknown = cqe.status == MR_E_NOT_FOUND;
		else
			assert_int_equal(cqe.status, 0);
		ends++;
	}
	assert_int_equal(unknown, 1);
	mr_ring_disconnect(ring);
}

/* libmillrace leaves the last SQE place to what ends a request. */
static void test_last_place(void **state)
{
	struct mr_ring *ring = join(4, 16);

	assert_int_equal(world_hold(&w), 0);
	for (uint64_t key = 1; key <= 3; key++)
		submit(ring, key);
	assert_int_equal(mr_ring_submit_tokens(ring, 4, IDS, 3, 0, NULL), MR_E_FULL);
	assert_int_equal(mr_ring_submit_text(ring, 4, "x", 1, 0, NULL), MR_E_FULL);
	assert_int_equal(mr_ring_fork(ring, 4, 1, 0, NULL), MR_E_FULL);
	assert_int_equal(mr_ring_cancel(ring, 5, 1), 0);
	assert_int_equal(mr_ring_cancel(ring, 6, 2), MR_E_FULL);
	world_let_go(&w);
	for (;;) {
		struct mr_cqe cqe = next(ring);

		if (cqe.key == 1 && cqe.type == MR_CQE_ERROR)
			break;
	}
	mr_ring_disconnect(ring);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_all, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_in_turn, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_last_place, set_up, tear_down),
	};

	return cmocka_run_group_tests_name("ring_cancel", tests, NULL, NULL);
}
