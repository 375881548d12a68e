// SPDX-License-Identifier: Apache-2.0
/*
 * Weight types: each one's dequantisation bit for bit against PyPI's `gguf` (tests/fixtures/dequant.txt),
 * the products of those that have no file of their own against FP64 and, every path, bit for bit against
 * the scalar one. A path that this CPU lacks is skipped aloud.
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

#include "driver/model/gguf.h"
#include "driver/model/model.h"
#include "kernels/cpu/half.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/pack.h"

static uint64_t seed = 1;

static uint32_t rnd(void)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(seed >> 33);
}

static float rndf(void)
{
	return (float)rnd() / (float)(1u << 30) - 1;
}

static void *alloc(size_t bytes)
{
	void *p = aligned_alloc(64, (bytes + 63) & ~(size_t)63);

	assert_non_null(p);
	return p;
}

/* The next field of the line, which is hexadecimal, as bytes. */
static uint8_t *hex_field(char **rest, size_t *bytes)
{
	char *text = strtok_r(NULL, " \n", rest);
	uint8_t *out;

	assert_non_null(text);
	*bytes = strlen(text) / 2;
	out = malloc(*bytes);
	for (size_t i = 0; i < *bytes; i++)
		sscanf(text + 2 * i, "%2hhx", &out[i]);
	return out;
}

#define FIXTURE_COLS 256u
#define FIXTURE_ROWS 2u
#define ROWS         37u /* the fixture's two rows over and over: every lane, and a cut group */

static void check_type(char *line)
{
	char *rest, *name = strtok_r(line, " ", &rest);
	uint32_t type = (uint32_t)strtoul(strtok_r(NULL, " ", &rest), NULL, 10);
	size_t bytes, value_bytes, row;
	uint8_t *raw = hex_field(&rest, &bytes), *values = hex_field(&rest, &value_bytes), *rows;
	struct mr_matrix m = {.rows = ROWS, .cols = FIXTURE_COLS};
	float x[FIXTURE_COLS];
	void *data;

	assert_string_equal(mr_tensor_type_name(type), name);
	assert_int_equal(mr_model_packing(type, &m.packing), 0);
	assert_int_equal(value_bytes, 4 * FIXTURE_ROWS * FIXTURE_COLS);
	row = bytes / FIXTURE_ROWS;
	rows = malloc(ROWS * row);
	for (uint32_t r = 0; r < ROWS; r++)
		memcpy(rows + r * row, raw + r % FIXTURE_ROWS * row, row);
	data = alloc(mr_pack_bytes(m.packing, ROWS, FIXTURE_COLS));
	memset(data, 0xee, mr_pack_bytes(m.packing, ROWS, FIXTURE_COLS));
	mr_pack(m.packing, rows, ROWS, FIXTURE_COLS, data);
	m.data = data;
	for (uint32_t r = 0; r < ROWS; r++) {
		mr_unpack_row(&m, r, x);
		for (uint32_t c = 0; c < FIXTURE_COLS; c++) {
			const uint8_t *want = values + 4 * (r % FIXTURE_ROWS * FIXTURE_COLS + c);
			uint32_t bits = (uint32_t)want[0] << 24 | (uint32_t)want[1] << 16 |
					(uint32_t)want[2] << 8 | want[3];

			if (memcmp(&bits, &x[c], 4))
				fail_msg("%s, row %u, column %u: %a, want bits %08x", name, r, c,
					 (double)x[c], bits);
		}
	}
	free(raw);
	free(values);
	free(rows);
	free(data);
}

static void as_gguf_has_it(void **state)
{
	static char line[1 << 16];
	FILE *f = fopen("tests/fixtures/dequant.txt", "r");
	int types = 0;

	assert_non_null(f);
	for (; fgets(line, sizeof(line), f); types++)
		check_type(line);
	fclose(f);
	assert_int_equal(types, 9);
}

static const struct format {
	enum mr_packing packing;
	uint32_t cols, bytes; /* of a block in the file */
	int halves[2];        /* where its FP16 numbers are, -1 = nowhere */
} formats[] = {
	{MR_PACK_Q4_0X16, 32, 18, {0, -1}},  {MR_PACK_Q4_KX16, 256, 144, {0, 2}},
	{MR_PACK_Q5_KX16, 256, 176, {0, 2}}, {MR_PACK_Q6_KX16, 256, 210, {208, -1}},
	{MR_PACK_F32X16, 1, 4, {-1, -1}},    {MR_PACK_F16X16, 1, 2, {0, -1}},
	{MR_PACK_BF16X16, 1, 2, {-1, -1}},
};
#define FORMATS (sizeof(formats) / sizeof(formats[0]))

/* A packed matrix of random weights. */
static struct mr_matrix random_matrix(const struct format *f, uint32_t rows, uint32_t cols)
{
	size_t blocks = (size_t)rows * cols / f->cols;
	uint8_t *raw = malloc(blocks * f->bytes), *at = raw;
	void *data = alloc(mr_pack_bytes(f->packing, rows, cols));

