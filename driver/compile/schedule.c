// SPDX-License-Identifier: Apache-2.0
/*
 * A step, body by body. Outside loops, all slots' rows go through one instruction: the embedding, then from each
 * attention to the next everything that is dense, then the head. In the loop over slots stand the attention's three
 * bodies (begin, a tile of 16 KV blocks, end) and at last sampling. Everything that is used twice goes through the work
 * area; what is used once, in the cycle in which it comes, stays on streams.
 */
#include "driver/compile/schedule.h"

#include <emmintrin.h>
#include <string.h>

#include <millrace/lpu_spec.h>
#include <millrace/status.h>

#include "kernels/cpu/kernels.h"

/*
 * A chip's work area. X(name, slots: 1 = of every slot, rows, cols, type); Q8 places hold what a product takes in.
 * x are two: what a layer adds to the residual stream goes from one to the other.
 */
#define WORK_AREAS(X)                                                   \
	X(table, 1, 1, mr_schedule_table_stride(context) / 4, MR_T_U32) \
	X(x0, 1, 1, s->width, MR_T_F32)                                 \
	X(x1, 1, 1, s->width, MR_T_F32)                                 \
	X(in, 1, 1, s->width, MR_T_Q8)                                  \
	X(attn_in, 1, 1, s->heads * s->head_dim, MR_T_Q8)               \
	X(ffn_in, 1, 1, s->ffn, MR_T_Q8)                                \
	X(q, 1, 1, s->heads * s->head_dim, MR_T_F32)                    \
	X(q_turned, 1, 1, s->heads * s->head_dim, MR_T_F32)             \
	X(k, 1, 1, s->kv_heads * s->head_dim, MR_T_F32)                 \
	X(v, 1, 1, s->kv_heads * s->head_dim, MR_T_F32)                 \
	X(attn, 1, 1, s->heads * s->head_dim, MR_T_F32)                 \
	X(down, 1, 1, s->width, MR_T_F32)                               \
	X(out, 1, 1, s->width, MR_T_F32)                                \
	X(gate, 1, 1, s->ffn, MR_T_F32)                                 \
	X(up, 1, 1, s->ffn, MR_T_F32)                                   \
	X(scores, 0, s->heads, MR_ISA_TILE, MR_T_F32)                   \
	X(weights, 0, s->heads, MR_ISA_TILE, MR_T_F32)                  \
	X(sums, 0, s->heads, s->head_dim, MR_T_F32)                     \
	X(values, 0, s->heads, s->head_dim, MR_T_F32)                   \
	X(values_new, 0, s->heads, s->head_dim, MR_T_F32)               \
	X(max, 0, s->heads, 1, MR_T_F32)                                \
	X(max_tile, 0, s->heads, 1, MR_T_F32)                           \
	X(max_new, 0, s->heads, 1, MR_T_F32)                            \
	X(total, 0, s->heads, 1, MR_T_F32)                              \
	X(total_tile, 0, s->heads, 1, MR_T_F32)                         \
	X(total_new, 0, s->heads, 1, MR_T_F32)                          \
	X(factor_old, 0, s->heads, 1, MR_T_F32)                         \
	X(factor_new, 0, s->heads, 1, MR_T_F32)                         \
	X(logits, 1, 1, head ? s->vocab : 0, MR_T_F32)

struct work {
#define X(name, slots, rows, cols, type) struct place name;
	WORK_AREAS(X)
#undef X
};

struct sched {
	const struct sched_input *in;
	struct emitter *e;
	struct work work[PLACE_CHIPS_MAX];
	uint32_t at; /* the chip where the residual stream is */
};

uint32_t mr_schedule_table_stride(uint32_t context)
{
	uint32_t blocks = (context + MR_ISA_BLOCK - 1) / MR_ISA_BLOCK;

	return (uint32_t)(sizeof(struct mr_isa_slot) + 4 * blocks + 63) / 64 * 64;
}

/* ---- the work area ---- */

