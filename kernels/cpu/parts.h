/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of a layer's walk share (layer.c, attend.c; nobody else): a call, a thread's view of it, who takes
 * which part of its work, and input that is quantised for all.
 */
#ifndef MR_KERNELS_CPU_PARTS_H
#define MR_KERNELS_CPU_PARTS_H

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/team.h"
#include "kernels/cpu/workspace.h"

/* One call of the functions of layer.h. */
struct call {
	const struct mr_kernels *kern;
	const struct mr_shape *s;
	const struct mr_layer *layer;
	const struct mr_row *rows;
	uint32_t n;
	size_t kv_offset;
	float *x;
	struct mr_workspace *ws;
	/* the head's */
	const float *norm;
	const struct mr_matrix *output;
	float *logits;
};

/* A thread's view of it. */
struct part {
	const struct call *c;
	struct mr_thread_space *own;
	uint32_t rank, threads;
	int alone; /* makes its int8 input by itself, in its own space */
};

static inline struct part part_of(const struct call *c, uint32_t rank)
{
	uint32_t threads = mr_team_active(c->ws->team);

	return (struct part){c, &c->ws->own[rank], rank, threads,
			     threads > 1 && c->n <= MR_FEW_ROWS};
}

static inline void sync(const struct part *p)
{
	mr_team_barrier(p->c->ws->team);
}

/* ---- who does what ---- */

/* What is between two barriers, for the units that threads take. */
enum layer_part {
	PART_NORM,
	PART_PROJECT,
	PART_ATTEND,
	PART_ATTN_INPUT,
	PART_O,
	PART_FFN_NORM,
	PART_FFN,
	PART_DOWN
};
_Static_assert(PART_DOWN + 1 == MR_LAYER_PARTS, "a count of units for each");

static inline int many(const struct part *p)
{
	return p->threads > 1 && p->c->n >= MR_MANY_ROWS;
}

/* The next unit of a part's work that no thread has taken. */
static inline uint32_t take(const struct part *p, enum layer_part part)
{
	return __atomic_fetch_add(&p->c->ws->taken[part].units, 1, __ATOMIC_RELAXED);
}

/* [0, count) in turns of this thread: its share, once, in units of @unit; or units of @many_unit, as it takes them. */
struct turns {
	enum layer_part part;
	uint32_t count, unit, many_unit;
	uint32_t begun;
	uint32_t first, end; /* this turn's */
};

/* This thread's share of @count, in units of @unit. */
static inline void share(const struct part *p, uint32_t count, uint32_t unit, uint32_t *first,
			 uint32_t *end)
{
	mr_team_part((count + unit - 1) / unit, p->rank, p->threads, first, end);
	*first *= unit;
	*end = *end * unit < count ? *end * unit : count;
}

/* The next turn; 0 where there is none. */
static inline int turn(const struct part *p, struct turns *t)
{
	if (many(p)) {
		uint64_t at = (uint64_t)take(p, t->part) * t->many_unit;

		if (at >= t->count)
			return 0;
		t->first = (uint32_t)at;
		t->end = t->count - t->first < t->many_unit ? t->count : t->first + t->many_unit;
		return 1;
	}
	if (t->begun++)
		return 0;
	share(p, t->count, t->unit, &t->first, &t->end);
	return t->first < t->end;
}

/* ---- int8 input ---- */

static inline struct mr_q8 *q8_shape(struct mr_q8 *q, uint32_t rows, size_t cols)
{
	q->rows = rows;
	q->cols = (uint32_t)cols;
	return q;
}

/* Columns of row @i of @q from @x on, whole blocks of 32. */
static inline void quantize_cols(const struct part *p, const struct mr_q8 *q, uint32_t i,
				 uint32_t col0, uint32_t cols, const float *x)
{
	size_t at = (size_t)i * q->cols + col0;
	struct mr_q8 view = {.q = q->q + at,
			     .scale = q->scale + at / 32,
			     .sum = q->sum + at / 32,
			     .scaled_sum = q->scaled_sum + at / 32,
			     .rows = 1,
			     .cols = cols,
			     .x = q->x ? q->x + at : NULL,
			     .bf16 = q->bf16 ? q->bf16 + at : NULL};

	p->c->kern->quantize(x, &view);
}

/*
 * An input that all need: turns over its rows, and where this thread makes it: shared with others, or, where it
 * makes all of it for itself, in its own space.
 */
static inline struct mr_q8 *input_begin(const struct part *p, enum layer_part part,
					struct mr_q8 *shared, size_t cols, struct turns *t)
{
	*t = (struct turns){part, p->c->n, 1, 4};
	return p->alone ? q8_shape(&p->own->q8, p->c->n, cols) : shared;
}

static inline int input_turn(const struct part *p, struct turns *t)
{
	if (!p->alone)
		return turn(p, t);
	t->first = 0;
	t->end = t->count;
	return !t->begun++;
}

static inline const struct mr_q8 *input_end(const struct part *p, const struct mr_q8 *q)
{
	if (!p->alone)
		sync(p);
	return q;
}
/* attend.c: this thread's part of a layer's attention, into the workspace. */
void mr_attend(const struct part *p);
/* attend.c: what all threads' parts made, in int8, once all have come through the barrier after mr_attend. */
const struct mr_q8 *mr_input_attention(const struct part *p);

#endif /* MR_KERNELS_CPU_PARTS_H */
