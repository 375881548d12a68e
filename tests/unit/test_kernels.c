// SPDX-License-Identifier: Apache-2.0
/*
 * The kernels: every path bit for bit against the scalar one over random shapes, and the scalar one
 * against a reference in FP64. A path that this CPU lacks is skipped aloud.
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
#include <immintrin.h>

#include "kernels/cpu/half.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/pack.h"

static uint64_t seed = 1;

static uint32_t rnd(void)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(seed >> 33);
}

/* -1 to 1, now and then much larger or exactly 0 */
static float rndf(void)
{
	float x = (float)rnd() / (float)(1u << 30) - 1;
	uint32_t kind = rnd() % 32;

	return kind == 0 ? 0 : kind == 1 ? x * 300 : x;
}

static void *alloc(size_t bytes)
{
	void *p = aligned_alloc(64, (bytes + 63) & ~(size_t)63);

	assert_non_null(p);
	return p;
}

static float *floats(size_t n)
{
	float *p = alloc(n * 4);

	for (size_t i = 0; i < n; i++)
		p[i] = rndf();
	return p;
}

static const struct mr_kernels *scalar;

/* Calls @check with every other path that runs here. */
static void each_path(void (*check)(const struct mr_kernels *))
{
	for (int i = 0; mr_kernels_all[i]; i++) {
		if (!mr_kernels_runnable(mr_kernels_all[i]))
			print_message("SKIPPED: this CPU cannot run %s\n", mr_kernels_all[i]->name);
		else if (mr_kernels_all[i] != scalar)
			check(mr_kernels_all[i]);
	}
}

static struct mr_q8 q8_new(uint32_t rows, uint32_t cols)
{
	size_t n = (size_t)rows * cols;
	struct mr_q8 q = {alloc(n), alloc(n / 8), alloc(n / 8), rows, cols};

	return q;
}

static void q8_free(struct mr_q8 *q)
{
	free(q->q);
	free(q->scale);
	free(q->sum);
}

/* GGUF blocks with any bytes but sane scales. */
static uint8_t *blocks_new(enum mr_packing packing, uint32_t rows, uint32_t cols)
{
	size_t block = packing == MR_PACK_Q4_1X16 ? 20 : 34, n = (size_t)rows * cols / 32;
	uint8_t *b = alloc(n * block);

	for (size_t i = 0; i < n * block; i++)
		b[i] = rnd() % 8 ? (uint8_t)rnd() : 0x80; /* -128 often: the sign trick's edge */
	for (size_t i = 0; i < n; i++) {
		uint16_t d = mr_float_to_half(rndf() / 64), m = mr_float_to_half(rndf() / 8);

		memcpy(b + i * block, &d, 2);
		if (packing == MR_PACK_Q4_1X16)
			memcpy(b + i * block + 2, &m, 2);
	}
	return b;
}

static double weight_of(enum mr_packing packing, const uint8_t *b, uint32_t cols, uint32_t r,
			uint32_t c)
{
	size_t size = packing == MR_PACK_Q4_1X16 ? 20 : 34;
	const uint8_t *at = b + ((size_t)r * cols / 32 + c / 32) * size;
	uint16_t d, m;

	memcpy(&d, at, 2);
	memcpy(&m, at + 2, 2);
	if (packing == MR_PACK_Q8_0X16)
		return (double)mr_half_to_float(d) * (int8_t)at[2 + c % 32];
	return (double)mr_half_to_float(d) *
		       (c % 32 < 16 ? at[4 + c % 16] & 15 : at[4 + c % 16] >> 4) +
	       mr_half_to_float(m);
}

static void quantize_reference(void **state)
{
	struct mr_q8 q = q8_new(3, 320);
	float *x = floats(960);

	for (int i = 64; i < 96; i++)
		x[i] = 0;
	scalar->quantize(x, &q);
	for (uint32_t b = 0; b < 30; b++) {
		double amax = 0;
		int32_t sum = 0;

		for (int i = 0; i < 32; i++) {
			amax = fmax(amax, fabs((double)x[32 * b + i]));
			sum += q.q[32 * b + i];
		}
		assert_true(q.scale[b] == (float)amax / 127.0f);
		assert_int_equal(q.sum[b], sum);
		for (int i = 0; i < 32; i++)
			assert_true(fabs((double)q.q[32 * b + i] * q.scale[b] - x[32 * b + i]) <=
				    0.5001 * q.scale[b]);
	}
	free(x);
	q8_free(&q);
}

