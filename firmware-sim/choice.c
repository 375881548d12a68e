// SPDX-License-Identifier: Apache-2.0
#include "firmware-sim/choice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "firmware-sim/device.h"
#include "firmware-sim/mutant.h"
#include "kernels/cpu/sample.h"

int mr_sim_choice_create(struct sim_choice *c, uint32_t vocab)
{
	c->words = (vocab + 31) / 32;
	c->logits = calloc(vocab, sizeof(*c->logits));
	c->allowed = calloc(c->words, sizeof(*c->allowed));
	return c->logits && c->allowed ? 0 : MR_E_NO_MEMORY;
}

void mr_sim_choice_destroy(struct sim_choice *c)
{
	free(c->logits);
	free(c->allowed);
	memset(c, 0, sizeof(*c));
}

static int allows(const struct sim_choice *c, uint32_t token)
{
	return c->allowed[token / 32] >> token % 32 & 1;
}

int mr_sim_choice_read(struct sim *sim, uint64_t iova, uint32_t position)
{
	struct sim_choice *c = &sim->program.choice;
	uint32_t vocab = sim->program.c.ref->vocab, is_for;
	/* Acquire: the host writes the position after the rest of the mask. */
	int status = mr_sim_dma_load(&sim->dma, iova, &is_for, 1);

	if (status)
		return status;
	if (is_for != position && !MUTANT(T_20))
		return MR_E_MASK_LATE;
	status = mr_sim_dma_read(&sim->dma, iova + sizeof(struct mr_lpu_mask), c->allowed,
				 c->words * sizeof(*c->allowed));
	if (status)
		return status;
	for (uint32_t i = 0; i < vocab; i++)
		if (allows(c, i))
			return 0;
	return MUTANT(T_22) ? 0 : MR_E_RANGE;
}

const float *mr_sim_choice_apply(struct sim *sim, const float *logits)
{
	struct sim_choice *c = &sim->program.choice;
	uint32_t vocab = sim->program.c.ref->vocab;

	for (uint32_t i = 0; i < vocab; i++)
		c->logits[i] = allows(c, i) ? logits[i] : -INFINITY;
	return c->logits;
}

/* NaN is worth no more than minus infinity, as to the sampler. */
static float worth(float logit)
{
	return isnan(logit) ? -INFINITY : logit;
}

int mr_sim_choice_top(struct sim *sim, const float *logits, uint32_t n, uint64_t iova)
{
	struct mr_lpu_top top[SIM_TOP_MAX];
	uint32_t vocab = sim->program.c.ref->vocab, found = 0;

	for (uint32_t i = 0; i < vocab; i++) {
		uint32_t at = found;
		/* Ids ascend, so an equal one goes behind. */
		while (at && worth(logits[i]) > worth(logits[top[at - 1].token]))
			at--;
		if (at == n)
			continue;
		found += found < n;
		memmove(&top[at + 1], &top[at], (found - 1 - at) * sizeof(top[0]));
		top[at].token = i;
	}
	if (MUTANT(T_24) && n > 1)
		top[1] = top[0];
	for (uint32_t k = 0; k < n; k++)
		top[k].logprob = mr_logprob(logits, vocab, top[k].token);
	return mr_sim_dma_write(&sim->dma, iova, top, n * sizeof(top[0]));
}
