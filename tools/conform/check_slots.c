// SPDX-License-Identifier: Apache-2.0
/* Slots and their KV: SLOT_SET, KV_WRITE, KV_READ, KV_FORK, KV_FREE. */
#include <string.h>

#include "tools/conform/conform.h"
#include "userlib/spec/crc32c.h"

static size_t block_bytes(const struct conform *t)
{
	return 2ull * t->c.ref->kv_heads * MR_KV_BLOCK_TOKENS * t->c.ref->head_dim * 2;
}

SCENARIO(slots, CONFORM_PROGRAM | CONFORM_QUEUE, "S-1 S-2 S-3 S-4 S-5 S-16")
{
	struct mr_lpu_decode_entry *e = conform_entries(t, 1);
	struct mr_lpu_record r;
	struct mr_lpu_counters c = conform_counters(t);
	uint32_t context = t->c.header->context, each = (context + 15) / 16, n = 0;

	EXPECT("S-16", c.kv_blocks_used == 0);
	STATUS("S-2", conform_slot(t, 1, 0, 5, context + 1), MR_E_CONTEXT_FULL);
	STATUS("S-4", conform_free(t, 0, 5), MR_E_STALE);
	STATUS("S-1", conform_slot(t, 1, 0, 5, context), 0);
	EXPECT("S-1", conform_counters(t).kv_blocks_used == each);
	STATUS("S-3", conform_slot(t, 1, 0, 6, 16), MR_E_EXISTS);
	STATUS("S-4", conform_free(t, 0, 6), MR_E_STALE);
	STATUS("S-4", conform_decode(t, 0, 6, 0, 20, 1, NULL), MR_E_STALE);
	STATUS("S-4", conform_decode(t, 1, 5, 0, 20, 1, NULL), MR_E_STALE);
	STATUS("S-4",
	       DO(1, mr_lpu_cmd_kv_write, {MR_LPU_KV_WRITE}, .slot = 0, .generation = 4,
		  .descs_iova = t->iova, .count = 1),
	       MR_E_STALE);
	STATUS("S-16", conform_free(t, 0, 5), 0);
	EXPECT("S-16", conform_counters(t).kv_blocks_used == 0);
	STATUS("S-16", conform_free(t, 0, 5), MR_E_STALE);
	/* As many as there is room for, and then none. */
	if (c.kv_blocks / each < t->id.slots_max) {
		int status = 0;
		while (n < t->id.slots_max && !(status = conform_slot(t, 1, n, 9, context))) {
			t->used -= 128;
			n++;
		}
		STATUS("S-1", status, MR_E_KV_EXHAUSTED);
		conform_expect(t, "S-1", n == c.kv_blocks / each, "%u slots in %llu blocks", n,
			       (unsigned long long)c.kv_blocks);
		conform_again(t);
		MUST(conform_queue(t, 1, 8, 8) == 0);
	}
	if (t->id.queues_max < 2) {
		conform_lacks(t, "S-5", "the device has one I/O queue");
		return;
	}
	MUST(conform_queue(t, 2, 8, 8) == 0);
	MUST(conform_slot(t, 1, 0, 5, 64) == 0);
	e = conform_entries(t, 1);
	*e = (struct mr_lpu_decode_entry){.generation = 5, .token = 20};
	uint32_t request = conform_decode_post(t, 1, e, 1, 12);
	for (int i = 0; i < 8; i++)
		MUST(conform_record(t, 1, t->profile.wait_ms, &r));
	STATUS("S-5", DO(2, mr_lpu_cmd_kv_free, {MR_LPU_KV_FREE}, .generation = 5), MR_E_BUSY);
	STATUS("S-5",
	       DO(2, mr_lpu_cmd_decode, {MR_LPU_DECODE}, .entries_iova = conform_iova(t, e),
		  .count = 1, .steps = 1),
	       MR_E_BUSY);
	STATUS("S-5",
	       DO(2, mr_lpu_cmd_kv_write, {MR_LPU_KV_WRITE}, .generation = 5, .descs_iova = t->iova,
		  .count = 1),
	       MR_E_BUSY);
	conform_record_credit(t, 1);
	STATUS("S-5", conform_wait(t, 1, request), 0);
	STATUS("S-5", DO(2, mr_lpu_cmd_kv_free, {MR_LPU_KV_FREE}, .generation = 5), 0);
}

/* A block of random-looking numbers that are small, and its descriptor. */
static void make_block(struct conform *t, uint8_t *at, struct mr_kv_desc *d, uint32_t layer,
		       uint32_t block, uint32_t length)
{
	uint16_t *half = (uint16_t *)(void *)at;

	for (size_t i = 0; i < block_bytes(t) / 2; i++)
		half[i] = (uint16_t)(0x2c00 + (i * 37 + layer * 11 + block * 5) % 0x300);
	*d = (struct mr_kv_desc){.iova = conform_iova(t, at),
				 .block = block,
				 .layer = (uint16_t)layer,
				 .length = (uint16_t)length,
				 .owner = 7,
				 .generation = 5,
				 .crc32c = mr_crc32c(0, at, block_bytes(t))};
}

