// SPDX-License-Identifier: Apache-2.0
/*
 * What each instruction must keep, with this file's own arithmetic of time: rows there in the cycle in which they are
 * taken, ports and units free, bytes written before they are read, shapes that the unit takes. Whoever runs a program that
 * passed may follow its addresses and sizes without looking again.
 */
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "userlib/spec/replay_parts.h"

#define COLS_MAX (1u << 20)

enum { READS, WRITES, ALUS };

static int bad(struct replay *r, const struct mr_isa *i, const char *what)
{
	return mr_replay_refuse(r, i, MR_E_FORMAT, what);
}

static int late(struct replay *r, const struct mr_isa *i, const char *what)
{
	return mr_replay_refuse(r, i, MR_E_SCHEDULE_VIOLATION, what);
}

static struct replay_chip *part_of(struct replay *r, const struct mr_isa *i)
{
	return &r->part[i->chip];
}

static uint64_t rows_of(const struct replay *r, const struct mr_isa *i)
{
	return (uint64_t)i->rows * (i->form & MR_F_SLOTS    ? r->slots
				    : i->form & MR_F_BLOCKS ? r->blocks
							    : 1);
}

/* Flags where they mean something; rows and interval. */
static int check_flags(struct replay *r, const struct mr_isa *i, uint8_t allowed)
{
	uint8_t flags = i->form & 0xf0;

	if (flags & (uint8_t)~allowed || (flags & MR_F_SLOTS && r->in_slot) ||
	    (flags & MR_F_SLOT && !r->in_slot) ||
	    (flags & (MR_F_BLOCKS | MR_F_TILE) && !r->in_tile) ||
	    (flags & MR_F_SLOTS && flags & (MR_F_SLOT | MR_F_BLOCKS)))
		return bad(r, i, "flags");
	if (!i->rows || !i->interval || !i->cols || i->cols > COLS_MAX)
		return bad(r, i, "rows, columns or interval");
	return 0;
}

static int unused(const struct mr_isa *i, int from)
{
	for (int k = from; k < 3; k++)
		if (i->src[k] != MR_ISA_NONE)
			return 0;
	return 1;
}

static int done_by(struct replay *r, const struct mr_isa *i, uint64_t end)
{
	return end > r->body_end ? late(r, i, "ends after its body") : 0;
}

/* The rows that source @k takes at @start, which must be there as the instruction says. */
static int take(struct replay *r, const struct mr_isa *i, int k, uint64_t start, uint64_t rows,
		uint64_t interval, struct passing **out)
{
	struct passing *p;

	if (i->src[k] >= r->chip->streams)
		return bad(r, i, "no such stream");
	p = &part_of(r, i)->stream[i->src[k]];
	if (!p->there || p->start != start || p->interval != interval || p->rows > rows)
		return late(r, i, "its rows are not there in this cycle");
	p->taken = 1;
	*out = p;
	return 0;
}

static int put(struct replay *r, const struct mr_isa *i, struct passing p)
{
	struct passing *s;

	p.end = p.start + (uint64_t)p.rows * p.interval;
	p.there = 1;
	p.taken = 0;
	if (i->dst >= r->chip->streams)
		return bad(r, i, "no such stream");
	for (int k = 0; k < 3; k++)
		if (i->op != MR_I_GATHER && i->src[k] == i->dst)
			return bad(r, i, "reads the stream that it writes");
	s = &part_of(r, i)->stream[i->dst];
	if (s->there && s->end > p.start)
		return late(r, i, "the stream still carries other rows");
	if (s->there && !s->taken)
		return late(r, i, "nobody took the rows before these");
	*s = p;
	return done_by(r, i, p.end);
}

/* One of @limit ports of @kind from @start to @end. Starts do not fall along a queue, so what has ended is forgotten. */
static int port(struct replay *r, const struct mr_isa *i, int kind, uint64_t limit, struct busy b)
{
	struct replay_chip *p = part_of(r, i);
	uint32_t n = 0;

	for (uint32_t k = 0; k < p->ports[kind]; k++)
		if (p->port[kind][k].end > b.start)
			p->port[kind][n++] = p->port[kind][k];
	p->ports[kind] = n;
	if (n >= limit)
		return late(r, i, "no port or ALU is free");
	for (uint32_t k = 0; kind == WRITES && k < n; k++)
		if (p->port[kind][k].lo <= b.hi && b.lo <= p->port[kind][k].hi)
			return late(r, i, "another writes the bank");
	p->port[kind][p->ports[kind]++] = b;
	return 0;
}

