/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole server for the ring's end-to-end tests: tests/tiny.gguf, a device, the orchestrator and the ring
 * server, turned by a thread that sleeps when there is nothing to do, as `millrace serve` does.
 */
#ifndef TESTS_UNIT_RING_WORLD_H
#define TESTS_UNIT_RING_WORLD_H

#include <poll.h>

#include "driver/cpu/cpu.h"
#include "driver/mem/arena.h"
#include "driver/model/model.h"
#include "driver/nil/nil.h"
#include "tests/unit/ring_pair.h"

struct world {
	struct mr_model *model;
	struct mr_arena *arena; /* of a CPU device */
	struct mr_device *device;
	struct mr_sched *sched;
	struct mr_ring_server *server;
	char path[96];
	pthread_t thread;
	int running;
	int stop;
	int hung;                 /* 1 = the loop stands still and holds everything */
	uint32_t held;            /* 1 = it does */
	uint32_t active, clients; /* as the loop saw them last */
};

static inline void *world_loop(void *arg)
{
	struct world *w = arg;
	struct mr_front front = mr_ring_server_front(w->server);
	struct pollfd p[2] = {{.fd = front.wait_fd, .events = POLLIN},
			      {.fd = w->device->wait_fd, .events = POLLIN}};

	while (!__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE)) {
		int did = front.poll(front.ctx) + mr_sched_poll(w->sched);

		__atomic_store_n(&w->active, mr_sched_active(w->sched), __ATOMIC_RELEASE);
		__atomic_store_n(&w->clients, mr_ring_server_clients(w->server), __ATOMIC_RELEASE);
		while (__atomic_load_n(&w->hung, __ATOMIC_ACQUIRE) &&
		       !__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE)) {
			__atomic_store_n(&w->held, 1, __ATOMIC_RELEASE);
			usleep(1000);
		}
		__atomic_store_n(&w->held, 0, __ATOMIC_RELEASE);
		if (!did && !mr_sched_arm(w->sched) && !front.arm(front.ctx))
			poll(p, 2, 200);
	}
	return NULL;
}

static inline int world_device(struct world *w, int cpu, uint64_t kv_tokens)
{
	const struct mr_arena_options memory = {.node = -1, .no_huge = 1};
	const struct mr_nil_options nil = {.kv_tokens = kv_tokens};
	struct mr_cpu_options options = {
		.slots = 40, .kv_tokens = 16384, .numerics = MR_NUMERICS_STRICT, .cpu = -1};
	int rc;

	if (!cpu)
		return mr_nil_open(&nil, &w->device);
	rc = mr_arena_create(&memory, &w->arena);
	options.arena = w->arena;
	return rc ? rc : mr_cpu_open(&options, &w->device);
}

/*
 * Everything but the thread, on the CPU device or the nil device, which has @kv_tokens of KV (0 = plenty);
 * @requests: entries of the orchestrator's pool. Returns 0 or a status.
 */
static inline int world_make_with(struct world *w, int cpu, uint32_t requests, uint64_t kv_tokens)
{
	struct mr_sched_options sched = {.requests = requests};
	struct mr_ring_server_options ring = {.socket_path = w->path};
	char why[256] = "";
	int rc;

	memset(w, 0, sizeof(*w));
	pair_path(w->path);
	rc = mr_model_open(MR_TEST_DATA "/tiny.gguf", &w->model, why, sizeof(why));
	if (!rc)
		rc = world_device(w, cpu, kv_tokens);
	if (!rc)
		rc = w->device->work->load(w->device, w->model, NULL, NULL);
	sched.model = ring.model = w->model;
	sched.prefill = sched.decode = w->device;
	if (!rc)
		rc = mr_sched_create(&sched, &w->sched);
	ring.sched = w->sched;
	if (!rc)
		rc = mr_ring_server_create(&ring, &w->server);
	return rc;
}

static inline int world_make_on(struct world *w, int cpu, uint32_t requests)
{
	return world_make_with(w, cpu, requests, 0);
}

static inline int world_make(struct world *w, uint32_t requests)
{
	return world_make_on(w, 0, requests);
}

static inline void world_run(struct world *w)
{
	w->running = 1;
	pthread_create(&w->thread, NULL, world_loop, w);
}

static inline void world_halt(struct world *w)
{
	__atomic_store_n(&w->stop, 1, __ATOMIC_RELEASE);
	if (w->running)
		pthread_join(w->thread, NULL);
	w->running = 0;
}

static inline void world_end(struct world *w)
{
	world_halt(w);
	mr_sched_destroy(w->sched);
	mr_ring_server_destroy(w->server);
	w->device->admin->close(w->device);
	if (w->arena)
		mr_arena_destroy(w->arena);
	mr_model_close(w->model);
}

/* Waits at most 5 s for *@word, which the loop writes, to be @value; returns what it is. */
static inline uint32_t world_settle(const uint32_t *word, uint32_t value)
{
	for (int i = 0; i < 5000 && __atomic_load_n(word, __ATOMIC_ACQUIRE) != value; i++)
		usleep(1000);
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* Stops the loop between two turns: what is submitted until world_let_go is seen in one turn. 0 or -1. */
static inline int world_hold(struct world *w)
{
	__atomic_store_n(&w->hung, 1, __ATOMIC_RELEASE);
	return world_settle(&w->held, 1) == 1 ? 0 : -1;
}

static inline void world_let_go(struct world *w)
{
	__atomic_store_n(&w->hung, 0, __ATOMIC_RELEASE);
}

#endif /* TESTS_UNIT_RING_WORLD_H */
