// SPDX-License-Identifier: Apache-2.0
/*
 * The verifier: does an opened container fit this chip, and do its tables and its payload agree?
 * After it, whoever runs the program may follow every index, address and size in it without looking
 * again.
 */
#include <string.h>

#include <millrace/lpu_spec.h>
#include <millrace/status.h>

#include "userlib/spec/container.h"
#include "userlib/spec/why.h"

#define DIM_MAX     (1u << 20) /* any of the shape's numbers */
#define LAYERS_MAX  4096u
#define CONTEXT_MAX (1u << 24)

static int zero(const void *p, size_t n)
{
	const unsigned char *b = p;

	for (size_t i = 0; i < n; i++)
		if (b[i])
			return 0;
	return 1;
}

static int check_target(const struct mr_container *c, const struct mr_chip *chip, uint32_t chips,
			struct mr_spec_why *why)
{
	const struct mr_prog_header *h = c->header;

	if (memcmp(h->chip_hash, chip->hash, sizeof(h->chip_hash)))
		return mr_spec_why(why, MR_E_NOT_SUPPORTED,
				   "compiled for another chip file than %s's", chip->name);
	if (strcmp(h->numeric_class, chip->classes))
		return mr_spec_why(why, MR_E_NOT_SUPPORTED,
				   "numeric class %s, the chip computes %s", h->numeric_class,
				   chip->classes);
	if (!h->chips || h->chips > chips)
		return mr_spec_why(why, MR_E_NOT_SUPPORTED,
				   "compiled for %u chips, the device has %u", h->chips, chips);
	if (c->ref->chips != h->chips)
		return mr_spec_why(why, MR_E_FORMAT, "payload and header differ in chips");
	if (!h->batch || h->batch > 65536 || !h->context || h->context > CONTEXT_MAX)
		return mr_spec_why(why, MR_E_RANGE, "batch %u, context %u", h->batch, h->context);
	return 0;
}

static int check_shape(const struct mr_container *c, struct mr_spec_why *why)
{
	const struct mr_ref_header *r = c->ref;

	if (!r->layers || r->layers > LAYERS_MAX || !r->width || r->width > DIM_MAX || !r->heads ||
	    r->heads > 65536 || !r->kv_heads || r->kv_heads > r->heads || !r->head_dim ||
	    r->head_dim > 4096 || !r->ffn || r->ffn > DIM_MAX || !r->vocab || r->vocab > DIM_MAX ||
	    r->context != c->header->context)
		return mr_spec_why(why, MR_E_RANGE, "the model's shape");
	if (r->width % 32 || r->ffn % 32 || r->head_dim % 16 || r->heads % r->kv_heads ||
	    (uint64_t)r->heads * r->head_dim > DIM_MAX || r->heads * r->head_dim % 32)
		return mr_spec_why(why, MR_E_RANGE,
				   "the model's shape is not one that class D computes");
	if (!(r->rms_eps >= 0 && r->rms_eps < 1) || !(r->rope_base >= 1 && r->rope_base < 1e12f))
		return mr_spec_why(why, MR_E_RANGE, "the model's constants");
	if (!r->kv_blocks || r->kv_blocks > CONTEXT_MAX || !zero(r->reserved, sizeof(r->reserved)))
		return mr_spec_why(why, MR_E_RANGE, "KV blocks or reserved fields");
	return 0;
}

static int check_segment(const struct mr_container *c, uint32_t i, const struct mr_chip *chip,
			 uint64_t *file_end, struct mr_spec_why *why)
{
	const struct mr_prog_segment *s = &c->segments[i];
	uint64_t bank_bytes = chip->sram_bytes / (chip->sram_slices * chip->sram_banks);

	if (!memchr(s->tensor, 0, sizeof(s->tensor)) || !zero(s->reserved, sizeof(s->reserved)))
		return mr_spec_why(why, MR_E_FORMAT, "segment %u: name or reserved fields", i);
	if (s->chip >= c->header->chips || !s->bytes ||
	    s->bytes != mr_layout_bytes(s->layout, s->rows, s->cols))
		return mr_spec_why(why, MR_E_FORMAT, "segment %u: chip, layout or size", i);
	if (s->address % MR_PROG_ALIGN || s->address > chip->sram_bytes ||
	    s->bytes > chip->sram_bytes - s->address)
		return mr_spec_why(why, MR_E_SRAM_FULL, "segment %u lies outside the chip's SRAM",
				   i);
	if (s->slice != s->address / bank_bytes / chip->sram_banks ||
	    s->bank != s->address / bank_bytes % chip->sram_banks)
		return mr_spec_why(why, MR_E_FORMAT, "segment %u: slice or bank", i);
	if (s->offset % MR_PROG_ALIGN || s->offset < *file_end ||
	    s->offset - *file_end >= MR_PROG_DATA_ALIGN || s->offset > c->header->total_bytes ||
	    s->bytes > c->header->total_bytes - s->offset)
		return mr_spec_why(why, MR_E_FORMAT, "segment %u lies outside the container", i);
	*file_end = s->offset + s->bytes;
	return 0;
}