/* ---- SRAM ---- */

struct span {
	uint64_t address, stride, bytes, rows;
};

static struct span span_of(const struct replay *r, const struct mr_isa *i)
{
	uint64_t bytes = mr_isa_row_bytes(mr_isa_type(i), i->cols);
	struct span s = {8ull * i->address, i->stride, bytes, rows_of(r, i)};

	if (i->form & MR_F_SLOT) {
		s.address += (uint64_t)r->slot * i->stride;
		s.stride = bytes;
	}
	return s;
}

static uint64_t last_of(const struct span *s)
{
	return s->address + (s->rows - 1) * s->stride + s->bytes - 1;
}

/* Whether all of it lies in one area. */
static int in_work(struct replay *r, uint32_t chip, const struct span *s)
{
	const struct mr_sched_header *h = r->c->sched;
	uint32_t lo = 0, hi = h->areas;

	while (lo < hi) {
		uint32_t k = (lo + hi) / 2;
		const struct mr_sched_area *a = &r->c->areas[k];

		if (a->chip < chip || (a->chip == chip && a->address + a->bytes <= s->address))
			lo = k + 1;
		else
			hi = k;
	}
	if (lo == h->areas || r->c->areas[lo].chip != chip)
		return 0;
	const struct mr_sched_area *a = &r->c->areas[lo];
	return s->address >= a->address && (s->rows - 1) * s->stride <= a->bytes &&
	       last_of(s) < a->address + a->bytes;
}

static const struct mr_prog_segment *segment_at(const struct replay *r, uint32_t chip,
						uint64_t address)
{
	for (uint32_t k = 0; k < r->c->header->segments; k++) {
		const struct mr_prog_segment *s = &r->c->segments[k];

		if (s->chip == chip && address >= s->address && address < s->address + s->bytes)
			return s;
	}
	return NULL;
}

/* All bytes of @s may be read from @start on. */
static int readable(struct replay *r, const struct mr_isa *i, const struct span *s, uint64_t start)
{
	const struct mr_prog_segment *seg;

	r->effort += s->rows * s->bytes / 4;
	if (in_work(r, i->chip, s)) {
		const uint32_t *word = part_of(r, i)->word;
		uint64_t base = s->address - r->c->sched_chips[i->chip].work_address;

		for (uint64_t k = 0; k < s->rows; k++) {
			uint64_t first = (base + k * s->stride) / 4;
			uint64_t end = (base + k * s->stride + s->bytes + 3) / 4;
			/* A row that passes later is read later. */
			uint64_t when = start + k * i->interval;

			for (uint64_t w = first; w < end; w++)
				if (!word[w] || word[w] - 1ull > when)
					return late(r, i, "reads what is not written yet");
		}
		return 0;
	}
	seg = segment_at(r, i->chip, s->address);
	if (!seg || seg->layout != (mr_isa_type(i) == MR_T_F16 ? MR_LAYOUT_F16 : MR_LAYOUT_F32) ||
	    (mr_isa_type(i) != MR_T_F32 && mr_isa_type(i) != MR_T_F16) ||
	    (s->rows - 1) * s->stride > seg->bytes || last_of(s) >= seg->address + seg->bytes)
		return bad(r, i, "an address outside work area and tables");
	return 0;
}

static int remember_read(struct replay *r, const struct mr_isa *i, const struct span *s,
			 uint64_t start, uint64_t end)
{
	struct replay_chip *p = part_of(r, i);

	if (p->read_count == p->read_room) {
		uint32_t room = p->read_room ? 2 * p->read_room : 256;
		struct busy *more = realloc(p->read, room * sizeof(*more));

		if (!more)
			return MR_E_NO_MEMORY;
		p->read = more;
		p->read_room = room;
	}
	p->read[p->read_count++] =
		(struct busy){start, end, s->address, last_of(s), s->stride, s->bytes};
	return 0;
}

/* Rows with one stride may lie between each other's. */
static int overlap(const struct busy *read, const struct span *s)
{
	uint64_t apart;

	if (read->lo > last_of(s) || s->address > read->hi)
		return 0;
	if (read->stride != s->stride || !s->stride)
		return 1;
	apart = s->address >= read->lo
			? (s->address - read->lo) % s->stride
			: (s->stride - (read->lo - s->address) % s->stride) % s->stride;
	return apart < read->bytes || s->stride - apart < s->bytes;
}

