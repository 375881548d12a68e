// SPDX-License-Identifier: Apache-2.0
/* The executor alone, on programs assembled by hand: the right bytes in the right cycles, or a violation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <millrace/status.h>

#include "firmware-sim/chips.h"
#include "firmware-sim/exec.h"
#include "kernels/cpu/half.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/pack.h"
#include "support/assembler.h"

#define INST_MAX 64u

struct bench {
	struct mr_chip chip;
	struct sim_sram sram;
	struct mr_isa icu[INST_MAX], inst[INST_MAX];
	struct exec_program p;
	struct exec_chip place[2];
	struct exec *exec;
	uint64_t record[4], cycles;
	const float *logits[4];
};

static void open_bench(struct bench *b, const char *icu, const char *inst, uint32_t chips)
{
	const struct mr_sim_builtin_chip *tiny = mr_sim_builtin_chip("tiny");

	memset(b, 0, sizeof(*b));
	mr_numerics_enter();
	assert_int_equal(
		mr_chip_parse(tiny->text, (size_t)(tiny->end - tiny->text), &b->chip, NULL, 0), 0);
	b->chip.plane_rows = b->chip.plane_cols = 64;
	assert_int_equal(mr_sim_sram_init(&b->sram, chips, 1 << 20), 0);
	b->p = (struct exec_program){
		.icu = b->icu,
		.inst = b->inst,
		.icu_count = assemble(icu, b->icu, INST_MAX),
		.inst_count = assemble(inst, b->inst, INST_MAX),
		.chips = chips,
		.slots = 4,
		.chip = b->place,
		.timing = &b->chip,
	};
	for (uint32_t c = 0; c < chips; c++)
		b->place[c] = (struct exec_chip){512 << 10, 64, 768 << 10, 4096};
}

static int run_bench(struct bench *b)
{
	static const uint32_t blocks[4] = {0, 1, 2, 3};
	const struct exec_slot slots[4] = {
		{0, 0, blocks}, {0, 0, blocks}, {0, 0, blocks}, {0, 0, blocks}};
	int status;

	assert_int_equal(mr_exec_create(&b->p, &b->sram, mr_kernels_select(NULL), &b->exec), 0);
	status = mr_exec_step(b->exec, slots, 1, b->record, b->logits, &b->cycles);
	return status;
}

static void close_bench(struct bench *b)
{
	mr_exec_destroy(b->exec);
	mr_sim_sram_fini(&b->sram);
}

/* ---- a product of 64 x 64 with ReLU ---- */

#define X_AT 65536u
#define Y_AT 131072u

/*
 * tiny, with a plane of 64 x 64: LOADW of 4352 bytes takes 68 cycles, SRAM 3, the plane 8, a vector instruction 4;
 * a row of 64 floats passes 16 lanes in 4.
 */
static const char product_icu[] = "NOP at=200\n";
static const char product[] = "LOADW q8_0 rows=64 cols=64 addr=0 stride=1088\n"
			      "READ f32 rows=1 cols=64 every=4 addr=65536 to=0 at=100\n"
			      "QUANT32 rows=1 cols=64 every=4 a=0 to=1 at=103\n"
			      "WRITE q8 rows=1 cols=64 every=4 a=1 addr=66048 at=107\n"
			      "READ q8 rows=1 cols=64 every=4 addr=66048 to=2 at=140\n"
			      "MUL rows=1 cols=64 every=4 a=2 to=3 stride=64 at=143\n"
			      "MAX rows=1 cols=64 every=4 a=3 b=imm0 imm0=0 to=4 at=151\n"
			      "WRITE f32 rows=1 cols=64 every=4 a=4 addr=131072 at=155\n"
			      "RECORD at=160\n";

struct q8_0_block {
	uint16_t scale;
	int8_t q[32];
} __attribute__((packed));

/* Weights 0.5 * ((r * 7 + c * 3) % 15 - 7), inputs 127 or less with a scale of 1 in each block. */
static int weight(uint32_t r, uint32_t c)
{
	return (int)((r * 7 + c * 3) % 15) - 7;
}

static int input(uint32_t c)
{
	return c % 32 == 5 ? 127 : (int)(c * 11 % 23) - 11;
}

static void fill_product(struct bench *b)
{
	static struct q8_0_block w[64][2];
	float *x = (float *)(b->sram.chip[0] + X_AT);

	for (uint32_t r = 0; r < 64; r++)
		for (uint32_t c = 0; c < 64; c++) {
			w[r][c / 32].scale = 0x3800; /* 0.5 */
			w[r][c / 32].q[c % 32] = (int8_t)weight(r, c);
		}
	mr_pack(MR_PACK_Q8_0X16, w, 64, 64, b->sram.chip[0]);
	for (uint32_t c = 0; c < 64; c++)
		x[c] = (float)input(c);
}

