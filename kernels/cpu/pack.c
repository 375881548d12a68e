// SPDX-License-Identifier: Apache-2.0
/* GGUF's blocks of one row to blocks of 16 rows: the layouts of pack.h. */
#include "kernels/cpu/pack.h"

#include <string.h>

#define Q4_1_BLOCK \
	20            /* GGUF: FP16 scale, FP16 minimum, 16 bytes of nibbles: low = columns 0-15 \
		       */
#define Q8_0_BLOCK 34 /* GGUF: FP16 scale, 32 int8 */

size_t mr_pack_bytes(enum mr_packing packing, uint32_t rows, uint32_t cols)
{
	size_t blocks = ((size_t)rows + 15) / 16 * (cols / 32);

	return blocks * (packing == MR_PACK_Q4_1X16 ? MR_Q4_1X16_BYTES : MR_Q8_0X16_BYTES);
}

static void pack_q4_1(const uint8_t *src, uint32_t r, uint8_t *dst)
{
	memcpy(dst + 256 + 2 * r, src, 2);
	memcpy(dst + 288 + 2 * r, src + 2, 2);
	for (uint32_t g = 0; g < 4; g++)
		memcpy(dst + 64 * g + 4 * r, src + 4 + 4 * g, 4);
}

static void pack_q8_0(const uint8_t *src, uint32_t r, uint8_t *dst)
{
	memcpy(dst + 512 + 2 * r, src, 2);
	for (uint32_t g = 0; g < 8; g++)
		memcpy(dst + 64 * g + 4 * r, src + 2 + 4 * g, 4);
}

void mr_pack(enum mr_packing packing, const void *gguf_blocks, uint32_t rows, uint32_t cols,
	     void *dst)
{
	const uint8_t *src = gguf_blocks;
	size_t blocks = cols / 32;
	size_t in = packing == MR_PACK_Q4_1X16 ? Q4_1_BLOCK : Q8_0_BLOCK;
	size_t out = packing == MR_PACK_Q4_1X16 ? MR_Q4_1X16_BYTES : MR_Q8_0X16_BYTES;

	if (rows % 16) /* the rows that pad the last group */
		memset((uint8_t *)dst + rows / 16 * blocks * out, 0, blocks * out);
	for (uint32_t row = 0; row < rows; row++) {
		uint8_t *group = (uint8_t *)dst + row / 16 * blocks * out;

		for (size_t b = 0; b < blocks; b++, src += in) {
			if (packing == MR_PACK_Q4_1X16)
				pack_q4_1(src, row % 16, group + b * out);
			else
				pack_q8_0(src, row % 16, group + b * out);
		}
	}
}
