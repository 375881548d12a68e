// SPDX-License-Identifier: Apache-2.0
/*
 * The trace: what is written is read in order, laps are told, a reader beside the writer never sees a mixed
 * record, and a timeline of a whole made-up request has the phases that it should.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <millrace/status.h>

#include "driver/counters.h"
#include "driver/mapped.h"

/* The reader itself, with a place to stop in: what others do between two of its looks at the file. */
static void (*between)(void);
static unsigned looks;

static int64_t hooked_read(int fd, void *out, uint64_t bytes, uint64_t at)
{
	int64_t got = mr_mapped_read(fd, out, bytes, at);

	looks++;
	if (between)
		between();
	return got;
}
#define mr_mapped_read hooked_read
#include "driver/trace_read.c"
#undef mr_mapped_read

/* The program's own parts are in no archive. */
#include "tools/timeline.c"

static char path[] = "/tmp/mr-trace-XXXXXX";
static struct mr_trace trace;

static int make_file(void **state)
{
	int fd = mkstemp(path);

	return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
	return unlink(path);
}

static void off_writes_nothing(void **state)
{
	mr_trace(MR_T_token, 1, 0, 2);
	mr_trace_at(MR_T_token, 1, 0, 2, 3);
	assert_null(mr_trace_writer.records);
	assert_int_equal(mr_trace_writer.next, 0);
}

static void ring_in_memory_keeps_the_newest(void **state)
{
	assert_int_equal(mr_trace_open(3), MR_E_INVALID);
	assert_int_equal(mr_trace_open(2 * MR_TRACE_ENTRIES_MAX), MR_E_INVALID);
	assert_int_equal(mr_trace_open(4), 0);
	assert_int_equal(mr_trace_open(4), MR_E_BUSY);
	for (uint32_t i = 1; i <= 6; i++)
		mr_trace_at(MR_T_token, i, 0, 0, i);
	assert_int_equal(mr_trace_writer.records[0].sequence, 5);
	assert_int_equal(mr_trace_writer.records[1].owner, 6);
	assert_int_equal(mr_trace_writer.records[2].owner, 3);
	mr_trace_close();
	off_writes_nothing(state);
}

static void file_is_read_in_order(void **state)
{
	const struct mr_device_note note = {.name = "lpu:test"};

	for (uint32_t n = 0; n <= 70; n++) {
		uint64_t first = n > 16 ? n - 15 : 1;

		assert_int_equal(mr_trace_create(path, 16), 0);
		mr_device_note(3, &note, 1);
		for (uint32_t i = 1; i <= n; i++)
			mr_trace_at((enum mr_trace_event)(i % MR_TRACE_EVENT_COUNT), i, i % 5,
				    i * 7ull, 1000 + i);
		assert_int_equal(mr_trace_read(path, &trace), 0);
		assert_int_equal(trace.count, n < 16 ? n : 16);
		assert_int_equal(trace.lost, n > 16 ? n - 16 : 0);
		assert_int_equal(trace.broken, 0);
		assert_string_equal(trace.header.devices[3], "lpu:test");
		for (uint64_t k = 0; k < trace.count; k++) {
			const struct mr_trace_record *r = &trace.records[k];

			assert_int_equal(r->sequence, first + k);
			assert_int_equal(r->owner, first + k);
			assert_int_equal(r->ns, 1000 + first + k);
			assert_int_equal(r->value, 7 * (first + k));
			assert_int_equal(r->device, (first + k) % 5);
			assert_int_equal(r->event, (first + k) % MR_TRACE_EVENT_COUNT);
		}
		mr_trace_free(&trace);
		mr_trace_close();
	}
}

/* A record that the writer died in, one of an unknown event, one of an older lap: dropped, and counted. */
static void broken_places_are_left_out(void **state)
{
	struct mr_trace_record *r;

	assert_int_equal(mr_trace_create(path, 16), 0);
	for (uint32_t i = 1; i <= 40; i++)
		mr_trace_at(MR_T_token, i, 0, 0, i);
	r = mr_trace_writer.records;
	r[2].sequence = 0;
	r[3].event = MR_TRACE_EVENT_COUNT;
	r[4].sequence -= 16;
	r[5].sequence += 1;
	assert_int_equal(mr_trace_read(path, &trace), 0);
	assert_int_equal(trace.count, 12);
	assert_int_equal(trace.broken, 4);
	mr_trace_free(&trace);
	mr_trace_close();
}

