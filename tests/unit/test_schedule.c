// SPDX-License-Identifier: Apache-2.0
/* The compiler's schedules: the verifier passes them, claims them to the cycle, and refuses what a broken compiler makes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include <millrace/status.h>

#include "driver/compile/compile.h"
#include "driver/compile/product.h"
#include "driver/model/model.h"
#include "firmware-sim/chips.h"
#include "firmware-sim/exec.h"
#include "support/real_model.h"
#include "support/sched_machine.h"
#include "userlib/spec/container.h"

static struct mr_model *model;

static struct mr_chip chip_of(const char *name)
{
	const struct mr_sim_builtin_chip *b = mr_sim_builtin_chip(name);
	struct mr_chip chip;

	assert_int_equal(mr_chip_parse(b->text, (size_t)(b->end - b->text), &chip, NULL, 0), 0);
	return chip;
}

static enum mr_split split = MR_SPLIT_PIPELINE;

static void compile(const struct mr_model *m, const struct mr_chip *chip, uint32_t chips,
		    uint32_t batch, uint32_t context, struct mr_program *program)
{
	const struct mr_compile_options o = {.chip = chip,
					     .chips = chips,
					     .batch = batch,
					     .context = context,
					     .payload = MR_PAYLOAD_SCHEDULE,
					     .split = chips > 1 ? split : MR_SPLIT_PIPELINE};
	char why[256] = "";
	int status = mr_compile(m, &o, program, why, sizeof(why));

	if (status)
		fail_msg("%s x %u, batch %u: %d: %s", chip->name, chips, batch, status, why);
}

static void verify(const struct mr_program *program, const struct mr_chip *chip, uint32_t chips)
{
	struct mr_container c;
	char why[256] = "";
	int status = mr_container_open(program->container, program->bytes, &c, why, sizeof(why));

	if (!status)
		status = mr_container_verify(&c, chip, chips, why, sizeof(why));
	if (status)
		fail_msg("%s x %u: %d: %s", chip->name, chips, status, why);
}

static void schedules_pass_the_verifier(void **state)
{
	static const char *const names[] = {"tiny", "mr1"};
	static const uint32_t chips[] = {1, 2, 4, 8}, batches[] = {1, 3, 64};

	for (int k = 0; k < 2; k++)
		for (int n = 0; n < 4; n++)
			for (int b = 0; b < 3; b++) {
				struct mr_chip chip = chip_of(names[k]);
				struct mr_program program;

				compile(model, &chip, chips[n], batches[b], 300, &program);
				verify(&program, &chip, chips[n]);
				mr_program_free(&program);
			}
}

/* ---- what it computes ---- */

static struct mr_program reference_of(const struct mr_model *m, const struct mr_chip *chip,
				      uint32_t batch, uint32_t context)
{
	const struct mr_compile_options o = {
		.chip = chip, .chips = 1, .batch = batch, .context = context};
	struct mr_program program;

	assert_int_equal(mr_compile(m, &o, &program, NULL, 0), 0);
	return program;
}

/*
 * Slots that start at different positions and go on for @steps: the walker's logits bit for bit, and every record in the
 * cycle that the claim names.
 */
static void compare(const struct mr_model *m, const struct mr_chip *chip, uint32_t chips,
		    uint32_t n, uint32_t context, uint32_t steps)
{
	struct mr_chip large = *chip;
	struct mr_program program, reference;
	struct machine a, b;
	uint32_t tokens[MACHINE_SLOTS], positions[MACHINE_SLOTS];

	large.sram_bytes *= 2;
	compile(m, chip, chips, n, context, &program);
	reference = reference_of(m, &large, n, context);
	machine_open(&a, program.container, program.bytes, chip);
	machine_open(&b, reference.container, reference.bytes, &large);
	for (uint32_t i = 0; i < n; i++)
		positions[i] = 0;
	for (uint32_t step = 0; step < steps; step++) {
		/* Slot i stands still for i steps, so that contexts differ. */
		for (uint32_t i = 0; i < n; i++) {
			tokens[i] = (step * 37 + i * 11 + 5) % m->shape.vocab;
			positions[i] = step > i ? step - i : 0;
		}
		if (machine_step(&a, tokens, positions, n))
			fail_msg("%s x %u: %s", chip->name, chips, mr_exec_why(a.exec));
		machine_step(&b, tokens, positions, n);
		for (uint32_t i = 0; i < n; i++) {
			assert_memory_equal(a.logits[i], b.logits[i], 4ull * m->shape.vocab);
			assert_int_equal(a.record[i], machine_claim(&a, positions, n, i));
		}
		assert_int_equal(a.cycles, machine_claim(&a, positions, n, n - 1));
	}
	machine_close(&a);
	machine_close(&b);
	mr_program_free(&program);
	mr_program_free(&reference);
}

