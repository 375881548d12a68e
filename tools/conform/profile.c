// SPDX-License-Identifier: Apache-2.0
/* The profile: what a device that is not bit-equal is allowed, and how long it may take. */
#include <stdlib.h>
#include <string.h>

#include "tools/conform/conform.h"

void conform_profile_default(struct conform_profile *p)
{
	*p = (struct conform_profile){
		.wait_ms = 2000,
		.quiet_ms = 20,
		.scenario_ms = 120000,
		.bit_equal = 1,
		.logits_abs = 0,
		.logprob_abs = 0,
		.cycles = 1,
		.fuzz = 2000,
		.seed = 1,
	};
}

static int set(struct conform_profile *p, const char *key, const char *value)
{
	const struct {
		const char *key;
		uint64_t *number;
		double *real;
		double least, most;
	} keys[] = {
		{"wait_ms", &p->wait_ms, NULL, 1, 600000},
		{"quiet_ms", &p->quiet_ms, NULL, 1, 60000},
		{"scenario_ms", &p->scenario_ms, NULL, 1, 86400000},
		{"bit_equal", &p->bit_equal, NULL, 0, 1},
		{"cycles", &p->cycles, NULL, 0, 1},
		{"fuzz", &p->fuzz, NULL, 0, 1e9},
		{"seed", &p->seed, NULL, 0, 1e18},
		{"logits_abs", NULL, &p->logits_abs, 0, 1e6},
		{"logprob_abs", NULL, &p->logprob_abs, 0, 1e6},
	};
	char *end;
	double v = strtod(value, &end);

	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (strcmp(key, keys[i].key))
			continue;
		if (end == value || *end || !(v >= keys[i].least && v <= keys[i].most))
			return -1;
		if (keys[i].real)
			*keys[i].real = v;
		else
			*keys[i].number = (uint64_t)v;
		return 0;
	}
	return -1;
}

int conform_profile_read(const char *path, struct conform_profile *p)
{
	FILE *f = fopen(path, "r");
	char line[200], key[64], value[64], more[8];
	int number = 0, bad = 0;

	if (!f) {
		fprintf(stderr, "millrace: --profile: cannot read %s\n", path);
		return -1;
	}
	while (!bad && fgets(line, sizeof(line), f)) {
		number++;
		line[strcspn(line, "#\n")] = 0;
		int words = sscanf(line, "%63s %63s %7s", key, value, more);
		bad = words > 0 && (words != 2 || set(p, key, value));
	}
	fclose(f);
	if (bad)
		fprintf(stderr,
			"millrace: --profile: %s:%d: not a key with a value that it takes\n", path,
			number);
	return bad ? -1 : 0;
}
