// SPDX-License-Identifier: Apache-2.0
/*
 * Load: compile the model for the device's chip, send the container through a staging region, verify,
 * activate. Set-up: allocates, sleeps.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/compile/compile.h"
#include "driver/lpu/internal.h"
#include "driver/metrics.h"
#include "driver/model/model.h"
#include "userlib/spec/container.h"

#define STAGING_BYTES (4u << 20)
#define LOGITS_BYTES  (32u << 20) /* of rows, at least; each row is a step of an entry that asked */

struct progress {
	void (*call)(void *arg, unsigned percent);
	void *arg;
	unsigned first, span; /* this part's percent: first to first + span */
	unsigned last;
};

static void report(void *arg, unsigned percent)
{
	struct progress *p = arg;
	unsigned now = p->first + percent * p->span / 100;

	if (p->call && now != p->last)
		p->call(p->arg, now);
	p->last = now;
}

static int program_command(struct lpu *lpu, uint32_t action, uint64_t iova, uint64_t offset,
			   uint64_t bytes)
{
	struct mr_lpu_cmd_program cmd = {
		.head.opcode = MR_LPU_PROGRAM,
		.action = action,
		.iova = iova,
		.offset = offset,
		.bytes = bytes,
	};

	return mr_lpu_admin(lpu, &cmd, NULL);
}

static int send(struct lpu *lpu, const struct mr_program *program, struct progress *progress)
{
	int status = program_command(lpu, MR_LPU_PROGRAM_BEGIN, 0, 0, program->bytes);

	for (uint64_t at = 0; !status && at < program->bytes;) {
		uint64_t n = program->bytes - at;
		if (n > lpu->staging->bytes)
			n = lpu->staging->bytes;
		memcpy(lpu->staging->base, (const uint8_t *)program->container + at, n);
		status = program_command(lpu, MR_LPU_PROGRAM_WRITE, lpu->staging->iova, at, n);
		mr_count(MR_M_copy_weights_lpu, n);
		at += n;
		report(progress, (unsigned)(at * 100 / program->bytes));
	}
	if (!status)
		status = program_command(lpu, MR_LPU_PROGRAM_VERIFY, 0, 0, 0);
	if (!status)
		status = program_command(lpu, MR_LPU_PROGRAM_ACTIVATE, 0, 0, 0);
	return status;
}

