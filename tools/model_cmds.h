/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The subcommands of `millrace model` that lie in files of their own: cmd_model.c dispatches to
 * them. argv[0] is the subcommand's name; each parses its own options, --help included, and returns
 * an exit status (tools.h).
 */
#ifndef MR_TOOLS_MODEL_CMDS_H
#define MR_TOOLS_MODEL_CMDS_H

#include <stddef.h>

int model_logits(int argc, char **argv);  /* cmd_model_logits.c */
int model_vectors(int argc, char **argv); /* cmd_model_vectors.c */

/* Bytes out of a model, in quotes, for a terminal: control bytes, quotes and backslashes come as \xNN. */
void model_print_quoted(const char *text, size_t bytes);

#endif /* MR_TOOLS_MODEL_CMDS_H */