static void bits_are_class_d(void **state)
{
	struct mr_chip tiny = chip_of("tiny"), mr1 = chip_of("mr1");
	static const uint32_t chips[] = {1, 2, 4, 8};

	for (int k = 0; k < 4; k++) {
		compare(model, &mr1, chips[k], 1, 64, 20);
		compare(model, &tiny, chips[k], 3, 64, 35);
	}
	/* Over the end of a tile of 256 positions. */
	compare(model, &mr1, 2, 1, 512, 505);
	compare(model, &tiny, 1, 2, 300, 270);
}

static double step_us(struct machine *m, uint32_t step)
{
	uint32_t token = 1 + step;
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	assert_int_equal(machine_step(m, &token, &step, 1), 0);
	clock_gettime(CLOCK_MONOTONIC, &b);
	return (double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3;
}

static int by_size(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Wall time of a step at batch 1 over that of the same kernels run layer by layer, turn by turn on this thread. */
static void print_ratio(const struct mr_model *m, const struct mr_chip *chip)
{
	enum { STEPS = 31 };
	struct mr_program program, reference;
	struct mr_chip large = *chip;
	struct machine a, b;
	double ratio[STEPS];

	large.sram_bytes *= 2;
	compile(m, chip, 2, 1, 512, &program);
	reference = reference_of(m, &large, 1, 512);
	machine_open(&a, program.container, program.bytes, chip);
	machine_open(&b, reference.container, reference.bytes, &large);
	step_us(&a, 0);
	step_us(&b, 0);
	for (uint32_t step = 0; step < STEPS; step++)
		ratio[step] = step_us(&a, step) / step_us(&b, step);
	qsort(ratio, STEPS, sizeof(*ratio), by_size);
	print_message(
		"wall time of a schedule's step over the CPU's, batch 1: %.2f (median of %d)\n",
		ratio[STEPS / 2], STEPS);
	assert_true(ratio[STEPS / 2] < 2);
	machine_close(&a);
	machine_close(&b);
	mr_program_free(&program);
	mr_program_free(&reference);
}

/* The same bits where each matrix is cut by columns of its product; some chips' slices are empty. */
static void by_columns_too(void **state)
{
	struct mr_chip tiny = chip_of("tiny"), mr1 = chip_of("mr1");
	static const uint32_t chips[] = {2, 4, 8};
	struct mr_program program;

	split = MR_SPLIT_COLUMNS;
	for (int k = 0; k < 3; k++) {
		compile(model, &mr1, chips[k], 64, 300, &program);
		assert_int_equal(program.fit.split, MR_SPLIT_COLUMNS);
		verify(&program, &mr1, chips[k]);
		mr_program_free(&program);
		compile(model, &tiny, chips[k], 3, 64, &program);
		verify(&program, &tiny, chips[k]);
		mr_program_free(&program);
		compare(model, &mr1, chips[k], 1, 64, 20);
		compare(model, &tiny, chips[k], 3, 64, 35);
	}
	split = MR_SPLIT_PIPELINE;
}

static void the_quicker_cut_is_taken(void **state)
{
	struct mr_chip chip = chip_of("tiny");
	struct mr_program program;

	/* Hops that take no time and weights that take long to install make columns worth their hops. */
	split = MR_SPLIT_BEST;
	compile(model, &chip, 2, 1, 64, &program);
	assert_int_equal(program.fit.split, MR_SPLIT_PIPELINE);
	mr_program_free(&program);
	chip.hop_ps = 0;
	chip.link_mbps = 1 << 30;
	chip.install_cycle_bytes = 1;
	compile(model, &chip, 2, 1, 64, &program);
	assert_int_equal(program.fit.split, MR_SPLIT_COLUMNS);
	verify(&program, &chip, 2);
	mr_program_free(&program);
	split = MR_SPLIT_PIPELINE;
}

static void the_real_model_too(void **state)
{
	const char *path = real_model_path();
	struct mr_chip mr1 = chip_of("mr1");
	struct mr_model *real;

#ifdef MR_ASAN
	path = NULL;
#endif
	if (!path) {
		print_message("skipped: no model file (make model), or a build with sanitizers\n");
		return;
	}
	assert_int_equal(mr_model_open(path, &real, NULL, 0), 0);
	compare(real, &mr1, 2, 2, 512, 3);
	split = MR_SPLIT_COLUMNS;
	compare(real, &mr1, 4, 1, 512, 2);
	split = MR_SPLIT_PIPELINE;
	print_ratio(real, &mr1);
	mr_model_close(real);
}

/* ---- what a change does ---- */

/* FNV-1a of the logits of a few steps; *status is that of the first step that failed. */
static uint64_t digest(const struct mr_program *program, const struct mr_chip *chip, int *status,
		       uint64_t *first_record)
{
	uint64_t hash = 0xcbf29ce484222325ull;
	struct machine m;

	machine_open(&m, program->container, program->bytes, chip);
	*status = 0;
	for (uint32_t step = 0; step < 4 && !*status; step++) {
		uint32_t token = step * 29 + 3;

		*status = machine_step(&m, &token, &step, 1);
		*first_record = step ? *first_record : m.record[0];
		for (uint32_t k = 0; !*status && k < 4 * model->shape.vocab; k++)
			hash = (hash ^ ((const uint8_t *)m.logits[0])[k]) * 0x100000001b3ull;
	}
	machine_close(&m);
	return hash;
}

static struct mr_isa *code_of(const struct mr_program *program, uint32_t *count)
{
	struct mr_container c;

	assert_int_equal(mr_container_open(program->container, program->bytes, &c, NULL, 0), 0);
	*count = c.sched->instructions;
	return (struct mr_isa *)(uintptr_t)c.instructions;
}

/* A tile that is not installed leaves the one before it in the planes. */
static void a_loadw_made_a_nop_changes_the_logits(void **state)
{
	struct mr_chip chip = chip_of("tiny");
	struct mr_program program;
	uint64_t before, after, record;
	uint32_t n, loads = 0;
	struct mr_isa *code;
	int status;

	compile(model, &chip, 1, 1, 64, &program);
	before = digest(&program, &chip, &status, &record);
	assert_int_equal(status, 0);
	code = code_of(&program, &n);
	for (uint32_t i = 0; i < n; i++) {
		struct mr_isa was = code[i];

		if (was.op != MR_I_LOADW || loads++ % 40 != 20)
			continue;
		code[i] = (struct mr_isa){.op = MR_I_NOP,
					  .chip = was.chip,
					  .peer = MR_ISA_MXM,
					  .body = was.body,
					  .src = {MR_ISA_NONE, MR_ISA_NONE, MR_ISA_NONE},
					  .dst = MR_ISA_NONE};
		mr_container_seal(program.container);
		after = digest(&program, &chip, &status, &record);
		assert_int_equal(status, 0);
		assert_true(after != before);
		code[i] = was;
	}
	assert_true(loads > 40);
	mr_program_free(&program);
}

static void seven_nops_move_the_record_by_seven(void **state)
{
	struct mr_chip chip = chip_of("tiny");
	struct mr_program program;
	struct mr_container c;
	uint64_t before, after;
	uint32_t n;
	struct mr_isa *code;
	char why[256];
	int status;

	compile(model, &chip, 1, 1, 64, &program);
	digest(&program, &chip, &status, &before);
	code = code_of(&program, &n);
	/* DMA_OUT, SAMPLE, RECORD end the program; DMA_OUT gives its place to a NOP of seven cycles. */
	assert_int_equal(code[n - 3].op, MR_I_DMA_OUT);
	assert_int_equal(code[n - 1].op, MR_I_RECORD);
	code[n - 3] = code[n - 2];
	code[n - 2] = (struct mr_isa){.op = MR_I_NOP,
				      .chip = code[n - 1].chip,
				      .peer = MR_ISA_HOST,
				      .body = code[n - 1].body,
				      .src = {MR_ISA_NONE, MR_ISA_NONE, MR_ISA_NONE},
				      .dst = MR_ISA_NONE,
				      .offset = 7};
	mr_container_seal(program.container);
	digest(&program, &chip, &status, &after);
	assert_int_equal(status, 0);
	assert_int_equal(after, before + 7);
	assert_int_equal(mr_container_open(program.container, program.bytes, &c, NULL, 0), 0);
	assert_int_equal(mr_container_verify(&c, &chip, 1, why, sizeof(why)),
			 MR_E_SCHEDULE_VIOLATION);
	mr_program_free(&program);
}

static void no_schedule_survives_a_wrong_latency(void **state)
{
	static const size_t latency[] = {offsetof(struct mr_chip, plane_latency),
					 offsetof(struct mr_chip, vector_latency),
					 offsetof(struct mr_chip, mem_latency)};
	struct mr_program program;
	uint64_t record;
	int status;

	for (size_t k = 0; k < 3; k++)
		for (int less = 0; less < 2; less++) {
			struct mr_chip chip = chip_of("tiny"), wrong = chip;

			*(uint64_t *)((char *)&wrong + latency[k]) += less ? -1ull : 1ull;
			compile(model, &chip, 2, 1, 64, &program);
			digest(&program, &wrong, &status, &record);
			assert_int_equal(status, MR_E_SCHEDULE_VIOLATION);
			mr_program_free(&program);
		}
}

static void compiling_is_deterministic(void **state)
{
	struct mr_chip chip = chip_of("mr1");
	struct mr_program a, b;

	compile(model, &chip, 2, 8, 128, &a);
	compile(model, &chip, 2, 8, 128, &b);
	assert_int_equal(a.bytes, b.bytes);
	assert_memory_equal(a.container, b.container, a.bytes);
	mr_program_free(&a);
	mr_program_free(&b);
}

/* ---- mutants of the compiler ---- */

static uint64_t seed = 20261125;

static uint32_t draw(uint32_t n)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(seed >> 33) % n;
}

enum mutation {
	EARLIER, /* an instruction starts some cycles earlier: a dropped wait */
	LATER,
	OVERLAP, /* an area lies over another */
	ADDRESS, /* an instruction reads or writes beside its place */
	BOUND,   /* a loop or body is shorter or longer than it must be */
	STREAM,  /* another stream is taken, or written */
	SHAPE,   /* a row more or fewer, another width or pace */
	DROPPED, /* an instruction is missing */
	MUTATIONS
};
static const char *const mutation_names[] = {
	"dropped wait",     "late start",   "overlapping areas", "wrong address",
	"wrong loop bound", "wrong stream", "wrong shape",       "dropped instruction"};

static void claim_anew(struct mr_container *c)
{
	struct mr_prog_claim *claim = (struct mr_prog_claim *)(uintptr_t)c->claims;
	uint32_t depth = 0;

	claim->base = claim->slot = claim->block = claim->tile = 0;
	for (uint32_t k = 0; k < c->sched->icu; k++) {
		const struct mr_isa *i = &c->icu[k];

		depth += i->op == MR_I_LOOP;
		depth -= i->op == MR_I_END;
		if (i->op != MR_I_NOP)
			continue;
		*(depth == 2 ? &claim->tile : depth ? &claim->slot : &claim->base) += i->offset;
		*(depth == 2 ? &claim->block : &claim->slot) += i->slope;
		claim->record = depth == 1 ? i->offset : claim->record;
	}
}

/* Moves an area, and all that reads and writes it, some way into the one before it. */
static int overlap(struct mr_container *c)
{
	struct mr_sched_area *a =
		(struct mr_sched_area *)(uintptr_t)&c->areas[draw(c->sched->areas)];
	struct mr_isa *code = (struct mr_isa *)(uintptr_t)c->instructions;
	uint32_t by = 8 * (1 + draw(8));

	if (a == c->areas || a[-1].chip != a->chip || by > a[-1].bytes ||
	    a->address - by >= a[-1].address + a[-1].bytes || !strcmp(a[-1].name, "table"))
		return 0;
	for (uint32_t k = 0; k < c->sched->instructions; k++) {
		uint64_t at = 8ull * code[k].address;
		uint8_t op = code[k].op;

		if ((op == MR_I_READ || op == MR_I_WRITE || op == MR_I_SAMPLE ||
		     op == MR_I_DMA_OUT) &&
		    code[k].chip == a->chip && at >= a->address && at < a->address + a->bytes)
			code[k].address -= by / 8;
	}
	a->address -= by;
	return 1;
}

/* Changes one thing; 0 where the instruction has no such thing. */
static int mutate(enum mutation kind, struct mr_container *c)
{
	struct mr_isa *icu = (struct mr_isa *)(uintptr_t)c->icu;
	struct mr_isa *i =
		(struct mr_isa *)(uintptr_t)&c->instructions[draw(c->sched->instructions)];
	uint32_t by = 1 + draw(20);

	switch (kind) {
	case EARLIER:
		if (i->offset < by)
			return 0;
		i->offset -= by;
		return 1;
	case LATER:
		i->offset += by;
		return 1;
	case OVERLAP:
		return overlap(c);
	case ADDRESS:
		if (i->op != MR_I_READ && i->op != MR_I_WRITE)
			return 0;
		i->address += (draw(2) ? 1u : ~0u) * (1 + draw(64));
		return 1;
	case BOUND:
		i = &icu[draw(c->sched->icu)];
		if (i->op == MR_I_NOP && i->offset > by)
			i->offset -= by;
		else if (i->op == MR_I_LOOP)
			i->form = i->form == MR_R_SLOTS ? MR_R_TILES : MR_R_SLOTS;
		else
			return 0;
		claim_anew(c); /* the compiler would claim what it made */
		return 1;
	case STREAM:
		if (i->dst == MR_ISA_NONE)
			return 0;
		i->dst = (uint8_t)((i->dst + 1 + draw(6)) % 48);
		return 1;
	case SHAPE:
		if (i->interval > 1 && draw(2))
			i->interval--;
		else if (i->rows)
			i->rows = (uint16_t)(i->rows + 1);
		else
			return 0;
		return 1;
	default:
		*i = (struct mr_isa){.op = MR_I_NOP,
				     .chip = i->chip,
				     .peer = (uint8_t)mr_isa_queue(i),
				     .body = i->body,
				     .src = {MR_ISA_NONE, MR_ISA_NONE, MR_ISA_NONE},
				     .dst = MR_ISA_NONE};
		return 1;
	}
}

/*
 * What the verifier lets pass is run: either it is harmless (the same logits in the same cycles: a start that could as well
 * have been there), or other logits show it. A wait, a loop bound, an area, a stream, a shape and a missing instruction are the
 * verifier's own to catch; which of two rows that are both there was meant, only the logits can tell.
 */
static void mutants_are_caught(void **state)
{
	struct mr_chip chip = chip_of("tiny");
	struct mr_program program;
	uint64_t record, before, cycles;
	uint32_t total = 0, caught = 0, shown = 0, harmless = 0;
	void *copy;
	int status;

	compile(model, &chip, 2, 2, 64, &program);
	before = digest(&program, &chip, &status, &cycles);
	copy = malloc(program.bytes);
	memcpy(copy, program.container, program.bytes);
	for (int kind = 0; kind < MUTATIONS; kind++) {
		uint32_t here = 0, here_caught = 0, here_shown = 0;

		while (here < 60) {
			struct mr_container c;

			memcpy(program.container, copy, program.bytes);
			assert_int_equal(
				mr_container_open(program.container, program.bytes, &c, NULL, 0),
				0);
			if (!mutate((enum mutation)kind, &c))
				continue;
			mr_container_seal(program.container);
			here++;
			status = mr_container_open(program.container, program.bytes, &c, NULL, 0);
			if (!status)
				status = mr_container_verify(&c, &chip, 2, NULL, 0);
			if (status) {
				here_caught++;
				continue;
			}
			uint64_t after = digest(&program, &chip, &status, &record);
			assert_int_equal(status, 0);
			assert_int_equal(record, cycles);
			if (after == before)
				harmless++;
			else if (kind == ADDRESS)
				here_shown++;
			else
				fail_msg("a harmful mutant passed: %s", mutation_names[kind]);
		}
		print_message("%s: %u of %u caught by the verifier, %u more by the logits\n",
			      mutation_names[kind], here_caught, here, here_shown);
		total += here;
		caught += here_caught;
		shown += here_shown;
	}
	print_message("mutants: %u of %u caught by the verifier, %u by the logits, %u harmless\n",
		      caught, total, shown, harmless);
	assert_int_equal(caught + shown + harmless, total);
	assert_true(caught * 10 >= total * 8);
	free(copy);
	mr_program_free(&program);
}

static void products_of_shapes_are_scheduled(void **state)
{
	static struct mr_shape_file shape;
	static const char text[] = "name p\ntype f16\nproduct p 40 1280 1024 1\n";
	struct mr_chip tsp = chip_of("tsp1"), mr1 = chip_of("mr1"), small = tsp;
	struct mr_product_plan one, two, by_k;
	char why[256] = "";

	assert_int_equal(mr_shape_parse(text, sizeof(text) - 1, &shape, NULL, 0), 0);
	assert_int_equal(mr_product_plan(&shape, &tsp, 1, 0, &one, why, sizeof(why)), 0);
	if (mr_product_plan(&shape, &tsp, 2, 0, &two, why, sizeof(why)))
		fail_msg("%s", why);
	if (mr_product_plan(&shape, &tsp, 2, 1, &by_k, why, sizeof(why)))
		fail_msg("%s", why);
	/* 2 x 4 tiles, 40 rows at two cycles, 40 cycles to install each: at least so much, and less on two chips. */
	assert_true(one.cycles > 8 * (80 + 40));
	assert_true(two.cycles > 4 * (80 + 40));
	assert_true(two.instructions > one.instructions && by_k.cycles > two.cycles);
	assert_int_equal(mr_product_plan(&shape, &mr1, 2, 0, &two, why, sizeof(why)),
			 MR_E_NOT_SUPPORTED);
	assert_int_equal(mr_product_plan(&shape, &tsp, 3, 0, &two, why, sizeof(why)),
			 MR_E_NOT_SUPPORTED);
	small.sram_bytes = 1 << 20;
	assert_int_equal(mr_product_plan(&shape, &small, 2, 0, &two, why, sizeof(why)),
			 MR_E_SRAM_FULL);
}

static int open_model(void **state)
{
	return mr_model_open(MR_TEST_DATA "/tiny.gguf", &model, NULL, 0);
}

static int close_model(void **state)
{
	mr_model_close(model);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(schedules_pass_the_verifier),
		cmocka_unit_test(bits_are_class_d),
		cmocka_unit_test(by_columns_too),
		cmocka_unit_test(the_quicker_cut_is_taken),
		cmocka_unit_test(the_real_model_too),
		cmocka_unit_test(a_loadw_made_a_nop_changes_the_logits),
		cmocka_unit_test(seven_nops_move_the_record_by_seven),
		cmocka_unit_test(no_schedule_survives_a_wrong_latency),
		cmocka_unit_test(compiling_is_deterministic),
		cmocka_unit_test(mutants_are_caught),
		cmocka_unit_test(products_of_shapes_are_scheduled),
	};

	return cmocka_run_group_tests(tests, open_model, close_model);
}