static void damaged_headers_have_names(void **state)
{
	static struct {
		struct mr_trace_header header;
		struct mr_trace_record records[4];
	} good, bad;
	FILE *f;

	assert_int_equal(mr_trace_create(path, 4), 0);
	mr_trace_close();
	f = fopen(path, "rb");
	assert_non_null(f);
	assert_int_equal(fread(&good, 1, sizeof(good), f), sizeof(good));
	fclose(f);
#define DAMAGE(field, value, status)                                                 \
	do {                                                                         \
		bad = good;                                                          \
		bad.header.field = value;                                            \
		assert_int_equal(mr_trace_parse(&bad, sizeof(bad), &trace), status); \
	} while (0)
	DAMAGE(magic, 1, MR_E_FORMAT);
	DAMAGE(magic, 0, MR_E_EMPTY);
	DAMAGE(version, 2, MR_E_VERSION);
	DAMAGE(table_hash, 2, MR_E_VERSION);
	DAMAGE(header_bytes, 511, MR_E_RANGE);
	DAMAGE(record_bytes, 31, MR_E_RANGE);
	DAMAGE(entries, 0, MR_E_RANGE);
	DAMAGE(entries, 3, MR_E_RANGE);
	DAMAGE(entries, 2ull * MR_TRACE_ENTRIES_MAX, MR_E_RANGE);
	DAMAGE(entries, 8, MR_E_TRUNCATED);
	assert_int_equal(mr_trace_parse(&good, 0, &trace), MR_E_EMPTY);
	assert_int_equal(mr_trace_parse(&good, 7, &trace), MR_E_FORMAT);
	assert_int_equal(mr_trace_parse(&good, 511, &trace), MR_E_TRUNCATED);
	assert_int_equal(mr_trace_parse(&good, sizeof(good) - 1, &trace), MR_E_TRUNCATED);
	assert_int_equal(mr_trace_parse(&good, sizeof(good), &trace), 0);
	mr_trace_free(&trace);
	assert_int_equal(truncate(path, 600), 0);
	assert_int_equal(mr_trace_read(path, &trace), MR_E_TRUNCATED);
	assert_int_equal(mr_trace_read("/tmp", &trace), MR_E_FORMAT);
	assert_int_equal(mr_trace_read("/tmp/mr-none/t", &trace), MR_E_NOT_FOUND);
}

/* The header is the first look; the records are looked at three times. */
static void write_over(void)
{
	for (uint32_t i = 17; looks == 2 && i <= 19; i++)
		mr_trace_at(MR_T_token, i, 0, 0, i);
}

static void records_written_over_while_read_are_dropped(void **state)
{
	assert_int_equal(mr_trace_create(path, 16), 0);
	for (uint32_t i = 1; i <= 16; i++)
		mr_trace_at(MR_T_token, i, 0, 0, i);
	between = write_over;
	looks = 0;
	assert_int_equal(mr_trace_read(path, &trace), 0);
	between = NULL;
	assert_int_equal(looks, 4);
	assert_int_equal(trace.count, 13);
	assert_int_equal(trace.records[0].sequence, 4);
	assert_int_equal(trace.broken, 3);
	mr_trace_free(&trace);
	mr_trace_close();
}

static int stop;

static void *write_records(void *arg)
{
	for (uint32_t n = 1; !__atomic_load_n(&stop, __ATOMIC_RELAXED); n++) {
		mr_trace_at((enum mr_trace_event)(n % MR_TRACE_EVENT_COUNT), n, n & 0xff, n, n);
		/* Slow enough that a reader sees some, fast enough to write over what it reads. */
		if (n % 1024 == 0)
			usleep(20);
	}
	return NULL;
}

static void reader_beside_writer_sees_whole_records(void **state)
{
	uint64_t seen = 0;
	pthread_t writer;

	assert_int_equal(mr_trace_create(path, 4096), 0);
	assert_int_equal(pthread_create(&writer, NULL, write_records, NULL), 0);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(mr_trace_read(path, &trace), 0);
		for (uint64_t k = 0; k < trace.count; k++) {
			const struct mr_trace_record *r = &trace.records[k];

			if (r->owner != (uint32_t)r->sequence || r->ns != r->sequence ||
			    r->value != r->sequence || r->device != (r->sequence & 0xff) ||
			    r->event != r->sequence % MR_TRACE_EVENT_COUNT)
				fail_msg("a mixed record: %lu", (unsigned long)r->sequence);
		}
		seen += trace.count;
		mr_trace_free(&trace);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(writer, NULL);
	mr_trace_close();
	assert_true(seen > 0);
}

