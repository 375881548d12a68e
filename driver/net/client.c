// SPDX-License-Identifier: Apache-2.0
/*
 * See client.h. An answer is taken in order only: what comes beyond a gap is dropped and asked for again, which
 * costs a round trip after a loss and no memory at all. Silence is the other reason to ask.
 */
#include "driver/net/client.h"

#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <millrace/status.h>

#include "driver/net/assemble.h"
#include "driver/net/port.h"
#include "driver/sched/sched.h" /* struct mr_clock */

#define MS_TO_NS    1000000ull
#define ARP_AGAIN   (100 * MS_TO_NS)
#define GAP_AGAIN   (2 * MS_TO_NS) /* between two RESENDs for one gap */
#define WATCH_NS    (MS_TO_NS / 4) /* between two looks at every place for silence */
#define CLIENT_PORT 40000

struct ask {
	bool used;
	bool started;  /* a token, WANT or DONE came: the server knows the request */
	uint32_t next; /* index of the next token */
	uint64_t request;
	uint64_t unsent;   /* bit k = fragment k waits for room in the port */
	uint64_t heard_ns; /* when the server last said something about it */
	uint64_t asked_ns; /* when it was last asked for more */
	struct mr_net_prompt prompt;
};

struct mr_net_client {
	struct port port;
	struct frame_end server;
	struct mr_net_client_options options;
	uint64_t retry_ns, timeout_ns, arp_ns, watched_ns, next_request;
	uint32_t count, active;
	bool resolved;
	struct mr_net_client_stats stats;
	struct ask asks[];
};

static uint64_t now_ns(const struct mr_net_client *c)
{
	return c->options.clock->now_ns(c->options.clock->arg);
}

/* Callbacks may send, so a time taken before them can be older than what it is compared with. */
static uint64_t since(uint64_t now, uint64_t then)
{
	return now > then ? now - then : 0;
}

static uint64_t fragments_of(uint32_t bytes)
{
	/* One that is too large still sends its first, for the server to refuse. */
	if (bytes > MR_WIRE_PROMPT_MAX)
		return 1;
	return mr_assembly_all(bytes);
}

static bool send_fragment(struct mr_net_client *c, const struct ask *a, uint32_t k)
{
	uint32_t offset = k * MR_WIRE_FRAGMENT;
	uint32_t rest = a->prompt.bytes - offset;
	uint32_t bytes = rest < MR_WIRE_FRAGMENT ? rest : MR_WIRE_FRAGMENT;
	struct mr_wire_submit submit = {
		.offset = offset,
		.total = a->prompt.bytes,
		.max_tokens = a->prompt.max_tokens,
		.flags = a->prompt.flags,
		.sampling = a->prompt.sampling,
	};
	uint8_t *payload = mr_port_payload(&c->port), *body;

	if (!payload)
		return false;
	body = mr_wire_begin(&c->options.key, MR_WIRE_SUBMIT, a->request, payload);
	mr_wire_put_submit(body, &submit);
	/* The client's own side of the wire: not the server's ledger. */
	for (uint32_t i = 0; i < bytes; i++)
		body[sizeof(submit) + i] = (uint8_t)a->prompt.text[offset + i];
	mr_port_send(&c->port, &c->server,
		     (uint32_t)mr_wire_seal(&c->options.key, payload, sizeof(submit) + bytes));
	return true;
}

static void send_unsent(struct mr_net_client *c, struct ask *a)
{
	while (a->unsent) {
		uint32_t k = (uint32_t)__builtin_ctzll(a->unsent);

		if (!send_fragment(c, a, k))
			return;
		a->unsent &= a->unsent - 1;
	}
}

static void send_small(struct mr_net_client *c, struct ask *a, enum mr_wire_type type)
{
	uint8_t *payload = mr_port_payload(&c->port);
	size_t bytes = 0;
	void *body;

	if (!payload)
		return;
	body = mr_wire_begin(&c->options.key, type, a->request, payload);
	if (type == MR_WIRE_RESEND) {
		mr_wire_put_resend(body, &(struct mr_wire_resend){.first = a->next});
		bytes = sizeof(struct mr_wire_resend);
		c->stats.resends++;
	}
	mr_port_send(&c->port, &c->server, (uint32_t)mr_wire_seal(&c->options.key, payload, bytes));
}

