// SPDX-License-Identifier: Apache-2.0
/*
 * `millrace <command>`: finds the command by name and runs it. The commands are the files
 * tools/cmd_*.c; each puts a pointer to its entry into one linker section (TOOL_COMMAND in
 * tools.h), which is read here.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "tools/tools.h"

/* Bounds of the section, made by the linker. Weak: a program of no commands has no section. */
extern const struct tool_command *const __start_tool_commands[] __attribute__((weak));
extern const struct tool_command *const __stop_tool_commands[] __attribute__((weak));

#define NAME_MAX_BYTES 32 /* of a command's name, for the nearest-name search */
#define NEAR_ENOUGH    2  /* edits between what was typed and a name that is worth suggesting */

static size_t command_count(void)
{
	return (size_t)(__stop_tool_commands - __start_tool_commands);
}

static int by_name(const void *a, const void *b)
{
	const struct tool_command *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static const struct tool_command *find(const char *name)
{
	for (size_t i = 0; i < command_count(); i++)
		if (!strcmp(__start_tool_commands[i]->name, name))
			return __start_tool_commands[i];
	return NULL;
}

static int print_help(void)
{
	size_t n = command_count();
	const struct tool_command **sorted = calloc(n + 1, sizeof(*sorted));

	if (!sorted) {
		fprintf(stderr, "millrace: %s\n", mr_strerror(MR_E_NO_MEMORY));
		return TOOL_FAILED;
	}
	for (size_t i = 0; i < n; i++)
		sorted[i] = __start_tool_commands[i];
	qsort(sorted, n, sizeof(*sorted), by_name);

	printf("usage: millrace <command> [options]\n"
	       "       millrace help <command> | <command> --help\n"
	       "       millrace --version\n\n"
	       "Drives prompts from the network or a ring through prefill to a decode device,\n"
	       "and carries the tokens away.\n\ncommands:\n");
	for (size_t i = 0; i < n; i++)
		printf("  %-10s %s\n", sorted[i]->name, sorted[i]->summary);
	free(sorted);
	return TOOL_OK;
}

static unsigned smaller(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* Insertions, deletions and replacements that turn @a into @b (Levenshtein), one row at a time. */
static unsigned edits(const char *a, const char *b)
{
	size_t na = strlen(a), nb = strlen(b);
	unsigned row[NAME_MAX_BYTES + 1];

	if (na > NAME_MAX_BYTES || nb > NAME_MAX_BYTES)
		return NAME_MAX_BYTES;
	for (size_t j = 0; j <= nb; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= na; i++) {
		unsigned diagonal = row[0];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= nb; j++) {
			unsigned above = row[j];

			row[j] = smaller(smaller(above, row[j - 1]) + 1,
					 diagonal + (a[i - 1] != b[j - 1]));
			diagonal = above;
		}
	}
	return row[nb];
}

static int unknown_command(const char *name)
{
	const struct tool_command *best = NULL;
	unsigned best_edits = NEAR_ENOUGH + 1;

	for (size_t i = 0; i < command_count(); i++) {
		unsigned e = edits(name, __start_tool_commands[i]->name);

		if (e < best_edits) {
			best_edits = e;
			best = __start_tool_commands[i];
		}
	}
	fprintf(stderr, "millrace: no command '%s'", name);
	if (best)
		fprintf(stderr, "; did you mean '%s'?", best->name);
	fprintf(stderr, " ('millrace --help' lists them)\n");
	return TOOL_USAGE;
}

static int run(int argc, char **argv)
{
	const struct tool_command *command;

	if (argc < 2) {
		fprintf(stderr, "millrace: no command given ('millrace --help' lists them)\n");
		return TOOL_USAGE;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		printf("millrace %d.%d.%d\n", MR_VERSION_MAJOR, MR_VERSION_MINOR, MR_VERSION_PATCH);
		return TOOL_OK;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return print_help();
	if (!strcmp(argv[1], "help")) {
		char *help[] = {argc > 2 ? argv[2] : NULL, "--help", NULL};

		if (argc < 3)
			return print_help();
		command = find(argv[2]);
		return command ? command->run(2, help) : unknown_command(argv[2]);
	}
	if (argv[1][0] == '-') {
		fprintf(stderr, "millrace: no option '%s' before the command\n", argv[1]);
		return TOOL_USAGE;
	}
	command = find(argv[1]);
	return command ? command->run(argc - 1, argv + 1) : unknown_command(argv[1]);
}

int main(int argc, char **argv)
{
	int status;

	/* A client that goes away is an error of one write, never the end of a server. */
	signal(SIGPIPE, SIG_IGN);
	status = run(argc, argv);
	if (fflush(stdout) || ferror(stdout)) {
		/* `millrace ... | head` is not worth a message; a full disk is. */
		if (errno != EPIPE)
			fprintf(stderr, "millrace: cannot write the output: %s\n", strerror(errno));
		return status ? status : TOOL_FAILED;
	}
	return status;
}
