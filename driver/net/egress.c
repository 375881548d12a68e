// SPDX-License-Identifier: Apache-2.0
/*
 * Tokens to datagrams. The orchestrator's calls only note what was made; the poll turn sends it, so that
 * tokens of one request made in one turn share a datagram.
 */
#include "driver/net/server.h"
#include "driver/trace.h"

_Static_assert((int)MR_FINISH_STOP == (int)MR_WIRE_FINISH_STOP &&
		       (int)MR_FINISH_LENGTH == (int)MR_WIRE_FINISH_LENGTH &&
		       (int)MR_FINISH_CANCEL == (int)MR_WIRE_FINISH_CANCEL &&
		       (int)MR_FINISH_ERROR == (int)MR_WIRE_FINISH_ERROR,
	       "one numbering");
_Static_assert(MR_COPY_SITES <= MR_WIRE_COPY_SITES_MAX, "counts fit DONE");

#define TOKEN_SITE (MR_COPY_TOKEN_WIRE - MR_COPY_SITES_FIRST)

static struct call *call_of(const struct mr_request *request)
{
	return (struct call *)(uintptr_t)request->front_word[0];
}

void mr_net_mark(struct mr_net *net, struct call *call)
{
	if (call->dirty)
		return;
	call->dirty = true;
	TAILQ_INSERT_TAIL(&net->dirty, call, dirty_link);
}

static uint32_t credit(void *front, const struct mr_request *request)
{
	const struct mr_net *net = front;

	return net->answer_max - call_of(request)->made;
}

static void token(void *front, struct mr_request *request, const struct mr_token *token)
{
	struct mr_net *net = front;
	struct call *call = call_of(request);

	if (call->made == net->answer_max)
		return; /* beyond the credit that was given */
	call->history[call->made++] = (struct mr_wire_token){
		.id = token->token,
		.logprob = token->logprob,
		.cycles = token->cycles,
	};
	mr_net_mark(net, call);
}

static uint64_t span(uint64_t from, uint64_t to)
{
	return from && to > from ? to - from : 0;
}

static int32_t off(const struct mr_end *end)
{
	int64_t off = (int64_t)(end->cycles - end->predicted);

	return !end->predicted    ? 0
	       : off > INT32_MAX  ? INT32_MAX
	       : off < -INT32_MAX ? -INT32_MAX
				  : (int32_t)off;
}

static void end(void *front, struct mr_request *request, const struct mr_end *end)
{
	struct mr_net *net = front;
	struct call *call = call_of(request);

	call->done = (struct mr_wire_done){
		.status = end->status,
		.finish = end->finish,
		.prompt_tokens = end->prompt_tokens,
		.tokens = call->made,
		.queue_ns = span(end->submit_ns, end->start_ns),
		.prefill_ns = span(end->start_ns, end->prefilled_ns),
		.first_ns = span(end->submit_ns, end->first_ns),
		.total_ns = span(end->submit_ns, end->end_ns),
		.cycles = end->cycles,
		.copy_sites = MR_COPY_SITES,
		.cycles_off = off(end),
	};
	for (int i = 0; i < MR_COPY_SITES; i++)
		if (i != TOKEN_SITE) /* counted while sent, here */
			call->copies[i] = end->copies[i];
	call->request = NULL;
	call->state = CALL_ENDED;
	call->deadline_ns = mr_net_now(net) + net->keep_ns;
	TAILQ_INSERT_TAIL(&net->ended, call, link);
	mr_net_mark(net, call);
}

const struct mr_front_ops mr_net_ops = {.credit = credit, .token = token, .end = end};

uint32_t mr_net_send_tokens(struct mr_net *net, struct call *call, uint32_t first, uint32_t count)
{
	uint32_t n = count < MR_WIRE_TOKENS_MAX ? count : MR_WIRE_TOKENS_MAX;
	size_t bytes = n * sizeof(struct mr_wire_token);
	uint8_t *payload = mr_port_payload(&net->port), *body;

	if (!payload)
		return 0;
	body = mr_wire_begin(&net->key, MR_WIRE_TOKENS, call->key, payload);
	mr_wire_put_tokens(body, &(struct mr_wire_tokens){.first = first, .count = n});
	mr_copy(MR_COPY_TOKEN_WIRE, body + sizeof(struct mr_wire_tokens), call->history + first,
		bytes);
	call->copies[TOKEN_SITE] += bytes;
	bytes = mr_wire_seal(&net->key, payload, sizeof(struct mr_wire_tokens) + bytes);
	mr_port_send(&net->port, &call->from, (uint32_t)bytes);
	return n;
}

bool mr_net_send_done(struct mr_net *net, struct call *call)
{
	uint8_t *payload = mr_port_payload(&net->port);
	size_t bytes;

	if (!payload)
		return false;
	mr_wire_put_done(mr_wire_begin(&net->key, MR_WIRE_DONE, call->key, payload), &call->done,
			 call->copies);
	bytes = mr_wire_seal(&net->key, payload,
			     sizeof(struct mr_wire_done) + sizeof(call->copies));
	mr_port_send(&net->port, &call->from, (uint32_t)bytes);
	return true;
}

void mr_net_send_error(struct mr_net *net, const struct frame_end *to, uint64_t key, int status,
		       uint32_t limit)
{
	uint8_t *payload = mr_port_payload(&net->port);

	/* Lost where the port is full: the client asks again. */
	if (!payload)
		return;
	mr_wire_put_error(mr_wire_begin(&net->key, MR_WIRE_ERROR, key, payload),
			  &(struct mr_wire_error){.status = status, .limit = limit});
	mr_port_send(&net->port, to,
		     (uint32_t)mr_wire_seal(&net->key, payload, sizeof(struct mr_wire_error)));
}

void mr_net_send_want(struct mr_net *net, const struct call *call)
{
	uint8_t *payload = mr_port_payload(&net->port);
	struct mr_wire_want want = {
		.have = call->assembly.have,
		.total = call->assembly.params.total,
	};

	if (!payload)
		return;
	mr_wire_put_want(mr_wire_begin(&net->key, MR_WIRE_WANT, call->key, payload), &want);
	mr_port_send(&net->port, &call->from,
		     (uint32_t)mr_wire_seal(&net->key, payload, sizeof(want)));
}

/* Sends all that a call has; false where the port takes no more. */
static bool send_due(struct mr_net *net, struct call *call, int *datagrams)
{
	while (call->sent < call->made) {
		uint32_t n = mr_net_send_tokens(net, call, call->sent, call->made - call->sent);

		if (n == 0)
			return false;
		call->sent += n;
		mr_trace(MR_T_egress, call->owner, MR_TRACE_NO_DEVICE, n);
		(*datagrams)++;
	}
	if (call->state == CALL_ENDED && !call->done_sent) {
		if (!mr_net_send_done(net, call))
			return false;
		call->done_sent = true;
		(*datagrams)++;
	}
	return true;
}

int mr_net_egress(struct mr_net *net)
{
	struct call *call;
	int datagrams = 0;

	net->blocked = false;
	while ((call = TAILQ_FIRST(&net->dirty))) {
		if (!send_due(net, call, &datagrams)) {
			net->blocked = true;
			break;
		}
		call->dirty = false;
		TAILQ_REMOVE(&net->dirty, call, dirty_link);
	}
	if (datagrams)
		mr_port_flush(&net->port);
	return datagrams;
}
