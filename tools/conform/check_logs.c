// SPDX-License-Identifier: Apache-2.0
/* GET_LOG: pieces, counters that count what they say, errors, crashes. */
#include <string.h>

#include "tools/conform/conform.h"

#define GET(number, room, n, from)                                                 \
	DO(0, mr_lpu_cmd_get_log, {MR_LPU_GET_LOG}, .iova = conform_iova(t, room), \
	   .bytes = (uint32_t)(n), .log = (number), .offset = (from))

SCENARIO(logs_in_pieces, 0, "L-1 L-2 L-3 L-4")
{
	uint32_t bytes = t->id.chip_bytes;
	uint8_t *whole = conform_take(t, bytes + 64), *part = conform_take(t, bytes + 64);

	static const uint32_t none[] = {0, 8, 63, 64, 0x80000000u};
	for (int i = 0; i < 5; i++)
		STATUS("L-1", GET(none[i], part, 64, 0), MR_E_NOT_SUPPORTED);
	STATUS("L-4", GET(MR_LPU_LOG_CHIP, whole, bytes + 64, 0), 0);
	EXPECT("L-4", t->result == bytes);
	for (uint32_t at = 0; at < bytes; at += t->result ? t->result : bytes) {
		memset(part, 0xa5, 200);
		STATUS("L-4", GET(MR_LPU_LOG_CHIP, part, 100, at), 0);
		EXPECT("L-3", t->result <= 100 && t->result > 0);
		EXPECT("L-4", t->result <= 100 && !memcmp(part, whole + at, t->result));
		int same = 1;
		for (uint32_t i = t->result; i < 200; i++)
			same &= part[i] == 0xa5;
		EXPECT("L-3", same);
	}
	STATUS("L-2", GET(MR_LPU_LOG_CHIP, part, 100, bytes), 0);
	EXPECT("L-2", t->result == 0);
	STATUS("L-2", GET(MR_LPU_LOG_CHIP, part, 100, bytes + 1), MR_E_RANGE);
	STATUS("L-2", GET(MR_LPU_LOG_COUNTERS, part, 100, UINT64_MAX), MR_E_RANGE);
	STATUS("L-2", GET(MR_LPU_LOG_COUNTERS, part, 100, 257), MR_E_RANGE);
}

/* @field of two counters' difference against what was done. */
#define GREW(rule, field, want)                                                                  \
	conform_expect(                                                                          \
		t, rule, after.field - before.field == (want), #field " grew by %llu, not %llu", \
		(unsigned long long)(after.field - before.field), (unsigned long long)(want))

