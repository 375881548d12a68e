// SPDX-License-Identifier: Apache-2.0
/* The wire server's life: memory, the index of calls by the client's name for them, time limits, the poll turn. */
#include "driver/net/net.h"

#include <arpa/inet.h>
#include <sodium.h>
#include <stdlib.h>

#include "driver/net/server.h"

#define MS_TO_NS      1000000ull
#define LAST_WORDS_NS (200 * MS_TO_NS)

int mr_net_parse_ip(const char *text, uint32_t *ip)
{
	struct in_addr address;

	if (!text || inet_pton(AF_INET, text, &address) != 1)
		return MR_E_INVALID;
	*ip = ntohl(address.s_addr);
	return 0;
}

static struct call **bucket(const struct mr_net *net, uint64_t key)
{
	return &net->buckets[(key * 0x9e3779b97f4a7c15u >> 32) & net->bucket_mask];
}

struct call *mr_net_find(const struct mr_net *net, uint64_t key)
{
	struct call *call = *bucket(net, key);

	while (call && call->key != key)
		call = call->hash_next;
	return call;
}

struct call *mr_net_take(struct mr_net *net, uint64_t key)
{
	struct call *call = TAILQ_FIRST(&net->free);
	struct mr_wire_token *history;
	struct call **head = bucket(net, key);

	if (!call) {
		call = TAILQ_FIRST(&net->ended);
		if (!call || !call->done_sent)
			return NULL;
		mr_net_forget(net, call);
	}
	TAILQ_REMOVE(&net->free, call, link);
	history = call->history;
	*call = (struct call){.key = key, .history = history, .hash_next = *head};
	*head = call;
	net->known++;
	return call;
}

void mr_net_forget(struct mr_net *net, struct call *call)
{
	struct call **at = bucket(net, call->key);

	while (*at != call)
		at = &(*at)->hash_next;
	*at = call->hash_next;
	if (call->dirty)
		TAILQ_REMOVE(&net->dirty, call, dirty_link);
	call->dirty = false;
	if (call->state == CALL_FILLING)
		TAILQ_REMOVE(&net->filling, call, link);
	if (call->state == CALL_ENDED)
		TAILQ_REMOVE(&net->ended, call, link);
	call->state = CALL_FREE;
	TAILQ_INSERT_HEAD(&net->free, call, link);
	net->known--;
}

/* Both lists are in order of their deadlines, because each has one span of time for all. */
static int expire(struct mr_net *net)
{
	struct call *call;
	uint64_t now;
	int done = 0;

	if (TAILQ_EMPTY(&net->filling) && TAILQ_EMPTY(&net->ended))
		return 0;
	now = mr_net_now(net);
	while ((call = TAILQ_FIRST(&net->filling)) && call->deadline_ns <= now) {
		mr_count(MR_M_wire_expired, 1);
		mr_net_send_error(net, &call->from, call->key, MR_E_TIMEOUT, 0);
		mr_sched_abandon(net->sched, call->request);
		mr_net_forget(net, call);
		done++;
	}
	while ((call = TAILQ_FIRST(&net->ended)) && call->deadline_ns <= now) {
		mr_net_forget(net, call);
		done++;
	}
	return done;
}

static int poll_turn(void *ctx)
{
	struct mr_net *net = ctx;
	struct frame_in frame;
	int done;

	/* What the orchestrator made since the last turn goes first: it is what a client waits for. */
	done = mr_net_egress(net);
	for (int i = 0; i < PORT_BURST && mr_port_receive(&net->port, &frame); i++) {
		if (frame.kind == FRAME_UDP)
			mr_net_intake(net, &frame);
		done++;
	}
	done += expire(net);
	done += mr_net_egress(net);
	mr_port_flush(&net->port);
	return done;
}

static int arm(void *ctx)
{
	const struct mr_net *net = ctx;

	/* A port that takes no more is asked again after the loop's short sleep, not at full speed. */
	return !TAILQ_EMPTY(&net->dirty) && !net->blocked;
}

struct mr_front mr_net_front(struct mr_net *net)
{
	/* PMDs here are polled: most have no receive interrupt. */
	return (struct mr_front){.ctx = net, .poll = poll_turn, .arm = arm, .wait_fd = -1};
}

uint32_t mr_net_known(const struct mr_net *net)
{
	return net->known;
}

