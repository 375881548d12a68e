/* SPDX-License-Identifier: Apache-2.0 */
/* One sentence on why something was refused, into the caller's buffer. For userlib/spec and
 * driver/compile. */
#ifndef MR_USERLIB_SPEC_WHY_H
#define MR_USERLIB_SPEC_WHY_H

#include <stddef.h>

struct mr_spec_why {
	char *text; /* NULL = nobody asks */
	size_t bytes;
};

/* Writes the sentence and returns @status. */
int mr_spec_why(struct mr_spec_why *why, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif /* MR_USERLIB_SPEC_WHY_H */
