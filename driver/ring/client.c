/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client's connection: made when hands are shaken, hung up on when its socket ends or when it breaks the
 * protocol, freed when the last of its requests has ended. Slots are its requests under way.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "driver/ring/internal.h"

/* Ring clients and wire keys share the orchestrator's name space of clients. */
#define CLIENT_IS_RING (1ull << 63)

static int make_slots(struct ring_client *client)
{
	uint32_t count = client->mem.header->requests_max; /* nobody else has the memory yet */

	client->requests_max = count;
	client->slots = calloc(count, sizeof(*client->slots));
	client->live = calloc(count, sizeof(*client->live));
	client->ahead = calloc(client->mem.sq_mask / 64 + 1, sizeof(*client->ahead));
	if (!client->slots || !client->live || !client->ahead)
		return MR_E_NO_MEMORY;
	for (uint32_t i = 0; i < count; i++) {
		client->live[i] = i;
		client->slots[i].live = i;
	}
	return 0;
}

int mr_ring_client_create(struct mr_ring_server *server, const struct mr_hello *hello, int socket,
			  struct ring_client **out)
{
	struct ring_client *client;
	uint32_t place = 0;
	int rc;

	while (place < server->options.clients_max && server->clients[place])
		place++;
	if (place == server->options.clients_max)
		return MR_E_FULL;
	client = calloc(1, sizeof(*client));
	if (!client)
		return MR_E_NO_MEMORY;
	client->server = server;
	client->place = place;
	client->id = CLIENT_IS_RING | ++server->next_id;
	client->features = (hello->features | hello->required) & server->features;
	client->socket = -1;
	client->mem.fd = -1;
	client->sq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	client->cq_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = client->sq_fd < 0 || client->cq_fd < 0 ? MR_E_NO_MEMORY : 0;
	if (!rc)
		rc = mr_ring_memory_create(server, hello, client, &client->mem);
	client->areas[0] = (struct ring_area){client->mem.data, client->mem.data_bytes};
	if (!rc)
		rc = make_slots(client);
	if (rc) {
		mr_ring_client_free(client);
		return rc;
	}
	client->sq_index = server->options.first_index;
	client->looked = server->options.first_index;
	client->cq_index = server->options.first_index;
	client->cq_head = server->options.first_index;
	client->socket = socket;
	server->clients[place] = client;
	server->client_count++;
	if (server->place_end <= place)
		server->place_end = place + 1;
	*out = client;
	return 0;
}

void mr_ring_client_hang_up(struct ring_client *client)
{
	struct mr_ring_server *server = client->server;

	if (client->dead)
		return;
	client->dead = 1;
	/* The client may hold these files open, so closing alone would leave them in the epoll set. */
	epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, client->socket, NULL);
	epoll_ctl(server->epoll_fd, EPOLL_CTL_DEL, client->sq_fd, NULL);
	close(client->socket);
	client->socket = -1;
	mr_ring_buffers_drop(client); /* nothing more is taken from it */
	mr_count(MR_M_ring_disconnects, 1);
	/* Requests, and what outlives them: sequences that it kept, prefixes that it named. */
	if (server->options.sched)
		mr_sched_cancel_client(server->options.sched, client->id);
}

void mr_ring_client_free(struct ring_client *client)
{
	struct mr_ring_server *server = client->server;

	if (server->clients[client->place] == client) {
		server->clients[client->place] = NULL;
		server->client_count--;
		while (server->place_end && !server->clients[server->place_end - 1])
			server->place_end--;
	}
	mr_ring_buffers_drop(client);
	mr_ring_memory_destroy(&client->mem);
	if (client->sq_fd >= 0)
		close(client->sq_fd);
	if (client->cq_fd >= 0)
		close(client->cq_fd);
	if (client->socket >= 0)
		close(client->socket);
	free(client->slots);
	free(client->live);
	free(client->ahead);
	free(client);
}

uint32_t mr_ring_slot_take(struct ring_client *client)
{
	uint32_t index = client->live[client->live_count];
	struct ring_slot *slot = &client->slots[index];

	slot->live = client->live_count++;
	slot->promised = 0;
	slot->cancel = 1;
	client->cancels++;
	slot->scored = 0;
	slot->overrun = 0;
	return index;
}

void mr_ring_slot_give(struct ring_client *client, uint32_t index)
{
	struct ring_slot *slot = &client->slots[index];
	uint32_t last = --client->live_count;
	uint32_t moved = client->live[last];

	client->promised -= slot->promised;
	client->cancels -= slot->cancel;
	client->live[slot->live] = moved;
	client->slots[moved].live = slot->live;
	client->live[last] = index;
	slot->live = last;
}
