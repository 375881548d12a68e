// SPDX-License-Identifier: Apache-2.0
/* Shadow doorbells, and the order in which a device makes things visible. */
#include <string.h>

#include "driver/bus/bus.h"
#include "driver/mem/arena.h"
#include "tools/conform/conform.h"

/* Puts shadow doorbells on, at @at (zeroed); what the device said. */
static int shadow_on(struct conform *t, struct mr_lpu_shadow *at, uint64_t iova)
{
	for (uint32_t q = 0; q <= t->id.queues_max; q++) {
		at[q].sq_tail = t->q[q].tail + (q == 0);
		at[q].cq_head = t->q[q].head;
		at[q].record_head = t->q[q].record_head;
	}
	uint32_t request =
		POST(0, mr_lpu_cmd_features, {MR_LPU_FEATURES}, .feature = MR_LPU_FEATURE_SHADOW,
		     .action = MR_LPU_FEATURE_SET, .value = 1, .iova = iova);
	t->shadow = at; /* the credit for its completion is told there */
	return conform_wait(t, 0, request);
}

static struct mr_lpu_shadow *shadows(struct conform *t)
{
	return conform_take(t, (t->id.queues_max + 1) * sizeof(struct mr_lpu_shadow));
}

SCENARIO(shadow_doorbells, CONFORM_PROGRAM | CONFORM_QUEUE, "W-1 W-2 W-3 W-4 W-5")
{
	struct mr_lpu_shadow *s = shadows(t);
	struct mr_lpu_command fence = {.head = {MR_LPU_FENCE}};
	struct mr_lpu_completion c;
	struct mr_lpu_record r;
	uint32_t last = t->id.queues_max < 2 ? 1 : 2;

	conform_need_feature(t, MR_LPU_FEATURE_SHADOW);
	if (last == 2)
		MUST(conform_queue(t, 2, 8, 8) == 0);
	STATUS("W-1", shadow_on(t, s, conform_iova(t, s)), 0);
	for (int i = 0; i < 40; i++)
		STATUS("W-1", conform_fence(t, 1), 0);

	/* BAR2 wakes, and that is all. */
	uint32_t request = conform_place(t, 1, &fence);
	conform_bell(t, 1, MR_LPU_DB_SQ_TAIL, t->q[1].tail);
	EXPECT("W-2", !conform_completion(t, 1, t->profile.quiet_ms, &c));
	conform_ring(t, 1, MR_LPU_DB_SQ_TAIL, t->q[1].tail);
	EXPECT("W-2", conform_wait(t, 1, request) == 0);

	/* Asleep or awake: by the protocol no command waits for ever, on no queue. */
	for (int i = 0; i < 300; i++) {
		uint32_t q = 1 + (uint32_t)i % last;
		conform_nap_us((uint64_t)i % 100 * 2);
		request = conform_place(t, q, &fence);
		conform_ring(t, q, MR_LPU_DB_SQ_TAIL, t->q[q].tail);
		if (!conform_completion(t, q, t->profile.wait_ms, &c)) {
			conform_expect(t, "W-3", 0,
				       "a command of queue %u waits while asleep is %u", q,
				       s[q].asleep);
			MUST(!"slept through a command");
		}
		conform_credit(t, q);
	}
	/* Idle: where it says of one queue that it sleeps, it does so of every one. */
	uint32_t slept[3] = {0};
	for (int i = 0; i < 40; i++) {
		conform_nap_us(t->profile.quiet_ms * 50);
		for (uint32_t q = 0; q <= last; q++)
			slept[q] += __atomic_load_n(&s[q].asleep, __ATOMIC_SEQ_CST);
	}
	for (uint32_t q = 0; q <= last; q++)
		conform_expect(t, "W-3", !slept[0] == !slept[q],
			       "asleep was 1 %u times for queue 0, %u times for queue %u", slept[0],
			       slept[q], q);

	/* While it decodes it is awake, and says so. */
	struct mr_lpu_decode_entry *e = conform_entries(t, 1);
	MUST(conform_slot(t, 1, 0, 5, 100) == 0);
	*e = (struct mr_lpu_decode_entry){.generation = 5, .token = 20};
	uint32_t awake = 0;
	/* Where both share a core the host may look each time that the device waits for credit: some tries. */
	for (int try = 0; try < 12 && !awake; try++) {
		request = conform_decode_post(t, 1, e, 1, 60);
		for (int i = 0; i < 60; i++) {
			MUST(conform_record(t, 1, t->profile.wait_ms, &r));
			conform_record_credit(t, 1);
			for (int k = 0; k < 200; k++)
				awake += !__atomic_load_n(&s[1].asleep, __ATOMIC_SEQ_CST);
		}
		conform_wait(t, 1, request);
	}
	conform_expect(t, "W-4", awake > 0, "asleep stays 1 while the device works");

	int fd = conform_irq(t, 1);
	conform_bell(t, 1, MR_LPU_DB_ARM, 1);
	conform_reg(t, MR_LPU_REG_STATUS);
	conform_fence(t, 1);
	EXPECT("W-5", conform_raised(fd, t->profile.wait_ms) == 1);
	conform_fence(t, 1);
	EXPECT("W-5", conform_raised(fd, 2) == 0);
}