/* Halves go to the even neighbour: 127 sets the scale to 1. */
static void quantize_ties(void **state)
{
	static const float in[] = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, -127};
	static const int8_t want[] = {127, 0, 2, 2, 0, -2, -2, -127};
	float x[32] = {0};
	struct mr_q8 q = q8_new(1, 32);

	memcpy(x, in, sizeof(in));
	for (int i = 0; mr_kernels_all[i]; i++) {
		if (!mr_kernels_runnable(mr_kernels_all[i]))
			continue;
		mr_kernels_all[i]->quantize(x, &q);
		assert_memory_equal(q.q, want, sizeof(want));
		assert_int_equal(q.sum[0], 0);
	}
	q8_free(&q);
}

/* NaN and infinity stay visible in the scale; what is too small to scale is zero. */
static void quantize_edges(void **state)
{
	float x[32] = {1};
	struct mr_q8 q = q8_new(1, 32);

	for (int i = 0; mr_kernels_all[i]; i++) {
		const struct mr_kernels *k = mr_kernels_all[i];

		if (!mr_kernels_runnable(k))
			continue;
		x[7] = NAN;
		k->quantize(x, &q);
		assert_true(isnan(q.scale[0]));
		x[7] = INFINITY;
		k->quantize(x, &q);
		assert_true(isinf(q.scale[0]));
		x[0] = 0;
		x[7] = 0x1p-101f;
		k->quantize(x, &q);
		assert_true(q.scale[0] == 0 && q.q[7] == 0 && q.sum[0] == 0);
		x[0] = 1;
	}
	q8_free(&q);
}

static void matmul_case(enum mr_packing packing, uint32_t n, uint32_t rows, uint32_t cols)
{
	uint8_t *raw = blocks_new(packing, rows, cols);
	struct mr_matrix m = {alloc(mr_pack_bytes(packing, rows, cols)), rows, cols, packing};
	struct mr_q8 x = q8_new(n, cols);
	float *in = floats((size_t)n * cols), *y = floats((size_t)n * rows);

	mr_pack(packing, raw, rows, cols, (void *)m.data);
	scalar->quantize(in, &x);
	scalar->matmul(&m, &x, y, rows, 0, rows, NULL);
	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t r = 0; r < rows; r++) {
			double want = 0, size = 0;

			for (uint32_t c = 0; c < cols; c++) {
				size_t b = ((size_t)i * cols + c) / 32;
				double p = weight_of(packing, raw, cols, r, c) * x.scale[b] *
					   x.q[(size_t)i * cols + c];

				want += p;
				size += fabs(p);
			}
			assert_true(fabs(y[(size_t)i * rows + r] - want) <= 1e-5 * size + 1e-7);
		}
	}
	free(raw);
	free((void *)m.data);
	free(in);
	free(y);
	q8_free(&x);
}

static void matmul_reference(void **state)
{
	matmul_case(MR_PACK_Q4_1X16, 3, 48, 96);
	matmul_case(MR_PACK_Q8_0X16, 3, 48, 96);
	matmul_case(MR_PACK_Q4_1X16, 1, 37, 160); /* rows that are no multiple of 16 */
	matmul_case(MR_PACK_Q8_0X16, 2, 5, 32);
}

