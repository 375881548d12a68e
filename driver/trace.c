// SPDX-License-Identifier: Apache-2.0
/* The trace's writer: one record after another into the ring, and the clock behind it. */
#include <stdlib.h>
#include <time.h>

#include <millrace/status.h>

#include "driver/trace.h"

#define ENTRIES_DEFAULT (1u << 16)

struct mr_trace_writer mr_trace_writer;

const struct mr_trace_info mr_trace_info[MR_TRACE_EVENT_COUNT] = {
#define X(id, value, help) {#id, value, help},
#include "driver/trace.def"
#undef X
};

uint64_t mr_trace_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void mr_trace_write(enum mr_trace_event event, uint32_t owner, uint32_t device, uint64_t value,
		    uint64_t ns)
{
	struct mr_trace_writer *w = &mr_trace_writer;
	struct mr_trace_record *r = &w->records[w->next & w->mask];

	__atomic_store_n(&r->sequence, 0, __ATOMIC_RELAXED); /* TRACE_TAKE */
	/* Release on each: who has seen a new field sees the 0 too. */
	__atomic_store_n(&r->ns, ns, __ATOMIC_RELEASE);
	__atomic_store_n(&r->value, value, __ATOMIC_RELEASE);
	__atomic_store_n(&r->owner, owner, __ATOMIC_RELEASE);
	__atomic_store_n(&r->event, (uint16_t)event, __ATOMIC_RELEASE);
	__atomic_store_n(&r->device, (uint16_t)device, __ATOMIC_RELEASE);
	w->next++;
	__atomic_store_n(&r->sequence, w->next, __ATOMIC_RELEASE); /* TRACE_PUBLISH */
}

int mr_trace_open(uint32_t entries)
{
	struct mr_trace_writer *w = &mr_trace_writer;

	if (w->records)
		return MR_E_BUSY;
	entries = entries ? entries : ENTRIES_DEFAULT;
	if (entries & (entries - 1))
		return MR_E_INVALID;
	w->records = calloc(entries, sizeof(*w->records));
	if (!w->records)
		return MR_E_NO_MEMORY;
	w->mask = entries - 1;
	w->next = 0;
	return 0;
}

void mr_trace_close(void)
{
	free(mr_trace_writer.records);
	mr_trace_writer = (struct mr_trace_writer){0};
}