SCENARIO(counters_count, CONFORM_PROGRAM | CONFORM_QUEUE, "L-6 L-7 L-8 F-14 G-1")
{
	struct mr_lpu_counters before, after;
	uint8_t *room = conform_take(t, 512);

	MUST(conform_slot(t, 1, 0, 5, 64) == 0);
	before = conform_counters(t);
	MUST(conform_decode(t, 0, 5, 0, 20, 6, NULL) == 0);
	after = conform_counters(t);
	GREW("L-6", steps, 6u);
	GREW("L-7", records, 6u);
	GREW("L-7", completions, 2u); /* DECODE's and that of the GET_LOG before */
	GREW("L-8", commands, 2u);
	GREW("L-8", refused, 0u);
	EXPECT("L-8", after.cycles > before.cycles);
	EXPECT("L-8", after.kv_blocks_used == 4 && after.kv_blocks_used <= after.kv_blocks);
	for (size_t i = 0; i < sizeof(after.reserved) / sizeof(after.reserved[0]); i++)
		EXPECT("G-1", after.reserved[i] == 0);
	GREW("L-8", violations, 0u);

	before = conform_counters(t);
	DO(1, mr_lpu_command, {0xff});
	DO(1, mr_lpu_command, {MR_LPU_FENCE}, .word = {1});
	DO(1, mr_lpu_command, {MR_LPU_FENCE, 1});
	DO(0, mr_lpu_cmd_identify, {MR_LPU_IDENTIFY}, .bytes = 0);
	DO(0, mr_lpu_cmd_identify, {MR_LPU_IDENTIFY}, .iova = t->ro_iova, .bytes = 8);
	MUST(DO(0, mr_lpu_cmd_identify, {MR_LPU_IDENTIFY}, .iova = conform_iova(t, room),
		.bytes = 100) == 0);
	after = conform_counters(t);
	GREW("L-8", refused, 5u);
	GREW("L-8", bad_opcode, 1u);
	GREW("L-8", bad_reserved, 2u);
	GREW("L-8", bad_range, 1u);
	GREW("L-8", dma_faults, 1u);
	conform_expect(t, "L-8",
		       after.dma_write_bytes - before.dma_write_bytes >= 100 + 256 + 7 * 16,
		       "dma_write_bytes grew by %llu",
		       (unsigned long long)(after.dma_write_bytes - before.dma_write_bytes));
	conform_expect(t, "L-8", after.dma_read_bytes - before.dma_read_bytes >= 7 * 64,
		       "dma_read_bytes grew by %llu",
		       (unsigned long long)(after.dma_read_bytes - before.dma_read_bytes));

	if (conform_has(t, MR_LPU_KV_FORK)) {
		conform_fill(t, 0, 5, 40);
		before = conform_counters(t);
		struct mr_lpu_slot_param *p = conform_param(t, 64);
		MUST(DO(1, mr_lpu_cmd_kv_fork, {MR_LPU_KV_FORK}, .slot = 1, .generation = 6,
			.param_iova = conform_iova(t, p), .param_bytes = sizeof(*p),
			.from_generation = 5, .positions = 40) == 0);
		after = conform_counters(t);
		GREW("L-8", forks, 1u);
		GREW("L-8", fork_copies, 1u);
		GREW("L-8", kv_blocks_shared, 2u);
		GREW("F-14", kv_blocks_used, 2u);
	} else {
		conform_need(t, MR_LPU_KV_FORK);
	}
}

SCENARIO(optional_counters, CONFORM_PROGRAM | CONFORM_QUEUE, "L-8")
{
	struct mr_lpu_counters before = conform_counters(t), after;
	struct mr_lpu_record r;
	struct mr_lpu_completion c;

	MUST(conform_slot(t, 1, 0, 5, 64) == 0);
	if (conform_has(t, MR_LPU_SCORE)) {
		uint32_t *ids = conform_take(t, 64);
		for (uint32_t i = 0; i < 7; i++)
			ids[i] = 20 + i;
		uint32_t request = POST(1, mr_lpu_cmd_score, {MR_LPU_SCORE}, .generation = 5,
					.tokens_iova = conform_iova(t, ids), .count = 7);
		MUST(conform_completion(t, 1, t->profile.wait_ms, &c) && c.request == request);
		conform_credit(t, 1);
		after = conform_counters(t);
		uint32_t batch = t->c.header->batch < 8 ? t->c.header->batch : 8;
		GREW("L-8", score_records, 6u);
		GREW("L-8", score_passes, (uint64_t)(6 + batch - 1) / batch);
		GREW("L-8", steps, 0u);
		while (conform_record(t, 1, 0, &r))
			;
		conform_record_credit(t, 1);
	}
	if (conform_has(t, MR_LPU_KV_READ)) {
		conform_fill(t, 0, 5, 17);
		before = conform_counters(t);
		uint8_t *room = conform_take(t, 1 << 20);
		MUST(DO(1, mr_lpu_cmd_kv_read, {MR_LPU_KV_READ}, .generation = 5,
			.iova = conform_iova(t, room),
			.descs_iova = conform_iova(t, room + (1 << 20) - 4096), .count = 2) == 0);
		after = conform_counters(t);
		GREW("L-8", kv_read_blocks, 2u);
	}
	int fd = conform_irq(t, 1);
	before = conform_counters(t);
	conform_bell(t, 1, MR_LPU_DB_ARM, 1);
	conform_fence(t, 1);
	MUST(conform_raised(fd, t->profile.wait_ms));
	/* Stall once for credit. */
	struct mr_lpu_decode_entry *e = conform_entries(t, 1);
	*e = (struct mr_lpu_decode_entry){.generation = 5, .token = 20};
	conform_decode_post(t, 1, e, 1, 12);
	for (int i = 0; i < 8; i++)
		MUST(conform_record(t, 1, t->profile.wait_ms, &r));
	conform_nap_us(2000);
	conform_record_credit(t, 1);
	MUST(conform_completion(t, 1, t->profile.wait_ms, &c));
	after = conform_counters(t);
	GREW("L-8", interrupts, 1u);
	GREW("L-8", credit_stalls, 1u);
}

