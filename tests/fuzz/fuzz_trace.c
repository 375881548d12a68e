// SPDX-License-Identifier: Apache-2.0
/* Trace files of `millrace load`: whatever is taken is within its ranges, whatever is not is refused by name. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

/* The program's own parts are in no archive. */
#include "tools/load_trace.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int truth)
{
	if (!truth)
		abort();
}

static void check(const struct load_trace *t)
{
	must(t->count > 0);
	for (uint32_t i = 0; i < t->count; i++) {
		const struct load_trace_entry *e = &t->entries[i];

		must(i == 0 || e->arrival_ns >= e[-1].arrival_ns);
		must(e->arrival_ns <= (uint64_t)(SECONDS_MAX * 1e9));
		must(e->prompt_tokens <= TOKENS_MAX && e->answer_tokens <= TOKENS_MAX);
		must(e->prompt_tokens || e->prompt < t->text_count);
		must(!e->class || e->class < t->classes.count);
		must(!e->client || e->client < t->clients.count);
	}
	for (uint32_t i = 0; i < t->text_count; i++)
		must(t->texts[i].bytes > 0 && t->texts[i].bytes <= LOAD_TRACE_TEXT_MAX);
	must(t->classes.count <= LOAD_LABELS_MAX && t->clients.count <= LOAD_LABELS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* An allocation of just the size, so that a read beyond the end is seen. */
	char *text = malloc(size ? size : 1);
	struct load_trace trace;
	int status;

	must(text != NULL);
	if (size)
		memcpy(text, data, size);
	status = load_trace_parse(text, size, &trace);
	if (status == 0)
		check(&trace);
	else
		must((status == MR_E_FORMAT || status == MR_E_RANGE || status == MR_E_TOO_LARGE ||
		      status == MR_E_TRUNCATED) &&
		     trace.error[0] && trace.error_line > 0);
	load_trace_free(&trace);
	free(text);
	return 0;
}
