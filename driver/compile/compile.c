// SPDX-License-Identifier: Apache-2.0
/*
 * From a model's tensors to a sealed container: sizes, placement, tables, packed weights, claim. A tensor
 * is packed straight to its place in the container, so weights are held once beside the model's file.
 */
#include "driver/compile/compile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/lpu_spec.h>
#include <millrace/status.h>

#include "driver/compile/cost.h"
#include "driver/compile/place.h"
#include "driver/compile/schedule.h"
#include "driver/model/gguf.h"
#include "driver/model/model.h"
#include "kernels/cpu/math.h"
#include "kernels/cpu/pack.h"
#include "userlib/spec/container.h"
#include "userlib/spec/why.h"

#define TILE_BLOCKS 16u /* of an attention tile */

struct job {
	const struct mr_model *model;
	const struct mr_compile_options *opt;
	struct mr_spec_why *why;
	struct mr_program *program;
	struct placement place;
	uint64_t *layer_bytes;
	uint32_t context;
	int columns; /* a schedule that cuts matrices by columns of their products */
	int tied;    /* one chip holds embedding and head, and they are one matrix */

	/* the tables under way; a segment's offset counts from the first one's until the container is there */
	struct mr_prog_segment *segments;
	const struct mr_tensor **tensors; /* of each segment; NULL = angles */
	uint32_t *first_row;              /* of the tensor, that the segment begins with */
	uint32_t segment_count;
	uint64_t data;                  /* bytes of the segments so far */
	uint64_t sram[PLACE_CHIPS_MAX]; /* first free address of each chip */
	uint64_t work[PLACE_CHIPS_MAX]; /* where a schedule's work area lies */
	struct sched_layer *layers;     /* [layers]: which segment is what */
	uint32_t embed, norm, head;     /* segments */
	struct emitter *emitter;
	struct emitted emitted;
	struct mr_sched_area *areas;
	uint32_t area_count;

	/* the container */
	uint8_t *bytes;
	struct mr_prog_header *header;
};

static uint64_t align(uint64_t n, uint64_t to)
{
	return (n + to - 1) / to * to;
}

static uint32_t layout_of(const struct mr_tensor *t)
{
	switch (t->type) {
	case MR_TENSOR_F32:
		return MR_LAYOUT_F32;
	case MR_TENSOR_Q4_1:
		return MR_LAYOUT_Q4_1X16;
	case MR_TENSOR_Q8_0:
		return MR_LAYOUT_Q8_0X16;
	default:
		return 0;
	}
}

static uint64_t tensor_bytes(const struct mr_tensor *t)
{
	return align(mr_layout_bytes(layout_of(t), t->rows, t->cols), MR_PROG_ALIGN);
}

/* A layer's tensors in the order of enum mr_ref_tensor. */
static void layer_tensors(const struct mr_model_layer *l,
			  const struct mr_tensor *out[MR_REF_TENSORS])
{
	const struct mr_tensor *all[MR_REF_TENSORS] = {&l->attn_norm, &l->q,  &l->k,
						       &l->v,         &l->o,  &l->ffn_norm,
						       &l->gate,      &l->up, &l->down};
	memcpy(out, all, sizeof(all));
}

/* Every matrix must be of a type that the chip multiplies, every vector FP32. */
static int check_tensor(struct job *j, const struct mr_tensor *t)
{
	uint32_t layout = layout_of(t), types = j->opt->chip->types;
	int ok = t->rows == 1 ? layout == MR_LAYOUT_F32
			      : (layout == MR_LAYOUT_Q4_1X16 && types & MR_CHIP_TYPE_Q4_1) ||
					(layout == MR_LAYOUT_Q8_0X16 && types & MR_CHIP_TYPE_Q8_0);

	if (!ok)
		return mr_spec_why(j->why, MR_E_NOT_SUPPORTED,
				   "%s is of type %s, of which chip %s has no product", t->name,
				   mr_tensor_type_name(t->type), j->opt->chip->name);
	if (!tensor_bytes(t) || strlen(t->name) >= sizeof(((struct mr_prog_segment *)0)->tensor))
		return mr_spec_why(j->why, MR_E_MODEL, "%s: size or name", t->name);
	return 0;
}

