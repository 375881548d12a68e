// SPDX-License-Identifier: Apache-2.0
/*
 * A software tile unit: palette 1 as the Intel 64 manual (volume 2, LDTILECFG, TILELOADD, TDPBSSD, TDPBF16PS)
 * has it, element by element. What the CPU answers with #GP or #UD ends the test program with a line. Each
 * thread has its own.
 */
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MR_TILE_EMULATED
#include "kernels/cpu/tile.h"
#include "support/tile_emulated.h"

#define TILES 8

static __thread struct {
	struct mr_tile_config config; /* palette 0: not configured */
	uint8_t row[TILES][MR_TILE_ROWS][MR_TILE_BYTES];
} unit;

static uint64_t products;

uint64_t tile_emulated_products(void)
{
	return __atomic_load_n(&products, __ATOMIC_RELAXED);
}

static void demand(int holds, const char *fault)
{
	if (holds)
		return;
	fprintf(stderr, "emulated tile unit: %s\n", fault);
	abort();
}

static uint32_t rows_of(int t)
{
	return unit.config.rows[t];
}

static uint32_t bytes_of(int t)
{
	return unit.config.row_bytes[t];
}

static void usable(int t)
{
	demand(t >= 0 && t < TILES && unit.config.palette == 1, "#UD: not configured");
	demand(rows_of(t) && bytes_of(t), "#UD: a tile that is not there");
}

void mr_tile_emulated_configure(const struct mr_tile_config *config)
{
	static const uint8_t zeros[16];

	demand(config->palette <= 1 && config->start_row == 0, "#GP: palette or start row");
	demand(!memcmp(config->reserved, zeros, sizeof(config->reserved)) &&
		       !memcmp(config->reserved_bytes, zeros, sizeof(config->reserved_bytes)) &&
		       !memcmp(config->reserved_rows, zeros, sizeof(config->reserved_rows)),
	       "#GP: reserved bytes");
	for (int t = 0; t < TILES; t++)
		demand(config->rows[t] <= MR_TILE_ROWS && config->row_bytes[t] <= MR_TILE_BYTES &&
			       !config->rows[t] == !config->row_bytes[t],
		       "#GP: size of a tile");
	memset(&unit, 0, sizeof(unit));
	unit.config = *config;
}

void mr_tile_emulated_release(void)
{
	memset(&unit, 0, sizeof(unit));
}

void mr_tile_emulated_zero(int to)
{
	usable(to);
	memset(unit.row[to], 0, sizeof(unit.row[to]));
}

void mr_tile_emulated_load(int to, const void *from, long stride)
{
	usable(to);
	memset(unit.row[to], 0, sizeof(unit.row[to]));
	for (uint32_t m = 0; m < rows_of(to); m++)
		memcpy(unit.row[to][m], (const char *)from + m * stride, bytes_of(to));
}

void mr_tile_emulated_store(int from, void *to, long stride)
{
	usable(from);
	for (uint32_t m = 0; m < rows_of(from); m++)
		memcpy((char *)to + m * stride, unit.row[from][m], bytes_of(from));
}

/* C (m x n) += A (m x k) * B (k x n), in elements of 32 bits. */
static void shapes_fit(int c, int a, int b)
{
	usable(c);
	usable(a);
	usable(b);
	demand(c != a && c != b && a != b, "#UD: the same tile twice");
	demand(bytes_of(a) % 4 == 0 && bytes_of(b) % 4 == 0 && bytes_of(c) % 4 == 0,
	       "#UD: bytes of a row");
	demand(rows_of(c) == rows_of(a) && bytes_of(c) == bytes_of(b) &&
		       bytes_of(a) / 4 == rows_of(b),
	       "#UD: shapes that do not fit");
	__atomic_fetch_add(&products, 1, __ATOMIC_RELAXED);
}

void mr_tile_emulated_dot_int8(int to, int a, int b)
{
	shapes_fit(to, a, b);
	for (uint32_t m = 0; m < rows_of(to); m++) {
		int32_t sum[16];

		memcpy(sum, unit.row[to][m], sizeof(sum));
		for (uint32_t k = 0; k < bytes_of(a) / 4; k++)
			for (uint32_t n = 0; n < bytes_of(to) / 4; n++)
				for (uint32_t i = 0; i < 4; i++)
					sum[n] += (int8_t)unit.row[a][m][4 * k + i] *
						  (int8_t)unit.row[b][k][4 * n + i];
		memcpy(unit.row[to][m], sum, bytes_of(to));
	}
}

static float from_bf16(const uint8_t *p)
{
	uint8_t bytes[4] = {0, 0, p[0], p[1]};
	float f;

	memcpy(&f, bytes, 4);
	return f;
}

/*
 * One row of C: the products of even columns and those of odd ones each summed by FMA in ascending k, from
 * zero; then the two sums together, and that to C. The caller has set denormals to zero, in and out.
 */
static __attribute__((noipa)) void bf16_row(uint8_t *c, const uint8_t *a,
					    const uint8_t (*b)[MR_TILE_BYTES], uint32_t pairs,
					    uint32_t outputs)
{
	float even[16] = {0}, odd[16] = {0};

	for (uint32_t k = 0; k < pairs; k++) {
		float a0 = from_bf16(a + 4 * k), a1 = from_bf16(a + 4 * k + 2);

		for (uint32_t n = 0; n < outputs; n++) {
			even[n] = __builtin_fmaf(a0, from_bf16(b[k] + 4 * n), even[n]);
			odd[n] = __builtin_fmaf(a1, from_bf16(b[k] + 4 * n + 2), odd[n]);
		}
	}
	for (uint32_t n = 0; n < outputs; n++) {
		float sum;

		memcpy(&sum, c + 4 * n, 4);
		sum += even[n] + odd[n];
		memcpy(c + 4 * n, &sum, 4);
	}
}

void mr_tile_emulated_dot_bf16(int to, int a, int b)
{
	uint32_t mxcsr = _mm_getcsr();

	shapes_fit(to, a, b);
	/* Round to nearest even, denormals are zeros, flush to zero, all masked: MXCSR itself has no say. */
	_mm_setcsr(0x9fc0);
	for (uint32_t m = 0; m < rows_of(to); m++)
		bf16_row(unit.row[to][m], unit.row[a][m],
			 (const uint8_t(*)[MR_TILE_BYTES])unit.row[b], bytes_of(a) / 4,
			 bytes_of(to) / 4);
	_mm_setcsr(mxcsr);
}
