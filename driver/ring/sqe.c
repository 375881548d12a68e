/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One SQE, from a private copy of hostile bytes to a request of the orchestrator's, or to its exact
 * refusal: the status and the field, as ring.h lists them. What the SQE names in the data area is copied
 * once, into private memory, before anything looks at it.
 */
#include "driver/mem/copy.h"
#include "driver/ring/internal.h"

#define FIELD(name)       ((uint32_t)offsetof(struct mr_sqe, name))
#define PARAM_FIELD(name) (MR_FIELD_PARAMS + (uint32_t)offsetof(struct mr_params, name))

/* Which fields an operation uses, and whether it is built; in order of enum mr_op. */
static const struct {
	uint16_t flags; /* known */
	uint8_t data, params, target, built;
} rules[MR_OP_COUNT] = {
	[MR_OP_NOP] = {.built = 1},
	[MR_OP_SUBMIT] = {.flags = MR_SUBMIT_KNOWN, .data = 1, .params = 1, .built = 1},
	[MR_OP_CANCEL] = {.target = 1, .built = 1},
	[MR_OP_RELEASE] = {.target = 1, .built = 1},
};

static void refuse(struct ring_client *client, const struct mr_sqe *sqe, int status, uint32_t field)
{
	switch (status) {
	case MR_E_RANGE:
		mr_count(MR_M_ring_bad_range, 1);
		break;
	case MR_E_NOT_SUPPORTED:
	case MR_E_VERSION:
	case MR_E_INVALID:
	case MR_E_TRUNCATED:
	case MR_E_TOO_LARGE:
		mr_count(MR_M_ring_bad_sqe, 1);
		break;
	default:
		mr_count(MR_M_ring_refused, 1);
	}
	mr_ring_cq_answer(client, sqe, status, field);
}

/* Whether [offset, offset + bytes) lies in the client's data area. */
static int inside(const struct ring_client *client, uint64_t offset, uint32_t bytes)
{
	return offset <= client->mem.data_bytes && bytes <= client->mem.data_bytes - offset;
}

/* The checks that are the same for all operations. Returns 0 or a status, and then *@field. */
static int check(const struct mr_sqe *sqe, uint32_t *field)
{
	*field = FIELD(op);
	if (sqe->op >= MR_OP_COUNT || !rules[sqe->op].built)
		return MR_E_NOT_SUPPORTED;
	*field = FIELD(flags);
	if (sqe->flags & ~rules[sqe->op].flags)
		return MR_E_VERSION;
	*field = FIELD(reserved[0]);
	if (sqe->reserved[0])
		return MR_E_INVALID;
	*field = FIELD(reserved[1]);
	if (sqe->reserved[1])
		return MR_E_INVALID;
	*field = FIELD(data_offset);
	if (!rules[sqe->op].data && sqe->data_offset)
		return MR_E_INVALID;
	*field = FIELD(data_bytes);
	if (!rules[sqe->op].data && sqe->data_bytes)
		return MR_E_INVALID;
	*field = FIELD(params_bytes);
	if (!rules[sqe->op].params && sqe->params_bytes)
		return MR_E_INVALID;
	*field = FIELD(params_offset);
	if ((!rules[sqe->op].params || !sqe->params_bytes) && sqe->params_offset)
		return MR_E_INVALID;
	*field = FIELD(target);
	if (!rules[sqe->op].target && sqe->target)
		return MR_E_INVALID;
	*field = 0;
	return 0;
}

static int check_prompt(const struct ring_client *client, const struct mr_sqe *sqe, uint32_t *field)
{
	*field = FIELD(flags);
	if (sqe->flags & MR_SUBMIT_KEEP)
		return MR_E_NOT_SUPPORTED;
	if ((sqe->flags & MR_SUBMIT_CHAT) && (sqe->flags & MR_SUBMIT_TOKENS))
		return MR_E_INVALID;
	*field = FIELD(data_bytes);
	if (!sqe->data_bytes)
		return MR_E_INVALID;
	if (sqe->data_bytes > MR_PROMPT_BYTES_MAX)
		return MR_E_TOO_LARGE;
	if ((sqe->flags & MR_SUBMIT_TOKENS) && sqe->data_bytes % sizeof(uint32_t))
		return MR_E_RANGE;
	*field = FIELD(data_offset);
	if (!inside(client, sqe->data_offset, sqe->data_bytes))
		return MR_E_RANGE;
	if ((sqe->flags & MR_SUBMIT_TOKENS) && sqe->data_offset % sizeof(uint32_t))
		return MR_E_RANGE;
	*field = 0;
	return 0;
}

static int check_params(const struct mr_params *params, uint32_t *field)
{
	*field = PARAM_FIELD(version);
	if (params->version != MR_PARAMS_VERSION)
		return MR_E_VERSION;
	*field = PARAM_FIELD(max_tokens);
	if (!params->max_tokens)
		return MR_E_RANGE;
	*field = PARAM_FIELD(deadline_ns);
	if (params->deadline_ns)
		return MR_E_NOT_SUPPORTED;
	*field = PARAM_FIELD(itl_ns);
	if (params->itl_ns)
		return MR_E_NOT_SUPPORTED;
	*field = PARAM_FIELD(priority);
	if (params->priority)
		return MR_E_NOT_SUPPORTED;
	*field = PARAM_FIELD(reserved0);
	if (params->reserved0)
		return MR_E_INVALID;
	for (uint32_t i = 0; i < 4; i++) {
		*field = PARAM_FIELD(reserved) + 8 * i;
		if (params->reserved[i])
			return MR_E_INVALID;
	}
	*field = 0;
	return 0;
}

