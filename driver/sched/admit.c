// SPDX-License-Identifier: Apache-2.0
/*
 * Admission: a request is checked, its input turned into tokens, its sequence made or found, or it is
 * refused at once with a named status. Whatever the front has put into the entry is treated as hostile.
 */
#include "driver/model/chat.h"
#include "driver/model/tokenizer.h"
#include "driver/sched/internal.h"
#include "kernels/cpu/sample.h"

#define FLAGS_KNOWN                                                                      \
	(MR_REQUEST_CHAT | MR_REQUEST_TOKENS | MR_REQUEST_IGNORE_EOS | MR_REQUEST_KEEP | \
	 MR_REQUEST_LOGPROBS)

static int check_ids(const struct mr_sched *s, const uint32_t *ids, uint32_t count, uint32_t room)
{
	if (count > room)
		return MR_E_CONTEXT_FULL;
	for (uint32_t i = 0; i < count; i++)
		if (ids[i] >= s->decode->caps.vocab)
			return MR_E_RANGE;
	return (int)count;
}

/* What the fields say by themselves, whatever the operation makes of them. */
static int check_fields(const struct mr_sched *s, const struct mr_request *r)
{
	int score = r->op == MR_REQUEST_SCORE, fork = r->op == MR_REQUEST_FORK;

	if (!r->ops || r->op > MR_REQUEST_SCORE || (r->flags & ~FLAGS_KNOWN) ||
	    (r->flags & (MR_REQUEST_CHAT | MR_REQUEST_TOKENS)) ==
		    (MR_REQUEST_CHAT | MR_REQUEST_TOKENS))
		return MR_E_INVALID;
	if (score ? (r->flags & ~(MR_REQUEST_TOKENS | MR_REQUEST_LOGPROBS)) || r->stops.count
		  : r->flags & MR_REQUEST_LOGPROBS)
		return MR_E_INVALID;
	if (fork &&
	    ((r->flags & (MR_REQUEST_CHAT | MR_REQUEST_TOKENS)) || r->text_bytes || r->token_count))
		return MR_E_INVALID;
	if ((r->op == MR_REQUEST_SUBMIT ? r->target : r->prefix) || (!score && r->score_count))
		return MR_E_INVALID;
	if (score ? r->max_tokens : !r->max_tokens && !(r->flags & MR_REQUEST_KEEP))
		return MR_E_INVALID;
	if (!(r->flags & MR_REQUEST_TOKENS) && r->text_bytes > MR_PROMPT_BYTES_MAX)
		return MR_E_TOO_LARGE;
	if (score && (!r->ops->score || !(s->decode->caps.stages & MR_STAGE_SCORE)))
		return MR_E_NOT_SUPPORTED;
	if (r->due_ns && !r->max_tokens) /* no first token to be there */
		return MR_E_INVALID;
	if (r->priority >= MR_RANKS || mr_stops_check(&r->stops))
		return MR_E_RANGE;
	if (r->stops.count && !s->model->tokenizer)
		return MR_E_MODEL;
	if (s->dead)
		return s->dead;
	return mr_sampling_check(&r->sampling, s->decode->caps.vocab);
}

/* Text to ids at @to; @last = the token before it, NONE = it begins the sequence. */
static int encode(const struct mr_sched *s, const struct mr_request *r, uint32_t last, uint32_t *to,
		  uint32_t room)
{
	const struct mr_chat_message message = {"user", r->text, r->text_bytes};

	if (!s->work)
		return MR_E_MODEL;
	if (r->text_bytes == 0)
		return MR_E_INVALID;
	if (!(r->flags & MR_REQUEST_CHAT))
		return mr_encode(s->model->tokenizer, s->work, r->text, r->text_bytes,
				 last == NONE ? MR_ENCODE_START : 0, to, room);
	if (last != NONE)
		return mr_chat_continue(s->model, s->work, last, r->text, r->text_bytes, to, room);
	return mr_chat_encode(s->model, s->work, &message, 1, 1, to, room);
}

/* Whether @tokens and the answer fit, and what KV that is may be the client's. */
static int check_room(struct mr_sched *s, uint32_t tokens, uint32_t answer)
{
	s->wanted = (uint64_t)tokens + answer;
	s->there = s->context;
	if (tokens > s->context || answer > s->context - tokens)
		return MR_E_CONTEXT_FULL;
	s->wanted = blocks_of(tokens + answer);
	s->there = s->client_blocks;
	if (s->client_blocks && blocks_of(tokens + answer) > s->client_blocks)
		return MR_E_QUOTA;
	return 0;
}

/* Input that holds no token (@count 0), or was refused; of text that is too long nobody knows the length. */
static int no_input(struct mr_sched *s, const struct mr_request *r, uint32_t before, int count)
{
	s->wanted = (uint64_t)before + (r->flags & MR_REQUEST_TOKENS ? r->token_count : s->context);
	s->wanted += r->max_tokens;
	s->there = s->context;
	return count ? count : MR_E_INVALID;
}

