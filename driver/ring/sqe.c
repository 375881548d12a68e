/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One SQE, from a private copy of hostile bytes to what it asks for, or to its exact refusal: the status and
 * the field, as ring.h lists them. Operations that are answered at once are done here; those that become
 * requests go on in request.c.
 */
#include "driver/ring/internal.h"

_Static_assert(MR_STATE_QUEUED == (int)MR_SEQUENCE_QUEUED &&
		       MR_STATE_PREFILLING == (int)MR_SEQUENCE_PREFILLING &&
		       MR_STATE_HANDOVER == (int)MR_SEQUENCE_HANDOVER &&
		       MR_STATE_DECODING == (int)MR_SEQUENCE_DECODING &&
		       MR_STATE_PAUSED == (int)MR_SEQUENCE_PAUSED,
	       "QUERY gives the orchestrator's states as they are");

/* Which feature an operation needs and which fields it uses; in order of enum mr_op. */
static const struct {
	uint64_t feature; /* 0 = none */
	uint16_t flags;   /* known */
	uint8_t data, params, target;
} rules[MR_OP_COUNT] = {
	[MR_OP_NOP] = {0},
	[MR_OP_SUBMIT] = {0, MR_SUBMIT_KNOWN, 1, 1, 0},
	[MR_OP_APPEND] = {MR_FEATURE_APPEND, MR_SUBMIT_KNOWN, 1, 1, 1},
	[MR_OP_FORK] = {MR_FEATURE_FORK, MR_SUBMIT_IGNORE_EOS | MR_SUBMIT_KEEP, 0, 1, 1},
	[MR_OP_SCORE] = {MR_FEATURE_SCORE, MR_SUBMIT_TOKENS | MR_SCORE_LOGPROBS, 1, 1, 1},
	[MR_OP_PREFIX] = {MR_FEATURE_PREFIX, 0, 0, 0, 1},
	[MR_OP_CANCEL] = {0, 0, 0, 0, 1},
	[MR_OP_RELEASE] = {0, 0, 0, 0, 1},
	[MR_OP_QUERY] = {MR_FEATURE_QUERY, 0, 0, 0, 1},
};

uint64_t mr_ring_features_of(const struct mr_sched *sched)
{
	uint64_t scores = MR_FEATURE_SCORE | MR_FEATURE_LOGPROBS;

	if (!sched)
		return 0;
	return MR_FEATURE_APPEND | MR_FEATURE_FORK | MR_FEATURE_PREFIX | MR_FEATURE_QUERY |
	       MR_FEATURE_KEEP | MR_FEATURE_ITL | MR_FEATURE_STOPS | MR_FEATURE_PRIORITY |
	       MR_FEATURE_DEADLINE | MR_FEATURE_BUFFERS | (mr_sched_scores(sched) ? scores : 0);
}

