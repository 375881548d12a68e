// SPDX-License-Identifier: Apache-2.0
/* DECODE: what it checks, what a step makes, stop tokens, cycles, logits. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/sample.h"
#include "tools/conform/conform.h"
#include "tools/conform/reference.h"

static int one(struct conform *t, const struct mr_lpu_decode_entry *e, uint32_t count,
	       uint32_t steps)
{
	return conform_wait(t, 1, conform_decode_post(t, 1, e, count, steps));
}

/* @n records of queue 1, with credit; the scenario ends where one does not come. */
static void take(struct conform *t, struct mr_lpu_record *r, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		MUST(conform_record(t, 1, t->profile.wait_ms, &r[i]));
		conform_record_credit(t, 1);
	}
}

SCENARIO(decode_is_checked, CONFORM_PROGRAM | CONFORM_QUEUE, "T-1 T-2 T-4 T-12 T-13 T-3")
{
	struct mr_lpu_decode_entry *e = conform_entries(t, 4), *good = conform_entries(t, 4);
	uint32_t *forced = conform_take(t, 64), vocab = conform_vocab(t);
	struct mr_lpu_record r;

	for (uint32_t s = 0; s < 3; s++) {
		MUST(conform_slot(t, 1, s, 5, 32) == 0);
		good[s] = (struct mr_lpu_decode_entry){.slot = s, .generation = 5, .token = 20};
	}
	uint64_t records = conform_counters(t).records;
#define BAD(rule, want, steps, change)                                                    \
	do {                                                                              \
		memcpy(e, good, 3 * sizeof(*e));                                          \
		change;                                                                   \
		conform_status(t, rule, one(t, e, 3, steps), want, #change);              \
		conform_expect(t, "T-1", t->result == 0, "%s: the result is %u", #change, \
			       t->result);                                                \
	} while (0)
	BAD("T-13", MR_E_INVALID, 1, e[2].slot = 0);
	BAD("T-1", MR_E_STALE, 1, e[2].generation = 4);
	BAD("T-1", MR_E_INVALID, 1, e[2].flags = 1);
	BAD("T-1", MR_E_RANGE, 2, e[2].logits_iova = conform_iova(t, e));
	BAD("T-2", MR_E_TRUNCATED, 1, e[2].position = 1);
	BAD("T-4", MR_E_CONTEXT_FULL, 33, (void)0);
	BAD("T-4", MR_E_CONTEXT_FULL, 1, e[1].position = 32);
	BAD("T-12", MR_E_RANGE, 1, e[2].token = vocab);
	BAD("T-12", MR_E_RANGE, 1, e[0].token = 0xffffffffu);
	forced[0] = vocab;
	BAD("T-12", MR_E_RANGE, 2,
	    (e[2].forced_count = 1, e[2].forced_iova = conform_iova(t, forced)));
	EXPECT("T-1", conform_counters(t).records == records);
	EXPECT("T-1", !conform_record(t, 1, 0, &r));
	/* From the position on all is forgotten. */
	MUST(conform_decode(t, 0, 5, 0, 20, 10, NULL) == 0);
	STATUS("T-3", conform_decode(t, 0, 5, 4, 20, 1, NULL), 0);
	STATUS("T-3", conform_decode(t, 0, 5, 8, 20, 1, NULL), MR_E_TRUNCATED);
	STATUS("T-3", conform_decode(t, 0, 5, 5, 20, 1, NULL), 0);
}

SCENARIO(steps_make_records, CONFORM_PROGRAM | CONFORM_QUEUE, "T-5 T-6 T-15 C-3 E-3")
{
	struct mr_lpu_decode_entry *e = conform_entries(t, 4);
	struct mr_lpu_record r[12];
	uint32_t positions[3] = {0, 3, 16};
	uint64_t cycles = 0;

	for (uint32_t s = 0; s < 3; s++) {
		MUST(conform_slot(t, 1, s, 5 + s, 64) == 0);
		if (positions[s])
			conform_fill(t, s, 5 + s, positions[s]);
		e[s] = (struct mr_lpu_decode_entry){
			.slot = s, .generation = 5 + s, .position = positions[s], .token = 30 + s};
	}
	uint32_t request = conform_decode_post(t, 1, e, 3, 4);
	take(t, r, 12);
	STATUS("T-5", conform_wait(t, 1, request), 0);
	EXPECT("C-3", t->result == 12);
	EXPECT("E-3", t->result == 12);
	for (uint32_t i = 0; i < 12; i++) {
		uint32_t s = i % 3, step = i / 3;
		conform_expect(t, "T-6", r[i].slot == s, "record %u is of slot %u", i, r[i].slot);
		EXPECT("T-6", r[i].generation == 5 + s);
		conform_expect(t, "T-5", r[i].position == positions[s] + step + 1,
			       "record %u is of position %u", i, r[i].position);
		EXPECT("T-5", r[i].token < conform_vocab(t) && !r[i].status);
		EXPECT("T-15", i == 0 || r[i].cycle >= r[i - 1].cycle);
	}
	for (uint32_t step = 0; step < 4 && t->profile.cycles; step++) {
		uint32_t at[3] = {positions[0] + step, positions[1] + step, positions[2] + step};
		cycles += conform_claim(t, at, 3);
		conform_expect(t, "T-15", r[step * 3 + 2].cycle == cycles,
			       "step %u ends at cycle %llu, the CLAIM says %llu", step,
			       (unsigned long long)r[step * 3 + 2].cycle,
			       (unsigned long long)cycles);
	}
	/* The KV of each step is there. */
	for (uint32_t s = 0; s < 3; s++) {
		STATUS("T-5", conform_decode(t, s, 5 + s, positions[s] + 5, 20, 1, NULL),
		       MR_E_TRUNCATED);
		STATUS("T-5", conform_decode(t, s, 5 + s, positions[s] + 4, 20, 1, NULL), 0);
	}
}

SCENARIO(stop_tokens, CONFORM_PROGRAM | CONFORM_QUEUE, "T-7 T-8 T-9 T-14")
{
	struct mr_lpu_record r[12], probe[4];
	struct mr_lpu_decode_entry *e = conform_entries(t, 2);
	struct mr_lpu_slot_param *p = conform_param(t, 64);
	struct mr_lpu_completion c;

	MUST(conform_slot(t, 1, 0, 5, 64) == 0);
	MUST(conform_decode(t, 0, 5, 0, 20, 4, probe) == 0);
	/* The second token stops; the other slot goes on. */
	p->sampling.stop_count = 1;
	p->sampling.stop[0] = probe[1].token;
	uint32_t expected = probe[0].token == probe[1].token ? 1 : 2;
	MUST(conform_slot_with(t, 1, 6, p) == 0);
	e[0] = (struct mr_lpu_decode_entry){.slot = 1, .generation = 6, .token = 20};
	e[1] = (struct mr_lpu_decode_entry){.slot = 0, .generation = 5, .token = 20};
	uint32_t request = conform_decode_post(t, 1, e, 2, 4);
	take(t, r, 4 + expected);
	MUST(conform_completion(t, 1, t->profile.wait_ms, &c) && c.request == request);
	conform_credit(t, 1);
	struct mr_lpu_record more;
	int others = 0;
	while (conform_record(t, 1, 0, &more)) {
		conform_record_credit(t, 1);
		others++;
	}
	conform_expect(t, "T-7", c.result == 4 + expected && !others,
		       "%u records where one slot of two stopped after %u", c.result, expected);
	uint32_t of_it = 0, stopped = 0;
	for (uint32_t i = 0; i < 4 + expected; i++) {
		of_it += r[i].slot == 1;
		if (r[i].slot == 1)
			stopped = r[i].status & MR_LPU_RECORD_STOPPED;
	}
	EXPECT("T-7", of_it == expected && stopped);
	uint64_t cycles = 0;
	for (uint32_t step = 0; step < 4; step++) {
		/* A slot that stopped stays at the position after its last one. */
		uint32_t at[2] = {step < expected ? step : expected, step};
		cycles += conform_claim(t, at, 2);
	}
	if (t->profile.cycles)
		conform_expect(t, "T-8", r[3 + expected].cycle == cycles,
			       "the last record is of cycle %llu, the CLAIM says %llu",
			       (unsigned long long)r[3 + expected].cycle,
			       (unsigned long long)cycles);
	else
		conform_lacks(t, "T-8", "the profile says that cycles are not those of the CLAIM");
	/* Alone, it ends the DECODE. */
	uint64_t steps = conform_counters(t).steps;
	e[0] = (struct mr_lpu_decode_entry){.slot = 1, .generation = 6, .token = 20};
	request = conform_decode_post(t, 1, e, 1, 8);
	MUST(conform_completion(t, 1, t->profile.wait_ms, &c) && c.request == request);
	conform_credit(t, 1);
	take(t, r, expected);
	conform_expect(t, "T-9", conform_counters(t).steps == steps + expected,
		       "%llu steps where all slots had stopped after %u",
		       (unsigned long long)(conform_counters(t).steps - steps), expected);
	/* A forced token is the next one's input: the record after it is as if it had been fed alone. */
	uint32_t *forced = conform_take(t, 64);
	forced[0] = probe[0].token == 77 ? 78 : 77;
	MUST(conform_slot(t, 1, 2, 7, 64) == 0);
	e[0] = (struct mr_lpu_decode_entry){.slot = 2,
					    .generation = 7,
					    .token = 20,
					    .forced_count = 1,
					    .forced_iova = conform_iova(t, forced)};
	request = conform_decode_post(t, 1, e, 1, 2);
	take(t, r, 2);
	MUST(conform_wait(t, 1, request) == 0);
	MUST(conform_decode(t, 0, 5, 1, forced[0], 1, probe) == 0);
	EXPECT("T-14", r[1].token == probe[0].token && r[1].logprob == probe[0].logprob);
}

#define N 20u
static int near(const struct conform *t, float a, float b, double abs)
{
	return t->profile.bit_equal ? !memcmp(&a, &b, 4) : fabs((double)a - (double)b) <= abs;
}

SCENARIO(logits_and_sampling, CONFORM_PROGRAM | CONFORM_QUEUE, "T-10 T-11 T-16 S-6")
{
	uint32_t vocab = conform_vocab(t), stride = 4 * vocab + 64;
	uint8_t *logits = conform_take(t, (size_t)N * stride);
	uint32_t *ids = conform_take(t, N * 4 + 4);
	void *scratch = aligned_alloc(64, (mr_sample_scratch(vocab) + 63) / 64 * 64 + 64);
	float *want = calloc((size_t)N * vocab, 4);
	struct mr_lpu_decode_entry *e = conform_entries(t, 2);
	struct mr_lpu_record r[N];

	for (uint32_t i = 0; i <= N; i++)
		ids[i] = (30 + i * 13) % vocab;
	memset(logits, 0xa5, (size_t)N * stride);
	int reference = t->model && scratch && want ? conform_reference(t->model, ids, N, want)
						    : MR_E_NOT_SUPPORTED;
	/* Two parameters, with a history: one draw each a step. */
	struct mr_lpu_slot_param *p = conform_param(t, 64);
	uint32_t *history = conform_take(t, 256);
	for (uint32_t i = 0; i < 3; i++)
		history[i] = ids[i] + 1;
	p->sampling = (struct mr_sampling){.seed = 99,
					   .temperature = 3,
					   .top_k = 50,
					   .repeat = 1.5f,
					   .presence = 0.5f,
					   .frequency = 0.25f};
	p->history_count = 3;
	p->history_iova = conform_iova(t, history);
	int opened = conform_slot_with(t, 0, 5, p);
	/* Beside it another slot, so that the batch is not of one. */
	int beside = conform_slot(t, 1, 1, 6, 64);
	e[0] = (struct mr_lpu_decode_entry){.generation = 5,
					    .token = ids[0],
					    .forced_count = N - 1,
					    .forced_iova = conform_iova(t, ids + 1),
					    .logits_iova = conform_iova(t, logits)};
	e[1] = (struct mr_lpu_decode_entry){.slot = 1, .generation = 6, .token = 9};
	uint32_t request =
		POST(1, mr_lpu_cmd_decode, {MR_LPU_DECODE}, .entries_iova = conform_iova(t, e),
		     .count = 2, .steps = N, .logits_stride = stride);
	int came = !opened && !beside;
	for (uint32_t i = 0; came && i < N; i++) {
		struct mr_lpu_record other;
		came = conform_record(t, 1, t->profile.wait_ms, &r[i]) &&
		       conform_record(t, 1, t->profile.wait_ms, &other);
		conform_record_credit(t, 1);
	}
	uint32_t seen[MR_LPU_HISTORY_MAX], count = 3;
	memcpy(seen, history, 12);
	for (uint32_t i = 0; came && scratch && i < N; i++) {
		const float *l = (const void *)(logits + (size_t)i * stride);
		float logprob = 0;
		int gap = 1;
		for (uint32_t k = 0; k < 64; k++)
			gap &= logits[(size_t)i * stride + 4 * vocab + k] == 0xa5;
		conform_expect(t, "T-16", gap && isfinite(l[0]) && isfinite(l[vocab - 1]),
			       "the logits of step %u do not lie where they should", i);
		seen[count++] = ids[i];
		uint32_t token =
			mr_sample(l, vocab, &p->sampling, i + 1, seen, count, scratch, &logprob);
		conform_expect(t, "T-10", r[i].token == token,
			       "step %u: token %u where its logits give %u", i, r[i].token, token);
		conform_expect(t, "T-10", near(t, r[i].logprob, logprob, t->profile.logprob_abs),
			       "step %u: logprob %g where its logits give %g", i,
			       (double)r[i].logprob, (double)logprob);
		conform_expect(t, "S-6", r[i].token == token, "step %u: token %u, not %u", i,
			       r[i].token, token);
		for (uint32_t k = 0; k < vocab && !reference; k++) {
			float w = want[(size_t)i * vocab + k];
			if (!near(t, l[k], w, t->profile.logits_abs)) {
				conform_expect(t, "T-11", 0,
					       "step %u, id %u: %.9g where class D gives %.9g", i,
					       k, (double)l[k], (double)w);
				break;
			}
		}
	}
	if (!reference)
		EXPECT("T-11", came);
	free(scratch);
	free(want);
	MUST(came);
	STATUS("T-16", conform_wait(t, 1, request), 0);
	if (reference)
		conform_skip(t, "no model to compare the logits with: %s",
			     mr_status_name(reference));
}