#define WRITE(n)                                                                  \
	DO(1, mr_lpu_cmd_kv_write, {MR_LPU_KV_WRITE}, .slot = 0, .generation = 5, \
	   .descs_iova = conform_iova(t, d), .count = (n))

SCENARIO(kv_comes_in, CONFORM_PROGRAM | CONFORM_QUEUE, "S-7 S-8 S-9 S-10 S-11")
{
	uint32_t layers = t->c.ref->layers, n = layers < 60 ? 2 * layers : 120;
	struct mr_kv_desc *d = conform_take(t, 128 * sizeof(*d)), bad;
	uint8_t *kv = conform_take(t, n * block_bytes(t));

	if (layers > 60)
		conform_skip(t, "a program of more than 60 layers");
	MUST(conform_slot(t, 1, 0, 5, 64) == 0);
	for (uint32_t i = 0; i < n; i++)
		make_block(t, kv + i * block_bytes(t), &d[i], i % layers, i / layers, 16);
	bad = d[1];
	d[1].crc32c ^= 1;
	STATUS("S-10", WRITE(n), MR_E_CHECKSUM);
	conform_expect(t, "S-7", t->result == 1, "one block taken, the result is %u", t->result);
	STATUS("S-11", conform_decode(t, 0, 5, 16, 20, 1, NULL), MR_E_TRUNCATED);
	d[1] = bad;
	d[1].owner = 8;
	STATUS("S-8", WRITE(n), MR_E_STALE);
	d[1] = bad;
	d[1].generation = 4;
	STATUS("S-8", WRITE(n), MR_E_STALE);
	EXPECT("S-7", t->result == 1);
	d[1] = bad;
	STATUS("S-7", WRITE(n), 0);
	EXPECT("S-7", t->result == n);
	STATUS("S-7", conform_decode(t, 0, 5, 32, 20, 1, NULL), 0);
	d[0].length = 15;
	STATUS("S-9", WRITE(1), MR_E_TRUNCATED);
	d[0].length = 16;
	/* A block that is refused for its CRC leaves a hole where it was whole. */
	d[0].crc32c ^= 0x80000000u;
	STATUS("S-10", WRITE(1), MR_E_CHECKSUM);
	STATUS("S-11", conform_decode(t, 0, 5, 32, 20, 1, NULL), MR_E_TRUNCATED);
	d[0].crc32c ^= 0x80000000u;
	STATUS("S-11", WRITE(1), 0);
	STATUS("S-11", conform_decode(t, 0, 5, 32, 20, 1, NULL), 0);
	/* Short by one position. */
	MUST(conform_free(t, 0, 5) == 0);
	MUST(conform_slot(t, 1, 0, 5, 64) == 0);
	for (uint32_t i = 0; i < layers; i++)
		d[i].length = 10;
	STATUS("S-7", WRITE(layers), 0);
	STATUS("S-11", conform_decode(t, 0, 5, 11, 20, 1, NULL), MR_E_TRUNCATED);
	STATUS("S-7", conform_decode(t, 0, 5, 10, 20, 1, NULL), 0);
}

#define READ(first, n, to, descs)                                                         \
	DO(1, mr_lpu_cmd_kv_read, {MR_LPU_KV_READ}, .slot = 0, .generation = 5,           \
	   .iova = conform_iova(t, to), .descs_iova = conform_iova(t, descs), .layer = 0, \
	   .block = (first), .count = (n), .owner = 9, .receiver = 11)

