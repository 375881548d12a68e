// SPDX-License-Identifier: Apache-2.0
/* BAR0: what its registers hold, who may write them, how a device comes up, and gives up. */
#include <string.h>

#include "driver/bus/bus.h"
#include "driver/mem/arena.h"
#include "tools/conform/conform.h"

static int in_table(uint32_t offset)
{
	return offset <= MR_LPU_REG_REFUSED && offset != 0x01c && offset != 0x024;
}

SCENARIO(registers_agree, 0, "R-1 D-2 D-3 R-2")
{
	uint32_t before[16], caps = conform_reg(t, MR_LPU_REG_CAPS);

	EXPECT("R-1",
	       conform_reg(t, MR_LPU_REG_MAGIC) == t->id.magic && t->id.magic == MR_LPU_MAGIC);
	EXPECT("R-1", conform_reg(t, MR_LPU_REG_VERSION) == t->id.version);
	EXPECT("R-1", 1u << (caps & 31) == t->id.ring_entries_max);
	EXPECT("R-1", (caps >> 8 & 255) == 12);
	EXPECT("R-1", caps >> 16 == t->id.queues_max);
	for (uint32_t at = 0; at < MR_LPU_BAR0_BYTES; at += 4)
		if (!in_table(at) && conform_reg(t, at))
			conform_expect(t, "D-2", 0, "%#x reads %#x", at, conform_reg(t, at));
	EXPECT("D-2", conform_reg(t, 0x024) == 0);

	for (uint32_t i = 0; i < 16; i++)
		before[i] = conform_reg(t, i * 4);
	for (uint32_t at = 0; at < MR_LPU_BAR0_BYTES; at += 4)
		if (at != MR_LPU_REG_CONTROL)
			conform_reg_set(t, at, 0xffffffffu);
	conform_nap_us(t->profile.quiet_ms * 1000);
	for (uint32_t i = 0; i < 16; i++) {
		uint32_t at = i * 4;
		const char *rule = at >= 0x020 && at <= 0x034 && at != 0x024 ? "R-2" : "D-3";
		if (at != MR_LPU_REG_HEARTBEAT)
			conform_expect(t, rule, conform_reg(t, at) == before[i],
				       "%#x was %#x and is %#x after a write", at, before[i],
				       conform_reg(t, at));
	}
	for (uint32_t at = 64; at < MR_LPU_BAR0_BYTES; at += 4)
		if (conform_reg(t, at))
			conform_expect(t, "D-3", 0, "%#x holds what was written", at);
}

SCENARIO(ready_comes, 0, "R-3")
{
	static const uint32_t entries[] = {2, 64, 4096};

	for (int i = 0; i < 3; i++) {
		MUST(conform_disable(t));
		conform_expect(t, "R-3", conform_enable(t, entries[i]), "no READY with %u entries",
			       entries[i]);
	}
	MUST(conform_reg(t, MR_LPU_REG_STATUS) == MR_LPU_STATUS_READY);
}

/* Sets ENABLE with registers that are not sound: 1 where that is FATAL. */
static int gives_up(struct conform *t, uint32_t entries, uint32_t sq, uint32_t cq)
{
	conform_reg_set(t, MR_LPU_REG_CONTROL, 0);
	if (!WAIT(!conform_reg(t, MR_LPU_REG_STATUS), t->timeout_ms))
		return 0;
	conform_reg_set(t, MR_LPU_REG_ADMIN_ENTRIES, entries);
	conform_reg_set(t, MR_LPU_REG_ADMIN_SQ_LO, (uint32_t)t->iova + sq);
	conform_reg_set(t, MR_LPU_REG_ADMIN_CQ_LO, (uint32_t)t->iova + cq);
	conform_reg_set(t, MR_LPU_REG_CONTROL, MR_LPU_CONTROL_ENABLE);
	return WAIT(conform_reg(t, MR_LPU_REG_STATUS) == MR_LPU_STATUS_FATAL, t->timeout_ms);
}

SCENARIO(unsound_admin_registers, 0, "R-4 R-5 R-12")
{
	static const uint32_t bad[][3] = {{0, 0, 4096},    {1, 0, 4096},  {3, 0, 4096},
					  {8192, 0, 4096}, {16, 4, 4096}, {16, 0, 4100}};

	EXPECT("R-12", conform_reg(t, MR_LPU_REG_FATAL_CODE) == 0);
	for (int i = 0; i < 6; i++) {
		conform_expect(t, "R-4", gives_up(t, bad[i][0], bad[i][1], bad[i][2]),
			       "%u entries, rings at +%u and +%u: STATUS is %#x", bad[i][0],
			       bad[i][1], bad[i][2], conform_reg(t, MR_LPU_REG_STATUS));
		if (conform_reg(t, MR_LPU_REG_STATUS) & MR_LPU_STATUS_FATAL)
			EXPECT("R-12", conform_reg(t, MR_LPU_REG_FATAL_CODE) == MR_LPU_CRASH_ADMIN);
		conform_reg_set(t, MR_LPU_REG_CONTROL, 0);
		EXPECT("R-5", WAIT(!conform_reg(t, MR_LPU_REG_STATUS), t->timeout_ms));
		EXPECT("R-12", conform_reg(t, MR_LPU_REG_FATAL_CODE) == 0);
	}
}

