// SPDX-License-Identifier: Apache-2.0
/*
 * Admission: a request is checked, turned into tokens and queued, or refused at once with a named status.
 * Whatever the front has put into the entry is treated as hostile.
 */
#include "driver/model/chat.h"
#include "driver/model/tokenizer.h"
#include "driver/sched/internal.h"
#include "kernels/cpu/sample.h"

#define FLAGS_KNOWN (MR_REQUEST_CHAT | MR_REQUEST_TOKENS | MR_REQUEST_IGNORE_EOS)

static int check_ids(const struct mr_sched *s, const struct mr_request *r)
{
	if (r->token_count == 0)
		return MR_E_INVALID;
	if (r->token_count > s->context)
		return MR_E_CONTEXT_FULL;
	for (uint32_t i = 0; i < r->token_count; i++)
		if (r->tokens[i] >= s->decode->caps.vocab)
			return MR_E_RANGE;
	return (int)r->token_count;
}

static int encode(const struct mr_sched *s, const struct mr_request *r)
{
	struct mr_chat_message message = {"user", r->text, r->text_bytes};

	if (!s->work)
		return MR_E_MODEL;
	if (r->text_bytes == 0)
		return MR_E_INVALID;
	if (r->text_bytes > MR_PROMPT_BYTES_MAX)
		return MR_E_TOO_LARGE;
	if (r->flags & MR_REQUEST_CHAT)
		return mr_chat_encode(s->model, s->work, &message, 1, 1, r->tokens, s->context);
	return mr_encode(s->model->tokenizer, s->work, r->text, r->text_bytes, 0, r->tokens,
			 s->context);
}

/* Returns the number of prompt tokens, at least 1, or why the request is refused. */
static int check(const struct mr_sched *s, const struct mr_request *r)
{
	int count, status;

	if (!r->ops || r->max_tokens == 0 || (r->flags & ~FLAGS_KNOWN) ||
	    (r->flags & (MR_REQUEST_CHAT | MR_REQUEST_TOKENS)) ==
		    (MR_REQUEST_CHAT | MR_REQUEST_TOKENS))
		return MR_E_INVALID;
	if (s->dead)
		return s->dead;
	status = mr_sampling_check(&r->sampling, s->decode->caps.vocab);
	if (status < 0)
		return status;
	if (mr_sched_find(s, r->client, r->key))
		return MR_E_EXISTS;
	count = r->flags & MR_REQUEST_TOKENS ? check_ids(s, r) : encode(s, r);
	if (count == 0)
		return MR_E_INVALID; /* text that holds no token */
	if (count > 0 && r->max_tokens > s->context - (uint32_t)count)
		return MR_E_CONTEXT_FULL;
	return count;
}

/*
 * The device stops a slot by itself at the ids of its sampling: the request's, then the model's as far as
 * they fit. Those that do not fit are still stops (decode.c looks at all), they only cost steps.
 */
static void add_model_stops(const struct mr_model *model, struct mr_sampling *sampling)
{
	for (uint32_t i = 0; i < model->stop_count; i++)
		if (sampling->stop_count < MR_STOP_TOKENS_MAX)
			sampling->stop[sampling->stop_count++] = model->stop[i];
}

int mr_sched_submit(struct mr_sched *s, struct mr_request *request)
{
	struct entry *e = (struct entry *)request;
	int count;

	if (e->stage != STAGE_FILLING)
		return MR_E_INVALID;
	count = s->draining ? MR_E_BUSY : check(s, request);
	if (count < 0) {
		mr_count(MR_M_sched_refused, 1);
		mr_sched_pool_put(s, e);
		return count;
	}
	if (!(request->flags & MR_REQUEST_IGNORE_EOS))
		add_model_stops(s->model, &request->sampling);
	request->token_count = e->prompt = (uint32_t)count;
	e->owner = s->next_owner++;
	e->submit_ns = now_ns(s);
	mr_sched_hash_add(s, e);
	mr_sched_move(e, STAGE_WAITING, &s->waiting);
	s->active++;
	s->dirty = 1;
	mr_count(MR_M_sched_requests, 1);
	return 0;
}

void mr_sched_drain(struct mr_sched *s)
{
	s->draining = 1;
}
