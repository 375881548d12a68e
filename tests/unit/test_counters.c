// SPDX-License-Identifier: Apache-2.0
/* The counters file: what is counted is read back, also while written; every way to be no such file has a name. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
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
#include "driver/counters_read.c"
#undef mr_mapped_read

static char folder[] = "/tmp/mr-counters-XXXXXX";
static char path[64];
static struct mr_counters_file seen;

static int make_folder(void **state)
{
	if (!mkdtemp(folder))
		return -1;
	snprintf(path, sizeof(path), "%s/c", folder);
	return 0;
}

static int remove_folder(void **state)
{
	unlink(path);
	return rmdir(folder);
}

static void file_begins_with_what_was_counted(void **state)
{
	const struct mr_device_note note = {"lpu:test", 2, 16, 3, 0, 100, 7};
	const struct mr_queues queues = {1, 2, 3, 4, 5, 6, {0}};

	mr_count(MR_M_ring_sqe, 5);
	mr_histogram_add(MR_H_ttft, 1000);
	assert_int_equal(mr_counters_create(path), 0);
	mr_counters_describe("a model\033[2J", "ring x");
	mr_count(MR_M_ring_sqe, 2);
	mr_histogram_add(MR_H_ttft, 9000);
	mr_device_note(1, &note, 10);
	mr_device_note(8, &note, 10); /* no such row */
	mr_device_posted(1, 100);
	mr_device_posted(1, 150);
	mr_device_ended(1, 200);
	mr_device_ended(1, 400);
	mr_device_ended(1, 500); /* nothing was under way */
	mr_device_posted(1, 600);
	mr_queues_note(&queues);
	mr_counters_set_state(MR_SERVER_SERVING, 1);

	assert_int_equal(mr_counters_read(path, &seen), 0);
	assert_int_equal(seen.header.pid, getpid());
	assert_int_equal(mr_counters_alive(&seen), 1);
	assert_string_equal(seen.header.model, "a model?[2J");
	assert_string_equal(seen.header.listen, "ring x");
	assert_int_equal(seen.metrics[MR_M_ring_sqe], 7);
	assert_int_equal(mr_histogram_count(&seen.histograms[MR_H_ttft]), 2);
	assert_int_equal(seen.histograms[MR_H_ttft].max_ns, 9000);
	assert_string_equal(seen.devices[1].note.name, "lpu:test");
	assert_int_equal(seen.devices[1].busy_ns, 300);
	assert_int_equal(seen.devices[1].busy_since_ns, 600);
	assert_int_equal(seen.devices[1].inflight, 1);
	assert_int_equal(seen.devices[1].note.kv_blocks_used, 7);
	assert_int_equal(seen.devices[0].version, 0);
	assert_memory_equal(&seen.queues, &queues, sizeof(queues));

	/* Taken back into the process with its values; the file stays. */
	mr_counters_close();
	mr_count(MR_M_ring_sqe, 1);
	assert_int_equal(mr_metric_read(MR_M_ring_sqe), 8);
	assert_int_equal(mr_counters_read(path, &seen), 0);
	assert_int_equal(seen.header.state, MR_SERVER_STOPPED);
	assert_int_equal(mr_counters_alive(&seen), 0);
	assert_int_equal(seen.metrics[MR_M_ring_sqe], 7);
}

static void heartbeat_is_bounded(void **state)
{
	uint64_t now = 1000000000u;

	assert_int_equal(mr_counters_beat(now), 0); /* no file */
	assert_int_equal(mr_counters_create(path), 0);
	mr_counters_set_state(MR_SERVER_SERVING, now);
	assert_int_equal(mr_counters_beat(now + MR_COUNTERS_BEAT_NS - 1), 0);
	assert_int_equal(mr_counters_beat(now + MR_COUNTERS_BEAT_NS), 1);
	assert_int_equal(mr_counters_read(path, &seen), 0);
	assert_true(seen.header.beat_ns == now + MR_COUNTERS_BEAT_NS);
	mr_counters_close();
}

