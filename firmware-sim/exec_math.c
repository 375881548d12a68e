// SPDX-License-Identifier: Apache-2.0
/* MXM and VXM: what computes. Every operation is class D's, by the kernels that all devices share. */
#include <string.h>

#include <immintrin.h>

#include <millrace/status.h>

#include "firmware-sim/exec_parts.h"
#include "kernels/cpu/pack.h"

static const char not_there[] = "the rows are not there in this cycle";

/* ---- MXM ---- */

static uint32_t group_bytes(uint32_t type)
{
	return type == MR_T_Q4_1X16 ? MR_Q4_1X16_BYTES : MR_Q8_0X16_BYTES;
}

static int load_weights(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end)
{
	struct matrix_unit *u = &e->unit[i->chip];
	uint32_t type = mr_isa_type(i);
	uint64_t bytes = exec_ceil(i->rows, 16) * (i->cols / 32) * group_bytes(type);

	u->weights = (struct mr_matrix){
		.data = exec_sram(e, i),
		.rows = i->rows,
		/* of the whole rows that the tile is a part of: only their length counts */
		.cols = i->stride / group_bytes(type) * 32,
		.packing = type == MR_T_Q4_1X16 ? MR_PACK_Q4_1X16 : MR_PACK_Q8_0X16,
	};
	u->outputs = i->rows;
	u->inputs = i->cols;
	u->ready = start + exec_ceil(bytes, e->timing.install_cycle_bytes);
	*end = u->ready;
	return 0;
}

/* Blocks of 40 bytes to the kernels' three arrays. */
static void lay_out(const struct burst *b, uint32_t rows, uint32_t cols, struct mr_q8 *q)
{
	uint32_t blocks = cols / 32;

	q->rows = rows;
	q->cols = cols;
	for (uint32_t r = 0; r < rows; r++) {
		const uint8_t *from = b->data + r * b->stride;

		for (uint32_t k = 0; k < blocks; k++, from += MR_Q8_BYTES) {
			size_t at = (size_t)r * blocks + k;

			memcpy(q->q + 32 * at, from, 32);
			memcpy(&q->scale[at], from + 32, 4);
			memcpy(&q->sum[at], from + 36, 4);
		}
	}
}

static int multiply(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end)
{
	struct matrix_unit *u = &e->unit[i->chip];
	const struct burst *b = exec_take(e, i, 0, start);
	const struct mr_isa *next = i;
	uint32_t rows = exec_rows(e, i);
	float *to = u->sums;

	if (!b || b->rows != rows || b->interval != i->interval)
		return mr_exec_violation(e, i, start, not_there);
	if (start < u->ready || !u->weights.data)
		return mr_exec_violation(e, i, start, "the weights are not installed yet");
	/* What LOADW installs next is fetched into the host's caches meanwhile. */
	while (next > e->p.inst && next->op != MR_I_LOADW)
		next--;
	next = &e->p.inst[e->after[next - e->p.inst]];
	lay_out(b, rows, u->inputs < b->cols ? u->inputs : b->cols, &u->q8);
	u->q8.chain = i->op == MR_I_ACC;
	*end = start + (uint64_t)rows * i->interval;
	if (i->dst != MR_ISA_NONE) {
		struct burst *out = exec_put(e, i, start + e->timing.plane_latency, rows,
					     i->interval, MR_T_F32, i->stride);
		float *y = (float *)out->buffer;

		*end += e->timing.plane_latency;
		if (i->op == MR_I_MUL)
			to = y;
		e->kernels->matmul(&u->weights, &u->q8, to, i->stride, 0, i->stride,
				   exec_sram(e, next));
		if (to != y)
			memcpy(y, to, (size_t)rows * i->stride * sizeof(float));
	} else {
		e->kernels->matmul(&u->weights, &u->q8, to, i->stride, 0, i->stride,
				   exec_sram(e, next));
	}
	return 0;
}