/* Bytes of @s, row by row, become readable @latency after the row was taken. */
static int writable(struct replay *r, const struct mr_isa *i, const struct span *s, uint64_t start,
		    uint64_t interval)
{
	struct replay_chip *p = part_of(r, i);
	uint64_t base;

	if (s->address % 4 || s->stride % 4 || !in_work(r, i->chip, s))
		return bad(r, i, "an address outside the work area");
	for (uint32_t k = 0; k < p->read_count; k++)
		if (p->read[k].end > start && overlap(&p->read[k], s))
			return late(r, i, "writes what is being read");
	base = s->address - r->c->sched_chips[i->chip].work_address;
	r->effort += s->rows * s->bytes / 4;
	for (uint64_t k = 0; k < s->rows; k++) {
		uint64_t first = (base + k * s->stride) / 4;
		uint64_t end = (base + k * s->stride + s->bytes + 3) / 4;
		uint32_t when = (uint32_t)(start + (k + 1) * interval + r->chip->mem_latency + 1);

		for (uint64_t w = first; w < end; w++)
			p->word[w] = when;
	}
	return 0;
}

static uint64_t least_interval(const struct replay *r, uint64_t bytes)
{
	return replay_ceil(bytes, 4 * r->chip->vector_lanes);
}

/* ---- MEM ---- */

static int rule_read(struct replay *r, const struct mr_isa *i, uint64_t start)
{
	struct span s = span_of(r, i);
	uint64_t end = start + s.rows * i->interval;
	uint32_t type = mr_isa_type(i);
	int status = check_flags(r, i, MR_F_SLOTS | MR_F_SLOT | MR_F_TILE);

	if (!status && (!unused(i, 0) || i->peer || !s.bytes || (type == MR_T_Q8 && i->cols % 32) ||
			(i->form & MR_F_TILE && (i->cols != MR_ISA_TILE || type != MR_T_F32))))
		status = bad(r, i, "fields");
	if (!status && i->interval < least_interval(r, s.bytes))
		status = late(r, i, "rows too quick for a stream");
	if (!status)
		status = readable(r, i, &s, start);
	if (!status)
		status = port(r, i, READS, r->chip->read_ports, (struct busy){start, end, 0, 0});
	if (!status)
		status = remember_read(r, i, &s, start, end);
	return status ? status
		      : put(r, i,
			    (struct passing){.start = start + r->chip->mem_latency,
					     .rows = (uint32_t)s.rows,
					     .interval = i->interval,
					     .type = type,
					     .cols = i->cols,
					     .tile = i->form & MR_F_TILE});
}

static struct busy banks_of(const struct replay *r, const struct span *s, uint64_t start,
			    uint64_t end)
{
	uint64_t bank = r->chip->sram_bytes / (r->chip->sram_slices * r->chip->sram_banks);

	return (struct busy){start, end, s->address / bank, last_of(s) / bank};
}

static int rule_write(struct replay *r, const struct mr_isa *i, uint64_t start)
{
	struct span s = span_of(r, i);
	uint64_t end = start + s.rows * i->interval;
	struct passing *p = NULL;
	int status = check_flags(r, i, MR_F_SLOTS | MR_F_SLOT);

	if (!status && (!unused(i, 1) || i->peer || i->dst != MR_ISA_NONE || !s.bytes))
		status = bad(r, i, "fields");
	if (!status)
		status = take(r, i, 0, start, s.rows, i->interval, &p);
	if (!status &&
	    (p->rows != s.rows || p->type != mr_isa_type(i) || p->cols != i->cols || p->groups))
		status = late(r, i, "other rows pass in this cycle");
	if (!status)
		status = port(r, i, WRITES, r->chip->write_ports, banks_of(r, &s, start, end));
	if (!status)
		status = writable(r, i, &s, start, i->interval);
	return status ? status : done_by(r, i, end + r->chip->mem_latency);
}

