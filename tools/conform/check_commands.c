// SPDX-License-Identifier: Apache-2.0
/* What holds for every command: opcodes, reserved fields, flags, refusals, random bytes; IDENTIFY. */
#include <stddef.h>
#include <string.h>

#include "tools/conform/conform.h"

static const struct {
	uint8_t opcode;
	uint8_t reserved[4]; /* words of 4 bytes that are 0: first and last, twice; 0 = none */
} commands[] = {
	{MR_LPU_IDENTIFY, {5, 15}},     {MR_LPU_QUEUE_CREATE, {12, 15}},
	{MR_LPU_QUEUE_DELETE, {3, 15}}, {MR_LPU_GET_LOG, {8, 15}},
	{MR_LPU_FEATURES, {8, 15}},     {MR_LPU_ASYNC_EVENT, {2, 15}},
	{MR_LPU_ABORT, {4, 15}},        {MR_LPU_PROGRAM, {3, 3, 10, 15}},
	{MR_LPU_FIRMWARE, {10, 15}},    {MR_LPU_RESET, {3, 15}},
	{MR_LPU_SLOT_SET, {7, 15}},     {MR_LPU_KV_WRITE, {7, 15}},
	{MR_LPU_KV_READ, {13, 15}},     {MR_LPU_KV_FORK, {10, 15}},
	{MR_LPU_KV_FREE, {4, 15}},      {MR_LPU_DECODE, {9, 15}},
	{MR_LPU_SCORE, {8, 15}},        {MR_LPU_EXEC, {10, 15}},
	{MR_LPU_FENCE, {2, 15}},
};

SCENARIO(opcodes, CONFORM_QUEUE, "C-3 C-5 C-6 C-7 C-8 I-5")
{
	union {
		struct mr_lpu_command c;
		uint32_t word[16];
	} u;

	for (uint32_t op = 0; op < 0x100; op++) {
		if (conform_has(t, op) && (op < 0x40 || (op >= 0x80 && op < 0xc0)))
			continue;
		for (uint32_t q = 0; q < 2; q++) {
			int status = DO(q, mr_lpu_command, {(uint16_t)op});
			conform_expect(t, "C-5", status == MR_E_NOT_SUPPORTED,
				       "opcode %#x on queue %u: %s", op, q, mr_status_name(status));
			conform_expect(t, "I-5", status == MR_E_NOT_SUPPORTED,
				       "opcode %#x is not in IDENTIFY and is answered by %s", op,
				       mr_status_name(status));
		}
	}
	STATUS("C-5", DO(1, mr_lpu_command, {0x0189}), MR_E_NOT_SUPPORTED);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		uint32_t op = commands[i].opcode, q = op >= 0x80;
		const uint8_t *r = commands[i].reserved;
		if (!conform_has(t, op))
			continue;
		memset(&u, 0, sizeof(u));
		u.c.head.opcode = (uint16_t)op;
		int status = conform_do(t, !q, &u.c);
		conform_expect(t, "C-6", status == MR_E_NOT_SUPPORTED, "opcode %#x on queue %u: %s",
			       op, !q, mr_status_name(status));
		for (uint32_t w = 2; w < 16; w++) {
			if (!(w >= r[0] && w <= r[1]) && !(r[2] && w >= r[2] && w <= r[3]))
				continue;
			memset(&u, 0, sizeof(u));
			u.c.head.opcode = (uint16_t)op;
			u.word[w] = w & 1 ? 1 : 0x80000000u;
			status = conform_do(t, q, &u.c);
			conform_expect(t, "C-7", status == MR_E_INVALID,
				       "opcode %#x with byte %u not 0: %s", op, w * 4,
				       mr_status_name(status));
			conform_expect(t, "C-3", t->result == 0, "a refusal's result is %u",
				       t->result);
		}
		for (int bit = 0; bit < 16; bit += 5) {
			memset(&u, 0, sizeof(u));
			u.c.head.opcode = (uint16_t)op;
			u.c.head.flags = (uint16_t)(1u << bit);
			status = conform_do(t, q, &u.c);
			conform_expect(t, "C-8", status == MR_E_INVALID,
				       "opcode %#x with flag %d: %s", op, bit,
				       mr_status_name(status));
		}
		if (op == MR_LPU_ASYNC_EVENT || op == MR_LPU_RESET)
			continue; /* an empty one would stay, or take effect */
		memset(&u, 0, sizeof(u));
		u.c.head.opcode = (uint16_t)op;
		status = conform_do(t, q, &u.c);
		conform_expect(t, "I-5",
			       status != MR_E_NOT_SUPPORTED || op == MR_LPU_GET_LOG ||
				       op == MR_LPU_FEATURES,
			       "opcode %#x is in IDENTIFY and not there", op);
	}
	MUST(conform_fence(t, 1) == 0);
	EXPECT("C-3", t->result == 0);
	for (uint32_t log = 0; log < 64; log++) {
		int status = DO(0, mr_lpu_cmd_get_log, {MR_LPU_GET_LOG}, .log = log,
				.iova = t->iova, .bytes = 0);
		conform_expect(t, "I-5", (status == MR_E_NOT_SUPPORTED) == !(t->id.logs >> log & 1),
			       "log %u: %s", log, mr_status_name(status));
	}
	for (uint32_t f = 0; f < 64 && conform_has(t, MR_LPU_FEATURES); f++) {
		int status =
			DO(0, mr_lpu_cmd_features, {MR_LPU_FEATURES}, .feature = f,
			   .action = MR_LPU_FEATURE_GET, .queue = f == MR_LPU_FEATURE_COALESCE);
		conform_expect(t, "I-5",
			       (status == MR_E_NOT_SUPPORTED) == !(t->id.features >> f & 1),
			       "feature %u: %s", f, mr_status_name(status));
	}
}

