// SPDX-License-Identifier: Apache-2.0
/* `millrace lpu`: work with an LPU outside of a run. Finds the sub-command by name (tools/lpu.h). */
#include <string.h>

#include "tools/lpu.h"

extern const struct tool_command *const __start_tool_lpu_commands[] __attribute__((weak));
extern const struct tool_command *const __stop_tool_lpu_commands[] __attribute__((weak));

static void list(FILE *out)
{
	const struct tool_command *const *c = __start_tool_lpu_commands;

	fprintf(out, "usage: millrace lpu <sub-command> [options]\n"
		     "       millrace lpu <sub-command> --help\n\nsub-commands:\n");
	for (; c < __stop_tool_lpu_commands; c++)
		fprintf(out, "  %-10s %s\n", (*c)->name, (*c)->summary);
}

static int lpu_command(int argc, char **argv)
{
	const struct tool_command *const *c = __start_tool_lpu_commands;

	if (argc > 1 && (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))) {
		list(stdout);
		return TOOL_OK;
	}
	if (argc < 2) {
		list(stderr);
		return TOOL_USAGE;
	}
	for (; c < __stop_tool_lpu_commands; c++)
		if (!strcmp((*c)->name, argv[1]))
			return (*c)->run(argc - 1, argv + 1);
	fprintf(stderr, "millrace lpu: no sub-command '%s' ('millrace lpu --help' lists them)\n",
		argv[1]);
	return TOOL_USAGE;
}

TOOL_COMMAND(lpu, "programs for LPUs; look after them; a simulated LPU for others", lpu_command);
