// SPDX-License-Identifier: Apache-2.0
/*
 * Fuzzes the ring server with a client's memory. The input is a script of what a hostile client may do
 * between the server's turns: bytes anywhere in its ring memory, SQEs that look published, credit. After each
 * turn the server's books must balance; at the end everything that the client held must be given back,
 * sequences that it kept and names that it gave too, and a well-behaved client must have noticed nothing.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "driver/model/model.h"
#include "driver/nil/nil.h"
#include "driver/ring/internal.h"
#include "driver/sched/internal.h"

#define POOL 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct mr_sched *sched;
static struct mr_ring_server *server;
static struct ring_client *good; /* its ring is used as a client uses it */

static void check(int holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "fuzz_ring: %s\n", what);
	abort();
}

static struct ring_client *make_client(void)
{
	static const struct mr_hello hello = {.features = UINT64_MAX,
					      .sq_entries = 8,
					      .cq_entries = 16,
					      .data_bytes = MR_DATA_BYTES_MIN};
	struct ring_client *client = NULL;

	check(mr_ring_client_create(server, &hello, -1, &client) == 0, "a client is made");
	return client;
}

static void make_server(void)
{
	const struct mr_nil_options nil = {0};
	struct mr_ring_server_options ring = {.clients_max = 2};
	struct mr_sched_options options = {.requests = POOL, .steps = 4};
	struct mr_model *model = NULL;
	struct mr_device *device = NULL;
	char path[64];

	snprintf(path, sizeof(path), "/tmp/millrace-fuzz-%d.sock", (int)getpid());
	check(mr_model_open("tests/tiny.gguf", &model, NULL, 0) == 0, "tests/tiny.gguf opens");
	check(mr_nil_open(&nil, &device) == 0, "the nil device opens");
	device->work->load(device, model, NULL, NULL);
	options.model = ring.model = model;
	options.prefill = options.decode = device;
	check(mr_sched_create(&options, &sched) == 0, "the orchestrator is made");
	ring.sched = sched;
	ring.socket_path = path;
	check(mr_ring_server_create(&ring, &server) == 0, "the server is made");
	unlink(path); /* nobody connects */
	good = make_client();
}

/* What must hold after every turn, whatever the client does. */
static void balance(const struct ring_client *client)
{
	uint32_t entries = client->mem.cq_mask + 1, promised = 0, cancels = 0;

	for (uint32_t i = 0; i < client->live_count; i++) {
		promised += client->slots[client->live[i]].promised;
		cancels += client->slots[client->live[i]].cancel;
	}
	check(promised == client->promised, "promises add up");
	check(cancels == client->cancels, "places for CANCELs add up");
	check(client->cq_index - client->cq_head + client->live_count + cancels + promised <=
		      entries,
	      "every CQE has room");
	check(mr_metric_read(MR_M_ring_overrun) == 0, "no token came without a promise");
}

static void turns(unsigned n)
{
	struct mr_front front = mr_ring_server_front(server);

	while (n--) {
		front.poll(front.ctx);
		mr_sched_poll(sched);
		for (uint32_t i = 0; i < server->place_end; i++)
			if (server->clients[i] && !server->clients[i]->dead)
				balance(server->clients[i]);
	}
}

/* The input, taken from the front; zeros after its end. */
struct script {
	const uint8_t *data;
	size_t size;
};

static uint64_t take(struct script *s, unsigned bytes)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < bytes; i++) {
		value |= (uint64_t)(s->size ? *s->data : 0) << 8 * i;
		s->data += s->size != 0;
		s->size -= s->size != 0;
	}
	return value;
}

static void scribble(const struct ring_client *client, struct script *s)
{
	unsigned char *base = (unsigned char *)client->mem.header;
	uint64_t at = take(s, 2) * 8, bytes = take(s, 1);

	for (uint64_t i = 0; i < bytes; i++)
		base[(at + i) % client->mem.bytes] = (unsigned char)take(s, 1);
}

/* Fills in an SQE and publishes it where the server looks next, or @ahead of that. */
static void push(const struct ring_client *client, struct script *s, uint32_t ahead)
{
	uint32_t index = client->sq_index + ahead;
	struct mr_sqe *sqe = &client->mem.sq[index & client->mem.sq_mask];

	*sqe = (struct mr_sqe){.op = (uint16_t)take(s, 1), .flags = (uint16_t)take(s, 1)};
	sqe->key = take(s, 1);
	sqe->data_offset = take(s, 2);
	sqe->data_bytes = (uint32_t)take(s, 2);
	sqe->params_offset = take(s, 2);
	sqe->params_bytes = (uint32_t)take(s, 2);
	sqe->target = take(s, 1);
	sqe->published = index + 1;
}

static void act(struct ring_client *client, struct script *s)
{
	struct mr_front front = mr_ring_server_front(server);
	uint64_t what = take(s, 1);

	switch (what % 8) {
	case 0:
		scribble(client, s);
		break;
	case 1:
	case 2:
		push(client, s, 0);
		break;
	case 3:
		push(client, s, (uint32_t)(what >> 3) % 8);
		break;
	case 4:
		client->mem.header->cq_head = client->cq_index; /* all of it read */
		break;
	case 5:
		client->mem.header->cq_head = client->cq_head + (uint32_t)take(s, 1);
		break;
	case 6:
		front.arm(front.ctx);
		break;
	default:
		turns(1 + (unsigned)(what >> 3));
	}
}

/* A NOP of the good client's comes back. */
static void still_good(void)
{
	uint32_t index = good->sq_index, at = good->cq_index;
	struct mr_sqe *sqe = &good->mem.sq[index & good->mem.sq_mask];
	const struct mr_cqe *cqe = &good->mem.cq[at & good->mem.cq_mask];

	*sqe = (struct mr_sqe){.op = MR_OP_NOP, .key = index, .published = index + 1};
	turns(1);
	check(cqe->published == at + 1 && cqe->type == MR_CQE_DONE && cqe->key == index,
	      "a good client is served");
	good->mem.header->cq_head = at + 1;
}

/* Nothing is left of a client that is gone. */
static void all_given_back(void)
{
	struct mr_request *held[POOL];
	const char *why = "";

	check(server->client_count == 1, "the client is freed");
	check(mr_sched_active(sched) == 0, "its requests have ended");
	check(sched->live == 0, "its sequences have ended");
	for (uint32_t i = 0; i < sched->prefix_count; i++)
		check(sched->prefixes[i].name == 0, "its prefixes are released");
	if (mr_sched_check(sched, &why))
		check(0, why);
	for (unsigned i = 0; i < POOL; i++)
		check((held[i] = mr_sched_request(sched)) != NULL, "its entries are back");
	for (unsigned i = 0; i < POOL; i++)
		mr_sched_abandon(sched, held[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct script script = {.data = data, .size = size};
	struct ring_client *client;

	if (!server)
		make_server();
	client = make_client();
	/* The client is freed once it is hung up on and holds nothing. */
	while (script.size && server->clients[1] && !client->dead)
		act(client, &script);
	still_good();
	if (server->clients[1])
		mr_ring_client_hang_up(client);
	for (unsigned i = 0; i < 1000 && server->client_count > 1; i++)
		turns(1);
	still_good();
	all_given_back();
	return 0;
}