/* Two requests on two devices, one of which is under way when the trace is read. */
static void timeline_has_the_phases(void **state)
{
	static const struct {
		enum mr_trace_event event;
		uint32_t owner, device;
		uint64_t value, ns;
	} events[] = {
		{MR_T_arrival, 7, MR_TRACE_NO_DEVICE, 20, 1000},
		{MR_T_tokenised, 7, MR_TRACE_NO_DEVICE, 5, 1100},
		{MR_T_queued, 7, MR_TRACE_NO_DEVICE, 1, 1100},
		{MR_T_chunk_begin, 7, 0, 3, 1500},
		{MR_T_chunk_begin, 8, 0, 2, 1600}, /* behind the one above, on the same device */
		{MR_T_chunk_end, 7, 0, 0, 2000},
		{MR_T_chunk_end, 8, 0, 0, 2400},
		{MR_T_handover_begin, 7, 1, 4, 2100},
		{MR_T_handover_end, 7, 1, 0, 2600},
		{MR_T_step_begin, 0, 1, 1, 2700},
		{MR_T_token, 7, 1, 5, 3000},
		{MR_T_egress, 7, MR_TRACE_NO_DEVICE, 1, 3010},
		{MR_T_step_end, 0, 1, 0, 3000},
		{MR_T_step_begin, 0, 1, 1, 3100},
		{MR_T_token, 7, 1, 6, 3500},
		{MR_T_step_end, 0, 1, 9, 3500},
		{MR_T_end, 7, MR_TRACE_NO_DEVICE, 2, 3600},
		{MR_T_step_begin, 0, 1, 1, 3700},
		{MR_T_handover_end, 8, 0, 0, 3900}, /* its begin is lost */
	};
	static const uint64_t edges[] = {1000, 1100, 1500, 2000, 2600, 3000, 3500, 3600};
	struct timeline t;

	assert_int_equal(mr_trace_create(path, 64), 0);
	for (unsigned i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		mr_trace_at(events[i].event, events[i].owner, events[i].device, events[i].value,
			    events[i].ns);
	mr_trace_close();
	assert_int_equal(mr_trace_read(path, &trace), 0);
	assert_int_equal(timeline_build(&trace, &t), 0);
	assert_int_equal(t.turn_count, 2);
	assert_int_equal(t.turns[0].owner, 7);
	assert_int_equal(t.turns[0].prompt_tokens, 5);
	assert_int_equal(t.turns[0].tokens, 2);
	assert_int_equal(t.turns[0].egress, 1);
	assert_int_equal(t.turns[0].unfinished, 0);
	assert_int_equal(t.turns[0].partial, 0);
	for (int p = 0; p <= PHASE_COUNT; p++)
		assert_int_equal(t.turns[0].edge[p], edges[p]);
	assert_int_equal(t.turns[1].partial, 1);
	assert_int_equal(t.turns[1].unfinished, 1);
	assert_int_equal(t.turns[1].edge[PHASE_COUNT], 3900);
	assert_int_equal(t.unmatched, 1);
	assert_int_equal(t.work_count, 6);
	/* The second chunk began when the device had ended the first. */
	assert_int_equal(t.works[0].from_ns, 1500);
	assert_int_equal(t.works[1].owner, 8);
	assert_int_equal(t.works[1].from_ns, 2000);
	assert_int_equal(t.works[1].to_ns, 2400);
	assert_int_equal(t.works[4].status, 9);
	assert_int_equal(t.works[5].unfinished, 1);
	assert_int_equal(t.works[5].to_ns, 3900);
	timeline_free(&t);
	mr_trace_free(&trace);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(off_writes_nothing),
		cmocka_unit_test(ring_in_memory_keeps_the_newest),
		cmocka_unit_test(file_is_read_in_order),
		cmocka_unit_test(broken_places_are_left_out),
		cmocka_unit_test(damaged_headers_have_names),
		cmocka_unit_test(records_written_over_while_read_are_dropped),
		cmocka_unit_test(reader_beside_writer_sees_whole_records),
		cmocka_unit_test(timeline_has_the_phases),
	};

	return cmocka_run_group_tests_name("trace", tests, make_file, remove_file);
}