/*
 * Paused sequences wait for as long as their client likes, so no client may have all the places for them:
 * three quarters, and requests find a sequence whatever is paused.
 */
static int check_keep(const struct mr_sched *s, const struct mr_request *r)
{
	const struct account *a = mr_sched_account_find(s, r->client);
	uint32_t places = s->sequence_count > s->requests ? s->sequence_count - s->requests : 0;

	if (!(r->flags & MR_REQUEST_KEEP) || !a)
		return 0;
	return a->kept >= (places * 3 + 3) / 4 ? MR_E_QUOTA : 0;
}

/*
 * The device stops a slot by itself at the ids of its sampling: the request's, then the model's as far as
 * they fit. Those that do not fit are still stops (decode.c looks at all), they only cost steps.
 */
static void add_model_stops(const struct mr_model *model, struct mr_request *r)
{
	struct mr_sampling *sampling = &r->sampling;

	for (uint32_t i = 0; i < model->stop_count && !(r->flags & MR_REQUEST_IGNORE_EOS); i++)
		if (sampling->stop_count < MR_STOP_TOKENS_MAX)
			sampling->stop[sampling->stop_count++] = model->stop[i];
}

/* @q has @count tokens, and @e works on it from now on. */
static void begin(struct mr_sched *s, struct entry *e, struct sequence *q, uint32_t count,
		  uint32_t more)
{
	q->count = e->input = count;
	q->positions = count + more;
	e->request.token_count = count;
	if ((e->request.flags & MR_REQUEST_KEEP) && !q->kept) {
		q->kept = 1;
		q->account->kept++;
	}
	add_model_stops(s->model, &e->request);
	mr_stops_begin(e);
	mr_sched_accept(s, e, q);
}

static int submit(struct mr_sched *s, struct entry *e)
{
	struct mr_request *r = &e->request;
	const struct prefix *prefix = r->prefix ? mr_sched_prefix_find(s, r->prefix) : NULL;
	uint32_t before = prefix ? prefix->count : 0, room = s->context - before, *swap;
	struct sequence *q;
	int count, status;

	if (r->prefix && !prefix)
		return MR_E_NOT_FOUND;
	if (r->flags & MR_REQUEST_TOKENS) {
		count = check_ids(s, r->tokens, r->token_count, room);
		for (int i = count; before && i-- > 0;)
			r->tokens[before + (uint32_t)i] = r->tokens[i];
	} else {
		/* A conversation goes on after a prefix as after an answer. */
		count = encode(s, r, before ? prefix->tokens[before - 1] : NONE, r->tokens + before,
			       room);
	}
	if (count <= 0)
		return no_input(s, r, before, count);
	status = check_room(s, before + (uint32_t)count, r->max_tokens);
	if (status < 0)
		return status;
	q = mr_sched_sequence_new(s, r->client);
	if (!q)
		return MR_E_FULL;
	/* The ids stay where they are: the buffers change places. */
	swap = q->tokens;
	q->tokens = e->own;
	e->own = swap;
	if (prefix) {
		copy_ids(q->tokens, prefix->tokens, before);
		q->prefix = prefix->name;
		q->prefix_count = before;
	}
	q->history = before + (uint32_t)count - 1;
	q->count = before + (uint32_t)count;
	status = mr_sched_promise(s, q, r->due_ns, 0);
	if (status < 0) {
		mr_sched_sequence_free(s, q);
		return status;
	}
	mr_sched_sequence_name(s, q, r->key);
	begin(s, e, q, q->count, r->max_tokens);
	mr_sched_enqueue(s, q);
	return 0;
}

static int append(struct mr_sched *s, struct entry *e, struct sequence *q)
{
	struct mr_request *r = &e->request;
	uint32_t room = s->context - q->count;
	int count, status;

	if (q->state != PAUSED)
		return MR_E_BUSY;
	if (r->flags & MR_REQUEST_TOKENS)
		count = check_ids(s, r->tokens, r->token_count, room);
	else
		count = encode(s, r, q->tokens[q->count - 1], q->tokens + q->count, room);
	if (count <= 0)
		return no_input(s, r, q->count, count);
	status = check_room(s, q->count + (uint32_t)count, r->max_tokens);
	if (status < 0)
		return status;
	if (r->flags & MR_REQUEST_TOKENS)
		copy_ids(q->tokens + q->count, r->tokens, (uint32_t)count);
	q->count += (uint32_t)count;
	status = mr_sched_promise(s, q, r->due_ns, 0);
	q->count -= (uint32_t)count;
	if (status < 0)
		return status;
	q->history = q->count + (uint32_t)count - 1;
	q->handovers = 0;
	mr_kv_idle(s, q, 0);
	begin(s, e, q, q->count + (uint32_t)count, r->max_tokens);
	e->reused = q->fed;
	mr_sched_enqueue(s, q);
	mr_count(MR_M_sched_appends, 1);
	return 0;
}

