// SPDX-License-Identifier: Apache-2.0
#include "driver/compile/product.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "driver/compile/emit.h"
#include "driver/compile/place.h"
#include "userlib/spec/why.h"

/* A chip's parts; `from` are the areas that other chips' rows come into. */
struct part {
	struct place a, w; /* activations (m, k), weights (n, k): this chip's slices */
	struct place out;  /* columns: results (m, n/chips) FP16; K: sums (m, n) FP32 */
	struct place from[PLACE_CHIPS_MAX];
	struct place sum[2]; /* K: of the reduction */
	uint64_t next;       /* free SRAM */
};

struct plan {
	const struct mr_chip *chip;
	struct emitter *e;
	uint32_t chips, m, k, n; /* k, n: of a chip */
	int by_k;
	struct part part[PLACE_CHIPS_MAX];
	struct mr_prog_segment segment[2 * PLACE_CHIPS_MAX];
	struct mr_sched_area *area;
	uint32_t areas;
	struct mr_sched_chip work[PLACE_CHIPS_MAX];
};

static uint64_t align(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

static struct place rows_at(uint32_t chip, uint64_t address, uint32_t rows, uint32_t cols,
			    uint8_t type)
{
	uint64_t bytes = mr_isa_row_bytes(type, cols);

	return (struct place){.chip = chip,
			      .address = address,
			      .stride = (uint32_t)bytes,
			      .rows = rows,
			      .cols = cols,
			      .form = type,
			      .span = bytes * rows};
}

static struct place put_segment(struct plan *p, uint32_t chip, int which, uint32_t rows,
				uint32_t cols)
{
	struct place at = rows_at(chip, p->part[chip].next, rows, cols, MR_T_F16);

	p->segment[2 * chip + (uint32_t)which] = (struct mr_prog_segment){.address = at.address,
									  .bytes = at.span,
									  .chip = chip,
									  .layout = MR_LAYOUT_F16,
									  .rows = rows,
									  .cols = cols};
	p->part[chip].next += align(at.span, MR_PROG_ALIGN);
	return at;
}

/* Areas begin at banks of their own, so that several may be written at a time. */
static struct place put_area(struct plan *p, uint32_t chip, const char *name, uint32_t rows,
			     uint32_t cols, uint8_t type)
{
	uint64_t bank = p->chip->sram_bytes / (p->chip->sram_slices * p->chip->sram_banks);
	uint64_t address = align(align(p->part[chip].next, bank), MR_PROG_ALIGN);
	struct place at = rows_at(chip, address, rows, cols, type);
	struct mr_sched_area *a = &p->area[p->areas++];

	*a = (struct mr_sched_area){.address = at.address, .bytes = at.span, .chip = chip};
	snprintf(a->name, sizeof(a->name), "%s", name);
	p->part[chip].next = address + align(at.span, MR_PROG_ALIGN);
	return at;
}

static void lay_out(struct plan *p, uint32_t c)
{
	struct part *part = &p->part[c];
	uint32_t slice = p->by_k ? p->n / p->chips : p->n;
	uint8_t type = p->by_k ? MR_T_F32 : MR_T_F16;

	part->a = put_segment(p, c, 0, p->m, p->k);
	part->w = put_segment(p, c, 1, p->n, p->k);
	p->work[c].work_address = part->next;
	part->out = put_area(p, c, "out", p->m, p->n, type);
	for (uint32_t d = 0; d < p->chips; d++)
		if (d != c && (p->by_k || c == 0))
			part->from[d] = put_area(p, c, "from", p->m, slice, type);
	for (int i = 0; i < 2 && p->by_k; i++)
		part->sum[i] = put_area(p, c, "sum", p->m, slice, type);
	p->work[c].work_bytes = align(part->next - p->work[c].work_address, MR_PROG_ALIGN);
	part->next = p->work[c].work_address + p->work[c].work_bytes;
}

static struct place columns_of(const struct place *p, uint32_t col, uint32_t cols)
{
	struct place part = *p;

	part.address += mr_isa_row_bytes(p->form, col);
	part.span -= mr_isa_row_bytes(p->form, col);
	part.cols = cols;
	return part;
}

static uint32_t larger(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

/* A column of tiles: all of K, one tile of outputs. Returns where its results lie. */
static struct place column(struct plan *p, uint32_t c, uint32_t col, uint32_t cols)
{
	struct part *part = &p->part[c];
	uint32_t inputs = (uint32_t)(p->chip->plane_count * (p->chip->plane_rows / 2));
	struct place out = columns_of(&part->out, col, cols);

	for (uint32_t k = 0, deep; k < p->k; k += deep) {
		struct place in, w = columns_of(&part->w, k, 1);
		struct when t;

		deep = p->k - k < inputs ? p->k - k : inputs;
		in = columns_of(&part->a, k, deep);
		t = mr_emit_loadw(p->e, c, MR_T_F16, w.address + (uint64_t)col * part->w.stride,
				  part->w.stride, cols, deep);
		int last = k + deep == p->k;
		/* Two cycles a row in FP16. */
		uint32_t every = larger(2, mr_emit_stream_cycles(p->e, 2ull * deep));

		if (last)
			every = larger(every, mr_emit_stream_cycles(p->e, 4ull * cols));
		EMIT_CHAIN(p->e, t)
		{
			struct flow f = mr_emit_read(p->e, &in, every, t), sums;

			mr_emit_mul(p->e, k ? MR_I_ACC : MR_I_MUL, &f, cols, last ? &sums : NULL);
			if (!last)
				continue;
			if (!p->by_k)
				sums = mr_emit_vector(p->e, c, MR_I_CVT,
						      (const struct source[3]){{.flow = &sums}},
						      p->m, cols, 0, every, sums.at);
			mr_emit_write(p->e, &sums, &out);
		}
	}
	return out;
}

static void send(struct plan *p, const struct place *from, struct place *to)
{
	uint64_t bytes = mr_isa_row_bytes(from->form, from->cols);
	uint32_t every =
		larger(mr_emit_stream_cycles(p->e, bytes), mr_emit_link_cycles(p->e, bytes));
	struct when t = from->ready;

	EMIT_CHAIN(p->e, t)
	{
		struct flow f = mr_emit_read(p->e, from, every, t);

		f = mr_emit_hop(p->e, &f, to->chip);
		mr_emit_write(p->e, &f, to);
	}
}

static struct when later(struct when a, struct when b)
{
	return when_later(a, b);
}

/* Each chip's slice of the columns from all others, at once; then the sum of all. */
static void reduce(struct plan *p)
{
	uint32_t slice = p->n / p->chips;

	for (uint32_t c = 0; c < p->chips; c++)
		for (uint32_t d = 0; d < p->chips; d++) {
			struct place from = columns_of(&p->part[d].out, c * slice, slice);

			if (d != c)
				send(p, &from, &p->part[c].from[d]);
		}
	for (uint32_t c = 0; c < p->chips; c++) {
		struct place sum = columns_of(&p->part[c].out, c * slice, slice);
		uint32_t turn = 0, every = larger(mr_emit_stream_cycles(p->e, 4ull * slice),
						  mr_emit_vector_cycles(p->e, slice));

		for (uint32_t d = 0; d < p->chips; d++) {
			struct place *more = &p->part[c].from[d], *to = &p->part[c].sum[turn % 2];
			struct when t = later(sum.ready, more->ready);

			if (d == c)
				continue;
			EMIT_CHAIN(p->e, t)
			{
				struct flow f = mr_emit_vector(
					p->e, c, MR_I_ADD,
					(const struct source[3]){{.place = &sum}, {.place = more}},
					p->m, slice, 0, every, t);

				mr_emit_write(p->e, &f, to);
			}
			sum = *to;
			turn++;
		}
	}
}

static void emit(struct plan *p)
{
	uint32_t cols;

	mr_emit_body(p->e, MR_R_NONE);
	/* Tile by tile over all chips, so that what they send arrives in the order of the queues. */
	for (uint32_t col = 0; col < p->n; col += cols) {
		cols = p->n - col < p->chip->plane_cols ? p->n - col
							: (uint32_t)p->chip->plane_cols;
		for (uint32_t c = 0; c < p->chips; c++) {
			struct place out = column(p, c, col, cols);

			p->part[c].out.ready = later(p->part[c].out.ready, out.ready);
			if (c && !p->by_k) {
				struct place to = columns_of(&p->part[0].from[c], col, cols);

				send(p, &out, &to);
			}
		}
	}
	if (p->by_k)
		reduce(p);
	mr_emit_body_end(p->e);
}

static int check(struct plan *p, const struct emitted *emitted, struct mr_spec_why *why)
{
	struct mr_ref_chip kv[PLACE_CHIPS_MAX];
	const struct mr_prog_header header = {
		.chips = p->chips, .batch = 1, .context = MR_ISA_BLOCK, .segments = 2 * p->chips};
	const struct mr_ref_header ref = {.version = 1, .chips = p->chips};
	const struct mr_sched_header sched = {.version = 1,
					      .chips = p->chips,
					      .icu = emitted->icu_count,
					      .instructions = emitted->inst_count,
					      .areas = p->areas};
	const struct mr_container c = {.header = &header,
				       .segments = p->segment,
				       .claims = &emitted->claim,
				       .ref = &ref,
				       .chips = kv,
				       .sched = &sched,
				       .sched_chips = p->work,
				       .areas = p->area,
				       .icu = emitted->icu,
				       .instructions = emitted->inst};

	memset(kv, 0, sizeof(kv));
	for (uint32_t k = 0; k < p->chips; k++) {
		kv[k].kv_address = p->part[k].next;
		if (p->part[k].next > p->chip->sram_bytes)
			return mr_spec_why(why, MR_E_SRAM_FULL, "chip %u needs %llu bytes of %llu",
					   k, (unsigned long long)p->part[k].next,
					   (unsigned long long)p->chip->sram_bytes);
	}
	return mr_schedule_verify(&c, p->chip, why);
}

int mr_product_plan(const struct mr_shape_file *shape, const struct mr_chip *chip, uint32_t chips,
		    int by_k, struct mr_product_plan *plan, char *text, size_t text_bytes)
{
	struct mr_spec_why why = {text, text_bytes};
	const struct mr_shape_product *product = &shape->product[0];
	struct plan *p = calloc(1, sizeof(*p));
	struct emitted emitted;
	int status;

	memset(plan, 0, sizeof(*plan));
	if (!p)
		return MR_E_NO_MEMORY;
	p->chip = chip;
	p->chips = chips;
	p->by_k = by_k;
	p->m = product->m;
	p->k = by_k ? product->k / chips : product->k;
	p->n = by_k ? product->n : product->n / chips;
	if (shape->type != MR_CHIP_TYPE_F16 || !(chip->types & MR_CHIP_TYPE_F16) ||
	    product->times != 1 || !chips || chips > PLACE_CHIPS_MAX || chips - 1 > chip->links ||
	    product->k % (8 * chips) || product->n % (16 * chips) || product->m > 65535 ||
	    chip->plane_rows < 2) {
		free(p);
		return mr_spec_why(&why, MR_E_NOT_SUPPORTED,
				   "an FP16 product, once, whose sizes %u chips divide", chips);
	}
	p->area = calloc((size_t)chips * (chips + 3), sizeof(*p->area));
	status = p->area ? mr_emit_create(chip, chips, &p->e) : MR_E_NO_MEMORY;
	for (uint32_t c = 0; !status && c < chips; c++)
		lay_out(p, c);
	if (!status) {
		emit(p);
		status = mr_emit_result(p->e, &emitted);
	}
	if (!status)
		status = check(p, &emitted, &why);
	if (!status)
		*plan = (struct mr_product_plan){emitted.claim.base, p->part[0].next,
						 emitted.inst_count};
	if (p->e)
		mr_emit_destroy(p->e);
	free(p->area);
	free(p);
	return status;
}
