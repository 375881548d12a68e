// SPDX-License-Identifier: Apache-2.0
/* Draws a view of the counters into a canvas of any size: one section after another, as far as rows go. */
#include <stdarg.h>
#include <string.h>

#include "driver/device.h"
#include "driver/mem/copy.h"
#include "tools/top.h"

#define BLOCK_FULL    0x2588u /* from here up to 7: the left eighths, fewer each */
#define BLOCK_LOW     0x2581u /* one eighth of the height; seven more follow, the last is BLOCK_FULL */
#define DOT           0xb7u
#define LINE          0x2500u
#define SPARK_FIRST   1000.0 /* ns: the left end of the axis */
#define SPARK_DECADES 8      /* to 100 s */
#define LABEL         11     /* columns of a section's name */

static void put(struct top_canvas *c, int row, int column, enum top_ink ink, unsigned glyph)
{
	if (row < 0 || row >= c->rows || column < 0 || column >= c->columns)
		return;
	c->cell[row][column] = (struct top_cell){(uint16_t)glyph, (uint8_t)ink};
	if (row >= c->used)
		c->used = row + 1;
}

/* Returns the column behind the text. */
static int __attribute__((format(printf, 5, 6)))
text(struct top_canvas *c, int row, int column, enum top_ink ink, const char *format, ...)
{
	char line[TOP_COLUMNS_MAX + 1];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	for (const char *p = line; *p; p++)
		put(c, row, column++, ink, (unsigned char)*p);
	return column;
}

/* A value to three digits, with its unit: "12.3 us". */
struct short_text {
	char s[24];
};

static struct short_text scaled(double value, const char *const *units, double step, int last)
{
	struct short_text out;
	int i = 0;

	while (i < last && value >= step * 0.9995) {
		value /= step;
		i++;
	}
	snprintf(out.s, sizeof(out.s), "%.*f%s",
		 value >= 99.95 || (i == 0 && value == (double)(long)value) ? 0
		 : value >= 9.995                                           ? 1
									    : 2,
		 value, units[i]);
	return out;
}

static struct short_text duration(uint64_t ns)
{
	static const char *const units[] = {" ns", " us", " ms", " s"};

	return scaled((double)ns, units, 1000, 3);
}

static struct short_text bytes(double n)
{
	static const char *const units[] = {" B", " KB", " MB", " GB", " TB", " PB"};

	return scaled(n, units, 1000, 5);
}

static struct short_text number(double n)
{
	static const char *const units[] = {"", " k", " M", " G", " T", " P"};

	return scaled(n, units, 1000, 5);
}

static struct short_text age(uint64_t ns)
{
	struct short_text out;
	unsigned long long s = ns / 1000000000u;

	if (s < 60)
		snprintf(out.s, sizeof(out.s), "%llu s", s);
	else if (s < 3600)
		snprintf(out.s, sizeof(out.s), "%llu m %llu s", s / 60, s % 60);
	else if (s < 86400)
		snprintf(out.s, sizeof(out.s), "%llu h %llu m", s / 3600, s / 60 % 60);
	else
		snprintf(out.s, sizeof(out.s), "%llu d %llu h", s / 86400, s / 3600 % 24);
	return out;
}

static void bar(struct top_canvas *c, int row, int column, int width, double part, enum top_ink ink)
{
	int eighths = (int)(part * width * 8 + 0.5);

	for (int i = 0; i < width; i++, eighths -= 8) {
		if (eighths >= 8)
			put(c, row, column + i, ink, BLOCK_FULL);
		else if (eighths > 0)
			put(c, row, column + i, ink, BLOCK_FULL + 8u - (unsigned)eighths);
		else
			put(c, row, column + i, INK_DIM, DOT);
	}
}

