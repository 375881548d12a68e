// SPDX-License-Identifier: Apache-2.0
/* Opening a program, from a file or by compiling, and walking through a step's cycles. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <millrace/status.h>

#include "driver/model/model.h"
#include "firmware-sim/chips.h"
#include "tools/lpu_program.h"
#include "tools/tools.h"

#define FILE_MAX_BYTES (1ull << 36)

int lpu_option(int option, const char *value, struct lpu_options *o)
{
	static const struct {
		int option;
		const char *name;
		uint64_t least, most;
		size_t offset;
	} numbers[] = {
		{LPU_OPT_CHIPS, "--chips", 1, 64, offsetof(struct lpu_options, chips)},
		{LPU_OPT_BATCH, "--batch", 1, 256, offsetof(struct lpu_options, batch)},
		{LPU_OPT_CONTEXT, "--context", 1, 131072, offsetof(struct lpu_options, context)},
		{LPU_OPT_SLOTS, "--slots", 1, 256, offsetof(struct lpu_options, slots)},
		{LPU_OPT_POSITION, "--position", 0, 131071, offsetof(struct lpu_options, position)},
	};
	uint64_t n;

	if (option == 'm')
		o->model = value;
	else if (option == LPU_OPT_CHIP)
		o->chip = value;
	if (option == 'm' || option == LPU_OPT_CHIP)
		return 1;
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		if (option != numbers[i].option)
			continue;
		if (tool_parse_number(numbers[i].name, value, numbers[i].least, numbers[i].most,
				      &n))
			return -1;
		*(uint32_t *)((char *)o + numbers[i].offset) = (uint32_t)n;
		return 1;
	}
	return 0;
}

static void *read_all(const char *path, uint64_t most, size_t *bytes)
{
	FILE *f = fopen(path, "rbe");
	char *data = NULL;
	long end = -1;

	if (f && !fseek(f, 0, SEEK_END))
		end = ftell(f);
	if (end >= 0 && (uint64_t)end <= most && !fseek(f, 0, SEEK_SET))
		data = malloc((size_t)end + 1);
	if (data && fread(data, 1, (size_t)end, f) != (size_t)end) {
		free(data);
		data = NULL;
	}
	if (!data)
		fprintf(stderr, "millrace lpu: %s: %s\n", path,
			errno ? strerror(errno) : "not a file of that kind");
	if (f)
		fclose(f);
	*bytes = data ? (size_t)end : 0;
	return data;
}

int lpu_chip(const char *name, struct mr_chip *chip)
{
	const struct mr_sim_builtin_chip *b = mr_sim_builtin_chip(name ? name : "mr1");
	char why[128] = "";
	size_t bytes;
	char *text = b ? NULL : read_all(name, MR_CHIP_BYTES_MAX, &bytes);
	int status;

	if (!b && !text)
		return -1;
	status = b ? mr_chip_parse(b->text, (size_t)(b->end - b->text), chip, why, sizeof(why))
		   : mr_chip_parse(text, bytes, chip, why, sizeof(why));
	free(text);
	if (status)
		fprintf(stderr, "millrace lpu: %s: %s (%s)\n", name, why, mr_status_name(status));
	return status ? -1 : 0;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int compile(const struct lpu_options *o, struct lpu_program *p)
{
	struct mr_model *model = tool_model_open(o->model);
	struct mr_compile_options options = {
		.chip = &p->chip,
		.chips = o->chips ? o->chips : 2,
		.batch = o->batch ? o->batch : 64,
		.context = o->context,
		.payload = o->reference ? MR_PAYLOAD_REFERENCE : MR_PAYLOAD_SCHEDULE,
		.split = (enum mr_split)o->split,
	};
	char why[512] = "";
	double begin = seconds();
	int status;

	if (!model)
		return -1;
	status = mr_compile(model, &options, &p->program, why, sizeof(why));
	p->compile_s = seconds() - begin;
	mr_model_close(model);
	if (status)
		fprintf(stderr, "millrace lpu: %s (%s)\n", *why ? why : mr_strerror(status),
			mr_status_name(status));
	return status ? -1 : 0;
}

int lpu_open(const struct lpu_options *o, struct lpu_program *p)
{
	char why[256] = "";
	int status;

	memset(p, 0, sizeof(*p));
	if (lpu_chip(o->chip, &p->chip))
		return -1;
	if (o->file) {
		p->program.container = read_all(o->file, FILE_MAX_BYTES, &p->program.bytes);
		if (!p->program.container)
			return -1;
	} else if (compile(o, p)) {
		return -1;
	}
	status = mr_container_open(p->program.container, p->program.bytes, &p->c, why, sizeof(why));
	if (!status && p->c.header->total_bytes != p->program.bytes)
		status = MR_E_TRUNCATED;
	if (!status)
		return 0;
	fprintf(stderr, "millrace lpu: %s: %s (%s)\n", o->file ? o->file : "the program",
		*why ? why : mr_strerror(status), mr_status_name(status));
	lpu_close(p);
	return -1;
}

void lpu_close(struct lpu_program *p)
{
	mr_program_free(&p->program);
}

/* ---- the walk ---- */