/* The reference payload's layers have neither of these. */
static int check_architecture(struct job *j)
{
	const struct mr_model *m = j->model;

	if (m->shape.rope_steps)
		return mr_spec_why(j->why, MR_E_NOT_SUPPORTED,
				   "the program's layers have no scaled RoPE, which this %s has",
				   m->architecture);
	for (uint32_t l = 0; l < m->shape.layers; l++) {
		const struct mr_model_layer *in = &m->layers[l];
		const struct mr_tensor *others[] = {&in->q_bias, &in->k_bias, &in->v_bias,
						    &in->q_norm, &in->k_norm};

		for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
			if (others[i]->data)
				return mr_spec_why(j->why, MR_E_NOT_SUPPORTED,
						   "%s: the program's layers have no such tensor",
						   others[i]->name);
	}
	return 0;
}

static int check_model(struct job *j)
{
	const struct mr_model *m = j->model;
	const struct mr_tensor *t[MR_REF_TENSORS];
	int status = check_architecture(j);

	if (!status)
		status = check_tensor(j, &m->token_embd);
	if (!status)
		status = check_tensor(j, &m->output);
	if (!status)
		status = check_tensor(j, &m->output_norm);
	for (uint32_t l = 0; !status && l < m->shape.layers; l++) {
		layer_tensors(&m->layers[l], t);
		for (int i = 0; !status && i < MR_REF_TENSORS; i++)
			status = check_tensor(j, t[i]);
	}
	return status;
}

static int refuse(struct job *j, const struct place_sizes *sizes, uint32_t least)
{
	struct mr_fit *fit = &j->program->fit;
	struct placement other;

	for (uint32_t n = 1; n <= PLACE_CHIPS_MAX && !fit->chips_least; n++)
		if (mr_place_layers(sizes, j->opt->chip->sram_bytes, n, least, &other))
			fit->chips_least = n;
	mr_spec_why(
		j->why, 0,
		"does not fit: %llu bytes of matrices, %llu of norms and tables, %llu of work area "
		"and %llu of KV for one context of %u tokens; %u x %s have %llu; %s%u",
		(unsigned long long)fit->matrices, (unsigned long long)fit->vectors,
		(unsigned long long)fit->work, (unsigned long long)fit->kv_least, j->context,
		fit->chips, j->opt->chip->name, (unsigned long long)fit->sram,
		fit->chips_least ? "chips that would do: " : "more chips than ",
		fit->chips_least ? fit->chips_least : PLACE_CHIPS_MAX);
	return MR_E_SRAM_FULL;
}

static int is_schedule(const struct job *j)
{
	return j->opt->payload == MR_PAYLOAD_SCHEDULE;
}

static uint64_t angles_bytes(const struct job *j)
{
	return align(4ull * j->context * j->model->shape.head_dim, MR_PROG_ALIGN);
}

/* By columns no chip has layers of its own but slices of all: what the fullest has, norms included. */
static uint64_t cut_layers(struct job *j)
{
	struct mr_fit *fit = &j->program->fit;
	const struct mr_tensor *t[MR_REF_TENSORS];
	uint64_t most = 0;

	memset(j->layer_bytes, 0, j->model->shape.layers * sizeof(*j->layer_bytes));
	for (uint32_t c = 0; c < j->opt->chips; c++) {
		uint64_t bytes = 0;

		for (uint32_t l = 0; l < j->model->shape.layers; l++) {
			layer_tensors(&j->model->layers[l], t);
			for (int i = 0; i < MR_REF_TENSORS; i++) {
				uint32_t first = 0, end = 1;

				if (t[i]->rows > 1)
					sched_slice(t[i]->rows, c, j->opt->chips, &first, &end);
				bytes += align(
					mr_layout_bytes(layout_of(t[i]), end - first, t[i]->cols),
					MR_PROG_ALIGN);
				if (c && t[i]->rows == 1)
					fit->vectors += tensor_bytes(t[i]);
			}
		}
		most = bytes > most ? bytes : most;
	}
	return most;
}