static int gather_blocks(struct replay *r, const struct mr_isa *i, uint64_t start)
{
	struct replay_chip *p = part_of(r, i);
	uint64_t bytes = 2ull * i->src[2] * MR_ISA_BLOCK * i->cols;
	uint32_t k = 0;

	if (!(i->form & MR_F_BLOCKS) || mr_isa_type(i) != MR_T_F16 || i->rows != 1 || !i->src[2] ||
	    i->cols % 16 || i->stride ||
	    8ull * i->address + bytes > r->c->chips[i->chip].kv_block_bytes)
		return bad(r, i, "fields");
	if (i->interval < replay_ceil(bytes, r->chip->sram_cycle_bytes))
		return late(r, i, "blocks too quick for the SRAM");
	while (k < p->kv_count && p->kv[k].address != i->address)
		k++;
	if (k == p->kv_count || p->kv[k].ready > start || p->kv[k].groups != i->src[2] ||
	    p->kv[k].cols != i->cols * i->src[2])
		return late(r, i, "reads KV that is not written yet");
	return 0;
}

static int gather_row(struct replay *r, const struct mr_isa *i)
{
	const struct mr_prog_segment *s = segment_at(r, i->chip, 8ull * i->address);
	uint32_t type = mr_isa_type(i);
	uint64_t group = i->cols / 32 * (type == MR_T_Q4_1X16 ? 320ull : 544ull);
	uint32_t rows = i->src[0] == MR_INDEX_TOKEN ? r->c->ref->vocab : r->c->header->context;
	uint32_t layout = type == MR_T_F32       ? MR_LAYOUT_F32
			  : type == MR_T_Q4_1X16 ? MR_LAYOUT_Q4_1X16
			  : type == MR_T_Q8_0X16 ? MR_LAYOUT_Q8_0X16
						 : 0;

	if (i->src[0] > MR_INDEX_POSITION || i->src[2] != MR_ISA_NONE || i->rows != 1 ||
	    !(i->form & MR_F_SLOTS) || !s || s->address != 8ull * i->address ||
	    s->layout != layout || s->cols != i->cols || s->rows < rows ||
	    i->stride != (type == MR_T_F32 ? 4ull * i->cols : group))
		return bad(r, i, "fields");
	return i->interval < least_interval(r, 4ull * i->cols)
		       ? late(r, i, "rows too quick for a stream")
		       : 0;
}

static int rule_gather(struct replay *r, const struct mr_isa *i, uint64_t start)
{
	uint64_t rows = rows_of(r, i), end = start + rows * i->interval;
	int blocks = i->src[0] == MR_INDEX_BLOCKS;
	int status = check_flags(r, i, MR_F_SLOTS | MR_F_BLOCKS);

	if (!status && (i->src[1] != MR_ISA_NONE || i->peer))
		status = bad(r, i, "fields");
	if (!status)
		status = blocks ? gather_blocks(r, i, start) : gather_row(r, i);
	if (!status && (!part_of(r, i)->table_ready || part_of(r, i)->table_ready > start))
		status = late(r, i, "the slot table is not there yet");
	if (!status)
		status = port(r, i, READS, r->chip->read_ports, (struct busy){start, end, 0, 0});
	return status ? status
		      : put(r, i,
			    (struct passing){.start = start + r->chip->mem_latency,
					     .rows = (uint32_t)rows,
					     .interval = i->interval,
					     .type = blocks ? MR_T_F16 : MR_T_F32,
					     .cols = i->cols,
					     .groups = blocks ? i->src[2] : 0});
}

static int rule_scatter(struct replay *r, const struct mr_isa *i, uint64_t start)
{
	struct replay_chip *p = part_of(r, i);
	uint64_t rows = rows_of(r, i), end = start + rows * i->interval;
	/* Which bank a block lies in is not known: the KV counts as one bank, beyond all others. */
	struct busy b = {start, end, UINT64_MAX, UINT64_MAX};
	struct passing *x = NULL;
	int status = check_flags(r, i, MR_F_SLOTS);

	if (!status &&
	    (i->src[1] != MR_ISA_NONE || i->peer || i->dst != MR_ISA_NONE || i->stride ||
	     !i->src[2] || i->src[2] == MR_ISA_NONE || i->rows != 1 || !(i->form & MR_F_SLOTS) ||
	     mr_isa_type(i) != MR_T_F16 || i->cols % (16 * i->src[2]) ||
	     8ull * i->address + 2ull * MR_ISA_BLOCK * i->cols >
		     r->c->chips[i->chip].kv_block_bytes))
		status = bad(r, i, "fields");
	if (!status)
		status = take(r, i, 0, start, rows, i->interval, &x);
	if (!status && (x->rows != rows || x->type != MR_T_F16 || x->cols != i->cols || x->groups))
		status = late(r, i, "other rows pass in this cycle");
	if (!status && (!p->table_ready || p->table_ready > start))
		status = late(r, i, "the slot table is not there yet");
	if (!status)
		status = port(r, i, WRITES, r->chip->write_ports, b);
	if (!status && p->kv_count == REPLAY_KV)
		status = bad(r, i, "more SCATTERs than a step may have");
	if (status)
		return status;
	p->kv[p->kv_count++] =
		(struct kv_part){i->address, i->src[2], i->cols, end + r->chip->mem_latency};
	return done_by(r, i, end + r->chip->mem_latency);
}