SCENARIO(shadow_ends, CONFORM_QUEUE, "W-7")
{
	struct mr_lpu_shadow *s = shadows(t);

	conform_need_feature(t, MR_LPU_FEATURE_SHADOW);
	MUST(shadow_on(t, s, conform_iova(t, s)) == 0);
	conform_again(t);
	EXPECT("W-7", conform_feature_get(t, MR_LPU_FEATURE_SHADOW, 0) == 0);
	s = shadows(t);
	MUST(shadow_on(t, s, conform_iova(t, s)) == 0);
	conform_flr(t);
	EXPECT("W-7", conform_feature_get(t, MR_LPU_FEATURE_SHADOW, 0) == 0);
}

SCENARIO(shadow_lost, CONFORM_QUEUE, "W-6")
{
	struct mr_lpu_shadow *s = (void *)t->ro;

	conform_need_feature(t, MR_LPU_FEATURE_SHADOW);
	memset(s, 0, CONFORM_SIDE);
	/* The same memory with more rights, for a while. */
	MUST(t->bus->ops->dma_unmap(t->bus, t->ro_iova) == 0);
	MUST(t->bus->ops->dma_map(t->bus, t->ro_iova, t->ro, CONFORM_SIDE,
				  MR_DMA_READ | MR_DMA_WRITE) == 0);
	int status = shadow_on(t, s, t->ro_iova);
	t->bus->ops->dma_unmap(t->bus, t->ro_iova);
	conform_bell(t, 1, MR_LPU_DB_SQ_TAIL, 0);
	int fatal =
		WAIT(conform_reg(t, MR_LPU_REG_STATUS) & MR_LPU_STATUS_FATAL, t->profile.wait_ms);
	t->shadow = NULL;
	t->bus->ops->dma_map(t->bus, t->ro_iova, t->ro, CONFORM_SIDE, MR_DMA_READ);
	MUST(status == 0);
	conform_expect(t, "W-6", fatal, "no FATAL after the shadow doorbells were unmapped");
}

SCENARIO(entries_are_whole, CONFORM_PROGRAM | CONFORM_QUEUE, "M-1")
{
	struct mr_lpu_decode_entry *e = conform_entries(t, 1);

	MUST(conform_slot(t, 1, 0, 5, 128) == 0);
	memset(e, 0, sizeof(*e));
	e->generation = 5;
	e->token = 20;
	for (uint32_t i = 0; i < 60; i++) {
		struct conform_queue *q = &t->q[1];
		struct mr_lpu_record *at = &q->ring[q->record_head % 8], r;
		struct mr_lpu_completion *done = &q->cq[q->head % 8], c;
		uint32_t lap = q->record_head / 8 + 1, phase = !(q->head / 8 & 1);
		uint64_t until = conform_now_us() + t->profile.wait_ms * 1000;
		/* No nap here: the first look at a fresh phase is the one that counts. */
		memset(at, 0xee, offsetof(struct mr_lpu_record, phase));
		memset(done, 0xee, offsetof(struct mr_lpu_completion, phase));
		e->position = i;
		uint32_t request = conform_decode_post(t, 1, e, 1, 1);
		while (__atomic_load_n(&at->phase, __ATOMIC_ACQUIRE) != lap &&
		       conform_now_us() < until)
			;
		r = *at;
		while (__atomic_load_n(&done->phase, __ATOMIC_ACQUIRE) != phase &&
		       conform_now_us() < until)
			;
		c = *done;
		MUST(r.phase == lap && c.phase == phase);
		conform_expect(t, "M-1", r.position == i + 1 && r.generation == 5 && r.slot == 0,
			       "a record's phase came before its words");
		conform_expect(t, "M-1", c.request == request && c.status == 0 && c.result == 1,
			       "a completion's phase came before its words");
		q->record_head++;
		q->head++;
		conform_record_credit(t, 1);
		conform_credit(t, 1);
	}
}

