// SPDX-License-Identifier: Apache-2.0
/* `millrace trace`: a server's trace file as a picture for Perfetto, or as tables. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "tools/timeline.h"
#include "tools/tools.h"

static const char usage[] =
	"usage: millrace trace FILE (-o OUT | --summary)\n\n"
	"Reads the file that `millrace serve --trace FILE` keeps, of a running server or of one "
	"that has\n"
	"ended: what each device did, and each request's phases.\n\n"
	"  -o, --output OUT  write trace events as JSON, for ui.perfetto.dev; - = the standard "
	"output\n"
	"  --summary         print tables: devices, phases and their shares, each request\n"
	"  --help\n\n"
	"examples:\n"
	"  millrace trace serve.trace -o serve.json\n"
	"  millrace trace serve.trace --summary | less\n";

enum { OPT_SUMMARY = TOOL_OPT_OWN };

static const struct option table[] = {
	{"output", required_argument, NULL, 'o'},
	{"summary", no_argument, NULL, OPT_SUMMARY},
	{"help", no_argument, NULL, 'h'},
	{0},
};

static const char *reason(int status)
{
	switch (status) {
	case MR_E_FORMAT:
		return "this is no trace file";
	case MR_E_VERSION:
		return "a trace file of another build of millrace; use that one's trace";
	case MR_E_EMPTY:
		return "a trace file that is not made yet";
	case MR_E_TRUNCATED:
		return "a trace file that was cut short";
	case MR_E_RANGE:
		return "a damaged trace file";
	default:
		return mr_strerror(status);
	}
}

static int failed(const char *path, int status)
{
	fprintf(stderr, "millrace trace: %s: %s (%s)\n", path, reason(status),
		mr_status_name(status));
	return TOOL_FAILED;
}

static int write_json(const struct timeline *t, const char *path)
{
	FILE *out = !strcmp(path, "-") ? stdout : fopen(path, "we");
	int bad;

	if (!out) {
		fprintf(stderr, "millrace trace: %s: %s\n", path, strerror(errno));
		return TOOL_FAILED;
	}
	bad = timeline_json(t, out);
	if (out != stdout && fclose(out))
		bad = -1;
	if (bad && out != stdout)
		fprintf(stderr, "millrace trace: %s: cannot be written\n", path);
	return bad ? TOOL_FAILED : TOOL_OK;
}

static int convert(const char *path, const char *output, int summary)
{
	struct mr_trace trace;
	struct timeline t;
	int status = mr_trace_read(path, &trace);

	if (status)
		return failed(path, status);
	status = timeline_build(&trace, &t);
	if (status) {
		status = failed(path, status);
	} else {
		status = output ? write_json(&t, output) : TOOL_OK;
		if (status == TOOL_OK && summary && timeline_text(&t, stdout))
			status = TOOL_FAILED;
		timeline_free(&t);
	}
	mr_trace_free(&trace);
	return status;
}

static int run(int argc, char **argv)
{
	const char *output = NULL;
	int summary = 0, c;

	argv[0] = (char *)"millrace trace";
	optind = 1;
	while ((c = getopt_long(argc, argv, "o:h", table, NULL)) != -1) {
		switch (c) {
		case 'h':
			fputs(usage, stdout);
			return TOOL_OK;
		case 'o':
			output = optarg;
			break;
		case OPT_SUMMARY:
			summary = 1;
			break;
		default:
			return TOOL_USAGE;
		}
	}
	if (argc - optind != 1 || (!output && !summary)) {
		fprintf(stderr, "millrace trace: takes one file, and -o OUT or --summary "
				"('millrace trace --help')\n");
		return TOOL_USAGE;
	}
	return convert(argv[optind], output, summary);
}

TOOL_COMMAND(trace, "turn a server's trace into a picture or tables", run);