/* ---- MXM ---- */

static int mxm_until(struct replay *r, const struct mr_isa *i, uint64_t start, uint64_t end)
{
	struct replay_chip *p = part_of(r, i);

	if (start < p->mxm_free)
		return late(r, i, "the matrix unit is still at work");
	p->mxm_free = end;
	return done_by(r, i, end);
}

/* A matrix type: its layout, the chip's bit, bytes of what a tile's address counts in, and how planes take it. */
struct matrix {
	uint32_t layout, bit;
	uint32_t group;  /* outputs that lie side by side */
	uint32_t inputs; /* of a block */
	uint32_t block;  /* its bytes */
	uint32_t halves; /* FP16 takes half of a plane's inputs and two cycles a row */
};

static int matrix_of(uint32_t type, struct matrix *m)
{
	*m = type == MR_T_Q4_1X16
		     ? (struct matrix){MR_LAYOUT_Q4_1X16, MR_CHIP_TYPE_Q4_1, 16, 32, 320, 1}
	     : type == MR_T_Q8_0X16
		     ? (struct matrix){MR_LAYOUT_Q8_0X16, MR_CHIP_TYPE_Q8_0, 16, 32, 544, 1}
		     : (struct matrix){MR_LAYOUT_F16, MR_CHIP_TYPE_F16, 1, 1, 2, 2};
	return type == MR_T_Q4_1X16 || type == MR_T_Q8_0X16 || type == MR_T_F16;
}

static int rule_loadw(struct replay *r, const struct mr_isa *i, uint64_t start)
{
	struct replay_chip *p = part_of(r, i);
	const struct mr_prog_segment *s = segment_at(r, i->chip, 8ull * i->address);
	uint64_t at, end, inputs, tiles;
	struct matrix m;

	if (!matrix_of(mr_isa_type(i), &m) || !unused(i, 0) || i->dst != MR_ISA_NONE || i->peer ||
	    i->interval || i->form & 0xf0 || !i->rows || !i->cols || i->cols % m.inputs ||
	    i->cols > COLS_MAX || !(r->chip->types & m.bit) || !s || s->layout != m.layout ||
	    i->stride != (uint64_t)s->cols / m.inputs * m.block)
		return bad(r, i, "fields, or no such matrix");
	at = 8ull * i->address - s->address;
	if (at % i->stride % m.block ||
	    at % i->stride / m.block + i->cols / m.inputs > s->cols / m.inputs ||
	    at / i->stride * m.group + i->rows > s->rows)
		return bad(r, i, "a tile outside its matrix");
	inputs = r->chip->plane_rows / m.halves;
	tiles = inputs ? replay_ceil(i->cols, inputs) * replay_ceil(i->rows, r->chip->plane_cols)
		       : UINT64_MAX;
	if (tiles > r->chip->plane_count)
		return bad(r, i, "a tile larger than the planes");
	end = start + replay_ceil(replay_ceil(i->rows, m.group) * (i->cols / m.inputs) * m.block,
				  r->chip->install_cycle_bytes);
	if (p->installed && !p->used)
		return late(r, i, "nothing used the weights before these");
	p->installed = 1;
	p->used = 0;
	p->weights_ready = end;
	p->outputs = i->rows;
	p->inputs = i->cols;
	p->halves = m.halves;
	return mxm_until(r, i, start, end);
}