struct walk {
	const struct lpu_program *p;
	uint32_t slots, position, tile;
	uint64_t now;
	uint32_t at, body;
	void (*each)(void *arg, const struct lpu_span *span);
	void *arg;
};

static uint64_t up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

static uint32_t tile_blocks(const struct walk *w)
{
	uint32_t left = w->position / MR_ISA_BLOCK + 1 - w->tile * (MR_ISA_TILE / MR_ISA_BLOCK);

	return left < MR_ISA_TILE / MR_ISA_BLOCK ? left : MR_ISA_TILE / MR_ISA_BLOCK;
}

/* How long the unit is busy, and when what it makes is there. */
static void times_of(const struct walk *w, struct lpu_span *s)
{
	const struct mr_isa *i = s->inst;
	const struct mr_chip *c = &w->p->chip;
	uint64_t rows = (uint64_t)i->rows * (i->form & MR_F_SLOTS    ? w->slots
					     : i->form & MR_F_BLOCKS ? tile_blocks(w)
								     : 1);

	s->end = s->start + rows * i->interval;
	s->done = s->end;
	switch (i->op) {
	case MR_I_LOADW:
		s->end += up(up(i->rows, 16) * (i->cols / 32) *
				     (mr_isa_type(i) == MR_T_Q4_1X16 ? 320 : 544),
			     c->install_cycle_bytes);
		s->done = s->end;
		break;
	case MR_I_DOTS:
	case MR_I_SUMS:
		s->end +=
			i->stride * up(i->op == MR_I_DOTS ? i->cols : MR_ISA_TILE, c->vector_lanes);
		s->done =
			s->end + c->plane_latency +
			i->stride * up(i->op == MR_I_DOTS ? MR_ISA_TILE : i->cols, c->vector_lanes);
		break;
	case MR_I_MUL:
	case MR_I_ACC:
		s->done += c->plane_latency;
		break;
	case MR_I_SEND:
		s->done += up(c->hop_ps, c->cycle_ps);
		break;
	case MR_I_SAMPLE:
		s->end = s->done = s->start + up(i->cols, c->vector_lanes) + c->sample_cycles;
		break;
	case MR_I_RECORD:
		s->end = s->done = s->start + c->record_cycles;
		break;
	case MR_I_DMA_OUT:
		s->end = s->done = s->start + 1;
		break;
	default:
		if (mr_isa_queue(i) == MR_ISA_VXM)
			s->done += c->vector_latency;
		else if (i->op != MR_I_RECV)
			s->done += c->mem_latency;
	}
}

static void walk_body(struct walk *w, const struct mr_isa *icu)
{
	uint64_t r = icu->form == MR_R_SLOTS    ? w->slots
		     : icu->form == MR_R_BLOCKS ? tile_blocks(w)
						: 0;
	struct lpu_span s = {.body_start = w->now,
			     .body_end = w->now + icu->offset + icu->slope * r};

	for (; w->at < w->p->c.sched->instructions && w->p->c.instructions[w->at].body == icu->body;
	     w->at++) {
		s.inst = &w->p->c.instructions[w->at];
		s.start = w->now + s.inst->offset + s.inst->slope * r;
		times_of(w, &s);
		w->each(w->arg, &s);
	}
	w->now = s.body_end;
}

static uint32_t walk_range(struct walk *w, uint32_t k)
{
	const struct mr_container *c = &w->p->c;

	for (; k < c->sched->icu && c->icu[k].op != MR_I_END; k++) {
		if (c->icu[k].op == MR_I_NOP) {
			walk_body(w, &c->icu[k]);
			continue;
		}
		uint32_t first = w->at, end = k;
		uint32_t times =
			c->icu[k].form == MR_R_SLOTS ? w->slots : w->position / MR_ISA_TILE + 1;
		for (uint32_t t = 0; t < times; t++) {
			w->at = first;
			if (c->icu[k].form == MR_R_TILES)
				w->tile = t;
			end = walk_range(w, k + 1);
		}
		w->tile = 0;
		k = end;
	}
	return k;
}

void lpu_walk(const struct lpu_program *p, const struct lpu_options *o,
	      void (*each)(void *arg, const struct lpu_span *span), void *arg)
{
	struct walk w = {.p = p,
			 .slots = o->slots ? o->slots : 1,
			 .position = o->position,
			 .each = each,
			 .arg = arg};

	walk_range(&w, 0);
}

uint64_t lpu_step_cycles(const struct lpu_program *p, const struct lpu_options *o)
{
	uint32_t blocks = o->position / MR_ISA_BLOCK + 1, n = o->slots ? o->slots : 1;
	const struct mr_prog_claim *c = p->c.claims;

	return c->base +
	       n * (c->slot + c->block * blocks + c->tile * up(blocks, MR_ISA_TILE / MR_ISA_BLOCK));
}
