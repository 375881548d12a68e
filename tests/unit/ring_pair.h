/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring server and clients of it in one process, for the ring's tests: connecting needs the server's loop
 * to turn meanwhile, so it happens in a thread of its own.
 */
#ifndef TESTS_UNIT_RING_PAIR_H
#define TESTS_UNIT_RING_PAIR_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <millrace/millrace.h>

#include "driver/ring/internal.h"
#include "userlib/own.h"

struct pair_call {
	struct mr_ring_options options;
	struct mr_ring *ring;
	int rc;
	int done;
};

static inline void *pair_connect_thread(void *arg)
{
	struct pair_call *call = arg;

	call->rc = mr_ring_connect(&call->options, &call->ring);
	__atomic_store_n(&call->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* A path in the build's temporary folder that no other test uses. */
static inline void pair_path(char path[96])
{
	static unsigned count;

	snprintf(path, 96, "/tmp/millrace-test-%d-%u.sock", (int)getpid(), count++);
}

/* mr_ring_connect while this thread turns the server's loop. */
static inline int pair_connect(struct mr_ring_server *server, const struct mr_ring_options *options,
			       struct mr_ring **ring)
{
	struct mr_front front = mr_ring_server_front(server);
	struct pair_call call = {.options = *options};
	pthread_t thread;

	call.options.path = server->path;
	pthread_create(&thread, NULL, pair_connect_thread, &call);
	while (!__atomic_load_n(&call.done, __ATOMIC_ACQUIRE)) {
		front.poll(front.ctx);
		usleep(200);
	}
	pthread_join(thread, NULL);
	*ring = call.ring;
	return call.rc;
}

/*
 * Makes @ring use the server's own mapping: ThreadSanitizer cannot tell that two mappings are one memory. The
 * server's client is the one in @place.
 */
static inline void pair_one_mapping(struct mr_ring_server *server, uint32_t place,
				    struct mr_ring *ring)
{
	struct ring_memory *mem = &server->clients[place]->mem;

	ring->header = mem->header;
	ring->sq = mem->sq;
	ring->cq = mem->cq;
	ring->data = (unsigned char *)mem->data;
}

#endif /* TESTS_UNIT_RING_PAIR_H */
