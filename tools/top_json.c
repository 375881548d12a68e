// SPDX-License-Identifier: Apache-2.0
/* `millrace top --json`: everything that the screen shows, and every metric. */
#include <json-c/json.h>

#include "driver/device.h"
#include "tools/tools.h"
#include "tools/top.h"

static void add(struct json_object *to, const char *key, uint64_t value)
{
	json_object_object_add(to, key, json_object_new_uint64(value));
}

static void add_text(struct json_object *to, const char *key, const char *value)
{
	json_object_object_add(to, key, json_object_new_string(value));
}

static void add_seconds(struct json_object *to, const char *key, uint64_t ns)
{
	json_object_object_add(to, key, tool_json_number((double)ns / 1e9));
}

static struct json_object *devices(const struct top_view *v)
{
	struct json_object *list = json_object_new_array();

	for (uint32_t i = 0; i < v->device_count; i++) {
		const struct mr_device_row *row = v->devices[i].row;
		struct json_object *d = json_object_new_object(), *stages = json_object_new_array();

		add_text(d, "name", row->note.name);
		if (row->note.stages & MR_STAGE_PREFILL)
			json_object_array_add(stages, json_object_new_string("prefill"));
		if (row->note.stages & MR_STAGE_DECODE)
			json_object_array_add(stages, json_object_new_string("decode"));
		if (row->note.stages & MR_STAGE_SCORE)
			json_object_array_add(stages, json_object_new_string("score"));
		json_object_object_add(d, "stages", stages);
		json_object_object_add(d, "use", tool_json_number(v->devices[i].use));
		add(d, "busy_ns", row->busy_ns);
		add(d, "inflight", row->inflight);
		add(d, "slots", row->note.slots);
		add(d, "slots_used", row->note.slots_used);
		add(d, "batch", row->note.batch);
		add(d, "kv_blocks", row->note.kv_blocks);
		add(d, "kv_blocks_used", row->note.kv_blocks_used);
		add(d, "updated_ns", row->updated_ns);
		json_object_array_add(list, d);
	}
	return list;
}

static struct json_object *histogram(const struct mr_histogram_data *d)
{
	struct json_object *o = json_object_new_object(), *buckets = json_object_new_array();
	uint64_t n = mr_histogram_count(d);

	add(o, "count", n);
	add(o, "mean_ns", n ? d->sum_ns / n : 0);
	add(o, "p50_ns", mr_histogram_percentile(d, 500));
	add(o, "p90_ns", mr_histogram_percentile(d, 900));
	add(o, "p99_ns", mr_histogram_percentile(d, 990));
	add(o, "p999_ns", mr_histogram_percentile(d, 999));
	add(o, "max_ns", d->max_ns);
	for (uint32_t i = 0; i < MR_HISTOGRAM_BUCKETS; i++) {
		struct json_object *pair;

		if (!d->buckets[i])
			continue;
		pair = json_object_new_array();
		json_object_array_add(pair, json_object_new_uint64(mr_histogram_upper(i)));
		json_object_array_add(pair, json_object_new_uint64(d->buckets[i]));
		json_object_array_add(buckets, pair);
	}
	json_object_object_add(o, "buckets", buckets);
	return o;
}

static struct json_object *queues(const struct mr_queues *q)
{
	struct json_object *o = json_object_new_object();

	add(o, "waiting", q->waiting);
	add(o, "prefilling", q->prefilling);
	add(o, "handover", q->handover);
	add(o, "decoding", q->decoding);
	add(o, "paused", q->paused);
	add(o, "requests", q->requests);
	return o;
}

struct json_object *top_json(const struct top_view *v)
{
	const struct mr_counters_header *h = &v->file->header;
	struct json_object *root = json_object_new_object(), *metrics = json_object_new_object();
	struct json_object *rates = json_object_new_object(), *errors = json_object_new_object();
	struct json_object *histograms = json_object_new_object();

	add_text(root, "file", v->path);
	add_text(root, "state", top_state_name(v->state));
	add_text(root, "program", h->program);
	add_text(root, "model", h->model);
	add_text(root, "listen", h->listen);
	add(root, "pid", h->pid);
	add_seconds(root, "started", h->start_real_ns);
	add_seconds(root, "up_s", v->up_ns);
	add_seconds(root, "silent_s", v->silent_ns);
	json_object_object_add(root, "devices", devices(v));
	json_object_object_add(root, "queues", queues(&v->file->queues));
	for (int m = 0; m < MR_METRIC_COUNT; m++) {
		const char *name = mr_metric_info[m].name;
		uint64_t value = v->file->metrics[m];

		add(metrics, name, value);
		if (value && top_is_error((enum mr_metric)m))
			add(errors, name, value);
	}
	json_object_object_add(rates, "over_s", tool_json_number(v->seconds));
	json_object_object_add(rates, "requests_s", tool_json_number(v->rate[MR_M_sched_requests]));
	json_object_object_add(rates, "tokens_s", tool_json_number(v->rate[MR_M_sched_tokens]));
	json_object_object_add(rates, "prompt_tokens_s",
			       tool_json_number(v->rate[MR_M_sched_prompt_tokens]));
	json_object_object_add(root, "rates", rates);
	for (int i = 0; i < MR_HISTOGRAM_COUNT; i++)
		json_object_object_add(histograms, mr_histogram_info[i].name,
				       histogram(&v->histograms[i]));
	json_object_object_add(root, "histograms", histograms);
	json_object_object_add(root, "errors", errors);
	json_object_object_add(root, "metrics", metrics);
	return root;
}
