/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The chat template of the model, rendered safely: the template's own control tokens are tokens,
 * and a control token spelled inside a message's content or role is plain text.
 *
 * A GGUF carries its template as a program (Jinja). It is not run: a template that is known here is
 * recognised by its text and rendered by code of ours. Known is the ChatML form with a default
 * system prompt that SmolLM2 carries.
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
 * is known here, MR_E_TOO_LARGE (a message's content has more bytes than @work was made for, or its
 * role more than 100) or MR_E_CONTEXT_FULL as mr_encode. Allocates nothing.
 */
int mr_chat_encode(const struct mr_model *model, struct mr_token_work *work,
		   const struct mr_chat_message *messages, size_t count, int add_generation_prompt,
		   uint32_t *ids, size_t cap);
/*
 * The same for a conversation that goes on: one more message of the user after an answer whose last token
 * was @last (the template's end of a message is put in where the answer broke off before it), and the
 * beginning of the next answer.
 */
int mr_chat_continue(const struct mr_model *model, struct mr_token_work *work, uint32_t last,
		     const char *content, size_t bytes, uint32_t *ids, size_t cap);
/* Renders to text, for people, without a NUL; returns its length, MR_E_MODEL or MR_E_TOO_LARGE. */
int mr_chat_render(const struct mr_model *model, const struct mr_chat_message *messages,
		   size_t count, int add_generation_prompt, char *out, size_t cap);

/* Whether the model's template is known, and the template's tokens. Called once by mr_model_open.
 */
struct mr_chat_ids mr_chat_recognise(const struct mr_model *model);

#endif /* MR_DRIVER_MODEL_CHAT_H */
