// SPDX-License-Identifier: Apache-2.0
/* The packed layouts, byte by byte as pack.h states them, and the embedding that reads them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/cpu/half.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/pack.h"

#define ROWS 37 /* two groups of 16 and five rows */
#define COLS 96

static uint8_t byte_at(size_t i)
{
	return (uint8_t)(i * 131 + (i >> 8) * 17 + 7);
}

static uint8_t *gguf(size_t block)
{
	uint8_t *b = malloc(ROWS * COLS / 32 * block);

	for (size_t i = 0; i < ROWS * COLS / 32 * block; i++)
		b[i] = byte_at(i);
	return b;
}

static uint8_t *packed_of(enum mr_packing packing, const uint8_t *in)
{
	size_t bytes = mr_pack_bytes(packing, ROWS, COLS);
	uint8_t *out = aligned_alloc(64, (bytes + 127) & ~(size_t)63);

	memset(out, 0xee, bytes + 1);
	mr_pack(packing, in, ROWS, COLS, out);
	assert_int_equal(out[bytes], 0xee); /* not one byte more than it said */
	return out;
}

static void sizes(void **state)
{
	assert_int_equal(mr_pack_bytes(MR_PACK_Q4_1X16, 16, 32), 320);
	assert_int_equal(mr_pack_bytes(MR_PACK_Q8_0X16, 16, 32), 544);
	assert_int_equal(mr_pack_bytes(MR_PACK_Q4_1X16, 17, 64), 1280);
	/* 49152 rows of 576: beyond what 32 bits of bits would hold */
	assert_int_equal(mr_pack_bytes(MR_PACK_Q8_0X16, 1u << 20, 8192), 544ull << 24);
}

static void q4_1(void **state)
{
	uint8_t *in = gguf(20), *out = packed_of(MR_PACK_Q4_1X16, in);

	for (uint32_t r = 0; r < 48; r++) {
		for (uint32_t c = 0; c < COLS; c++) {
			const uint8_t *block = out + (r / 16 * (COLS / 32) + c / 32) * 320;
			const uint8_t *from = in + (r * (COLS / 32) + c / 32) * 20;
			uint32_t k = c % 32, j = k % 4, g = k % 16 / 4;
			uint8_t byte = block[64 * g + 4 * (r % 16) + j];
			uint8_t want = r < ROWS ? from[4 + k % 16] : 0;

			assert_int_equal(k < 16 ? byte & 15 : byte >> 4,
					 k < 16 ? want & 15 : want >> 4);
			if (r < ROWS) {
				assert_memory_equal(block + 256 + 2 * (r % 16), from, 2);
				assert_memory_equal(block + 288 + 2 * (r % 16), from + 2, 2);
			} else {
				assert_int_equal(block[256 + 2 * (r % 16)], 0);
				assert_int_equal(block[289 + 2 * (r % 16)], 0);
			}
		}
	}
	free(in);
	free(out);
}

static void q8_0(void **state)
{
	uint8_t *in = gguf(34), *out = packed_of(MR_PACK_Q8_0X16, in);

	for (uint32_t r = 0; r < 48; r++) {
		for (uint32_t c = 0; c < COLS; c++) {
			const uint8_t *block = out + (r / 16 * (COLS / 32) + c / 32) * 544;
			const uint8_t *from = in + (r * (COLS / 32) + c / 32) * 34;
			uint32_t k = c % 32;

			assert_int_equal(block[64 * (k / 4) + 4 * (r % 16) + k % 4],
					 r < ROWS ? from[2 + k] : 0);
			if (r < ROWS)
				assert_memory_equal(block + 512 + 2 * (r % 16), from, 2);
		}
	}
	free(in);
	free(out);
}

static void embedding(void **state)
{
	static const uint32_t ids[] = {36, 0, 17};
	uint8_t *in[2] = {gguf(20), gguf(34)};

	for (int q8 = 0; q8 < 2; q8++) {
		size_t size = q8 ? 34 : 20;
		enum mr_packing packing = q8 ? MR_PACK_Q8_0X16 : MR_PACK_Q4_1X16;
		struct mr_matrix m = {NULL, ROWS, COLS, packing};
		float x[3 * COLS];

		for (size_t b = 0; b < ROWS * COLS / 32; b++) {
			uint16_t d = mr_float_to_half((float)b / 64), low = mr_float_to_half(-3);

			memcpy(in[q8] + b * size, &d, 2);
			if (!q8)
				memcpy(in[q8] + b * size + 2, &low, 2);
		}
		m.data = packed_of(packing, in[q8]);
		mr_embed(mr_kernels_select("scalar"), &m, ids, 3, x);
		for (uint32_t i = 0; i < 3 * COLS; i++) {
			uint32_t c = i % COLS, k = c % 32;
			size_t b = ids[i / COLS] * (COLS / 32) + c / 32;
			const uint8_t *from = in[q8] + b * size;
			int q = q8 ? (int8_t)from[2 + k]
				   : (k < 16 ? from[4 + k] & 15 : from[4 + k - 16] >> 4);

			/* small integers and 64ths: exact */
			assert_true(x[i] == (float)b / 64 * (float)q - (q8 ? 0.0f : 3.0f));
		}
		free((void *)m.data);
		free(in[q8]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),
		cmocka_unit_test(q4_1),
		cmocka_unit_test(q8_0),
		cmocka_unit_test(embedding),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
