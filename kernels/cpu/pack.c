// SPDX-License-Identifier: Apache-2.0
/* GGUF's blocks of one row to blocks of 16 rows, and back to floats: the layouts of pack.h. */
#include "kernels/cpu/pack.h"

#include <string.h>

#include "kernels/cpu/half.h"

/* A block: its columns, its bytes in a row of the file, its bytes for 16 rows packed. */
static const struct {
	uint16_t cols, in, out;
} shapes[] = {
	[MR_PACK_Q4_1X16] = {32, 20, MR_Q4_1X16_BYTES},
	[MR_PACK_Q8_0X16] = {32, 34, MR_Q8_0X16_BYTES},
	[MR_PACK_Q4_0X16] = {32, 18, MR_Q4_0X16_BYTES},
	[MR_PACK_Q4_KX16] = {256, 144, MR_Q4_KX16_BYTES},
	[MR_PACK_Q5_KX16] = {256, 176, MR_Q5_KX16_BYTES},
	[MR_PACK_Q6_KX16] = {256, 210, MR_Q6_KX16_BYTES},
	[MR_PACK_F32X16] = {32, 128, MR_F32X16_BYTES},
	[MR_PACK_F16X16] = {32, 64, MR_F16X16_BYTES},
	[MR_PACK_BF16X16] = {32, 64, MR_F16X16_BYTES},
	[MR_PACK_BF16_TILES] = {32, 0, MR_BF16_TILE_BYTES}, /* no type of a file's */
};

size_t mr_pack_bytes(enum mr_packing packing, uint32_t rows, uint32_t cols)
{
	return ((size_t)rows + 15) / 16 * (cols / shapes[packing].cols) * shapes[packing].out;
}

/* GGUF: FP16 scale, FP16 minimum, 16 bytes of nibbles: low = columns 0-15. */
static void pack_q4_1(const uint8_t *src, uint32_t r, uint8_t *dst)
{
	memcpy(dst + 256 + 2 * r, src, 2);
	memcpy(dst + 288 + 2 * r, src + 2, 2);
	for (uint32_t g = 0; g < 4; g++)
		memcpy(dst + 64 * g + 4 * r, src + 4 + 4 * g, 4);
}

/* GGUF: FP16 scale, 16 bytes of nibbles as Q4_1's. */
static void pack_q4_0(const uint8_t *src, uint32_t r, uint8_t *dst)
{
	memcpy(dst + 256 + 2 * r, src, 2);
	for (uint32_t g = 0; g < 4; g++)
		memcpy(dst + 64 * g + 4 * r, src + 2 + 4 * g, 4);
}

/* GGUF: FP16 scale, 32 int8. */
static void pack_q8_0(const uint8_t *src, uint32_t r, uint8_t *dst)
{
	memcpy(dst + 512 + 2 * r, src, 2);
	for (uint32_t g = 0; g < 8; g++)
		memcpy(dst + 64 * g + 4 * r, src + 2 + 4 * g, 4);
}

/* Where the nibble, the fifth bit and the two upper bits of six of row r, column c of 32 lie. */
static void put_value(uint32_t value, uint32_t r, uint32_t c, uint8_t *nibbles, uint8_t *bits,
		      uint8_t *pairs)
{
	uint32_t group = c % 16 / 4, at = 4 * r + c % 4;

	nibbles[64 * group + at] |= (uint8_t)((value & 15) << c / 16 * 4);
	if (bits)
		bits[at] |= (uint8_t)(value >> 4 << (c / 16 * 4 + group));
	if (pairs)
		pairs[c / 16 * 64 + at] |= (uint8_t)(value >> 4 << 2 * group);
}

/* GGUF: 8 scales and 8 minima of 6 bits in 12 bytes. */
static void scale_min(const uint8_t *s, uint32_t i, uint8_t *scale, uint8_t *min)
{
	if (i < 4) {
		*scale = s[i] & 63;
		*min = s[i + 4] & 63;
	} else {
		*scale = (uint8_t)((s[i + 4] & 15) | s[i - 4] >> 6 << 4);
		*min = (uint8_t)(s[i + 4] >> 4 | s[i] >> 6 << 4);
	}
}

/*
 * GGUF: FP16 scale and minimum of the scales and minima, these (12 bytes), with Q5_K 32 bytes of
 * fifth bits (bit i: block i), then for two blocks at a time 32 bytes of nibbles.
 */