static void finish(struct mr_net_client *c, struct ask *a, int status, uint32_t limit,
		   const struct mr_wire_in *in)
{
	uint64_t copies[MR_WIRE_COPY_SITES_MAX] = {0};
	const struct mr_wire_done *done = in ? &in->done : NULL;

	for (uint32_t i = 0; done && i < done->copy_sites; i++)
		copies[i] = mr_wire_copies_at(in, i);
	a->used = false;
	c->active--;
	c->options.ops->end(c->options.arg, a->prompt.tag, status, limit, done, copies);
}

static struct ask *find(struct mr_net_client *c, uint64_t request)
{
	/* Names count up, so that a name says which place it has, and a reused place has another name. */
	struct ask *a = &c->asks[request % c->count];

	return a->used && a->request == request ? a : NULL;
}

static void ask_again(struct mr_net_client *c, struct ask *a, uint64_t now, uint64_t pause)
{
	if (since(now, a->asked_ns) < pause)
		return;
	a->asked_ns = now;
	send_small(c, a, MR_WIRE_RESEND);
}

static void take_tokens(struct mr_net_client *c, struct ask *a, const struct mr_wire_in *in,
			uint64_t now)
{
	if (in->tokens.first > a->next) {
		ask_again(c, a, now, GAP_AGAIN);
		return;
	}
	for (uint32_t i = a->next - in->tokens.first; i < in->tokens.count; i++) {
		struct mr_wire_token token = mr_wire_token_at(in, i);

		c->options.ops->token(c->options.arg, a->prompt.tag, a->next++, &token);
	}
}

static void take_error(struct mr_net_client *c, struct ask *a, const struct mr_wire_in *in)
{
	/* The whole prompt was lost: begin again. Once the server has known it, its memory of it is gone. */
	if (in->error.status == MR_E_NOT_FOUND && !a->started) {
		a->unsent = fragments_of(a->prompt.bytes);
		c->stats.repeated += (uint64_t)__builtin_popcountll(a->unsent);
		send_unsent(c, a);
		return;
	}
	finish(c, a, in->error.status, in->error.limit, NULL);
}

static void take(struct mr_net_client *c, const struct frame_in *frame)
{
	struct mr_wire_in in;
	struct ask *a;
	uint64_t now;

	if (frame->from.ip != c->server.ip || frame->from.port != c->server.port ||
	    mr_wire_parse(&c->options.key, MR_WIRE_TO_CLIENT, frame->payload, frame->payload_bytes,
			  &in) != 0) {
		c->stats.dropped++;
		return;
	}
	a = find(c, in.request);
	if (!a) {
		c->stats.dropped++;
		return;
	}
	now = now_ns(c);
	a->heard_ns = c->stats.heard_ns = now;
	if (in.type != MR_WIRE_ERROR)
		a->started = true;
	switch (in.type) {
	case MR_WIRE_TOKENS:
		take_tokens(c, a, &in, now);
		break;
	case MR_WIRE_DONE:
		/* RESEND brings DONE along after the tokens that are missing. */
		if (in.done.tokens > a->next)
			ask_again(c, a, now, GAP_AGAIN);
		else
			finish(c, a, in.done.status, 0, &in);
		break;
	case MR_WIRE_ERROR:
		take_error(c, a, &in);
		break;
	case MR_WIRE_WANT:
		if (a->unsent)
			break; /* still sending what it cannot have yet */
		a->unsent = fragments_of(a->prompt.bytes) & ~in.want.have;
		c->stats.repeated += (uint64_t)__builtin_popcountll(a->unsent);
		send_unsent(c, a);
		break;
	default:
		break;
	}
}

/* Fragments that found no room, silence that asks again, silence that gives up. */
static void watch(struct mr_net_client *c, uint64_t now)
{
	for (uint32_t i = 0; i < c->count && c->active; i++) {
		struct ask *a = &c->asks[i];

		if (!a->used)
			continue;
		if (a->unsent)
			send_unsent(c, a);
		if (since(now, a->heard_ns) >= c->timeout_ns)
			finish(c, a, MR_E_TIMEOUT, 0, NULL);
		else if (since(now, a->heard_ns) >= c->retry_ns)
			ask_again(c, a, now, c->retry_ns);
	}
}

