// SPDX-License-Identifier: Apache-2.0
/* `millrace top`: what a server does, from its counters file alone; also of one that hangs or has ended. */
#include <getopt.h>
#include <json-c/json.h>
#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tools/serve.h"
#include "tools/tools.h"
#include "tools/top.h"

#define APART_MS   300 /* of the two snapshots of --once and --json */
#define PERIOD_MS  1000
#define ONCE_WIDTH 80
#define ONCE_ROWS  36

static const char usage[] =
	"usage: millrace top [FILE] [--once | --json]\n\n"
	"Shows a server's devices, queues, latencies, copies and errors, from the counters file "
	"that\n"
	"`millrace serve` keeps. It asks the server nothing, so it works on one that hangs or has "
	"ended.\n\n"
	"  FILE          the counters file (default: of the running server, or else of the last "
	"one,\n"
	"                among those in $XDG_RUNTIME_DIR and /dev/shm)\n"
	"  --once        print one snapshot as text\n"
	"  --json        the same, and every metric, as JSON\n"
	"  --width N     columns of --once, 40 to 400 (default: 80)\n"
	"  --help\n\n"
	"Keys: q quits, w shows latencies of the last 10 s or since the start.\n\n"
	"examples:\n"
	"  millrace top\n"
	"  millrace top /run/millrace.counters --once\n"
	"  millrace top --json | jq .histograms.ttft.p99_ns\n";

enum { OPT_ONCE = TOOL_OPT_OWN, OPT_JSON, OPT_WIDTH };

static const struct option table[] = {
	{"once", no_argument, NULL, OPT_ONCE},
	{"json", no_argument, NULL, OPT_JSON},
	{"width", required_argument, NULL, OPT_WIDTH},
	{"help", no_argument, NULL, 'h'},
	{0},
};

struct top_options {
	int once, json;
	uint64_t width;
	char path[SERVE_PATH_BYTES];
};

static const char *reason(int status)
{
	switch (status) {
	case MR_E_FORMAT:
		return "this is no counters file";
	case MR_E_VERSION:
		return "a counters file of another build of millrace; use that one's top";
	case MR_E_EMPTY:
		return "a counters file that is not made yet";
	case MR_E_TRUNCATED:
		return "a counters file that was cut short";
	case MR_E_RANGE:
		return "a damaged counters file";
	default:
		return mr_strerror(status);
	}
}

static int failed(const char *path, int status)
{
	fprintf(stderr, "millrace top: %s: %s (%s)\n", path, reason(status),
		mr_status_name(status));
	return TOOL_FAILED;
}

/* Two snapshots of a server that runs give rates of now; one of another, those of its life. */
static int print_once(const struct top_options *o, int utf8)
{
	struct top_snapshot *s = calloc(2, sizeof(*s));
	struct top_view *v = calloc(1, sizeof(*v));
	struct top_canvas *c = calloc(1, sizeof(*c));
	int status = s && v && c ? top_take(o->path, &s[0]) : MR_E_NO_MEMORY, two = 0;

	if (!status && s[0].alive) {
		nanosleep(&(struct timespec){.tv_nsec = APART_MS * 1000000}, NULL);
		status = top_take(o->path, &s[1]);
		two = 1;
	}
	if (!status) {
		top_look(o->path, two ? &s[0] : NULL, &s[two], 0, v);
		if (o->json) {
			struct json_object *json = top_json(v);

			puts(json_object_to_json_string_ext(json, JSON_C_TO_STRING_PRETTY));
			json_object_put(json);
		} else {
			c->rows = ONCE_ROWS;
			c->columns = (int)o->width;
			top_draw(v, c);
			top_print(c, utf8, stdout);
		}
	}
	free(s);
	free(v);
	free(c);
	return status ? failed(o->path, status) : TOOL_OK;
}

/* -1 = go on, else the exit status. */
static int parse(int argc, char **argv, struct top_options *o)
{
	int c;

	argv[0] = (char *)"millrace top";
	optind = 1;
	while ((c = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		switch (c) {
		case 'h':
			fputs(usage, stdout);
			return TOOL_OK;
		case OPT_ONCE:
			o->once = 1;
			break;
		case OPT_JSON:
			o->json = 1;
			break;
		case OPT_WIDTH:
			if (tool_parse_number("width", optarg, 40, TOP_COLUMNS_MAX, &o->width))
				return TOOL_USAGE;
			break;
		default:
			return TOOL_USAGE;
		}
	}
	if (argc - optind > 1) {
		fprintf(stderr, "millrace top: takes one file ('millrace top --help')\n");
		return TOOL_USAGE;
	}
	if (optind < argc) {
		snprintf(o->path, sizeof(o->path), "%s", argv[optind]);
	} else if (serve_observe_find(o->path, sizeof(o->path))) {
		fprintf(stderr,
			"millrace top: no server has left a counters file in $XDG_RUNTIME_DIR or "
			"/dev/shm; name one (serve --counters FILE)\n");
		return TOOL_FAILED;
	}
	return -1;
}

static int run(int argc, char **argv)
{
	struct top_options *o = calloc(1, sizeof(*o));
	int status, utf8;

	if (!o)
		return failed("top", MR_E_NO_MEMORY);
	o->width = ONCE_WIDTH;
	status = parse(argc, argv, o);
	if (status < 0) {
		setlocale(LC_CTYPE, "");
		utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
		if (o->once || o->json) {
			status = print_once(o, utf8);
		} else if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
			fprintf(stderr, "millrace top: no terminal here; use --once or --json\n");
			status = TOOL_USAGE;
		} else {
			status = top_screen(o->path, utf8, PERIOD_MS);
			status = status ? failed(o->path, status) : TOOL_OK;
		}
	}
	free(o);
	return status;
}

TOOL_COMMAND(top, "watch a server by its counters file", run);
