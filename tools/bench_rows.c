// SPDX-License-Identifier: Apache-2.0
/* The rows of a table of figures, and how they are printed. See bench_rows.h. */
#include "tools/bench_rows.h"

#include <json-c/json.h>
#include <stdarg.h>
#include <string.h>

void bench_part(struct bench_rows *r, const char *prefix, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vsnprintf(r->part, sizeof(r->part), format, list);
	va_end(list);
	r->prefix = prefix;
}

static struct bench_row *add(struct bench_rows *r, const char *id, const char *text)
{
	struct bench_row *row = &r->rows[r->count < BENCH_ROWS - 1 ? r->count++ : r->count];

	memset(row, 0, sizeof(*row));
	snprintf(row->part, sizeof(row->part), "%s", r->part);
	snprintf(row->id, sizeof(row->id), "%s.%s", r->prefix, id);
	snprintf(row->text, sizeof(row->text), "%s", text);
	row->unit = "";
	return row;
}

void bench_row(struct bench_rows *r, const char *id, const char *text, double value,
	       const char *unit, enum bench_goal goal, double target)
{
	struct bench_row *row = add(r, id, text);

	row->value = value;
	row->unit = unit;
	row->goal = goal;
	row->target = target;
}

void bench_row_of(struct bench_rows *r, const char *id, const char *text,
		  const struct tool_summary *s, double scale, const char *unit,
		  enum bench_goal goal, double target)
{
	struct bench_row *row = add(r, id, text);

	row->value = scale * (double)s->p50;
	row->min = scale * (double)s->min;
	row->p99 = scale * (double)s->p99;
	row->unit = unit;
	row->goal = goal;
	row->target = target;
}

void bench_row_missing(struct bench_rows *r, const char *id, const char *text, const char *why)
{
	snprintf(add(r, id, text)->not_measured, sizeof(r->rows[0].not_measured), "%s", why);
}

static int met(const struct bench_row *row)
{
	return row->goal == GOAL_BELOW ? row->value < row->target : row->value <= row->target;
}

void bench_rows_print(FILE *out, const char *name, const struct bench_rows *r)
{
	for (uint32_t i = 0; i < r->count; i++) {
		const struct bench_row *row = &r->rows[i];

		if (i == 0 || strcmp(row->part, r->rows[i - 1].part))
			fprintf(out, "%s%s%s\n", i ? "" : name, i ? "" : "\n", row->part);
		if (*row->not_measured) {
			fprintf(out, "  %-42s not measured: %s\n", row->text, row->not_measured);
			continue;
		}
		fprintf(out, "  %-42s %10.4g %-3s", row->text, row->value, row->unit);
		if (row->p99 > 0)
			fprintf(out, " (min %.4g, p99 %.4g)", row->min, row->p99);
		if (row->goal != GOAL_NONE)
			fprintf(out, " target %s %g %s: %s",
				row->goal == GOAL_BELOW ? "<" : "<=", row->target, row->unit,
				met(row) ? "met" : "MISSED");
		fputc('\n', out);
	}
}

struct json_object *bench_rows_json(const struct bench_rows *r)
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
			if (row->p99 > 0) {
				json_object_object_add(o, "min", tool_json_number(row->min));
				json_object_object_add(o, "p99", tool_json_number(row->p99));
			}
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