/* A file that a live server holds is not taken from it; one of a killed server is. */
static void one_server_a_file(void **state)
{
	pid_t child;
	int ready[2], status;
	char byte;

	assert_int_equal(pipe(ready), 0);
	child = fork();
	if (child == 0) {
		byte = (char)mr_counters_create(path);
		(void)!write(ready[1], &byte, 1);
		pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	assert_int_equal(byte, 0);
	assert_int_equal(mr_counters_create(path), MR_E_BUSY);
	assert_int_equal(mr_counters_read(path, &seen), 0);
	assert_int_equal(mr_counters_alive(&seen), 1);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(mr_counters_read(path, &seen), 0);
	assert_int_equal(mr_counters_alive(&seen), 0);
	assert_int_equal(mr_counters_create(path), 0);
	assert_int_equal(mr_counters_create(path), MR_E_BUSY);
	mr_counters_close();
	close(ready[0]);
	close(ready[1]);
}

static void put(const void *bytes, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), (ssize_t)n);
	close(fd);
}

static void foreign_files_are_left_alone(void **state)
{
	char other[80], text[] = "somebody's notes, longer than a word";

	put(text, sizeof(text));
	assert_int_equal(mr_counters_create(path), MR_E_EXISTS);
	assert_int_equal(mr_counters_read(path, &seen), MR_E_FORMAT);
	put("abc", 3);
	assert_int_equal(mr_counters_create(path), MR_E_EXISTS);
	assert_int_equal(mr_counters_create(folder), MR_E_EXISTS);
	assert_int_equal(mr_counters_read(folder, &seen), MR_E_FORMAT);
	snprintf(other, sizeof(other), "%s/link", folder);
	assert_int_equal(symlink(path, other), 0);
	assert_int_equal(mr_counters_create(other), MR_E_PERMISSION);
	unlink(other);
	assert_int_equal(mkfifo(other, 0600), 0);
	assert_int_equal(mr_counters_create(other), MR_E_EXISTS);
	assert_int_equal(mr_counters_read(other, &seen), MR_E_FORMAT);
	unlink(other);
	snprintf(other, sizeof(other), "%s/none/c", folder);
	assert_int_equal(mr_counters_create(other), MR_E_NOT_FOUND);
	assert_int_equal(mr_counters_read(other, &seen), MR_E_NOT_FOUND);
	unlink(path);
}

/* Each field of the header that is off gives its status, with all else right. */
static void damaged_headers_have_names(void **state)
{
	static struct mr_counters_file good, bad;

	assert_int_equal(mr_counters_create(path), 0);
	mr_counters_close();
	assert_int_equal(mr_counters_read(path, &good), 0);
#define DAMAGE(field, status)                                            \
	do {                                                             \
		bad = good;                                              \
		bad.header.field ^= 1;                                   \
		put(&bad, sizeof(bad));                                  \
		assert_int_equal(mr_counters_read(path, &seen), status); \
	} while (0)
	DAMAGE(magic, MR_E_FORMAT);
	DAMAGE(version, MR_E_VERSION);
	DAMAGE(table_hash, MR_E_VERSION);
	DAMAGE(header_bytes, MR_E_RANGE);
	DAMAGE(file_bytes, MR_E_RANGE);
	DAMAGE(metric_count, MR_E_RANGE);
	DAMAGE(device_count, MR_E_RANGE);
	DAMAGE(histogram_count, MR_E_RANGE);
	DAMAGE(bucket_count, MR_E_RANGE);
	DAMAGE(metrics_offset, MR_E_RANGE);
	DAMAGE(queues_offset, MR_E_RANGE);
	DAMAGE(devices_offset, MR_E_RANGE);
	DAMAGE(histograms_offset, MR_E_RANGE);
	bad = good;
	bad.header.state = MR_SERVER_STOPPED + 1;
	put(&bad, sizeof(bad));
	assert_int_equal(mr_counters_read(path, &seen), MR_E_RANGE);
	bad = good;
	bad.header.magic = 0;
	put(&bad, sizeof(bad));
	assert_int_equal(mr_counters_read(path, &seen), MR_E_EMPTY);
	put(&good, 0);
	assert_int_equal(mr_counters_read(path, &seen), MR_E_EMPTY);
	put(&good, 7);
	assert_int_equal(mr_counters_read(path, &seen), MR_E_FORMAT);
	put(&good, sizeof(good.header) - 1);
	assert_int_equal(mr_counters_read(path, &seen), MR_E_TRUNCATED);
	put(&good, sizeof(good) - 1);
	assert_int_equal(mr_counters_read(path, &seen), MR_E_TRUNCATED);
	put(&good, sizeof(good));
	assert_int_equal(mr_counters_read(path, &seen), 0);
}

