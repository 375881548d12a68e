// SPDX-License-Identifier: Apache-2.0
/*
 * The sampler. Weights are integers, 2^30 for the best token; filters reduce to one cutoff in the
 * order (logit descending, id ascending), and one draw walks the ids that reach it in ascending
 * order. So nothing depends on how a sort treats equals or on the order of a floating-point sum.
 */
#include "kernels/cpu/sample.h"

#include <string.h>

#include <millrace/status.h>

#include "kernels/cpu/lanes_kernels.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/philox.h"

#define LARGEST    3.4028235e38f /* finite float */
#define WEIGHT_ONE (UINT64_C(1) << 30)

struct work {
	float *logits;     /* (vocab) after penalties */
	uint32_t *counts;  /* (vocab) occurrences; only entries of the history mean anything */
	uint32_t *weights; /* (vocab) the same memory, once penalties are done */
	uint64_t *heap;    /* (vocab) keys */
	uint32_t vocab;
};

static size_t lined(size_t bytes)
{
	return (bytes + 63) & ~(size_t)63;
}

size_t mr_sample_scratch(uint32_t vocab)
{
	return 2 * lined((size_t)vocab * 4) + lined((size_t)vocab * 8);
}

int mr_sampling_check(const struct mr_sampling *s, uint32_t vocab)
{
	/* Written so that NaN fails each test. */
	if (!(s->temperature >= 0 && s->temperature <= 100) || !(s->top_p >= 0 && s->top_p <= 1) ||
	    !(s->min_p >= 0 && s->min_p < 1) || !(s->repeat >= 0 && s->repeat <= 3.4e38f) ||
	    !(s->presence >= -3.4e38f && s->presence <= 3.4e38f) ||
	    !(s->frequency >= -3.4e38f && s->frequency <= 3.4e38f) ||
	    s->stop_count > MR_STOP_TOKENS_MAX)
		return MR_E_RANGE;
	for (uint32_t i = 0; i < s->stop_count; i++)
		if (s->stop[i] >= vocab)
			return MR_E_RANGE;
	return 0;
}

/* NaN counts as minus infinity, and the infinities as the largest finite values. */
static float tame(float x)
{
	if (!(x >= -LARGEST))
		return -LARGEST;
	return x <= LARGEST ? x : LARGEST;
}

/* Largest logit; ties go to the lowest id. */
static uint32_t argmax(const float *logits, uint32_t vocab)
{
	float best[16], top;
	uint32_t i = 0;

	for (int l = 0; l < 16; l++)
		best[l] = -LARGEST;
	/* Lanes side by side, so that the compiler uses vectors: a maximum has no order. */
	for (; i + 16 <= vocab; i += 16)
		for (int l = 0; l < 16; l++)
			best[l] = logits[i + l] > best[l] ? logits[i + l] : best[l];
	top = best[0];
	for (int l = 1; l < 16; l++)
		top = best[l] > top ? best[l] : top;
	for (; i < vocab; i++)
		top = logits[i] > top ? logits[i] : top;
	/* Which sixteen first, by vectors, then which of them. */
	for (i = 0; i + 16 <= vocab; i += 16) {
		int hit = 0;

		for (int l = 0; l < 16; l++)
			hit |= logits[i + l] == top;
		if (hit)
			break;
	}
	for (; i < vocab; i++)
		if (logits[i] == top)
			return i;
	return 0; /* nothing but NaN and minus infinity */
}

/* ln p(token): sums e^(l - max) in 16 lanes by id mod 16, then the tree of class D. */
static float logprob_of(const float *logits, uint32_t vocab, uint32_t token, float max)
{
	struct lanes sum = lanes_splat(0);
	float lane[16];
	uint32_t i = 0;

	for (; i + 16 <= vocab; i += 16) {
		/* tame, of sixteen: a maximum with NaN is its second operand. */
		struct lanes x = lanes_max(lanes_load(logits + i), lanes_splat(-LARGEST));

		x = lanes_min(x, lanes_splat(LARGEST));
		sum = lanes_add(sum, lanes_exp(lanes_sub(x, lanes_splat(max))));
	}
	lanes_store(lane, sum);
	for (; i < vocab; i++)
		lane[i % 16] += mr_exp(tame(logits[i]) - max);
	for (int half = 8; half; half /= 2)
		for (int l = 0; l < half; l++)
			lane[l] += lane[l + half];
	return (float)((double)tame(logits[token]) - (double)max - mr_log((double)lane[0]));
}

static void penalize(struct work *w, const struct mr_sampling *s, const uint32_t *history,
		     uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (history[i] < w->vocab)
			w->counts[history[i]] = 0;
	for (uint32_t i = 0; i < count; i++)
		if (history[i] < w->vocab)
			w->counts[history[i]]++;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t id = history[i];
		float l;

		if (id >= w->vocab || !w->counts[id])
			continue;
		l = w->logits[id];
		if (s->repeat != 0 && s->repeat != 1)
			l = l > 0 ? l / s->repeat : l * s->repeat;
		l -= s->presence;
		l -= s->frequency * (float)w->counts[id];
		w->logits[id] = tame(l);
		w->counts[id] = 0; /* once for each id */
	}
}

static void weigh(struct work *w, float best, float temperature)
{
	for (uint32_t id = 0; id < w->vocab; id++) {
		float weight = mr_exp((w->logits[id] - best) / temperature) * (float)WEIGHT_ONE;

		w->weights[id] = (uint32_t)(int32_t)weight; /* signed: AVX2 converts no other */
	}
}

