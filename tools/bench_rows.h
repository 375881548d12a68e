/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of figures, each beside its target: what the parts of a benchmark add to it, and how it is printed. For
 * `millrace bench sched` and `bench lpu`.
 */
#ifndef MR_TOOLS_BENCH_ROWS_H
#define MR_TOOLS_BENCH_ROWS_H

#include <stdint.h>
#include <stdio.h>

#include "tools/tools.h"

#define BENCH_ROWS 144u

enum bench_goal {
	GOAL_NONE, /* the figure is for reading beside others */
	GOAL_BELOW,
	GOAL_AT_MOST,
};

struct bench_row {
	char part[320]; /* the heading that it stands under: devices, costs */
	char id[48];    /* in JSON */
	char text[64];
	const char *unit;
	double value, target;
	double min, p99; /* of the samples that @value is of; both 0 = there is no spread */
	enum bench_goal goal;
	char not_measured[96]; /* why, or "" */
};

struct bench_rows {
	struct bench_row rows[BENCH_ROWS];
	uint32_t count;
	char part[320]; /* of the rows that are added next */
	const char *prefix;
	uint64_t hiccup_p99_ns, hiccup_max_ns;
};

/* Starts a part: rows that follow have ids "@prefix.id" and stand under the heading. */
void bench_part(struct bench_rows *r, const char *prefix, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void bench_row(struct bench_rows *r, const char *id, const char *text, double value,
	       const char *unit, enum bench_goal goal, double target);
/* The same with the spread of its samples, whose median it gives times @scale. */
void bench_row_of(struct bench_rows *r, const char *id, const char *text,
		  const struct tool_summary *s, double scale, const char *unit,
		  enum bench_goal goal, double target);
void bench_row_missing(struct bench_rows *r, const char *id, const char *text, const char *why);

void bench_rows_print(FILE *out, const char *name, const struct bench_rows *rows);
struct json_object *bench_rows_json(const struct bench_rows *rows);

#endif /* MR_TOOLS_BENCH_ROWS_H */