/* Segments in ascending address on each chip, KV above them, layers in one ascending sequence. */
static int check_places(const struct mr_container *c, const struct mr_chip *chip,
			struct mr_spec_why *why)
{
	const struct mr_ref_header *r = c->ref;
	uint64_t layer_bytes = (uint64_t)2 * r->kv_heads * MR_KV_BLOCK_TOKENS * r->head_dim * 2;
	uint64_t file_end = c->header->meta_bytes;
	uint32_t layer = 0;

	for (uint32_t i = 0; i < c->header->segments; i++) {
		int status = check_segment(c, i, chip, &file_end, why);
		if (status)
			return status;
	}
	for (uint32_t k = 0; k < r->chips; k++) {
		const struct mr_ref_chip *part = &c->chips[k];
		uint64_t end = 0;
		for (uint32_t i = 0; i < c->header->segments; i++) {
			if (c->segments[i].chip != k)
				continue;
			if (c->segments[i].address < end)
				return mr_spec_why(why, MR_E_FORMAT, "segment %u overlaps another",
						   i);
			end = c->segments[i].address + c->segments[i].bytes;
		}
		if (part->first_layer != layer || part->layers > r->layers - layer ||
		    part->kv_block_bytes != part->layers * layer_bytes ||
		    !zero(part->reserved, sizeof(part->reserved)))
			return mr_spec_why(why, MR_E_FORMAT, "chip %u: layers or KV", k);
		layer += part->layers;
		if (part->kv_address % MR_PROG_ALIGN || part->kv_address < end ||
		    part->kv_address > chip->sram_bytes ||
		    part->kv_block_bytes * r->kv_blocks > chip->sram_bytes - part->kv_address)
			return mr_spec_why(why, MR_E_SRAM_FULL, "chip %u: KV outside the SRAM", k);
	}
	if (layer != r->layers)
		return mr_spec_why(why, MR_E_FORMAT, "layers without a chip");
	return 0;
}

static int tensor_is(const struct mr_container *c, const struct mr_chip *chip,
		     const struct mr_ref_op *op, uint32_t slot, uint32_t rows, uint32_t cols)
{
	uint32_t i = op->segment[slot];

	if (i >= c->header->segments)
		return 0;
	const struct mr_prog_segment *s = &c->segments[i];
	int vector = rows == 1;
	if (s->chip != op->chip || s->rows != rows || s->cols != cols)
		return 0;
	if (vector)
		return s->layout == MR_LAYOUT_F32;
	return (s->layout == MR_LAYOUT_Q4_1X16 && chip->types & MR_CHIP_TYPE_Q4_1) ||
	       (s->layout == MR_LAYOUT_Q8_0X16 && chip->types & MR_CHIP_TYPE_Q8_0);
}

static int check_op(const struct mr_container *c, const struct mr_chip *chip, uint32_t i,
		    struct mr_spec_why *why)
{
	const struct mr_ref_header *r = c->ref;
	const struct mr_ref_op *op = &c->ops[i];
	uint32_t q = r->heads * r->head_dim, kv = r->kv_heads * r->head_dim, used = 0;
	uint32_t kind = i == 0 ? MR_REF_EMBED : i == r->ops - 1 ? MR_REF_HEAD : MR_REF_LAYER;
	int ok = op->kind == kind && op->chip < r->chips && !op->reserved0 &&
		 zero(op->reserved, sizeof(op->reserved)) &&
		 op->layer == (kind == MR_REF_LAYER ? i - 1 : 0) &&
		 (!i || op->chip >= c->ops[i - 1].chip);