/* Sizes, then the cut of the pipeline; fills program->fit. */
static int place(struct job *j)
{
	const struct mr_model *m = j->model;
	struct mr_fit *fit = &j->program->fit;
	const struct mr_tensor *t[MR_REF_TENSORS];
	int shared = m->output.data == m->token_embd.data;
	uint32_t least = (j->context + MR_KV_BLOCK_TOKENS - 1) / MR_KV_BLOCK_TOKENS;

	j->tied = shared && j->opt->chips == 1;
	fit->chips = j->opt->chips;
	fit->sram = j->opt->chip->sram_bytes * j->opt->chips;
	fit->vectors = tensor_bytes(&m->output_norm);
	fit->matrices = tensor_bytes(&m->token_embd) + (j->tied ? 0 : tensor_bytes(&m->output));
	for (uint32_t l = 0; l < m->shape.layers; l++) {
		layer_tensors(&m->layers[l], t);
		for (int i = 0; i < MR_REF_TENSORS; i++) {
			j->layer_bytes[l] += tensor_bytes(t[i]);
			*(t[i]->rows == 1 ? &fit->vectors : &fit->matrices) += tensor_bytes(t[i]);
		}
	}
	struct place_sizes sizes = {
		.layer = j->layer_bytes,
		.layers = m->shape.layers,
		.embed = tensor_bytes(&m->token_embd),
		.head = tensor_bytes(&m->output) + tensor_bytes(&m->output_norm),
		.head_tied =
			tensor_bytes(&m->output_norm) + (shared ? 0 : tensor_bytes(&m->output)),
		.kv_layer = mr_kv_layer_bytes(&m->shape),
	};
	if (is_schedule(j)) {
		uint64_t work = mr_schedule_work(&m->shape, j->opt->batch, j->context, 0);
		uint64_t logits = mr_schedule_work(&m->shape, j->opt->batch, j->context, 1) - work;

		sizes.each = align(work, MR_PROG_ALIGN) + angles_bytes(j);
		sizes.head += logits;
		sizes.head_tied += logits;
		fit->work = align(work, MR_PROG_ALIGN) * j->opt->chips + logits;
		fit->vectors += angles_bytes(j) * j->opt->chips;
	}
	if (j->columns)
		sizes.each += cut_layers(j);
	fit->kv_least = least * sizes.kv_layer * sizes.layers;
	if (!mr_place_layers(&sizes, j->opt->chip->sram_bytes, j->opt->chips, least, &j->place))
		return refuse(j, &sizes, least);
	fit->kv_blocks = j->place.kv_blocks;
	fit->kv = fit->kv_blocks * sizes.kv_layer * sizes.layers;
	fit->chips_least = j->opt->chips;
	for (uint32_t n = 1; n < j->opt->chips; n++) {
		struct placement other;
		if (mr_place_layers(&sizes, j->opt->chip->sram_bytes, n, least, &other)) {
			fit->chips_least = n;
			break;
		}
	}
	return 0;
}

/* The next segment on @chip, after what is there. Returns its index. */
static uint32_t put_rows(struct job *j, const char *name, uint32_t layout, uint32_t rows,
			 uint32_t cols, uint32_t chip)
{
	const struct mr_chip *desc = j->opt->chip;
	uint64_t bank_bytes = desc->sram_bytes / (desc->sram_slices * desc->sram_banks);
	uint32_t i = j->segment_count++;
	struct mr_prog_segment *s = &j->segments[i];

	snprintf(s->tensor, sizeof(s->tensor), "%s", name);
	s->address = j->sram[chip];
	s->layout = layout;
	s->bytes = mr_layout_bytes(layout, rows, cols);
	s->offset = j->data;
	s->chip = chip;
	s->slice = (uint32_t)(s->address / bank_bytes / desc->sram_banks);
	s->bank = (uint32_t)(s->address / bank_bytes % desc->sram_banks);
	s->rows = rows;
	s->cols = cols;
	j->sram[chip] += align(s->bytes, MR_PROG_ALIGN);
	j->data += align(s->bytes, MR_PROG_ALIGN);
	return i;
}

/* Rows [first, end) of @t; NULL where there are none. */
static const struct mr_prog_segment *put_slice(struct job *j, const struct mr_tensor *t,
					       uint32_t first, uint32_t end, uint32_t chip)
{
	uint32_t i;

	if (first == end)
		return NULL;
	i = put_rows(j, t->name, layout_of(t), end - first, t->cols, chip);
	j->tensors[i] = t;
	j->first_row[i] = first;
	return &j->segments[i];
}

static uint32_t put_segment(struct job *j, const struct mr_tensor *t, uint32_t chip)
{
	return (uint32_t)(put_slice(j, t, 0, t->rows, chip) - j->segments);
}

