// SPDX-License-Identifier: Apache-2.0
/*
 * The read roof: at batch 1 every weight is read once a token, so no decode on one thread can be faster than
 * one thread can stream as many bytes. Measured in the same run as what is held against it.
 */
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "tools/bench.h"

#define HUGE_BYTES (2u << 20)
#define STREAMS    8u /* independent accumulators, one cache line a pair */

uint64_t bench_weight_bytes(const struct mr_model *m)
{
	uint64_t bytes = m->output.bytes + m->output_norm.bytes;

	for (uint32_t i = 0; i < m->shape.layers; i++) {
		const struct mr_model_layer *l = &m->layers[i];

		bytes += l->attn_norm.bytes + l->q.bytes + l->k.bytes + l->v.bytes + l->o.bytes;
		bytes += l->ffn_norm.bytes + l->gate.bytes + l->up.bytes + l->down.bytes;
	}
	return bytes;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* @bytes is a multiple of STREAMS * 32. The result only keeps the loads from being dropped. */
static uint64_t read_all(const char *p, uint64_t bytes)
{
	__m256i sum[STREAMS] = {{0}};
	uint64_t words[4];

	for (uint64_t at = 0; at < bytes; at += sizeof(sum))
		for (unsigned i = 0; i < STREAMS; i++)
			sum[i] = _mm256_add_epi64(
				sum[i],
				_mm256_load_si256((const __m256i *)(p + at + i * sizeof(sum[0]))));
	for (unsigned i = 1; i < STREAMS; i++)
		sum[0] = _mm256_add_epi64(sum[0], sum[i]);
	memcpy(words, &sum[0], sizeof(words));
	return words[0] ^ words[1] ^ words[2] ^ words[3];
}

int bench_roof(uint64_t bytes, unsigned runs, double *rates)
{
	uint64_t mapped = (bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
	char *p = aligned_alloc(HUGE_BYTES, mapped);
	volatile uint64_t sink; /* the compiler must believe that the sums are wanted */

	if (!p)
		return MR_E_NO_MEMORY;
	madvise(p, mapped, MADV_HUGEPAGE); /* advice: without it the figure is a little lower */
	memset(p, 1, mapped);
	bytes -= bytes % (STREAMS * sizeof(__m256i));
	sink = read_all(p, bytes);
	for (unsigned i = 0; i < runs; i++) {
		uint64_t start = now_ns();

		sink = read_all(p, bytes);
		rates[i] = (double)bytes * 1e9 / (double)(now_ns() - start);
	}
	(void)sink;
	free(p);
	return 0;
}
