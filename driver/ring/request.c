/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SQEs that become requests of the orchestrator's: SUBMIT, APPEND, FORK, SCORE. What they name in the data
 * area is copied once, into private memory, before anything looks at it; then each is accepted, or refused
 * with its status and field as ring.h lists them. mr_ring_take (sqe.c) calls this for SQEs whose own fields
 * it has checked.
 */
#include <string.h>

#include "driver/mem/copy.h"
#include "driver/ring/internal.h"

_Static_assert(MR_CONTINUATIONS_MAX == MR_SCORE_MAX, "SCORE takes what the orchestrator takes");
_Static_assert(MR_PRIORITY_NORMAL == (int)MR_RANK_NORMAL && MR_PRIORITY_HIGH == (int)MR_RANK_HIGH &&
		       MR_PRIORITY_LOW == (int)MR_RANK_LOW,
	       "priorities are the orchestrator's");

/* Whether [offset, offset + bytes) lies in @area. */
static int inside(const struct ring_area *area, uint64_t offset, uint32_t bytes)
{
	return offset <= area->bytes && bytes <= area->bytes - offset;
}

/* Where an SQE's data are; NULL = in a buffer that is not registered. */
static const struct ring_area *data_of(const struct ring_client *client, const struct mr_sqe *sqe)
{
	const struct ring_area *area =
		sqe->buffer <= MR_BUFFERS_MAX ? &client->areas[sqe->buffer] : NULL;

	return area && area->base ? area : NULL;
}

