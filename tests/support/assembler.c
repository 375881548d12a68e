// SPDX-License-Identifier: Apache-2.0
#include "support/assembler.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct {
	const char *name;
	uint8_t code;
} ops[] = {
#define X(name, code) {#name, code},
	MR_ISA_OPS(X)
#undef X
};

static const struct {
	const char *name;
	uint8_t form;
} forms[] = {
	{"f32", MR_T_F32},     {"f16", MR_T_F16},      {"q8", MR_T_Q8},
	{"u32", MR_T_U32},     {"q4_1", MR_T_Q4_1X16}, {"q8_0", MR_T_Q8_0X16},
	{"slots", MR_R_SLOTS}, {"tiles", MR_R_TILES},  {"blocks", MR_R_BLOCKS},
	{"SLOTS", MR_F_SLOTS}, {"SLOT", MR_F_SLOT},    {"BLOCKS", MR_F_BLOCKS},
	{"TILE", MR_F_TILE},
};

static uint8_t stream_of(const char *value)
{
	return !strcmp(value, "imm0")   ? MR_ISA_IMM0
	       : !strcmp(value, "imm1") ? MR_ISA_IMM1
					: (uint8_t)atoi(value);
}

static void set(struct mr_isa *i, const char *key, const char *value)
{
	uint32_t n = (uint32_t)strtoul(value, NULL, 0);

	if (!strcmp(key, "chip"))
		i->chip = (uint8_t)n;
	else if (!strcmp(key, "peer"))
		i->peer = (uint8_t)n;
	else if (!strcmp(key, "body"))
		i->body = (uint16_t)n;
	else if (!strcmp(key, "at"))
		i->offset = n;
	else if (!strcmp(key, "slope"))
		i->slope = (uint16_t)n;
	else if (!strcmp(key, "every"))
		i->interval = (uint16_t)n;
	else if (!strcmp(key, "rows"))
		i->rows = (uint16_t)n;
	else if (!strcmp(key, "cols"))
		i->cols = n;
	else if (!strcmp(key, "addr"))
		i->address = n / 8;
	else if (!strcmp(key, "stride"))
		i->stride = n;
	else if (!strcmp(key, "imm0"))
		i->address = mr_isa_bits(strtof(value, NULL));
	else if (!strcmp(key, "imm1"))
		i->stride = mr_isa_bits(strtof(value, NULL));
	else if (!strcmp(key, "to"))
		i->dst = stream_of(value);
	else if (key[0] >= 'a' && key[0] <= 'c' && !key[1])
		i->src[key[0] - 'a'] = stream_of(value);
	else
		fail_msg("assembler: unknown key %s", key);
}

static void word(struct mr_isa *i, char *w)
{
	char *value = strchr(w, '=');

	if (value) {
		*value++ = 0;
		set(i, w, value);
		return;
	}
	for (size_t k = 0; k < sizeof(forms) / sizeof(forms[0]); k++)
		if (!strcmp(w, forms[k].name)) {
			i->form |= forms[k].form;
			return;
		}
	fail_msg("assembler: unknown word %s", w);
}

uint32_t assemble(const char *text, struct mr_isa *out, uint32_t room)
{
	char *copy = strdup(text), *rest = copy, *line;
	uint32_t n = 0;

	while ((line = strsep(&rest, "\n"))) {
		char *w = strtok(line, " \t");
		size_t k = 0;

		if (!w || *w == '#')
			continue;
		assert_true(n < room);
		out[n] = (struct mr_isa){.src = {MR_ISA_NONE, MR_ISA_NONE, MR_ISA_NONE},
					 .dst = MR_ISA_NONE};
		while (k < sizeof(ops) / sizeof(ops[0]) && strcmp(w, ops[k].name))
			k++;
		if (k == sizeof(ops) / sizeof(ops[0]))
			fail_msg("assembler: unknown instruction %s", w);
		out[n].op = ops[k].code;
		while ((w = strtok(NULL, " \t")))
			word(&out[n], w);
		n++;
	}
	free(copy);
	return n;
}