/* A place for @slots slots (or of one, where 0) of @rows rows each. */
static struct place area(uint64_t *next, uint32_t chip, uint32_t slots, uint32_t rows,
			 uint32_t cols, uint8_t type)
{
	uint64_t bytes = mr_isa_row_bytes(type, cols) * rows;
	uint64_t stride = slots ? (bytes + 63) / 64 * 64 : bytes / rows;
	struct place p = {
		.chip = chip,
		.address = *next,
		.stride = (uint32_t)stride,
		.rows = rows,
		.cols = cols,
		.form = (uint8_t)(type | (slots ? MR_F_SLOTS : 0)),
		.span = slots ? stride * slots : bytes,
	};

	*next += (p.span + 63) / 64 * 64;
	return p;
}

static uint64_t lay_out(struct work *w, const struct mr_shape *s, uint32_t chip, uint64_t address,
			uint32_t batch, uint32_t context, int head)
{
	uint64_t next = address;

#define X(name, slots, rows, cols, type) \
	w->name = area(&next, chip, (slots) ? batch : 0, rows, cols, type);
	WORK_AREAS(X)
#undef X
	return next - address;
}

uint32_t mr_schedule_areas(const struct mr_shape *shape, uint32_t batch, uint32_t context, int head,
			   uint32_t chip, uint64_t address, struct mr_sched_area *areas)
{
	struct work w;
	uint32_t n = 0;

	lay_out(&w, shape, chip, address, batch, context, head);
#define X(label, slots, rows, cols, type)                                       \
	if (w.label.span)                                                       \
		areas[n++] = (struct mr_sched_area){.name = #label,             \
						    .address = w.label.address, \
						    .bytes = w.label.span,      \
						    .chip = chip};
	WORK_AREAS(X)
#undef X
	return n;
}

uint64_t mr_schedule_work(const struct mr_shape *shape, uint32_t batch, uint32_t context, int head)
{
	struct work w;

	return lay_out(&w, shape, 0, 0, batch, context, head);
}

/* A body begins: all that earlier bodies wrote is there. */
static void body(struct sched *s, enum mr_isa_register reg)
{
	mr_emit_body(s->e, reg);
	for (uint32_t c = 0; c < s->in->chips; c++) {
		struct place *p = (struct place *)&s->work[c];

		for (size_t i = 0; i < sizeof(s->work[c]) / sizeof(*p); i++)
			p[i].ready = (struct when){0, 0};
	}
}

/* The current slot's part of a place of all slots, as @rows rows. */
static struct place of_slot(const struct place *p, uint32_t rows)
{
	struct place one = *p;

	one.form = (uint8_t)((p->form & 0x0f) | MR_F_SLOT);
	one.rows = rows;
	one.cols = p->cols / rows;
	return one;
}

static struct place constant(const struct mr_prog_segment *seg)
{
	return (struct place){
		.chip = seg->chip,
		.address = seg->address,
		.stride = 4 * seg->cols,
		.rows = 1,
		.cols = seg->cols,
		.form = MR_T_F32,
	};
}

#define FLOW(f)              \
	{                    \
		.flow = &(f) \
	}
#define PLACE(p)              \
	{                     \
		.place = &(p) \
	}
#define IMM(x)                   \
	{                        \
		.immediate = (x) \
	}
#define SRC(...) ((const struct source[3]){__VA_ARGS__})