static void pack_q45_k(const uint8_t *src, int five, uint32_t r, uint8_t *dst)
{
	const uint8_t *fifth = src + 16, *nibbles = five ? src + 48 : src + 16;
	uint32_t stride = five ? MR_Q5_KX16_STEP : MR_Q4_KX16_STEP;

	memcpy(dst + 2 * r, src, 2);
	memcpy(dst + 32 + 2 * r, src + 2, 2);
	for (uint32_t i = 0; i < 8; i++) {
		uint8_t *to = dst + 64 + i * stride, *tail = to + (five ? 320 : 256);

		for (uint32_t c = 0; c < 32; c++) {
			uint32_t value = nibbles[i / 2 * 32 + c] >> i % 2 * 4 & 15;

			if (five)
				value |= (fifth[c] >> i & 1u) << 4;
			put_value(value, r, c, to, five ? to + 256 : NULL, NULL);
		}
		scale_min(src + 4, i, &tail[r], &tail[16 + r]);
	}
}

/* GGUF: 128 bytes of nibbles, 64 of upper bits, 16 int8 scales, the FP16 scale of the scales. */
static void pack_q6_k(const uint8_t *src, uint32_t r, uint8_t *dst)
{
	memcpy(dst + 2 * r, src + 208, 2);
	for (uint32_t i = 0; i < 8; i++) {
		const uint8_t *nibbles = src + i / 4 * 64 + i % 2 * 32;
		const uint8_t *upper = src + 128 + i / 4 * 32;
		uint8_t *to = dst + 32 + i * MR_Q6_KX16_STEP;

		for (uint32_t c = 0; c < 32; c++)
			put_value((nibbles[c] >> i / 2 % 2 * 4 & 15) | (upper[c] >> i % 4 * 2 & 3)
									       << 4,
				  r, c, to, NULL, to + 256);
		to[384 + r] = src[192 + 2 * i];
		to[400 + r] = src[192 + 2 * i + 1];
	}
}

static void pack_values(const uint8_t *src, uint32_t size, uint32_t r, uint8_t *dst)
{
	for (uint32_t c = 0; c < 32; c++)
		memcpy(dst + (16 * c + r) * size, src + c * size, size);
}

void mr_pack(enum mr_packing packing, const void *gguf_blocks, uint32_t rows, uint32_t cols,
	     void *dst)
{
	const uint8_t *src = gguf_blocks;
	size_t blocks = cols / shapes[packing].cols;
	size_t in = shapes[packing].in, out = shapes[packing].out;
	/* Bits of two rows share a byte where they are put one by one. */
	int clear = packing == MR_PACK_Q4_KX16 || packing == MR_PACK_Q5_KX16 ||
		    packing == MR_PACK_Q6_KX16;

	if (clear)
		memset(dst, 0, mr_pack_bytes(packing, rows, cols));
	else if (rows % 16) /* the rows that pad the last group */
		memset((uint8_t *)dst + rows / 16 * blocks * out, 0, blocks * out);
	for (uint32_t row = 0; row < rows; row++) {
		uint8_t *to = (uint8_t *)dst + row / 16 * blocks * out;
		uint32_t r = row % 16;

		for (size_t b = 0; b < blocks; b++, src += in, to += out) {
			switch (packing) {
			case MR_PACK_Q4_1X16:
				pack_q4_1(src, r, to);
				break;
			case MR_PACK_Q8_0X16:
				pack_q8_0(src, r, to);
				break;
			case MR_PACK_Q4_0X16:
				pack_q4_0(src, r, to);
				break;
			case MR_PACK_Q4_KX16:
			case MR_PACK_Q5_KX16:
				pack_q45_k(src, packing == MR_PACK_Q5_KX16, r, to);
				break;
			case MR_PACK_Q6_KX16:
				pack_q6_k(src, r, to);
				break;
			case MR_PACK_F32X16:
				pack_values(src, 4, r, to);
				break;
			case MR_PACK_F16X16:
			case MR_PACK_BF16X16:
				pack_values(src, 2, r, to);
				break;
			case MR_PACK_BF16_TILES:
				break;
			}
		}
	}
}

/* Nibble of row r, column c of 32. */
static uint32_t nibble(const uint8_t *w, uint32_t r, uint32_t c)
{
	return w[c % 16 / 4 * 64 + 4 * r + c % 4] >> c / 16 * 4 & 15;
}

static float half_at(const uint8_t *w, uint32_t r)
{
	uint16_t half;

	memcpy(&half, w + 2 * r, 2);
	return mr_half_to_float(half);
}

static void unpack_q4_1(const uint8_t *w, uint32_t r, float *x)
{
	float d = half_at(w + 256, r), m = half_at(w + 288, r);

	for (uint32_t c = 0; c < 32; c++)
		x[c] = __builtin_fmaf(d, (float)nibble(w, r, c), m);
}

static void unpack_q4_0(const uint8_t *w, uint32_t r, float *x)
{
	for (uint32_t c = 0; c < 32; c++)
		x[c] = half_at(w + 256, r) * (float)((int)nibble(w, r, c) - 8);
}