static void put_layer(struct job *j, uint32_t layer, uint32_t chip)
{
	const struct mr_tensor *t[MR_REF_TENSORS];

	layer_tensors(&j->model->layers[layer], t);
	for (int i = 0; i < MR_REF_TENSORS; i++) {
		uint32_t first = 0, end = t[i]->rows;

		if (j->columns && t[i]->rows > 1)
			sched_slice(t[i]->rows, chip, j->place.chips, &first, &end);
		j->layers[layer].tensor[chip][i] = put_slice(j, t[i], first, end, chip);
	}
}

/* Every tensor's place. */
static void put_segments(struct job *j)
{
	uint32_t last = j->place.chips - 1;

	j->embed = put_segment(j, &j->model->token_embd, 0);
	for (uint32_t c = 0; c < j->place.chips; c++) {
		if (is_schedule(j))
			put_rows(j, "angles", MR_LAYOUT_F32, j->context, j->model->shape.head_dim,
				 c);
		for (uint32_t k = 0; k < j->place.layers[c] && !j->columns; k++)
			put_layer(j, j->place.first[c] + k, c);
		for (uint32_t l = 0; l < j->model->shape.layers && j->columns; l++)
			put_layer(j, l, c);
	}
	j->norm = put_segment(j, &j->model->output_norm, last);
	j->head = j->tied ? j->embed : put_segment(j, &j->model->output, last);
}

static struct mr_ref_op *put_op(struct mr_ref_op *op, uint32_t kind, uint32_t chip, uint32_t layer)
{
	op->kind = kind;
	op->chip = chip;
	op->layer = layer;
	for (int i = 0; i < MR_REF_TENSORS; i++)
		op->segment[i] = MR_REF_NONE;
	return op;
}

/* The list of layers that a device walks. */
static void put_list(const struct job *j, struct mr_ref_op *op)
{
	put_op(op, MR_REF_EMBED, 0, 0)->segment[0] = j->embed;
	for (uint32_t c = 0; c < j->place.chips; c++) {
		for (uint32_t k = 0; k < j->place.layers[c]; k++) {
			uint32_t layer = j->place.first[c] + k;

			op = put_op(op + 1, MR_REF_LAYER, c, layer);
			for (int i = 0; i < MR_REF_TENSORS; i++)
				op->segment[i] =
					(uint32_t)(j->layers[layer].tensor[c][i] - j->segments);
		}
	}
	op = put_op(op + 1, MR_REF_HEAD, j->place.chips - 1, 0);
	op->segment[0] = j->norm;
	op->segment[1] = j->head;
}

/* The work areas behind the segments, and the instructions. */
static int emit(struct job *j)
{
	const struct mr_shape *shape = &j->model->shape;
	const struct mr_prog_segment *angles[PLACE_CHIPS_MAX] = {NULL};
	int status = mr_emit_create(j->opt->chip, j->place.chips, &j->emitter);

	for (uint32_t i = 0; i < j->segment_count; i++)
		if (!j->tensors[i])
			angles[j->segments[i].chip] = &j->segments[i];
	j->areas = calloc((size_t)j->place.chips * SCHED_AREAS, sizeof(*j->areas));
	if (!j->areas)
		status = MR_E_NO_MEMORY;
	for (uint32_t c = 0; !status && c < j->place.chips; c++) {
		j->work[c] = j->sram[c];
		j->area_count +=
			mr_schedule_areas(shape, j->opt->batch, j->context, c == j->place.chips - 1,
					  c, j->work[c], j->areas + j->area_count);
		j->sram[c] += align(
			mr_schedule_work(shape, j->opt->batch, j->context, c == j->place.chips - 1),
			MR_PROG_ALIGN);
	}
	struct sched_input in = {
		.shape = shape,
		.chip = j->opt->chip,
		.chips = j->place.chips,
		.batch = j->opt->batch,
		.context = j->context,
		.place = &j->place,
		.columns = j->columns,
		.embed = &j->segments[j->embed],
		.norm = &j->segments[j->norm],
		.head = &j->segments[j->head],
		.angles = angles,
		.layers = j->layers,
		.work = j->work,
	};
	if (!status)
		status = mr_schedule_emit(&in, j->emitter, &j->emitted);
	if (status)
		mr_spec_why(j->why, status, "no schedule for chip %s", j->opt->chip->name);
	return status;
}

