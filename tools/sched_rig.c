// SPDX-License-Identifier: Apache-2.0
/* See sched_rig.h. */
#include "tools/sched_rig.h"

#include <poll.h>
#include <string.h>

#define LIMIT_NS 300000000000ull /* of one wait, by the rig's clock */

static uint64_t virtual_now(void *arg)
{
	return ((const struct sched_rig *)arg)->virtual_ns;
}

uint64_t sched_rig_now(const struct sched_rig *rig)
{
	return rig->clock.now_ns(rig->clock.arg);
}

static uint32_t front_credit(void *front, const struct mr_request *request)
{
	return UINT32_MAX;
}

static void front_token(void *front, struct mr_request *request, const struct mr_token *token)
{
	struct sched_answer *a = front;
	struct sched_rig *rig = a->rig;
	uint64_t now;

	a->tokens++;
	if (!rig->itl_ns)
		return;
	now = sched_rig_now(rig);
	if (a->last_ns && rig->itl_count < rig->itl_max)
		rig->itl_ns[rig->itl_count++] = now - a->last_ns;
	a->last_ns = now;
}

static void front_end(void *front, struct mr_request *request, const struct mr_end *end)
{
	struct sched_answer *a = front;

	if (end->status && !a->rig->status)
		a->rig->status = end->status;
	a->end = *end;
	a->ended = 1;
	if (a->on_end)
		a->on_end(a);
}

static const struct mr_front_ops front_ops = {front_credit, front_token, front_end};

static int open_nil(struct sched_rig *rig, const struct sched_rig_options *o)
{
	struct mr_nil_options nil = {
		.slots = 2 * o->requests + 16,
		.context = o->context,
		.layers = o->layers,
		.now_ns = rig->virtual_time ? virtual_now : NULL,
		.arg = rig,
	};
	int status;

	rig->own_devices = 1;
	rig->own_model.shape.layers = o->layers;
	rig->own_model.shape.vocab = 49152;
	rig->model = &rig->own_model;
	if (o->decode)
		nil.costs = *o->decode;
	status = mr_nil_open(&nil, &rig->decode);
	if (status || o->one_device) {
		rig->prefill = rig->decode;
		return status;
	}
	if (o->prefill)
		nil.costs = *o->prefill;
	return mr_nil_open(&nil, &rig->prefill);
}

int sched_rig_open(struct sched_rig *rig, const struct sched_rig_options *o)
{
	struct mr_sched_options options = {
		.requests = o->requests,
		.chunk = o->chunk,
		.no_cache = o->no_cache,
	};
	int status = 0;

	memset(rig, 0, sizeof(*rig));
	rig->virtual_time = o->decode != NULL;
	rig->virtual_ns = 1000000000;
	rig->clock = rig->virtual_time ? (struct mr_clock){virtual_now, rig} : mr_clock_monotonic;
	rig->next_key = 1;
	if (o->devices) {
		rig->model = o->model;
		rig->prefill = o->devices->prefill;
		rig->decode = o->devices->decode;
	} else {
		status = open_nil(rig, o);
	}
	options.model = rig->model;
	options.prefill = rig->prefill;
	options.decode = rig->decode;
	options.clock = &rig->clock;
	if (!status)
		status = mr_sched_create(&options, &rig->sched);
	if (status)
		sched_rig_close(rig);
	return status;
}

void sched_rig_close(struct sched_rig *rig)
{
	/* In virtual time first: destroy turns the loop, but no clock. */
	if (rig->sched)
		sched_rig_clear(rig);
	mr_sched_destroy(rig->sched);
	if (rig->own_devices && rig->prefill && rig->prefill != rig->decode)
		rig->prefill->admin->close(rig->prefill);
	if (rig->own_devices && rig->decode)
		rig->decode->admin->close(rig->decode);
	rig->sched = NULL;
	rig->prefill = rig->decode = NULL;
}

/* Any ids will do, but a family's are always the same and no two families begin alike. */
static uint32_t token_of(const struct sched_rig *rig, uint64_t family, uint32_t i)
{
	uint64_t h = (family * 0x9e3779b97f4a7c15u + i + 1) * 0xd6e8feb86659fd93u;

	return (uint32_t)((h >> 32) % rig->model->shape.vocab);
}

int sched_rig_ask(struct sched_rig *rig, const struct sched_ask *ask, struct sched_answer *answer)
{
	struct mr_request *r = mr_sched_request(rig->sched);

	if (!r)
		return MR_E_FULL;
	answer->rig = rig;
	answer->ended = 0;
	answer->tokens = 0;
	answer->last_ns = 0;
	answer->key = rig->next_key++;
	r->ops = &front_ops;
	r->front = answer;
	r->op = ask->op;
	r->client = ask->client;
	r->key = answer->key;
	r->target = ask->target;
	r->prefix = ask->prefix;
	r->itl_ns = ask->itl_ns;
	r->flags = ask->flags | MR_REQUEST_IGNORE_EOS;
	r->max_tokens = ask->max_tokens;
	r->token_count = ask->count;
	if (ask->count)
		r->flags |= MR_REQUEST_TOKENS;
	for (uint32_t i = 0; i < ask->count; i++)
		r->tokens[i] = token_of(rig, i < ask->shared ? ask->family : r->key << 32, i);
	return mr_sched_submit(rig->sched, r);
}

/* The clock goes to the next event of either device. */
static int advance(struct sched_rig *rig)
{
	uint64_t a = mr_nil_next_ns(rig->prefill), b = mr_nil_next_ns(rig->decode);
	uint64_t next = a < b ? a : b;

	if (next == UINT64_MAX)
		return mr_sched_active(rig->sched) ? MR_E_INTERNAL
						   : 0; /* nothing would ever come */
	if (next > rig->virtual_ns)
		rig->virtual_ns = next;
	return 0;
}

int sched_rig_turn(struct sched_rig *rig)
{
	struct pollfd p[2];

	if (mr_sched_poll(rig->sched))
		return 0;
	if (rig->virtual_time)
		return advance(rig);
	p[0] = (struct pollfd){.fd = rig->prefill->wait_fd, .events = POLLIN};
	p[1] = (struct pollfd){.fd = rig->decode->wait_fd, .events = POLLIN};
	if (p[0].fd >= 0 && p[1].fd >= 0 && !mr_sched_arm(rig->sched))
		poll(p, 2, 100);
	return 0;
}

int sched_rig_wait(struct sched_rig *rig, const struct sched_answer *answer)
{
	uint64_t start = sched_rig_now(rig);
	int status = 0;

	while (!status && !answer->ended) {
		status = sched_rig_turn(rig);
		if (tool_stop)
			status = MR_E_CANCELLED;
		else if (sched_rig_now(rig) - start > LIMIT_NS)
			status = MR_E_TIMEOUT;
	}
	return status ? status : answer->end.status;
}

void sched_rig_clear(struct sched_rig *rig)
{
	for (uint64_t client = 0; client < SCHED_RIG_CLIENTS; client++)
		mr_sched_cancel_client(rig->sched, client);
	while (mr_sched_active(rig->sched) && !sched_rig_turn(rig))
		;
	rig->status = 0; /* what was cancelled is no failure */
}
