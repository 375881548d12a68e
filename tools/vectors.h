/* SPDX-License-Identifier: Apache-2.0 */
/* The reference vectors' kinds, shared by the two files of `millrace model vectors`. */
#ifndef MR_TOOLS_VECTORS_H
#define MR_TOOLS_VECTORS_H

#include <json-c/json.h>

#include "tools/tools.h"

enum { VECTOR_TOKENS, VECTOR_CHAT, VECTOR_LOGITS, VECTOR_PPL, VECTOR_KINDS };
extern const char
	*const vector_kinds[VECTOR_KINDS]; /* names of the files and of the output's keys */

/* Elements of @a, 0 where it is not an array; element @i of it, or NULL. json-c asserts instead. */
static inline size_t vector_length(struct json_object *a)
{
	return json_object_is_type(a, json_type_array) ? json_object_array_length(a) : 0;
}

static inline struct json_object *vector_at(struct json_object *a, size_t i)
{
	return i < vector_length(a) ? json_object_array_get_idx(a, i) : NULL;
}

/*
 * Runs @logits and @ppl (either may be NULL) on the decode device that @options names and adds
 * the two results to @out. Returns 0, or -1 after one line on stderr.
 */
int vectors_on_device(const struct tool_devices_options *options, const struct mr_model *model,
		      struct json_object *logits, struct json_object *ppl, struct json_object *out);

#endif /* MR_TOOLS_VECTORS_H */
