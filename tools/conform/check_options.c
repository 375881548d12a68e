// SPDX-License-Identifier: Apache-2.0
/* DECODE's options, the token mask and the best tokens; SCORE. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/sample.h"
#include "tools/conform/conform.h"
#include "tools/conform/reference.h"

struct masked {
	struct mr_lpu_mask *mask;
	uint32_t *bits, words;
	float *logits;
	struct mr_lpu_decode_entry *e;
};

static void setup(struct conform *t, struct masked *m)
{
	uint32_t vocab = conform_vocab(t);

	m->words = (vocab + 31) / 32;
	m->mask = conform_take(t, 4 + 4ull * m->words);
	m->bits = (uint32_t *)(void *)(m->mask + 1);
	m->logits = conform_take(t, 4ull * vocab);
	m->e = conform_entries(t, 1);
	*m->e = (struct mr_lpu_decode_entry){.generation = 5,
					     .token = 20,
					     .logits_iova = conform_iova(t, m->logits),
					     .mask_iova = conform_iova(t, m->mask)};
}

static int masked_step(struct conform *t, struct masked *m)
{
	return DO(1, mr_lpu_cmd_decode, {MR_LPU_DECODE}, .entries_iova = conform_iova(t, m->e),
		  .count = 1, .steps = 1, .logits_stride = 4 * conform_vocab(t),
		  .mask_stride = 4 + 4 * m->words);
}

static int near(const struct conform *t, float a, float b)
{
	return t->profile.bit_equal ? !memcmp(&a, &b, 4)
				    : fabs((double)a - (double)b) <= t->profile.logprob_abs;
}

SCENARIO(token_masks, CONFORM_PROGRAM | CONFORM_QUEUE, "T-17")
{
	struct masked m;

	if (t->id.options & MR_LPU_OPTION_MASK)
		conform_skip(t, "the device has token masks");
	MUST(conform_slot(t, 1, 0, 5, 16) == 0);
	setup(t, &m);
	STATUS("T-17", masked_step(t, &m), MR_E_NOT_SUPPORTED);
}

SCENARIO(masks_hold, CONFORM_PROGRAM | CONFORM_QUEUE, "T-18 T-19 T-20 T-21 T-22 L-8")
{
	struct masked m;
	struct mr_lpu_record r, free_choice;

	if (!(t->id.options & MR_LPU_OPTION_MASK))
		conform_skip(t, "the device has no token masks");
	MUST(conform_slot(t, 1, 0, 5, 16) == 0);
	MUST(conform_decode(t, 0, 5, 0, 20, 1, &free_choice) == 0);
	setup(t, &m);
	struct mr_lpu_counters before = conform_counters(t);
	/* One token, and not the best one. */
	uint32_t only = (free_choice.token + 101) % conform_vocab(t);
	m.bits[only / 32] = 1u << only % 32;
	m.mask->position = 1;
	STATUS("T-18", masked_step(t, &m), 0);
	MUST(conform_record(t, 1, t->profile.wait_ms, &r));
	conform_record_credit(t, 1);
	conform_expect(t, "T-18", r.token == only, "token %u where the mask allows %u alone",
		       r.token, only);
	conform_expect(t, "T-19", near(t, r.logprob, mr_logprob(m.logits, conform_vocab(t), only)),
		       "logprob %g where the logits give %g", (double)r.logprob,
		       (double)mr_logprob(m.logits, conform_vocab(t), only));
	/* Late, and then again. */
	m.mask->position = 9;
	STATUS("T-20", masked_step(t, &m), MR_E_MASK_LATE);
	EXPECT("T-20", t->result == 0 && !conform_record(t, 1, 1, &r));
	struct mr_lpu_counters after = conform_counters(t);
	conform_expect(t, "L-8",
		       after.masked - before.masked == 1 && after.mask_late - before.mask_late == 1,
		       "masked grew by %llu, mask_late by %llu",
		       (unsigned long long)(after.masked - before.masked),
		       (unsigned long long)(after.mask_late - before.mask_late));
	/* A penalty would notice a token that was fed twice. */
	struct mr_lpu_slot_param *p = conform_param(t, 32);
	p->sampling.frequency = 0.7f;
	p->sampling.temperature = 2;
	p->sampling.seed = 5;
	struct mr_lpu_record late[6], quiet[6];
	for (int pass = 0; pass < 2; pass++) {
		struct mr_lpu_record *out = pass ? quiet : late;
		MUST(conform_slot_with(t, 1 + (uint32_t)pass, 5, p) == 0);
		m.e->slot = 1 + (uint32_t)pass;
		memset(m.bits, 0xff, 4ull * m.words);
		m.e->token = 20;
		for (uint32_t i = 0; i < 6; i++) {
			m.e->position = i;
			m.mask->position = 99;
			if (!pass)
				STATUS("T-20", masked_step(t, &m), MR_E_MASK_LATE);
			m.mask->position = i + 1;
			STATUS("T-21", masked_step(t, &m), 0);
			MUST(conform_record(t, 1, t->profile.wait_ms, &out[i]));
			conform_record_credit(t, 1);
			m.e->token = 20; /* always the same, so that it is penalised ever more */
		}
	}
	for (int i = 0; i < 6; i++)
		conform_expect(t, "T-21",
			       late[i].token == quiet[i].token &&
				       near(t, late[i].logprob, quiet[i].logprob),
			       "after MASK_LATE step %d makes %u, not %u", i, late[i].token,
			       quiet[i].token);
	memset(m.bits, 0, 4ull * m.words);
	m.e->position = 6;
	m.mask->position = 7;
	STATUS("T-22", masked_step(t, &m), MR_E_RANGE);
}

