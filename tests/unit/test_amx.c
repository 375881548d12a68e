// SPDX-License-Identifier: Apache-2.0
/*
 * The amx path's products, over the emulated tile unit wherever there is AVX-512 and over the real one where
 * there is AMX: class D bit for bit against the scalar path, class P-amx-bf16 independent of batch and
 * range and near FP64, and the real unit bit for bit against the emulated one.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "kernels/cpu/half.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/pack.h"
#include "support/tile_emulated.h"

#define ROWS_MAX 80u
#define ROUNDS   40

static uint64_t seed = 1;

static uint32_t rnd(void)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(seed >> 33);
}

static float rndf(void)
{
	float x = (float)rnd() / (float)(1u << 30) - 1;

	return rnd() % 16 ? x : x * 100;
}

static void *alloc(size_t bytes)
{
	void *p = aligned_alloc(64, (bytes + 63) & ~(size_t)63);

	assert_non_null(p);
	return p;
}

/* A matrix of @packing, one of the types with 32 columns a block. */
static struct mr_matrix random_matrix(enum mr_packing packing, uint32_t rows, uint32_t cols)
{
	static const size_t bytes[] = {[MR_PACK_Q4_1X16] = 20,
				       [MR_PACK_Q8_0X16] = 34,
				       [MR_PACK_Q4_0X16] = 18,
				       [MR_PACK_BF16X16] = 64};
	size_t blocks = (size_t)rows * cols / 32, size = bytes[packing];
	uint8_t *raw = alloc(blocks * size), *data = alloc(mr_pack_bytes(packing, rows, cols));

	for (size_t i = 0; i < blocks * size; i++)
		raw[i] = rnd() % 8 ? (uint8_t)rnd() : 0x80; /* -128 often: the sign's edge */
	for (size_t i = 0; i < blocks; i++) {
		uint8_t *at = raw + i * size;

		for (size_t c = 0; packing == MR_PACK_BF16X16 && c < 32; c++) {
			uint16_t value = mr_float_to_bf16(rndf());

			memcpy(at + 2 * c, &value, 2);
		}
		for (size_t h = 0; packing != MR_PACK_BF16X16 && h < 1 + (size == 20); h++) {
			uint16_t half = mr_float_to_half(rndf() / 64);

			memcpy(at + 2 * h, &half, 2);
		}
	}
	mr_pack(packing, raw, rows, cols, data);
	free(raw);
	return (struct mr_matrix){data, rows, cols, packing};
}

static struct mr_matrix tiles_of(const struct mr_matrix *m)
{
	void *data = alloc(mr_pack_bytes(MR_PACK_BF16_TILES, m->rows, m->cols));
	uint32_t cut = m->rows / 32 * 16;

	mr_pack_tiles(m, 0, cut, data);
	mr_pack_tiles(m, cut, m->rows, data);
	return (struct mr_matrix){data, m->rows, m->cols, MR_PACK_BF16_TILES};
}

static float *random_floats(size_t n)
{
	float *x = alloc(n * sizeof(*x));

	for (size_t i = 0; i < n; i++)
		x[i] = rndf();
	return x;
}

static struct mr_q8 input(const struct mr_kernels *k, const float *x, uint32_t rows, uint32_t cols)
{
	size_t n = (size_t)rows * cols;
	struct mr_q8 q = {alloc(n), alloc(n / 8), alloc(n / 8), rows, cols, NULL, alloc(2 * n)};

	k->quantize(x, &q);
	return q;
}

static void input_free(struct mr_q8 *q)
{
	free(q->q);
	free(q->scale);
	free(q->sum);
	free(q->bf16);
}

/* Rows @first to @first + @n - 1 of an input. */
static struct mr_q8 rows_of(const struct mr_q8 *q, uint32_t first, uint32_t n)
{
	size_t at = (size_t)first * q->cols;

	return (struct mr_q8){q->q + at, q->scale + at / 32, q->sum + at / 32, n, q->cols,
			      NULL,      q->bf16 + at};
}

/* Calls @check with the tables that run here, and says which do not. */
static void each_unit(void (*check)(const struct mr_kernels *))
{
	const struct mr_kernels *real = mr_kernels_select("amx");

	if (kernels_emulated_runnable())
		check(&kernels_emulated);
	else
		print_message("skipped: the emulated tile unit needs AVX-512 with VNNI\n");
	if (real)
		check(real);
	else
		print_message("skipped: this CPU has no AMX; only the emulated unit was tested\n");
}

