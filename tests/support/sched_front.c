// SPDX-License-Identifier: Apache-2.0
/* A front that remembers and checks; see the header. */
#include "support/sched_front.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

static uint32_t credit(void *ctx, const struct mr_request *request)
{
	const struct sched_front *front = ctx;

	return front->answers[request->key].credit;
}

static void token(void *ctx, struct mr_request *request, const struct mr_token *token)
{
	struct sched_front *front = ctx;
	struct answer *a = &front->answers[request->key];

	if (!a->accepted || a->ended || a->credit == 0 || token->index != a->count ||
	    token->position != a->prompt + a->count || a->count == ANSWER_MAX ||
	    request->tokens[token->position] != token->token) {
		front->broken++;
		return;
	}
	a->credit--;
	a->ids[a->count] = token->token;
	a->logprobs[a->count++] = token->logprob;
}

static void end(void *ctx, struct mr_request *request, const struct mr_end *end)
{
	struct sched_front *front = ctx;
	struct answer *a = &front->answers[request->key];

	if (!a->accepted || a->ended || end->tokens != a->count || end->prompt_tokens != a->prompt)
		front->broken++;
	a->ended = 1;
	a->end = *end;
	front->ended++;
}

const struct mr_front_ops sched_front_ops = {credit, token, end};

void sched_front_init(struct sched_front *front, uint32_t capacity)
{
	*front = (struct sched_front){.capacity = capacity};
	front->answers = calloc(capacity, sizeof(*front->answers));
}

void sched_front_free(struct sched_front *front)
{
	free(front->answers);
	front->answers = NULL;
}

int sched_front_submit(struct sched_front *front, struct mr_sched *sched, uint64_t client,
		       uint64_t key, const uint32_t *ids, uint32_t count, uint32_t max_tokens,
		       uint32_t credits)
{
	struct mr_request *r = mr_sched_request(sched);
	struct answer *a = &front->answers[key];
	int status;

	if (!r)
		return MR_E_FULL;
	r->ops = &sched_front_ops;
	r->front = front;
	r->client = client;
	r->key = key;
	r->flags = MR_REQUEST_TOKENS;
	r->max_tokens = max_tokens;
	r->token_count = count;
	memcpy(r->tokens, ids, count * sizeof(*ids));
	status = mr_sched_submit(sched, r);
	if (status == 0) {
		a->key = key;
		a->prompt = count;
		a->accepted = 1;
		a->credit = credits;
	}
	return status;
}

int sched_front_drain(struct mr_sched *sched, uint32_t turns)
{
	for (; mr_sched_active(sched) && turns > 0; turns--)
		if (mr_sched_poll(sched) == 0)
			sched_yield();
	return mr_sched_active(sched) ? -1 : 0;
}
