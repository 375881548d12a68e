// SPDX-License-Identifier: Apache-2.0
/* `millrace lpu fault`: makes a running `millrace lpu sim` fail, and says how often it did. For tests. */
#include <getopt.h>
#include <string.h>

#include "tools/lpu.h"
#include "tools/lpu_control.h"

enum { OPT_SOCKET = TOOL_OPT_OWN };

static const char usage[] =
	"usage: millrace lpu fault --socket PATH [LIST]\n\n"
	"Hands faults over to the LPU that 'millrace lpu sim --socket PATH' runs. Without LIST it\n"
	"prints how many of each kind have struck. LIST, with commas between its parts:\n\n"
	"  KIND[@[UNIT:]N][=MICROSECONDS]  once, from the N-th UNIT (command, completion or step; "
	"of\n"
	"                                  I/O queues, since power-on), without N from now on\n"
	"  random=EVERY[:KIND+KIND...]     one in about EVERY commands\n"
	"  off                             nothing any more\n"
	"  plug                            puts back what was removed\n\n"
	"KIND: late lost repeated reordered corrupted record garbage interrupt doorbell ecc\n"
	"ecc-lost dma link assert hang slow removal; millrace-lpu(1) says what each does.\n\n"
	"  --socket PATH   the simulator's socket\n"
	"  -h, --help      this text\n";

static const struct option table[] = {
	{"socket", required_argument, NULL, OPT_SOCKET},
	{"help", no_argument, NULL, 'h'},
	{0},
};

/* -1 = go on, else the exit status. */
static int parse(int argc, char **argv, const char **socket, const char **list)
{
	int c;

	argv[0] = (char *)"millrace lpu fault";
	optind = 1;
	while ((c = getopt_long(argc, argv, "h", table, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage, stdout);
			return TOOL_OK;
		}
		if (c != OPT_SOCKET)
			return TOOL_USAGE;
		*socket = optarg;
	}
	*list = optind < argc ? argv[optind] : NULL;
	if (*socket && optind + 1 >= argc)
		return -1;
	fprintf(stderr,
		"millrace: lpu fault takes --socket PATH and one LIST (--help says more)\n");
	return TOOL_USAGE;
}

static int fault(int argc, char **argv)
{
	char path[256], line[LPU_CONTROL_LINE], answer[LPU_CONTROL_LINE] = "";
	const char *socket = NULL, *list = NULL;
	int status = parse(argc, argv, &socket, &list);

	if (status >= 0)
		return status;
	snprintf(path, sizeof(path), "%s" TOOL_LPU_CONTROL, socket);
	if (list && strlen(list) > LPU_CONTROL_LINE - 16) {
		fprintf(stderr,
			"millrace: lpu fault: the list is too long; @FILE takes longer ones\n");
		return TOOL_USAGE;
	}
	snprintf(line, sizeof(line), "%s%.*s", list ? "fault " : "faults", LPU_CONTROL_LINE - 16,
		 list ? list : "");
	status = lpu_control_ask(path, line, answer);
	if (status) {
		fprintf(stderr, "millrace: %s: %s (%s); is 'millrace lpu sim --socket %s' there?\n",
			path, mr_strerror(status), mr_status_name(status), socket);
		return TOOL_FAILED;
	}
	if (strncmp(answer, "ok", 2)) {
		fprintf(stderr, "millrace: lpu fault: %s\n", answer);
		return TOOL_FAILED;
	}
	for (char *word = list ? NULL : strtok(answer + 2, " "); word; word = strtok(NULL, " "))
		printf("%s\n", word);
	return TOOL_OK;
}

TOOL_LPU_COMMAND(fault, "make a simulator that runs fail", fault);
