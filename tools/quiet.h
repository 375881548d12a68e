/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts what one thread asks of the C library's allocator and of the kernel between begin and end, so that
 * "no allocation, no system call" is a number. For `millrace bench sched` and for tests.
 *
 * Allocations (malloc, calloc, realloc, aligned ones, free of something) are counted each, by functions of
 * these names in the program; under a sanitizer by its hooks. System calls are seen by Linux' syscall user
 * dispatch: of those between a begin and its end only the first is counted, then the kernel is let alone, so
 * the count says in how many of these spans there was one. What the vDSO answers is no system call.
 */
#ifndef MR_TOOLS_QUIET_H
#define MR_TOOLS_QUIET_H

#include <stdint.h>

struct tool_quiet {
	uint64_t spans;         /* from begin to end */
	uint64_t allocations;   /* and frees */
	uint64_t calling_spans; /* with a system call in them */
	long call;              /* number of the last one seen, -1 = none */
};

/*
 * One thread at a time, the caller, and all calls from it. 0, or MR_E_NOT_SUPPORTED where the kernel has
 * no such dispatch: allocations are counted all the same.
 */
int tool_quiet_start(void);
void tool_quiet_begin(void);
void tool_quiet_end(void);
struct tool_quiet tool_quiet_stop(void);

#endif /* MR_TOOLS_QUIET_H */
