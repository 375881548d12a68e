/* SPDX-License-Identifier: Apache-2.0 */
/* Reads one value or string off a bounded span of a GGUF file. Between gguf.c and gguf_value.c
 * only. */
#ifndef MR_DRIVER_MODEL_GGUF_VALUE_H
#define MR_DRIVER_MODEL_GGUF_VALUE_H

#include "driver/model/gguf.h"

/* What is left of the file. A read that fails leaves @at anywhere up to @end. */
struct mr_gguf_span {
	const uint8_t *at, *end;
};

/* Each returns 0 or MR_E_TRUNCATED. */
int mr_gguf_take_u32(struct mr_gguf_span *span, uint32_t *out);
int mr_gguf_take_u64(struct mr_gguf_span *span, uint64_t *out);
int mr_gguf_take_string(struct mr_gguf_span *span, struct mr_gguf_string *out);

/*
 * A value of @type; arrays are walked to their end, nested ones included. Returns 0,
 * MR_E_TRUNCATED, MR_E_FORMAT (unknown type, bool other than 0 and 1) or MR_E_TOO_LARGE (nested too
 * deep).
 */
int mr_gguf_take_value(struct mr_gguf_span *span, uint32_t type, unsigned depth,
		       struct mr_gguf_value *out);

#endif /* MR_DRIVER_MODEL_GGUF_VALUE_H */
