/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing CQEs, and never one that has no room. An entry of the queue is the client's (written, not
 * returned by cq_head yet), set aside for the one DONE or ERROR of a request under way or for that of the
 * CANCEL or RELEASE which ends it, promised to a request's tokens or scores, or unclaimed. An SQE is taken
 * only when an entry is unclaimed, which is then its answer's, or two where it may become a request; and the
 * orchestrator makes for a request no more tokens or scores than it was promised. So whatever a client does
 * with cq_head, no answer is made that cannot be delivered, each request can be cancelled, and nobody else
 * waits.
 */
#include <sys/eventfd.h>

#include "driver/ring/internal.h"
#include "driver/trace.h"

/* The most tokens promised to one request: the steps that a DECODE may make ahead of the client. */
#define PROMISE_MAX 8u

/* CQ_ROOM: takes the client's cq_head over if it is one that a client can have. */
static void look_at_credit(struct ring_client *client)
{
	uint32_t head = __atomic_load_n(&client->mem.header->cq_head, __ATOMIC_ACQUIRE);

	/* Neither back nor beyond what was written. */
	if (client->cq_index - head <= client->cq_index - client->cq_head)
		client->cq_head = head;
	else
		client->broken = 1;
}

uint32_t mr_ring_cq_unclaimed(const struct ring_client *client)
{
	return client->mem.cq_mask + 1 - (client->cq_index - client->cq_head) - client->live_count -
	       client->cancels - client->promised;
}

uint32_t mr_ring_cq_room(struct ring_client *client, uint32_t want)
{
	if (mr_ring_cq_unclaimed(client) < want)
		look_at_credit(client);
	return mr_ring_cq_unclaimed(client);
}

void mr_ring_cq_stall(struct ring_client *client)
{
	if (!client->stalled)
		mr_count(MR_M_ring_cq_full, 1);
	client->stalled = 1;
	client->stalled_head = client->cq_head;
}

int mr_ring_cq_moved(struct ring_client *client)
{
	look_at_credit(client);
	return client->broken || client->cq_head != client->stalled_head;
}

void mr_ring_cq_write(struct ring_client *client, const struct mr_cqe *cqe)
{
	uint32_t index = client->cq_index++;
	struct mr_cqe *to = &client->mem.cq[index & client->mem.cq_mask];

	to->type = cqe->type;
	to->flags = cqe->flags;
	to->key = cqe->key;
	to->status = cqe->status;
	to->sequence = cqe->sequence;
	to->generation = cqe->generation;
	to->position = cqe->position;
	to->token = cqe->token;
	to->logprob = cqe->logprob;
	to->index = cqe->index;
	to->op = cqe->op;
	to->ended = cqe->ended;
	to->device = cqe->device;
	to->seen_ns = cqe->seen_ns;
	to->cycles = cqe->cycles;
	__atomic_store_n(&to->published, index + 1, __ATOMIC_RELEASE); /* CQ_PUBLISH */
	client->owed |= MR_WAKEUP_ENTRY;
	mr_count(MR_M_ring_cqe, 1);
}

void mr_ring_cq_done(struct ring_client *client, const struct mr_sqe *sqe)
{
	const struct mr_cqe cqe = {.type = MR_CQE_DONE, .op = (uint8_t)sqe->op, .key = sqe->key};

	mr_ring_cq_write(client, &cqe);
}

void mr_ring_cq_wake(struct ring_client *client)
{
	uint32_t *word = &client->mem.header->cq_need_wakeup;
	uint32_t owed = client->owed;

	client->owed = 0;
	mr_ring_full_fence(); /* CQ_WAKE */
	/* Relaxed: the fence orders it; nothing is read on the strength of it. */
	if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & owed))
		return;
	__atomic_store_n(word, 0, __ATOMIC_RELAXED);
	/* Cannot block: a client that filled the counter itself is awake for that reason. */
	(void)!eventfd_write(client->cq_fd, 1);
	mr_count(MR_M_ring_wakeups, 1);
}

/* ---- what the orchestrator calls; front is the client, front_word[0] the slot ---- */

/*
 * A request's part of the queue: half of it shared by all, so that SQEs and slow starters find room, and of
 * the smallest queues what is left beside all that is set aside and room for one request more.
 */
static uint32_t fair_part(const struct ring_client *client)
{
	uint32_t entries = client->mem.cq_mask + 1, live = client->live_count;
	uint32_t left = entries - RING_REQUEST_ROOM * (live + 1);
	uint32_t part = (left < entries / 2 ? left : entries / 2) / live;

	return part > PROMISE_MAX ? PROMISE_MAX : part ? part : 1;
}

/*
 * Tops the request's promise up to its part, or takes back what is more than that: no DECODE with it is
 * under way when the orchestrator asks. Room for one more SQE is never promised.
 */
