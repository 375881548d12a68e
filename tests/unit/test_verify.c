// SPDX-License-Identifier: Apache-2.0
/* The verifier's rules one by one, on small programs assembled by hand: each breaks one, and the sentence says which. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <millrace/status.h>

#include "firmware-sim/chips.h"
#include "support/assembler.h"
#include "userlib/spec/container.h"
#include "userlib/spec/why.h"

#define INST_MAX 32u

/*
 * Two tiny chips: SRAM and streams are 3 cycles apart, a vector instruction takes 4, a hop 20; 16 lanes; banks of 256 KiB. Chip 0
 * has a matrix of 32 x 32 in Q8_0 at 0 (2 groups of 544 bytes), areas of 64 bytes at 65536, 65600 and 524288.
 */
static int verify(const char *icu_text, const char *text, uint64_t base, char *why,
		  size_t why_bytes)
{
	const struct mr_sim_builtin_chip *tiny = mr_sim_builtin_chip("tiny");
	const struct mr_prog_segment segment = {
		.bytes = 1088, .layout = MR_LAYOUT_Q8_0X16, .rows = 32, .cols = 32};
	const struct mr_sched_area areas[] = {
		{"a", 65536, 64, 0, {0}},
		{"b", 65600, 64, 0, {0}},
		{"c", 524288, 64, 0, {0}},
		{"d", 65536, 64, 1, {0}},
	};
	const struct mr_sched_chip work[2] = {{.work_address = 65536, .work_bytes = 1 << 20},
					      {.work_address = 65536, .work_bytes = 1 << 20}};
	const struct mr_ref_chip kv[2] = {{.kv_address = 2 << 20}, {.kv_address = 2 << 20}};
	const struct mr_prog_header header = {.chips = 2, .batch = 1, .context = 16, .segments = 1};
	const struct mr_ref_header ref = {.version = 1, .chips = 2};
	struct mr_isa icu[4], inst[INST_MAX];
	struct mr_sched_header sched = {.version = 1, .chips = 2, .areas = 4};
	const struct mr_prog_claim claim = {.base = base};
	const struct mr_container c = {.header = &header,
				       .segments = &segment,
				       .claims = &claim,
				       .ref = &ref,
				       .chips = kv,
				       .sched = &sched,
				       .sched_chips = work,
				       .areas = areas,
				       .icu = icu,
				       .instructions = inst};
	struct mr_spec_why reason = {why, why_bytes};
	struct mr_chip chip;

	memset(why, 0, why_bytes);
	assert_int_equal(
		mr_chip_parse(tiny->text, (size_t)(tiny->end - tiny->text), &chip, NULL, 0), 0);
	sched.icu = assemble(icu_text, icu, 4);
	sched.instructions = assemble(text, inst, INST_MAX);
	return mr_schedule_verify(&c, &chip, &reason);
}

#define FILL  "FILL f32 rows=1 cols=16 every=1 imm0=1 to=0 at=0\n"
#define WRITE "WRITE f32 rows=1 cols=16 every=1 a=0 addr=65536 stride=64 at=4\n"
#define READ  "READ f32 rows=1 cols=16 every=1 addr=65536 stride=64 to=1 at=8\n"
#define TAKE  "WRITE f32 rows=1 cols=16 every=1 a=1 addr=524288 stride=64 at=11\n"