SCENARIO(errors_are_kept, CONFORM_QUEUE, "L-9 L-10")
{
	struct mr_lpu_error error[MR_LPU_ERRORS_MAX];
	struct mr_lpu_health health;

	conform_need_log(t, MR_LPU_LOG_ERRORS);
	for (int i = 0; i < 70; i++)
		DO(1, mr_lpu_command, {0xff});
	uint32_t last = DO(0, mr_lpu_cmd_identify, {MR_LPU_IDENTIFY}, .bytes = 0) == MR_E_RANGE
				? t->request
				: 0;
	uint32_t n = conform_log(t, MR_LPU_LOG_ERRORS, error, sizeof(error)) / sizeof(error[0]);
	EXPECT("L-9", n > 0 && n <= MR_LPU_ERRORS_MAX);
	MUST(n > 1 && n <= MR_LPU_ERRORS_MAX);
	for (uint32_t i = 1; i < n; i++)
		conform_expect(t, "L-9", error[i].number == error[i - 1].number + 1,
			       "number %llu after %llu", (unsigned long long)error[i].number,
			       (unsigned long long)error[i - 1].number);
	EXPECT("L-9", error[n - 1].request == last && error[n - 1].opcode == MR_LPU_IDENTIFY &&
			      error[n - 1].queue == 0 && error[n - 1].status == -MR_E_RANGE);
	EXPECT("L-9", error[n - 2].queue == 1 && error[n - 2].opcode == 0xff);
	EXPECT("L-10", error[n - 1].number == conform_counters(t).refused);
	if (t->id.logs >> MR_LPU_LOG_HEALTH & 1) {
		conform_log(t, MR_LPU_LOG_HEALTH, &health, sizeof(health));
		EXPECT("L-10", error[n - 1].number == health.errors);
	}
}

SCENARIO(crashes_are_kept, 0, "L-11 L-12")
{
	struct mr_lpu_crash crash = {0}, before = {0};

	conform_need_log(t, MR_LPU_LOG_CRASH);
	EXPECT("L-12", t->crash_bytes_at_start == 0 || (t->crash_bytes_at_start == sizeof(crash) &&
							t->crash_at_start.number > 0));
	conform_log(t, MR_LPU_LOG_CRASH, &before, sizeof(before));
	conform_reg_set(t, MR_LPU_REG_CONTROL, 0);
	MUST(WAIT(!conform_reg(t, MR_LPU_REG_STATUS), t->timeout_ms));
	conform_reg_set(t, MR_LPU_REG_ADMIN_ENTRIES, 3);
	conform_reg_set(t, MR_LPU_REG_CONTROL, MR_LPU_CONTROL_ENABLE);
	MUST(WAIT(conform_reg(t, MR_LPU_REG_STATUS) == MR_LPU_STATUS_FATAL, t->timeout_ms));
	conform_again(t);
	EXPECT("L-11", conform_log(t, MR_LPU_LOG_CRASH, &crash, sizeof(crash)) == sizeof(crash));
	EXPECT("L-11", crash.number == before.number + 1 && crash.cause == MR_LPU_CRASH_ADMIN);
}
