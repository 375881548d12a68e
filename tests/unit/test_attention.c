// SPDX-License-Identifier: Apache-2.0
/*
 * Attention over KV blocks: against softmax in FP64, every path bit for bit, across the edges of blocks and
 * of tiles, blind to what lies behind the row's own position.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/cpu/half.h"
#include "kernels/cpu/kernels.h"

#define POSITIONS 800
#define BLOCKS    (POSITIONS / 16)

static uint32_t seed = 7;

static float rndf(void)
{
	seed = seed * 1664525u + 1013904223u;
	return (float)(seed >> 8) / (float)(1 << 23) - 1;
}

struct kv {
	uint16_t *memory;
	uint8_t *blocks[BLOCKS];
	uint32_t head_dim;
};

/* One head: K[16][head_dim], then V[16][head_dim] a block. */
static struct kv kv_new(uint32_t head_dim)
{
	struct kv kv = {.head_dim = head_dim};
	size_t block = (size_t)32 * head_dim;

	kv.memory = aligned_alloc(64, BLOCKS * block * 2);
	for (size_t i = 0; i < BLOCKS * block; i++)
		kv.memory[i] = mr_float_to_half(rndf() * 2);
	for (size_t b = 0; b < BLOCKS; b++) /* out of order, as a pool hands them out */
		kv.blocks[b] = (uint8_t *)(kv.memory + (BLOCKS - 1 - b) * block);
	return kv;
}

static double at(const struct kv *kv, uint32_t pos, uint32_t d, int value)
{
	const uint16_t *block = (const uint16_t *)kv->blocks[pos / 16];

	return mr_half_to_float(block[((value ? 16 : 0) + pos % 16) * kv->head_dim + d]);
}

static struct mr_attention request(const struct kv *kv, uint32_t count)
{
	return (struct mr_attention){
		.kv = kv->blocks,
		.v_offset = (size_t)16 * kv->head_dim * 2,
		.count = count,
		.head_dim = kv->head_dim,
		.queries = 1,
		.scale = 1 / sqrtf((float)kv->head_dim),
	};
}

static void check_reference(const struct mr_kernels *k, const struct kv *kv, const float *q,
			    uint32_t count)
{
	struct mr_attention a = request(kv, count);
	float y[128], scratch[MR_ATTENTION_SCRATCH(128)];
	double score[POSITIONS], max = -INFINITY, total = 0;

	k->attention(&a, q, y, scratch);
	for (uint32_t p = 0; p < count; p++) {
		score[p] = 0;
		for (uint32_t d = 0; d < kv->head_dim; d++)
			score[p] += (double)q[d] * at(kv, p, d, 0);
		score[p] *= a.scale;
		max = fmax(max, score[p]);
	}
	for (uint32_t p = 0; p < count; p++)
		total += score[p] = exp(score[p] - max);
	for (uint32_t d = 0; d < kv->head_dim; d++) {
		double want = 0;

		for (uint32_t p = 0; p < count; p++)
			want += score[p] / total * at(kv, p, d, 1);
		assert_true(fabs(y[d] - want) < 1e-5);
	}
}

static const uint32_t counts[] = {1, 2, 15, 16, 17, 255, 256, 257, 511, 512, 513, 700, POSITIONS};
#define COUNTS (sizeof(counts) / sizeof(counts[0]))

static void all_paths(void **state)
{
	static const uint32_t dims[] = {16, 32, 64, 80, 128};

	for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++) {
		struct kv kv = kv_new(dims[i]);
		float q[128], want[128], got[128], scratch[MR_ATTENTION_SCRATCH(128)];

		for (uint32_t d = 0; d < dims[i]; d++)
			q[d] = rndf() * 3;
		for (size_t c = 0; c < COUNTS; c++) {
			struct mr_attention a = request(&kv, counts[c]);

			check_reference(mr_kernels_all[0], &kv, q, counts[c]);
			mr_kernels_all[0]->attention(&a, q, want, scratch);
			for (int k = 1; mr_kernels_all[k]; k++) {
				if (!mr_kernels_runnable(mr_kernels_all[k]))
					continue;
				mr_kernels_all[k]->attention(&a, q, got, scratch);
				assert_memory_equal(got, want, dims[i] * 4);
			}
		}
		free(kv.memory);
	}
	for (int k = 0; mr_kernels_all[k]; k++)
		if (!mr_kernels_runnable(mr_kernels_all[k]))
			print_message("SKIPPED: this CPU cannot run %s\n", mr_kernels_all[k]->name);
}

/* Positions after the row's own hold whatever a block held before, NaN included. */
static void later_positions(void **state)
{
	struct kv kv = kv_new(64);
	float q[64], a1[64], a2[64], scratch[MR_ATTENTION_SCRATCH(64)];
	struct mr_attention a = request(&kv, 261);

	for (int d = 0; d < 64; d++)
		q[d] = rndf();
	for (int k = 0; mr_kernels_all[k]; k++) {
		uint16_t *block = (uint16_t *)kv.blocks[261 / 16];

		if (!mr_kernels_runnable(mr_kernels_all[k]))
			continue;
		for (int i = 0; i < 2 * 16 * 64; i++)
			if (i / 64 % 16 >= 261 % 16)
				block[i] = 0x3c00;
		mr_kernels_all[k]->attention(&a, q, a1, scratch);
		for (int i = 0; i < 2 * 16 * 64; i++)
			if (i / 64 % 16 >= 261 % 16)
				block[i] = 0x7e00; /* NaN */
		mr_kernels_all[k]->attention(&a, q, a2, scratch);
		assert_memory_equal(a1, a2, sizeof(a1));
		assert_false(isnan(a1[0]));
	}
	free(kv.memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_paths),
		cmocka_unit_test(later_positions),
	};

	mr_numerics_enter();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
