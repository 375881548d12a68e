// SPDX-License-Identifier: Apache-2.0
/*
 * Prompts of a given number of tokens: windows on a pool of random words. The words are tokens of the server's
 * vocabulary, a space and some letters, so that their text is cut into the same tokens again; a prompt goes out as
 * ids where the transport takes ids, else as that text. Windows begin at different words, so that no prompt of a
 * load finds another's prefix; the pool is made before the start and is all the memory that they need.
 */
#include <stdlib.h>
#include <string.h>

#include <millrace/status.h>

#include "driver/model/model.h"
#include "driver/model/tokenizer.h"
#include "tools/load.h"

#define WINDOWS    (1u << 18) /* different prompts; a power of two */
#define WORD_BYTES 8 /* of a word, space included: 8,000 of them fit a prompt of the wire */
#define VOCAB_MAX  (1u << 24)

/* Some odd number: prompts next to each other in time are far apart in the pool. */
#define STRIDE 0x2545f491u

static int is_word(const char *text, size_t bytes)
{
	if (bytes < 2 || bytes > WORD_BYTES || text[0] != ' ')
		return 0;
	for (size_t i = 1; i < bytes; i++)
		if ((text[i] < 'a' || text[i] > 'z') && (text[i] < 'A' || text[i] > 'Z'))
			return 0;
	return 1;
}

/* Whether the text of @id alone is cut into @id; without a tokenizer here nobody needs it. */
static int reads_back(const struct load_run *run, struct mr_token_work *work, uint32_t id,
		      const char *text, size_t bytes)
{
	uint32_t ids[WORD_BYTES];

	return !work || (mr_encode(run->options->model->tokenizer, work, text, bytes, 0, ids,
				   WORD_BYTES) == 1 &&
			 ids[0] == id);
}

/* The words of the vocabulary, at most @room. */
static uint32_t words(const struct load_run *run, struct mr_token_work *work, uint32_t *out,
		      uint32_t room)
{
	uint32_t n = 0;
	const char *text;
	size_t bytes;
	int control;

	for (uint32_t id = 0; id < VOCAB_MAX && n < room; id++) {
		text = run->transport->token(run, id, &bytes, &control);
		if (!text)
			break;
		if (!control && is_word(text, bytes) && reads_back(run, work, id, text, bytes))
			out[n++] = id;
	}
	return n;
}

static int fill(struct load_run *run, const uint32_t *choice, uint32_t choices, uint32_t count)
{
	struct load_random random = {run->options->sampling.seed ^ 0x70726f6d707473u};
	struct load_pool *pool = &run->pool;
	uint32_t at = 0;

	pool->ids = calloc(count, sizeof(*pool->ids));
	pool->text_at = calloc((size_t)count + 1, sizeof(*pool->text_at));
	pool->text = calloc(count, WORD_BYTES);
	if (!pool->ids || !pool->text_at || !pool->text)
		return MR_E_NO_MEMORY;
	for (uint32_t i = 0; i < count; i++) {
		size_t bytes;
		int control;
		const char *text;

		pool->ids[i] = choice[load_random_next(&random) % choices];
		text = run->transport->token(run, pool->ids[i], &bytes, &control);
		memcpy(pool->text + at, text, bytes);
		at += (uint32_t)bytes;
		pool->text_at[i + 1] = at;
	}
	return 0;
}

int load_pool_make(struct load_run *run)
{
	struct mr_token_work *work = NULL;
	uint32_t *choice, choices = 0, room = 1u << 16;
	int status = MR_E_NO_MEMORY;

	if (!run->plan->longest)
		return 0;
	choice = calloc(room, sizeof(*choice));
	if (choice)
		status = run->transport->takes_ids
				 ? 0
				 : mr_token_work_create(run->options->model->tokenizer, WORD_BYTES,
							&work);
	if (!status)
		choices = words(run, work, choice, room);
	if (!status)
		status = choices < 2 ? MR_E_NOT_FOUND
				     : fill(run, choice, choices, WINDOWS + run->plan->longest);
	mr_token_work_destroy(work);
	free(choice);
	if (!status)
		return 0;
	fprintf(stderr, "millrace: no words for random prompts in the vocabulary: %s (%s)\n",
		mr_strerror(status), mr_status_name(status));
	return -1;
}

void load_pool_free(struct load_pool *pool)
{
	free(pool->ids);
	free(pool->text);
	free(pool->text_at);
}

void load_pool_prompt(const struct load_run *run, uint32_t request, struct load_input *input)
{
	const struct load_pool *pool = &run->pool;
	uint32_t at = (request * STRIDE) & (WINDOWS - 1);
	uint32_t end = at + run->plan->requests[request].prompt_tokens;

	*input = (struct load_input){
		.text = pool->text + pool->text_at[at],
		.bytes = pool->text_at[end] - pool->text_at[at],
		.ids = pool->ids + at,
		.count = end - at,
	};
}
