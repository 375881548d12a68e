/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sentence that goes with a refusal. The readers of driver/model fill the caller's buffer with
 * one sentence that names the key, tensor or token; text out of the file is made printable first,
 * so that a hostile name cannot drive a terminal.
 */
#ifndef MR_DRIVER_MODEL_WHY_H
#define MR_DRIVER_MODEL_WHY_H

#include <stddef.h>

/* The caller's buffer; text may be NULL. */
struct mr_why {
	char *text;
	size_t bytes;
};

/* Writes the sentence, cut at the buffer's end, and returns @status. */
int mr_why(const struct mr_why *why, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* A name out of a file, as it may be shown. Cut at some 70 characters. */
struct mr_shown {
	char text[76];
};
struct mr_shown mr_show(const char *data, size_t bytes);

#endif /* MR_DRIVER_MODEL_WHY_H */