static uint32_t credit(void *front, const struct mr_request *request)
{
	struct ring_client *client = front;
	struct ring_slot *slot = &client->slots[request->front_word[0]];
	uint32_t part, room;

	if (client->dead)
		return UINT32_MAX; /* it is being cancelled; its tokens go nowhere */
	part = fair_part(client);
	client->promised -= slot->promised;
	room = mr_ring_cq_room(client, part + RING_REQUEST_ROOM);
	room = room > RING_REQUEST_ROOM ? room - RING_REQUEST_ROOM : 0;
	slot->promised = room < part ? room : part;
	client->promised += slot->promised;
	if (!slot->promised)
		mr_ring_cq_stall(client);
	return slot->promised;
}

/* A CQE of @request's with what all of them have. */
static struct mr_cqe about(const struct mr_request *request, uint16_t type)
{
	static const uint8_t ops[] = {[MR_REQUEST_SUBMIT] = MR_OP_SUBMIT,
				      [MR_REQUEST_APPEND] = MR_OP_APPEND,
				      [MR_REQUEST_FORK] = MR_OP_FORK,
				      [MR_REQUEST_SCORE] = MR_OP_SCORE};

	return (struct mr_cqe){.type = type,
			       .op = ops[request->op],
			       .key = request->key,
			       .sequence = request->owner,
			       .generation = 1};
}

/* Writes a CQE out of the request's promise; 1 = written. */
static int redeem(struct ring_client *client, const struct mr_request *request,
		  const struct mr_cqe *cqe)
{
	struct ring_slot *slot = &client->slots[request->front_word[0]];

	if (client->dead)
		return 0;
	if (!slot->promised) {
		slot->overrun = 1;
		mr_count(MR_M_ring_overrun, 1);
		return 0;
	}
	slot->promised--;
	client->promised--;
	mr_ring_cq_write(client, cqe);
	return 1;
}

static void token(void *front, struct mr_request *request, const struct mr_token *token)
{
	struct mr_cqe cqe = about(request, MR_CQE_TOKEN);

	cqe.position = token->position;
	cqe.token = token->token;
	cqe.logprob = token->logprob;
	cqe.flags = token->late ? MR_CQE_LATE : 0;
	cqe.index = token->index;
	cqe.seen_ns = token->seen_ns;
	cqe.cycles = token->cycles;
	if (redeem(front, request, &cqe))
		mr_trace(MR_T_egress, request->owner, MR_TRACE_NO_DEVICE, 1);
}

static void score(void *front, struct mr_request *request, const struct mr_score *score)
{
	struct ring_client *client = front;
	struct mr_cqe cqe = about(request, MR_CQE_SCORE);

	cqe.position = request->token_count;
	cqe.token = score->tokens;
	cqe.logprob = (float)score->logprob;
	cqe.index = score->index;
	client->slots[request->front_word[0]].scored += (uint32_t)redeem(client, request, &cqe);
}

static uint8_t ended(enum mr_finish finish)
{
	switch (finish) {
	case MR_FINISH_STOP:
		return MR_ENDED_STOP;
	case MR_FINISH_LENGTH:
		return MR_ENDED_LENGTH;
	case MR_FINISH_CANCEL:
		return MR_ENDED_CANCEL;
	default:
		return MR_ENDED_ERROR;
	}
}

static void end(void *front, struct mr_request *request, const struct mr_end *end)
{
	struct ring_client *client = front;
	uint32_t index = (uint32_t)request->front_word[0];
	struct ring_slot *slot = &client->slots[index];
	int status = slot->overrun ? MR_E_FULL : end->status;
	struct mr_cqe cqe = about(request, status ? MR_CQE_ERROR : MR_CQE_DONE);

	cqe.ended = slot->overrun      ? MR_ENDED_ERROR
		    : end->stop_string ? MR_ENDED_STOP_STRING
				       : ended(end->finish);
	cqe.token = end->stop_string ? end->stop_string - 1 : 0;
	cqe.status = status;
	cqe.flags = end->late ? MR_CQE_LATE : 0;
	cqe.position = end->prompt_tokens + end->tokens;
	cqe.index = end->tokens + slot->scored;
	if (status == MR_E_KV_EXHAUSTED || status == MR_E_CONTEXT_FULL) {
		cqe.position = (uint32_t)end->blocks_wanted;
		cqe.index = (uint32_t)end->blocks_there;
	}
	cqe.seen_ns = end->end_ns;
	cqe.cycles = end->cycles;
	/* Room for this one was set aside when the request was taken. */
	mr_ring_slot_give(client, index);
	if (!client->dead)
		mr_ring_cq_write(client, &cqe);
}

const struct mr_front_ops mr_ring_front_ops = {
	.credit = credit, .token = token, .end = end, .score = score};
