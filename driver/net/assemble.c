// SPDX-License-Identifier: Apache-2.0
/* See assemble.h. Fragments have one size, so a prompt's state is one word and order does not matter. */
#include "driver/net/assemble.h"

#include "driver/mem/copy.h"

_Static_assert(MR_WIRE_PROMPT_MAX / MR_WIRE_FRAGMENT == 64, "a bit for every fragment");

uint64_t mr_assembly_all(uint32_t total)
{
	uint32_t fragments = (total + MR_WIRE_FRAGMENT - 1) / MR_WIRE_FRAGMENT;

	return UINT64_MAX >> (64 - fragments);
}

void mr_assembly_start(struct assembly *a, char *text, const struct mr_wire_in *in)
{
	*a = (struct assembly){.text = text, .params = in->submit};
}

static int same_parameters(const struct mr_wire_submit *a, const struct mr_wire_submit *b)
{
	return a->total == b->total && a->max_tokens == b->max_tokens && a->flags == b->flags &&
	       memcmp(&a->sampling, &b->sampling, sizeof(a->sampling)) == 0;
}

enum assembly_result mr_assembly_add(struct assembly *a, const struct mr_wire_in *in)
{
	uint64_t bit = (uint64_t)1 << (in->submit.offset / MR_WIRE_FRAGMENT);

	if (!same_parameters(&a->params, &in->submit))
		return ASSEMBLY_CONTRADICTS;
	if (a->have & bit)
		return ASSEMBLY_DUPLICATE;
	mr_copy(MR_COPY_PROMPT_WIRE, a->text + in->submit.offset, in->tail, in->fragment_bytes);
	a->have |= bit;
	return a->have == mr_assembly_all(a->params.total) ? ASSEMBLY_COMPLETE : ASSEMBLY_MORE;
}