SCENARIO(best_tokens, CONFORM_PROGRAM | CONFORM_QUEUE, "T-23 T-24")
{
	uint32_t vocab = conform_vocab(t), n = t->id.top_max < 5 ? t->id.top_max : 5;
	struct mr_lpu_top *top = conform_take(t, 64 * sizeof(*top));
	float *logits = conform_take(t, 4ull * vocab);
	struct mr_lpu_decode_entry *e = conform_entries(t, 1);
	struct mr_lpu_record r;

	MUST(conform_slot(t, 1, 0, 5, 16) == 0);
	*e = (struct mr_lpu_decode_entry){.generation = 5, .token = 20};
	STATUS("T-23",
	       DO(1, mr_lpu_cmd_decode, {MR_LPU_DECODE}, .entries_iova = conform_iova(t, e),
		  .count = 1, .steps = 1, .top = t->id.top_max + 1),
	       MR_E_RANGE);
	if (!n)
		conform_skip(t, "the device has no best tokens");
	e->logits_iova = conform_iova(t, logits);
	e->top_iova = conform_iova(t, top);
	STATUS("T-24",
	       DO(1, mr_lpu_cmd_decode, {MR_LPU_DECODE}, .entries_iova = conform_iova(t, e),
		  .count = 1, .steps = 1, .top = n, .logits_stride = 4 * vocab),
	       0);
	MUST(conform_record(t, 1, t->profile.wait_ms, &r));
	uint8_t *used = calloc(vocab, 1);
	for (uint32_t k = 0; used && k < n; k++) {
		uint32_t best = vocab;
		for (uint32_t i = 0; i < vocab; i++)
			if (!used[i] && (best == vocab || logits[i] > logits[best]))
				best = i;
		used[best] = 1;
		conform_expect(t, "T-24", top[k].token == best, "best %u is %u, not %u", k,
			       top[k].token, best);
		conform_expect(t, "T-24", near(t, top[k].logprob, mr_logprob(logits, vocab, best)),
			       "best %u has logprob %g", k, (double)top[k].logprob);
	}
	free(used);
	EXPECT("T-24", top[n].token == 0 && top[n].logprob == 0);
}

/* ---- SCORE ------------------------------------------------------------------------------------------ */

#define TOKENS 19u

static struct mr_lpu_cmd_score score_of(struct conform *t, const uint32_t *ids, uint32_t count)
{
	return (struct mr_lpu_cmd_score){.head = {MR_LPU_SCORE},
					 .generation = 5,
					 .tokens_iova = conform_iova(t, ids),
					 .count = count};
}

static void take(struct conform *t, struct mr_lpu_record *r, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		MUST(conform_record(t, 1, t->profile.wait_ms, &r[i]));
		conform_record_credit(t, 1);
	}
}