static int make_calls(struct mr_net *net, uint32_t count)
{
	uint32_t buckets = 1;
	size_t tokens = (size_t)count * net->answer_max;

	while (buckets < 2 * count)
		buckets *= 2;
	net->bucket_mask = buckets - 1;
	net->call_count = count;
	net->calls = calloc(count, sizeof(*net->calls));
	net->buckets = calloc(buckets, sizeof(struct call *));
	net->history = malloc(tokens * sizeof(*net->history));
	if (!net->calls || !net->buckets || !net->history)
		return MR_E_NO_MEMORY;
	/* Touched now, so that no token waits for a page. */
	for (size_t i = 0; i < tokens; i++)
		net->history[i] = (struct mr_wire_token){0};
	for (uint32_t i = 0; i < count; i++) {
		net->calls[i].history = net->history + (size_t)i * net->answer_max;
		TAILQ_INSERT_TAIL(&net->free, &net->calls[i], link);
	}
	return 0;
}

int mr_net_create(const struct mr_net_options *options, struct mr_net **out, char *why)
{
	char unheard[MR_NET_WHY_BYTES];
	struct port_options port = {
		.vdev = options->vdev,
		.eal_args = options->eal_args,
		.huge = options->huge,
		.arena = options->arena,
		.ip = options->ip,
		.udp_port = options->port ? options->port : MR_WIRE_PORT,
	};
	struct mr_net *net = calloc(1, sizeof(*net));
	int status;

	*out = NULL;
	why = why ? why : unheard;
	snprintf(why, MR_NET_WHY_BYTES, "out of memory");
	if (!net)
		return MR_E_NO_MEMORY;
	TAILQ_INIT(&net->free);
	TAILQ_INIT(&net->filling);
	TAILQ_INIT(&net->ended);
	TAILQ_INIT(&net->dirty);
	net->key = options->key;
	net->sched = options->sched;
	net->clock = options->clock ? options->clock : &mr_clock_monotonic;
	net->answer_max = options->answer_max ? options->answer_max : 4096;
	net->assemble_ns = (options->assemble_ms ? options->assemble_ms : 1000) * MS_TO_NS;
	net->keep_ns = (options->keep_ms ? options->keep_ms : 2000) * MS_TO_NS;
	status = sodium_init() < 0 ? MR_E_INTERNAL
				   : make_calls(net, options->requests ? options->requests : 512);
	if (status == 0)
		status = mr_port_open(&net->port, &port, why, MR_NET_WHY_BYTES);
	if (status != 0) {
		net->port.id = UINT16_MAX;
		free(net->history);
		free(net->buckets);
		free(net->calls);
		free(net);
		return status;
	}
	*out = net;
	return 0;
}

static uint32_t unheard_credit(void *front, const struct mr_request *request)
{
	return UINT32_MAX;
}

static void unheard_token(void *front, struct mr_request *request, const struct mr_token *token)
{
}

static void unheard_end(void *front, struct mr_request *request, const struct mr_end *end)
{
}

static const struct mr_front_ops unheard_ops = {unheard_credit, unheard_token, unheard_end};

static struct call *next_active(const struct mr_net *net, size_t from)
{
	for (size_t i = from; i < net->call_count; i++)
		if (net->calls[i].state == CALL_ACTIVE)
			return &net->calls[i];
	return NULL;
}

void mr_net_destroy(struct mr_net *net)
{
	struct call *call;

	if (!net)
		return;
	while ((call = TAILQ_FIRST(&net->filling))) {
		mr_sched_abandon(net->sched, call->request);
		mr_net_forget(net, call);
	}
	/* Give cancelled requests a moment, so that their clients are told. */
	mr_sched_cancel_client(net->sched, net->key.id);
	for (uint64_t until = mr_net_now(net) + LAST_WORDS_NS;
	     next_active(net, 0) && mr_net_now(net) < until;)
		mr_sched_poll(net->sched);
	/* Whoever is still under way then ends unheard: the orchestrator must not call back here. */
	for (call = next_active(net, 0); call;
	     call = next_active(net, (size_t)(call - net->calls) + 1))
		call->request->ops = &unheard_ops;
	mr_net_egress(net);
	mr_port_flush(&net->port);
	mr_port_close(&net->port);
	free(net->history);
	free(net->buckets);
	free(net->calls);
	free(net);
}
