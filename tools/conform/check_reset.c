// SPDX-License-Identifier: Apache-2.0
/* Clearing ENABLE, RESET, the function-level reset: what goes, what stays, and that DMA ends. */
#include <string.h>

#include "driver/bus/bus.h"
#include "tools/conform/conform.h"

/* A DECODE of many steps is under way on queue 1 when this returns: slot 0, generation 5. */
static void start_long_decode(struct conform *t)
{
	struct mr_lpu_decode_entry *e = conform_entries(t, 1);
	struct mr_lpu_record r;

	MUST(conform_slot(t, 1, 0, 5, CONFORM_CONTEXT) == 0);
	e->generation = 5;
	e->token = 20;
	conform_decode_post(t, 1, e, 1, t->id.steps_max < 120 ? t->id.steps_max : 120);
	MUST(conform_record(t, 1, t->profile.wait_ms, &r));
	conform_record_credit(t, 1);
	MUST(conform_record(t, 1, t->profile.wait_ms, &r));
	conform_record_credit(t, 1);
}

/* Fills the rings of queues 0 and 1 with a pattern: 1 = it is still there after a while. */
static int rings_stay(struct conform *t, uint32_t first)
{
	int same = 1;

	for (uint32_t q = first; q < 2; q++) {
		memset(t->q[q].cq, 0xa5, t->q[q].entries * sizeof(*t->q[q].cq));
		if (q)
			memset(t->q[q].ring, 0xa5, t->q[q].records * sizeof(*t->q[q].ring));
	}
	conform_nap_us(t->profile.quiet_ms * 1000);
	for (uint32_t q = first; q < 2; q++) {
		const uint8_t *c = (const uint8_t *)t->q[q].cq, *r = (const uint8_t *)t->q[q].ring;
		for (size_t i = 0; i < t->q[q].entries * sizeof(*t->q[q].cq); i++)
			same &= c[i] == 0xa5;
		for (size_t i = 0; q && i < t->q[q].records * sizeof(*t->q[q].ring); i++)
			same &= r[i] == 0xa5;
	}
	return same;
}

SCENARIO(disable_ends_all, CONFORM_PROGRAM | CONFORM_QUEUE, "R-5 R-6 R-7 R-8")
{
	start_long_decode(t);
	EXPECT("R-5", conform_disable(t));
	EXPECT("R-6", rings_stay(t, 0));
	MUST(conform_enable(t, 16));
	STATUS("R-7", DO(0, mr_lpu_cmd_queue_delete, {MR_LPU_QUEUE_DELETE}, .queue = 1),
	       MR_E_NOT_FOUND);
	STATUS("R-7", conform_queue(t, 1, 8, 8), 0);
	EXPECT("R-7", conform_counters(t).kv_blocks_used == 0);
	int status = conform_slot(t, 1, 0, 6, 16);
	conform_expect(t, "R-8", status != MR_E_NOT_ACTIVE, "the program is gone");
	conform_expect(t, "R-7", status != MR_E_EXISTS, "the slot is still open");
	STATUS("R-8", conform_decode(t, 0, 6, 0, 20, 1, NULL), 0);
}

static void kinds_of_reset(struct conform *t, uint32_t kind)
{
	MUST(conform_slot(t, 1, 0, 5, 16) == 0);
	int status = DO(0, mr_lpu_cmd_reset, {MR_LPU_RESET}, .kind = kind);
	STATUS("RS-1", status, 0);
	EXPECT("RS-1",
	       WAIT(!conform_reg(t, MR_LPU_REG_STATUS) && !conform_reg(t, MR_LPU_REG_CONTROL),
		    t->timeout_ms));
	MUST(conform_enable(t, 16));
	STATUS("RS-1", conform_queue(t, 1, 8, 8), 0); /* the queue is gone */
	status = conform_slot(t, 1, 0, 6, 16);
	if (kind == MR_LPU_RESET_CONTROLLER)
		STATUS("RS-2", status, 0);
	else
		STATUS("RS-3", status, MR_E_NOT_ACTIVE);
	t->loaded = kind == MR_LPU_RESET_CONTROLLER && !status;
}

SCENARIO(reset_by_command, CONFORM_PROGRAM | CONFORM_QUEUE, "RS-1 RS-2")
{
	conform_need(t, MR_LPU_RESET);
	kinds_of_reset(t, MR_LPU_RESET_CONTROLLER);
}

SCENARIO(reset_of_all, CONFORM_PROGRAM | CONFORM_QUEUE, "RS-1 RS-3")
{
	conform_need(t, MR_LPU_RESET);
	STATUS("RS-1", DO(0, mr_lpu_cmd_reset, {MR_LPU_RESET}, .kind = 3), MR_E_RANGE);
	kinds_of_reset(t, MR_LPU_RESET_ALL);
}

SCENARIO(function_reset, CONFORM_PROGRAM | CONFORM_QUEUE, "R-13 R-14 R-15")
{
	struct mr_lpu_counters before, after;
	uint32_t refused;

	DO(1, mr_lpu_command, {0xff});
	before = conform_counters(t);
	refused = conform_reg(t, MR_LPU_REG_REFUSED);
	conform_again(t);
	EXPECT("R-15", conform_reg(t, MR_LPU_REG_REFUSED) == refused);
	after = conform_counters(t);
	EXPECT("R-15", after.commands >= before.commands && after.refused == before.refused);
	MUST(t->bus->ops->reset(t->bus) == 0);
	t->loaded = 0;
	EXPECT("R-13", conform_reg(t, MR_LPU_REG_STATUS) == 0);
	EXPECT("R-13", conform_reg(t, MR_LPU_REG_CONTROL) == 0);
	EXPECT("R-13", conform_reg(t, MR_LPU_REG_ADMIN_ENTRIES) == 0);
	for (uint32_t at = MR_LPU_REG_ADMIN_SQ_LO; at <= MR_LPU_REG_ADMIN_CQ_HI; at += 4)
		EXPECT("R-13", conform_reg(t, at) == 0);
	EXPECT("R-15", conform_reg(t, MR_LPU_REG_REFUSED) == refused);
	MUST(conform_enable(t, 16));
	MUST(conform_queue(t, 1, 8, 8) == 0);
	STATUS("R-14", conform_slot(t, 1, 0, 5, 16), MR_E_NOT_ACTIVE);
	after = conform_counters(t);
	EXPECT("R-15",
	       after.commands >= before.commands && after.completions >= before.completions);
	EXPECT("R-15", after.refused >= before.refused);
}

SCENARIO(queue_delete_ends_it, CONFORM_PROGRAM | CONFORM_QUEUE, "Q-20 Q-21")
{
	struct mr_lpu_completion c;

	if (t->id.queues_max < 2)
		conform_skip(t, "the device has one I/O queue");
	MUST(conform_queue(t, 2, 8, 8) == 0);
	start_long_decode(t);
	MUST(DO(0, mr_lpu_cmd_queue_delete, {MR_LPU_QUEUE_DELETE}, .queue = 1) == 0);
	EXPECT("Q-21", !conform_completion(t, 1, 0, &c));
	EXPECT("Q-20", rings_stay(t, 1));
	STATUS("Q-21", DO(2, mr_lpu_cmd_kv_free, {MR_LPU_KV_FREE}, .slot = 0, .generation = 5), 0);
}
