// SPDX-License-Identifier: Apache-2.0
/* Chip files say where each value is from, and no value changes without its source; shape files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <millrace/status.h>

#include "firmware-sim/chips.h"
#include "userlib/spec/chip.h"
#include "userlib/spec/shape.h"

static const char *const names[] = {"mr1", "tsp1", "lp30", "tiny"};

static struct mr_chip parse(const char *name)
{
	const struct mr_sim_builtin_chip *b = mr_sim_builtin_chip(name);
	struct mr_chip chip;
	char why[128] = "";

	assert_non_null(b);
	if (mr_chip_parse(b->text, (size_t)(b->end - b->text), &chip, why, sizeof(why)))
		fail_msg("%s: %s", name, why);
	assert_string_equal(chip.name, name);
	return chip;
}

/* The words of a chip file's line, blanks made single, or 0 where it is no value. */
static int words_of(const char *line, const char *eol, char *key, char *value, char *source)
{
	char copy[256], *rest = copy, *w;
	size_t n = (size_t)(eol - line) < sizeof(copy) ? (size_t)(eol - line) : sizeof(copy) - 1;
	int i = 0;

	memcpy(copy, line, n);
	copy[n] = 0;
	source[0] = 0;
	for (; (w = strsep(&rest, " \t")); i += *w != 0) {
		if (!*w)
			continue;
		if (i == 0 && *w == '#')
			return 0;
		if (i < 2)
			snprintf(i ? value : key, 64, "%s", w);
		else
			snprintf(source + strlen(source), 192 - strlen(source), "%s%s",
				 i > 2 ? " " : "", w);
	}
	return i > 0;
}

/* 1 = the chip file @name has the line; *same_source, *same_value compare it. */
static int find(const char *name, const char *key, const char *value, const char *source,
		int *same_value, int *same_source)
{
	const struct mr_sim_builtin_chip *b = mr_sim_builtin_chip(name);
	char k[64], v[64], s[192];

	for (const char *p = b->text; p < b->end;) {
		const char *eol = memchr(p, '\n', (size_t)(b->end - p));

		if (words_of(p, eol, k, v, s) && !strcmp(k, key)) {
			*same_value = !strcmp(v, value);
			*same_source = !strcmp(s, source);
			return 1;
		}
		p = eol + 1;
	}
	return 0;
}

static void no_value_changes_without_its_source(void **state)
{
	FILE *f = fopen(MR_TEST_DATA "/fixtures/chips.txt", "r");
	char line[512], name[64], key[64], value[64], source[192];
	int lines = 0, same_value = 0, same_source = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (line[0] == '#')
			continue;
		line[strcspn(line, "\n")] = 0;
		assert_int_equal(sscanf(line, "%63s %63s %63s %191[^\n]", name, key, value, source),
				 4);
		lines++;
		if (!find(name, key, value, source, &same_value, &same_source))
			fail_msg("%s: %s is gone", name, key);
		if (!same_value && same_source)
			fail_msg("%s: %s changed, its source (%s) did not", name, key, source);
	}
	fclose(f);
	assert_int_equal(lines, 4 * (3 + 24));
}

static void what_is_not_published_is_marked(void **state)
{
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const struct mr_sim_builtin_chip *b = mr_sim_builtin_chip(names[i]);
		char key[64], value[64], source[192], legend[16];
		uint32_t assumed = 0;

		for (const char *p = b->text; p < b->end;) {
			const char *eol = memchr(p, '\n', (size_t)(b->end - p));

			if (words_of(p, eol, key, value, source)) {
				assumed += !strncmp(source, "assumed", 7);
				/* Another source is one that the file's head spells out. */
				if (strncmp(source, "assumed", 7)) {
					snprintf(legend, sizeof(legend), "%.2s = ", source);
					assert_non_null(memmem(b->text, (size_t)(b->end - b->text),
							       legend, strlen(legend)));
				}
			}
			p = eol + 1;
		}
		assert_int_equal(parse(names[i]).assumed, assumed);
	}
	assert_true(parse("tsp1").types == (MR_CHIP_TYPE_I8 | MR_CHIP_TYPE_F16));
	assert_int_equal(parse("tsp1").assumed, 8);
}

static void a_shape_file_lists_products(void **state)
{
	static struct mr_shape_file shape;
	static const char good[] = "# a comment\nname two\ntype f16\n\nproduct a 1 2 3 4\n"
				   "product\tb 800 32576 8192 1";
	static const struct {
		const char *text;
		int want;
	} bad[] = {
		{"", MR_E_FORMAT},
		{"name x\ntype i8\n", MR_E_FORMAT},
		{"product a 1 1 1 1\n", MR_E_FORMAT},
		{"name x\nname y\n", MR_E_FORMAT},
		{"name x\ntype i9\n", MR_E_FORMAT},
		{"name x/y\n", MR_E_FORMAT},
		{"name x\ntype i8\nproduct a 1 1 1\n", MR_E_FORMAT},
		{"name x\ntype i8\nproduct a 1 1 1 1 1\n", MR_E_FORMAT},
		{"name x\ntype i8\nproduct a 1 -1 1 1\n", MR_E_FORMAT},
		{"name x\ntype i8\nproduct a 0 1 1 1\n", MR_E_RANGE},
		{"name x\ntype i8\nproduct a 1 1 1 99999999999999999999999\n", MR_E_RANGE},
		{"name aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n", MR_E_RANGE},
	};
	char why[128];

	assert_int_equal(mr_shape_parse(good, sizeof(good) - 1, &shape, why, sizeof(why)), 0);
	assert_int_equal(shape.count, 2);
	assert_int_equal(shape.type, MR_CHIP_TYPE_F16);
	assert_int_equal(shape.product[1].k, 32576);
	assert_int_equal(shape.product[0].times, 4);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		why[0] = 0;
		if (mr_shape_parse(bad[i].text, strlen(bad[i].text), &shape, why, sizeof(why)) !=
		    bad[i].want)
			fail_msg("\"%s\": %s", bad[i].text, why);
		assert_string_not_equal(why, "");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_value_changes_without_its_source),
		cmocka_unit_test(what_is_not_published_is_marked),
		cmocka_unit_test(a_shape_file_lists_products),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
