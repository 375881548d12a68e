// SPDX-License-Identifier: Apache-2.0
/* MEM, C2C and HOST: what moves bytes. A READ's burst is the SRAM itself; a WRITE copies. */
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "firmware-sim/exec_parts.h"
#include "kernels/cpu/pack.h"

/* Row 0 of the instruction's rows, and how far apart they are. */
static uint8_t *rows_at(const struct exec *e, const struct mr_isa *i, size_t *stride)
{
	uint8_t *at = exec_sram(e, i);

	*stride = i->stride;
	if (i->form & MR_F_SLOT) {
		at += (size_t)e->slot * i->stride;
		*stride = (size_t)mr_isa_row_bytes(mr_isa_type(i), i->cols);
	}
	return at;
}

static int do_read(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end)
{
	uint32_t rows = exec_rows(e, i);
	struct burst *b = exec_put(e, i, start + e->timing.mem_latency, rows, i->interval,
				   mr_isa_type(i), i->cols);

	b->data = rows_at(e, i, &b->stride);
	if (i->form & MR_F_TILE)
		b->valid = exec_tile_positions(e);
	*end = start + (uint64_t)rows * i->interval;
	return 0;
}

static int do_write(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end)
{
	const struct burst *b = exec_take(e, i, 0, start);
	size_t stride, bytes = (size_t)mr_isa_row_bytes(mr_isa_type(i), i->cols);
	uint32_t rows = exec_rows(e, i);
	uint8_t *to = rows_at(e, i, &stride);

	if (!b || b->rows != rows || b->interval != i->interval)
		return mr_exec_violation(e, i, start, "the rows are not there in this cycle");
	for (uint32_t r = 0; r < rows; r++)
		memcpy(to + r * stride, b->data + r * b->stride, bytes);
	*end = start + (uint64_t)rows * i->interval + e->timing.mem_latency;
	return 0;
}

static uint8_t *kv_block(const struct exec *e, uint32_t chip, uint32_t id)
{
	return sim_sram_at(e->sram, chip,
			   e->chip[chip].kv_address + id * e->chip[chip].kv_block_bytes);
}

/* The slot table as DMA_IN left it in the chip's SRAM. */
static const struct mr_isa_slot *table_row(const struct exec *e, uint32_t chip, uint32_t slot)
{
	const struct exec_chip *c = &e->chip[chip];

	return (const struct mr_isa_slot *)sim_sram_at(
		e->sram, chip, c->table_address + (uint64_t)slot * c->table_stride);
}

static void gather_blocks(struct exec *e, const struct mr_isa *i, struct burst *b)
{
	const struct mr_isa_slot *row = table_row(e, i->chip, e->slot);
	const uint32_t *ids = (const uint32_t *)(row + 1) + e->tile * EXEC_TILE_BLOCKS;

	b->groups = i->src[2];
	b->offset = 8ull * i->address;
	b->valid = exec_tile_positions(e);
	for (uint32_t k = 0; k < exec_tile_blocks(e); k++)
		b->block[k] = kv_block(e, i->chip, ids[k]);
}

static int do_gather(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end)
{
	uint32_t type = mr_isa_type(i), rows = exec_rows(e, i);
	struct burst *b = exec_put(e, i, start + e->timing.mem_latency, rows, i->interval,
				   i->src[0] == MR_INDEX_BLOCKS ? MR_T_F16 : MR_T_F32, i->cols);
	const uint8_t *base = exec_sram(e, i);

	*end = start + (uint64_t)rows * i->interval;
	if (i->src[0] == MR_INDEX_BLOCKS) {
		gather_blocks(e, i, b);
		return 0;
	}
	for (uint32_t r = 0; r < rows; r++) {
		const struct mr_isa_slot *row = table_row(e, i->chip, r);
		uint32_t index = i->src[0] == MR_INDEX_TOKEN ? row->token : row->position;
		float *to = (float *)(b->buffer + r * b->stride);

		if (type == MR_T_F32) {
			memcpy(to, base + (size_t)index * i->stride, 4ull * i->cols);
			continue;
		}
		struct mr_matrix m = {
			.data = base + (size_t)(index / 16) * i->stride,
			.rows = 16,
			.cols = i->cols,
			.packing = type == MR_T_Q4_1X16 ? MR_PACK_Q4_1X16 : MR_PACK_Q8_0X16,
		};
		mr_unpack_row(&m, index % 16, to);
	}
	return 0;
}