SCENARIO(refused_is_undone, CONFORM_PROGRAM | CONFORM_QUEUE, "C-9")
{
	struct mr_lpu_cmd_queue_create c;

	MUST(conform_slot(t, 1, 0, 5, 32) == 0);
	uint64_t used = conform_counters(t).kv_blocks_used;
	MUST(DO(1, mr_lpu_cmd_kv_free, {MR_LPU_KV_FREE}, .generation = 5, .reserved = {1}) < 0);
	MUST(DO(1, mr_lpu_cmd_kv_free, {MR_LPU_KV_FREE}, .generation = 6) < 0);
	EXPECT("C-9", conform_counters(t).kv_blocks_used == used);
	STATUS("C-9", conform_decode(t, 0, 5, 0, 20, 1, NULL), 0);
	MUST(conform_slot(t, 1, 1, 5, CONFORM_CONTEXT * 1000) < 0);
	MUST(conform_slot(t, 1, 1, 5, 0) < 0);
	EXPECT("C-9", conform_counters(t).kv_blocks_used == used);
	STATUS("C-9", conform_free(t, 1, 5), MR_E_STALE);
	if (t->id.queues_max > 1) {
		conform_fill_in_queue(t, 2, 8, 8, &c);
		c.record_iova += 4;
		MUST(conform_do(t, 0, &c) < 0);
		STATUS("C-9", DO(0, mr_lpu_cmd_queue_delete, {MR_LPU_QUEUE_DELETE}, .queue = 2),
		       MR_E_NOT_FOUND);
	}
	MUST(conform_decode(t, 0, 5, 9, 20, 1, NULL) == MR_E_TRUNCATED);
	STATUS("C-9", conform_decode(t, 0, 5, 1, 20, 1, NULL), 0);
}

