// SPDX-License-Identifier: Apache-2.0
/* What two snapshots of a counters file say: the server's state, rates, utilisation, histograms. */
#include <string.h>
#include <time.h>

#include "tools/top.h"

#define FRESH_NS 1000000000u /* a heartbeat younger than this is a sign of life from anywhere */
#define HUNG_NS  2000000000u /* of silence while serving */

static uint64_t clock_ns(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int top_take(const char *path, struct top_snapshot *out)
{
	int status = mr_counters_read(path, &out->file);

	out->mono_ns = clock_ns(CLOCK_MONOTONIC);
	out->real_ns = clock_ns(CLOCK_REALTIME);
	out->alive = !status && mr_counters_alive(&out->file);
	return status;
}

static uint64_t after(uint64_t from, uint64_t to)
{
	return to > from ? to - from : 0;
}

static enum top_state state_of(const struct top_snapshot *s)
{
	const struct mr_counters_header *h = &s->file.header;
	uint64_t silent = after(h->beat_real_ns, s->real_ns);

	if (h->state == MR_SERVER_STOPPED)
		return TOP_STOPPED;
	/* The process may be one that we cannot see, in a container; then only its silence tells. */
	if (!s->alive && silent >= FRESH_NS)
		return TOP_DIED;
	if (h->state == MR_SERVER_STARTING)
		return TOP_STARTING;
	if (silent >= HUNG_NS)
		return TOP_HUNG;
	return h->state == MR_SERVER_DRAINING ? TOP_DRAINING : TOP_SERVING;
}

const char *top_state_name(enum top_state state)
{
	static const char *const names[] = {
		[TOP_STARTING] = "starting", [TOP_SERVING] = "serving", [TOP_DRAINING] = "draining",
		[TOP_STOPPED] = "stopped",   [TOP_DIED] = "died",       [TOP_HUNG] = "hung",
	};

	return names[state];
}

int top_is_error(enum mr_metric m)
{
	static const char *const signs[] = {
		"_bad_",       "_failed",  "_refused", "_stale",  "_overrun", "_too_large",
		"_no_request", "_expired", "_stalls",  "_resets", "_crashes", "_uncorrected"};

	for (unsigned i = 0; i < sizeof(signs) / sizeof(signs[0]); i++)
		if (strstr(mr_metric_info[m].name, signs[i]))
			return 1;
	return 0;
}

/* Until when the row's device is known to have worked: now, or the last that was heard of its server. */
static uint64_t busy_until(const struct mr_device_row *row, uint64_t at_ns)
{
	return row->busy_ns + (row->busy_since_ns ? after(row->busy_since_ns, at_ns) : 0);
}

static int same_server(const struct mr_counters_file *a, const struct mr_counters_file *b)
{
	return a->header.pid == b->header.pid && a->header.start_real_ns == b->header.start_real_ns;
}

static void look_at_devices(const struct top_snapshot *then, const struct top_snapshot *now,
			    int running, struct top_view *v)
{
	uint64_t at = running ? now->mono_ns : now->file.header.beat_ns;

	for (int i = 0; i < MR_COUNTERS_DEVICES; i++) {
		const struct mr_device_row *row = &now->file.devices[i];
		struct top_device *d = &v->devices[v->device_count];
		uint64_t before = then ? busy_until(&then->file.devices[i], then->mono_ns) : 0;

		if (!row->note.name[0])
			continue;
		d->row = row;
		d->use = v->seconds > 0
				 ? (double)after(before, busy_until(row, at)) / 1e9 / v->seconds
				 : 0;
		d->use = d->use > 1 ? 1 : d->use;
		v->device_count++;
	}
}

static void look_at_histograms(const struct top_snapshot *then, const struct top_snapshot *now,
			       struct top_view *v)
{
	memcpy(v->histograms, now->file.histograms, sizeof(v->histograms));
	for (int h = 0; then && h < MR_HISTOGRAM_COUNT; h++) {
		struct mr_histogram_data *d = &v->histograms[h];
		const struct mr_histogram_data *old = &then->file.histograms[h];
		uint64_t last = 0;

		d->sum_ns -= old->sum_ns;
		for (uint32_t i = 0; i < MR_HISTOGRAM_BUCKETS; i++) {
			d->buckets[i] = after(old->buckets[i], d->buckets[i]);
			last = d->buckets[i] ? mr_histogram_upper(i) : last;
		}
		/* Of the largest of the time between only the bucket is known. */
		d->max_ns = last < d->max_ns ? last : d->max_ns;
	}
}

void top_look(const char *path, const struct top_snapshot *then, const struct top_snapshot *now,
	      int recent, struct top_view *v)
{
	const struct mr_counters_header *h = &now->file.header;
	int running;

	memset(v, 0, sizeof(*v));
	v->path = path;
	v->file = &now->file;
	v->state = state_of(now);
	v->silent_ns = after(h->beat_real_ns, now->real_ns);
	running = v->state == TOP_SERVING || v->state == TOP_DRAINING || v->state == TOP_STARTING;
	v->up_ns = after(h->start_real_ns, running ? now->real_ns : h->beat_real_ns);
	if (then && (!running || !same_server(&then->file, &now->file)))
		then = NULL;
	v->whole_life = !then;
	v->seconds = (double)(then ? after(then->mono_ns, now->mono_ns) : v->up_ns) / 1e9;
	for (int m = 0; m < MR_METRIC_COUNT && v->seconds > 0; m++) {
		uint64_t before = then ? then->file.metrics[m] : 0;

		v->rate[m] = (double)after(before, now->file.metrics[m]) / v->seconds;
	}
	look_at_devices(then, now, running, v);
	look_at_histograms(recent ? then : NULL, now, v);
}