SCENARIO(kv_goes_out, CONFORM_PROGRAM | CONFORM_QUEUE, "S-12 S-13 S-14 S-15")
{
	struct mr_kv_desc *d = conform_take(t, 16 * sizeof(*d));
	size_t bytes = block_bytes(t), row = t->c.ref->head_dim * 2u;
	uint8_t *out = conform_take(t, 4 * bytes), *kv = conform_take(t, 4 * bytes);

	conform_need(t, MR_LPU_KV_READ);
	/* Something that an earlier sequence leaves in SRAM. */
	MUST(conform_slot(t, 1, 0, 5, 64) == 0);
	for (uint32_t b = 0; b < 4; b++)
		make_block(t, kv + b * bytes, &d[b], 0, b, 16);
	MUST(WRITE(4) == 0);
	memset(d, 0, 4 * sizeof(*d));
	STATUS("S-15", READ(0, 1, out, d), 0);
	EXPECT("S-15", !memcmp(out, kv, bytes));
	EXPECT("S-15", d[0].iova == conform_iova(t, out) && d[0].length == 16 && d[0].block == 0 &&
			       d[0].layer == 0 && d[0].owner == 9 && d[0].generation == 11);
	EXPECT("S-15", d[0].crc32c == mr_crc32c(0, out, bytes));
	MUST(conform_free(t, 0, 5) == 0);
	MUST(conform_slot(t, 1, 0, 5, 64) == 0);
	conform_fill(t, 0, 5, 20);
	memset(out, 0xa5, 4 * bytes);
	STATUS("S-15", READ(0, 2, out, d), 0);
	EXPECT("S-15", t->result == 2 && d[0].length == 16 && d[1].length == 4 &&
			       d[1].iova == conform_iova(t, out) + bytes);
	EXPECT("S-15", d[1].crc32c == mr_crc32c(0, out + bytes, bytes));
	int zeros = 1;
	for (uint32_t head = 0; head < 2 * t->c.ref->kv_heads; head++)
		for (size_t i = 4 * row; i < 16 * row; i++)
			zeros &= !out[bytes + head * 16 * row + i];
	conform_expect(t, "S-14", zeros, "positions without KV are not zeros");
	memset(out, 0xa5, 4 * bytes);
	STATUS("S-12", READ(2, 3, out, d), MR_E_RANGE);
	STATUS("S-12", READ(0, 5, out, d), MR_E_RANGE);
	EXPECT("S-12", t->result == 0 && out[0] == 0xa5 && out[bytes / 2] == 0xa5);
	STATUS("S-13", READ(0, 3, out, d), MR_E_TRUNCATED);
	EXPECT("S-13", t->result == 2 && out[0] != 0xa5);
}

#define FORK(to, from_slot, at, p)                                                             \
	DO(1, mr_lpu_cmd_kv_fork, {MR_LPU_KV_FORK}, .slot = (to), .generation = 50 + (to),     \
	   .param_iova = conform_iova(t, p), .param_bytes = sizeof(*(p)), .from = (from_slot), \
	   .from_generation = (from_slot) ? 50 + (from_slot) : 5, .positions = (at))

