// SPDX-License-Identifier: Apache-2.0
/* The other weight types in plain C: what formats_avx2.c and formats_avx512.c are tested against. */
#include <string.h>

#include "kernels/cpu/formats.h"
#include "kernels/cpu/half.h"
#include "kernels/cpu/pack.h"

static float half_at(const uint8_t *w, int r)
{
	uint16_t half;

	memcpy(&half, w + 2 * r, 2);
	return mr_half_to_float(half);
}

/* Dots of row r with the first and the last 16 columns of a block; weights are value - @offset. */
static void dots(const uint8_t *w, const uint8_t *bits, const uint8_t *pairs, int offset,
		 const int8_t *q, int r, int32_t dot[2])
{
	dot[0] = dot[1] = 0;
	for (int c = 0; c < 32; c++) {
		int g = c % 16 / 4, at = 4 * r + c % 4;
		int value = w[64 * g + at] >> c / 16 * 4 & 15;

		if (bits)
			value |= (bits[at] >> (c / 16 * 4 + g) & 1) << 4;
		if (pairs)
			value |= (pairs[c / 16 * 64 + at] >> 2 * g & 3) << 4;
		dot[c / 16] += (value - offset) * q[c];
	}
}

static void block_q4_0(const uint8_t *w, const int8_t *q, float dx, float acc[16])
{
	for (int r = 0; r < 16; r++) {
		int32_t dot[2];

		dots(w, NULL, NULL, 8, q, r, dot);
		acc[r] = __builtin_fmaf(half_at(w + 256, r) * dx, (float)(dot[0] + dot[1]), acc[r]);
	}
}

/* @all: what the 256 columns share; @w: of these 32. */
static void block_q45_k(const uint8_t *all, const uint8_t *w, int five, const int8_t *q, float dx,
			float sum, float acc[16])
{
	const uint8_t *tail = w + (five ? 320 : 256);

	for (int r = 0; r < 16; r++) {
		float scale = half_at(all, r) * tail[r], min = -half_at(all + 32, r) * tail[16 + r];
		int32_t dot[2];

		dots(w, five ? w + 256 : NULL, NULL, 0, q, r, dot);
		acc[r] = __builtin_fmaf(scale * dx, (float)(dot[0] + dot[1]), acc[r]);
		acc[r] = __builtin_fmaf(min * dx, sum, acc[r]);
	}
}

static void block_q6_k(const uint8_t *all, const uint8_t *w, const int8_t *q, float dx,
		       float acc[16])
{
	for (int r = 0; r < 16; r++) {
		int32_t dot[2];

		dots(w, NULL, w + 256, 32, q, r, dot);
		for (int i = 0; i < 2; i++) {
			float scale = half_at(all, r) * (int8_t)w[384 + 16 * i + r];

			acc[r] = __builtin_fmaf(scale * dx, (float)dot[i], acc[r]);
		}
	}
}

static void column(const uint8_t *w, enum mr_packing packing, float x, float acc[16])
{
	for (int r = 0; r < 16; r++) {
		float value = 0;

		if (packing == MR_PACK_F32X16)
			memcpy(&value, w + 4 * r, 4);
		else if (packing == MR_PACK_F16X16)
			value = half_at(w, r);
		else
			memcpy((uint8_t *)&value + 2, w + 2 * r, 2);
		acc[r] = __builtin_fmaf(value, x, acc[r]);
	}
}

/* 16 output rows of one activation row. */
static void group(const struct mr_matrix *m, const uint8_t *w, const struct mr_q8 *x, uint32_t row,
		  float acc[16])
{
	size_t blocks = m->cols / 32, first = row * blocks;
	const uint8_t *all = w;

	memset(acc, 0, 16 * sizeof(*acc));
	for (size_t b = 0; b < blocks; b++) {
		const int8_t *q = x->q + 32 * (first + b);
		const float *in = x->x + 32 * (first + b);
		float dx = x->scale[first + b];
		int start = b % 8 == 0; /* of 256 columns */

		switch (m->packing) {
		case MR_PACK_Q4_0X16:
			block_q4_0(w, q, dx, acc);
			w += MR_Q4_0X16_BYTES;
			break;
		case MR_PACK_Q4_KX16:
		case MR_PACK_Q5_KX16:
			if (start)
				all = w, w += 64;
			block_q45_k(all, w, m->packing == MR_PACK_Q5_KX16, q, dx,
				    (float)x->sum[first + b], acc);
			w += m->packing == MR_PACK_Q5_KX16 ? MR_Q5_KX16_STEP : MR_Q4_KX16_STEP;
			break;
		case MR_PACK_Q6_KX16:
			if (start)
				all = w, w += 32;
			block_q6_k(all, w, q, dx, acc);
			w += MR_Q6_KX16_STEP;
			break;
		default:
			for (int c = 0; c < 32; c++) {
				column(w, m->packing, in[c], acc);
				w += m->packing == MR_PACK_F32X16 ? 64 : 32;
			}
		}
	}
}

void mr_formats_scalar(const struct mr_matrix *w, const struct mr_q8 *x, float *y, size_t stride,
		       uint32_t row0, uint32_t row1)
{
	size_t group_bytes = mr_pack_bytes(w->packing, 16, w->cols);

	for (uint32_t r = row0; r < row1; r += 16) {
		const uint8_t *data = (const uint8_t *)w->data + r / 16 * group_bytes;
		uint32_t n = row1 - r < 16 ? row1 - r : 16;

		for (uint32_t i = 0; i < x->rows; i++) {
			float acc[16];

			group(w, data, x, i, acc);
			memcpy(y + i * stride + r, acc, n * sizeof(float));
		}
	}
}
