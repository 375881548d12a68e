// SPDX-License-Identifier: Apache-2.0
/* The trace's writer: one record after another into the ring, and the clock behind it. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <millrace/status.h>

#include "driver/mapped.h"
#include "driver/trace.h"

#define RECORD_BYTES sizeof(struct mr_trace_record)

struct mr_trace_writer mr_trace_writer;
static struct mr_trace_record *own; /* a ring in memory */
static struct mr_mapped mapped;     /* or a struct mr_trace_header and the ring */

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

static int start(struct mr_trace_record *records, uint32_t entries)
{
	mr_trace_writer = (struct mr_trace_writer){.records = records, .mask = entries - 1};
	return 0;
}

static int check_entries(uint32_t *entries)
{
	if (mr_trace_writer.records)
		return MR_E_BUSY;
	*entries = *entries ? *entries : MR_TRACE_ENTRIES;
	return *entries & (*entries - 1) || *entries > MR_TRACE_ENTRIES_MAX ? MR_E_INVALID : 0;
}

int mr_trace_open(uint32_t entries)
{
	int status = check_entries(&entries);

	if (status)
		return status;
	own = calloc(entries, sizeof(*own));
	return own ? start(own, entries) : MR_E_NO_MEMORY;
}

int mr_trace_create(const char *path, uint32_t entries)
{
	struct mr_trace_header *h;
	struct timespec t;
	int status = check_entries(&entries);

	if (!status)
		status = mr_mapped_create(path, MR_TRACE_MAGIC,
					  sizeof(*h) + (uint64_t)entries * RECORD_BYTES, &mapped);
	if (status)
		return status;
	h = mapped.at;
	clock_gettime(CLOCK_REALTIME, &t);
	h->version = MR_TRACE_VERSION;
	h->header_bytes = sizeof(*h);
	h->table_hash = mr_trace_hash();
	h->entries = entries;
	h->record_bytes = RECORD_BYTES;
	h->pid = (uint32_t)getpid();
	h->start_ns = mr_trace_now();
	h->start_real_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
	__atomic_store_n(&h->magic, MR_TRACE_MAGIC, __ATOMIC_RELEASE);
	return start((struct mr_trace_record *)(h + 1), entries);
}

void mr_trace_close(void)
{
	mr_trace_writer = (struct mr_trace_writer){0};
	free(own);
	own = NULL;
	mr_mapped_close(&mapped);
}

void mr_trace_name(uint32_t device, const char *name)
{
	struct mr_trace_header *h = mapped.at;

	if (h && device < MR_TRACE_DEVICES)
		snprintf(h->devices[device], sizeof(h->devices[device]), "%s", name);
}
