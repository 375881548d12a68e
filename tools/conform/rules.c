// SPDX-License-Identifier: Apache-2.0
/*
 * The rules, as the page has them: lpu_rules.inc is made from Documentation/lpu-spec.rst when this is built. And
 * those of a device that no host can look at, with the reason.
 */
#include "tools/conform/conform.h"

#include <string.h>

struct conform_rule conform_rules[] = {
#define RULE(ident, says) {.id = ident, .text = says},
#include "lpu_rules.inc"
#undef RULE
	{0},
};

static const char *const unseen[][2] = {
	{"LPU-D-7", "a bus hands a function over with bus mastering on"},
	{"LPU-L-5", "what a device can measure is known to its maker alone"},
};

struct conform_rule *conform_rule_of(const char *id)
{
	static int told;

	for (struct conform_rule *r = conform_rules; !told && r->id; r++)
		for (size_t i = 0; i < sizeof(unseen) / sizeof(unseen[0]); i++)
			if (!strcmp(r->id, unseen[i][0]))
				r->unseen = unseen[i][1];
	told = 1;
	for (struct conform_rule *r = conform_rules; r->id; r++)
		if (!strcmp(r->id, id) || !strcmp(r->id + 4, id))
			return r;
	return NULL;
}