static void matmul_paths_case(const struct mr_kernels *k)
{
	enum mr_packing packing = rnd() % 2 ? MR_PACK_Q4_1X16 : MR_PACK_Q8_0X16;
	uint32_t n = 1 + rnd() % 19, rows = 1 + rnd() % 80, cols = 32 * (1 + rnd() % 12);
	uint32_t stride = rows + rnd() % 5, cut = rnd() % (rows / 16 + 1) * 16;
	uint8_t *raw = blocks_new(packing, rows, cols);
	struct mr_matrix m = {alloc(mr_pack_bytes(packing, rows, cols)), rows, cols, packing};
	struct mr_q8 x = q8_new(n, cols), x2 = q8_new(n, cols), one = x;
	float *in = floats((size_t)n * cols), *a = floats((size_t)n * stride);
	float *b = alloc((size_t)n * stride * 4);

	memcpy(b, a, (size_t)n * stride * 4);
	mr_pack(packing, raw, rows, cols, (void *)m.data);
	scalar->quantize(in, &x);
	k->quantize(in, &x2);
	assert_memory_equal(x.q, x2.q, (size_t)n * cols);
	assert_memory_equal(x.scale, x2.scale, (size_t)n * cols / 8);
	assert_memory_equal(x.sum, x2.sum, (size_t)n * cols / 8);
	scalar->matmul(&m, &x, a, stride, 0, rows, NULL);
	/* in two ranges of rows, which must not touch what lies between rows and stride */
	k->matmul(&m, &x, b, stride, 0, cut, NULL);
	k->matmul(&m, &x, b, stride, cut, rows, NULL);
	assert_memory_equal(a, b, (size_t)n * stride * 4);
	/* a row alone has the same bits as in company */
	one.rows = 1;
	one.q += (size_t)(n - 1) * cols;
	one.scale += (size_t)(n - 1) * cols / 32;
	one.sum += (size_t)(n - 1) * cols / 32;
	memset(b, 0, (size_t)stride * 4);
	k->matmul(&m, &one, b, stride, 0, rows, NULL);
	assert_memory_equal(a + (size_t)(n - 1) * stride, b, rows * 4);
	/* and so has a row whose columns come in two parts, the second going on with the chain */
	uint32_t part = rnd() % (cols / 32) * 32, q4 = packing == MR_PACK_Q4_1X16;
	struct mr_matrix rest = m;
	memset(b, 0, (size_t)stride * 4);
	one.cols = part;
	k->matmul(&m, &one, b, stride, 0, rows, NULL);
	one.q += part;
	one.scale += part / 32;
	one.sum += part / 32;
	one.cols = cols - part;
	one.chain = 1;
	rest.data = (const char *)m.data + part / 32 * (q4 ? MR_Q4_1X16_BYTES : MR_Q8_0X16_BYTES);
	k->matmul(&rest, &one, b, stride, 0, rows, NULL);
	assert_memory_equal(a + (size_t)(n - 1) * stride, b, rows * 4);
	free(raw);
	free((void *)m.data);
	free(in);
	free(a);
	free(b);
	q8_free(&x);
	q8_free(&x2);
}

static void matmul_on(const struct mr_kernels *k)
{
	for (int i = 0; i < 200; i++)
		matmul_paths_case(k);
}

static void matmul_paths(void **state)
{
	each_path(matmul_on);
}

static void vector_on(const struct mr_kernels *k)
{
	for (int t = 0; t < 100; t++) {
		uint32_t n = 16 * (1 + rnd() % 40);
		float *x = floats(n), *w = floats(n), *a = alloc(n * 4), *b = alloc(n * 4);

		scalar->rmsnorm(x, w, n, 1e-5f, a);
		k->rmsnorm(x, w, n, 1e-5f, b);
		assert_memory_equal(a, b, n * 4);
		scalar->swiglu(x, w, n, a);
		k->swiglu(x, w, n, b);
		assert_memory_equal(a, b, n * 4);
		memcpy(a, x, n * 4);
		memcpy(b, x, n * 4);
		scalar->add(a, w, n);
		k->add(b, w, n);
		assert_memory_equal(a, b, n * 4);
		scalar->rope(a, n / 16, 16, w);
		k->rope(b, n / 16, 16, w);
		assert_memory_equal(a, b, n * 4);
		memset(a, 0, n * 4);
		memset(b, 0, n * 4);
		scalar->to_half(x, n, (uint16_t *)a);
		k->to_half(x, n, (uint16_t *)b);
		assert_memory_equal(a, b, n * 4);
		free(x);
		free(w);
		free(a);
		free(b);
	}
}

static void vector_paths(void **state)
{
	each_path(vector_on);
}