static uint64_t payload_bytes(const struct job *j)
{
	uint64_t bytes = sizeof(struct mr_ref_header) + j->place.chips * sizeof(struct mr_ref_chip);

	if (!is_schedule(j))
		return bytes + (j->model->shape.layers + 2) * sizeof(struct mr_ref_op);
	return bytes + sizeof(struct mr_sched_header) +
	       j->place.chips * sizeof(struct mr_sched_chip) +
	       j->area_count * sizeof(struct mr_sched_area) +
	       ((uint64_t)j->emitted.icu_count + j->emitted.inst_count) * sizeof(struct mr_isa);
}

static void put_schedule(struct job *j, void *to)
{
	struct mr_sched_header *h = to;
	struct mr_sched_chip *chips = (struct mr_sched_chip *)(h + 1);
	struct mr_sched_area *areas = (struct mr_sched_area *)(chips + j->place.chips);
	struct mr_isa *code = (struct mr_isa *)(areas + j->area_count);

	*h = (struct mr_sched_header){
		.version = 1,
		.chips = j->place.chips,
		.icu = j->emitted.icu_count,
		.instructions = j->emitted.inst_count,
		.areas = j->area_count,
	};
	for (uint32_t c = 0; c < j->place.chips; c++)
		chips[c] = (struct mr_sched_chip){
			.work_address = j->work[c],
			.work_bytes = j->sram[c] - j->work[c],
			.table_address = j->work[c],
			.table_stride = mr_schedule_table_stride(j->context),
		};
	memcpy(areas, j->areas, j->area_count * sizeof(*areas));
	memcpy(code, j->emitted.icu, h->icu * sizeof(*code));
	memcpy(code + h->icu, j->emitted.inst, h->instructions * sizeof(*code));
}

static void put_payload(struct job *j)
{
	const struct mr_shape *s = &j->model->shape;
	struct mr_ref_header *ref = (struct mr_ref_header *)(j->bytes + j->header->payload_offset);
	struct mr_ref_chip *chips = (struct mr_ref_chip *)(ref + 1);

	*ref = (struct mr_ref_header){
		.version = 1,
		.chips = j->place.chips,
		.ops = is_schedule(j) ? 0 : s->layers + 2,
		.kv_blocks = j->place.kv_blocks,
		.layers = s->layers,
		.width = s->width,
		.heads = s->heads,
		.kv_heads = s->kv_heads,
		.head_dim = s->head_dim,
		.ffn = s->ffn,
		.vocab = s->vocab,
		.context = j->context,
		.rms_eps = s->rms_eps,
		.rope_base = s->rope_base,
	};
	for (uint32_t c = 0; c < j->place.chips; c++) {
		chips[c].first_layer = j->place.first[c];
		chips[c].layers = j->place.layers[c];
		chips[c].kv_block_bytes = j->place.layers[c] * mr_kv_layer_bytes(s);
		chips[c].kv_address = j->sram[c];
	}
	if (is_schedule(j))
		put_schedule(j, chips + j->place.chips);
	else
		put_list(j, (struct mr_ref_op *)(chips + j->place.chips));
}

static void put_tables(struct job *j)
{
	const struct mr_shape *s = &j->model->shape;
	struct mr_prog_segment *segments = (struct mr_prog_segment *)(j->header + 1);
	struct mr_prog_io *io = (struct mr_prog_io *)(segments + j->header->segments);
	struct mr_prog_epoch *epoch = (struct mr_prog_epoch *)(io + j->header->ios);
	struct mr_prog_claim *claim = (struct mr_prog_claim *)(epoch + 1);

	memcpy(segments, j->segments, j->segment_count * sizeof(*segments));
	for (uint32_t i = 0; i < j->segment_count; i++)
		segments[i].offset += j->header->meta_bytes;
	io[0] = (struct mr_prog_io){"token", MR_IO_TOKEN_IN, 0, sizeof(uint32_t), {0, 0}};
	io[1] = (struct mr_prog_io){"kv", MR_IO_KV_IN, 0, s->layers * mr_kv_layer_bytes(s), {0, 0}};
	io[2] = (struct mr_prog_io){
		"record", MR_IO_RECORD_OUT, 0, sizeof(struct mr_lpu_record), {0, 0}};
	io[3] = (struct mr_prog_io){"logits", MR_IO_LOGITS_OUT, 0, 4ull * s->vocab, {0, 0}};
	*epoch = (struct mr_prog_epoch){.kind = MR_EPOCH_DECODE_STEP};
	if (is_schedule(j)) {
		epoch->ops = j->emitted.inst_count;
		*claim = j->emitted.claim;
		claim->tile_blocks = TILE_BLOCKS;
		return;
	}
	epoch->ops = s->layers + 2;
	claim->tile_blocks = TILE_BLOCKS;
	struct mr_container view = {
		.segments = segments,
		.ref = (struct mr_ref_header *)(j->bytes + j->header->payload_offset),
	};
	view.chips = (struct mr_ref_chip *)(view.ref + 1);
	view.ops = (struct mr_ref_op *)(view.chips + view.ref->chips);
	mr_cost_claim(&view, j->opt->chip, claim);
}