/* Copies @bytes of @area, a multiple of 8. Relaxed: ordered by SQ_TAKE; each word read once. */
static void copy_words(const struct ring_area *area, uint64_t offset, void *out, uint32_t bytes)
{
	const uint64_t *from = (const uint64_t *)(area->base + offset);
	uint64_t *to = out;

	for (uint32_t i = 0; i < bytes / 8; i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

/* The byte offset of the first word from @known on that is not 0, or 0: what a block grew by must be 0. */
static uint32_t unknown_at(const struct ring_area *area, uint64_t offset, uint32_t known,
			   uint32_t bytes)
{
	const uint64_t *from = (const uint64_t *)(area->base + offset);

	for (uint32_t i = known / 8; i < bytes / 8; i++)
		if (__atomic_load_n(&from[i], __ATOMIC_RELAXED))
			return 8 * i;
	return 0;
}

static int check_data(const struct ring_client *client, const struct mr_sqe *sqe, uint32_t *field)
{
	uint32_t unit = sqe->flags & MR_SUBMIT_TOKENS ? sizeof(uint32_t) : 1;
	const struct ring_area *area = data_of(client, sqe);

	*field = RING_FIELD(flags);
	if ((sqe->flags & MR_SUBMIT_CHAT) && (sqe->flags & MR_SUBMIT_TOKENS))
		return MR_E_INVALID;
	*field = RING_FIELD(data_bytes);
	if (!sqe->data_bytes)
		return MR_E_INVALID;
	if (sqe->data_bytes > MR_PROMPT_BYTES_MAX)
		return MR_E_TOO_LARGE;
	if (sqe->data_bytes % unit)
		return MR_E_RANGE;
	*field = RING_FIELD(buffer);
	if (!area)
		return MR_E_NOT_FOUND;
	*field = RING_FIELD(data_offset);
	if (!inside(area, sqe->data_offset, sqe->data_bytes) ||
	    sqe->data_offset % (sqe->op == MR_OP_SCORE ? 8 : unit))
		return MR_E_RANGE;
	return 0;
}

static int check_stops(const struct mr_sqe *sqe, const struct mr_stops *stops, uint32_t *field)
{
	uint32_t before = 0;

	*field = RING_STOPS(count);
	if (stops->count > MR_STOP_STRINGS_MAX)
		return MR_E_RANGE;
	if (sqe->op == MR_OP_SCORE && stops->count)
		return MR_E_INVALID;
	*field = RING_STOPS(reserved);
	if (stops->reserved)
		return MR_E_INVALID;
	for (uint32_t i = 0; i < MR_STOP_STRINGS_MAX; i++) {
		*field = RING_STOPS(ends) + (uint32_t)sizeof(stops->ends[0]) * i;
		if (i >= stops->count && stops->ends[i])
			return MR_E_INVALID;
		if (i < stops->count &&
		    (stops->ends[i] <= before || stops->ends[i] > MR_STOP_BYTES_MAX))
			return MR_E_RANGE;
		if (i < stops->count)
			before = stops->ends[i];
	}
	for (uint32_t i = before; i < MR_STOP_BYTES_MAX; i++) {
		*field = RING_STOPS(text) + i;
		if (stops->text[i])
			return MR_E_INVALID;
	}
	return 0;
}

static int check_params(const struct ring_client *client, const struct mr_sqe *sqe,
			const struct mr_params *params, uint32_t *field)
{
	static const struct mr_sampling none;
	int score = sqe->op == MR_OP_SCORE;

	*field = RING_PARAM(version);
	if (params->version != MR_PARAMS_VERSION)
		return MR_E_VERSION;
	*field = RING_PARAM(max_tokens);
	if (score && params->max_tokens)
		return MR_E_INVALID;
	if (!score && !params->max_tokens && !(sqe->flags & MR_SUBMIT_KEEP))
		return MR_E_RANGE;
	*field = RING_PARAM(deadline_ns);
	if (params->deadline_ns && !(client->features & MR_FEATURE_DEADLINE))
		return MR_E_NOT_SUPPORTED;
	if (params->deadline_ns && !params->max_tokens)
		return MR_E_INVALID;
	*field = RING_PARAM(itl_ns);
	if (params->itl_ns && !(client->features & MR_FEATURE_ITL))
		return MR_E_NOT_SUPPORTED;
	*field = RING_PARAM(priority);
	if (params->priority && !(client->features & MR_FEATURE_PRIORITY))
		return MR_E_NOT_SUPPORTED;
	if (params->priority > MR_PRIORITY_LOW)
		return MR_E_RANGE;
	*field = RING_PARAM(reserved0);
	if (params->reserved0)
		return MR_E_INVALID;
	*field = RING_PARAM(sampling);
	if (score && memcmp(&params->sampling, &none, sizeof(none)))
		return MR_E_INVALID;
	for (uint32_t i = 0; i < 4; i++) {
		*field = RING_PARAM(reserved) + 8 * i;
		if (params->reserved[i])
			return MR_E_INVALID;
	}
	return 0;
}

/* Stop strings, where the block is long enough for them and the client may have them. */
static int read_stops(const struct ring_client *client, const struct mr_sqe *sqe,
		      struct mr_stops *stops, uint32_t *field)
{
	uint32_t known = sizeof(struct mr_params), at;

	if ((client->features & MR_FEATURE_STOPS) && sqe->params_bytes >= MR_PARAMS_STOPS_BYTES) {
		copy_words(&client->areas[0], sqe->params_offset + known, stops, sizeof(*stops));
		known = MR_PARAMS_STOPS_BYTES;
	}
	at = unknown_at(&client->areas[0], sqe->params_offset, known, sqe->params_bytes);
	if (at) {
		*field = MR_FIELD_PARAMS + at;
		return MR_E_VERSION;
	}
	return check_stops(sqe, stops, field);
}

static int read_params(const struct ring_client *client, const struct mr_sqe *sqe,
		       struct mr_params *params, struct mr_stops *stops, uint32_t *field)
{
	int rc;

	*params = (struct mr_params){.version = MR_PARAMS_VERSION,
				     .max_tokens = sqe->op == MR_OP_SCORE ? 0 : MR_MAX_TOKENS};
	if (!sqe->params_bytes)
		return 0;
	*field = RING_FIELD(params_bytes);
	if (sqe->params_bytes < sizeof(*params))
		return MR_E_TRUNCATED;
	if (sqe->params_bytes > MR_PARAMS_BYTES_MAX)
		return MR_E_TOO_LARGE;
	if (sqe->params_bytes % 8)
		return MR_E_RANGE;
	*field = RING_FIELD(params_offset);
	if (sqe->params_offset % 8 ||
	    !inside(&client->areas[0], sqe->params_offset, sqe->params_bytes))
		return MR_E_RANGE;
	copy_words(&client->areas[0], sqe->params_offset, params, sizeof(*params));
	rc = check_params(client, sqe, params, field);
	return rc ? rc : read_stops(client, sqe, stops, field);
}

/* @units: bytes of text or token ids after the block. */
static int check_ends(const struct mr_continuations *block, uint32_t units, uint32_t *field)
{
	uint32_t before = 0;

	*field = RING_CONTINUATIONS(count);
	if (!block->count || block->count > MR_CONTINUATIONS_MAX)
		return MR_E_RANGE;
	*field = RING_CONTINUATIONS(reserved);
	if (block->reserved)
		return MR_E_INVALID;
	for (uint32_t i = 0; i < MR_CONTINUATIONS_MAX; i++) {
		uint32_t end = block->ends[i], last = i + 1 == block->count;

		*field = RING_CONTINUATIONS(ends) + 4 * i;
		if (i >= block->count && end)
			return MR_E_INVALID;
		if (i < block->count && (end <= before || end > units || (last && end != units)))
			return MR_E_RANGE;
		before = end;
	}
	return 0;
}

/* SCORE's block, with which its data begin; check_data has let them pass. */
static int read_continuations(const struct ring_client *client, const struct mr_sqe *sqe,
			      struct mr_continuations *block, uint32_t *field)
{
	uint32_t unit = sqe->flags & MR_SUBMIT_TOKENS ? sizeof(uint32_t) : 1, at;

	*field = RING_FIELD(data_bytes);
	if (sqe->data_bytes < sizeof(*block))
		return MR_E_TRUNCATED;
	copy_words(data_of(client, sqe), sqe->data_offset, block, sizeof(*block));
	*field = RING_CONTINUATIONS(version);
	if (block->version != MR_CONTINUATIONS_VERSION)
		return MR_E_VERSION;
	*field = RING_CONTINUATIONS(bytes);
	if (block->bytes < sizeof(*block))
		return MR_E_TRUNCATED;
	if (block->bytes % 8 || block->bytes > sqe->data_bytes)
		return MR_E_RANGE;
	at = unknown_at(data_of(client, sqe), sqe->data_offset, sizeof(*block), block->bytes);
	if (at) {
		*field = MR_FIELD_CONTINUATIONS + at;
		return MR_E_VERSION;
	}
	return check_ends(block, (sqe->data_bytes - block->bytes) / unit, field);
}

/* The one copy of the input. Token ids are checked where they lie then, in private memory. */
static int copy_input(const struct ring_client *client, const struct mr_sqe *sqe, uint32_t skip,
		      struct mr_request *request)
{
	const struct mr_ring_server *server = client->server;
	const unsigned char *from = data_of(client, sqe)->base + sqe->data_offset + skip;
	uint32_t bytes = sqe->data_bytes - skip, count = bytes / (uint32_t)sizeof(uint32_t);
	int ids = sqe->flags & MR_SUBMIT_TOKENS;

	if (ids && count > mr_sched_context(server->options.sched))
		return MR_E_CONTEXT_FULL;
	mr_copy(MR_COPY_PROMPT_RING, ids ? (void *)request->tokens : (void *)request->text, from,
		bytes);
	request->copies[MR_COPY_PROMPT_RING - MR_COPY_SITES_FIRST] += bytes;
	request->text_bytes = ids ? 0 : bytes;
	request->token_count = ids ? count : 0;
	for (uint32_t i = 0; ids && server->vocab_count && i < count; i++)
		if (request->tokens[i] >= server->vocab_count)
			return MR_E_RANGE;
	return 0;
}

static uint32_t request_flags(uint16_t flags)
{
	return (flags & MR_SUBMIT_CHAT ? MR_REQUEST_CHAT : 0) |
	       (flags & MR_SUBMIT_TOKENS ? MR_REQUEST_TOKENS : 0) |
	       (flags & MR_SUBMIT_IGNORE_EOS ? MR_REQUEST_IGNORE_EOS : 0) |
	       (flags & MR_SUBMIT_KEEP ? MR_REQUEST_KEEP : 0) |
	       (flags & MR_SCORE_LOGPROBS ? MR_REQUEST_LOGPROBS : 0);
}

static enum mr_request_op request_op(uint16_t op)
{
	return op == MR_OP_APPEND  ? MR_REQUEST_APPEND
	       : op == MR_OP_FORK  ? MR_REQUEST_FORK
	       : op == MR_OP_SCORE ? MR_REQUEST_SCORE
				   : MR_REQUEST_SUBMIT;
}

static void fill(struct ring_client *client, const struct mr_sqe *sqe,
		 const struct mr_params *params, const struct mr_stops *stops,
		 struct mr_request *request)
{
	request->ops = &mr_ring_front_ops;
	request->front = client;
	request->client = client->id;
	request->key = sqe->key;
	request->op = request_op(sqe->op);
	if (sqe->op == MR_OP_SUBMIT)
		request->prefix = sqe->target;
	else
		request->target = sqe->target;
	request->flags = request_flags(sqe->flags);
	request->max_tokens = params->max_tokens;
	request->itl_ns = params->itl_ns;
	request->due_ns = params->deadline_ns;
	request->priority = params->priority;
	request->sampling = params->sampling;
	request->stops = *stops;
}

/* The field behind what the orchestrator says of a request that passed the checks above. */
static uint32_t blamed(const struct ring_client *client, const struct mr_sqe *sqe, int status)
{
	struct mr_sequence_info info;

	switch (status) {
	case MR_E_RANGE:
		return sqe->op == MR_OP_SCORE ? RING_FIELD(data_offset) : RING_PARAM(sampling);
	case MR_E_DEADLINE:
		return RING_PARAM(deadline_ns);
	case MR_E_EXISTS:
		return RING_FIELD(key);
	case MR_E_NOT_FOUND:
		return RING_FIELD(target);
	case MR_E_TOO_LARGE:
		return RING_FIELD(data_bytes);
	case MR_E_BUSY: /* its target's doing, unless the orchestrator takes nothing from anybody */
		if (sqe->op != MR_OP_APPEND)
			return 0;
		mr_sched_query(client->server->options.sched, client->id, sqe->target, &info);
		return info.state == MR_SEQUENCE_PAUSED ? 0 : RING_FIELD(target);
	default:
		return 0;
	}
}

/* All that the SQE names but its input, into private memory. */
static int read_blocks(const struct ring_client *client, const struct mr_sqe *sqe,
		       struct mr_params *params, struct mr_stops *stops,
		       struct mr_continuations *block, uint32_t *field)
{
	int rc = sqe->op == MR_OP_FORK ? 0 : check_data(client, sqe, field);

	if (!rc)
		rc = read_params(client, sqe, params, stops, field);
	if (!rc && sqe->op == MR_OP_SCORE)
		rc = read_continuations(client, sqe, block, field);
	return rc;
}

void mr_ring_request(struct ring_client *client, const struct mr_sqe *sqe)
{
	struct mr_sched *sched = client->server->options.sched;
	struct mr_continuations block = {0};
	struct mr_request *request;
	struct mr_stops stops = {0};
	struct mr_params params;
	uint64_t wanted = 0, there = 0;
	uint32_t slot, field = 0;
	int rc = read_blocks(client, sqe, &params, &stops, &block, &field);

	if (rc) {
		mr_ring_refuse(client, sqe, rc, field);
		return;
	}
	request = client->live_count == client->requests_max ? NULL : mr_sched_request(sched);
	if (!request) {
		mr_ring_refuse(client, sqe,
			       client->live_count == client->requests_max ? MR_E_QUOTA : MR_E_FULL,
			       0);
		return;
	}
	rc = sqe->op == MR_OP_FORK ? 0 : copy_input(client, sqe, block.bytes, request);
	if (rc) {
		mr_sched_abandon(sched, request);
		if (rc == MR_E_CONTEXT_FULL) {
			wanted = sqe->data_bytes / sizeof(uint32_t);
			there = mr_sched_context(sched);
		}
		mr_ring_refuse_for(client, sqe, rc, RING_FIELD(data_offset), wanted, there);
		return;
	}
	fill(client, sqe, &params, &stops, request);
	request->score_count = block.count;
	for (uint32_t i = 0; i < block.count; i++)
		request->score_ends[i] = block.ends[i];
	slot = mr_ring_slot_take(client);
	request->front_word[0] = slot;
	rc = mr_sched_submit(sched, request);
	if (rc) {
		mr_ring_slot_give(client, slot);
		if (rc == MR_E_CONTEXT_FULL || rc == MR_E_QUOTA || rc == MR_E_DEADLINE)
			mr_sched_refusal(sched, &wanted, &there);
		mr_ring_refuse_for(client, sqe, rc, blamed(client, sqe, rc), wanted, there);
	}
}
