// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/fault.h"

#include <string.h>

#include <millrace/status.h>

struct fault {
	int flip; /* else zero */
	const char *tensor;
	size_t tensor_bytes;
	uint64_t offset;
};

static int starts(const char **p, const char *word)
{
	size_t n = strlen(word);

	if (strncmp(*p, word, n))
		return 0;
	*p += n;
	return 1;
}

/* Reads one fault from *p, up to a comma or the end. */
static int next_fault(const char **p, struct fault *f)
{
	memset(f, 0, sizeof(*f));
	if (starts(p, "sram-flip="))
		f->flip = 1;
	else if (!starts(p, "sram-zero="))
		return MR_E_INVALID;
	f->tensor = *p;
	f->tensor_bytes = strcspn(*p, ":,");
	*p += f->tensor_bytes;
	if (!f->tensor_bytes || (**p == ':') != f->flip)
		return MR_E_INVALID;
	if (f->flip) {
		const char *digits = ++*p;
		while (**p >= '0' && **p <= '9' && f->offset < UINT64_MAX / 100)
			f->offset = f->offset * 10 + (uint64_t)(*(*p)++ - '0');
		if (*p == digits)
			return MR_E_INVALID;
	}
	if (**p == ',')
		++*p;
	else if (**p)
		return MR_E_INVALID;
	return 0;
}

static int names(const struct fault *f, const char *tensor)
{
	const char *rest = tensor + f->tensor_bytes;

	return !strncmp(tensor, f->tensor, f->tensor_bytes) && (!*rest || !strcmp(rest, ".weight"));
}

void mr_sim_fault_split(const char *fault, char *sram, char *others)
{
	char *start[2] = {sram, others}, *to[2] = {sram, others};

	while (*fault) {
		size_t n = strcspn(fault, ",");
		int i = strncmp(fault, "sram-", 5) != 0;

		if (to[i] > start[i])
			*to[i]++ = ',';
		memcpy(to[i], fault, n);
		to[i] += n;
		fault += n + (fault[n] == ',');
	}
	*to[0] = *to[1] = 0;
}

int mr_sim_fault_check(const char *fault)
{
	struct fault f;
	int status = *fault ? 0 : MR_E_INVALID;

	while (!status && *fault)
		status = next_fault(&fault, &f);
	return status;
}

int mr_sim_fault_apply(const char *fault, const struct mr_container *c, const struct sim_sram *sram)
{
	struct fault f;

	while (*fault) {
		int found = 0;
		if (next_fault(&fault, &f))
			return MR_E_INVALID;
		for (uint32_t i = 0; i < c->header->segments; i++) {
			const struct mr_prog_segment *s = &c->segments[i];
			if (!names(&f, s->tensor) || f.offset >= s->bytes)
				continue;
			uint8_t *at = sim_sram_at(sram, s->chip, s->address);
			if (f.flip)
				at[f.offset] ^= 1;
			else
				memset(at, 0, s->bytes);
			found = 1;
		}
		if (!found)
			return MR_E_NOT_FOUND;
	}
	return 0;
}