static int draw_header(const struct top_view *v, struct top_canvas *c)
{
	const struct mr_counters_header *h = &v->file->header;
	enum top_ink ink = v->state == TOP_SERVING ? INK_GOOD
			   : v->state >= TOP_DIED  ? INK_BAD
						   : INK_WARN;
	struct short_text up = age(v->up_ns), silent = age(v->silent_ns);
	char state[96];
	int column;

	if (v->state == TOP_STOPPED || v->state == TOP_DIED)
		snprintf(state, sizeof(state), "%s %s ago, after %s", top_state_name(v->state),
			 silent.s, up.s);
	else if (v->state == TOP_HUNG)
		snprintf(state, sizeof(state), "hung: no heartbeat for %s", silent.s);
	else
		snprintf(state, sizeof(state), "%s, up %s", top_state_name(v->state), up.s);
	column = text(c, 0, 0, INK_TITLE, "%s", h->program);
	text(c, 0, column + 2, INK_PLAIN, "%s", h->model);
	column = c->columns - (int)strlen(state);
	text(c, 0, column > 0 ? column - 1 : 0, ink, " %s", state);
	column = text(c, 1, 0, INK_DIM, "pid %u  ", h->pid);
	if (h->listen[0])
		text(c, 1, column, INK_DIM, "%s", h->listen);
	return 3;
}

static const char *stages(uint32_t s)
{
	int prefill = s & MR_STAGE_PREFILL, decode = s & MR_STAGE_DECODE;

	return prefill && decode ? "prefill+decode" : prefill ? "prefill" : decode ? "decode" : "";
}

static int draw_devices(const struct top_view *v, struct top_canvas *c, int row)
{
	int wide = c->columns > 80 ? (c->columns - 80) / 2 : 0,
	    width = 18 + (wide > 30 ? 30 : wide);
	int at_use = 33, at_slots = at_use + width + 6;

	text(c, row, 0, INK_TITLE, "DEVICES");
	text(c, row, at_use, INK_DIM, "use, %s", v->whole_life ? "its whole life" : "now");
	text(c, row, at_slots, INK_DIM, "    slots   KV blocks");
	row++;
	if (v->device_count == 0)
		text(c, row++, 0, INK_DIM, "none yet");
	for (uint32_t i = 0; i < v->device_count; i++, row++) {
		const struct mr_device_note *n = &v->devices[i].row->note;
		double use = v->devices[i].use;

		text(c, row, 0, INK_PLAIN, "%-17.17s", n->name);
		text(c, row, 18, INK_DIM, "%-14s", stages(n->stages));
		bar(c, row, at_use, width, use, use > 0.95 ? INK_WARN : INK_BAR);
		text(c, row, at_use + width, INK_PLAIN, "%4.0f%%", use * 100);
		text(c, row, at_slots, INK_PLAIN, "%4u/%-4u %6llu/%llu", n->slots_used, n->slots,
		     (unsigned long long)n->kv_blocks_used, (unsigned long long)n->kv_blocks);
	}
	return row + 1;
}

static int draw_requests(const struct top_view *v, struct top_canvas *c, int row)
{
	const struct mr_queues *q = &v->file->queues;
	const uint64_t *m = v->file->metrics;
	int column = text(c, row, 0, INK_TITLE, "%-*s", LABEL, "REQUESTS");

	column = text(c, row, column, q->waiting ? INK_WARN : INK_PLAIN, "waiting %u", q->waiting);
	text(c, row++, column, INK_PLAIN, "   prefill %u   hand-over %u   decode %u   paused %u",
	     q->prefilling, q->handover, q->decoding, q->paused);
	text(c, row++, LABEL, INK_PLAIN, "%s requests/s   %s tokens/s   %s prompt tokens/s",
	     number(v->rate[MR_M_sched_requests]).s, number(v->rate[MR_M_sched_tokens]).s,
	     number(v->rate[MR_M_sched_prompt_tokens]).s);
	text(c, row++, LABEL, INK_DIM,
	     "%s accepted   %s done   %s failed   %s cancelled   %s tokens",
	     number((double)m[MR_M_sched_requests]).s, number((double)m[MR_M_sched_done]).s,
	     number((double)m[MR_M_sched_failed]).s, number((double)m[MR_M_sched_cancelled]).s,
	     number((double)m[MR_M_sched_tokens]).s);
	return row + 1;
}

/* Where @ns lies on the axis, in cells of @per_decade; below and above go to the ends. */
static int axis_cell(double ns, int per_decade, int cells)
{
	double position = 0, decade = SPARK_FIRST;
	int cell;

	for (; decade * 10 <= ns && position < SPARK_DECADES; decade *= 10)
		position++;
	if (ns > decade && position < SPARK_DECADES) {
		/* Within a decade by a cell's upper ends, ten to the power of part/per_decade. */
		static const double cube_root_10 = 2.154434690031884;
		double end = decade;

		for (int part = 0; part < per_decade; part++) {
			end *= per_decade == 3 ? cube_root_10 : 10;
			if (ns < end)
				return (int)position * per_decade + part < cells
					       ? (int)position * per_decade + part
					       : cells - 1;
		}
	}
	cell = (int)position * per_decade;
	return cell < cells ? cell : cells - 1;
}