static int do_scatter(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end)
{
	const struct burst *b = exec_take(e, i, 0, start);
	uint32_t rows = exec_rows(e, i), groups = i->src[2];
	size_t part = (size_t)i->cols / groups * 2;

	if (!b || b->rows != rows || b->interval != i->interval)
		return mr_exec_violation(e, i, start, "the rows are not there in this cycle");
	for (uint32_t r = 0; r < rows; r++) {
		const struct mr_isa_slot *row = table_row(e, i->chip, r);
		const uint32_t *ids = (const uint32_t *)(row + 1);
		uint8_t *to = kv_block(e, i->chip, ids[row->position / MR_ISA_BLOCK]) +
			      8ull * i->address + row->position % MR_ISA_BLOCK * part;

		for (uint32_t g = 0; g < groups; g++)
			memcpy(to + g * MR_ISA_BLOCK * part, b->data + r * b->stride + g * part,
			       part);
	}
	*end = start + (uint64_t)rows * i->interval + e->timing.mem_latency;
	return 0;
}

int mr_exec_mem(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end)
{
	switch (i->op) {
	case MR_I_READ:
		return do_read(e, i, start, end);
	case MR_I_WRITE:
		return do_write(e, i, start, end);
	case MR_I_GATHER:
		return do_gather(e, i, start, end);
	default:
		return do_scatter(e, i, start, end);
	}
}

int mr_exec_c2c(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end)
{
	uint32_t rows = exec_rows(e, i);
	uint64_t hop = exec_ceil(e->timing.hop_ps, e->timing.cycle_ps);
	struct burst *b, *f;

	*end = start + (uint64_t)rows * i->interval;
	if (i->op == MR_I_SEND) {
		b = exec_take(e, i, 0, start);
		f = &e->flight[i->chip * e->p.chips + i->peer];
		if (!b || b->rows != rows || b->interval != i->interval)
			return mr_exec_violation(e, i, start,
						 "the rows are not there in this cycle");
		size_t bytes = (size_t)mr_isa_row_bytes(b->type, b->cols);
		uint8_t *buffer = realloc(f->buffer, bytes * rows + 64);

		if (!buffer)
			return mr_exec_violation(e, i, start, "no memory");
		f->buffer = buffer;
		for (uint32_t r = 0; r < rows; r++)
			memcpy(buffer + r * bytes, b->data + r * b->stride, bytes);
		f->start = start + hop;
		f->rows = rows;
		f->interval = i->interval;
		f->stride = bytes;
		return 0;
	}
	f = &e->flight[i->peer * e->p.chips + i->chip];
	if (f->start != start || f->rows != rows || f->interval != i->interval)
		return mr_exec_violation(e, i, start, "nothing arrives in this cycle");
	b = exec_put(e, i, start, rows, i->interval, mr_isa_type(i), i->cols);
	for (uint32_t r = 0; r < rows; r++)
		memcpy(b->buffer + r * b->stride, f->buffer + r * f->stride, b->stride);
	return 0;
}

int mr_exec_host(struct exec *e, const struct mr_isa *i, uint64_t start, uint64_t *end)
{
	uint64_t *free_at = &e->host_free[i->chip];

	if (start < *free_at)
		return mr_exec_violation(e, i, start, "the unit is still at work");
	switch (i->op) {
	case MR_I_DMA_IN:
		for (uint32_t k = 0; k < e->n; k++) {
			const struct exec_slot *s = &e->slots[k];
			struct mr_isa_slot row = {s->token, s->position,
						  s->position / MR_ISA_BLOCK + 1, 0};
			uint8_t *to = exec_sram(e, i) + (size_t)k * i->stride;

			memcpy(to, &row, sizeof(row));
			memcpy(to + sizeof(row), s->blocks, row.blocks * sizeof(*s->blocks));
		}
		*end = start + (uint64_t)exec_rows(e, i) * i->interval + e->timing.mem_latency;
		break;
	case MR_I_DMA_OUT:
		*end = start + 1;
		break;
	case MR_I_SAMPLE:
		e->logits[e->slot] = (const float *)(exec_sram(e, i) + (size_t)e->slot * i->stride);
		*end = start + exec_ceil(i->cols, e->timing.vector_lanes) + e->timing.sample_cycles;
		break;
	default: /* RECORD */
		*end = start + e->timing.record_cycles;
		e->record[e->slot] = *end;
	}
	*free_at = *end;
	return 0;
}
