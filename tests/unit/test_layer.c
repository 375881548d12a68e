// SPDX-License-Identifier: Apache-2.0
/*
 * A whole layer on tests/tiny.gguf's weights against one in FP64 that shares only the quantised
 * activations' idea with it: RMS norm, projections, RoPE on adjacent pairs, grouped attention, SwiGLU.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "driver/model/model.h"
#include "kernels/cpu/half.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/pack.h"

#define N 40 /* rows: positions 0 to 39 of one sequence */

static struct mr_model *model;
static const struct mr_kernels *kern;

static struct mr_matrix packed(const struct mr_tensor *t)
{
	enum mr_packing p = t->type == MR_TENSOR_Q4_1 ? MR_PACK_Q4_1X16 : MR_PACK_Q8_0X16;
	size_t bytes = (mr_pack_bytes(p, t->rows, t->cols) + 63) & ~(size_t)63;
	void *data = aligned_alloc(64, bytes);

	mr_pack(p, t->data, t->rows, t->cols, data);
	return (struct mr_matrix){data, t->rows, t->cols, p};
}

static double weight(const struct mr_tensor *t, uint32_t r, uint32_t c)
{
	size_t size = t->type == MR_TENSOR_Q4_1 ? 20 : 34;
	const uint8_t *b = (const uint8_t *)t->data + ((size_t)r * t->cols / 32 + c / 32) * size;
	uint16_t half[2];

	memcpy(half, b, 4);
	if (t->type == MR_TENSOR_Q8_0)
		return (double)mr_half_to_float(half[0]) * (int8_t)b[2 + c % 32];
	return (double)mr_half_to_float(half[0]) *
		       (c % 32 < 16 ? b[4 + c % 16] & 15 : b[4 + c % 16] >> 4) +
	       mr_half_to_float(half[1]);
}

/* y = W * (x rounded to 8 bits by blocks of 32) */
static void project(const struct mr_tensor *t, const double *x, double *y)
{
	double *q = calloc(t->cols, sizeof(*q));

	for (uint32_t b = 0; b < t->cols; b += 32) {
		double amax = 0;

		for (int i = 0; i < 32; i++)
			amax = fmax(amax, fabs(x[b + i]));
		for (int i = 0; i < 32 && amax > 0; i++)
			q[b + i] = rint(x[b + i] * 127 / amax) * amax / 127;
	}
	for (uint32_t r = 0; r < t->rows; r++) {
		y[r] = 0;
		for (uint32_t c = 0; c < t->cols; c++)
			y[r] += weight(t, r, c) * q[c];
	}
	free(q);
}

static void norm(const struct mr_tensor *t, const double *x, double eps, double *y)
{
	const float *w = t->data;
	double sum = 0;

	for (uint32_t i = 0; i < t->cols; i++)
		sum += x[i] * x[i];
	for (uint32_t i = 0; i < t->cols; i++)
		y[i] = x[i] / sqrt(sum / t->cols + eps) * w[i];
}

static void rotate(const struct mr_shape *s, uint32_t pos, double *x, uint32_t heads)
{
	for (uint32_t i = 0; i < heads * s->head_dim; i += 2) {
		double a = pos * pow(s->rope_base, -(double)(i % s->head_dim) / s->head_dim);
		double even = x[i], odd = x[i + 1];

		x[i] = even * cos(a) - odd * sin(a);
		x[i + 1] = even * sin(a) + odd * cos(a);
	}
}

/* One row in FP64; k and v: (N, kv_heads * head_dim) of the rows so far. */
static void reference_row(const struct mr_shape *s, const struct mr_model_layer *l, uint32_t pos,
			  double *x, double *k, double *v)
{
	uint32_t kv = s->kv_heads * s->head_dim, dim = s->head_dim;
	double *h = calloc(4 * (size_t)(s->width + s->ffn), sizeof(*h));
	double *q = h + s->width, *att = q + s->width, *out = att + s->width;
	double *up = out + s->width, *gate = up + s->ffn;

	norm(&l->attn_norm, x, s->rms_eps, h);
	project(&l->q, h, q);
	project(&l->k, h, k + pos * kv);
	project(&l->v, h, v + pos * kv);
	rotate(s, pos, q, s->heads);
	rotate(s, pos, k + pos * kv, s->kv_heads);
	for (uint32_t i = pos * kv; i < (pos + 1) * kv; i++) { /* as KV memory holds them */
		k[i] = mr_half_to_float(mr_float_to_half((float)k[i]));
		v[i] = mr_half_to_float(mr_float_to_half((float)v[i]));
	}
	for (uint32_t head = 0; head < s->heads; head++) {
		uint32_t from = head / (s->heads / s->kv_heads) * dim;
		double total = 0, w[N];

		for (uint32_t p = 0; p <= pos; p++) {
			double dot = 0;

			for (uint32_t d = 0; d < dim; d++)
				dot += q[head * dim + d] * k[p * kv + from + d];
			total += w[p] = exp(dot / sqrt(dim));
		}
		for (uint32_t d = 0; d < dim; d++) {
			att[head * dim + d] = 0;
			for (uint32_t p = 0; p <= pos; p++)
				att[head * dim + d] += w[p] / total * v[p * kv + from + d];
		}
	}
	project(&l->o, att, out);
	for (uint32_t i = 0; i < s->width; i++)
		x[i] += out[i];
	norm(&l->ffn_norm, x, s->rms_eps, h);
	project(&l->gate, h, gate);
	project(&l->up, h, up);
	for (uint32_t i = 0; i < s->ffn; i++)
		gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
	project(&l->down, gate, out);
	for (uint32_t i = 0; i < s->width; i++)
		x[i] += out[i];
	free(h);
}