static void spark(struct top_canvas *c, int row, int column, const struct mr_histogram_data *d)
{
	enum { PER_DECADE = 3, CELLS = PER_DECADE * SPARK_DECADES };
	uint64_t height[CELLS] = {0}, most = 0;

	for (uint32_t i = 0; i < MR_HISTOGRAM_BUCKETS; i++) {
		int cell;

		if (!d->buckets[i])
			continue;
		cell = axis_cell((double)mr_histogram_upper(i), PER_DECADE, CELLS);
		height[cell] += d->buckets[i];
		most = height[cell] > most ? height[cell] : most;
	}
	for (int i = 0; i < CELLS; i++) {
		unsigned level = most ? (unsigned)((double)height[i] / (double)most * 7 + 0.5) : 0;

		if (height[i])
			put(c, row, column + i, INK_BAR, BLOCK_LOW + level);
		else
			put(c, row, column + i, INK_DIM, DOT);
	}
}

static int draw_latency(const struct top_view *v, struct top_canvas *c, int row)
{
	static const char *const names[] = {
		[MR_H_ttft] = "TTFT",          [MR_H_itl] = "ITL",
		[MR_H_queue] = "queue",        [MR_H_prefill] = "prefill",
		[MR_H_handover] = "hand-over", [MR_H_step] = "step",
	};
	int chart = LABEL + 44;

	text(c, row, 0, INK_TITLE, "LATENCY");
	text(c, row, LABEL, INK_DIM, "%8s %8s %8s %8s %6s", "p50", "p90", "p99", "max", "n");
	text(c, row++, chart, INK_DIM, "1us      1ms      1s");
	for (int h = 0; h < MR_HISTOGRAM_COUNT; h++, row++) {
		const struct mr_histogram_data *d = &v->histograms[h];
		uint64_t n = mr_histogram_count(d);

		text(c, row, 0, INK_PLAIN, "%s",
		     h < (int)(sizeof(names) / sizeof(names[0])) && names[h]
			     ? names[h]
			     : mr_histogram_info[h].name);
		if (n)
			text(c, row, LABEL, INK_PLAIN, "%8s %8s %8s %8s %6s",
			     duration(mr_histogram_percentile(d, 500)).s,
			     duration(mr_histogram_percentile(d, 900)).s,
			     duration(mr_histogram_percentile(d, 990)).s, duration(d->max_ns).s,
			     number((double)n).s);
		else
			text(c, row, LABEL, INK_DIM, "%8s %8s %8s %8s %6s", "-", "-", "-", "-",
			     "0");
		spark(c, row, chart, d);
	}
	return row + 1;
}

/* Writes an item behind the last, on the next row where this one is full. */
static void item(struct top_canvas *c, int *row, int *column, enum top_ink ink, const char *line)
{
	int width = (int)strlen(line);

	if (*column > LABEL && *column + width > c->columns) {
		(*row)++;
		*column = LABEL;
	}
	*column = text(c, *row, *column, ink, "%s", line) + 3;
}

static int draw_copies(const struct top_view *v, struct top_canvas *c, int row)
{
	int column = LABEL, any = 0;
	char line[96];

	text(c, row, 0, INK_TITLE, "COPIES");
	for (int m = MR_COPY_SITES_FIRST; m < MR_COPY_SITES_FIRST + MR_COPY_SITES; m++) {
		if (!v->file->metrics[m])
			continue;
		snprintf(line, sizeof(line), "%s %s (%s/s)",
			 mr_metric_info[m].name + sizeof("copy_") - 1,
			 bytes((double)v->file->metrics[m]).s, bytes(v->rate[m]).s);
		item(c, &row, &column, INK_PLAIN, line);
		any = 1;
	}
	if (!any)
		text(c, row, LABEL, INK_DIM, "none");
	return row + 1;
}