/* Angle of pair i at position p: p * base^(-2i / head_dim), as kernels/cpu/workspace.c makes it. */
static void put_angles(const struct job *j, float *to)
{
	const struct mr_shape *s = &j->model->shape;
	double ln_base = mr_log((double)s->rope_base);

	for (uint32_t i = 0; i < s->head_dim; i += 2) {
		double step = mr_exp_double(-(double)i / s->head_dim * ln_base);

		for (uint32_t p = 0; p < j->context; p++) {
			double sine, cosine;

			mr_sincos(p * step, &sine, &cosine);
			to[(size_t)p * s->head_dim + i] = (float)cosine;
			to[(size_t)p * s->head_dim + i + 1] = (float)sine;
		}
	}
}

/* A row of a matrix in the model's file: blocks of 32 columns, of 20 or 34 bytes. */
static const void *row_of(const struct mr_tensor *t, uint32_t row)
{
	return (const uint8_t *)t->data +
	       (size_t)row * (t->cols / 32) * (t->type == MR_TENSOR_Q4_1 ? 20 : 34);
}

static void pack_weights(struct job *j)
{
	const float *angles = NULL;
	uint64_t done = 0;

	for (uint32_t i = 0; i < j->segment_count; i++) {
		const struct mr_tensor *t = j->tensors[i];
		const struct mr_prog_segment *s = &j->segments[i];
		void *to = j->bytes + j->header->meta_bytes + s->offset;
		if (!t && angles)
			memcpy(to, angles, s->bytes);
		else if (!t)
			put_angles(j, to);
		else if (s->layout == MR_LAYOUT_F32)
			memcpy(to, t->data, s->bytes);
		else
			mr_pack(s->layout == MR_LAYOUT_Q4_1X16 ? MR_PACK_Q4_1X16 : MR_PACK_Q8_0X16,
				row_of(t, j->first_row[i]), s->rows, s->cols, to);
		angles = t ? angles : to;
		done += s->bytes;
		if (j->opt->progress)
			j->opt->progress(j->opt->progress_arg, (unsigned)(done * 100 / j->data));
	}
}

/* Placement, segments and, of a schedule, instructions: all but the container's bytes. */
static int plan(struct job *j)
{
	const struct mr_shape *shape = &j->model->shape;
	uint32_t each = shape->layers * MR_REF_TENSORS;
	uint32_t room = each * (j->columns ? j->opt->chips : 1) + 3 + j->opt->chips;
	int status;

	j->layer_bytes = calloc(shape->layers, sizeof(*j->layer_bytes));
	j->segments = calloc(room, sizeof(*j->segments));
	j->tensors = calloc(room, sizeof(*j->tensors));
	j->first_row = calloc(room, sizeof(*j->first_row));
	j->layers = calloc(shape->layers, sizeof(*j->layers));
	if (!j->layer_bytes || !j->segments || !j->tensors || !j->first_row || !j->layers)
		return mr_spec_why(j->why, MR_E_NO_MEMORY, "out of memory");
	status = place(j);
	if (status)
		return status;
	put_segments(j);
	return is_schedule(j) ? emit(j) : 0;
}