/* The row changes after the first look at it, which was at its version. The whole file was one look. */
static void change_row(void)
{
	const struct mr_device_note note = {"new", 1, 2, 3, 4, 5, 6};

	if (looks == 2)
		mr_device_note(0, &note, 7);
}

static void changed_row_is_read_again(void **state)
{
	const struct mr_device_note note = {.name = "old"};

	assert_int_equal(mr_counters_create(path), 0);
	mr_device_note(0, &note, 1);
	between = change_row;
	looks = 0;
	assert_int_equal(mr_counters_read(path, &seen), 0);
	between = NULL;
	assert_string_equal(seen.devices[0].note.name, "new");
	assert_int_equal(seen.devices[0].note.kv_blocks_used, 6);
	assert_int_equal(seen.devices[0].updated_ns, 7);
	/* A writer that died inside a row: it is shown as it is, after a bounded number of looks. */
	mr_device_rows[0].version |= 1;
	looks = 0;
	assert_int_equal(mr_counters_read(path, &seen), 0);
	assert_int_equal(looks, 1 + 3 * ROW_TRIES + 3 * (MR_COUNTERS_DEVICES - 1));
	assert_string_equal(seen.devices[0].note.name, "new");
	mr_device_rows[0].version++;
	mr_counters_close();
}

static int stop;

static void *write_rows(void *arg)
{
	for (uint64_t n = 1; !__atomic_load_n(&stop, __ATOMIC_RELAXED); n++) {
		const struct mr_device_note note = {
			"x", (uint32_t)n, (uint32_t)n, (uint32_t)n, 0, n, n};

		mr_device_note(0, &note, n);
	}
	return NULL;
}

/* A row that is read while it is written is of one moment. */
static void rows_are_whole(void **state)
{
	pthread_t writer;

	assert_int_equal(mr_counters_create(path), 0);
	assert_int_equal(pthread_create(&writer, NULL, write_rows, NULL), 0);
	for (int i = 0; i < 300; i++) {
		const struct mr_device_row *row = &seen.devices[0];

		assert_int_equal(mr_counters_read(path, &seen), 0);
		if (row->version & 1 || row->note.name[0] != 'x')
			continue; /* its writer was quicker 16 times, and that is said; or it has not begun */
		assert_int_equal(row->note.stages, row->note.slots_used);
		assert_true((uint32_t)row->note.kv_blocks_used == row->note.stages);
		assert_true(row->updated_ns == row->note.kv_blocks);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(writer, NULL);
	mr_counters_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(file_begins_with_what_was_counted),
		cmocka_unit_test(heartbeat_is_bounded),
		cmocka_unit_test(one_server_a_file),
		cmocka_unit_test(foreign_files_are_left_alone),
		cmocka_unit_test(damaged_headers_have_names),
		cmocka_unit_test(changed_row_is_read_again),
		cmocka_unit_test(rows_are_whole),
	};

	return cmocka_run_group_tests_name("counters", tests, make_folder, remove_folder);
}