static uint32_t smaller(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

int mr_lpu_staging(struct lpu *lpu)
{
	return lpu->staging ? 0
			    : mr_arena_region(lpu->arena, MR_REGION_WEIGHTS, STAGING_BYTES,
					      &lpu->staging);
}

static int make_room(struct lpu *lpu, uint32_t vocab, uint32_t batch)
{
	uint64_t row = (4ull * vocab + 63) / 64 * 64;
	uint64_t rows = LOGITS_BYTES / row > batch ? LOGITS_BYTES / row : batch;
	int status = mr_lpu_staging(lpu);

	if (!status && (!lpu->logits || lpu->logits->bytes < rows * row))
		status = mr_arena_region(lpu->arena, MR_REGION_READBACK, rows * row, &lpu->logits);
	if (status)
		return status;
	lpu->row_bytes = row;
	lpu->row_room = (struct fifo){.size = rows};
	lpu->rows_done = 0;
	return 0;
}

static int set_caps(struct lpu *lpu, const struct mr_model *model, uint32_t batch, uint32_t context,
		    const struct mr_program *program)
{
	struct mr_caps *caps = &lpu->dev.caps;

	caps->context = context;
	caps->batch_max = batch;
	caps->vocab = model->shape.vocab;
	struct mr_container c;
	if (!mr_container_open(program->container, program->bytes, &c, NULL, 0)) {
		const struct mr_prog_claim *claim = c.claims;

		caps->cycles = (struct mr_cycles){claim->base, claim->slot, claim->block,
						  claim->tile, claim->record};
		caps->latency_exact = c.sched != NULL;
	}
	caps->kv_tokens = (uint64_t)program->fit.kv_blocks * MR_KV_BLOCK_TOKENS;
	lpu->kv_layer_bytes = mr_kv_layer_bytes(&model->shape);
	lpu->layers = model->shape.layers;
	lpu->vocab = model->shape.vocab;
	int status = mr_lpu_slots_create(lpu, program->fit.kv_blocks);
	if (!status)
		status = mr_lpu_read_room(lpu);
	lpu->loaded = !status;
	return status;
}

static int compile(struct lpu *lpu, const struct mr_model *model, uint32_t batch, uint32_t context,
		   struct progress *progress, struct mr_program *program)
{
	struct mr_compile_options options = {
		.chip = &lpu->chip,
		.chips = lpu->id.chips,
		.batch = batch,
		.context = context,
		.payload = MR_PAYLOAD_SCHEDULE,
		.progress = report,
		.progress_arg = progress,
	};
	int status = mr_compile(model, &options, program, lpu->why, sizeof(lpu->why));

	/* Where no schedule can be made or none fits, the device walks the layers itself. */
	if (status == MR_E_NOT_SUPPORTED || status == MR_E_SRAM_FULL) {
		options.payload = MR_PAYLOAD_REFERENCE;
		status = mr_compile(model, &options, program, lpu->why, sizeof(lpu->why));
	}
	return status;
}

int mr_lpu_reload(struct lpu *lpu)
{
	struct progress none = {.span = 100};
	struct mr_program program;
	int status;

	if (!lpu->loaded)
		return 0;
	status = compile(lpu, lpu->model, lpu->dev.caps.batch_max, lpu->dev.caps.context, &none,
			 &program);
	if (status)
		return status;
	status = send(lpu, &program, &none);
	mr_program_free(&program);
	return status;
}

int mr_lpu_load(struct mr_device *dev, const struct mr_model *model,
		void (*call)(void *arg, unsigned percent), void *arg)
{
	struct lpu *lpu = lpu_of(dev);
	struct progress progress = {.call = call, .arg = arg, .span = 40, .last = ~0u};
	uint32_t context = lpu->want_context ? lpu->want_context : model->shape.context;
	uint32_t batch = lpu->want_batch ? lpu->want_batch : 64;
	struct mr_program program;
	int status;

	lpu->why[0] = 0;
	status = lpu->slots_open ? MR_E_BUSY : mr_lpu_settle(lpu);
	if (status)
		return status;
	context = smaller(context, smaller(model->shape.context, lpu->id.context_max));
	batch = smaller(smaller(batch, lpu->id.batch_max), lpu->record_entries);
	status = compile(lpu, model, batch, context, &progress, &program);
	if (status)
		return status;
	lpu->loaded = 0;
	lpu->model = model;
	progress.first = 40;
	progress.span = 60;
	status = make_room(lpu, model->shape.vocab, batch);
	if (!status)
		status = send(lpu, &program, &progress);
	if (!status)
		status = set_caps(lpu, model, batch, context, &program);
	mr_program_free(&program);
	return status;
}

int mr_lpu_load_container(struct mr_device *dev, const void *container, size_t bytes,
			  void (*percent)(void *arg, unsigned percent), void *arg)
{
	struct lpu *lpu = lpu_of(dev);
	struct progress progress = {.call = percent, .arg = arg, .span = 100, .last = ~0u};
	const struct mr_program program = {.container = (void *)(uintptr_t)container,
					   .bytes = bytes};
	int status;

	lpu->why[0] = 0;
	status = lpu->slots_open ? MR_E_BUSY : mr_lpu_settle(lpu);
	if (!status)
		status = mr_lpu_staging(lpu);
	if (status)
		return status;
	/* The account of slots and KV was of the program that ends now. */
	lpu->loaded = 0;
	lpu->model = NULL;
	return send(lpu, &program, &progress);
}
