// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes the readers of counters and trace files, and what the tools make of what those let pass. The first
 * word tells which. Input is read once as it is; then with magic, version, hash and sizes put right and zeros
 * where it is short, so that short inputs reach everything behind the header.
 */
#include <json-c/json.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <millrace/status.h>

/* The program's own parts are in no archive. */
#include "tools/summary.c"
#include "tools/timeline.c"
#include "tools/timeline_json.c"
#include "tools/timeline_text.c"
#include "tools/top_draw.c"
#include "tools/top_view.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static FILE *sink;

static void check(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_observe: %s\n", what);
	abort();
}

/* The file @path of [@data, @data + @size). */
static const char *file_of(const void *data, size_t size)
{
	static char path[] = "/tmp/millrace-fuzz-XXXXXX";
	static int fd = -1;

	if (fd < 0) {
		fd = mkstemp(path);
		check(fd >= 0, "a file");
	}
	check(!ftruncate(fd, 0) && pwrite(fd, data, size, 0) == (ssize_t)size, "a file");
	return path;
}

static void remove_file(void)
{
	unlink(file_of("", 0));
}

static void show_counters(struct top_snapshot *s)
{
	static struct top_view view;
	static struct top_canvas canvas;
	static const int sizes[][2] = {{24, 80}, {1, 1}, {60, 200}, {200, 400}, {10, 40}};

	if (mr_counters_check(&s[1].file, sizeof(s[1].file)))
		return;
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		top_look("f", i % 2 ? &s[0] : NULL, &s[1], (int)(i & 1), &view);
		canvas.rows = sizes[i][0];
		canvas.columns = sizes[i][1];
		top_draw(&view, &canvas);
		check(canvas.used <= canvas.rows, "more rows than the window has");
		top_print(&canvas, (int)(i & 1), sink);
	}
}

static void read_counters(const uint8_t *data, size_t size)
{
	static struct top_snapshot s[2];
	struct mr_counters_header *h = &s[1].file.header;

	memset(s, 0, sizeof(s));
	s[0].mono_ns = 1000000000u;
	s[1].mono_ns = 1500000000u;
	memcpy(&s[1].file, data, size < sizeof(s[1].file) ? size : sizeof(s[1].file));
	if (mr_counters_check(&s[1].file, size) == 0)
		show_counters(s);
	check(!top_take(file_of(data, size), &s[1]) == !mr_counters_check(&s[1].file, size),
	      "a file is read otherwise");
	memset(&s[1].file, 0, sizeof(s[1].file));
	memcpy(&s[1].file, data, size < sizeof(s[1].file) ? size : sizeof(s[1].file));
	h->magic = MR_COUNTERS_MAGIC;
	h->version = MR_COUNTERS_VERSION;
	h->header_bytes = sizeof(*h);
	h->file_bytes = sizeof(s[1].file);
	h->table_hash = mr_counters_hash();
	h->metric_count = MR_METRIC_COUNT;
	h->device_count = MR_COUNTERS_DEVICES;
	h->histogram_count = MR_HISTOGRAM_COUNT;
	h->bucket_count = MR_HISTOGRAM_BUCKETS;
	h->metrics_offset = offsetof(struct mr_counters_file, metrics);
	h->queues_offset = offsetof(struct mr_counters_file, queues);
	h->devices_offset = offsetof(struct mr_counters_file, devices);
	h->histograms_offset = offsetof(struct mr_counters_file, histograms);
	h->state %= MR_SERVER_STOPPED + 1;
	show_counters(s);
	check(!top_take(file_of(&s[1].file, sizeof(s[1].file)), &s[1]), "a good file is refused");
	show_counters(s);
}

/* Phases follow each other, and a device's pieces of work do not overlap, but for those that went together. */
static void show_trace(const struct mr_trace *trace)
{
	static uint64_t free_ns[UINT16_MAX + 1];
	struct timeline t;

	check(timeline_build(trace, &t) == 0, "memory");
	memset(free_ns, 0, sizeof(free_ns));
	for (uint64_t i = 0; i < t.turn_count; i++)
		for (int p = 0; p < PHASE_COUNT; p++)
			check(t.turns[i].edge[p] <= t.turns[i].edge[p + 1], "a negative phase");
	for (uint64_t i = 0; i < t.work_count; i++) {
		const struct work *w = &t.works[i];

		check(w->from_ns <= w->to_ns, "negative work");
		check(w->together ? w->to_ns == free_ns[w->device]
				  : w->from_ns >= free_ns[w->device],
		      "work that overlaps");
		free_ns[w->device] = w->to_ns;
	}
	check(timeline_json(&t, sink) == 0 && timeline_text(&t, sink) == 0, "output");
	timeline_free(&t);
}

static void read_trace(const uint8_t *data, size_t size)
{
	struct mr_trace trace;
	struct mr_trace_header *h;
	uint64_t bytes = sizeof(*h) + 64 * sizeof(struct mr_trace_record);

	if (mr_trace_parse(data, size, &trace) == 0)
		show_trace(&trace);
	mr_trace_free(&trace);
	if (mr_trace_read(file_of(data, size), &trace) == 0)
		show_trace(&trace);
	mr_trace_free(&trace);
	h = calloc(1, bytes);
	check(h != NULL, "memory");
	memcpy(h, data, size < bytes ? size : bytes);
	h->magic = MR_TRACE_MAGIC;
	h->version = MR_TRACE_VERSION;
	h->header_bytes = sizeof(*h);
	h->record_bytes = sizeof(struct mr_trace_record);
	h->table_hash = mr_trace_hash();
	h->entries = 64;
	check(mr_trace_parse(h, bytes, &trace) == 0, "a good header is refused");
	for (uint64_t i = 1; i < trace.count; i++)
		check(trace.records[i].sequence > trace.records[i - 1].sequence, "order");
	show_trace(&trace);
	mr_trace_free(&trace);
	check(mr_trace_read(file_of(h, bytes), &trace) == 0, "a good file is refused");
	mr_trace_free(&trace);
	free(h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!sink) {
		sink = fopen("/dev/null", "w");
		atexit(remove_file);
	}
	check(sink != NULL, "no sink");
	if (size >= 8 && !memcmp(data, "MRTRACE1", 8))
		read_trace(data, size);
	else
		read_counters(data, size);
	return 0;
}
