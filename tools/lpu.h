/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace lpu <subcommand>`: one file each, tools/cmd_lpu_<name>.c, which puts its entry into a linker section as
 * commands do (TOOL_COMMAND), so that adding a file adds a sub-command. tools/cmd_lpu.c finds it by name.
 */
#ifndef MR_TOOLS_LPU_H
#define MR_TOOLS_LPU_H

#include <getopt.h>

#include "tools/tools.h"

#define TOOL_LPU_COMMAND(ident, text, fn)                                       \
	static const struct tool_command tool_lpu_##ident = {#ident, text, fn}; \
	static const struct tool_command *const tool_lpu_ref_##ident            \
		__attribute__((used, section("tool_lpu_commands"))) = &tool_lpu_##ident

/* The options of the sub-commands that open an LPU, offered to tool_device_option. */
/* clang-format off: a list of initialisers, not a block of code */
#define LPU_DEVICE_LONG_OPTIONS                                       \
	{"lpu", required_argument, NULL, TOOL_OPT_LPU},               \
		{"chip", required_argument, NULL, TOOL_OPT_CHIP},     \
		{"chips", required_argument, NULL, TOOL_OPT_CHIPS},   \
		{"record", required_argument, NULL, TOOL_OPT_RECORD}, \
	{                                                             \
		"help", no_argument, NULL, 'h'                        \
	}
/* clang-format on */
#define LPU_DEVICE_HELP                                                                         \
	"  --lpu BUS         local (default: simulated in this process), vfio-user:SOCKET or\n" \
	"                    vfio:ADDRESS; these two take @VENDOR:DEVICE behind it\n"           \
	"  --chip FILE       chip of the simulated LPU: a chip file, mr1 (default) or tiny\n"   \
	"  --chips N         its chips, 1 to 64 (default: 2)\n"                                 \
	"  --record FILE     trace of the bus, for 'millrace lpu replay'\n"                     \
	"  -h, --help        this text\n"

/* A sub-command's options: its own, and LPU_DEVICE_LONG_OPTIONS last. */
struct lpu_command_line {
	const char *name, *usage; /* "log"; its --help */
	const struct option *table;
	struct tool_devices_options *devices;
	int (*own)(void *arg, int option,
		   const char *value); /* 0 = taken, -1 = refused; may be NULL */
	void *arg;
	int least, most; /* arguments that are no options */
};
/* -1 = go on, optind being the first argument that is no option; else the exit status. */
int lpu_command_parse(const struct lpu_command_line *line, int argc, char **argv);
/* A line on stderr about @what, then TOOL_FAILED. */
int lpu_command_failed(const char *name, const char *what, int status);
/* A whole file, 8-byte aligned, free()d by the caller; NULL after a line on stderr. 4 GiB at most. */
void *lpu_command_file(const char *name, const char *path, size_t *bytes);

/* Where `lpu sim` listens for `lpu poke`: the socket's name with this behind it. */
#define TOOL_LPU_CONTROL ".control"

#endif /* MR_TOOLS_LPU_H */
