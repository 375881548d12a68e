// SPDX-License-Identifier: Apache-2.0
/* The interactive screen of `millrace top`, over ncurses. */
#include <curses.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tools/tools.h"
#include "tools/top.h"

#define HISTORY 11 /* snapshots: with one a second, the last 10 s */

struct screen {
	struct top_snapshot past[HISTORY];
	uint32_t taken; /* so far; the newest is past[(taken - 1) % HISTORY] */
	int recent;     /* histograms of the last snapshots only */
	struct top_canvas canvas;
	struct top_view view;
};

static void start(void)
{
	static const short colours[][2] = {
		[INK_TITLE] = {COLOR_CYAN, -1}, [INK_DIM] = {COLOR_BLUE, -1},
		[INK_GOOD] = {COLOR_GREEN, -1}, [INK_WARN] = {COLOR_YELLOW, -1},
		[INK_BAD] = {COLOR_RED, -1},    [INK_BAR] = {COLOR_GREEN, -1},
	};

	initscr();
	cbreak();
	noecho();
	curs_set(0);
	keypad(stdscr, TRUE);
	if (!has_colors())
		return;
	start_color();
	use_default_colors();
	for (short i = 0; i < (short)(sizeof(colours) / sizeof(colours[0])); i++)
		init_pair((short)(i + 1), i == INK_PLAIN ? -1 : colours[i][0], -1);
}

static attr_t ink(unsigned i)
{
	attr_t a = has_colors() ? COLOR_PAIR(i + 1) : 0;

	/* Dim is plain text in a terminal of few colours: blue on black is hard to read. */
	if (i == INK_DIM)
		return A_DIM;
	return i == INK_TITLE || i == INK_BAD || i == INK_WARN ? a | A_BOLD : a;
}

static char plain(unsigned glyph)
{
	if (glyph < 0x80)
		return glyph ? (char)glyph : ' ';
	return top_ascii(glyph);
}

static void paint(const struct top_canvas *c, int utf8)
{
	erase();
	for (int row = 0; row < c->used; row++) {
		for (int i = 0; i < c->columns; i++) {
			const struct top_cell *cell = &c->cell[row][i];
			wchar_t wide[2] = {utf8 && cell->glyph ? cell->glyph : plain(cell->glyph),
					   0};
			cchar_t out;

			if (!cell->glyph)
				continue;
			setcchar(&out, wide, ink(cell->ink), 0, NULL);
			mvadd_wch(row, i, &out);
		}
	}
}

static void footer(const struct screen *s, const char *path, int status)
{
	attrset(A_DIM);
	move(LINES - 1, 0);
	clrtoeol();
	if (status)
		mvprintw(LINES - 1, 0, "%s: %s", path, mr_strerror(status));
	else
		mvprintw(LINES - 1, 0, "q quit   w latencies %s",
			 s->recent ? "of the last 10 s (w: since the start)"
				   : "since the start (w: of the last 10 s)");
	attrset(A_NORMAL);
}

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static struct top_snapshot *newest(struct screen *s, uint32_t back)
{
	return &s->past[(s->taken - 1 - back) % HISTORY];
}

/* One more snapshot; the last good one stays where there is none. */
static int take(struct screen *s, const char *path)
{
	int status = top_take(path, &s->past[s->taken % HISTORY]);

	if (!status)
		s->taken++;
	return status;
}

static void show(struct screen *s, const char *path, int utf8, int status)
{
	const uint32_t kept = s->taken < HISTORY ? s->taken : HISTORY;
	struct top_canvas *c = &s->canvas;

	c->rows = LINES - 1 < TOP_ROWS_MAX ? LINES - 1 : TOP_ROWS_MAX;
	c->columns = COLS < TOP_COLUMNS_MAX ? COLS : TOP_COLUMNS_MAX;
	top_look(path, kept > 1 ? newest(s, s->recent ? kept - 1 : 1) : NULL, newest(s, 0),
		 s->recent, &s->view);
	top_draw(&s->view, c);
	paint(c, utf8);
	footer(s, path, status);
	refresh();
}

int top_screen(const char *path, int utf8, unsigned period_ms)
{
	struct screen *s = calloc(1, sizeof(*s));
	uint64_t due, now;
	int key = 0, status;

	status = s ? take(s, path) : MR_E_NO_MEMORY;
	if (status) {
		free(s);
		return status;
	}
	tool_catch_signals();
	start();
	due = now_ms() + period_ms;
	while (!tool_stop && key != 'q') {
		show(s, path, utf8, status);
		now = now_ms();
		timeout(now < due ? (int)(due - now) : 0);
		key = getch();
		if (key == 'w')
			s->recent = !s->recent;
		/* By the clock, so that keys do not put it off. */
		if (now_ms() >= due) {
			status = take(s, path);
			due = now_ms() + period_ms;
		}
	}
	endwin();
	free(s);
	return 0;
}