SCENARIO(forks, CONFORM_PROGRAM | CONFORM_QUEUE,
	 "F-1 F-2 F-3 F-4 F-5 F-6 F-7 F-8 F-9 F-10 F-11 F-12 F-13 F-14")
{
	struct mr_lpu_slot_param *p, *plain;
	struct mr_lpu_record r[2], s[2];
	struct mr_kv_desc *d = conform_take(t, 64);
	uint32_t vocab;

	conform_need(t, MR_LPU_KV_FORK);
	vocab = conform_vocab(t);
	/* The parent samples in a way that its fork must not inherit. */
	p = conform_param(t, 64);
	p->sampling.temperature = 80;
	p->sampling.seed = 3;
	MUST(conform_slot_with(t, 0, 5, p) == 0);
	conform_fill(t, 0, 5, 40);
	uint64_t used = conform_counters(t).kv_blocks_used;
	plain = conform_param(t, 64);
#define BAD(rule, want, change)                                            \
	do {                                                               \
		memset(p, 0, sizeof(*p));                                  \
		p->owner = 7;                                              \
		p->positions = 64;                                         \
		change;                                                    \
		conform_status(t, rule, FORK(2, 0, 40, p), want, #change); \
	} while (0)
	BAD("F-1", MR_E_RANGE, p->positions = 0);
	BAD("F-1", MR_E_CONTEXT_FULL, p->positions = t->c.header->context + 1);
	BAD("F-1", MR_E_INVALID, p->reserved0 = 1);
	BAD("F-1", MR_E_INVALID, p->history_iova = t->iova);
	BAD("F-1", MR_E_RANGE, p->history_count = 65);
	BAD("F-1", MR_E_DMA_FAULT, (p->history_count = 1, p->history_iova = 0x7f0000000000ull));
	BAD("F-1", MR_E_RANGE, p->sampling.top_p = 7);
	uint32_t *ids = conform_take(t, 64);
	ids[0] = vocab;
	BAD("F-1", MR_E_RANGE, (p->history_count = 1, p->history_iova = conform_iova(t, ids)));
	BAD("F-5", MR_E_CONTEXT_FULL, p->positions = 39);
	STATUS("F-2", FORK(2, 9, 40, plain), MR_E_STALE);
	STATUS("F-2",
	       DO(1, mr_lpu_cmd_kv_fork, {MR_LPU_KV_FORK}, .slot = 2, .generation = 52,
		  .param_iova = conform_iova(t, plain), .param_bytes = sizeof(*plain),
		  .from_generation = 6, .positions = 16),
	       MR_E_STALE);
	STATUS("F-3", FORK(0, 0, 40, plain), MR_E_EXISTS);
	STATUS("F-4", FORK(2, 0, 41, plain), MR_E_TRUNCATED);
	EXPECT("F-1", conform_counters(t).kv_blocks_used == used);

	STATUS("F-6", FORK(2, 0, 40, plain), 0);
	struct mr_lpu_counters c = conform_counters(t);
	conform_expect(t, "F-6", c.kv_blocks_shared == 2, "%llu blocks are shared, not 2",
		       (unsigned long long)c.kv_blocks_shared);
	EXPECT("F-8", c.kv_blocks_used == used + 2);
	EXPECT("F-14", c.kv_blocks_used == used + 2);
	/* Exactly 40: the next position is there to write, the one after is a hole. */
	STATUS("F-9", conform_decode(t, 2, 52, 41, 20, 1, NULL), MR_E_TRUNCATED);
	STATUS("F-9", conform_decode(t, 2, 52, 40, 20, 2, r), 0);
	/* Its KV and its sampling: as a greedy slot that was fed the same. */
	MUST(conform_slot(t, 1, 3, 60, 64) == 0);
	conform_fill(t, 3, 60, 40);
	MUST(conform_decode(t, 3, 60, 40, 20, 2, s) == 0);
	conform_expect(t, "F-10", r[0].token == s[0].token && r[1].token == s[1].token,
		       "the fork samples otherwise than its param says");
	conform_expect(t, "F-7", r[0].logprob == s[0].logprob && r[1].logprob == s[1].logprob,
		       "the fork's KV is not that of what it was forked from");
	/* The copy is the fork's own: what a fork of it writes at 40 is not in it. */
	STATUS("F-7", FORK(4, 2, 41, plain), 0);
	MUST(conform_decode(t, 4, 54, 40, 33, 1, NULL) == 0);
	MUST(conform_decode(t, 2, 52, 41, 21, 1, r) == 0);
	MUST(conform_decode(t, 3, 60, 41, 21, 1, s) == 0);
	conform_expect(t, "F-7", r[0].token == s[0].token && r[0].logprob == s[0].logprob,
		       "what a fork wrote is seen by the slot that was forked");
	MUST(conform_free(t, 4, 54) == 0);
	MUST(conform_free(t, 3, 60) == 0);
	/* Shared blocks are not written. */
	STATUS("F-11", conform_decode(t, 0, 5, 31, 20, 1, NULL), MR_E_BUSY);
	STATUS("F-11", conform_decode(t, 2, 52, 0, 20, 1, NULL), MR_E_BUSY);
	uint8_t *kv = conform_take(t, block_bytes(t));
	make_block(t, kv, d, 0, 0, 16);
	STATUS("F-11", WRITE(1), MR_E_BUSY);
	if (conform_has(t, MR_LPU_SCORE)) {
		ids[0] = ids[1] = 20;
		STATUS("F-11",
		       DO(1, mr_lpu_cmd_score, {MR_LPU_SCORE}, .slot = 2, .generation = 52,
			  .tokens_iova = conform_iova(t, ids), .count = 2, .position = 5),
		       MR_E_BUSY);
	}
	/* The parent closes: the shared blocks stay, and are the fork's alone. */
	used = conform_counters(t).kv_blocks_used;
	MUST(conform_free(t, 0, 5) == 0);
	c = conform_counters(t);
	EXPECT("F-13", c.kv_blocks_used == used - 2 && c.kv_blocks_shared == 0);
	STATUS("F-13", conform_decode(t, 2, 52, 40, 20, 1, NULL), 0);
	STATUS("F-12", conform_decode(t, 2, 52, 0, 20, 1, NULL), 0);
	MUST(conform_free(t, 2, 52) == 0);
	EXPECT("F-13", conform_counters(t).kv_blocks_used == 0);

	/* Room is needed beyond what is shared, and then at once. */
	MUST(conform_slot(t, 1, 0, 5, 64) == 0);
	conform_fill(t, 0, 5, 32);
	uint32_t context = t->c.header->context, n = 10;
	p = conform_param(t, context);
	if (c.kv_blocks / ((context + 15) / 16) + 30 < t->id.slots_max) {
		while (!conform_slot_with(t, n, 9, p))
			n++;
		c = conform_counters(t);
		p->positions = 1;
		for (uint64_t left = c.kv_blocks - c.kv_blocks_used; left; left--)
			MUST(conform_slot_with(t, n++, 9, p) == 0);
		STATUS("F-8", FORK(2, 0, 32, plain), MR_E_KV_EXHAUSTED);
		p->positions = 32;
		STATUS("F-8", FORK(2, 0, 32, p), 0);
	}
}