	if (ok && kind == MR_REF_EMBED) {
		ok = tensor_is(c, chip, op, 0, r->vocab, r->width);
		used = 1;
	} else if (ok && kind == MR_REF_HEAD) {
		ok = tensor_is(c, chip, op, 0, 1, r->width) &&
		     tensor_is(c, chip, op, 1, r->vocab, r->width);
		used = 2;
	} else if (ok) {
		const struct mr_ref_chip *part = &c->chips[op->chip];
		ok = op->layer >= part->first_layer &&
		     op->layer - part->first_layer < part->layers &&
		     tensor_is(c, chip, op, MR_REF_ATTN_NORM, 1, r->width) &&
		     tensor_is(c, chip, op, MR_REF_Q, q, r->width) &&
		     tensor_is(c, chip, op, MR_REF_K, kv, r->width) &&
		     tensor_is(c, chip, op, MR_REF_V, kv, r->width) &&
		     tensor_is(c, chip, op, MR_REF_O, r->width, q) &&
		     tensor_is(c, chip, op, MR_REF_FFN_NORM, 1, r->width) &&
		     tensor_is(c, chip, op, MR_REF_GATE, r->ffn, r->width) &&
		     tensor_is(c, chip, op, MR_REF_UP, r->ffn, r->width) &&
		     tensor_is(c, chip, op, MR_REF_DOWN, r->width, r->ffn);
		used = MR_REF_TENSORS;
	}
	for (; ok && used < MR_REF_TENSORS; used++)
		ok = op->segment[used] == MR_REF_NONE;
	return ok ? 0 : mr_spec_why(why, MR_E_FORMAT, "operation %u contradicts the tables", i);
}

static int check_tables(const struct mr_container *c, struct mr_spec_why *why)
{
	const struct mr_prog_header *h = c->header;

	for (uint32_t i = 0; i < h->params; i++)
		if (!memchr(c->params[i].name, 0, sizeof(c->params[i].name)) ||
		    c->params[i].reserved0 || c->params[i].smallest > c->params[i].initial ||
		    c->params[i].initial > c->params[i].largest)
			return mr_spec_why(why, MR_E_FORMAT, "param %u", i);
	for (uint32_t i = 0; i < h->ios; i++)
		if (!memchr(c->ios[i].name, 0, sizeof(c->ios[i].name)) || c->ios[i].reserved0 ||
		    c->ios[i].kind < MR_IO_TOKEN_IN || c->ios[i].kind > MR_IO_LOGITS_OUT ||
		    !zero(c->ios[i].reserved, sizeof(c->ios[i].reserved)))
			return mr_spec_why(why, MR_E_FORMAT, "io %u", i);
	if (h->epochs != 1 || h->claims != 1)
		return mr_spec_why(why, MR_E_FORMAT, "a program has one epoch and one claim");
	if (c->epochs[0].kind != MR_EPOCH_DECODE_STEP || c->epochs[0].first_op ||
	    c->epochs[0].ops != (c->sched ? c->sched->instructions : c->ref->ops) ||
	    c->epochs[0].claim || !zero(c->epochs[0].reserved, sizeof(c->epochs[0].reserved)))
		return mr_spec_why(why, MR_E_FORMAT, "epoch 0");
	if (c->claims[0].epoch || c->claims[0].tile_blocks != 16 ||
	    !zero(c->claims[0].reserved, sizeof(c->claims[0].reserved)))
		return mr_spec_why(why, MR_E_FORMAT, "claim 0");
	return 0;
}

int mr_container_verify(const struct mr_container *c, const struct mr_chip *chip, uint32_t chips,
			char *text, size_t text_bytes)
{
	struct mr_spec_why why = {text, text_bytes};
	int status = check_target(c, chip, chips, &why);

	if (!status)
		status = check_shape(c, &why);
	if (!status)
		status = check_places(c, chip, &why);
	if (!status)
		status = check_tables(c, &why);
	if (!status && c->sched)
		return mr_schedule_verify(c, chip, &why);
	if (!status && c->ref->ops != c->ref->layers + 2)
		status = mr_spec_why(&why, MR_E_FORMAT, "a list of %u operations for %u layers",
				     c->ref->ops, c->ref->layers);
	for (uint32_t i = 0; !status && i < c->ref->ops; i++)
		status = check_op(c, chip, i, &why);
	return status;
}
