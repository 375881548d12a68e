// SPDX-License-Identifier: Apache-2.0
/* The trace file's reader: the records that are whole, in their order. Nothing in the file is trusted. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <millrace/status.h>

#include "driver/mapped.h"
#include "driver/trace.h"

uint64_t mr_trace_hash(void)
{
	uint64_t h = mr_mapped_hash(MR_MAPPED_HASH, &(uint32_t){sizeof(struct mr_trace_record)}, 4);

	for (int i = 0; i < MR_TRACE_EVENT_COUNT; i++)
		h = mr_mapped_hash(h, mr_trace_info[i].name, strlen(mr_trace_info[i].name) + 1);
	return h;
}

static int check_header(struct mr_trace_header *h, uint64_t size)
{
	if (size < sizeof(h->magic))
		return size ? MR_E_FORMAT : MR_E_EMPTY;
	if (h->magic == 0)
		return MR_E_EMPTY;
	if (h->magic != MR_TRACE_MAGIC)
		return MR_E_FORMAT;
	if (size < sizeof(*h))
		return MR_E_TRUNCATED;
	if (h->version != MR_TRACE_VERSION || h->table_hash != mr_trace_hash())
		return MR_E_VERSION;
	if (h->header_bytes != sizeof(*h) || h->record_bytes != sizeof(struct mr_trace_record) ||
	    h->entries == 0 || h->entries > MR_TRACE_ENTRIES_MAX || h->entries & (h->entries - 1))
		return MR_E_RANGE;
	for (int i = 0; i < MR_TRACE_DEVICES; i++)
		mr_mapped_text(h->devices[i], sizeof(h->devices[i]));
	return 0;
}

static int by_sequence(const void *a, const void *b)
{
	const struct mr_trace_record *x = a, *y = b;

	return (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

/* Keeps what is whole: number and place agree, and the event is known. */
static void sort_out(struct mr_trace *t)
{
	uint64_t entries = t->header.entries, newest = 0, kept = 0, whole = 0;

	for (uint64_t i = 0; i < entries; i++) {
		struct mr_trace_record r = t->records[i];

		if (r.sequence == 0 && r.ns == 0)
			continue; /* never written */
		if (r.sequence == 0 || ((r.sequence - 1) & (entries - 1)) != i ||
		    r.event >= MR_TRACE_EVENT_COUNT) {
			t->broken++;
			continue;
		}
		newest = r.sequence > newest ? r.sequence : newest;
		t->records[whole++] = r;
	}
	/* A number from before the last lap: its place should have been written over since. */
	for (uint64_t i = 0; i < whole; i++) {
		if (newest - t->records[i].sequence < entries)
			t->records[kept++] = t->records[i];
		else
			t->broken++;
	}
	qsort(t->records, kept, sizeof(*t->records), by_sequence);
	t->count = kept;
	t->lost = newest > entries ? newest - entries : 0;
}

int mr_trace_parse(const void *bytes, uint64_t size, struct mr_trace *out)
{
	int status;

	memset(out, 0, sizeof(*out));
	memcpy(&out->header, bytes, size < sizeof(out->header) ? size : sizeof(out->header));
	status = check_header(&out->header, size);
	if (status)
		return status;
	if ((size - sizeof(out->header)) / sizeof(*out->records) < out->header.entries)
		return MR_E_TRUNCATED;
	out->records = malloc(out->header.entries * sizeof(*out->records));
	if (!out->records)
		return MR_E_NO_MEMORY;
	memcpy(out->records, (const char *)bytes + sizeof(out->header),
	       out->header.entries * sizeof(*out->records));
	sort_out(out);
	return 0;
}

/*
 * TRACE_PUBLISH: a record is whole where its number was the same before and after it was read. Three looks: within
 * one the kernel may copy in any order, and was seen to.
 */
static int read_records(int fd, struct mr_trace *t)
{
	uint64_t n = t->header.entries, bytes = n * sizeof(*t->records);
	struct mr_trace_record *copies[3] = {malloc(bytes), malloc(bytes), malloc(bytes)};
	int status = copies[0] && copies[1] && copies[2] ? 0 : MR_E_NO_MEMORY;

	for (int i = 0; i < 3 && !status; i++)
		if (mr_mapped_read(fd, copies[i], bytes, sizeof(t->header)) != (int64_t)bytes)
			status = MR_E_TRUNCATED;
	for (uint64_t i = 0; !status && i < n; i++)
		if (copies[0][i].sequence != copies[2][i].sequence)
			copies[1][i] = (struct mr_trace_record){.ns = 1};
	free(copies[0]);
	free(copies[2]);
	t->records = copies[1];
	return status;
}

int mr_trace_read(const char *path, struct mr_trace *out)
{
	int fd = mr_mapped_open(path);
	int64_t got;
	int status;

	memset(out, 0, sizeof(*out));
	if (fd < 0)
		return fd;
	got = mr_mapped_read(fd, &out->header, sizeof(out->header), 0);
	status = got < 0 ? MR_E_IO : check_header(&out->header, (uint64_t)got);
	if (!status)
		status = read_records(fd, out);
	close(fd);
	if (status)
		mr_trace_free(out);
	else
		sort_out(out);
	return status;
}

void mr_trace_free(struct mr_trace *t)
{
	free(t->records);
	t->records = NULL;
	t->count = 0;
}
