/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring server's turn in the loop, and its sleep: takes SQEs from every client while there is room for
 * their answers, returns credit, wakes clients that sleep, and shows that the server lives. Nothing here
 * makes a system call while all are busy, but for the control plane some hundred times a second.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "driver/ring/internal.h"

/* SQEs that one client may have taken in one turn, so that none starves the others. */
#define TAKE_MAX 32u

/* Some milliseconds fine, and read without a system call. */
static uint64_t coarse_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* SQ_TAKE: 1 = SQE @index is there; a sequence word that cannot be breaks the client. */
static int published(struct ring_client *client, uint32_t index)
{
	uint32_t word = __atomic_load_n(&client->mem.sq[index & client->mem.sq_mask].published,
					__ATOMIC_ACQUIRE);

	if (word == index + 1)
		return 1;
	if (word != index - client->mem.sq_mask)
		client->broken = 1;
	return 0;
}

/* Copies the entry out, each word read once. Relaxed: ordered by SQ_TAKE. */
static void copy_sqe(const struct ring_client *client, uint32_t index, struct mr_sqe *sqe)
{
	const uint64_t *from = (const uint64_t *)&client->mem.sq[index & client->mem.sq_mask];
	uint64_t *to = (uint64_t *)sqe;

	for (unsigned i = 0; i < sizeof(*sqe) / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

static uint64_t *ahead_word(const struct ring_client *client, uint32_t index)
{
	return &client->ahead[(index & client->mem.sq_mask) / 64];
}

/* Whether SQE @index was taken before its turn. Never read again: what it says now is not what was done. */
static int was_ahead(const struct ring_client *client, uint32_t index)
{
	return (*ahead_word(client, index) >> index % 64 & 1) != 0;
}

/* Whether there are SQEs behind the one that waits for room that were not looked at yet. */
static int more_to_look_at(struct ring_client *client)
{
	return client->looked - client->sq_index <= client->mem.sq_mask &&
	       published(client, client->looked);
}

/*
 * While the next SQE waits for room: takes the CANCELs and RELEASEs of requests under way that lie behind it,
 * for which room is set aside. A turn looks at TAKE_MAX SQEs, each of which is looked at once, until an SQE
 * is taken in its turn, which may have made a request that others name.
 */
static int look_ahead(struct ring_client *client)
{
	struct mr_sqe sqe;
	int taken = 0;

	for (uint32_t n = 0; n < TAKE_MAX && more_to_look_at(client); n++) {
		uint32_t index = client->looked++;

		if (was_ahead(client, index))
			continue;
		copy_sqe(client, index, &sqe);
		if (!mr_ring_take_ahead(client, &sqe))
			continue;
		*ahead_word(client, index) |= 1ull << index % 64;
		taken++;
	}
	return taken;
}

static int take(struct ring_client *client)
{
	uint32_t from = client->sq_index;
	struct mr_sqe sqe;
	int taken = 0;

	while (client->sq_index - from < TAKE_MAX && published(client, client->sq_index)) {
		uint32_t index = client->sq_index, want;

		if (was_ahead(client, index)) {
			*ahead_word(client, index) &= ~(1ull << index % 64);
			client->sq_index++;
			if (client->looked == index)
				client->looked++;
			continue;
		}
		copy_sqe(client, index, &sqe);
		want = mr_ring_room_of(&sqe);
		if (mr_ring_cq_room(client, want) < want) {
			mr_ring_cq_stall(client);
			taken += look_ahead(client);
			if (was_ahead(client, index))
				continue;
			break;
		}
		client->looked = ++client->sq_index;
		mr_ring_take(client, &sqe);
		taken++;
	}
	if (client->sq_index != from) {
		/* SQ_CREDIT: everything that these entries name has been copied. */
		__atomic_store_n(&client->mem.header->sq_head, client->sq_index, __ATOMIC_RELEASE);
		client->owed |= MR_WAKEUP_CREDIT;
	}
	return taken;
}

static int turn(struct ring_client *client)
{
	int work = 0;

	if (client->broken && !client->dead) {
		mr_count(MR_M_ring_bad_peer, 1);
		mr_ring_client_hang_up(client);
	}
	if (client->dead) {
		if (!client->live_count)
			mr_ring_client_free(client);
		return 0;
	}
	if (client->stalled && mr_ring_cq_moved(client)) {
		client->stalled = 0;
		work = 1; /* the orchestrator may use the room before anyone sleeps */
	}
	work += take(client);
	if (client->owed)
		mr_ring_cq_wake(client);
	return work;
}

static int poll_turn(void *ctx)
{
	struct mr_ring_server *server = ctx;
	uint64_t now = coarse_ns();
	int work = 0;
	uint32_t i;

	if (server->asleep || now != server->ticked_ns) {
		server->ticked_ns = now;
		for (i = 0; i < server->place_end; i++) {
			struct ring_client *client = server->clients[i];

			if (!client)
				continue;
			/* Relaxed: a time (BEAT); a word whose late clearing costs one write. */
			__atomic_store_n(&client->mem.header->heartbeat, now, __ATOMIC_RELAXED);
			if (server->asleep)
				__atomic_store_n(&client->mem.header->sq_need_wakeup, 0,
						 __ATOMIC_RELAXED);
		}
		server->asleep = 0;
		work += mr_ring_control(server, now);
	}
	for (i = 0; i < server->place_end; i++)
		if (server->clients[i])
			work += turn(server->clients[i]);
	return work;
}

/* For the next SQE, which is there. */
static int has_room(struct ring_client *client)
{
	struct mr_sqe sqe;
	uint32_t want;

	copy_sqe(client, client->sq_index, &sqe);
	want = mr_ring_room_of(&sqe);
	return mr_ring_cq_room(client, want) >= want;
}

/* SQ_SLEEP, for all clients under one fence. */
static int arm(void *ctx)
{
	struct mr_ring_server *server = ctx;
	uint32_t i;

	server->asleep = 1;
	for (i = 0; i < server->place_end; i++) {
		struct ring_client *client = server->clients[i];

		if (!client)
			continue;
		if (client->dead || client->broken)
			return 1;
		if (client->owed)
			mr_ring_cq_wake(client);
		/* Relaxed: the fence below orders it before the second look. */
		__atomic_store_n(&client->mem.header->sq_need_wakeup,
				 MR_WAKEUP_ENTRY | (client->stalled ? MR_WAKEUP_CREDIT : 0),
				 __ATOMIC_RELAXED);
	}
	mr_ring_full_fence();
	for (i = 0; i < server->place_end; i++) {
		struct ring_client *client = server->clients[i];

		if (!client)
			continue;
		if (client->stalled && mr_ring_cq_moved(client))
			return 1;
		/*
		 * Without room it may wait, once the client knows to wake us for its credit, and all
		 * that lies behind it was looked at.
		 */
		if (published(client, client->sq_index) &&
		    (!client->stalled || has_room(client) || more_to_look_at(client)))
			return 1;
		if (client->broken)
			return 1;
	}
	return 0;
}

struct mr_front mr_ring_server_front(struct mr_ring_server *server)
{
	return (struct mr_front){
		.ctx = server, .poll = poll_turn, .arm = arm, .wait_fd = server->epoll_fd};
}

uint32_t mr_ring_server_clients(const struct mr_ring_server *server)
{
	return server->client_count;
}

static int fill_options(struct mr_ring_server *server, const struct mr_ring_server_options *options)
{
	struct mr_ring_server_options *o = &server->options;

	*o = *options;
	o->sq_entries = o->sq_entries ? o->sq_entries : 256;
	o->cq_entries = o->cq_entries ? o->cq_entries : 4096;
	o->data_bytes = o->data_bytes ? o->data_bytes : 1u << 20;
	o->clients_max = o->clients_max ? o->clients_max : 64;
	o->requests_max = o->requests_max ? o->requests_max : 256;
	o->socket_mode = o->socket_mode ? o->socket_mode : 0600;
	o->first_index = o->first_index ? o->first_index : 0u - 256;
	if (o->sq_entries > MR_SQ_ENTRIES_MAX || o->cq_entries > MR_CQ_ENTRIES_MAX ||
	    o->data_bytes > MR_DATA_BYTES_MAX || o->clients_max > 65536 || !o->socket_path)
		return MR_E_INVALID;
	if (strlen(o->socket_path) >= sizeof(server->path))
		return MR_E_TOO_LARGE;
	snprintf(server->path, sizeof(server->path), "%s", o->socket_path);
	o->socket_path = server->path;
	return 0;
}

int mr_ring_server_create(const struct mr_ring_server_options *options, struct mr_ring_server **out)
{
	struct mr_ring_server *server = calloc(1, sizeof(*server));
	int rc;

	if (!server)
		return MR_E_NO_MEMORY;
	server->listen_fd = server->epoll_fd = server->vocab_fd = -1;
	for (uint32_t i = 0; i < RING_PENDING_MAX; i++)
		server->pending[i].fd = -1;
	rc = fill_options(server, options);
	server->features = mr_ring_features_of(options->sched);
	if (!rc) {
		server->clients = calloc(server->options.clients_max, sizeof(*server->clients));
		rc = server->clients ? mr_ring_vocab_create(server) : MR_E_NO_MEMORY;
	}
	if (!rc)
		rc = mr_ring_listen(server);
	if (rc) {
		mr_ring_server_destroy(server);
		return rc;
	}
	*out = server;
	return 0;
}

void mr_ring_server_destroy(struct mr_ring_server *server)
{
	if (!server)
		return;
	for (uint32_t i = 0; server->clients && i < server->options.clients_max; i++) {
		if (!server->clients[i])
			continue;
		if (server->clients[i]->owed)
			mr_ring_cq_wake(server->clients[i]);
		mr_ring_client_free(server->clients[i]);
	}
	mr_ring_unlisten(server);
	if (server->vocab_fd >= 0)
		close(server->vocab_fd);
	free(server->clients);
	free(server);
}
