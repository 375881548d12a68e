/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace top`: a counters file read twice makes a view (top_view.c), a view is drawn into a canvas
 * (top_draw.c), a canvas goes to a terminal (top_screen.c) or to a file as text; or the view becomes JSON
 * (top_json.c). cmd_top.c is the command.
 */
#ifndef MR_TOOLS_TOP_H
#define MR_TOOLS_TOP_H

#include <stdint.h>
#include <stdio.h>

#include "driver/counters.h"

struct json_object;

enum top_state { TOP_STARTING, TOP_SERVING, TOP_DRAINING, TOP_STOPPED, TOP_DIED, TOP_HUNG };

struct top_snapshot {
	struct mr_counters_file file;
	uint64_t mono_ns, real_ns; /* when it was read */
	int alive;                 /* its process was there */
};

struct top_device {
	const struct mr_device_row *row;
	double use; /* part of the time with work, 0 to 1 */
};

/* What is shown: @now, and what changed since @then. */
struct top_view {
	const char *path;
	const struct mr_counters_file *file; /* of now */
	enum top_state state;
	uint64_t up_ns;     /* from the start to the last sign of life */
	uint64_t silent_ns; /* since then */
	double seconds;     /* between then and now, or its whole life; 0 = nothing to divide by */
	int whole_life;     /* rates and use are over its whole life */
	double rate[MR_METRIC_COUNT]; /* a second */
	struct top_device devices[MR_COUNTERS_DEVICES];
	uint32_t device_count;
	struct mr_histogram_data histograms[MR_HISTOGRAM_COUNT];
};

/* Reads @path; what mr_counters_read returns. */
int top_take(const char *path, struct top_snapshot *out);
/* @then NULL, or of another server: its whole life. @recent: histograms of the time between, too. */
void top_look(const char *path, const struct top_snapshot *then, const struct top_snapshot *now,
	      int recent, struct top_view *out);
const char *top_state_name(enum top_state state);
/* A counter that tells of something that should not be. */
int top_is_error(enum mr_metric m);

struct json_object *top_json(const struct top_view *view);

/* ---- the canvas ---- */

enum top_ink { INK_PLAIN, INK_TITLE, INK_DIM, INK_GOOD, INK_WARN, INK_BAD, INK_BAR };

struct top_cell {
	uint16_t glyph; /* Unicode; 0 = empty */
	uint8_t ink;
};

#define TOP_ROWS_MAX    200
#define TOP_COLUMNS_MAX 400

struct top_canvas {
	int rows, columns; /* of the window: 1 to the limits above */
	int used;          /* rows that were drawn */
	struct top_cell cell[TOP_ROWS_MAX][TOP_COLUMNS_MAX];
};

/* Draws what fits, the most important first. rows and columns are the caller's. */
void top_draw(const struct top_view *view, struct top_canvas *canvas);
/* What stands for a glyph of 0x80 and above where there is only ASCII. */
char top_ascii(unsigned glyph);
/* The canvas as text; @utf8 0 = ASCII only. */
void top_print(const struct top_canvas *canvas, int utf8, FILE *out);

/* The interactive screen, until q, SIGINT or SIGTERM. Returns an exit status. */
int top_screen(const char *path, int utf8, unsigned period_ms);

#endif /* MR_TOOLS_TOP_H */
