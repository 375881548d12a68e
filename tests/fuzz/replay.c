// SPDX-License-Identifier: Apache-2.0
/*
 * The plain main of a fuzz target: replays files, or every file of folders, named on the command line.
 * `make check` runs each target over its committed corpus this way, with and without sanitizers; clang's
 * libFuzzer brings its own main for `make fuzz`.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	if (!f) {
		perror(path);
		return -1;
	}
	fseek(f, 0, SEEK_END);
	long size = ftell(f);
	rewind(f);
	/* Exactly the input's bytes, so that ASan sees a read past its end. */
	uint8_t *data = malloc(size > 0 ? (size_t)size : 1);
	int ok = data && fread(data, 1, (size_t)size, f) == (size_t)size;
	fclose(f);
	if (ok)
		LLVMFuzzerTestOneInput(data, (size_t)size);
	free(data);
	return ok ? 1 : -1;
}

static int replay_path(const char *path)
{
	struct stat st;
	if (stat(path, &st) < 0) {
		perror(path);
		return -1;
	}
	if (!S_ISDIR(st.st_mode))
		return replay_file(path);

	struct dirent **names;
	int n = scandir(path, &names, NULL, alphasort);
	int done = 0;
	for (int i = 0; i < n; i++) {
		char file[4096];
		snprintf(file, sizeof(file), "%s/%s", path, names[i]->d_name);
		if (names[i]->d_name[0] != '.' && done >= 0) {
			int got = replay_file(file);
			done = got < 0 ? -1 : done + got;
		}
		free(names[i]);
	}
	free(names);
	return n < 0 ? -1 : done;
}

int main(int argc, char **argv)
{
	int total = 0;
	for (int i = 1; i < argc; i++) {
		int n = replay_path(argv[i]);
		if (n < 0)
			return 1;
		total += n;
	}
	if (total == 0) {
		fprintf(stderr, "%s: no input to replay\n", argv[0]);
		return 1;
	}
	printf("%d inputs replayed\n", total);
	return 0;
}
