/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every public header stands alone: compiled by itself as C11 and as C++17 with -Wpadded -Werror,
 * so that no structure that two programs share has a hole. Skips aloud where there is no compiler.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define DIRECTORY "userlib/include/millrace"

static int compiles(const char *compiler, const char *options, const char *source)
{
	char command[1024];

	snprintf(command, sizeof(command),
		 "printf '%%s\\n' '%s' | %s %s -Wall -Wextra -Wpadded -Werror -pedantic "
		 "-fsyntax-only -Iuserlib/include -",
		 source, compiler, options);
	return system(command) == 0;
}

static void alone(const char *compiler, const char *options)
{
	char line[512];
	struct dirent *entry;
	unsigned headers = 0;
	DIR *dir;

	snprintf(line, sizeof(line), "command -v %s >/dev/null", compiler);
	if (system(line)) {
		printf("skipped: no %s on this machine\n", compiler);
		skip();
	}
	/* The check itself can fail: a structure with a hole is refused. */
	snprintf(line, sizeof(line), "%s 2>/dev/null", options);
	assert_false(compiles(compiler, line, "struct s { char a; int b; }; struct s s;"));
	dir = opendir(DIRECTORY);
	assert_non_null(dir);
	while ((entry = readdir(dir))) {
		size_t n = strlen(entry->d_name);

		if (n < 3 || strcmp(entry->d_name + n - 2, ".h"))
			continue;
		snprintf(line, sizeof(line), "#include <millrace/%s>", entry->d_name);
		if (!compiles(compiler, options, line))
			fail_msg("%s does not stand alone under %s", entry->d_name, compiler);
		headers++;
	}
	closedir(dir);
	assert_true(headers >= 4);
}

static void test_c11(void **state)
{
	(void)state;
	alone("gcc", "-std=c11 -x c");
}

static void test_cxx17(void **state)
{
	(void)state;
	alone("g++", "-std=c++17 -x c++");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_c11),
		cmocka_unit_test(test_cxx17),
	};

	return cmocka_run_group_tests_name("headers", tests, NULL, NULL);
}