static int kv_product(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end)
{
	struct matrix_unit *u = &e->unit[i->chip];
	const struct burst *x = exec_take(e, i, 0, start);
	int dots = i->op == MR_I_DOTS;
	uint32_t rows = i->stride, blocks = exec_rows(e, i);
	uint64_t step_in = exec_ceil(dots ? i->cols : MR_ISA_TILE, e->timing.vector_lanes);
	uint64_t step_out = exec_ceil(dots ? MR_ISA_TILE : i->cols, e->timing.vector_lanes);
	const struct burst *kv = exec_take(e, i, 1, start + rows * step_in);
	uint64_t out_at =
		start + rows * step_in + (uint64_t)blocks * i->interval + e->timing.plane_latency;
	uint32_t wide = dots ? i->cols : MR_ISA_TILE;

	if (!x || !kv || x->rows != rows || x->interval != step_in || kv->rows != blocks ||
	    kv->interval != i->interval)
		return mr_exec_violation(e, i, start, not_there);
	for (uint32_t r = 0; r < rows; r++)
		memcpy(u->rows + r * wide, x->data + r * x->stride,
		       4ull * (dots ? i->cols : x->valid));
	uint32_t groups = kv->groups, share = rows / groups;
	size_t group = (size_t)MR_ISA_BLOCK * i->cols * 2;
	struct burst *out = exec_put(e, i, out_at, rows, (uint32_t)step_out, MR_T_F32,
				     dots ? MR_ISA_TILE : i->cols);
	float *y = (float *)out->buffer;

	for (uint32_t g = 0; g < groups; g++) {
		const float *in = u->rows + (size_t)g * share * wide;
		size_t at = kv->offset + g * group;

		if (dots)
			e->kernels->half_dots(kv->block, at, blocks, in, share, i->cols,
					      mr_isa_float(i->address),
					      y + (size_t)g * share * MR_ISA_TILE);
		else
			e->kernels->half_sums(kv->block, at, kv->valid, in, share, i->cols,
					      y + (size_t)g * share * i->cols);
	}
	if (dots)
		out->valid = kv->valid;
	*end = out_at + rows * step_out;
	return 0;
}

int mr_exec_mxm(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end)
{
	switch (i->op) {
	case MR_I_LOADW:
		return load_weights(e, i, start, end);
	case MR_I_MUL:
	case MR_I_ACC:
		return multiply(e, i, start, end);
	default:
		return kv_product(e, i, start, end);
	}
}

/* ---- VXM ---- */

/* A source's row and how it goes on: step 1 = element by element, 0 = one for all. */
struct operand {
	const uint8_t *data;
	size_t stride;
	uint32_t rows, cols;
	float immediate;
};

static int operand_of(struct exec *e, const struct mr_isa *i, int k, uint64_t start,
		      struct operand *o, uint32_t *valid)
{
	if (i->src[k] >= MR_ISA_IMM1) {
		if (i->src[k] == MR_ISA_NONE)
			return 0;
		o->immediate = mr_isa_float(i->src[k] == MR_ISA_IMM0 ? i->address : i->stride);
		o->data = (const uint8_t *)&o->immediate;
		o->rows = o->cols = 1;
		o->stride = 0;
		return 0;
	}
	const struct burst *b = exec_take(e, i, k, start);

	if (!b || b->interval != i->interval)
		return mr_exec_violation(e, i, start, not_there);
	*o = (struct operand){b->data, b->stride, b->rows, b->cols == 1 ? 1 : b->valid, 0};
	if (b->cols == i->cols && b->valid < *valid)
		*valid = b->valid;
	return 0;
}

#define EACH(x_index, y_index, expression)                  \
	for (uint32_t j = 0; j < n; j++) {                  \
		const float a = x[x_index], b = y[y_index]; \
		to[j] = (expression);                       \
	}
#define EACH_FORM(expression)                  \
	do {                                   \
		if (xs && ys)                  \
			EACH(j, j, expression) \
		else if (xs)                   \
			EACH(j, 0, expression) \
		else if (ys)                   \
			EACH(0, j, expression) \
		else                           \
			EACH(0, 0, expression) \
	} while (0)

/* @n elements of an operation with two sources whose elements go on by xs and ys, 0 or 1. */
static void two(uint8_t op, const float *x, uint32_t xs, const float *y, uint32_t ys, uint32_t n,
		float *to)
{
	switch (op) {
	case MR_I_ADD:
		EACH_FORM(a + b);
		break;
	case MR_I_SUB:
		EACH_FORM(a - b);
		break;
	case MR_I_VMUL:
		EACH_FORM(a * b);
		break;
	case MR_I_DIV:
		EACH_FORM(a / b);
		break;
	default: /* MAX */
		EACH_FORM(a > b ? a : b);
	}
}

static void fma_row(const float *x, uint32_t xs, const float *y, uint32_t ys, const float *z,
		    uint32_t zs, uint32_t n, float *to)
{
	for (uint32_t j = 0; j < n; j++)
		to[j] = __builtin_fmaf(x[j * xs], y[j * ys], z[j * zs]);
}

static const float *row_of(const struct operand *o, uint32_t r)
{
	return (const float *)(o->data + (o->rows == 1 ? 0 : r % o->rows) * o->stride);
}

/* A source that repeats within the row is taken a period at a time. */
static uint32_t period(const struct operand *o, uint32_t n, uint32_t so_far)
{
	return o->data && o->cols > 1 && o->cols < n && o->cols < so_far ? o->cols : so_far;
}

