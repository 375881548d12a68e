// SPDX-License-Identifier: Apache-2.0
#include "userlib/spec/why.h"

#include <stdarg.h>
#include <stdio.h>

int mr_spec_why(struct mr_spec_why *why, int status, const char *format, ...)
{
	if (why->text && why->bytes) {
		va_list args;
		va_start(args, format);
		vsnprintf(why->text, why->bytes, format, args);
		va_end(args);
	}
	return status;
}
