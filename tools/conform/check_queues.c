// SPDX-License-Identifier: Apache-2.0
/* Queues: indices, phases, order, credit, creation. */
#include <string.h>

#include "driver/bus/bus.h"
#include "tools/conform/conform.h"

SCENARIO(doorbells_of_every_queue, 0, "D-1")
{
	for (uint32_t q = 1; q <= t->id.queues_max; q++) {
		MUST(conform_queue(t, q, 4, 8) == 0);
		STATUS("D-1", conform_fence(t, q), 0);
	}
}

SCENARIO(tail_is_kept, CONFORM_QUEUE, "Q-1 Q-2")
{
	struct mr_lpu_command fence = {.head = {MR_LPU_FENCE}};
	struct mr_lpu_completion c;

	uint32_t first = conform_place(t, 1, &fence);
	uint32_t second = conform_place(t, 1, &fence);
	conform_bell(t, 1, MR_LPU_DB_SQ_TAIL, 1);
	EXPECT("Q-1", conform_wait(t, 1, first) == 0);
	EXPECT("Q-1", !conform_completion(t, 1, t->profile.quiet_ms, &c));
	conform_bell(t, 1, MR_LPU_DB_SQ_TAIL, 1 + 8 + 1);
	EXPECT("Q-2", !conform_completion(t, 1, t->profile.quiet_ms, &c));
	conform_bell(t, 1, MR_LPU_DB_SQ_TAIL, 0);
	EXPECT("Q-2", !conform_completion(t, 1, 1, &c));
	conform_bell(t, 1, MR_LPU_DB_SQ_TAIL, 2);
	EXPECT("Q-1", conform_wait(t, 1, second) == 0);
}

SCENARIO(phases_of_completions, CONFORM_QUEUE, "Q-5 C-1 C-2 C-4 C-13 G-1")
{
	for (int i = 0; i < 40; i++) /* five laps */
		STATUS("Q-5", conform_fence(t, 1), 0);
	MUST(DO(1, mr_lpu_command, {MR_LPU_FENCE}, .word = {1}) < 0);
}

SCENARIO(laps_of_records, CONFORM_PROGRAM | CONFORM_QUEUE, "Q-6")
{
	struct mr_lpu_record r[40];

	MUST(conform_slot(t, 1, 0, 5, 64) == 0);
	STATUS("Q-6", conform_decode(t, 0, 5, 0, 20, 40, r), 0);
	for (int i = 0; i < 40; i++)
		EXPECT("Q-6", r[i].phase == (uint32_t)i / 8 + 1);
}

SCENARIO(completions_need_credit, CONFORM_PROGRAM | CONFORM_QUEUE, "Q-3 Q-7 Q-9 Q-10")
{
	struct mr_lpu_completion c;
	uint32_t request[8];

	if (t->id.queues_max < 2)
		conform_skip(t, "the device has one I/O queue");
	MUST(conform_queue(t, 2, 8, 8) == 0);
	MUST(conform_slot(t, 1, 0, 5, 16) == 0);
	conform_nap_us(1000);
	/* Eight that nobody gives credit for; the next one would close the slot. */
	for (int i = 0; i < 8; i++)
		request[i] = POST(1, mr_lpu_command, {MR_LPU_FENCE});
	for (int i = 0; i < 8; i++) {
		MUST(conform_completion(t, 1, t->profile.wait_ms, &c));
		EXPECT("Q-9", c.request == request[i]);
	}
	uint32_t last = POST(1, mr_lpu_cmd_kv_free, {MR_LPU_KV_FREE}, .generation = 5);
	conform_nap_us(t->profile.quiet_ms * 1000);
	STATUS("Q-7", conform_slot(t, 2, 0, 6, 16), MR_E_EXISTS);
	STATUS("Q-10", conform_fence(t, 2), 0);
	/* A head that claims entries which were never written is no credit. */
	conform_bell(t, 1, MR_LPU_DB_CQ_HEAD, t->q[1].head + 1);
	conform_nap_us(t->profile.quiet_ms * 1000);
	STATUS("Q-3", conform_slot(t, 2, 0, 6, 16), MR_E_EXISTS);
	conform_credit(t, 1);
	EXPECT("Q-9", conform_completion(t, 1, t->profile.wait_ms, &c) && c.request == last);
	conform_credit(t, 1);
	/* One that goes back takes nothing away. It comes after the device has seen the one before. */
	POST(1, mr_lpu_command, {MR_LPU_FENCE});
	MUST(conform_completion(t, 1, t->profile.wait_ms, &c));
	conform_bell(t, 1, MR_LPU_DB_CQ_HEAD, t->q[1].head - 5);
	conform_nap_us(1000);
	for (int i = 0; i < 7; i++)
		POST(1, mr_lpu_command, {MR_LPU_FENCE});
	for (int i = 0; i < 7; i++)
		EXPECT("Q-3", conform_completion(t, 1, t->profile.wait_ms, &c));
}