static const float *part_of(const struct operand *o, uint32_t r, uint32_t col)
{
	return row_of(o, r) + (o->cols > 1 ? col % o->cols : 0);
}

static void elements(struct exec *e, const struct mr_isa *i, const struct operand o[3], uint32_t r,
		     uint32_t n, float *to)
{
	uint32_t piece = period(&o[2], n, period(&o[1], n, period(&o[0], n, n)));
	uint32_t s[3] = {o[0].cols > 1, o[1].cols > 1, o[2].cols > 1};

	for (uint32_t at = 0; at < n; at += piece) {
		const float *a = part_of(&o[0], r, at);
		const float *b = o[1].data ? part_of(&o[1], r, at) : NULL;
		const float *c = o[2].data ? part_of(&o[2], r, at) : NULL;
		uint32_t m = n - at < piece ? n - at : piece;

		switch (i->op) {
		case MR_I_MUL3:
			two(MR_I_VMUL, a, s[0], b, s[1], m, to + at);
			two(MR_I_VMUL, to + at, 1, c, s[2], m, to + at);
			break;
		case MR_I_FMA:
			fma_row(a, s[0], b, s[1], c, s[2], m, to + at);
			break;
		case MR_I_EXP:
			if (!s[1] && s[0]) {
				e->kernels->exps(a, b[0], m, to + at);
				break;
			}
			two(MR_I_SUB, a, s[0], b, s[1], m, to + at);
			e->kernels->exps(to + at, 0, m, to + at);
			break;
		case MR_I_CMUL:
			memmove(to + at, a, m * sizeof(*to));
			e->kernels->rope(to + at, 1, m, b);
			break;
		default:
			two(i->op, a, s[0], b, s[1], m, to + at);
		}
	}
}

static float inverse_root(float x)
{
	return 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x)));
}

static void quantize_row(struct exec *e, const float *x, uint32_t cols, uint8_t *to)
{
	float scale[4];
	int32_t sum[4];
	int8_t bytes[4 * 32];

	for (uint32_t at = 0; at < cols; at += 128) {
		uint32_t n = cols - at < 128 ? cols - at : 128;
		struct mr_q8 some = {bytes, scale, sum, 1, n};

		e->kernels->quantize(x + at, &some);
		for (uint32_t k = 0; k < n / 32; k++, to += MR_Q8_BYTES) {
			memcpy(to, bytes + 32 * k, 32);
			memcpy(to + 32, &scale[k], 4);
			memcpy(to + 36, &sum[k], 4);
		}
	}
}

int mr_exec_vxm(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end)
{
	struct operand o[3] = {{0}, {0}, {0}};
	uint32_t valid = i->cols, rows = exec_rows(e, i);
	int reduces = i->op == MR_I_SUM || i->op == MR_I_SUMSQ || i->op == MR_I_RMAX;
	uint32_t type = i->op == MR_I_CVT ? MR_T_F16 : i->op == MR_I_QUANT32 ? MR_T_Q8 : MR_T_F32;

	for (int k = 0; k < 3; k++) {
		int status = operand_of(e, i, k, start, &o[k], &valid);

		if (status)
			return status;
	}
	struct burst *out = exec_put(e, i, start + e->timing.vector_latency, rows, i->interval,
				     type, reduces ? 1 : i->cols);

	out->valid = reduces ? 1 : valid;
	*end = start + e->timing.vector_latency + (uint64_t)rows * i->interval;
	for (uint32_t r = 0; r < rows; r++) {
		float *to = (float *)(out->buffer + r * out->stride);
		const float *x = o[0].data ? row_of(&o[0], r) : NULL;

		switch (i->op) {
		case MR_I_FILL:
			for (uint32_t j = 0; j < valid; j++)
				to[j] = mr_isa_float(i->address);
			break;
		case MR_I_SUM:
			*to = e->kernels->row_sum(x, valid);
			break;
		case MR_I_SUMSQ:
			*to = e->kernels->row_squares(x, valid);
			break;
		case MR_I_RMAX:
			*to = e->kernels->row_max(x, valid);
			break;
		case MR_I_RSQRT:
			for (uint32_t j = 0; j < valid; j++)
				to[j] = inverse_root(x[j] / mr_isa_float(i->address) +
						     mr_isa_float(i->stride));
			break;
		case MR_I_CVT:
			e->kernels->to_half(x, valid, (uint16_t *)to);
			break;
		case MR_I_QUANT32:
			quantize_row(e, x, valid, (uint8_t *)to);
			break;
		default:
			elements(e, i, o, r, valid, to);
		}
	}
	return 0;
}
