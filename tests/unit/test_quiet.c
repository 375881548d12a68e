// SPDX-License-Identifier: Apache-2.0
/* The counter of allocations and system calls sees those that there are, and none that there are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* The program's own parts are in no archive. */
#include "tools/quiet.c"

static void *volatile kept, *volatile before; /* so that no allocation is optimised away */

static void allocations_are_counted(void **state)
{
	struct tool_quiet q;

	before = malloc(10);
	tool_quiet_start();
	kept = malloc(10); /* outside of a span */
	free(kept);
	tool_quiet_begin();
	kept = malloc(10);
	kept = realloc(kept, 20000);
	free(kept);
	kept = calloc(3, 3);
	free(kept);
	kept = aligned_alloc(64, 64);
	free(kept);
	free(before);
	free(NULL);
	tool_quiet_end();
	q = tool_quiet_stop();
	assert_int_equal(q.spans, 1);
	/* A sanitizer's hooks see a realloc as one of each. */
	assert_in_range(q.allocations, 8, 9);
	kept = malloc(10);
	free(kept);
	assert_int_equal(tool_quiet_stop().allocations, q.allocations);
}

static void system_calls_are_counted(void **state)
{
	struct timespec t;
	struct tool_quiet q;
	pid_t pid = 0;

	if (tool_quiet_start()) {
		tool_quiet_stop();
		printf("skipped: the kernel has no syscall user dispatch\n");
		skip();
	}
	for (int i = 0; i < 3; i++) {
		tool_quiet_begin();
		pid = (pid_t)syscall(SYS_getpid);
		syscall(SYS_getppid); /* only the first of a span is told */
		tool_quiet_end();
	}
	tool_quiet_begin();
	clock_gettime(CLOCK_MONOTONIC, &t);
	tool_quiet_end();
	assert_int_equal(syscall(SYS_getpid), pid); /* outside of a span */
	q = tool_quiet_stop();
	assert_int_equal(q.spans, 4);
	assert_int_equal(q.calling_spans, 3);
	assert_int_equal(q.call, SYS_getpid);
	assert_int_equal(pid, getpid());
	assert_int_equal(q.allocations, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(allocations_are_counted),
		cmocka_unit_test(system_calls_are_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