static uint32_t clip(uint64_t n)
{
	return n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

void mr_ring_refuse(struct ring_client *client, const struct mr_sqe *sqe, int status,
		    uint32_t field)
{
	mr_ring_refuse_for(client, sqe, status, field, 0, 0);
}

void mr_ring_refuse_for(struct ring_client *client, const struct mr_sqe *sqe, int status,
			uint32_t field, uint64_t wanted, uint64_t there)
{
	struct mr_cqe cqe = {.type = MR_CQE_ERROR,
			     .op = (uint8_t)sqe->op,
			     .key = sqe->key,
			     .status = status,
			     .token = field};

	if (status == MR_E_DEADLINE) {
		cqe.seen_ns = there;
	} else {
		cqe.position = clip(wanted);
		cqe.index = clip(there);
	}
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
	mr_ring_cq_write(client, &cqe);
}

/* Whether the operation uses `target`: SUBMIT has a prefix there, for those who may. */
static int has_target(const struct ring_client *client, uint16_t op)
{
	return rules[op].target || (op == MR_OP_SUBMIT && (client->features & MR_FEATURE_PREFIX));
}

/* The checks that are the same for all operations. Returns 0 or a status, and then *@field. */
static int check(const struct ring_client *client, const struct mr_sqe *sqe, uint32_t *field)
{
	*field = RING_FIELD(op);
	if (sqe->op >= MR_OP_COUNT || (rules[sqe->op].feature & ~client->features))
		return MR_E_NOT_SUPPORTED;
	*field = RING_FIELD(flags);
	if (sqe->flags & ~rules[sqe->op].flags)
		return MR_E_VERSION;
	if (((sqe->flags & MR_SUBMIT_KEEP) && !(client->features & MR_FEATURE_KEEP)) ||
	    ((sqe->flags & MR_SCORE_LOGPROBS) && !(client->features & MR_FEATURE_LOGPROBS)))
		return MR_E_NOT_SUPPORTED;
	*field = RING_FIELD(buffer);
	if (sqe->buffer && (!rules[sqe->op].data || !(client->features & MR_FEATURE_BUFFERS)))
		return MR_E_INVALID;
	*field = RING_FIELD(reserved);
	if (sqe->reserved)
		return MR_E_INVALID;
	*field = RING_FIELD(data_offset);
	if (!rules[sqe->op].data && sqe->data_offset)
		return MR_E_INVALID;
	*field = RING_FIELD(data_bytes);
	if (!rules[sqe->op].data && sqe->data_bytes)
		return MR_E_INVALID;
	*field = RING_FIELD(params_bytes);
	if (!rules[sqe->op].params && sqe->params_bytes)
		return MR_E_INVALID;
	*field = RING_FIELD(params_offset);
	if ((!rules[sqe->op].params || !sqe->params_bytes) && sqe->params_offset)
		return MR_E_INVALID;
	*field = RING_FIELD(target);
	if (!has_target(client, sqe->op) && sqe->target)
		return MR_E_INVALID;
	*field = 0;
	return 0;
}

static void query(struct ring_client *client, const struct mr_sqe *sqe)
{
	const struct mr_sched *sched = client->server->options.sched;
	struct mr_cqe cqe = {.type = MR_CQE_DONE, .op = MR_OP_QUERY, .key = sqe->key};
	struct mr_sequence_info info;

	if (!sqe->target) {
		cqe.position = mr_sched_active(sched);
		cqe.index = client->live_count;
		cqe.cycles = mr_sched_client_blocks(sched, client->id);
	} else if (mr_sched_query(sched, client->id, sqe->target, &info)) {
		mr_ring_refuse(client, sqe, MR_E_NOT_FOUND, RING_FIELD(target));
		return;
	} else {
		cqe.sequence = info.owner;
		cqe.generation = 1;
		cqe.token = info.state;
		cqe.position = info.tokens;
		cqe.index = info.positions;
		cqe.cycles = info.blocks;
	}
	mr_ring_cq_write(client, &cqe);
}

static void name_prefix(struct ring_client *client, const struct mr_sqe *sqe)
{
	int rc = mr_sched_prefix(client->server->options.sched, client->id, sqe->target, sqe->key);

	if (rc)
		mr_ring_refuse(client, sqe, rc,
			       rc == MR_E_NOT_FOUND                      ? RING_FIELD(target)
			       : rc == MR_E_EXISTS || rc == MR_E_INVALID ? RING_FIELD(key)
									 : 0);
	else
		mr_ring_cq_done(client, sqe);
}

uint32_t mr_ring_room_of(const struct mr_sqe *sqe)
{
	return sqe->op >= MR_OP_SUBMIT && sqe->op <= MR_OP_SCORE ? RING_REQUEST_ROOM : 1;
}

/* The slot of the request that a CANCEL or RELEASE ends, while a CQE is set aside for that; or NULL. */
static struct ring_slot *slot_ended(struct ring_client *client, const struct mr_sqe *sqe)
{
	const struct mr_request *request = mr_sched_ends(client->server->options.sched, client->id,
							 sqe->target, sqe->op == MR_OP_RELEASE);
	struct ring_slot *slot = request ? &client->slots[request->front_word[0]] : NULL;

	return slot && slot->cancel ? slot : NULL;
}

/* CANCEL and RELEASE. */
static void end_target(struct ring_client *client, const struct mr_sqe *sqe)
{
	struct mr_sched *sched = client->server->options.sched;
	struct ring_slot *slot = slot_ended(client, sqe);
	int rc = sqe->op == MR_OP_CANCEL ? mr_sched_cancel(sched, client->id, sqe->target)
					 : mr_sched_release(sched, client->id, sqe->target);

	/* What was set aside for this answer is its own now. */
	if (slot) {
		slot->cancel = 0;
		client->cancels--;
	}
	if (rc)
		mr_ring_refuse(client, sqe, rc, RING_FIELD(target));
	else
		mr_ring_cq_done(client, sqe);
}

void mr_ring_take(struct ring_client *client, const struct mr_sqe *sqe)
{
	uint32_t field;
	int rc;

	mr_count(MR_M_ring_sqe, 1);
	rc = check(client, sqe, &field);
	if (!rc && sqe->op != MR_OP_NOP && !client->server->options.sched) {
		field = RING_FIELD(op);
		rc = MR_E_NOT_SUPPORTED;
	}
	if (rc) {
		mr_ring_refuse(client, sqe, rc, field);
		return;
	}
	switch (sqe->op) {
	case MR_OP_SUBMIT:
	case MR_OP_APPEND:
	case MR_OP_FORK:
	case MR_OP_SCORE:
		mr_ring_request(client, sqe);
		break;
	case MR_OP_PREFIX:
		name_prefix(client, sqe);
		break;
	case MR_OP_CANCEL:
	case MR_OP_RELEASE:
		end_target(client, sqe);
		break;
	case MR_OP_QUERY:
		query(client, sqe);
		break;
	default:
		mr_ring_cq_done(client, sqe);
	}
}

int mr_ring_take_ahead(struct ring_client *client, const struct mr_sqe *sqe)
{
	uint32_t field;

	if ((sqe->op != MR_OP_CANCEL && sqe->op != MR_OP_RELEASE) ||
	    !client->server->options.sched || check(client, sqe, &field) ||
	    !slot_ended(client, sqe))
		return 0;
	mr_count(MR_M_ring_sqe, 1);
	mr_count(MR_M_ring_ahead, 1);
	end_target(client, sqe);
	return 1;
}
