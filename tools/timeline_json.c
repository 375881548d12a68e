// SPDX-License-Identifier: Apache-2.0
/*
 * A timeline as the JSON of Chrome's trace events, which ui.perfetto.dev opens: process 1 has a track for each
 * device, process 2 one for each request. Each event is made and written alone, so that memory stays small.
 */
#include <json-c/json.h>

#include <millrace/status.h>

#include "tools/timeline.h"

enum { DEVICES = 1, REQUESTS = 2 };

struct writer {
	const struct timeline *t;
	FILE *out;
	int first;
	int failed;
};

/* Microseconds with the ns behind the point: a double's own digits would not do after some hours. */
static struct json_object *microseconds(uint64_t ns)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu.%03llu", (unsigned long long)(ns / 1000),
		 (unsigned long long)(ns % 1000));
	return json_object_new_double_s((double)ns / 1000, text);
}

static struct json_object *event(const char *name, const char *type, int process, uint64_t track)
{
	struct json_object *e = json_object_new_object();

	json_object_object_add(e, "name", json_object_new_string(name));
	json_object_object_add(e, "ph", json_object_new_string(type));
	json_object_object_add(e, "pid", json_object_new_int(process));
	json_object_object_add(e, "tid", json_object_new_uint64(track));
	return e;
}

static void add_number(struct json_object *args, const char *key, uint64_t value)
{
	json_object_object_add(args, key, json_object_new_uint64(value));
}

/* Takes @e and @args (may be NULL). */
static void write_event(struct writer *w, struct json_object *e, struct json_object *args)
{
	const char *text;

	if (args)
		json_object_object_add(e, "args", args);
	text = json_object_to_json_string_ext(e, JSON_C_TO_STRING_PLAIN);
	if (!text || fprintf(w->out, "%s\n%s", w->first ? "" : ",", text) < 0)
		w->failed = 1;
	w->first = 0;
	json_object_put(e);
}

static void name_track(struct writer *w, const char *what, int process, uint64_t track,
		       const char *name)
{
	struct json_object *args = json_object_new_object();

	json_object_object_add(args, "name", json_object_new_string(name));
	write_event(w, event(what, "M", process, track), args);
}

static void slice(struct writer *w, const char *name, int process, uint64_t track, uint64_t from_ns,
		  uint64_t to_ns, struct json_object *args)
{
	struct json_object *e = event(name, "X", process, track);

	json_object_object_add(e, "ts", microseconds(from_ns - w->t->first_ns));
	json_object_object_add(e, "dur", microseconds(to_ns - from_ns));
	write_event(w, e, args);
}

static void write_status(struct json_object *args, int32_t status, int unfinished)
{
	if (status)
		json_object_object_add(args, "status",
				       json_object_new_string(mr_status_name(status)));
	if (unfinished)
		json_object_object_add(args, "unfinished", json_object_new_boolean(1));
}

static void write_work(struct writer *w, const struct work *work)
{
	static const char *const counts[] = {"tokens", "descriptors", "sequences"};
	struct json_object *args = json_object_new_object();

	add_number(args, counts[work->kind], work->value);
	if (work->owner)
		add_number(args, "request", work->owner);
	write_status(args, (int32_t)(0u - (uint32_t)work->status), work->unfinished);
	slice(w, work_names[work->kind], DEVICES, work->device, work->from_ns, work->to_ns, args);
	/* The same on the request's track, within its prefill. */
	if (work->kind == WORK_CHUNK && !work->unfinished) {
		args = json_object_new_object();
		add_number(args, "tokens", work->value);
		slice(w, "chunk", REQUESTS, work->owner, work->from_ns, work->to_ns, args);
	}
}

static void write_turn(struct writer *w, const struct turn *turn)
{
	struct json_object *args = json_object_new_object();
	char name[32];

	snprintf(name, sizeof(name), "request %u", turn->owner);
	name_track(w, "thread_name", REQUESTS, turn->owner, name);
	add_number(args, "prompt_tokens", turn->prompt_tokens);
	add_number(args, "tokens", turn->tokens);
	write_status(args, turn->status, turn->unfinished);
	if (turn->partial)
		json_object_object_add(args, "partial", json_object_new_boolean(1));
	slice(w, name, REQUESTS, turn->owner, turn->edge[0], turn->edge[PHASE_COUNT], args);
	for (int p = 0; p < PHASE_COUNT; p++)
		if (turn->edge[p + 1] > turn->edge[p])
			slice(w, phase_names[p], REQUESTS, turn->owner, turn->edge[p],
			      turn->edge[p + 1], NULL);
}

static void write_instant(struct writer *w, const struct mr_trace_record *r)
{
	struct json_object *args = json_object_new_object();
	struct json_object *e = event(mr_trace_info[r->event].name, "i", REQUESTS, r->owner);

	json_object_object_add(e, "s", json_object_new_string("t"));
	json_object_object_add(e, "ts", microseconds(r->ns - w->t->first_ns));
	add_number(args, r->event == MR_T_token ? "position" : "tokens", r->value);
	write_event(w, e, args);
}

static void name_devices(struct writer *w)
{
	uint8_t named[UINT16_MAX + 1] = {0};

	for (uint64_t i = 0; i < w->t->work_count; i++) {
		uint32_t device = w->t->works[i].device;

		if (named[device])
			continue;
		named[device] = 1;
		name_track(w, "thread_name", DEVICES, device, timeline_device(w->t, device));
	}
}

int timeline_json(const struct timeline *t, FILE *out)
{
	struct writer w = {.t = t, .out = out, .first = 1};

	fprintf(out, "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
	name_track(&w, "process_name", DEVICES, 0, "devices");
	name_track(&w, "process_name", REQUESTS, 0, "requests");
	name_devices(&w);
	for (uint64_t i = 0; i < t->turn_count && !w.failed; i++)
		write_turn(&w, &t->turns[i]);
	for (uint64_t i = 0; i < t->work_count && !w.failed; i++)
		write_work(&w, &t->works[i]);
	for (uint64_t i = 0; i < t->trace->count && !w.failed; i++) {
		const struct mr_trace_record *r = &t->trace->records[i];

		if (r->event == MR_T_token || r->event == MR_T_egress)
			write_instant(&w, r);
	}
	fprintf(out, "],\n\"otherData\":{\"records\":%llu,\"lost\":%llu,\"broken\":%llu}}\n",
		(unsigned long long)t->trace->count, (unsigned long long)t->trace->lost,
		(unsigned long long)t->trace->broken);
	return w.failed || ferror(out) ? -1 : 0;
}