static const struct {
	const char *text; /* the instructions */
	int want;
	const char *says;
} cases[] = {
	{FILL WRITE READ TAKE, 0, ""},
	/* A WRITE at 4 is readable from 8 on. */
	{FILL WRITE "READ f32 rows=1 cols=16 every=1 addr=65536 stride=64 to=1 at=7\n"
		    "WRITE f32 rows=1 cols=16 every=1 a=1 addr=524288 stride=64 at=10\n",
	 MR_E_SCHEDULE_VIOLATION, "not written yet"},
	{READ TAKE, MR_E_SCHEDULE_VIOLATION, "not written yet"},
	/* A row is where it is in one cycle. */
	{FILL "WRITE f32 rows=1 cols=16 every=1 a=0 addr=65536 stride=64 at=5\n",
	 MR_E_SCHEDULE_VIOLATION, "not there in this cycle"},
	{FILL "WRITE f32 rows=1 cols=16 every=2 a=0 addr=65536 stride=64 at=4\n",
	 MR_E_SCHEDULE_VIOLATION, "not there in this cycle"},
	{FILL "WRITE f32 rows=1 cols=8 every=1 a=0 addr=65536 stride=64 at=4\n",
	 MR_E_SCHEDULE_VIOLATION, "other rows"},
	{FILL, MR_E_SCHEDULE_VIOLATION, "nobody took"},
	/* Streams, queues, banks, bodies. */
	{FILL "FILL f32 rows=1 cols=16 every=1 imm0=1 to=0 at=0\n", MR_E_SCHEDULE_VIOLATION,
	 "other rows"},
	{"FILL f32 rows=1 cols=16 every=1 imm0=1 to=0 at=9\nFILL f32 rows=1 cols=16 every=1 imm0=1 "
	 "to=2 at=8\n",
	 MR_E_SCHEDULE_VIOLATION, "ahead of it"},
	{"FILL f32 rows=1 cols=16 every=4 imm0=1 to=0 at=0\nFILL f32 rows=1 cols=16 every=4 imm0=1 "
	 "to=2 at=1\n"
	 "WRITE f32 rows=1 cols=16 every=4 a=0 addr=65536 stride=64 at=4\n"
	 "WRITE f32 rows=1 cols=16 every=4 a=2 addr=65600 stride=64 at=5\n",
	 MR_E_SCHEDULE_VIOLATION, "another writes the bank"},
	{"FILL f32 rows=1 cols=16 every=4 imm0=1 to=0 at=0\nFILL f32 rows=1 cols=16 every=4 imm0=1 "
	 "to=2 at=1\n"
	 "WRITE f32 rows=1 cols=16 every=4 a=0 addr=65536 stride=64 at=4\n"
	 "WRITE f32 rows=1 cols=16 every=4 a=2 addr=524288 stride=64 at=5\n",
	 0, ""},
	{"FILL f32 rows=1 cols=16 every=1 imm0=1 to=0 at=93\nWRITE f32 rows=1 cols=16 every=1 a=0 "
	 "addr=65536 "
	 "stride=64 at=97\n",
	 MR_E_SCHEDULE_VIOLATION, "ends after its body"},
	{"FILL f32 rows=1 cols=32 every=1 imm0=1 to=0 at=0\n", MR_E_SCHEDULE_VIOLATION,
	 "too quick for the lanes"},
	/* A WRITE over bytes that are being read: rows of 16 cycles each. */
	{FILL WRITE "READ f32 rows=1 cols=16 every=16 addr=65536 stride=64 to=1 at=8\n"
		    "FILL f32 rows=1 cols=16 every=1 imm0=2 to=2 at=9\n"
		    "WRITE f32 rows=1 cols=16 every=1 a=2 addr=65536 stride=64 at=13\n",
	 MR_E_SCHEDULE_VIOLATION, "being read"},
	/* Places: an area's end, the segment, nowhere. */
	{FILL "WRITE f32 rows=1 cols=16 every=1 a=0 addr=65568 stride=64 at=4\n", MR_E_FORMAT,
	 "address"},
	{FILL "WRITE f32 rows=1 cols=16 every=1 a=0 addr=0 stride=64 at=4\n", MR_E_FORMAT,
	 "address"},
	{"READ f32 rows=1 cols=16 every=1 addr=0 stride=64 to=1 at=8\n", MR_E_FORMAT, "address"},
	/* The matrix unit: a tile of 1088 bytes is there after 17 cycles. */
	{FILL WRITE TAKE, MR_E_SCHEDULE_VIOLATION, "not there in this cycle"},
	{"LOADW q8_0 rows=32 cols=32 addr=0 stride=544\n", MR_E_SCHEDULE_VIOLATION, "nothing used"},
	{"LOADW q8_0 rows=48 cols=32 addr=0 stride=544\n", MR_E_FORMAT, "outside its matrix"},
	{"LOADW q8_0 rows=32 cols=64 addr=0 stride=544\n", MR_E_FORMAT, "outside its matrix"},
	{"LOADW q4_1 rows=32 cols=32 addr=0 stride=320\n", MR_E_FORMAT, "no such matrix"},
	{"LOADW f16 rows=16 cols=32 addr=0 stride=64\n", MR_E_FORMAT, "no such matrix"},
	{"LOADW q8_0 rows=32 cols=32 addr=0 stride=544\n"
	 "FILL f32 rows=1 cols=32 every=2 imm0=1 to=0 at=0\nQUANT32 f32 rows=1 cols=32 every=2 a=0 "
	 "to=1 at=4\n"
	 "MUL q8 rows=1 cols=32 every=2 a=1 to=2 stride=32 at=8\n",
	 MR_E_SCHEDULE_VIOLATION, "not installed yet"},
	{"FILL f32 rows=1 cols=32 every=2 imm0=1 to=0 at=20\nQUANT32 f32 rows=1 cols=32 every=2 "
	 "a=0 to=1 at=24\n"
	 "ACC q8 rows=1 cols=32 every=2 a=1 to=2 stride=32 at=28\n",
	 MR_E_SCHEDULE_VIOLATION, "not installed yet"},
	{"LOADW q8_0 rows=32 cols=32 addr=0 stride=544\n"
	 "FILL f32 rows=1 cols=32 every=2 imm0=1 to=0 at=20\nQUANT32 f32 rows=1 cols=32 every=2 "
	 "a=0 to=1 at=24\n"
	 "ACC q8 rows=1 cols=32 every=2 a=1 to=2 stride=32 at=28\n",
	 MR_E_SCHEDULE_VIOLATION, "no such sums"},
	/* Chips. */
	{FILL "SEND f32 rows=1 cols=16 every=64 a=0 peer=1 at=4\n", MR_E_SCHEDULE_VIOLATION,
	 "not there"},
	{"FILL f32 rows=1 cols=16 every=64 imm0=1 to=0 at=0\nSEND f32 rows=1 cols=16 every=64 a=0 "
	 "peer=1 at=4\n"
	 "RECV f32 chip=1 rows=1 cols=16 every=64 peer=0 to=0 at=25\n",
	 MR_E_SCHEDULE_VIOLATION, "arrives"},
	{"FILL f32 rows=1 cols=16 every=64 imm0=1 to=0 at=0\nSEND f32 rows=1 cols=16 every=64 a=0 "
	 "peer=1 at=4\n",
	 MR_E_SCHEDULE_VIOLATION, "nobody received"},
	{"FILL f32 rows=1 cols=16 every=32 imm0=1 to=0 at=0\nSEND f32 rows=1 cols=16 every=32 a=0 "
	 "peer=1 at=4\n",
	 MR_E_SCHEDULE_VIOLATION, "too quick for the link"},
	{"SEND f32 rows=1 cols=16 every=64 a=0 peer=0 at=4\n", MR_E_FORMAT, "fields"},
	/* Fields that mean nothing, and what is none. */
	{"FILL f32 rows=1 cols=16 every=1 imm0=1 to=200 at=0\n", MR_E_FORMAT, "no such stream"},
	{"FILL f32 SLOT rows=1 cols=16 every=1 imm0=1 to=0 at=0\n", MR_E_FORMAT, "flags"},
	{"FILL f32 rows=1 cols=16 every=1 imm0=1 peer=1 to=0 at=0\n", MR_E_FORMAT, "fields"},
	{"FILL f32 rows=0 cols=16 every=1 imm0=1 to=0 at=0\n", MR_E_FORMAT, "rows"},
	{"FILL f32 body=1 rows=1 cols=16 every=1 imm0=1 to=0 at=0\n", MR_E_FORMAT, "body"},
	{"FILL f32 chip=2 rows=1 cols=16 every=1 imm0=1 to=0 at=0\n", MR_E_FORMAT, "chip"},
	{"GATHER f32 SLOTS rows=1 cols=16 every=1 addr=0 stride=64 a=1 to=0 at=0\n", MR_E_FORMAT,
	 "fields"},
};