static int write_container(struct job *j)
{
	const struct mr_model *m = j->model;
	struct mr_prog_header h = {
		.chips = j->place.chips,
		.batch = j->opt->batch,
		.context = j->context,
		.payload_kind = is_schedule(j) ? MR_PAYLOAD_SCHEDULE : MR_PAYLOAD_REFERENCE,
		.segments = j->segment_count,
		.ios = 4,
		.epochs = 1,
		.claims = 1,
		.payload_bytes = payload_bytes(j),
	};

	mr_container_layout(&h);
	h.total_bytes = h.meta_bytes + j->data;
	memcpy(h.chip_hash, j->opt->chip->hash, sizeof(h.chip_hash));
	snprintf(h.numeric_class, sizeof(h.numeric_class), "%s", j->opt->chip->classes);
	snprintf(h.model, sizeof(h.model), "%.31s", m->name ? m->name : "");
	j->bytes = calloc(1, h.total_bytes);
	if (!j->bytes)
		return mr_spec_why(j->why, MR_E_NO_MEMORY, "out of memory");
	j->header = (struct mr_prog_header *)j->bytes;
	*j->header = h;
	put_payload(j);
	put_tables(j);
	pack_weights(j);
	mr_container_seal(j->bytes);
	return 0;
}

static void end_job(struct job *j)
{
	if (j->emitter)
		mr_emit_destroy(j->emitter);
	free(j->bytes);
	free(j->tensors);
	free(j->first_row);
	free(j->segments);
	free(j->areas);
	free(j->layers);
	free(j->layer_bytes);
}

/* Cycles of a full batch in the middle of the context. */
static uint64_t cycles_of(const struct job *j)
{
	const struct mr_prog_claim *c = &j->emitted.claim;
	uint64_t blocks = j->context / 2 / MR_KV_BLOCK_TOKENS + 1;

	return c->base + j->opt->batch * (c->slot + c->block * blocks +
					  c->tile * ((blocks + TILE_BLOCKS - 1) / TILE_BLOCKS));
}

/* Plans both cuts of a schedule where the choice is ours, and leaves the quicker one in @j. */
static int plan_best(struct job *j)
{
	enum mr_split want = j->opt->split;
	uint32_t chips = j->opt->chips;
	struct mr_program other_program = {0};
	struct mr_spec_why nobody = {NULL, 0};
	struct job other = *j;
	int meshed = is_schedule(j) && chips > 1 && chips - 1 <= j->opt->chip->links;
	int status;

	if (want == MR_SPLIT_COLUMNS && !meshed)
		return mr_spec_why(j->why, MR_E_NOT_SUPPORTED,
				   "by columns each of %u chips needs a link to each other", chips);
	j->columns = want == MR_SPLIT_COLUMNS;
	status = plan(j);
	if (want != MR_SPLIT_BEST || !meshed)
		return status;
	other.columns = 1;
	other.program = &other_program;
	other.why = &nobody;
	if (!plan(&other) && (status || cycles_of(&other) < cycles_of(j))) {
		struct job swap = *j;
		struct mr_program *program = j->program;
		struct mr_spec_why *why = j->why;

		*program = other_program;
		*j = other;
		j->program = program;
		j->why = why;
		other = swap;
		status = 0;
	}
	end_job(&other);
	return status;
}

int mr_compile(const struct mr_model *model, const struct mr_compile_options *options,
	       struct mr_program *program, char *text, size_t text_bytes)
{
	struct mr_spec_why why = {text, text_bytes};
	struct job j = {.model = model, .opt = options, .why = &why, .program = program};
	int status;

	memset(program, 0, sizeof(*program));
	j.context = options->context ? options->context : model->shape.context;
	if (!options->chips || options->chips > PLACE_CHIPS_MAX || !options->batch ||
	    options->batch > 65536 || j.context > model->shape.context)
		return mr_spec_why(&why, MR_E_RANGE,
				   "%u chips, batch %u, context %u of the model's %u",
				   options->chips, options->batch, j.context, model->shape.context);
	status = check_model(&j);
	if (!status)
		status = plan_best(&j);
	if (!status)
		status = write_container(&j);
	if (!status) {
		program->container = j.bytes;
		program->bytes = j.header->total_bytes;
		program->fit.split = j.columns ? MR_SPLIT_COLUMNS : MR_SPLIT_PIPELINE;
		j.bytes = NULL;
	}
	end_job(&j);
	return status;
}

void mr_program_free(struct mr_program *program)
{
	free(program->container);
	program->container = NULL;
	program->bytes = 0;
}
