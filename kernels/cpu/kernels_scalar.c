// SPDX-License-Identifier: Apache-2.0
/*
 * Class D in plain C, one value at a time, compiled without vectorisation: the path that the others
 * are tested against, and what a CPU without AVX2 runs.
 */
#include "kernels/cpu/formats.h"
#include "kernels/cpu/lanes_attention.h"
#include "kernels/cpu/lanes_kernels.h"
#include "kernels/cpu/lanes_rows.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/pack.h"

static void dots_q4_1(const uint8_t *w, const int8_t *q, int32_t dot[16])
{
	for (int r = 0; r < 16; r++) {
		dot[r] = 0;
		for (int c = 0; c < 16; c++) {
			uint8_t byte = w[c / 4 * 64 + 4 * r + c % 4];

			dot[r] += (byte & 15) * q[c] + (byte >> 4) * q[16 + c];
		}
	}
}

static void dots_q8_0(const uint8_t *w, const int8_t *q, int32_t dot[16])
{
	for (int r = 0; r < 16; r++) {
		dot[r] = 0;
		for (int c = 0; c < 32; c++)
			dot[r] += (int8_t)w[c / 4 * 64 + 4 * r + c % 4] * q[c];
	}
}

/* 16 output rows of one activation row, added to @acc. */
static void group(const struct mr_matrix *m, const uint8_t *w, const struct mr_q8 *x, uint32_t row,
		  float acc[16])
{
	size_t blocks = x->cols / 32, first = row * blocks;

	for (size_t b = 0; b < blocks; b++) {
		const int8_t *q = x->q + 32 * (first + b);
		float dx = x->scale[first + b], sum = (float)x->sum[first + b];
		const uint16_t *half;
		int32_t dot[16];

		if (m->packing == MR_PACK_Q4_1X16) {
			dots_q4_1(w, q, dot);
			half = (const uint16_t *)(w + 256);
		} else {
			dots_q8_0(w, q, dot);
			half = (const uint16_t *)(w + 512);
		}
		for (int r = 0; r < 16; r++) {
			acc[r] = __builtin_fmaf(mr_half_to_float(half[r]) * dx, (float)dot[r],
						acc[r]);
			if (m->packing == MR_PACK_Q4_1X16)
				acc[r] = __builtin_fmaf(mr_half_to_float(half[16 + r]) * dx, sum,
							acc[r]);
		}
		w += m->packing == MR_PACK_Q4_1X16 ? MR_Q4_1X16_BYTES : MR_Q8_0X16_BYTES;
	}
}

static void matmul(const struct mr_matrix *w, const struct mr_q8 *x, float *y, size_t stride,
		   uint32_t row0, uint32_t row1, const void *next)
{
	size_t group_bytes = mr_pack_bytes(w->packing, 16, w->cols);

	if (mr_is_other_format(w->packing)) {
		mr_formats_scalar(w, x, y, stride, row0, row1);
		return;
	}
	for (uint32_t r = row0; r < row1; r += 16) {
		const uint8_t *data = (const uint8_t *)w->data + r / 16 * group_bytes;
		uint32_t n = row1 - r < 16 ? row1 - r : 16;

		for (uint32_t i = 0; i < x->rows; i++) {
			float acc[16] = {0};

			if (x->chain)
				memcpy(acc, y + i * stride + r, n * sizeof(float));
			group(w, data, x, i, acc);
			memcpy(y + i * stride + r, acc, n * sizeof(float));
		}
	}
}

const struct mr_kernels mr_kernels_scalar = {
	.name = "scalar",
	.numerics = "D",
	.quantize = quantize,
	.matmul = matmul,
	.rmsnorm = rmsnorm,
	.rope = rope,
	.swiglu = swiglu,
	.add = add,
	.attention = attention,
	.attend = attend,
	.merge = merge,
	.to_half = to_half,
	LANES_ROWS,
};