SCENARIO(records_need_credit, CONFORM_PROGRAM | CONFORM_QUEUE, "Q-3 Q-8 Q-9 Q-10")
{
	struct mr_lpu_decode_entry *e = conform_entries(t, 1);
	struct mr_lpu_record r, before = {0};
	struct mr_lpu_completion c;

	if (t->id.queues_max < 2)
		conform_skip(t, "the device has one I/O queue");
	MUST(conform_queue(t, 2, 8, 8) == 0);
	MUST(conform_slot(t, 1, 0, 5, 64) == 0);
	uint64_t steps = conform_counters(t).steps;
	e->generation = 5;
	e->token = 20;
	conform_decode_post(t, 1, e, 1, 20);
	for (int i = 0; i < 8; i++)
		MUST(conform_record(t, 1, t->profile.wait_ms, &r));
	EXPECT("Q-8", !conform_record(t, 1, t->profile.quiet_ms, &before));
	EXPECT("Q-8", conform_counters(t).steps == steps + 8);
	STATUS("Q-10", conform_fence(t, 2), 0);
	conform_bell(t, 1, MR_LPU_DB_RECORD_HEAD, 20);
	EXPECT("Q-3", !conform_record(t, 1, t->profile.quiet_ms, &before));
	EXPECT("Q-9", r.position == 8);
	for (uint32_t i = 9; i <= 20; i++) {
		conform_record_credit(t, 1);
		if (!conform_record(t, 1, t->profile.wait_ms, &r)) {
			conform_expect(t, "Q-9", 0, "record %u of 20 does not come", i);
			break;
		}
		conform_expect(t, "Q-9", r.position == i, "a record of position %u where %u is due",
			       r.position, i);
	}
	conform_record_credit(t, 1);
	EXPECT("Q-9", conform_completion(t, 1, t->profile.wait_ms, &c) && c.result == 20);
}

SCENARIO(commands_keep_their_order, CONFORM_PROGRAM | CONFORM_QUEUE, "Q-11 Q-12 C-10 C-12")
{
	struct mr_lpu_completion c;
	struct mr_lpu_slot_param *p = conform_param(t, 16);
	struct mr_lpu_command fence = {.head = {MR_LPU_FENCE}};
	uint32_t request[8];

	/* Each of these only succeeds after the one before it. */
	for (uint32_t round = 0; round < 4; round++) {
		struct mr_lpu_cmd_slot_set open = {.head = {MR_LPU_SLOT_SET},
						   .generation = 5 + round,
						   .param_iova = conform_iova(t, p),
						   .param_bytes = sizeof(*p)};
		struct mr_lpu_cmd_kv_free shut = {.head = {MR_LPU_KV_FREE},
						  .generation = 5 + round};
		request[0] = conform_place(t, 1, &open);
		request[1] = conform_place(t, 1, &shut);
		request[2] = conform_place(t, 1, &open);
		request[3] = conform_place(t, 1, &shut);
		conform_ring(t, 1, MR_LPU_DB_SQ_TAIL, t->q[1].tail);
		for (int i = 0; i < 4; i++) {
			MUST(conform_completion(t, 1, t->profile.wait_ms, &c));
			conform_expect(t, "Q-11", c.status == 0,
				       "%s where the order holds no fault",
				       mr_status_name(-(int)c.status));
			EXPECT("Q-12", c.request == request[i]);
		}
		conform_credit(t, 1);
	}
	for (uint32_t round = 0; round < 6; round++) {
		for (int i = 0; i < 8; i++)
			request[i] = conform_place(t, 1, &fence);
		conform_ring(t, 1, MR_LPU_DB_SQ_TAIL, t->q[1].tail);
		for (int i = 0; i < 8; i++) {
			MUST(conform_completion(t, 1, t->profile.wait_ms, &c));
			conform_expect(t, "Q-12", c.request == request[i], "request %u before %u",
				       c.request, request[i]);
		}
		conform_credit(t, 1);
	}
	/* And no more completions than commands. */
	EXPECT("C-10", !conform_completion(t, 1, t->profile.quiet_ms, &c));
	EXPECT("C-10", conform_fence(t, 1) == 0 && !conform_completion(t, 1, 2, &c));

	MUST(conform_slot(t, 1, 0, 40, 64) == 0);
	struct mr_lpu_decode_entry *e = conform_entries(t, 1);
	*e = (struct mr_lpu_decode_entry){.generation = 40, .token = 20};
	struct mr_lpu_cmd_decode d = {.head = {MR_LPU_DECODE},
				      .entries_iova = conform_iova(t, e),
				      .count = 1,
				      .steps = 8};
	request[0] = conform_place(t, 1, &d);
	request[1] = conform_place(t, 1, &fence);
	conform_ring(t, 1, MR_LPU_DB_SQ_TAIL, t->q[1].tail);
	for (int i = 0; i < 2; i++) {
		MUST(conform_completion(t, 1, t->profile.wait_ms, &c));
		EXPECT("C-12", c.request == request[i] && !c.status);
	}
}