SCENARIO(fatal_is_silent, CONFORM_QUEUE, "E-2 R-11 R-12 L-11")
{
	struct mr_lpu_cmd_queue_create c;
	struct mr_lpu_completion done;
	struct mr_lpu_crash crash = {0};

	if (t->id.queues_max < 2)
		conform_skip(t, "the device has one I/O queue");
	conform_fill_in_queue(t, 2, 8, t->id.batch_max > 8 ? 8 : 8, &c);
	c.sq_iova = t->wo_iova; /* the device may not read there */
	MUST(conform_do(t, 0, &c) == 0);
	conform_ring(t, 2, MR_LPU_DB_SQ_TAIL, 1);
	int fatal =
		WAIT(conform_reg(t, MR_LPU_REG_STATUS) & MR_LPU_STATUS_FATAL, t->profile.wait_ms);
	conform_expect(t, "E-2", fatal, "a submission ring that cannot be read: no FATAL");
	MUST(fatal);
	EXPECT("R-12", conform_reg(t, MR_LPU_REG_FATAL_CODE) == MR_LPU_CRASH_RING);
	POST(1, mr_lpu_command, {MR_LPU_FENCE});
	POST(0, mr_lpu_cmd_get_log, {MR_LPU_GET_LOG}, .log = MR_LPU_LOG_COUNTERS, .iova = t->iova,
	     .bytes = 0);
	EXPECT("R-11", !conform_completion(t, 1, t->profile.quiet_ms, &done));
	EXPECT("R-11", !conform_completion(t, 0, 0, &done));

	conform_again(t);
	if (t->id.logs >> MR_LPU_LOG_CRASH & 1) {
		EXPECT("L-11",
		       conform_log(t, MR_LPU_LOG_CRASH, &crash, sizeof(crash)) == sizeof(crash));
		EXPECT("L-11", crash.cause == MR_LPU_CRASH_RING && crash.number);
		EXPECT("L-11", crash.iova == t->wo_iova && crash.queue == 2);
		EXPECT("L-11", memchr(crash.text, 0, sizeof(crash.text)) != NULL);
	} else {
		conform_lacks(t, "L-11", "the device does not have the log CRASH");
	}
	/* A completion ring that cannot be written. */
	conform_fill_in_queue(t, 2, 8, 8, &c);
	c.cq_iova = t->ro_iova;
	MUST(conform_do(t, 0, &c) == 0);
	POST(2, mr_lpu_command, {MR_LPU_FENCE});
	EXPECT("E-2",
	       WAIT(conform_reg(t, MR_LPU_REG_STATUS) & MR_LPU_STATUS_FATAL, t->profile.wait_ms));
}

SCENARIO(heart_beats, CONFORM_QUEUE, "R-9")
{
	uint32_t ms = 1000;

	if (conform_has(t, MR_LPU_FEATURES) && t->id.features >> MR_LPU_FEATURE_HEARTBEAT_MS & 1) {
		ms = 50;
		MUST(conform_feature(t, MR_LPU_FEATURE_HEARTBEAT_MS, 0, ms) == 0);
	}
	for (int i = 0; i < 4; i++) {
		uint32_t was = conform_reg(t, MR_LPU_REG_HEARTBEAT);
		/* Our own sleep may be late, the device's beat may not. */
		EXPECT("R-9", WAIT(conform_reg(t, MR_LPU_REG_HEARTBEAT) != was,
				   ms + 20 + t->profile.wait_ms / 10));
	}
}

SCENARIO(refusals_are_counted, CONFORM_QUEUE, "R-10 Q-4")
{
	uint32_t was = conform_reg(t, MR_LPU_REG_REFUSED);

	for (int i = 0; i < 3; i++)
		DO(1, mr_lpu_command, {0xff});
	EXPECT("R-10", conform_reg(t, MR_LPU_REG_REFUSED) == was + 3);
	conform_fence(t, 1);
	EXPECT("R-10", conform_reg(t, MR_LPU_REG_REFUSED) == was + 3);
	struct mr_lpu_counters c = conform_counters(t);
	for (uint32_t i = 0; i < 3; i++) {
		conform_bad_bell(t, 1, t->q[1].tail + 1000 + i, t->q[1].tail);
		conform_fence(t, 0); /* refused there */
	}
	conform_nap_us(t->profile.quiet_ms * 1000);
	EXPECT("R-10", conform_reg(t, MR_LPU_REG_REFUSED) == was + 9);
	struct mr_lpu_counters after = conform_counters(t);
	conform_expect(t, "Q-4", after.bad_doorbell - c.bad_doorbell == 3,
		       "3 doorbells ignored, counted %llu times",
		       (unsigned long long)(after.bad_doorbell - c.bad_doorbell));
}