SCENARIO(scores_are_checked, CONFORM_PROGRAM | CONFORM_QUEUE, "X-1 X-2 X-3")
{
	uint32_t *ids = conform_take(t, 256), vocab = conform_vocab(t);
	struct mr_lpu_cmd_score c;
	struct mr_lpu_record r;

	conform_need(t, MR_LPU_SCORE);
	MUST(conform_slot(t, 1, 0, 5, 32) == 0);
	uint64_t records = conform_counters(t).records;
#define BAD(rule, want, change)                                                                \
	do {                                                                                   \
		for (uint32_t i = 0; i < 40; i++)                                              \
			ids[i] = 20 + i;                                                       \
		c = score_of(t, ids, 4);                                                       \
		change;                                                                        \
		conform_status(t, rule, conform_do(t, 1, &c), want, #change);                  \
		conform_expect(t, "X-1", t->result == 0, "%s: result %u", #change, t->result); \
	} while (0)
	BAD("X-1", MR_E_STALE, c.generation = 6);
	BAD("X-1", MR_E_RANGE, c.count = 1);
	BAD("X-1", MR_E_RANGE, c.count = t->id.score_max + 1);
	BAD("X-1", MR_E_RANGE, ids[3] = vocab);
	BAD("X-1", MR_E_RANGE, ids[0] = vocab);
	BAD("X-1", MR_E_DMA_FAULT, c.tokens_iova = 0x7f0000000000ull);
	BAD("X-2", MR_E_CONTEXT_FULL, c.count = 34);
	BAD("X-2", MR_E_CONTEXT_FULL, c.position = 30);
	BAD("X-3", MR_E_TRUNCATED, c.position = 1);
	EXPECT("X-1", conform_counters(t).records == records && !conform_record(t, 1, 0, &r));
	c = score_of(t, ids, 33);
	uint32_t request = conform_post(t, 1, &c);
	for (int i = 0; i < 32; i++) {
		MUST(conform_record(t, 1, t->profile.wait_ms, &r));
		conform_record_credit(t, 1);
	}
	STATUS("X-2", conform_wait(t, 1, request), 0);
}

SCENARIO(scores, CONFORM_PROGRAM | CONFORM_QUEUE, "X-4 X-5 X-6 X-7 X-8 X-9")
{
	uint32_t *ids = conform_take(t, 256);
	struct mr_lpu_record r[TOKENS], step[TOKENS], next[2];
	struct mr_lpu_slot_param *p = conform_param(t, 64);

	conform_need(t, MR_LPU_SCORE);
	for (uint32_t i = 0; i < TOKENS; i++)
		ids[i] = 20 + i % 64;
	/* Sampling that is hot, and a stop token among the given ones: neither matters. */
	p->sampling = (struct mr_sampling){.temperature = 50, .seed = 3, .frequency = 1.5f};
	p->sampling.stop_count = 1;
	p->sampling.stop[0] = ids[3];
	MUST(conform_slot_with(t, 0, 5, p) == 0);
	uint64_t passes = conform_counters(t).score_passes;
	struct mr_lpu_cmd_score c = score_of(t, ids, TOKENS);
	uint32_t request = conform_post(t, 1, &c), n = TOKENS - 1;
	take(t, r, n);
	STATUS("X-6", conform_wait(t, 1, request), 0);
	EXPECT("X-6", t->result == n);
	for (uint32_t i = 0; i < n; i++)
		conform_expect(t, "X-6",
			       r[i].token == ids[i + 1] && r[i].position == i + 1 && !r[i].status &&
				       !r[i].slot && r[i].generation == 5,
			       "record %u: token %u, position %u, status %u", i, r[i].token,
			       r[i].position, r[i].status);
	uint32_t pass = t->c.header->batch < 8 ? t->c.header->batch : 8,
		 count = (n + pass - 1) / pass;
	conform_expect(t, "X-7", conform_counters(t).score_passes - passes == count,
		       "%llu passes, not %u",
		       (unsigned long long)(conform_counters(t).score_passes - passes), count);
	uint64_t cycles = 0;
	for (uint32_t i = 0; i < n && t->profile.cycles; i += pass) {
		uint32_t at[256], rows = n - i < pass ? n - i : pass;
		for (uint32_t k = 0; k < rows && k < 256; k++)
			at[k] = i + k;
		cycles += conform_claim(t, at, rows);
		conform_expect(t, "X-8", r[i + rows - 1].cycle == cycles,
			       "a pass ends at cycle %llu, the CLAIM says %llu",
			       (unsigned long long)r[i + rows - 1].cycle,
			       (unsigned long long)cycles);
		EXPECT("X-9", r[i + rows - 1].cycle == cycles);
	}
	if (!t->profile.cycles)
		conform_lacks(t, "X-8", "the profile says that cycles are not those of the CLAIM");
	for (uint32_t i = 1; i < n; i++)
		EXPECT("X-9", r[i].cycle > r[i - 1].cycle);
	/* As DECODE would have: the same logits come after the same tokens. */
	MUST(conform_slot(t, 1, 1, 6, 64) == 0);
	for (uint32_t i = 0; i < n; i++)
		MUST(conform_decode(t, 1, 6, i, ids[i], 1, &step[i]) == 0);
	struct mr_lpu_decode_entry *e = conform_entries(t, 2);
	float *logits = conform_take(t, 8ull * conform_vocab(t));
	for (uint32_t s = 0; s < 2; s++) {
		e[0] = (struct mr_lpu_decode_entry){.slot = s,
						    .generation = 5 + s,
						    .position = n,
						    .token = 40,
						    .logits_iova = conform_iova(t, logits) +
								   4ull * s * conform_vocab(t)};
		MUST(DO(1, mr_lpu_cmd_decode, {MR_LPU_DECODE}, .entries_iova = conform_iova(t, e),
			.count = 1, .steps = 1, .logits_stride = 4 * conform_vocab(t)) == 0);
		take(t, &next[s], 1);
	}
	int same = 1;
	for (uint32_t i = 0; i < conform_vocab(t); i++)
		same &= near(t, logits[i], logits[conform_vocab(t) + i]);
	conform_expect(t, "X-4", same, "KV after SCORE is not that of DECODE");
	c = score_of(t, ids, 3);
	c.position = 4;
	request = conform_post(t, 1, &c);
	take(t, r, 2);
	STATUS("X-4", conform_wait(t, 1, request), 0);
	STATUS("X-4", conform_decode(t, 0, 5, 7, 20, 1, NULL), MR_E_TRUNCATED);
	/* Neither did it feed the history: the draw is that of a fresh slot at the same place. */
	struct mr_lpu_slot_param *fresh = conform_param(t, 64);
	/* A reward for what was said: the draw is of the history, which is one token. */
	fresh->sampling = (struct mr_sampling){.frequency = -100};
	fresh->sampling.stop_count = 1;
	fresh->sampling.stop[0] = ids[3];
	MUST(conform_slot_with(t, 2, 7, fresh) == 0);
	MUST(conform_slot_with(t, 3, 8, fresh) == 0);
	c = score_of(t, ids, 9);
	c.slot = 2;
	c.generation = 7;
	request = conform_post(t, 1, &c);
	take(t, r, 8);
	MUST(conform_wait(t, 1, request) == 0);
	EXPECT("X-5", r[2].token == ids[3] && r[2].status == 0);
	e[0] = (struct mr_lpu_decode_entry){.slot = 2,
					    .generation = 7,
					    .position = 8,
					    .token = 60,
					    .logits_iova = conform_iova(t, logits)};
	MUST(DO(1, mr_lpu_cmd_decode, {MR_LPU_DECODE}, .entries_iova = conform_iova(t, e),
		.count = 1, .steps = 1, .logits_stride = 4 * conform_vocab(t)) == 0);
	take(t, next, 1);
	void *scratch =
		aligned_alloc(64, (mr_sample_scratch(conform_vocab(t)) + 63) / 64 * 64 + 64);
	uint32_t fed = 60;
	float logprob;
	uint32_t token = scratch ? mr_sample(logits, conform_vocab(t), &fresh->sampling, 9, &fed, 1,
					     scratch, &logprob)
				 : 0;
	free(scratch);
	conform_expect(t, "X-5", next[0].token == token, "the draw after SCORE is %u, not %u",
		       next[0].token, token);
}

SCENARIO(scores_of_class_d, CONFORM_PROGRAM | CONFORM_QUEUE, "X-10 X-6")
{
	uint32_t *ids = conform_take(t, 256), vocab = conform_vocab(t), n = TOKENS - 1;
	float *want = t->model ? calloc((size_t)n * vocab, 4) : NULL;
	struct mr_lpu_record r[TOKENS];

	conform_need(t, MR_LPU_SCORE);
	for (uint32_t i = 0; i < TOKENS; i++)
		ids[i] = (50 + i * 7) % vocab;
	if (!want || conform_reference(t->model, ids, n, want)) {
		free(want);
		conform_skip(t, "no model to compare with");
	}
	int opened = conform_slot(t, 1, 0, 5, 64);
	struct mr_lpu_cmd_score c = score_of(t, ids, TOKENS);
	uint32_t request = conform_post(t, 1, &c), got = 0;
	while (!opened && got < n && conform_record(t, 1, t->profile.wait_ms, &r[got])) {
		conform_record_credit(t, 1);
		float w = mr_logprob(want + (size_t)got * vocab, vocab, ids[got + 1]);
		conform_expect(t, "X-10", near(t, r[got].logprob, w),
			       "record %u: logprob %.9g where class D gives %.9g", got,
			       (double)r[got].logprob, (double)w);
		conform_expect(t, "X-6", near(t, r[got].logprob, w),
			       "record %u: logprob %.9g, not %.9g", got, (double)r[got].logprob,
			       (double)w);
		got++;
	}
	free(want);
	MUST(got == n);
	STATUS("X-10", conform_wait(t, 1, request), 0);
}
