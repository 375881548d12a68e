/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writing CQEs, and never one that has no room. An entry of the queue is the client's (written, not
 * returned by cq_head yet), set aside for the one DONE or ERROR of a request under way, promised to a
 * request's tokens, or unclaimed. An SQE is taken only when an entry is unclaimed, and the orchestrator
 * decodes for a request no more tokens than it was promised; so whatever a client does with cq_head, no
 * answer is made that cannot be delivered, and nobody else waits.
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
	       client->promised;
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

void mr_ring_cq_answer(struct ring_client *client, const struct mr_sqe *sqe, int status,
		       uint32_t field)
{
	const struct mr_cqe cqe = {.type = status ? MR_CQE_ERROR : MR_CQE_DONE,
				   .op = (uint8_t)sqe->op,
				   .key = sqe->key,
				   .status = status,
				   .token = field};

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

/* A request's part of the queue: half of it shared by all, so that SQEs and slow starters find room. */
static uint32_t fair_part(const struct ring_client *client)
{
	uint32_t part = (client->mem.cq_mask + 1) / 2 / client->live_count;

	return part > PROMISE_MAX ? PROMISE_MAX : part ? part : 1;
}

/*
 * Tops the request's promise up to its part, or takes back what is more than that: no DECODE with it is
 * under way when the orchestrator asks. The last entry is never promised, so that even a client that reads
 * nothing can have one more SQE taken: a CANCEL.
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
	room = mr_ring_cq_room(client, part + 1);
	room -= room != 0;
	slot->promised = room < part ? room : part;
	client->promised += slot->promised;
	if (!slot->promised)
		mr_ring_cq_stall(client);
	return slot->promised;
}

static void token(void *front, struct mr_request *request, const struct mr_token *token)
{
	struct ring_client *client = front;
	uint32_t index = (uint32_t)request->front_word[0];
	struct ring_slot *slot = &client->slots[index];
	const struct mr_cqe cqe = {.type = MR_CQE_TOKEN,
				   .op = MR_OP_SUBMIT,
				   .key = slot->key,
				   .sequence = index + 1,
				   .generation = slot->generation,
				   .position = token->position,
				   .token = token->token,
				   .logprob = token->logprob,
				   .index = token->index,
				   .seen_ns = token->seen_ns,
				   .cycles = token->cycles};

	if (client->dead)
		return;
	if (!slot->promised) {
		slot->overrun = 1;
		mr_count(MR_M_ring_overrun, 1);
		return;
	}
	slot->promised--;
	client->promised--;
	mr_ring_cq_write(client, &cqe);
	mr_trace(MR_T_egress, request->owner, MR_TRACE_NO_DEVICE, 1);
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
	const struct mr_cqe cqe = {.type = status ? MR_CQE_ERROR : MR_CQE_DONE,
				   .op = MR_OP_SUBMIT,
				   .ended = slot->overrun ? MR_ENDED_ERROR : ended(end->finish),
				   .key = slot->key,
				   .status = status,
				   .sequence = index + 1,
				   .generation = slot->generation,
				   .position = end->prompt_tokens + end->tokens,
				   .index = end->tokens,
				   .seen_ns = end->end_ns,
				   .cycles = end->cycles};

	/* Room for this one was set aside when the request was taken. */
	mr_ring_slot_give(client, index);
	if (!client->dead)
		mr_ring_cq_write(client, &cqe);
}

const struct mr_front_ops mr_ring_front_ops = {.credit = credit, .token = token, .end = end};