static int rule_mul(struct replay *r, const struct mr_isa *i, uint64_t start)
{
	struct replay_chip *p = part_of(r, i);
	uint64_t rows = rows_of(r, i), end = start + rows * i->interval;
	struct passing *x = NULL;
	int status = check_flags(r, i, MR_F_SLOTS);

	if (!status && (!unused(i, 1) || i->peer || i->address ||
			(mr_isa_type(i) != MR_T_Q8 && mr_isa_type(i) != MR_T_F16)))
		status = bad(r, i, "fields");
	if (!status)
		status = take(r, i, 0, start, rows, i->interval, &x);
	if (!status &&
	    (x->rows != rows || x->type != mr_isa_type(i) || x->cols != i->cols || x->groups))
		status = late(r, i, "other rows pass in this cycle");
	if (!status && (!p->installed || p->weights_ready > start))
		status = late(r, i, "the weights are not installed yet");
	if (!status && (p->halves == 2) != (mr_isa_type(i) == MR_T_F16))
		status = late(r, i, "weights of another type are installed");
	if (!status && i->interval < p->halves)
		status = late(r, i, "rows too quick for the planes");
	if (!status && (p->used || p->inputs != i->cols || p->outputs != i->stride))
		status = late(r, i, "these are not the weights that are installed");
	if (!status && i->op == MR_I_ACC &&
	    (!p->summing || p->sums_outputs != i->stride || p->sums_rows != i->rows))
		status = late(r, i, "no such sums were begun");
	if (!status)
		status = mxm_until(r, i, start, end);
	if (!status && i->op == MR_I_MUL && p->summing)
		status = late(r, i, "the sums before these went nowhere");
	if (status)
		return status;
	p->used = 1;
	p->summing = i->dst == MR_ISA_NONE;
	p->sums_outputs = i->stride;
	p->sums_rows = i->rows;
	if (i->dst == MR_ISA_NONE)
		return 0;
	if (i->interval < replay_ceil(i->stride, r->chip->vector_lanes))
		return late(r, i, "rows too quick for a stream");
	return put(r, i,
		   (struct passing){.start = start + r->chip->plane_latency,
				    .rows = (uint32_t)rows,
				    .interval = i->interval,
				    .type = MR_T_F32,
				    .cols = i->stride});
}

static int rule_blocks(struct replay *r, const struct mr_isa *i, uint64_t start)
{
	int dots = i->op == MR_I_DOTS;
	uint64_t blocks = rows_of(r, i), rows = i->stride;
	uint64_t in = replay_ceil(dots ? i->cols : MR_ISA_TILE, r->chip->vector_lanes);
	uint64_t out = replay_ceil(dots ? MR_ISA_TILE : i->cols, r->chip->vector_lanes);
	uint64_t kv_at = start + rows * in, through = kv_at + blocks * i->interval;
	struct passing *x = NULL, *kv = NULL;
	int status = check_flags(r, i, MR_F_BLOCKS);

	if (!status && (i->src[2] != MR_ISA_NONE || i->peer || (!dots && i->address) ||
			i->rows != 1 || !(i->form & MR_F_BLOCKS) || i->cols % 16 ||
			i->cols > 1024 || mr_isa_type(i) != MR_T_F32 || !rows || rows > 65535))
		status = bad(r, i, "fields");
	if (!status)
		status = take(r, i, 0, start, rows, in, &x);
	if (!status)
		status = take(r, i, 1, kv_at, blocks, i->interval, &kv);
	if (!status && (x->rows != rows || x->type != MR_T_F32 || x->groups || !kv->groups ||
			kv->rows != blocks || kv->cols != i->cols || rows % kv->groups ||
			(dots ? x->cols != i->cols : x->cols != MR_ISA_TILE || !x->tile)))
		status = late(r, i, "other rows pass in this cycle");
	if (!status &&
	    i->interval < MR_ISA_BLOCK * replay_ceil(kv->groups * replay_ceil(i->cols,
									      r->chip->plane_rows),
						     r->chip->plane_count))
		status = late(r, i, "blocks too quick for the planes");
	if (!status)
		status = mxm_until(r, i, start, through);
	return status ? status
		      : put(r, i,
			    (struct passing){.start = through + r->chip->plane_latency,
					     .rows = (uint32_t)rows,
					     .interval = (uint32_t)out,
					     .type = MR_T_F32,
					     .cols = dots ? MR_ISA_TILE : i->cols,
					     .tile = (uint32_t)dots});
}

/* ---- VXM ---- */

/* How many sources an instruction has. */
static int sources_of(uint8_t op)
{
	switch (op) {
	case MR_I_FILL:
		return 0;
	case MR_I_MUL3:
	case MR_I_FMA:
		return 3;
	case MR_I_RSQRT:
	case MR_I_SUM:
	case MR_I_SUMSQ:
	case MR_I_RMAX:
	case MR_I_CVT:
	case MR_I_QUANT32:
		return 1;
	default:
		return 2;
	}
}

