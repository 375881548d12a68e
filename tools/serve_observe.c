// SPDX-License-Identifier: Apache-2.0
/*
 * What `millrace serve` lets others see: where its counters file lies, its trace, its devices' rows and the
 * heartbeat. Also finds a server's file for `millrace top`.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver/counters.h"
#include "driver/trace.h"
#include "tools/serve.h"
#include "tools/tools.h"

#define FILES_MAX 64 /* servers of one user at once that get a file without asking */
#define PREFIX    "millrace-"
#define SUFFIX    ".counters"

static int is_folder(const char *path)
{
	DIR *dir = path && path[0] == '/' ? opendir(path) : NULL;

	if (dir)
		closedir(dir);
	return dir != NULL;
}

static const char *default_folder(void)
{
	const char *run = getenv("XDG_RUNTIME_DIR");

	return is_folder(run) ? run : "/dev/shm";
}

static int say(const char *path, int status)
{
	fprintf(stderr, "millrace serve: %s: %s (%s)\n", path,
		status == MR_E_EXISTS ? "a file of something else is there; name another"
		: status == MR_E_BUSY ? "another running server writes it"
				      : mr_strerror(status),
		mr_status_name(status));
	return status;
}

/* The first of the user's files that no running server holds: so there are never more than servers at once. */
static int create_default(char *path, size_t bytes)
{
	int status = MR_E_BUSY;

	for (int i = 0; i < FILES_MAX && status == MR_E_BUSY; i++) {
		if ((size_t)snprintf(path, bytes, "%s/" PREFIX "%u-%d" SUFFIX, default_folder(),
				     (unsigned)geteuid(), i) >= bytes)
			return MR_E_TOO_LARGE;
		status = mr_counters_create(path);
	}
	return status;
}

int serve_observe_open(struct serve_observe *o)
{
	int status;

	if (o->counters) {
		status = mr_counters_create(o->counters);
		if (status)
			return say(o->counters, status);
		snprintf(o->path, sizeof(o->path), "%s", o->counters);
	} else if (!o->no_counters) {
		status = create_default(o->path, sizeof(o->path));
		/* Nobody asked for it, so it is no reason not to serve. */
		if (status) {
			fprintf(stderr, "millrace: no counters file: %s: %s (%s)\n", o->path,
				mr_strerror(status), mr_status_name(status));
			o->path[0] = '\0';
		}
	}
	status = o->trace ? mr_trace_create(o->trace, 0) : 0;
	return status ? say(o->trace, status) : 0;
}

static void note(struct serve_observe *o, struct mr_device *dev, uint64_t now_ns)
{
	struct mr_device_note row = {.stages = dev->caps.stages, .slots = dev->caps.slots};
	uint32_t index = o->device_count++;

	snprintf(row.name, sizeof(row.name), "%s", dev->caps.name);
	o->devices[index] = dev;
	mr_device_note(index, &row, now_ns);
}

static void refresh(struct serve_observe *o, uint64_t now_ns)
{
	struct mr_telemetry t;

	for (uint32_t i = 0; i < o->device_count; i++)
		if (!o->devices[i]->admin->telemetry(o->devices[i], &t))
			mr_device_kv(i, t.kv_blocks, t.kv_blocks_used, now_ns);
}

void serve_observe_devices(struct serve_observe *o, const struct tool_devices *d)
{
	uint64_t now_ns = mr_clock_monotonic.now_ns(NULL);

	note(o, d->prefill, now_ns);
	if (d->decode != d->prefill)
		note(o, d->decode, now_ns);
	refresh(o, now_ns);
}

void serve_observe_beat(struct serve_observe *o, uint64_t now_ns)
{
	if (mr_counters_beat(now_ns))
		refresh(o, now_ns);
}

void serve_observe_close(struct serve_observe *o)
{
	mr_trace_close();
	mr_counters_close();
	o->device_count = 0;
}

static int is_ours(const char *name)
{
	size_t n = strlen(name);

	return n > sizeof(PREFIX SUFFIX) - 1 && !strncmp(name, PREFIX, sizeof(PREFIX) - 1) &&
	       !strcmp(name + n - (sizeof(SUFFIX) - 1), SUFFIX);
}

/* A running server before a stopped one, then the latest heartbeat. */
static int better(const struct mr_counters_file *a, int a_lives, const struct mr_counters_file *b,
		  int b_lives)
{
	return a_lives != b_lives ? a_lives : a->header.beat_real_ns > b->header.beat_real_ns;
}

static void search(const char *folder, struct mr_counters_file *best, struct mr_counters_file *next,
		   int *lives, char *path, size_t bytes)
{
	DIR *dir = opendir(folder);
	struct dirent *entry;
	char at[SERVE_PATH_BYTES];

	while (dir && (entry = readdir(dir))) {
		if (!is_ours(entry->d_name) ||
		    (size_t)snprintf(at, sizeof(at), "%s/%s", folder, entry->d_name) >=
			    sizeof(at) ||
		    mr_counters_read(at, next))
			continue;
		if (path[0] && !better(next, mr_counters_alive(next), best, *lives))
			continue;
		*best = *next;
		*lives = mr_counters_alive(next);
		snprintf(path, bytes, "%s", at);
	}
	if (dir)
		closedir(dir);
}

int serve_observe_find(char *path, size_t bytes)
{
	struct mr_counters_file *files = calloc(2, sizeof(*files));
	const char *run = getenv("XDG_RUNTIME_DIR");
	int lives = 0;

	path[0] = '\0';
	if (!files)
		return MR_E_NO_MEMORY;
	if (is_folder(run))
		search(run, &files[0], &files[1], &lives, path, bytes);
	search("/dev/shm", &files[0], &files[1], &lives, path, bytes);
	free(files);
	return path[0] ? 0 : MR_E_NOT_FOUND;
}