	for (size_t i = 0; i < blocks * f->bytes; i++)
		raw[i] = rnd() % 8 ? (uint8_t)rnd() : 0xff; /* largest values often: 16-bit sums */
	for (size_t i = 0; i < blocks; i++, at += f->bytes) {
		float value = rndf();

		for (int k = 0; k < 2 && f->halves[k] >= 0; k++) {
			uint16_t half = mr_float_to_half(rndf() / 16);

			memcpy(at + f->halves[k], &half, 2);
		}
		if (f->packing == MR_PACK_F32X16)
			memcpy(at, &value, 4);
		else if (f->packing == MR_PACK_BF16X16)
			memcpy(at, (uint8_t *)&value + 2, 2);
	}
	mr_pack(f->packing, raw, rows, cols, data);
	free(raw);
	return (struct mr_matrix){data, rows, cols, f->packing};
}

static float *random_floats(size_t n)
{
	float *x = alloc(n * sizeof(*x));

	for (size_t i = 0; i < n; i++)
		x[i] = rnd() % 16 ? rndf() : rndf() * 100;
	return x;
}

static struct mr_q8 quantized(float *x, uint32_t rows, uint32_t cols)
{
	size_t n = (size_t)rows * cols;
	struct mr_q8 q = {alloc(n), alloc(n / 8), alloc(n / 8), rows, cols, alloc(4 * n)};

	mr_kernels_select("scalar")->quantize(x, &q);
	return q;
}

static void q8_free(struct mr_q8 *q)
{
	free(q->q);
	free(q->scale);
	free(q->sum);
	free(q->x);
}

static void multiply(const char *path, const struct mr_matrix *m, const struct mr_q8 *x, float *y,
		     size_t stride, uint32_t row0, uint32_t row1)
{
	mr_kernels_select(path)->matmul(m, x, y, stride, row0, row1, NULL);
}

/* The scalar product against FP64 over the dequantised rows. */
static void against_fp64(void **state)
{
	const uint32_t n = 3, rows = 37, cols = 512;
	float *in = random_floats((size_t)n * cols), *w = alloc(cols * sizeof(*w));
	float *y = alloc((size_t)n * rows * sizeof(*y));
	struct mr_q8 x = quantized(in, n, cols);

	for (size_t f = 0; f < FORMATS; f++) {
		struct mr_matrix m = random_matrix(&formats[f], rows, cols);
		int floats = m.packing >= MR_PACK_F32X16;

		multiply("scalar", &m, &x, y, rows, 0, rows);
		for (uint32_t r = 0; r < rows; r++) {
			mr_unpack_row(&m, r, w);
			for (uint32_t i = 0; i < n; i++) {
				double want = 0, size = 0;

				for (uint32_t c = 0; c < cols; c++) {
					size_t at = (size_t)i * cols + c;
					double a = floats ? (double)in[at]
							  : (double)x.q[at] * x.scale[at / 32];

					want += a * w[c];
					size += fabs(a * w[c]);
				}
				if (fabs(y[i * rows + r] - want) > 4e-6 * size)
					fail_msg("format %d: %g, want %g", (int)m.packing,
						 (double)y[i * rows + r], want);
			}
		}
		free((void *)m.data);
	}
	free(in);
	free(w);
	free(y);
	q8_free(&x);
}

static void compare_paths(const char *path, const struct format *f)
{
	uint32_t n = 1 + rnd() % 19, rows = 1 + rnd() % 150, cols = 256 * (1 + rnd() % 3);
	uint32_t stride = rows + rnd() % 5, cut = rnd() % (rows / 16 + 1) * 16;
	struct mr_matrix m = random_matrix(f, rows, cols);
	float *in = random_floats((size_t)n * cols), *a, *b;
	struct mr_q8 x = quantized(in, n, cols), one = x;

	a = random_floats((size_t)n * stride);
	b = alloc((size_t)n * stride * sizeof(*b));
	memcpy(b, a, (size_t)n * stride * sizeof(*b));
	multiply("scalar", &m, &x, a, stride, 0, rows);
	/* in two ranges of rows, which must not touch what lies between rows and stride */
	multiply(path, &m, &x, b, stride, 0, cut);
	multiply(path, &m, &x, b, stride, cut, rows);
	if (memcmp(a, b, (size_t)n * stride * sizeof(*b)))
		fail_msg("%s, format %d: %u rows of %u, %u activations", path, (int)f->packing,
			 rows, cols, n);
	/* a row alone has the same bits as in company */
	one.rows = 1;
	one.q += (size_t)(n - 1) * cols;
	one.x += (size_t)(n - 1) * cols;
	one.scale += (size_t)(n - 1) * cols / 32;
	one.sum += (size_t)(n - 1) * cols / 32;
	multiply(path, &m, &one, b, stride, 0, rows);
	assert_memory_equal(a + (size_t)(n - 1) * stride, b, rows * sizeof(*b));
	free((void *)m.data);
	free(in);
	free(a);
	free(b);
	q8_free(&x);
}

static void paths(void **state)
{
	for (int k = 0; mr_kernels_all[k]; k++) {
		const char *path = mr_kernels_all[k]->name;

		if (!mr_kernels_runnable(mr_kernels_all[k])) {
			printf("skipped: this CPU cannot run %s\n", path);
			continue;
		}
		for (size_t f = 0; f < FORMATS; f++)
			for (int i = 0; i < 25; i++)
				compare_paths(path, &formats[f]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(as_gguf_has_it),
		cmocka_unit_test(against_fp64),
		cmocka_unit_test(paths),
	};

	mr_numerics_enter();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