static uint32_t larger(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

/* Cycles a row of @cols FP32 takes through streams and vector unit. */
static uint32_t row_cycles(const struct sched *s, uint32_t cols)
{
	return larger(mr_emit_stream_cycles(s->e, 4ull * cols), mr_emit_vector_cycles(s->e, cols));
}

/* ---- products ---- */

/* @out (columns from @col on) = @w times @x, tile by tile as the planes hold them. */
static void product(struct sched *s, const struct mr_prog_segment *w, const struct place *x,
		    struct place *out, uint32_t col)
{
	const struct mr_chip *chip = s->in->chip;
	uint32_t type = w->layout == MR_LAYOUT_Q4_1X16 ? MR_T_Q4_1X16 : MR_T_Q8_0X16;
	uint32_t block = type == MR_T_Q4_1X16 ? 320 : 544, stride = w->cols / 32 * block;
	uint32_t deep = (w->cols + (uint32_t)chip->plane_rows - 1) / (uint32_t)chip->plane_rows;
	struct when written = out->ready;

	if (deep > chip->plane_count)
		deep = (uint32_t)chip->plane_count;
	uint32_t inputs = deep * (uint32_t)chip->plane_rows;
	uint32_t outputs = (uint32_t)(chip->plane_count / deep * chip->plane_cols) / 16 * 16;

	for (uint32_t row = 0, rows; row < w->rows; row += rows) {
		rows = w->rows - row < outputs ? w->rows - row : outputs;
		for (uint32_t k = 0, cols; k < w->cols; k += cols) {
			struct place in = *x, part = *out;
			struct when there;

			cols = w->cols - k < inputs ? w->cols - k : inputs;
			there = mr_emit_loadw(s->e, w->chip, type,
					      w->address + row / 16 * stride + k / 32 * block,
					      stride, rows, cols);
			in.address += (uint64_t)k / 32 * MR_Q8_BYTES;
			in.cols = cols;
			part.address += 4ull * (col + row);
			part.cols = rows;
			int last = k + cols == w->cols;
			uint32_t every =
				mr_emit_stream_cycles(s->e, mr_isa_row_bytes(MR_T_Q8, cols));
			if (last)
				every = larger(every, row_cycles(s, rows));
			EMIT_CHAIN(s->e, there)
			{
				struct flow f = mr_emit_read(s->e, &in, every, there), sums;

				mr_emit_mul(s->e, k ? MR_I_ACC : MR_I_MUL, &f, rows,
					    last ? &sums : NULL);
				if (last)
					mr_emit_write(s->e, &sums, &part);
			}
			if (last)
				written = when_later(written, part.ready);
		}
	}
	out->ready = written;
}

/* ---- what is dense ---- */

/* in = the normed residual stream, as Q8. */
static void norm(struct sched *s, struct place *x, const struct mr_prog_segment *weight,
		 struct place *in)
{
	struct place w = constant(weight);
	uint32_t every = row_cycles(s, x->cols);
	struct when t = x->ready;

	EMIT_CHAIN(s->e, t)
	{
		struct flow f = mr_emit_vector(s->e, x->chip, MR_I_SUMSQ, SRC(PLACE(*x)), 1,
					       x->cols, MR_F_SLOTS, every, t);

		f = mr_emit_rsqrt(s->e, &f, (float)x->cols, s->in->shape->rms_eps);
		f = mr_emit_vector(s->e, x->chip, MR_I_MUL3, SRC(PLACE(*x), FLOW(f), PLACE(w)), 1,
				   x->cols, MR_F_SLOTS, every, f.at);
		f = mr_emit_vector(s->e, x->chip, MR_I_QUANT32, SRC(FLOW(f)), 1, x->cols,
				   MR_F_SLOTS, every, f.at);
		mr_emit_write(s->e, &f, in);
	}
}

static void quantize(struct sched *s, struct place *x, struct place *to)
{
	struct when t = x->ready;

	EMIT_CHAIN(s->e, t)
	{
		struct flow f = mr_emit_vector(s->e, x->chip, MR_I_QUANT32, SRC(PLACE(*x)), 1,
					       x->cols, MR_F_SLOTS, row_cycles(s, x->cols), t);

		mr_emit_write(s->e, &f, to);
	}
}

static void add(struct sched *s, struct place *a, struct place *b, struct place *to)
{
	struct when t = when_later(a->ready, b->ready);

	EMIT_CHAIN(s->e, t)
	{
		struct flow f = mr_emit_vector(s->e, a->chip, MR_I_ADD, SRC(PLACE(*a), PLACE(*b)),
					       1, a->cols, MR_F_SLOTS, row_cycles(s, a->cols), t);

		mr_emit_write(s->e, &f, to);
	}
}

/* to = gate / (1 + e^-gate) * up, as Q8. */
static void gated(struct sched *s, struct place *g, struct place *u, struct place *to)
{
	uint32_t every = row_cycles(s, g->cols), chip = g->chip, cols = g->cols;
	struct when t = when_later(g->ready, u->ready);

	EMIT_CHAIN(s->e, t)
	{
		struct flow f = mr_emit_vector(s->e, chip, MR_I_EXP, SRC(IMM(0), PLACE(*g)), 1,
					       cols, MR_F_SLOTS, every, t);

		f = mr_emit_vector(s->e, chip, MR_I_ADD, SRC(FLOW(f), IMM(1)), 1, cols, MR_F_SLOTS,
				   every, f.at);
		f = mr_emit_vector(s->e, chip, MR_I_DIV, SRC(PLACE(*g), FLOW(f)), 1, cols,
				   MR_F_SLOTS, every, f.at);
		f = mr_emit_vector(s->e, chip, MR_I_VMUL, SRC(FLOW(f), PLACE(*u)), 1, cols,
				   MR_F_SLOTS, every, f.at);
		f = mr_emit_vector(s->e, chip, MR_I_QUANT32, SRC(FLOW(f)), 1, cols, MR_F_SLOTS,
				   every, f.at);
		mr_emit_write(s->e, &f, to);
	}
}

/* x turned by the angles of its position; keys go on to their KV block, at @address of it. */
static void turn(struct sched *s, struct place *x, struct place *to, uint64_t address)
{
	const struct mr_prog_segment *seg = s->in->angles[x->chip];
	uint32_t every = row_cycles(s, x->cols), groups = s->in->shape->kv_heads;
	struct place angles = constant(seg);
	struct when t = x->ready;

	angles.form |= MR_F_SLOTS;
	EMIT_CHAIN(s->e, t)
	{
		struct flow a = mr_emit_gather(s->e, &angles, MR_INDEX_POSITION, 0, every, t);
		struct flow f = mr_emit_vector(s->e, x->chip, MR_I_CMUL, SRC(PLACE(*x), FLOW(a)), 1,
					       x->cols, MR_F_SLOTS, every, t);

		if (to) {
			mr_emit_write(s->e, &f, to);
		} else {
			f = mr_emit_vector(s->e, x->chip, MR_I_CVT, SRC(FLOW(f)), 1, x->cols,
					   MR_F_SLOTS, every, f.at);
			mr_emit_scatter(s->e, &f, address, groups);
		}
	}
}

static void keep_values(struct sched *s, struct place *v, uint64_t address)
{
	struct when t = v->ready;

	EMIT_CHAIN(s->e, t)
	{
		struct flow f = mr_emit_vector(s->e, v->chip, MR_I_CVT, SRC(PLACE(*v)), 1, v->cols,
					       MR_F_SLOTS, row_cycles(s, v->cols), t);

		mr_emit_scatter(s->e, &f, address, s->in->shape->kv_heads);
	}
}

/* ---- attention of the current slot ---- */

/* Two places of (heads, cols) and one instruction; b may be one element a row. */
static void combine(struct sched *s, enum mr_isa_op op, struct place *a, struct place *b,
		    struct place *to)
{
	struct when t = when_later(a->ready, b->ready);

	EMIT_CHAIN(s->e, t)
	{
		struct flow f = mr_emit_vector(s->e, a->chip, op, SRC(PLACE(*a), PLACE(*b)),
					       a->rows, a->cols, 0, row_cycles(s, a->cols), t);

		mr_emit_write(s->e, &f, to);
	}
}

/* to = fma(new, its factor, old * its factor) */
static void merge(struct sched *s, struct work *w, struct place *old, struct place *new,
		  struct place *to)
{
	struct when t = when_later(when_later(old->ready, new->ready),
				   when_later(w->factor_old.ready, w->factor_new.ready));
	uint32_t every = row_cycles(s, old->cols);

	EMIT_CHAIN(s->e, t)
	{
		struct flow f = mr_emit_vector(s->e, old->chip, MR_I_VMUL,
					       SRC(PLACE(*old), PLACE(w->factor_old)), old->rows,
					       old->cols, 0, every, t);

		f = mr_emit_vector(s->e, old->chip, MR_I_FMA,
				   SRC(PLACE(*new), PLACE(w->factor_new), FLOW(f)), old->rows,
				   old->cols, 0, every, f.at);
		mr_emit_write(s->e, &f, to);
	}
}

static void reduce(struct sched *s, enum mr_isa_op op, struct place *x, struct place *to)
{
	struct when t = x->ready;

	EMIT_CHAIN(s->e, t)
	{
		struct flow f = mr_emit_vector(s->e, x->chip, op, SRC(PLACE(*x)), x->rows, x->cols,
					       0, row_cycles(s, x->cols), t);

		mr_emit_write(s->e, &f, to);
	}
}

static void copy(struct sched *s, struct place *from, struct place *to)
{
	struct when t = from->ready;

	EMIT_CHAIN(s->e, t)
	{
		struct flow f = mr_emit_read(s->e, from, row_cycles(s, from->cols), t);

		mr_emit_write(s->e, &f, to);
	}
}

static void fill(struct sched *s, struct place *to, float value)
{
	struct when t = {0, 0};

	EMIT_CHAIN(s->e, t)
	{
		struct flow f = mr_emit_vector(s->e, to->chip, MR_I_FILL, SRC(IMM(value)), to->rows,
					       to->cols, 0, row_cycles(s, to->cols), t);

		mr_emit_write(s->e, &f, to);
	}
}

/* One tile: scores, weights, sums; then what came before is taken in, as class D merges tiles. */
static void tile(struct sched *s, struct work *w, uint64_t keys, uint64_t values)
{
	const struct mr_shape *shape = s->in->shape;
	uint32_t dim = shape->head_dim, wide = row_cycles(s, MR_ISA_TILE);
	float root = (float)_mm_cvtsd_f64(_mm_sqrt_pd(_mm_set_sd((double)dim)));
	struct place q = of_slot(&w->q_turned, shape->heads);
	struct place scores = w->scores, weights = w->weights;
	struct when t = {0, 0};

	EMIT_CHAIN(s->e, t)
	{
		struct flow f = mr_emit_read(s->e, &q, mr_emit_vector_cycles(s->e, dim), t);

		f = mr_emit_blocks(s->e, MR_I_DOTS, &f, keys, shape->kv_heads, dim, 1.0f / root);
		mr_emit_write(s->e, &f, &w->scores);
	}
	scores.form |= MR_F_TILE;
	scores.ready = w->scores.ready;
	reduce(s, MR_I_RMAX, &scores, &w->max_tile);
	t = when_later(scores.ready, w->max_tile.ready);
	EMIT_CHAIN(s->e, t)
	{
		struct flow f = mr_emit_vector(s->e, q.chip, MR_I_EXP,
					       SRC(PLACE(scores), PLACE(w->max_tile)), shape->heads,
					       MR_ISA_TILE, 0, wide, t);

		mr_emit_write(s->e, &f, &w->weights);
	}
	weights.form |= MR_F_TILE;
	t = weights.ready = w->weights.ready;
	reduce(s, MR_I_SUM, &weights, &w->total_tile);
	EMIT_CHAIN(s->e, t)
	{
		struct flow f = mr_emit_read(s->e, &weights, wide, t);

		f = mr_emit_blocks(s->e, MR_I_SUMS, &f, values, shape->kv_heads, dim, 0);
		mr_emit_write(s->e, &f, &w->sums);
	}
	combine(s, MR_I_MAX, &w->max, &w->max_tile, &w->max_new);
	combine(s, MR_I_EXP, &w->max, &w->max_new, &w->factor_old);
	combine(s, MR_I_EXP, &w->max_tile, &w->max_new, &w->factor_new);
	merge(s, w, &w->total, &w->total_tile, &w->total_new);
	merge(s, w, &w->values, &w->sums, &w->values_new);
	copy(s, &w->max_new, &w->max);
	copy(s, &w->total_new, &w->total);
	copy(s, &w->values_new, &w->values);
}

static void attend(struct sched *s, struct work *w, uint64_t keys, uint64_t values)
{
	struct place out = of_slot(&w->attn, s->in->shape->heads);

	mr_emit_loop(s->e, MR_R_SLOTS);
	body(s, MR_R_NONE);
	fill(s, &w->max, -__builtin_inff());
	fill(s, &w->total, 0);
	fill(s, &w->values, 0);
	mr_emit_body_end(s->e);
	mr_emit_loop(s->e, MR_R_TILES);
	body(s, MR_R_BLOCKS);
	tile(s, w, keys, values);
	mr_emit_body_end(s->e);
	mr_emit_loop_end(s->e);
	body(s, MR_R_NONE);
	combine(s, MR_I_DIV, &w->values, &w->total, &out);
	mr_emit_body_end(s->e);
	mr_emit_loop_end(s->e);
}

/* ---- the step ---- */

/* Columns [col, col + cols) of a place. */
static struct place columns_of(const struct place *p, uint32_t col, uint32_t cols)
{
	struct place part = *p;

	part.address += mr_isa_row_bytes(p->form & 0x0f, col);
	part.cols = cols;
	part.span -= mr_isa_row_bytes(p->form & 0x0f, col);
	return part;
}

static struct place *place_of(struct sched *s, uint32_t chip, size_t member)
{
	return (struct place *)((char *)&s->work[chip] + member);
}
#define MEMBER(name) offsetof(struct work, name)

/* Columns of a place of chip @from, ready there at @ready, to the same place of chip @to. */
static void send(struct sched *s, size_t member, uint32_t col, uint32_t cols, uint32_t from,
		 uint32_t to, struct when ready)
{
	struct place a = columns_of(place_of(s, from, member), col, cols), *whole;
	struct place b = columns_of(place_of(s, to, member), col, cols);
	uint64_t bytes = mr_isa_row_bytes(a.form & 0x0f, cols);
	uint32_t every =
		larger(mr_emit_stream_cycles(s->e, bytes), mr_emit_link_cycles(s->e, bytes));

	a.ready = ready;
	EMIT_CHAIN(s->e, ready)
	{
		struct flow f = mr_emit_read(s->e, &a, every, ready);

		f = mr_emit_hop(s->e, &f, to);
		mr_emit_write(s->e, &f, &b);
	}
	whole = place_of(s, to, member);
	whole->ready = when_later(whole->ready, b.ready);
}

/* Every chip's slice of a place to chip @to, or to all where it is NOBODY. */
#define NOBODY UINT32_MAX
static void gather(struct sched *s, size_t member, uint32_t to)
{
	uint32_t chips = s->in->chips, first, end;
	struct when ready[PLACE_CHIPS_MAX];

	for (uint32_t c = 0; c < chips; c++)
		ready[c] = place_of(s, c, member)->ready;
	for (uint32_t c = 0; c < chips; c++) {
		sched_slice(place_of(s, c, member)->cols, c, chips, &first, &end);
		for (uint32_t d = 0; d < chips && first < end; d++)
			if (d != c && (to == NOBODY || to == d))
				send(s, member, first, end - first, c, d, ready[c]);
	}
}

static void broadcast(struct sched *s, size_t member, uint32_t from)
{
	struct place *p = place_of(s, from, member);

	for (uint32_t d = 0; d < s->in->chips; d++)
		if (d != from)
			send(s, member, 0, p->cols, from, d, p->ready);
}

/* Each chip's slice of a product. */
static void product_slices(struct sched *s, const struct sched_layer *l, enum mr_ref_tensor tensor,
			   size_t in, size_t out)
{
	uint32_t first, end;

	for (uint32_t c = 0; c < s->in->chips; c++) {
		struct place *to = place_of(s, c, out);

		sched_slice(to->cols, c, s->in->chips, &first, &end);
		if (l->tensor[c][tensor])
			product(s, l->tensor[c][tensor], place_of(s, c, in), to, first);
	}
}

static void columns_begin(struct sched *s, const struct sched_layer *l, uint64_t keys,
			  uint64_t values)
{
	struct work *w = &s->work[s->at];

	for (uint32_t c = 0; c < s->in->chips; c++)
		norm(s, &s->work[c].x0, l->tensor[c][MR_REF_ATTN_NORM], &s->work[c].in);
	product_slices(s, l, MR_REF_K, MEMBER(in), MEMBER(k));
	product_slices(s, l, MR_REF_V, MEMBER(in), MEMBER(v));
	product_slices(s, l, MR_REF_Q, MEMBER(in), MEMBER(q));
	gather(s, MEMBER(k), s->at);
	gather(s, MEMBER(v), s->at);
	gather(s, MEMBER(q), s->at);
	turn(s, &w->k, NULL, keys);
	keep_values(s, &w->v, values);
	turn(s, &w->q, &w->q_turned, 0);
}

static void columns_end(struct sched *s, const struct sched_layer *l)
{
	uint32_t chips = s->in->chips, first, end;

	quantize(s, &s->work[s->at].attn, &s->work[s->at].attn_in);
	broadcast(s, MEMBER(attn_in), s->at);
	product_slices(s, l, MR_REF_O, MEMBER(attn_in), MEMBER(out));
	gather(s, MEMBER(out), NOBODY);
	for (uint32_t c = 0; c < chips; c++) {
		struct work *w = &s->work[c];

		add(s, &w->x0, &w->out, &w->x1);
		norm(s, &w->x1, l->tensor[c][MR_REF_FFN_NORM], &w->in);
	}
	product_slices(s, l, MR_REF_GATE, MEMBER(in), MEMBER(gate));
	product_slices(s, l, MR_REF_UP, MEMBER(in), MEMBER(up));
	for (uint32_t c = 0; c < chips; c++) {
		struct work *w = &s->work[c];

		sched_slice(w->gate.cols, c, chips, &first, &end);
		if (first == end)
			continue;
		struct place g = columns_of(&w->gate, first, end - first);
		struct place u = columns_of(&w->up, first, end - first);
		struct place to = columns_of(&w->ffn_in, first, end - first);

		gated(s, &g, &u, &to);
		w->ffn_in.ready = to.ready;
	}
	gather(s, MEMBER(ffn_in), NOBODY);
	product_slices(s, l, MR_REF_DOWN, MEMBER(ffn_in), MEMBER(down));
	gather(s, MEMBER(down), NOBODY);
	for (uint32_t c = 0; c < chips; c++)
		add(s, &s->work[c].x1, &s->work[c].down, &s->work[c].x0);
}

/* The residual stream goes on to another chip; by columns all have it. */
static void move_to(struct sched *s, uint32_t chip)
{
	struct place *from = &s->work[s->at].x0, *to = &s->work[chip].x0;
	uint32_t every =
		larger(row_cycles(s, from->cols), mr_emit_link_cycles(s->e, 4ull * from->cols));
	struct when t = from->ready;

	if (chip == s->at)
		return;
	if (s->in->columns) {
		s->at = chip;
		return;
	}
	EMIT_CHAIN(s->e, t)
	{
		struct flow f = mr_emit_read(s->e, from, every, t);

		f = mr_emit_hop(s->e, &f, chip);
		mr_emit_write(s->e, &f, to);
	}
	s->at = chip;
}

static void layer_begin(struct sched *s, const struct sched_layer *l, uint64_t keys,
			uint64_t values)
{
	const struct mr_prog_segment *const *t = l->tensor[s->at];
	struct work *w = &s->work[s->at];

	if (s->in->columns) {
		columns_begin(s, l, keys, values);
		return;
	}
	norm(s, &w->x0, t[MR_REF_ATTN_NORM], &w->in);
	product(s, t[MR_REF_K], &w->in, &w->k, 0);
	product(s, t[MR_REF_V], &w->in, &w->v, 0);
	product(s, t[MR_REF_Q], &w->in, &w->q, 0);
	turn(s, &w->k, NULL, keys);
	keep_values(s, &w->v, values);
	turn(s, &w->q, &w->q_turned, 0);
}

static void layer_end(struct sched *s, const struct sched_layer *l)
{
	const struct mr_prog_segment *const *t = l->tensor[s->at];
	struct work *w = &s->work[s->at];

	if (s->in->columns) {
		columns_end(s, l);
		return;
	}
	quantize(s, &w->attn, &w->attn_in);
	product(s, t[MR_REF_O], &w->attn_in, &w->out, 0);
	add(s, &w->x0, &w->out, &w->x1);
	norm(s, &w->x1, t[MR_REF_FFN_NORM], &w->in);
	product(s, t[MR_REF_GATE], &w->in, &w->gate, 0);
	product(s, t[MR_REF_UP], &w->in, &w->up, 0);
	gated(s, &w->gate, &w->up, &w->ffn_in);
	product(s, t[MR_REF_DOWN], &w->ffn_in, &w->down, 0);
	add(s, &w->x1, &w->down, &w->x0);
}

static void embed(struct sched *s)
{
	const struct mr_prog_segment *seg = s->in->embed;
	struct place *x = &s->work[seg->chip].x0, rows = {.chip = seg->chip};
	uint32_t type = seg->layout == MR_LAYOUT_Q4_1X16 ? MR_T_Q4_1X16 : MR_T_Q8_0X16;
	struct when t = {0, 0};

	for (uint32_t c = 0; c < s->in->chips; c++) {
		struct place *table = &s->work[c].table;

		mr_emit_host(s->e, MR_I_DMA_IN, table, mr_emit_stream_cycles(s->e, table->stride));
		/* All of the table is there when its last row is. */
		t = when_later(t, (struct when){s->in->chip->mem_latency,
						mr_emit_stream_cycles(s->e, table->stride)});
	}
	rows.address = seg->address;
	rows.stride = seg->cols / 32 * (type == MR_T_Q4_1X16 ? 320 : 544);
	rows.rows = 1;
	rows.cols = seg->cols;
	rows.form = (uint8_t)(type | MR_F_SLOTS);
	rows.ready = t;
	EMIT_CHAIN(s->e, t)
	{
		struct flow f =
			mr_emit_gather(s->e, &rows, MR_INDEX_TOKEN, 0, row_cycles(s, seg->cols), t);

		mr_emit_write(s->e, &f, x);
	}
	s->at = seg->chip;
	if (s->in->columns)
		broadcast(s, MEMBER(x0), s->at);
}

static void sample(struct sched *s)
{
	struct place row = of_slot(&s->work[s->in->head->chip].logits, 1);

	mr_emit_loop(s->e, MR_R_SLOTS);
	body(s, MR_R_NONE);
	mr_emit_host(s->e, MR_I_DMA_OUT, &row, 0);
	mr_emit_host(s->e, MR_I_SAMPLE, &row, 0);
	mr_emit_host(s->e, MR_I_RECORD, &row, 0);
	mr_emit_body_end(s->e);
	mr_emit_loop_end(s->e);
}

int mr_schedule_emit(const struct sched_input *in, struct emitter *e, struct emitted *out)
{
	static const uint64_t half = 2;
	struct sched s = {.in = in, .e = e};
	const struct mr_shape *shape = in->shape;
	uint64_t layer_bytes = mr_kv_layer_bytes(shape);

	for (uint32_t c = 0; c < in->chips; c++)
		lay_out(&s.work[c], shape, c, in->work[c], in->batch, in->context,
			c == in->head->chip);
	body(&s, MR_R_SLOTS);
	embed(&s);
	for (uint32_t c = 0; c < in->chips; c++) {
		for (uint32_t k = 0; k < in->place->layers[c]; k++) {
			const struct sched_layer *l = &in->layers[in->place->first[c] + k];
			uint64_t keys = k * layer_bytes, values = keys + layer_bytes / half;

			move_to(&s, c);
			layer_begin(&s, l, keys, values);
			mr_emit_body_end(e);
			attend(&s, &s.work[c], keys, values);
			body(&s, MR_R_SLOTS);
			layer_end(&s, l);
		}
	}
	move_to(&s, in->head->chip);
	norm(&s, &s.work[s.at].x0, in->norm, &s.work[s.at].in);
	product(&s, in->head, &s.work[s.at].in, &s.work[s.at].logits, 0);
	mr_emit_body_end(e);
	sample(&s);
	return mr_emit_result(e, out);
}