SCENARIO(identify, CONFORM_QUEUE, "I-1 I-2 I-3 I-4 I-6 I-7 G-1")
{
	uint8_t *room = conform_take(t, 4096);
	struct mr_lpu_identify *id = (void *)room, last;
	const char *texts[] = {id->vendor, id->product, id->firmware};

#define IDENTIFY(n) \
	DO(0, mr_lpu_cmd_identify, {MR_LPU_IDENTIFY}, .iova = conform_iova(t, room), .bytes = (n))
	STATUS("I-1", IDENTIFY(0), MR_E_RANGE);
	STATUS("I-1", IDENTIFY(513), MR_E_RANGE);
	STATUS("I-1", IDENTIFY(0xffffffffu), MR_E_RANGE);
	STATUS("I-1", IDENTIFY(512), 0);
	last = *id;
	static const uint32_t some[] = {1, 7, 64, 300, 511};
	for (int i = 0; i < 5; i++) {
		memset(room, 0xa5, 1024);
		STATUS("I-2", IDENTIFY(some[i]), 0);
		EXPECT("I-2", t->result == some[i]);
		EXPECT("I-2", !memcmp(room, &last, some[i]));
		int same = 1;
		for (uint32_t at = some[i]; at < 1024; at++)
			same &= room[at] == 0xa5;
		conform_expect(t, "I-2", same, "IDENTIFY of %u bytes wrote more", some[i]);
	}
	for (int i = 0; i < 50; i++) {
		conform_fence(t, 1);
		MUST(IDENTIFY(512) == 0);
		EXPECT("I-7", !memcmp(id, &last, sizeof(last)));
	}
	for (int i = 0; i < 3; i++)
		EXPECT("I-3", memchr(texts[i], 0, 32) != NULL);
	for (int i = 0; i < 4; i++)
		EXPECT("I-3", memchr(id->classes[i], 0, 16) != NULL);
	EXPECT("I-4", id->chips >= 1 && id->chips <= 64);
	EXPECT("I-4", id->slots_max >= 1 && id->slots_max <= 65536);
	EXPECT("I-4", id->queues_max >= 1);
	EXPECT("I-4", id->ring_entries_max >= 2 && id->ring_entries_max <= MR_LPU_RING_ENTRIES_MAX);
	EXPECT("I-4", id->batch_max >= 1 && id->steps_max >= 1 && id->context_max >= 1);
	EXPECT("I-4", id->kv_block_tokens == MR_KV_BLOCK_TOKENS && id->kv_type == MR_LPU_KV_FP16);
	EXPECT("I-4", id->chip_bytes && id->sram_bytes && id->cycle_ps);
	EXPECT("I-4", id->firmware_slots <= MR_LPU_FIRMWARE_SLOTS_MAX);
	EXPECT("I-4", !(id->options & ~MR_LPU_OPTION_MASK));
	EXPECT("I-4", !id->score_max == !conform_has(t, MR_LPU_SCORE));
	EXPECT("I-4", !id->async_max == !conform_has(t, MR_LPU_ASYNC_EVENT));
	EXPECT("I-4", !id->firmware_max == !conform_has(t, MR_LPU_FIRMWARE));
	EXPECT("I-4", conform_has(t, MR_LPU_IDENTIFY) && conform_has(t, MR_LPU_QUEUE_CREATE) &&
			      conform_has(t, MR_LPU_QUEUE_DELETE) &&
			      conform_has(t, MR_LPU_GET_LOG) && conform_has(t, MR_LPU_PROGRAM) &&
			      conform_has(t, MR_LPU_SLOT_SET) && conform_has(t, MR_LPU_KV_WRITE) &&
			      conform_has(t, MR_LPU_KV_FREE) && conform_has(t, MR_LPU_DECODE) &&
			      conform_has(t, MR_LPU_FENCE));
	EXPECT("I-6", !memcmp(id->chip_hash, t->chip.hash, 32));
	EXPECT("G-1", id->reserved0 == 0);
	for (int i = 0; i < 24; i++)
		EXPECT("G-1", id->reserved[i] == 0);
}

static uint64_t draw(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

SCENARIO(random_bytes, CONFORM_PROGRAM | CONFORM_QUEUE, "C-11 C-10")
{
	uint64_t state = t->profile.seed;
	union {
		struct mr_lpu_command c;
		uint32_t word[16];
	} u;
	struct mr_lpu_completion done;

	for (uint64_t i = 0; i < t->profile.fuzz; i++) {
		uint32_t q = draw(&state) & 1, kind = draw(&state) % 4;
		for (int w = 0; w < 16; w++)
			u.word[w] = kind == 0 || draw(&state) % 3 == 0 ? (uint32_t)draw(&state)
				    : draw(&state) & 1 ? (uint32_t)draw(&state) % 200
						       : 0;
		if (kind)
			u.c.head.opcode = (uint16_t)((q ? 0x80 : 0) + draw(&state) % 12);
		u.c.head.flags = kind == 1 ? (uint16_t)draw(&state) : 0;
		/* Resets have scenarios of their own, and an ASYNC_EVENT may stay for ever. */
		if (u.c.head.opcode == MR_LPU_RESET || u.c.head.opcode == MR_LPU_ASYNC_EVENT)
			continue;
		uint32_t request = conform_post(t, q, &u.c);
		int came = WAIT(conform_completion(t, q, 0, &done) ||
					conform_reg(t, MR_LPU_REG_STATUS) != MR_LPU_STATUS_READY,
				t->profile.wait_ms);
		if (conform_reg(t, MR_LPU_REG_STATUS) == MR_LPU_STATUS_READY) {
			conform_expect(t, "C-11", came, "opcode %#x of random bytes: no answer",
				       u.c.head.opcode);
			MUST(came);
			conform_expect(t, "C-10", done.request == request, "request %u came as %u",
				       request, done.request);
			conform_credit(t, q);
			struct mr_lpu_record r;
			while (conform_record(t, 1, 0, &r))
				conform_record_credit(t, 1);
			if (u.c.head.opcode != MR_LPU_QUEUE_DELETE &&
			    u.c.head.opcode != MR_LPU_FEATURES)
				continue;
		}
		conform_again(t);
		MUST(conform_queue(t, 1, 8, 8) == 0);
	}
	t->loaded = 0;
	conform_again(t);
	MUST(conform_queue(t, 1, 8, 8) == 0);
	STATUS("C-11", conform_fence(t, 1), 0);
	MUST(conform_load(t) == 0);
	MUST(conform_slot(t, 1, 0, 5, 16) == 0);
	STATUS("C-11", conform_decode(t, 0, 5, 0, 20, 2, NULL), 0);
}