SCENARIO(completion_comes_last, CONFORM_PROGRAM | CONFORM_QUEUE, "M-2 M-3 M-4 M-6")
{
	struct mr_lpu_identify *id = conform_take(t, sizeof(*id));
	struct mr_lpu_completion c;
	struct mr_lpu_record r;
	uint32_t vocab = conform_vocab(t);

	for (int i = 0; i < 20; i++) {
		memset(id, 0, sizeof(*id));
		MUST(DO(0, mr_lpu_cmd_identify, {MR_LPU_IDENTIFY}, .iova = conform_iova(t, id),
			.bytes = sizeof(*id)) == 0);
		EXPECT("M-2", id->magic == MR_LPU_MAGIC && id->slots_max == t->id.slots_max);
	}
	/* Logits before the record of their step, records before the completion. */
	MUST(conform_slot(t, 1, 0, 5, 128) == 0);
	struct mr_lpu_decode_entry *e = conform_entries(t, 1);
	float *logits = conform_take(t, 4ull * vocab * sizeof(float));
	for (uint32_t i = 0; i < 10; i++) {
		memset(logits, 0xff, 4ull * vocab * sizeof(float));
		*e = (struct mr_lpu_decode_entry){.generation = 5,
						  .position = i * 4,
						  .token = 20,
						  .logits_iova = conform_iova(t, logits)};
		uint32_t request = POST(1, mr_lpu_cmd_decode, {MR_LPU_DECODE},
					.entries_iova = conform_iova(t, e), .count = 1, .steps = 4,
					.logits_stride = 4 * vocab);
		MUST(conform_record(t, 1, t->profile.wait_ms, &r));
		EXPECT("M-2", logits[vocab - 1] == logits[vocab - 1]);
		MUST(conform_completion(t, 1, t->profile.wait_ms, &c) && c.request == request);
		for (int k = 1; k < 4; k++)
			conform_expect(t, "M-3", conform_record(t, 1, 0, &r),
				       "a completion before record %d of its DECODE", k);
		/* A device that was late with them is not asked to lose them. */
		while (t->q[1].record_head % 4)
			MUST(conform_record(t, 1, t->profile.wait_ms, &r));
		conform_record_credit(t, 1);
		conform_credit(t, 1);
	}
	/* The first command's completion before the second one's record. */
	for (uint32_t i = 0; i < 5; i++) {
		struct mr_lpu_decode_entry *two = conform_entries(t, 2);
		for (int k = 0; k < 2; k++) {
			two[k] = (struct mr_lpu_decode_entry){
				.generation = 5, .position = 40 + i * 2 + (uint32_t)k, .token = 20};
			struct mr_lpu_cmd_decode d = {.head = {MR_LPU_DECODE},
						      .entries_iova = conform_iova(t, &two[k]),
						      .count = 1,
						      .steps = 1};
			conform_place(t, 1, &d);
		}
		conform_ring(t, 1, MR_LPU_DB_SQ_TAIL, t->q[1].tail);
		MUST(conform_record(t, 1, t->profile.wait_ms, &r));
		MUST(conform_record(t, 1, t->profile.wait_ms, &r));
		conform_expect(t, "M-4", conform_completion(t, 1, 0, &c),
			       "a record of the next command before the completion");
		while (t->q[1].head != t->q[1].tail)
			MUST(conform_completion(t, 1, t->profile.wait_ms, &c));
		conform_record_credit(t, 1);
		conform_credit(t, 1);
	}
	/* What a completed command named is the host's again. */
	struct mr_lpu_slot_param *p = conform_param(t, 64);
	MUST(conform_slot_with(t, 1, 9, p) == 0);
	struct mr_lpu_record greedy, again;
	MUST(conform_decode(t, 1, 9, 0, 20, 1, &greedy) == 0);
	memset(p, 0, sizeof(*p));
	p->sampling.temperature = 50;
	for (uint64_t seed = 1; seed < 6; seed++) {
		p->sampling.seed = seed;
		MUST(conform_decode(t, 1, 9, 0, 20, 1, &again) == 0);
		conform_expect(t, "M-6", again.token == greedy.token,
			       "the parameters of a slot were read after SLOT_SET completed");
	}
}
