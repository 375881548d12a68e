// SPDX-License-Identifier: Apache-2.0
/* What the sub-commands of `millrace lpu` that open an LPU share: their command line, errors, files. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/lpu.h"

#define FILE_MAX (4ull << 30)

int lpu_command_parse(const struct lpu_command_line *line, int argc, char **argv)
{
	char name[64];
	int c;

	snprintf(name, sizeof(name), "millrace lpu %s", line->name);
	argv[0] = name;
	optind = 1;
	while ((c = getopt_long(argc, argv, "h", line->table, NULL)) != -1) {
		if (c == 'h') {
			fputs(line->usage, stdout);
			return TOOL_OK;
		}
		int taken = c == '?' ? -1 : tool_device_option(c, optarg, line->devices);
		if (!taken)
			taken = line->own && !line->own(line->arg, c, optarg) ? 1 : -1;
		if (taken < 0)
			return TOOL_USAGE;
	}
	if (argc - optind >= line->least && argc - optind <= line->most)
		return -1;
	fprintf(stderr, "millrace lpu %s: wrong arguments ('millrace lpu %s --help')\n", line->name,
		line->name);
	return TOOL_USAGE;
}

int lpu_command_failed(const char *name, const char *what, int status)
{
	fprintf(stderr, "millrace lpu %s: %s: %s (%s)\n", name, what, mr_strerror(status),
		mr_status_name(status));
	return TOOL_FAILED;
}

void *lpu_command_file(const char *name, const char *path, size_t *bytes)
{
	FILE *f = fopen(path, "rbe");
	struct stat st;
	void *data = NULL;

	if (f && !fstat(fileno(f), &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size <= FILE_MAX)
		data = malloc((size_t)st.st_size + 1);
	else if (f)
		errno = EINVAL;
	*bytes = data ? fread(data, 1, (size_t)st.st_size, f) : 0;
	if (data && *bytes != (size_t)st.st_size) {
		free(data);
		data = NULL;
	}
	if (!data)
		fprintf(stderr, "millrace lpu %s: %s: %s (%s)\n", name, path, strerror(errno),
			mr_status_name(errno == ENOENT ? MR_E_NOT_FOUND : MR_E_IO));
	if (f)
		fclose(f);
	return data;
}