/* A source that repeats must do so a whole number of times. */
static int check_source(struct replay *r, const struct mr_isa *i, int k, uint64_t start,
			uint64_t rows, uint32_t *tile)
{
	struct passing *p = NULL;
	int status;

	if (i->src[k] == MR_ISA_IMM0 || i->src[k] == MR_ISA_IMM1)
		return sources_of(i->op) == 1 ? bad(r, i, "an immediate alone") : 0;
	status = take(r, i, k, start, rows, i->interval, &p);
	if (status)
		return status;
	if (p->type != MR_T_F32 || p->groups || p->cols > i->cols || i->cols % p->cols ||
	    (p->rows != 1 && p->rows != rows) || (sources_of(i->op) == 1 && p->cols != i->cols) ||
	    (i->op == MR_I_CMUL && (k ? p->cols % 16 : p->cols != i->cols)))
		return late(r, i, "other rows pass in this cycle");
	*tile |= p->tile;
	return 0;
}

static int rule_vector(struct replay *r, const struct mr_isa *i, uint64_t start)
{
	uint64_t rows = rows_of(r, i), end = start + rows * i->interval;
	int n = sources_of(i->op);
	int reduces = i->op == MR_I_SUM || i->op == MR_I_SUMSQ || i->op == MR_I_RMAX;
	uint32_t tile = 0;
	int status = check_flags(r, i, MR_F_SLOTS);

	if (!status &&
	    (!unused(i, n) || i->peer || mr_isa_type(i) != MR_T_F32 ||
	     (i->op == MR_I_CVT && i->cols % 16) || (i->op == MR_I_CMUL && i->cols % 16) ||
	     (i->op == MR_I_QUANT32 && i->cols % 32)))
		status = bad(r, i, "fields");
	if (!status && i->interval < replay_ceil(i->cols, r->chip->vector_lanes))
		status = late(r, i, "rows too quick for the lanes");
	for (int k = 0; !status && k < n; k++)
		status = check_source(r, i, k, start, rows, &tile);
	if (!status && tile && (i->op == MR_I_CVT || i->op == MR_I_QUANT32 || i->op == MR_I_CMUL))
		status = bad(r, i, "a row of which elements are absent");
	if (!status)
		status = port(r, i, ALUS, r->chip->vector_alus, (struct busy){start, end, 0, 0});
	return status ? status
		      : put(r, i,
			    (struct passing){.start = start + r->chip->vector_latency,
					     .rows = (uint32_t)rows,
					     .interval = i->interval,
					     .type = i->op == MR_I_CVT       ? MR_T_F16
						     : i->op == MR_I_QUANT32 ? MR_T_Q8
									     : MR_T_F32,
					     .cols = reduces ? 1 : i->cols,
					     .tile = reduces ? 0 : tile});
}

/* ---- C2C ---- */

static int rule_send(struct replay *r, const struct mr_isa *i, uint64_t start)
{
	uint32_t pair = i->chip * r->c->sched->chips + i->peer;
	uint64_t rows = rows_of(r, i), end = start + rows * i->interval;
	uint64_t bits = 8 * mr_isa_row_bytes(mr_isa_type(i), i->cols);
	uint64_t hop = replay_ceil(r->chip->hop_ps, r->chip->cycle_ps);
	struct passing *p = NULL;
	int status = check_flags(r, i, MR_F_SLOTS);

	if (!status && (!unused(i, 1) || i->dst != MR_ISA_NONE || i->address || i->stride ||
			!bits || i->peer >= r->c->sched->chips || i->peer == i->chip))
		status = bad(r, i, "fields");
	if (!status)
		status = take(r, i, 0, start, rows, i->interval, &p);
	if (!status &&
	    (p->rows != rows || p->type != mr_isa_type(i) || p->cols != i->cols || p->groups))
		status = late(r, i, "other rows pass in this cycle");
	if (!status && i->interval < replay_ceil(replay_ceil(bits * 1000000, r->chip->link_mbps),
						 r->chip->cycle_ps))
		status = late(r, i, "rows too quick for the link");
	if (!status && (start < r->link_free[pair] || r->flight[pair].there))
		status = late(r, i, "the link still carries other rows");
	if (status)
		return status;
	r->link_free[pair] = end;
	r->flight[pair] = *p;
	r->flight[pair].start = start + hop;
	return done_by(r, i, end);
}

