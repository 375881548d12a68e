/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chat template of the model, rendered safely: the template's own control tokens are tokens,
 * and a control token spelled inside a message's content is plain text.
 */
#ifndef MR_DRIVER_MODEL_CHAT_H
#define MR_DRIVER_MODEL_CHAT_H

#include <stddef.h>
#include <stdint.h>

#include "driver/model/model.h"
#include "driver/model/tokenizer.h"

struct mr_chat_message {
	const char *role; /* "system", "user", "assistant" */
	const char *content;
	size_t bytes; /* of content */
};

/*
 * Renders to ids. Returns the number of ids, MR_E_MODEL where the file's template is not one that
 * is known here, MR_E_TOO_LARGE or MR_E_CONTEXT_FULL as mr_encode. Allocates nothing.
 */
int mr_chat_encode(const struct mr_model *model, struct mr_token_work *work,
		   const struct mr_chat_message *messages, size_t count, int add_generation_prompt,
		   uint32_t *ids, size_t cap);
/* Renders to text, for people; returns its length or MR_E_TOO_LARGE. */
int mr_chat_render(const struct mr_model *model, const struct mr_chat_message *messages,
		   size_t count, int add_generation_prompt, char *out, size_t cap);

#endif /* MR_DRIVER_MODEL_CHAT_H */
