/* SPDX-License-Identifier: Apache-2.0 */
/* What a device of class D computes. Called by the scenarios that compare bits. */
#ifndef MR_TOOLS_CONFORM_REFERENCE_H
#define MR_TOOLS_CONFORM_REFERENCE_H

#include <stdint.h>

struct mr_model;

/* Logits [n][vocabulary] after each of @tokens, which are fed at positions 0 to @n - 1: 0 or a status. */
int conform_reference(const struct mr_model *model, const uint32_t *tokens, uint32_t n,
		      float *logits);

#endif /* MR_TOOLS_CONFORM_REFERENCE_H */
