// SPDX-License-Identifier: Apache-2.0
/* The sentence that goes with a refusal; called by the readers of driver/model only. */
#include "driver/model/why.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int mr_why(const struct mr_why *why, int status, const char *format, ...)
{
	va_list args;

	if (!why->text || !why->bytes)
		return status;
	va_start(args, format);
	vsnprintf(why->text, why->bytes, format, args);
	va_end(args);
	return status;
}

struct mr_shown mr_show(const char *data, size_t bytes)
{
	struct mr_shown out;
	size_t room = sizeof(out.text) - sizeof("...");
	size_t n = bytes < room ? bytes : room;

	for (size_t i = 0; i < n; i++)
		out.text[i] = data[i] >= 0x20 && data[i] < 0x7f ? data[i] : '?';
	memcpy(out.text + n, bytes > room ? "..." : "", bytes > room ? 4 : 1);
	return out;
}