static int rule_recv(struct replay *r, const struct mr_isa *i, uint64_t start)
{
	uint64_t rows = rows_of(r, i);
	struct passing *f;
	int status = check_flags(r, i, MR_F_SLOTS);

	if (!status && (!unused(i, 0) || i->address || i->stride || i->peer >= r->c->sched->chips ||
			i->peer == i->chip))
		status = bad(r, i, "fields");
	if (status)
		return status;
	f = &r->flight[i->peer * r->c->sched->chips + i->chip];
	if (!f->there || f->start != start || f->rows != rows || f->interval != i->interval ||
	    f->type != mr_isa_type(i) || f->cols != i->cols)
		return late(r, i, "nothing like it arrives in this cycle");
	f->there = 0;
	return put(r, i, *f);
}

/* ---- HOST ---- */

static int rule_host(struct replay *r, const struct mr_isa *i, uint64_t start)
{
	struct replay_chip *p = part_of(r, i);
	struct span s = span_of(r, i);
	uint64_t end = start + 1;
	int status = 0;

	if (!unused(i, 0) || i->dst != MR_ISA_NONE || i->peer)
		return bad(r, i, "fields");
	if (start < p->host_free)
		return late(r, i, "the unit is still at work");
	switch (i->op) {
	case MR_I_DMA_IN: {
		const struct mr_sched_chip *c = &r->c->sched_chips[i->chip];

		status = check_flags(r, i, MR_F_SLOTS);
		if (!status && (mr_isa_type(i) != MR_T_U32 || i->rows != 1 ||
				!(i->form & MR_F_SLOTS) || 8ull * i->address != c->table_address ||
				i->stride != c->table_stride || 4ull * i->cols != c->table_stride))
			status = bad(r, i, "fields");
		if (!status && i->interval < least_interval(r, c->table_stride))
			status = late(r, i, "rows too quick");
		if (!status)
			status = writable(r, i, &s, start, i->interval);
		end = start + s.rows * i->interval + r->chip->mem_latency;
		p->table_ready = end;
		break;
	}
	case MR_I_DMA_OUT:
	case MR_I_SAMPLE:
		if (!r->in_slot || i->form != (MR_T_F32 | MR_F_SLOT) || i->rows != 1 ||
		    i->interval || i->cols != r->c->ref->vocab)
			return bad(r, i, "fields");
		status = readable(r, i, &s, start);
		r->samples += i->op == MR_I_SAMPLE;
		if (i->op == MR_I_SAMPLE)
			end = start + replay_ceil(i->cols, r->chip->vector_lanes) +
			      r->chip->sample_cycles;
		break;
	default: /* RECORD */
		if (i->form || i->rows || i->interval || i->cols || i->address || i->stride ||
		    !r->in_slot || r->in_tile || r->samples != 1)
			return bad(r, i, "fields, or no SAMPLE before it");
		end = start + r->chip->record_cycles;
		r->records++;
		r->record_end = end;
	}
	p->host_free = end;
	return status ? status : done_by(r, i, end);
}

int mr_replay_rule(struct replay *r, const struct mr_isa *i, uint64_t start)
{
	switch (i->op) {
	case MR_I_READ:
		return rule_read(r, i, start);
	case MR_I_WRITE:
		return rule_write(r, i, start);
	case MR_I_GATHER:
		return rule_gather(r, i, start);
	case MR_I_SCATTER:
		return rule_scatter(r, i, start);
	case MR_I_LOADW:
		return rule_loadw(r, i, start);
	case MR_I_MUL:
	case MR_I_ACC:
		return rule_mul(r, i, start);
	case MR_I_DOTS:
	case MR_I_SUMS:
		return rule_blocks(r, i, start);
	case MR_I_SEND:
		return rule_send(r, i, start);
	case MR_I_RECV:
		return rule_recv(r, i, start);
	case MR_I_DMA_IN:
	case MR_I_DMA_OUT:
	case MR_I_SAMPLE:
	case MR_I_RECORD:
		return rule_host(r, i, start);
	default:
		if (i->op < MR_I_ADD || i->op > MR_I_QUANT32)
			return bad(r, i, "no such instruction");
		return rule_vector(r, i, start);
	}
}
