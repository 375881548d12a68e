/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `millrace lpu <subcommand>`: one file each, tools/cmd_lpu_<name>.c, which puts its entry into a linker section as
 * commands do (TOOL_COMMAND), so that adding a file adds a sub-command. tools/cmd_lpu.c finds it by name.
 */
#ifndef MR_TOOLS_LPU_H
#define MR_TOOLS_LPU_H

#include "tools/tools.h"

#define TOOL_LPU_COMMAND(ident, text, fn)                                       \
	static const struct tool_command tool_lpu_##ident = {#ident, text, fn}; \
	static const struct tool_command *const tool_lpu_ref_##ident            \
		__attribute__((used, section("tool_lpu_commands"))) = &tool_lpu_##ident

/* Where `lpu sim` listens for `lpu poke`: the socket's name with this behind it. */
#define TOOL_LPU_CONTROL ".control"

#endif /* MR_TOOLS_LPU_H */