SCENARIO(queues_are_made, 0, "Q-16 Q-17 Q-18 Q-19")
{
	struct mr_lpu_cmd_queue_create good, c;
	struct mr_lpu_completion done;

	conform_bell(t, 1, MR_LPU_DB_SQ_TAIL, 3);
	conform_bell(t, 1, MR_LPU_DB_CQ_HEAD, 2);
	conform_bell(t, 1, MR_LPU_DB_RECORD_HEAD, 2);
	conform_nap_us(1000);
	STATUS("Q-19", DO(0, mr_lpu_cmd_queue_delete, {MR_LPU_QUEUE_DELETE}, .queue = 1),
	       MR_E_NOT_FOUND);
	uint32_t refused = conform_counters(t).bad_doorbell;
	conform_fill_in_queue(t, 1, 8, 8, &good);
#define BAD(change)                                                                   \
	do {                                                                          \
		c = good;                                                             \
		change;                                                               \
		conform_status(t, "Q-17", conform_do(t, 0, &c), MR_E_RANGE, #change); \
	} while (0)
	BAD(c.queue = 0);
	BAD(c.queue = t->id.queues_max + 1);
	BAD(c.entries = 0);
	BAD(c.entries = 1);
	BAD(c.entries = 12);
	BAD(c.entries = t->id.ring_entries_max * 2);
	BAD(c.record_entries = 0);
	BAD(c.record_entries = 12);
	BAD(c.record_entries = t->id.ring_entries_max * 2);
	BAD(c.sq_iova += 4);
	BAD(c.cq_iova += 16);
	BAD(c.record_iova += 32);
	BAD(c.vector = 100000);
	STATUS("Q-16", conform_do(t, 0, &good), 0);
	EXPECT("Q-16", !conform_completion(t, 1, t->profile.quiet_ms, &done));
	EXPECT("Q-16", conform_counters(t).bad_doorbell == refused);
	STATUS("Q-16", conform_fence(t, 1), 0);
	STATUS("Q-18", conform_do(t, 0, &good), MR_E_EXISTS);
	STATUS("Q-19",
	       DO(0, mr_lpu_cmd_queue_delete, {MR_LPU_QUEUE_DELETE}, .queue = t->id.queues_max + 0),
	       t->id.queues_max == 1 ? 0 : MR_E_NOT_FOUND);
}

SCENARIO(interrupts, CONFORM_QUEUE, "Q-13 Q-14 Q-15 M-5")
{
	struct mr_lpu_completion c;
	int fd = conform_irq(t, 1);

	conform_fence(t, 1);
	EXPECT("Q-15", conform_raised(fd, t->profile.quiet_ms) == 0);
	for (int i = 0; i < 10; i++) {
		conform_bell(t, 1, MR_LPU_DB_ARM, 1);
		conform_reg(t, MR_LPU_REG_STATUS);
		uint32_t request = POST(1, mr_lpu_command, {MR_LPU_FENCE});
		uint64_t n = conform_raised(fd, t->profile.wait_ms);
		conform_expect(t, "Q-13", n > 0, "armed, and no vector after an entry");
		/* Where it was raised the entry must be there, not soon. */
		struct mr_lpu_completion *at = &t->q[1].cq[t->q[1].head % 8];
		int there = (__atomic_load_n(&at->phase, __ATOMIC_ACQUIRE) & 1) ==
			    !(t->q[1].head / 8 & 1);
		conform_expect(t, "M-5", !n || there, "an interrupt before its entry");
		conform_wait(t, 1, request);
		conform_fence(t, 1);
		conform_fence(t, 1);
		n += conform_raised(fd, 2);
		conform_expect(t, "Q-14", n <= 1, "armed once, raised %llu times",
			       (unsigned long long)n);
	}
	EXPECT("Q-14", !conform_completion(t, 1, 0, &c));
}
