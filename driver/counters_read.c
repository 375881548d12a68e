// SPDX-License-Identifier: Apache-2.0
/* The counters file's reader: snapshots. Nothing in the file is trusted. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <millrace/status.h>

#include "driver/counters.h"
#include "driver/counters_own.h"
#include "driver/mapped.h"

#define ROW_TRIES 16 /* then the row is taken as it is: its writer may have died inside */

static uint64_t hash_text(uint64_t h, const char *text)
{
	return mr_mapped_hash(h, text, strlen(text) + 1);
}

uint64_t mr_counters_hash(void)
{
	static const uint32_t sizes[] = {
		sizeof(struct mr_counters_header),
		sizeof(struct mr_queues),
		sizeof(struct mr_device_row),
		sizeof(struct mr_histogram_data),
		MR_COUNTERS_DEVICES,
		MR_HISTOGRAM_SUB_BITS,
	};
	uint64_t h = mr_mapped_hash(MR_MAPPED_HASH, sizes, sizeof(sizes));

	for (int i = 0; i < MR_METRIC_COUNT; i++)
		h = hash_text(hash_text(h, mr_metric_info[i].name), mr_metric_info[i].unit);
	for (int i = 0; i < MR_HISTOGRAM_COUNT; i++)
		h = hash_text(h, mr_histogram_info[i].name);
	return h;
}

static int same_layout(const struct mr_counters_header *h)
{
	return h->header_bytes == sizeof(*h) && h->file_bytes == sizeof(struct mr_counters_file) &&
	       h->metric_count == MR_METRIC_COUNT && h->device_count == MR_COUNTERS_DEVICES &&
	       h->histogram_count == MR_HISTOGRAM_COUNT &&
	       h->bucket_count == MR_HISTOGRAM_BUCKETS &&
	       h->metrics_offset == offsetof(struct mr_counters_file, metrics) &&
	       h->queues_offset == offsetof(struct mr_counters_file, queues) &&
	       h->devices_offset == offsetof(struct mr_counters_file, devices) &&
	       h->histograms_offset == offsetof(struct mr_counters_file, histograms);
}

int mr_counters_check(struct mr_counters_file *f, uint64_t size)
{
	struct mr_counters_header *h = &f->header;

	if (size < sizeof(h->magic))
		return size ? MR_E_FORMAT : MR_E_EMPTY;
	if (h->magic == 0)
		return MR_E_EMPTY;
	if (h->magic != MR_COUNTERS_MAGIC)
		return MR_E_FORMAT;
	if (size < sizeof(*h))
		return MR_E_TRUNCATED;
	if (h->version != MR_COUNTERS_VERSION || h->table_hash != mr_counters_hash())
		return MR_E_VERSION;
	if (!same_layout(h) || h->state > MR_SERVER_STOPPED)
		return MR_E_RANGE;
	if (size < sizeof(*f))
		return MR_E_TRUNCATED;
	mr_mapped_text(h->program, sizeof(h->program));
	mr_mapped_text(h->model, sizeof(h->model));
	mr_mapped_text(h->listen, sizeof(h->listen));
	for (int i = 0; i < MR_COUNTERS_DEVICES; i++)
		mr_mapped_text(f->devices[i].note.name, sizeof(f->devices[i].note.name));
	return 0;
}

/*
 * Takes the row again until its version (ROW_END) was even and the same before and after. Three reads: within
 * one the kernel may copy in any order, and was seen to.
 */
static void read_row(int fd, struct mr_device_row *row, uint64_t at)
{
	uint32_t before, after;

	for (int i = 0; i < ROW_TRIES; i++) {
		if (mr_mapped_read(fd, &before, sizeof(before), at) != (int64_t)sizeof(before) ||
		    mr_mapped_read(fd, row, sizeof(*row), at) != (int64_t)sizeof(*row) ||
		    mr_mapped_read(fd, &after, sizeof(after), at) != (int64_t)sizeof(after))
			return;
		if (before == after && !(before & 1))
			return;
	}
	row->version |= 1; /* so that nobody takes it for one moment's */
}

int mr_counters_read(const char *path, struct mr_counters_file *out)
{
	int fd = mr_mapped_open(path);
	int64_t got;

	if (fd < 0)
		return fd;
	memset(out, 0, sizeof(*out));
	got = mr_mapped_read(fd, out, sizeof(*out), 0);
	for (size_t i = 0; got == (int64_t)sizeof(*out) && i < MR_COUNTERS_DEVICES; i++)
		read_row(fd, &out->devices[i],
			 offsetof(struct mr_counters_file, devices) + i * sizeof(out->devices[0]));
	close(fd);
	return got < 0 ? MR_E_IO : mr_counters_check(out, (uint64_t)got);
}

uint64_t mr_counters_process_start(uint32_t pid)
{
	char path[32], text[1024], *p;
	unsigned long long ticks = 0;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%u/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	n = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	text[n] = '\0';
	/* Field 22, counted behind the name, which may hold anything; 3 is the state. */
	p = strrchr(text, ')');
	if (!p || p[1] != ' ' || p[2] == 'Z' || p[2] == 'X')
		return 0; /* killed, and not yet waited for */
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	if (p)
		ticks = strtoull(p, NULL, 10);
	return ticks;
}

int mr_counters_alive(const struct mr_counters_file *f)
{
	return f->header.state != MR_SERVER_STOPPED && f->header.process_start != 0 &&
	       mr_counters_process_start(f->header.pid) == f->header.process_start;
}