static void each_rule_has_its_sentence(void **state)
{
	char why[256];

	for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
		int got = verify("NOP at=100\n", cases[k].text, 100, why, sizeof(why));

		if (got != cases[k].want || !strstr(why, cases[k].says))
			fail_msg("case %zu: %d: %s\n%s", k, got, why, cases[k].text);
	}
}

static void the_sequencer_nests_as_it_may(void **state)
{
	char why[256];

	assert_int_equal(verify("NOP at=99\n", FILL WRITE, 100, why, sizeof(why)),
			 MR_E_SCHEDULE_VIOLATION);
	assert_non_null(strstr(why, "the claim"));
	assert_int_equal(verify("NOP blocks at=100 slope=1\n", "", 100, why, sizeof(why)),
			 MR_E_FORMAT);
	assert_int_equal(verify("LOOP tiles\nNOP at=1\nEND\n", "", 0, why, sizeof(why)),
			 MR_E_FORMAT);
	assert_int_equal(verify("END\n", "", 0, why, sizeof(why)), MR_E_FORMAT);
	assert_int_equal(verify("LOOP slots\nNOP at=1\n", "", 0, why, sizeof(why)), MR_E_FORMAT);
	assert_int_equal(verify("READ at=1\n", "", 1, why, sizeof(why)), MR_E_FORMAT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_rule_has_its_sentence),
		cmocka_unit_test(the_sequencer_nests_as_it_may),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