static void a_product_with_relu(void **state)
{
	struct bench b;

	open_bench(&b, product_icu, product, 1);
	fill_product(&b);
	if (run_bench(&b))
		fail_msg("%s", mr_exec_why(b.exec));
	for (uint32_t r = 0; r < 64; r++) {
		float got = ((const float *)(b.sram.chip[0] + Y_AT))[r], want;
		int sum = 0;

		for (uint32_t c = 0; c < 64; c++)
			sum += weight(r, c) * input(c);
		want = sum > 0 ? 0.5f * (float)sum : 0; /* exact in FP32 */
		assert_true(got == want);
	}
	assert_int_equal(b.cycles, 200);
	assert_int_equal(b.record[0], 164);
	close_bench(&b);
}

/* Each of these moves something by a cycle, and what takes its rows finds them gone. */
static void a_wrong_latency_is_a_violation(void **state)
{
	static const size_t latency[] = {offsetof(struct mr_chip, plane_latency),
					 offsetof(struct mr_chip, vector_latency),
					 offsetof(struct mr_chip, mem_latency)};

	for (size_t k = 0; k < 3; k++) {
		struct bench b;

		open_bench(&b, product_icu, product, 1);
		fill_product(&b);
		++*(uint64_t *)((char *)&b.chip + latency[k]);
		assert_int_equal(run_bench(&b), MR_E_SCHEDULE_VIOLATION);
		assert_string_not_equal(mr_exec_why(b.exec), "");
		close_bench(&b);
	}
}

static void nops_move_what_follows_in_their_queue(void **state)
{
	static char with[sizeof(product) + 200];
	struct bench b;

	snprintf(with, sizeof(with), "%.*s%s", (int)(strstr(product, "RECORD") - product), product,
		 "NOP peer=6 at=1\nNOP peer=6 at=1\nNOP peer=6 at=1\nNOP peer=6 at=1\n"
		 "NOP peer=6 at=1\nNOP peer=6 at=1\nNOP peer=6 at=1\nRECORD at=160\n");
	open_bench(&b, product_icu, with, 1);
	fill_product(&b);
	assert_int_equal(run_bench(&b), 0);
	assert_int_equal(b.record[0], 164 + 7);
	close_bench(&b);
}

static void weights_must_be_there(void **state)
{
	struct bench b;

	open_bench(&b, product_icu, product, 1);
	fill_product(&b);
	b.inst[0].offset = 76; /* ends in 144, one cycle after MUL begins */
	assert_int_equal(run_bench(&b), MR_E_SCHEDULE_VIOLATION);
	close_bench(&b);
}

/* A row to the other chip and back, 20 cycles a hop, then where it came from, twice as large. */
static void rows_go_between_chips(void **state)
{
	static const char text[] =
		"READ f32 rows=1 cols=16 every=64 addr=65536 to=0 at=0\n"
		"SEND f32 rows=1 cols=16 every=64 a=0 peer=1 at=3\n"
		"RECV f32 chip=1 rows=1 cols=16 every=64 peer=0 to=5 at=23\n"
		"VMUL chip=1 rows=1 cols=16 every=64 a=5 b=imm0 imm0=2 to=6 at=23\n"
		"SEND f32 chip=1 rows=1 cols=16 every=64 a=6 peer=0 at=27\n"
		"RECV f32 rows=1 cols=16 every=64 peer=1 to=1 at=47\n"
		"WRITE f32 rows=1 cols=16 every=64 a=1 addr=131072 at=47\n";
	struct bench b;

	open_bench(&b, "NOP at=150\n", text, 2);
	for (int c = 0; c < 16; c++)
		((float *)(b.sram.chip[0] + X_AT))[c] = (float)c;
	if (run_bench(&b))
		fail_msg("%s", mr_exec_why(b.exec));
	for (int c = 0; c < 16; c++)
		assert_true(((float *)(b.sram.chip[0] + Y_AT))[c] == 2.0f * (float)c);
	close_bench(&b);
	open_bench(&b, "NOP at=150\n", text, 2);
	b.chip.hop_ps += 1000;
	assert_int_equal(run_bench(&b), MR_E_SCHEDULE_VIOLATION);
	close_bench(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_product_with_relu),
		cmocka_unit_test(a_wrong_latency_is_a_violation),
		cmocka_unit_test(nops_move_what_follows_in_their_queue),
		cmocka_unit_test(weights_must_be_there),
		cmocka_unit_test(rows_go_between_chips),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