static void exact_on(const struct mr_kernels *k)
{
	static const enum mr_packing packings[] = {MR_PACK_Q4_1X16, MR_PACK_Q8_0X16,
						   MR_PACK_Q4_0X16, MR_PACK_BF16X16};
	const struct mr_kernels *scalar = mr_kernels_select("scalar");

	for (int round = 0; round < ROUNDS; round++) {
		uint32_t n = 1 + rnd() % ROWS_MAX, rows = 1 + rnd() % 90,
			 cols = 32 * (1 + rnd() % 7);
		uint32_t stride = rows + rnd() % 5, cut = rnd() % (rows / 16 + 1) * 16;
		enum mr_packing packing = packings[round % 4];
		struct mr_matrix m = random_matrix(packing, rows, cols);
		float *x = random_floats((size_t)n * cols), *a = random_floats((size_t)n * stride);
		float *b = alloc((size_t)n * stride * sizeof(*b));
		struct mr_q8 want = input(scalar, x, n, cols), got = input(k, x, n, cols);
		uint64_t before = tile_emulated_products();

		want.x = got.x = x;
		memcpy(b, a, (size_t)n * stride * sizeof(*b));
		scalar->matmul(&m, &want, a, stride, 0, rows, NULL);
		k->matmul(&m, &got, b, stride, 0, cut, m.data);
		k->matmul(&m, &got, b, stride, cut, rows, NULL);
		if (memcmp(a, b, (size_t)n * stride * sizeof(*b)))
			fail_msg("%s, packing %d: %u rows, %u outputs of %u", k->name, (int)packing,
				 n, rows, cols);
		if (k == &kernels_emulated)
			assert_int_equal(tile_emulated_products() > before,
					 n >= MR_AMX_ROWS && packing != MR_PACK_BF16X16);
		free((void *)m.data);
		free(x);
		free(a);
		free(b);
		input_free(&want);
		input_free(&got);
	}
}

static void exact(void **state)
{
	each_unit(exact_on);
}

/* A row's outputs in company, alone, in another company and in other ranges of outputs: the same bits. */
static void company_on(const struct mr_kernels *k)
{
	const struct mr_kernels *p = k->prompt;

	assert_non_null(p);
	for (int round = 0; round < ROUNDS; round++) {
		uint32_t n = 1 + rnd() % ROWS_MAX, rows = 1 + rnd() % 90,
			 cols = 32 * (1 + rnd() % 7);
		uint32_t stride = rows + rnd() % 5, cut = rnd() % (rows / 16 + 1) * 16;
		uint32_t first = rnd() % n, count = 1 + rnd() % (n - first);
		struct mr_matrix from = random_matrix(MR_PACK_Q4_1X16, rows, cols);
		struct mr_matrix m = tiles_of(&from);
		float *x = random_floats((size_t)n * cols), *a = random_floats((size_t)n * stride);
		float *b = alloc((size_t)n * stride * sizeof(*b));
		struct mr_q8 q = input(p, x, n, cols), part = rows_of(&q, first, count);

		memcpy(b, a, (size_t)n * stride * sizeof(*b));
		p->matmul(&m, &q, a, stride, 0, rows, NULL);
		p->matmul(&m, &part, b + first * stride, stride, 0, cut, m.data);
		p->matmul(&m, &part, b + first * stride, stride, cut, rows, NULL);
		if (memcmp(a + first * stride, b + first * stride,
			   (size_t)count * stride * sizeof(*b)))
			fail_msg("%s: rows %u to %u of %u, %u outputs of %u", k->name, first,
				 first + count - 1, n, rows, cols);
		free((void *)from.data);
		free((void *)m.data);
		free(x);
		free(a);
		free(b);
		input_free(&q);
	}
}

static void company(void **state)
{
	each_unit(company_on);
}

/*
 * Against FP64 over the unrounded weights and activations: each is off by 2^-8 of itself at most, and sums
 * of K terms in FP32 by K * 2^-24.
 */
static void bounds_on(const struct mr_kernels *k)
{
	static const enum mr_packing packings[] = {MR_PACK_Q4_1X16, MR_PACK_Q8_0X16,
						   MR_PACK_BF16X16};
	const uint32_t n = 37, rows = 53, cols = 224;

	for (int p = 0; p < 3; p++) {
		struct mr_matrix from = random_matrix(packings[p], rows, cols);
		struct mr_matrix m = tiles_of(&from);
		float *x = random_floats((size_t)n * cols), *w = alloc(cols * sizeof(*w));
		float *y = alloc((size_t)n * rows * sizeof(*y)), exact[224];
		struct mr_q8 q = input(k->prompt, x, n, cols);

		k->prompt->matmul(&m, &q, y, rows, 0, rows, NULL);
		for (uint32_t r = 0; r < rows; r++) {
			mr_unpack_row(&from, r, w);
			for (uint32_t i = 0; i < n; i++) {
				double want = 0, size = 0, limit;

				for (uint32_t c = 0; c < cols; c++) {
					want += (double)x[i * cols + c] * w[c];
					size += fabs((double)x[i * cols + c] * w[c]);
				}
				limit = size * (2 * 0x1p-8 + 0x1p-16 + cols * 0x1p-24);
				if (fabs(y[i * rows + r] - want) > limit)
					fail_msg("%s: %g, want %g +- %g", k->name,
						 (double)y[i * rows + r], want, limit);
			}
			mr_unpack_row(&m, r, w);
			mr_unpack_row(&from, r, exact);
			for (uint32_t c = 0; c < cols; c++)
				assert_true(fabs((double)w[c] - exact[c]) <=
					    fabs((double)exact[c]) * 0x1p-8);
		}
		free((void *)from.data);
		free((void *)m.data);
		free(x);
		free(w);
		free(y);
		input_free(&q);
	}
}