/* Copies the parameter block out, word by word so that each is read once; the rest must be 0. */
static int read_params(const struct ring_client *client, const struct mr_sqe *sqe,
		       struct mr_params *params, uint32_t *field)
{
	const uint64_t *from;
	uint64_t *to = (uint64_t *)params;
	uint32_t known = sizeof(*params) / 8;

	*params = (struct mr_params){.version = MR_PARAMS_VERSION, .max_tokens = MR_MAX_TOKENS};
	if (!sqe->params_bytes)
		return 0;
	*field = FIELD(params_bytes);
	if (sqe->params_bytes < sizeof(*params))
		return MR_E_TRUNCATED;
	if (sqe->params_bytes > MR_PARAMS_BYTES_MAX)
		return MR_E_TOO_LARGE;
	if (sqe->params_bytes % 8)
		return MR_E_RANGE;
	*field = FIELD(params_offset);
	if (sqe->params_offset % 8 || !inside(client, sqe->params_offset, sqe->params_bytes))
		return MR_E_RANGE;
	from = (const uint64_t *)(client->mem.data + sqe->params_offset);
	/* Relaxed: ordered by SQ_TAKE; atomic so that the compiler reads each word once. */
	for (uint32_t i = 0; i < known; i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
	for (uint32_t i = known; i < sqe->params_bytes / 8; i++) {
		*field = MR_FIELD_PARAMS + 8 * i;
		if (__atomic_load_n(&from[i], __ATOMIC_RELAXED))
			return MR_E_VERSION;
	}
	return check_params(params, field);
}

/* The one copy of the prompt. Token ids are checked where they lie then, in private memory. */
static int copy_prompt(const struct ring_client *client, const struct mr_sqe *sqe,
		       struct mr_request *request)
{
	const struct mr_ring_server *server = client->server;
	const unsigned char *from = client->mem.data + sqe->data_offset;
	uint32_t count = sqe->data_bytes / (uint32_t)sizeof(uint32_t);
	int ids = sqe->flags & MR_SUBMIT_TOKENS;

	if (ids && count > mr_sched_context(server->options.sched))
		return MR_E_CONTEXT_FULL;
	mr_copy(MR_COPY_PROMPT_RING, ids ? (void *)request->tokens : (void *)request->text, from,
		sqe->data_bytes);
	request->copies[MR_COPY_PROMPT_RING - MR_COPY_SITES_FIRST] += sqe->data_bytes;
	request->text_bytes = ids ? 0 : sqe->data_bytes;
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
	       (flags & MR_SUBMIT_IGNORE_EOS ? MR_REQUEST_IGNORE_EOS : 0);
}

/* The field behind what the orchestrator says of a request that passed the checks above. */
static uint32_t blamed(int status)
{
	switch (status) {
	case MR_E_RANGE:
		return PARAM_FIELD(sampling);
	case MR_E_EXISTS:
		return FIELD(key);
	default:
		return 0;
	}
}

static void submit(struct ring_client *client, const struct mr_sqe *sqe)
{
	struct mr_sched *sched = client->server->options.sched;
	struct mr_request *request;
	struct mr_params params;
	uint32_t slot, field = 0;
	int rc;

	rc = check_prompt(client, sqe, &field);
	if (!rc)
		rc = read_params(client, sqe, &params, &field);
	if (!rc && client->live_count == client->requests_max)
		rc = MR_E_QUOTA;
	request = rc ? NULL : mr_sched_request(sched);
	if (!request) {
		refuse(client, sqe, rc ? rc : MR_E_FULL, field);
		return;
	}
	rc = copy_prompt(client, sqe, request);
	if (rc) {
		mr_sched_abandon(sched, request);
		refuse(client, sqe, rc, FIELD(data_offset));
		return;
	}
	slot = mr_ring_slot_take(client, sqe->key);
	request->ops = &mr_ring_front_ops;
	request->front = client;
	request->front_word[0] = slot;
	request->client = client->id;
	request->key = sqe->key;
	request->flags = request_flags(sqe->flags);
	request->max_tokens = params.max_tokens;
	request->sampling = params.sampling;
	rc = mr_sched_submit(sched, request);
	if (rc) {
		mr_ring_slot_give(client, slot);
		refuse(client, sqe, rc, blamed(rc));
	}
}

void mr_ring_take(struct ring_client *client, const struct mr_sqe *sqe)
{
	struct mr_sched *sched = client->server->options.sched;
	uint32_t field;
	int rc;

	mr_count(MR_M_ring_sqe, 1);
	rc = check(sqe, &field);
	if (!rc && sqe->op != MR_OP_NOP && !sched) {
		field = FIELD(op);
		rc = MR_E_NOT_SUPPORTED;
	}
	if (rc) {
		refuse(client, sqe, rc, field);
		return;
	}
	switch (sqe->op) {
	case MR_OP_SUBMIT:
		submit(client, sqe);
		return;
	case MR_OP_CANCEL:
	case MR_OP_RELEASE: /* no sequence outlives its request yet, so both end a request */
		rc = mr_sched_cancel(sched, client->id, sqe->target);
		if (rc) {
			refuse(client, sqe, rc, FIELD(target));
			return;
		}
		break;
	default:
		break;
	}
	mr_ring_cq_answer(client, sqe, 0, 0);
}
