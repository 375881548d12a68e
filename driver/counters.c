// SPDX-License-Identifier: Apache-2.0
/* The counters' table in this process's memory, and the loop's notes about devices and queues. */
#include <string.h>

#include "driver/counters.h"
#include "driver/counters_own.h"
#include "driver/trace.h"

static uint64_t own_metrics[MR_METRIC_COUNT] __attribute__((aligned(64)));
static struct mr_histogram_data own_histograms[MR_HISTOGRAM_COUNT] __attribute__((aligned(64)));
static struct mr_device_row own_devices[MR_COUNTERS_DEVICES] __attribute__((aligned(64)));
static struct mr_queues own_queues;

uint64_t *mr_metrics = own_metrics;
struct mr_histogram_data *mr_histograms = own_histograms;
struct mr_device_row *mr_device_rows = own_devices;
struct mr_queues *mr_queues = &own_queues;

void mr_counters_move(uint64_t *metrics, struct mr_queues *queues, struct mr_device_row *devices,
		      struct mr_histogram_data *histograms)
{
	memcpy(metrics, mr_metrics, sizeof(own_metrics));
	memcpy(queues, mr_queues, sizeof(own_queues));
	memcpy(devices, mr_device_rows, sizeof(own_devices));
	memcpy(histograms, mr_histograms, sizeof(own_histograms));
	mr_metrics = metrics;
	mr_queues = queues;
	mr_device_rows = devices;
	mr_histograms = histograms;
}

void mr_counters_move_back(void)
{
	mr_counters_move(own_metrics, &own_queues, own_devices, own_histograms);
}

/* Release: who has seen a row's new field sees the odd version too. */
static void put32(uint32_t *to, uint32_t v)
{
	__atomic_store_n(to, v, __ATOMIC_RELEASE);
}

static void put64(uint64_t *to, uint64_t v)
{
	__atomic_store_n(to, v, __ATOMIC_RELEASE);
}

/* ROW_BEGIN: an odd version; the stores of fields that follow do not pass it. */
static struct mr_device_row *begin(uint32_t index)
{
	struct mr_device_row *row = &mr_device_rows[index];

	put32(&row->version, row->version + 1);
	return row;
}

/* ROW_END: an even version, seen after every field; pairs with the reader's acquire. */
static void end(struct mr_device_row *row, uint64_t now_ns)
{
	put64(&row->updated_ns, now_ns);
	put32(&row->version, row->version + 1);
}

void mr_device_note(uint32_t index, const struct mr_device_note *note, uint64_t now_ns)
{
	struct mr_device_row *row;

	if (index >= MR_COUNTERS_DEVICES)
		return;
	row = begin(index);
	for (unsigned i = 0; i < sizeof(note->name); i++)
		__atomic_store_n(&row->note.name[i], note->name[i], __ATOMIC_RELEASE);
	put32(&row->note.stages, note->stages);
	put32(&row->note.slots, note->slots);
	put32(&row->note.slots_used, note->slots_used);
	put32(&row->note.batch, note->batch);
	put64(&row->note.kv_blocks, note->kv_blocks);
	put64(&row->note.kv_blocks_used, note->kv_blocks_used);
	end(row, now_ns);
	mr_trace_name(index, note->name);
}

void mr_device_kv(uint32_t index, uint64_t blocks, uint64_t used, uint64_t now_ns)
{
	struct mr_device_row *row;

	if (index >= MR_COUNTERS_DEVICES)
		return;
	row = begin(index);
	put64(&row->note.kv_blocks, blocks);
	put64(&row->note.kv_blocks_used, used);
	end(row, now_ns);
}

void mr_device_posted(uint32_t index, uint64_t now_ns)
{
	struct mr_device_row *row;

	if (index >= MR_COUNTERS_DEVICES)
		return;
	row = begin(index);
	if (row->inflight == 0)
		put64(&row->busy_since_ns, now_ns);
	put32(&row->inflight, row->inflight + 1);
	end(row, now_ns);
}

void mr_device_ended(uint32_t index, uint64_t now_ns)
{
	struct mr_device_row *row;

	if (index >= MR_COUNTERS_DEVICES || mr_device_rows[index].inflight == 0)
		return;
	row = begin(index);
	put32(&row->inflight, row->inflight - 1);
	if (row->inflight == 0) {
		if (now_ns > row->busy_since_ns)
			put64(&row->busy_ns, row->busy_ns + now_ns - row->busy_since_ns);
		put64(&row->busy_since_ns, 0);
	}
	end(row, now_ns);
}

void mr_queues_note(const struct mr_queues *queues)
{
	put32(&mr_queues->waiting, queues->waiting);
	put32(&mr_queues->prefilling, queues->prefilling);
	put32(&mr_queues->handover, queues->handover);
	put32(&mr_queues->decoding, queues->decoding);
	put32(&mr_queues->paused, queues->paused);
	put32(&mr_queues->requests, queues->requests);
}