static void vector_reference(void **state)
{
	uint32_t n = 576;
	float *x = floats(n), *w = floats(n), *y = floats(n), cs[16];
	double sum = 0, scale;

	for (uint32_t i = 0; i < n; i++)
		sum += (double)x[i] * x[i];
	scale = 1 / sqrt(sum / n + 1e-5);
	scalar->rmsnorm(x, w, n, 1e-5f, y);
	for (uint32_t i = 0; i < n; i++)
		assert_true(fabs(y[i] - x[i] * scale * w[i]) <= 1e-6 * fabs((double)y[i]) + 1e-12);
	scalar->swiglu(x, w, n, y);
	for (uint32_t i = 0; i < n; i++) {
		double want = x[i] / (1 + exp(-(double)x[i])) * w[i];

		/* e^87 is where exp stops growing: below that only smallness is promised */
		assert_true(fabs(y[i] - want) <= 1e-6 * fabs(want) + 1e-30);
	}
	for (int i = 0; i < 16; i += 2) {
		cs[i] = cosf((float)i);
		cs[i + 1] = sinf((float)i);
	}
	memcpy(y, x, 64);
	scalar->rope(y, 1, 16, cs);
	for (int i = 0; i < 16; i += 2) {
		assert_true(fabs(y[i] - ((double)x[i] * cs[i] - (double)x[i + 1] * cs[i + 1])) <=
			    1e-6 * (fabsf(x[i]) + fabsf(x[i + 1])));
		assert_true(
			fabs(y[i + 1] - ((double)x[i + 1] * cs[i] + (double)x[i] * cs[i + 1])) <=
			1e-6 * (fabsf(x[i]) + fabsf(x[i + 1])));
	}
	free(x);
	free(w);
	free(y);
}

/* The widest path is the default, a name gives that path, and an unknown one nothing. */
static void selection(void **state)
{
	assert_ptr_equal(mr_kernels_select("scalar"), scalar);
	assert_null(mr_kernels_select("sse9"));
	setenv("MR_CPU", "scalar", 1);
	assert_ptr_equal(mr_kernels_select(NULL), scalar);
	setenv("MR_CPU", "none", 1);
	assert_null(mr_kernels_select(NULL));
	unsetenv("MR_CPU");
	assert_non_null(mr_kernels_select(NULL));
}

static void mxcsr(void **state)
{
	_mm_setcsr(0x9fc0); /* flush to zero, subnormals are zeros */
	mr_numerics_enter();
	assert_int_equal(_mm_getcsr(), 0x1f80);
}

static void functions(void **state)
{
	double worst = 0;
	float last = 0;

	for (float x = -87; x < 88; x += 0.000913f) {
		double want = exp((double)x), got = mr_exp(x);

		worst = fmax(worst, fabs(got - want) / want);
		assert_true(got >= last);
		last = (float)got;
	}
	assert_true(worst < 1.2e-7);
	assert_true(mr_exp(0) == 1 && mr_exp(-87.5f) == 0 && mr_exp(1000) == mr_exp(88));
	assert_true(mr_exp(-INFINITY) == 0);
	for (double a = 0; a < 8192; a += 0.7919) {
		double s, c;

		mr_sincos(a, &s, &c);
		assert_true(fabs(s - sin(a)) < 1e-12 && fabs(c - cos(a)) < 1e-12);
	}
	for (double x = 1e-30; x < 1e30; x *= 1.0173)
		assert_true(fabs(mr_log(x) - log(x)) <= 1e-15 * fmax(1, fabs(log(x))));
	for (double x = -50; x < 50; x += 0.0173)
		assert_true(fabs(mr_exp_double(x) / exp(x) - 1) < 1e-14);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(functions),        cmocka_unit_test(quantize_reference),
		cmocka_unit_test(quantize_ties),    cmocka_unit_test(quantize_edges),
		cmocka_unit_test(matmul_reference), cmocka_unit_test(matmul_paths),
		cmocka_unit_test(vector_reference), cmocka_unit_test(vector_paths),
		cmocka_unit_test(selection),        cmocka_unit_test(mxcsr),
	};

	scalar = mr_kernels_select("scalar");
	mr_numerics_enter();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