/* The continuations' ids one after the other in the entry's own buffer; returns the longest. */
static int take_continuations(struct mr_sched *s, struct entry *e)
{
	struct mr_request *r = &e->request;
	uint32_t bytes = 0, ids = 0, longest = 0;
	int text = !(r->flags & MR_REQUEST_TOKENS);

	if (!r->score_count || r->score_count > MR_SCORE_MAX)
		return MR_E_INVALID;
	for (uint32_t i = 0; i < r->score_count; i++) {
		uint32_t from = i ? bytes : 0, end = r->score_ends[i];
		int count;

		if (end <= from || end > (text ? r->text_bytes : r->token_count))
			return MR_E_RANGE;
		bytes = end;
		if (text && !s->work)
			return MR_E_MODEL;
		count = text ? mr_encode(s->model->tokenizer, s->work, r->text + from, end - from,
					 0, e->own + ids, s->context - ids)
			     : check_ids(s, e->own + from, end - from, s->context - ids);
		if (count <= 0)
			return count ? count : MR_E_INVALID;
		ids += (uint32_t)count;
		r->score_ends[i] = ids;
		longest = (uint32_t)count > longest ? (uint32_t)count : longest;
	}
	if (longest >= s->decode->caps.chunk_max)
		return MR_E_TOO_LARGE;
	return (int)longest;
}

/* FORK and SCORE: a sequence of its own over what @from is now. */
static int branch(struct mr_sched *s, struct entry *e, struct sequence *from)
{
	struct mr_request *r = &e->request;
	int score = r->op == MR_REQUEST_SCORE, more, computed, status;
	struct sequence *q;

	more = score ? take_continuations(s, e) : (int)least(r->max_tokens, INT32_MAX);
	if (more < 0)
		return no_input(s, r, from->count, more);
	status = check_room(s, from->count, (uint32_t)more);
	if (status < 0)
		return status;
	q = mr_sched_sequence_new(s, r->client);
	if (!q)
		return MR_E_FULL;
	copy_ids(q->tokens, from->tokens, from->count);
	q->prefix = from->prefix;
	q->prefix_count = from->prefix_count;
	q->history = from->history;
	q->decoded = from->decoded;
	q->count = from->count;
	computed = from->kv[DEC] && from->fed && from->fed == from->count - 1 &&
		   (from->state == DECODING || from->state == PAUSED);
	status = mr_sched_promise(s, q, r->due_ns, computed);
	if (status < 0) {
		mr_sched_sequence_free(s, q);
		return status;
	}
	if (!score)
		mr_sched_sequence_name(s, q, r->key);
	begin(s, e, q, from->count, (uint32_t)more);
	mr_count(score ? MR_M_sched_scores : MR_M_sched_forks, score ? r->score_count : 1);
	/* Where all of it lies on the decode device, nothing is left to compute. */
	if (computed && mr_kv_fork(s, q, from->kv[DEC], from->fed, q->positions) == 1) {
		e->start_ns = e->prefilled_ns = e->joined_ns = e->submit_ns;
		e->reused = q->written = q->fed = from->fed;
		mr_sched_ready(s, q);
		return 0;
	}
	mr_sched_enqueue(s, q);
	return 0;
}

static int admit(struct mr_sched *s, struct entry *e)
{
	struct mr_request *r = &e->request;
	struct sequence *target;
	int status = check_fields(s, r);

	if (status < 0)
		return status;
	if (mr_sched_find(s, r->client, r->key) || mr_sched_sequence(s, r->client, r->key))
		return MR_E_EXISTS;
	if (r->op != MR_REQUEST_APPEND) {
		status = check_keep(s, r);
		if (status < 0)
			return status;
	}
	if (r->op == MR_REQUEST_SUBMIT)
		return submit(s, e);
	target = mr_sched_sequence(s, r->client, r->target);
	if (!target || target->ending)
		return MR_E_NOT_FOUND;
	return r->op == MR_REQUEST_APPEND ? append(s, e, target) : branch(s, e, target);
}

int mr_sched_submit(struct mr_sched *s, struct mr_request *request)
{
	struct entry *e = (struct entry *)request;
	int status;

	if (!e->filling)
		return MR_E_INVALID;
	status = s->draining ? MR_E_BUSY : admit(s, e);
	if (status < 0) {
		mr_count(MR_M_sched_refused, 1);
		mr_sched_put(s, e);
	}
	return status;
}

void mr_sched_refusal(const struct mr_sched *s, uint64_t *wanted, uint64_t *there)
{
	*wanted = s->wanted;
	*there = s->there;
}

void mr_sched_drain(struct mr_sched *s)
{
	s->draining = 1;
}
