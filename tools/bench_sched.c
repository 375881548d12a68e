// SPDX-License-Identifier: Apache-2.0
/* Runs the parts of `millrace bench sched` and prints them. See bench_sched.h. */
#include "tools/bench_sched.h"

#include <json-c/json.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void bench_part(struct bench_sched_result *r, const char *prefix, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vsnprintf(r->part, sizeof(r->part), format, list);
	va_end(list);
	r->prefix = prefix;
}

static struct bench_row *add(struct bench_sched_result *r, const char *id, const char *text)
{
	struct bench_row *row = &r->rows[r->count < BENCH_SCHED_ROWS - 1 ? r->count++ : r->count];

	memset(row, 0, sizeof(*row));
	snprintf(row->part, sizeof(row->part), "%s", r->part);
	snprintf(row->id, sizeof(row->id), "%s.%s", r->prefix, id);
	snprintf(row->text, sizeof(row->text), "%s", text);
	row->unit = "";
	return row;
}

void bench_row(struct bench_sched_result *r, const char *id, const char *text, double value,
	       const char *unit, enum bench_goal goal, double target)
{
	struct bench_row *row = add(r, id, text);

	row->value = value;
	row->unit = unit;
	row->goal = goal;
	row->target = target;
}

void bench_row_missing(struct bench_sched_result *r, const char *id, const char *text,
		       const char *why)
{
	snprintf(add(r, id, text)->not_measured, sizeof(r->rows[0].not_measured), "%s", why);
}

static int met(const struct bench_row *row)
{
	return row->goal == GOAL_BELOW ? row->value < row->target : row->value <= row->target;
}

/* 0, or why what is measured on devices is not. */
static int real_on(const struct bench_sched_options *o, const struct mr_model *model,
		   const char *device, struct bench_sched_result *r)
{
	struct tool_devices_options options = o->devices;
	struct tool_devices devices;
	int status;

	options.device = device;
	options.slots = 16;
	options.context = model->shape.context < 2304 ? model->shape.context : 2304;
	if (tool_devices_open(&options, model, &devices))
		return MR_E_DEVICE;
	status = bench_sched_real(r, model, &devices, o->runs);
	tool_devices_close(&devices);
	options.slots = 32;
	if (!status && !strcmp(device, "cpu"))
		status = bench_sched_mixed(r, model, &options, o->runs);
	return status;
}

static int real(const struct bench_sched_options *o, struct bench_sched_result *r)
{
	static const char *const both[] = {"cpu", "lpu"};
	struct mr_model *model = tool_model_open(o->model);
	int status = 0;

	if (!model) {
		if (o->model)
			return MR_E_NOT_FOUND;
		bench_part(r, "real", "On devices");
		bench_row_missing(r, "all", "fork, prefix and hand-over", "there is no model");
		return 0;
	}
	for (unsigned i = 0; !status && i < 2; i++)
		if (!o->devices.device || !strcmp(o->devices.device, both[i]))
			status = real_on(o, model, both[i], r);
	mr_model_close(model);
	return status;
}

int bench_sched(const struct bench_sched_options *o, struct bench_sched_result *r)
{
	struct tool_hiccup *meter = tool_hiccup_start();
	int status;

	memset(r, 0, sizeof(*r));
	status = bench_sched_step(r, 3 * o->runs);
	if (!status)
		status = bench_sched_quiet(r);
	if (!status)
		status = bench_sched_virtual(r);
	if (!status)
		status = real(o, r);
	tool_hiccup_stop(meter, &r->hiccup_p99_ns, &r->hiccup_max_ns);
	if (!status)
		return TOOL_OK;
	fprintf(stderr, "millrace: bench sched: %s (%s)\n", mr_strerror(status),
		mr_status_name(status));
	return TOOL_FAILED;
}

void bench_sched_print(FILE *out, const struct bench_sched_result *r)
{
	for (uint32_t i = 0; i < r->count; i++) {
		const struct bench_row *row = &r->rows[i];

		if (i == 0 || strcmp(row->part, r->rows[i - 1].part))
			fprintf(out, "%s%s\n", i ? "" : "sched\n", row->part);
		if (*row->not_measured) {
			fprintf(out, "  %-42s not measured: %s\n", row->text, row->not_measured);
			continue;
		}
		fprintf(out, "  %-42s %10.4g %-3s", row->text, row->value, row->unit);
		if (row->goal != GOAL_NONE)
			fprintf(out, " target %s %g %s: %s",
				row->goal == GOAL_BELOW ? "<" : "<=", row->target, row->unit,
				met(row) ? "met" : "MISSED");
		fputc('\n', out);
	}
}

struct json_object *bench_sched_json(const struct bench_sched_result *r)
{
	struct json_object *out = json_object_new_object(), *list = json_object_new_array();

	for (uint32_t i = 0; i < r->count; i++) {
		const struct bench_row *row = &r->rows[i];
		struct json_object *o = json_object_new_object();

		json_object_object_add(o, "id", json_object_new_string(row->id));
		json_object_object_add(o, "part", json_object_new_string(row->part));
		json_object_object_add(o, "what", json_object_new_string(row->text));
		if (*row->not_measured) {
			json_object_object_add(o, "not_measured",
					       json_object_new_string(row->not_measured));
		} else {
			json_object_object_add(o, "value", tool_json_number(row->value));
			json_object_object_add(o, "unit", json_object_new_string(row->unit));
		}
		if (row->goal != GOAL_NONE) {
			json_object_object_add(o, "target", tool_json_number(row->target));
			json_object_object_add(o, "met", json_object_new_boolean(met(row)));
		}
		json_object_array_add(list, o);
	}
	json_object_object_add(out, "figures", list);
	json_object_object_add(out, "hiccup_p99_ns", json_object_new_uint64(r->hiccup_p99_ns));
	json_object_object_add(out, "hiccup_max_ns", json_object_new_uint64(r->hiccup_max_ns));
	return out;
}