static void against_reference(void **state)
{
	const struct mr_shape *s = &model->shape;
	const struct mr_model_layer *l = &model->layers[0];
	struct mr_layer layer = {
		l->attn_norm.data, packed(&l->q),  packed(&l->k),
		packed(&l->v),     packed(&l->o),  l->ffn_norm.data,
		packed(&l->gate),  packed(&l->up), packed(&l->down),
	};
	size_t kv_cols = s->kv_heads * s->head_dim, offset = 128;
	double *x = calloc((size_t)N * s->width, sizeof(*x)), *k = calloc(N * kv_cols, sizeof(*k));
	double *v = calloc(N * kv_cols, sizeof(*v));
	uint32_t close = 0;
	float *y = aligned_alloc(64, (size_t)N * s->width * sizeof(*y)), *y2;
	uint8_t *kv[3], *kv2[3];
	struct mr_row rows[N], rows2[N];
	struct mr_workspace *ws;

	srand(5);
	for (uint32_t i = 0; i < N * s->width; i++)
		x[i] = y[i] = (float)rand() / (float)RAND_MAX - 0.5f;
	y2 = aligned_alloc(64, (size_t)N * s->width * sizeof(*y));
	memcpy(y2, y, (size_t)N * s->width * sizeof(*y));
	for (int b = 0; b < 3; b++) {
		kv[b] = aligned_alloc(64, (offset + mr_kv_layer_bytes(s) + 63) & ~(size_t)63);
		kv2[b] = aligned_alloc(64, (offset + mr_kv_layer_bytes(s) + 63) & ~(size_t)63);
		memset(kv[b], 0xff, offset + mr_kv_layer_bytes(s)); /* NaN where nobody wrote */
		memset(kv2[b], 0xff, offset + mr_kv_layer_bytes(s));
	}
	for (uint32_t i = 0; i < N; i++) {
		rows[i] = (struct mr_row){kv, i};
		rows2[i] = (struct mr_row){kv2, i};
	}
	assert_int_equal(mr_workspace_create(s, N, N, &ws), 0);
	/* K and V alone are what the whole layer writes, and leave x as it was */
	mr_layer_kv_only(kern, s, &layer, rows2, N, offset, y2, ws);
	assert_memory_equal(y, y2, (size_t)N * s->width * sizeof(*y));
	mr_layer_forward(kern, s, &layer, rows, 7, offset, y, ws);
	mr_layer_forward(kern, s, &layer, rows + 7, N - 7, offset, y + 7 * s->width, ws);
	for (int b = 0; b < 3; b++)
		assert_memory_equal(kv[b], kv2[b], offset + mr_kv_layer_bytes(s));
	assert_int_equal(kv[0][offset - 1], 0xff);

	for (uint32_t i = 0; i < N; i++)
		reference_row(s, l, i, x + i * s->width, k, v);
	/*
	 * FP32 against FP64. Now and then a value lies so near the middle of two quantised ones that they
	 * round it apart (1/127 of its block's largest); hence tight for most rows, loose for all.
	 */
	for (uint32_t i = 0; i < N; i++) {
		double diff = 0, size = 0;

		for (uint32_t c = i * s->width; c < (i + 1) * s->width; c++) {
			diff += (y[c] - x[c]) * (y[c] - x[c]);
			size += x[c] * x[c];
		}
		assert_true(sqrt(diff / size) < 0.05);
		close += sqrt(diff / size) < 1e-5;
	}
	assert_true(close >= 3 * N / 4);
	mr_workspace_destroy(ws);
	for (int b = 0; b < 3; b++) {
		free(kv[b]);
		free(kv2[b]);
	}
	free((void *)layer.q.data), free((void *)layer.k.data), free((void *)layer.v.data);
	free((void *)layer.o.data), free((void *)layer.gate.data), free((void *)layer.up.data);
	free((void *)layer.down.data);
	free(x), free(k), free(v), free(y), free(y2);
}

static void head(void **state)
{
	const struct mr_shape *s = &model->shape;
	struct mr_matrix out = packed(&model->output);
	double *h = calloc(s->width, sizeof(*h)), *want = calloc(s->vocab, sizeof(*want));
	float *x = aligned_alloc(64, s->width * sizeof(*x)), *y = calloc(s->vocab, sizeof(*y));
	struct mr_workspace *ws;

	srand(6);
	for (uint32_t i = 0; i < s->width; i++)
		h[i] = x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
	assert_int_equal(mr_workspace_create(s, 1, 1, &ws), 0);
	mr_head_forward(kern, s, model->output_norm.data, &out, x, 1, y, ws);
	norm(&model->output_norm, h, s->rms_eps, h);
	project(&model->output, h, want);
	for (uint32_t i = 0; i < s->vocab; i++)
		assert_true(fabs(y[i] - want[i]) < 1e-2 * (1 + fabs(want[i])));
	mr_workspace_destroy(ws);
	free((void *)out.data), free(h), free(want), free(x), free(y);
}

static int setup(void **state)
{
	kern = mr_kernels_select(NULL);
	mr_numerics_enter();
	return mr_model_open("tests/tiny.gguf", &model, NULL, 0);
}

static int teardown(void **state)
{
	mr_model_close(model);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(against_reference),
		cmocka_unit_test(head),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