static int draw_errors(const struct top_view *v, struct top_canvas *c, int row)
{
	int column = LABEL, any = 0;
	char line[96];

	text(c, row, 0, INK_TITLE, "ERRORS");
	for (int m = 0; m < MR_METRIC_COUNT; m++) {
		if (!v->file->metrics[m] || !top_is_error((enum mr_metric)m))
			continue;
		snprintf(line, sizeof(line), "%s %s", mr_metric_info[m].name,
			 number((double)v->file->metrics[m]).s);
		item(c, &row, &column, INK_BAD, line);
		any = 1;
	}
	if (!any)
		text(c, row, LABEL, INK_GOOD, "none");
	return row + 2;
}

/* A chart of its own where the window is high enough: the axis covers what the values cover. */
static void chart(struct top_canvas *c, int row, int column, int width, int height,
		  const char *name, const struct mr_histogram_data *d)
{
	uint32_t first = MR_HISTOGRAM_BUCKETS, last = 0;
	uint64_t cell[TOP_COLUMNS_MAX] = {0}, most = 0;

	text(c, row, column, INK_TITLE, "%s", name);
	for (uint32_t i = 0; i < MR_HISTOGRAM_BUCKETS; i++) {
		if (!d->buckets[i])
			continue;
		first = i < first ? i : first;
		last = i;
	}
	if (first > last)
		return;
	for (uint32_t i = first; i <= last; i++) {
		uint32_t at =
			(uint32_t)((uint64_t)(i - first) * (uint32_t)width / (last - first + 1));

		cell[at] += d->buckets[i];
		most = cell[at] > most ? cell[at] : most;
	}
	for (int x = 0; x < width; x++) {
		int eighths = (int)((double)cell[x] / (double)most * height * 8 + 0.5);

		eighths = cell[x] && !eighths ? 1 : eighths;
		for (int y = 0; y < height && eighths > 0; y++, eighths -= 8)
			put(c, row + height - y, column + x, INK_BAR,
			    eighths >= 8 ? BLOCK_FULL : BLOCK_LOW - 1u + (unsigned)eighths);
		put(c, row + height + 1, column + x, INK_DIM, LINE);
	}
	text(c, row + height + 2, column, INK_DIM, "%s",
	     duration(first ? mr_histogram_upper(first - 1) + 1 : 0).s);
	text(c, row + height + 2, column + width - (int)strlen(duration(d->max_ns).s), INK_DIM,
	     "%s", duration(d->max_ns).s);
}

void top_draw(const struct top_view *v, struct top_canvas *c)
{
	int row, height, half = (c->columns - 4) / 2;

	memset(c->cell, 0, sizeof(c->cell));
	c->used = 0;
	row = draw_header(v, c);
	row = draw_devices(v, c, row);
	row = draw_requests(v, c, row);
	row = draw_latency(v, c, row);
	row = draw_copies(v, c, row);
	row = draw_errors(v, c, row);
	height = c->rows - row - 3;
	if (height < 4 || half < 20 || !mr_histogram_count(&v->histograms[MR_H_ttft]))
		return;
	height = height > 16 ? 16 : height;
	chart(c, row, 0, half, height, "TTFT", &v->histograms[MR_H_ttft]);
	chart(c, row, half + 4, half, height, "ITL", &v->histograms[MR_H_itl]);
}

char top_ascii(unsigned glyph)
{
	static const char heights[] = ".:-=+*%#";

	if (glyph >= BLOCK_LOW && glyph <= BLOCK_FULL)
		return heights[glyph - BLOCK_LOW];
	if (glyph > BLOCK_FULL && glyph < BLOCK_FULL + 8)
		return glyph <= BLOCK_FULL + 4 ? '#' : '.';
	return glyph == DOT ? '.' : glyph == LINE ? '-' : ' ';
}

void top_print(const struct top_canvas *c, int utf8, FILE *out)
{
	for (int row = 0; row < c->used; row++) {
		int end = c->columns;

		while (end > 0 && !c->cell[row][end - 1].glyph)
			end--;
		for (int i = 0; i < end; i++) {
			unsigned g = c->cell[row][i].glyph;

			if (g < 0x80)
				fputc(g ? (int)g : ' ', out);
			else if (!utf8)
				fputc(top_ascii(g), out);
			else if (g < 0x800)
				fprintf(out, "%c%c", (int)(0xc0 | g >> 6), (int)(0x80 | (g & 63)));
			else
				fprintf(out, "%c%c%c", (int)(0xe0 | g >> 12),
					(int)(0x80 | (g >> 6 & 63)), (int)(0x80 | (g & 63)));
		}
		fputc('\n', out);
	}
}