static void bounds(void **state)
{
	each_unit(bounds_on);
}

/* Rounding to BF16: ties to even, infinities, NaN, subnormals; one value at a time and 16. */
static void rounding(void **state)
{
	static const struct {
		uint32_t from;
		uint16_t to;
	} cases[] = {
		{0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f818000, 0x3f82},
		{0x3f808001, 0x3f81}, {0x7f7fffff, 0x7f80}, {0x7f800000, 0x7f80},
		{0xff800000, 0xff80}, {0x7f800001, 0x7fc0}, {0xffffffff, 0xffff},
		{0x00000001, 0x0000}, {0x80018000, 0x8002}, {0x00008001, 0x0001},
	};
	float x[32] = {0};
	uint16_t y[32];
	struct mr_q8 q = {.rows = 1, .cols = 32, .bf16 = y};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		memcpy(&x[i], &cases[i].from, 4);
		assert_int_equal(mr_float_to_bf16(x[i]), cases[i].to);
	}
	if (!kernels_emulated_runnable())
		return;
	kernels_emulated.prompt->quantize(x, &q);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_int_equal(y[i], cases[i].to);
}

/* y of one output over @x (1, @cols), a multiple of 32, with weights @w. */
static float one_output(const struct mr_kernels *k, const float *x, const float *w, uint32_t cols)
{
	float *in = alloc(cols * sizeof(*in)), y[16];
	uint16_t *raw = alloc(2 * cols), *bf16 = alloc(2 * cols);
	uint8_t *data = alloc(mr_pack_bytes(MR_PACK_BF16X16, 1, cols));
	struct mr_matrix from = {data, 1, cols, MR_PACK_BF16X16}, m;
	struct mr_q8 q = {.rows = 1, .cols = cols, .bf16 = bf16};

	memcpy(in, x, cols * sizeof(*in));
	for (uint32_t c = 0; c < cols; c++)
		raw[c] = mr_float_to_bf16(w[c]);
	mr_pack(MR_PACK_BF16X16, raw, 1, cols, data);
	m = tiles_of(&from);
	k->prompt->quantize(in, &q);
	k->prompt->matmul(&m, &q, y, 16, 0, 1, NULL);
	free((void *)m.data);
	free(data);
	free(bf16);
	free(raw);
	free(in);
	return y[0];
}

/* The order of additions that the manual gives, on values where another order has another result. */
static void order_on(const struct mr_kernels *k)
{
	float ones[64];

	for (int i = 0; i < 64; i++)
		ones[i] = 1;
	/* Even columns: 2^24 + 1 + 1 stays 2^24 twice; odd ones: -2^24. Any pairwise sum would keep a 1. */
	assert_true(one_output(k, (float[32]){0x1p24f, -0x1p24f, 1, 0, 1}, ones, 32) == 0);
	/* The second tile's two sums are added to each other before they are to the first tile's 1. */
	assert_true(one_output(k, (float[64]){[0] = 1, [32] = 0x1p24f, [33] = -0x1p24f}, ones,
			       64) == 1);
	/* Denormals are zeros, going in and coming out. */
	assert_true(one_output(k, (float[32]){0x1p-130f, 0x1p-100f},
			       (float[32]){0x1p100f, 0x1p-30f}, 32) == 0);
}

static void order(void **state)
{
	each_unit(order_on);
}

/* What the instructions do is what the emulated unit does. */
static void silicon(void **state)
{
	const struct mr_kernels *real = mr_kernels_select("amx");

	if (!real) {
		print_message("skipped: this CPU has no AMX\n");
		skip();
	}
	for (int round = 0; round < ROUNDS; round++) {
		uint32_t n = 1 + rnd() % ROWS_MAX, rows = 1 + rnd() % 90,
			 cols = 32 * (1 + rnd() % 7);
		struct mr_matrix from = random_matrix(MR_PACK_Q8_0X16, rows, cols);
		struct mr_matrix m = tiles_of(&from);
		float *x = random_floats((size_t)n * cols), *a = alloc((size_t)n * rows * 4);
		float *b = alloc((size_t)n * rows * 4);
		struct mr_q8 q = input(real->prompt, x, n, cols);

		real->prompt->matmul(&m, &q, a, rows, 0, rows, NULL);
		kernels_emulated.prompt->matmul(&m, &q, b, rows, 0, rows, NULL);
		assert_memory_equal(a, b, (size_t)n * rows * 4);
		free((void *)from.data);
		free((void *)m.data);
		free(x);
		free(a);
		free(b);
		input_free(&q);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exact),    cmocka_unit_test(company), cmocka_unit_test(bounds),
		cmocka_unit_test(rounding), cmocka_unit_test(order),   cmocka_unit_test(silicon),
	};

	mr_numerics_enter();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
