// SPDX-License-Identifier: Apache-2.0
/* The counters file's writer: makes and maps it, moves the tables into it and back, and keeps its heartbeat. */
#include <stddef.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <millrace/status.h>

#include "driver/counters.h"
#include "driver/counters_own.h"
#include "driver/mapped.h"

#define STRING_(x) #x
#define STRING(x)  STRING_(x)

static struct mr_mapped mapped; /* a struct mr_counters_file */
static uint64_t last_beat_ns;

static uint64_t real_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fill_header(struct mr_counters_header *h)
{
	h->version = MR_COUNTERS_VERSION;
	h->header_bytes = sizeof(*h);
	h->file_bytes = sizeof(struct mr_counters_file);
	h->table_hash = mr_counters_hash();
	h->pid = (uint32_t)getpid();
	h->process_start = mr_counters_process_start(h->pid);
	h->start_real_ns = h->beat_real_ns = real_ns();
	h->metric_count = MR_METRIC_COUNT;
	h->device_count = MR_COUNTERS_DEVICES;
	h->histogram_count = MR_HISTOGRAM_COUNT;
	h->bucket_count = MR_HISTOGRAM_BUCKETS;
	h->metrics_offset = offsetof(struct mr_counters_file, metrics);
	h->queues_offset = offsetof(struct mr_counters_file, queues);
	h->devices_offset = offsetof(struct mr_counters_file, devices);
	h->histograms_offset = offsetof(struct mr_counters_file, histograms);
	snprintf(
		h->program, sizeof(h->program), "millrace %s",
		STRING(MR_VERSION_MAJOR) "." STRING(MR_VERSION_MINOR) "." STRING(MR_VERSION_PATCH));
}

int mr_counters_create(const char *path)
{
	struct mr_counters_file *f;
	int status;

	if (mapped.at)
		return MR_E_BUSY;
	status = mr_mapped_create(path, MR_COUNTERS_MAGIC, sizeof(*f), &mapped);
	if (status)
		return status;
	f = mapped.at;
	fill_header(&f->header);
	mr_counters_move(f->metrics, &f->queues, f->devices, f->histograms);
	__atomic_store_n(&f->header.magic, MR_COUNTERS_MAGIC, __ATOMIC_RELEASE);
	return 0;
}

void mr_counters_close(void)
{
	struct mr_counters_header *h = mapped.at;

	if (!h)
		return;
	mr_counters_set_state(MR_SERVER_STOPPED, h->beat_ns);
	mr_counters_move_back();
	mr_mapped_close(&mapped);
}

void mr_counters_describe(const char *model, const char *listen)
{
	struct mr_counters_header *h = mapped.at;

	if (h && model)
		snprintf(h->model, sizeof(h->model), "%s", model);
	if (h && listen)
		snprintf(h->listen, sizeof(h->listen), "%s", listen);
}

static void beat(struct mr_counters_header *h, uint64_t now_ns)
{
	last_beat_ns = now_ns;
	__atomic_store_n(&h->beat_ns, now_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&h->beat_real_ns, real_ns(), __ATOMIC_RELAXED);
}

void mr_counters_set_state(enum mr_counters_state state, uint64_t now_ns)
{
	struct mr_counters_header *h = mapped.at;

	if (!h)
		return;
	beat(h, now_ns);
	__atomic_store_n(&h->state, (uint32_t)state, __ATOMIC_RELEASE);
}

int mr_counters_beat(uint64_t now_ns)
{
	if (!mapped.at || now_ns - last_beat_ns < MR_COUNTERS_BEAT_NS)
		return 0;
	beat(mapped.at, now_ns);
	return 1;
}