int mr_net_client_poll(struct mr_net_client *c)
{
	struct frame_in frame;
	uint64_t now = now_ns(c);
	int done = 0;

	if (!c->resolved && now - c->arp_ns >= ARP_AGAIN) {
		c->arp_ns = now;
		mr_port_ask(&c->port, c->server.ip);
	}
	for (int i = 0; i < PORT_BURST && mr_port_receive(&c->port, &frame); i++, done++) {
		if (frame.kind == FRAME_UDP)
			take(c, &frame);
		if (frame.kind != FRAME_ARP_REPLY || frame.from.ip != c->server.ip)
			continue;
		for (int b = 0; b < FRAME_MAC_BYTES; b++)
			c->server.mac[b] = frame.from.mac[b];
		c->resolved = true;
	}
	/* There may be thousands of places: not at every turn of a loop that spins. */
	now = now_ns(c);
	if (c->active && since(now, c->watched_ns) >= WATCH_NS) {
		c->watched_ns = now;
		watch(c, now);
	}
	mr_port_flush(&c->port);
	return done;
}

int mr_net_client_ready(const struct mr_net_client *c)
{
	return c->resolved;
}

int mr_net_client_send(struct mr_net_client *c, const struct mr_net_prompt *prompt)
{
	uint64_t now = now_ns(c), request;
	struct ask *a;

	if (!c->resolved)
		return MR_E_BUSY;
	if (prompt->bytes == 0)
		return MR_E_INVALID;
	if (c->active == c->count)
		return MR_E_FULL;
	/* Names are skipped until one falls on a free place. */
	do {
		request = c->next_request++;
		a = &c->asks[request % c->count];
	} while (a->used);
	*a = (struct ask){
		.used = true,
		.request = request,
		.heard_ns = now,
		.asked_ns = now,
		.unsent = fragments_of(prompt->bytes),
		.prompt = *prompt,
	};
	c->active++;
	send_unsent(c, a);
	mr_port_flush(&c->port);
	return 0;
}

int mr_net_client_cancel(struct mr_net_client *c, uint64_t tag)
{
	for (uint32_t i = 0; i < c->count; i++) {
		if (!c->asks[i].used || c->asks[i].prompt.tag != tag)
			continue;
		send_small(c, &c->asks[i], MR_WIRE_CANCEL);
		mr_port_flush(&c->port);
		return 0;
	}
	return MR_E_NOT_FOUND;
}

uint32_t mr_net_client_active(const struct mr_net_client *c)
{
	return c->active;
}

struct mr_net_client_stats mr_net_client_stats(const struct mr_net_client *c)
{
	return c->stats;
}

static uint64_t realtime_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int mr_net_client_open(const struct mr_net_client_options *options, struct mr_net_client **client,
		       char *why)
{
	char unheard[MR_NET_WHY_BYTES];
	uint32_t count = options->requests ? options->requests : 64;
	struct mr_net_client *c = calloc(1, sizeof(*c) + count * sizeof(c->asks[0]));
	struct port_options port = {
		.vdev = options->vdev,
		.eal_args = options->eal_args,
		.huge = options->huge,
		.ip = options->ip,
		.udp_port = options->port ? options->port : CLIENT_PORT,
	};
	int status;

	*client = NULL;
	why = why ? why : unheard;
	snprintf(why, MR_NET_WHY_BYTES, "out of memory");
	if (!c)
		return MR_E_NO_MEMORY;
	c->options = *options;
	if (!c->options.clock)
		c->options.clock = &mr_clock_monotonic;
	c->count = count;
	c->retry_ns = (options->retry_ms ? options->retry_ms : 200) * MS_TO_NS;
	c->timeout_ns = (options->timeout_ms ? options->timeout_ms : 10000) * MS_TO_NS;
	c->next_request = options->first_request ? options->first_request : realtime_ns();
	c->server.ip = options->server_ip;
	c->server.port = options->server_port ? options->server_port : MR_WIRE_PORT;
	status = sodium_init() < 0 ? MR_E_INTERNAL
				   : mr_port_open(&c->port, &port, why, MR_NET_WHY_BYTES);
	if (status != 0) {
		free(c);
		return status;
	}
	*client = c;
	return 0;
}

void mr_net_client_close(struct mr_net_client *c)
{
	if (!c)
		return;
	mr_port_flush(&c->port);
	mr_port_close(&c->port);
	free(c);
}