static void unpack_q8_0(const uint8_t *w, uint32_t r, float *x)
{
	for (uint32_t c = 0; c < 32; c++)
		x[c] = half_at(w + 512, r) * (int8_t)w[c / 4 * 64 + 4 * r + c % 4];
}

static void unpack_q45_k(const uint8_t *w, int five, uint32_t r, float *x)
{
	float d = half_at(w, r), m = half_at(w + 32, r);

	w += 64;
	for (uint32_t i = 0; i < 8; i++, x += 32, w += five ? MR_Q5_KX16_STEP : MR_Q4_KX16_STEP) {
		const uint8_t *tail = w + (five ? 320 : 256);
		float scale = d * tail[r], min = m * tail[16 + r];

		for (uint32_t c = 0; c < 32; c++) {
			uint32_t value = nibble(w, r, c), bit = c / 16 * 4 + c % 16 / 4;

			if (five)
				value |= (w[256 + 4 * r + c % 4] >> bit & 1u) << 4;
			x[c] = scale * (float)value - min;
		}
	}
}

static void unpack_q6_k(const uint8_t *w, uint32_t r, float *x)
{
	float d = half_at(w, r);

	w += 32;
	for (uint32_t i = 0; i < 8; i++, x += 32, w += MR_Q6_KX16_STEP) {
		for (uint32_t c = 0; c < 32; c++) {
			uint32_t upper = w[256 + c / 16 * 64 + 4 * r + c % 4] >> c % 16 / 4 * 2 & 3;
			int value = (int)(nibble(w, r, c) | upper << 4) - 32;

			x[c] = d * (int8_t)w[384 + c / 16 * 16 + r] * (float)value;
		}
	}
}

/* The block of row @row that begins at column @col; returns its columns. */
static uint32_t unpack_block(const struct mr_matrix *m, uint32_t row, uint32_t col, float *x)
{
	size_t out = shapes[m->packing].out, cols = shapes[m->packing].cols;
	const uint8_t *w =
		(const uint8_t *)m->data + (row / 16 * (m->cols / cols) + col / cols) * out;
	uint32_t r = row % 16;

	switch (m->packing) {
	case MR_PACK_Q4_1X16:
		unpack_q4_1(w, r, x);
		break;
	case MR_PACK_Q8_0X16:
		unpack_q8_0(w, r, x);
		break;
	case MR_PACK_Q4_0X16:
		unpack_q4_0(w, r, x);
		break;
	case MR_PACK_Q4_KX16:
	case MR_PACK_Q5_KX16:
		unpack_q45_k(w, m->packing == MR_PACK_Q5_KX16, r, x);
		break;
	case MR_PACK_Q6_KX16:
		unpack_q6_k(w, r, x);
		break;
	case MR_PACK_F32X16:
		for (uint32_t c = 0; c < 32; c++)
			memcpy(&x[c], w + 4 * (16 * c + r), 4);
		break;
	case MR_PACK_F16X16:
		for (uint32_t c = 0; c < 32; c++)
			x[c] = half_at(w, 16 * c + r);
		break;
	case MR_PACK_BF16X16:
		memset(x, 0, 32 * sizeof(*x));
		for (uint32_t c = 0; c < 32; c++)
			memcpy((uint8_t *)&x[c] + 2, w + 2 * (16 * c + r), 2);
		break;
	case MR_PACK_BF16_TILES:
		memset(x, 0, 32 * sizeof(*x));
		for (uint32_t c = 0; c < 32; c++)
			memcpy((uint8_t *)&x[c] + 2, w + 64 * (c / 2) + 4 * r + 2 * (c % 2), 2);
		break;
	}
	return (uint32_t)cols;
}

void mr_unpack_row(const struct mr_matrix *m, uint32_t row, float *x)
{
	for (uint32_t col = 0; col < m->cols;)
		col += unpack_block(m, row, col, x + col);
}

/* Rows that pad the last group are zeros. */
void mr_pack_tiles(const struct mr_matrix *m, uint32_t row0, uint32_t row1, void *dst)
{
	size_t group = mr_pack_bytes(MR_PACK_BF16_TILES, 16, m->cols);
	float x[256];

	if (row1 % 16)
		memset((uint8_t *)dst + row1 / 16 * group, 0, group);
	for (uint32_t row = row0; row < row1; row++) {
		uint8_t *to = (uint8_t *)dst + row / 16 * group + 4 * (row % 16);

		for (uint32_t c = 0, n; c < m->cols; c += n) {
			n = unpack_block(m, row, c, x);
			for (uint32_t i = 0; i < n; i += 2) {
				uint16_t pair[2] = {mr_float_to_bf16(x[i]),
						    mr_float_to_bf16(x[i + 1])};

				memcpy(to + (c + i) / 32 * MR_BF16_TILE_BYTES +
					       (c + i) % 32 / 2 * 64,
				       pair, 4);
			}
		}
	}
}
