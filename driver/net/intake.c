// SPDX-License-Identifier: Apache-2.0
/*
 * Datagrams to requests: what is checked and authentic changes a call, everything else is counted and dropped.
 * Called by net.c's poll turn, one datagram at a time.
 */
#include "driver/net/server.h"

_Static_assert(MR_WIRE_PROMPT_MAX == MR_PROMPT_BYTES_MAX, "any prompt fits its request");

static bool same_end(const struct frame_end *a, const struct frame_end *b)
{
	return a->ip == b->ip && a->port == b->port;
}

static uint32_t request_flags(uint32_t wire)
{
	return (wire & MR_WIRE_CHAT ? MR_REQUEST_CHAT : 0) |
	       (wire & MR_WIRE_IGNORE_EOS ? MR_REQUEST_IGNORE_EOS : 0);
}

/* The prompt is whole: hands the request to the orchestrator. */
static void start(struct mr_net *net, struct call *call)
{
	const struct mr_wire_submit *params = &call->assembly.params;
	struct mr_request *r = call->request;
	int status;

	TAILQ_REMOVE(&net->filling, call, link);
	call->state = CALL_ACTIVE;
	r->ops = &mr_net_ops;
	r->front = net;
	r->front_word[0] = (uint64_t)(uintptr_t)call;
	r->client = net->key.id;
	r->key = call->key;
	r->flags = request_flags(params->flags);
	r->max_tokens = params->max_tokens;
	r->sampling = params->sampling;
	r->text_bytes = params->total;
	r->copies[MR_COPY_PROMPT_WIRE - MR_COPY_SITES_FIRST] = params->total;
	status = mr_sched_submit(net->sched, r);
	if (status == 0) {
		call->owner = r->owner;
		return;
	}
	mr_net_send_error(net, &call->from, call->key, status, 0);
	mr_net_forget(net, call);
}

/* A call for the first fragment of a prompt, or NULL after the refusal was sent. */
static struct call *open_call(struct mr_net *net, const struct frame_end *from,
			      const struct mr_wire_in *in)
{
	struct mr_request *request;
	struct call *call;

	if (in->submit.max_tokens > net->answer_max) {
		mr_count(MR_M_wire_too_large, 1);
		mr_net_send_error(net, from, in->request, MR_E_TOO_LARGE, net->answer_max);
		return NULL;
	}
	request = mr_sched_request(net->sched);
	call = request ? mr_net_take(net, in->request) : NULL;
	if (!call) {
		if (request)
			mr_sched_abandon(net->sched, request);
		mr_count(MR_M_wire_no_request, 1);
		mr_net_send_error(net, from, in->request, MR_E_FULL, 0);
		return NULL;
	}
	call->state = CALL_FILLING;
	call->request = request;
	call->from = *from;
	request->arrival_ns = mr_net_now(net);
	call->deadline_ns = request->arrival_ns + net->assemble_ns;
	TAILQ_INSERT_TAIL(&net->filling, call, link);
	mr_assembly_start(&call->assembly, request->text, in);
	return call;
}

static void submit(struct mr_net *net, struct call *call, const struct frame_end *from,
		   const struct mr_wire_in *in)
{
	if (!call)
		call = open_call(net, from, in);
	if (!call)
		return;
	if (call->state != CALL_FILLING) {
		mr_count(MR_M_wire_duplicate, 1);
		return;
	}
	switch (mr_assembly_add(&call->assembly, in)) {
	case ASSEMBLY_MORE:
		break;
	case ASSEMBLY_COMPLETE:
		start(net, call);
		break;
	case ASSEMBLY_DUPLICATE:
		mr_count(MR_M_wire_duplicate, 1);
		break;
	case ASSEMBLY_CONTRADICTS:
		mr_count(MR_M_wire_bad_fragment, 1);
		break;
	}
}

static void cancel(struct mr_net *net, struct call *call)
{
	switch (call->state) {
	case CALL_FILLING:
		mr_net_send_error(net, &call->from, call->key, MR_E_CANCELLED, 0);
		mr_sched_abandon(net->sched, call->request);
		mr_net_forget(net, call);
		break;
	case CALL_ACTIVE:
		/* NOT_FOUND: it is ending by itself this turn. */
		mr_sched_cancel(net->sched, net->key.id, call->key);
		break;
	default:
		mr_net_send_done(net, call);
	}
}

static void resend(struct mr_net *net, struct call *call, const struct mr_wire_resend *want)
{
	uint32_t at = want->first, end = call->sent;

	if (want->count && want->count < end - at && at < end)
		end = at + want->count;
	for (int i = 0; i < RESEND_DATAGRAMS && at < end; i++) {
		uint32_t n = mr_net_send_tokens(net, call, at, end - at);

		if (n == 0)
			return;
		at += n;
		mr_count(MR_M_wire_resent, 1);
	}
	if (call->state == CALL_ENDED && call->done_sent && at >= call->made)
		mr_net_send_done(net, call);
	else if (call->state != CALL_ENDED && want->first >= call->sent)
		mr_net_send_want(net, call);
}

void mr_net_intake(struct mr_net *net, const struct frame_in *frame)
{
	struct mr_wire_in in;
	struct call *call;
	int status = mr_wire_parse(&net->key, MR_WIRE_TO_SERVER, frame->payload,
				   frame->payload_bytes, &in);

	if (status != 0) {
		mr_count(mr_wire_drop_metric(status), 1);
		/* Authentic, so it has a right to know; once a prompt is enough. */
		if (status == MR_E_TOO_LARGE && in.submit.offset == 0)
			mr_net_send_error(net, &frame->from, in.request, status,
					  MR_WIRE_PROMPT_MAX);
		return;
	}
	call = mr_net_find(net, in.request);
	if (call && !same_end(&call->from, &frame->from)) {
		mr_count(MR_M_wire_bad_fragment, 1);
		return;
	}
	if (in.type == MR_WIRE_SUBMIT)
		submit(net, call, &frame->from, &in);
	else if (!call && in.type == MR_WIRE_CANCEL)
		mr_count(MR_M_wire_unknown, 1); /* an ERROR would have more bytes than it had */
	else if (!call)
		mr_net_send_error(net, &frame->from, in.request, MR_E_NOT_FOUND, 0);
	else if (in.type == MR_WIRE_CANCEL)
		cancel(net, call);
	else
		resend(net, call, &in.resend);
}