/* A key's order is (logit descending, id ascending): the larger key is the better token. */
static uint64_t key_of(float logit, uint32_t id)
{
	uint32_t bits;

	logit += 0.0f; /* minus zero equals zero */
	memcpy(&bits, &logit, 4);
	bits = bits >> 31 ? ~bits : bits | 0x80000000u;
	return (uint64_t)bits << 32 | (uint32_t)~id;
}

static uint32_t id_of(uint64_t key)
{
	return ~(uint32_t)key;
}

static void sift(uint64_t *heap, uint32_t n, uint32_t i)
{
	uint64_t key = heap[i];

	for (uint32_t child; (child = 2 * i + 1) < n; i = child) {
		if (child + 1 < n && heap[child + 1] > heap[child])
			child++;
		if (heap[child] <= key)
			break;
		heap[i] = heap[child];
	}
	heap[i] = key;
}

/* Takes the best key off a heap of n and leaves it in the place that comes free. */
static uint64_t pop(uint64_t *heap, uint32_t n)
{
	uint64_t key = heap[0];

	heap[0] = heap[n - 1];
	sift(heap, n - 1, 0);
	heap[n - 1] = key;
	return key;
}

/* The worst key that top-k and top-p keep. */
static uint64_t cutoff_of(struct work *w, const struct mr_sampling *s)
{
	uint32_t n = 0, kept;
	uint64_t total = 0, sum = 0, cutoff = 0;
	int top_p = s->top_p > 0 && s->top_p < 1;
	/* in 2^-30ths of the total */
	uint64_t p = (uint64_t)((double)s->top_p * (double)WEIGHT_ONE);

	for (uint32_t id = 0; id < w->vocab; id++) {
		if (!w->weights[id])
			continue; /* can never be drawn */
		w->heap[n++] = key_of(w->logits[id], id);
		total += w->weights[id];
	}
	for (uint32_t i = n / 2; i-- > 0;)
		sift(w->heap, n, i);

	kept = n;
	if (s->top_k && s->top_k < n) {
		/* The k best end up at the array's end, the best one last. */
		for (uint32_t i = 0; i < s->top_k; i++) {
			cutoff = pop(w->heap, n - i);
			sum += w->weights[id_of(cutoff)];
		}
		total = sum;
		kept = s->top_k;
	}
	if (!top_p)
		return cutoff;
	sum = 0;
	for (uint32_t i = 0; i < kept; i++) {
		cutoff = kept < n ? w->heap[n - 1 - i] : pop(w->heap, n - i);
		sum += w->weights[id_of(cutoff)];
		if ((unsigned __int128)sum * WEIGHT_ONE >= (unsigned __int128)total * p)
			break;
	}
	return cutoff;
}

static uint32_t draw(struct work *w, const struct mr_sampling *s, uint32_t position)
{
	uint64_t cutoff = 0, total = 0, point;
	uint32_t least = 1, random[4], last = 0;

	if (s->top_k || (s->top_p > 0 && s->top_p < 1))
		cutoff = cutoff_of(w, s);
	if ((double)s->min_p * (double)WEIGHT_ONE > 1)
		least = (uint32_t)((double)s->min_p * (double)WEIGHT_ONE);
	for (uint32_t id = 0; id < w->vocab; id++) {
		if (w->weights[id] < least || key_of(w->logits[id], id) < cutoff)
			w->weights[id] = 0;
		total += w->weights[id];
	}
	mr_philox((const uint32_t[4]){position},
		  (const uint32_t[2]){(uint32_t)s->seed, s->seed >> 32}, random);
	point = (uint64_t)((unsigned __int128)((uint64_t)random[1] << 32 | random[0]) * total >>
			   64);
	for (uint32_t id = 0; id < w->vocab; id++) {
		if (!w->weights[id])
			continue;
		last = id;
		if (point < w->weights[id])
			break;
		point -= w->weights[id];
	}
	return last;
}

uint32_t mr_sample(const float *logits, uint32_t vocab, const struct mr_sampling *s,
		   uint32_t position, const uint32_t *history, uint32_t history_count,
		   void *scratch, float *logprob)
{
	struct work w = {.vocab = vocab};
	int penalties = history_count && ((s->repeat != 0 && s->repeat != 1) || s->presence != 0 ||
					  s->frequency != 0);
	uint32_t top = argmax(logits, vocab), token = top;

	if (penalties || s->temperature > 0) {
		w.logits = scratch;
		w.counts = (void *)((char *)scratch + lined((size_t)vocab * 4));
		w.weights = w.counts;
		w.heap = (void *)((char *)w.counts + lined((size_t)vocab * 4));
		for (uint32_t i = 0; i < vocab; i++)
			w.logits[i] = tame(logits[i]);
		if (penalties)
			penalize(&w, s, history, history_count);
		token = argmax(w.logits, vocab);
		/* Where every logit is minus infinity there is nothing to draw from. */
		if (s->temperature > 0 && w.logits[token] > -LARGEST) {
			weigh(&w, w.logits[token], s->temperature);
			token = draw(&w, s, position);
		}
	}
	*logprob = logprob_of(logits, vocab, token, tame(logits[top]));
	return token;
}

float mr_logprob(const float *logits, uint32_t vocab, uint32_t token)
{
	return logprob_of(logits, vocab, token, tame(logits[argmax(logits, vocab)]));
}
