/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A trace of requests in a file: JSON lines or CSV, told apart by the first character. Fields, by name:
 *   arrival        seconds after the start, not before the line above (0 to 1e7); required
 *   prompt_tokens  a random prompt of so many tokens (1 to 2^20), or
 *   prompt         its text; one of the two is required
 *   answer_tokens  of the answer (1 to 2^20); else what --max-tokens says
 *   class          a name under which figures are given; at most 8 different ones
 *   client         whose request it is; at most 8 different ones
 * CSV: the first line names its columns, in any order; fields in double quotes may hold commas, newlines
 * and doubled quotes; an empty field is one that is not there. JSON: an object a line.
 * Other fields are refused. Used by `millrace load --trace`, its unit test and its fuzz target.
 */
#ifndef MR_TOOLS_LOAD_TRACE_H
#define MR_TOOLS_LOAD_TRACE_H

#include <stddef.h>
#include <stdint.h>

#define LOAD_LABELS_MAX      8u
#define LOAD_LABEL_BYTES     32
#define LOAD_TRACE_TEXT_MAX  (1u << 20) /* bytes of a prompt */
#define LOAD_TRACE_BYTES_MAX (1u << 30) /* of a file */

struct load_prompt {
	char *text;
	uint32_t bytes;
};

struct load_labels {
	char name[LOAD_LABELS_MAX][LOAD_LABEL_BYTES];
	uint32_t count;
};
/* The index of @name, which is added where it is new; below 0 where there is no room or it is too long. */
int load_label(struct load_labels *labels, const char *name, size_t bytes);

struct load_trace_entry {
	uint64_t arrival_ns;
	uint32_t prompt;        /* index of a text; used where prompt_tokens is 0 */
	uint32_t prompt_tokens; /* 0 = a text */
	uint32_t answer_tokens; /* 0 = not said */
	uint16_t class, client; /* labels; 0 where the trace has none */
};

struct load_trace {
	struct load_trace_entry *entries;
	uint32_t count;
	struct load_prompt *texts;
	uint32_t text_count;
	struct load_labels classes, clients;
	uint32_t error_line; /* where it is wrong, and how */
	char error[128];
};

/*
 * Reads @bytes bytes of @text. Returns 0, MR_E_FORMAT (not JSON, not CSV, a field missing or unknown, a column twice),
 * MR_E_RANGE (a value outside its range, an arrival before the one above), MR_E_TOO_LARGE (more than a limit
 * allows), MR_E_TRUNCATED (ends inside quotes; no request in it) or MR_E_NO_MEMORY. load_trace_free always.
 */
int load_trace_parse(const char *text, size_t bytes, struct load_trace *trace);
/* The same of a file; also MR_E_NOT_FOUND, MR_E_IO. */
int load_trace_read(const char *path, struct load_trace *trace);
void load_trace_free(struct load_trace *trace);

#endif /* MR_TOOLS_LOAD_TRACE_H */
