/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rings by themselves, without an orchestrator: NOPs and refusals between a client and a server.
 * Random operations against a trivial model with odd sizes, nearly full queues and indices near 2^32; two
 * threads on one mapping (what ThreadSanitizer sees); lost wake-ups; broken peers.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>

#include <cmocka.h>

#include "tests/unit/ring_pair.h"

static struct mr_ring_server *start(uint32_t first_index)
{
	struct mr_ring_server_options options = {.first_index = first_index, .clients_max = 4};
	struct mr_ring_server *server;
	char path[96];

	pair_path(path);
	options.socket_path = path;
	assert_int_equal(mr_ring_server_create(&options, &server), 0);
	return server;
}

static int turn(struct mr_ring_server *server)
{
	struct mr_front front = mr_ring_server_front(server);

	return front.poll(front.ctx);
}

static uint64_t seed = 1;

static uint32_t any(uint32_t below)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)((seed >> 33) % below);
}

/* ---- random operations against a model ---- */

/* What is expected of each SQE, in order. A power of two larger than any queue here. */
#define EXPECT_MAX 1024u

struct expectation {
	uint64_t key;
	int status;
	uint32_t field;
};

struct model {
	struct expectation queue[EXPECT_MAX];
	uint32_t pushed, answered; /* counts */
};

/* An SQE and what ring.h says becomes of it. */
static struct mr_sqe make(struct expectation *e)
{
	struct mr_sqe sqe = {.op = MR_OP_NOP, .key = (uint64_t)any(1000) << 32 | any(1000)};

	*e = (struct expectation){.key = sqe.key};
	switch (any(12)) {
	case 0:
		sqe.op = (uint16_t)(MR_OP_COUNT + any(1000));
		*e = (struct expectation){sqe.key, MR_E_NOT_SUPPORTED, 4};
		break;
	case 1:
		sqe.op = MR_OP_FORK;
		*e = (struct expectation){sqe.key, MR_E_NOT_SUPPORTED, 4};
		break;
	case 2:
		sqe.flags = (uint16_t)(1 + any(65535));
		*e = (struct expectation){sqe.key, MR_E_VERSION, 6};
		break;
	case 3:
		sqe.target = 1 + any(99);
		*e = (struct expectation){sqe.key, MR_E_INVALID, 40};
		break;
	case 4:
		sqe.reserved = 1;
		*e = (struct expectation){sqe.key, MR_E_INVALID, 56};
		break;
	default:
		break;
	}
	return sqe;
}

static void push_some(struct mr_ring *ring, struct model *m, uint32_t entries)
{
	for (uint32_t n = any(entries + 2); n; n--) {
		struct expectation e;
		struct mr_sqe sqe = make(&e);
		uint32_t room = mr_ring_room(ring);
		int rc = mr_ring_push(ring, &sqe);

		assert_true(room <= entries);
		assert_int_equal(rc, room ? 0 : MR_E_FULL);
		if (!rc)
			m->queue[m->pushed++ % EXPECT_MAX] = e;
	}
}

static void take_some(struct mr_ring *ring, struct model *m, uint32_t entries)
{
	for (uint32_t n = any(entries + 2); n; n--) {
		struct expectation *e = &m->queue[m->answered % EXPECT_MAX];
		struct mr_cqe cqe;

		if (!mr_ring_poll(ring, &cqe))
			return;
		assert_true(m->answered != m->pushed);
		assert_int_equal(cqe.key, e->key);
		assert_int_equal(cqe.status, e->status);
		assert_int_equal(cqe.token, e->field);
		assert_int_equal(cqe.type, e->status ? MR_CQE_ERROR : MR_CQE_DONE);
		m->answered++;
	}
}

static void against_model(uint32_t first, uint32_t sq, uint32_t cq)
{
	struct mr_ring_server *server = start(first);
	struct mr_ring_options options = {.sq_entries = sq, .cq_entries = cq};
	struct model *m = calloc(1, sizeof(*m));
	struct ring_client *client;
	struct mr_ring *ring;

	assert_non_null(m);
	assert_int_equal(pair_connect(server, &options, &ring), 0);
	client = server->clients[0];
	sq = ring->sq_mask + 1;
	cq = ring->cq_mask + 1;
	assert_true(sq + cq < EXPECT_MAX);
	for (int i = 0; i < 20000; i++) {
		switch (any(3)) {
		case 0:
			push_some(ring, m, sq);
			break;
		case 1:
			take_some(ring, m, cq);
			break;
		default:
			turn(server);
			/* What is under way fits the two queues, and nothing is lost between. */
			assert_true(client->cq_index - client->cq_head <= cq);
			assert_int_equal(m->pushed, (uint32_t)(client->sq_index - first) +
							    (ring->sq_index - client->sq_index));
		}
	}
	for (int i = 0; i < 4 * (int)EXPECT_MAX && m->answered != m->pushed; i++) {
		turn(server);
		take_some(ring, m, cq);
	}
	assert_int_equal(m->answered, m->pushed);
	assert_true(m->pushed > 5000);
	mr_ring_disconnect(ring);
	mr_ring_server_destroy(server);
	free(m);
}

static void test_model(void **state)
{
	/* Asked sizes need not be powers of two; indices wrap within each run. */
	static const uint32_t sizes[][2] = {{4, 8}, {5, 9}, {64, 8}, {4, 200}, {33, 33}, {1, 1}};

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		against_model(0u - 1 - any(3000), sizes[i][0], sizes[i][1]);
}

/* ---- the data area: blocks handed out never overlap those that the server has not taken ---- */

static void test_data(void **state)
{
	struct block {
		uint64_t at, bytes;
		uint32_t index;
	} held[64];
	uint32_t count = 0, refused = 0, given = 0;
	struct mr_ring_server *server = start(0);
	struct mr_ring_options options = {.sq_entries = 16, .cq_entries = 64, .data_bytes = 8192};
	struct mr_ring *ring;
	struct mr_cqe cqe;

	assert_int_equal(pair_connect(server, &options, &ring), 0);
	assert_null(mr_ring_data(ring, 8193, &held[0].at));
	assert_null(mr_ring_data(ring, 0, &held[0].at));
	for (int i = 0; i < 200000; i++) {
		struct block b = {.bytes = 1 + any(any(8) ? 900 : 8192)};
		struct mr_sqe sqe = {.op = MR_OP_NOP};

		if (any(2) && mr_ring_room(ring)) {
			unsigned char *p = mr_ring_data(ring, b.bytes, &b.at);

			refused += !p;
			if (!p)
				continue;
			given++;
			assert_true(b.at + b.bytes <= 8192 && b.at % 64 == 0);
			for (uint32_t j = 0; j < count; j++)
				assert_true(b.at + b.bytes <= held[j].at ||
					    held[j].at + held[j].bytes <= b.at);
			b.index = ring->sq_index;
			held[count++] = b;
			assert_int_equal(mr_ring_push(ring, &sqe), 0);
		} else if (any(3) == 0) {
			uint32_t kept = 0, head;

			turn(server);
			while (mr_ring_poll(ring, &cqe))
				;
			head = ring->header->sq_head;
			for (uint32_t j = 0; j < count; j++)
				if ((int32_t)(held[j].index - head) >= 0)
					held[kept++] = held[j];
			count = kept;
		}
	}
	assert_true(given > 10000 && refused > 100);
	/* Idle, the whole area is there in one piece, wherever the last block ended. */
	turn(server);
	assert_non_null(mr_ring_data(ring, 8192, &held[0].at));
	mr_ring_disconnect(ring);
	mr_ring_server_destroy(server);
}

/* ---- two threads, one mapping ---- */

struct server_thread {
	struct mr_ring_server *server;
	pthread_t thread;
	int sleeps; /* 1 = sleeps between turns, 0 = always busy */
	int stop;
	uint64_t slept;
	uint64_t lost; /* sleeps that nobody ended although there was work */
};

/* A sleep that costs little: looks at the descriptor until it is readable, for at most @ns. */
static int nap(int fd, uint64_t ns)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t until = ring_now() + ns;

	while (ring_now() < until)
		if (poll(&p, 1, 0) == 1)
			return 1;
	return 0;
}

/* Up to half a microsecond, so that falling asleep meets every phase of the other side's publishing. */
static void dawdle(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	for (uint32_t n = (uint32_t)(*state >> 33) % 1000; n; n--)
		__asm__ volatile("" ::: "memory");
}

/*
 * Long enough to be asleep in vain, and then long enough to be sure: the other side may have been taken
 * off its core between its publishing and its waking.
 */
#define IN_VAIN_NS 20000000u
#define SURE_NS    2000000000u

static void *serve(void *arg)
{
	struct server_thread *t = arg;
	struct mr_front front = mr_ring_server_front(t->server);
	const struct ring_client *client = t->server->clients[0];
	uint64_t state = 7;

	while (!__atomic_load_n(&t->stop, __ATOMIC_ACQUIRE)) {
		if (front.poll(front.ctx) || !t->sleeps)
			continue;
		dawdle(&state);
		if (front.arm(front.ctx))
			continue;
		t->slept++;
		if (nap(front.wait_fd, IN_VAIN_NS) ||
		    __atomic_load_n(
			    &client->mem.sq[client->sq_index & client->mem.sq_mask].published,
			    __ATOMIC_ACQUIRE) != client->sq_index + 1)
			continue;
		t->lost += !nap(front.wait_fd, SURE_NS);
	}
	return NULL;
}

static void run_server(struct server_thread *t)
{
	pthread_create(&t->thread, NULL, serve, t);
}

static void stop_server(struct server_thread *t)
{
	__atomic_store_n(&t->stop, 1, __ATOMIC_RELEASE);
	pthread_join(t->thread, NULL);
}

static void test_threads(void **state)
{
	struct mr_ring_options options = {.sq_entries = 8, .cq_entries = 16};
	struct server_thread t = {.server = start(0)};
	uint64_t pushed = 0, taken = 0, until = ring_now() + 20000000000u;
	const uint64_t count = 200000;
	struct mr_ring *ring;

	assert_int_equal(pair_connect(t.server, &options, &ring), 0);
	pair_one_mapping(t.server, 0, ring);
	run_server(&t);
	while (taken < count && ring_now() < until) {
		struct mr_cqe cqe;

		while (pushed < count && mr_ring_nop(ring, pushed) == 0)
			pushed++;
		while (mr_ring_poll(ring, &cqe)) {
			assert_int_equal(cqe.key, taken);
			assert_int_equal(cqe.status, 0);
			taken++;
		}
	}
	stop_server(&t);
	assert_int_equal(taken, count);
	mr_ring_disconnect(ring);
	mr_ring_server_destroy(t.server);
}

/* Both sides go to sleep whenever there is nothing to do; each must always be woken. */
static void test_wakeups(void **state)
{
	struct mr_ring_options options = {.sq_entries = 8, .cq_entries = 16};
	struct server_thread t = {.server = start(0), .sleeps = 1};
	uint64_t slept = 0, lost = 0, rounds = 0;
	uint64_t until = ring_now() + 4000000000u, phase = 3;
	struct mr_ring *ring;
	eventfd_t ignore;

	assert_int_equal(pair_connect(t.server, &options, &ring), 0);
	pair_one_mapping(t.server, 0, ring);
	run_server(&t);
	for (; rounds < 500000 && ring_now() < until; rounds++) {
		/* From one to some at a time, so that every phase of falling asleep is met. */
		uint32_t n = 1 + any(3);

		for (uint32_t i = 0; i < n; i++)
			assert_int_equal(mr_ring_nop(ring, i), 0);
		for (uint32_t taken = 0; taken < n && !lost;) {
			struct mr_cqe cqe;

			while (mr_ring_poll(ring, &cqe))
				taken++;
			if (taken == n)
				break;
			dawdle(&phase);
			if (mr_ring_arm(ring))
				continue;
			slept++;
			if (nap(mr_ring_fd(ring), IN_VAIN_NS))
				(void)eventfd_read(mr_ring_fd(ring), &ignore);
			else if (mr_ring_peek(ring))
				lost += !nap(mr_ring_fd(ring), SURE_NS);
			mr_ring_disarm(ring);
		}
	}
	stop_server(&t);
	print_message("%llu rounds, %llu sleeps, %llu lost\n", (unsigned long long)rounds,
		      (unsigned long long)(slept + t.slept), (unsigned long long)(lost + t.lost));
	assert_int_equal(lost + t.lost, 0);
	assert_true(slept + t.slept > 1000);
	mr_ring_disconnect(ring);
	mr_ring_server_destroy(t.server);
}

/* ---- broken peers ---- */

/* Whether the server hangs up on @ring within some turns, and counts why. */
static void expect_hang_up(struct mr_ring_server *server, struct mr_ring *ring)
{
	uint64_t before = mr_metric_read(MR_M_ring_bad_peer);
	struct mr_cqe cqe;

	for (int i = 0; i < 10; i++)
		turn(server);
	assert_int_equal(mr_metric_read(MR_M_ring_bad_peer), before + 1);
	assert_int_equal(mr_ring_server_clients(server), 0);
	/* What was published before is still to be had, then the library says so. */
	while (mr_ring_poll(ring, &cqe))
		;
	assert_int_equal(mr_ring_wait(ring, 1000000000), MR_E_DISCONNECTED);
	mr_ring_disconnect(ring);
}

static void test_broken(void **state)
{
	struct mr_ring_options options = {.sq_entries = 8, .cq_entries = 8};
	struct mr_ring_server *server = start(77);
	struct mr_ring *ring;

	/* A sequence word that is neither the next nor the last lap's. */
	assert_int_equal(pair_connect(server, &options, &ring), 0);
	ring->sq[ring->sq_index & ring->sq_mask].published += 3;
	expect_hang_up(server, ring);

	/* Credit for what was never written; it is looked at when the queue seems full. */
	assert_int_equal(pair_connect(server, &options, &ring), 0);
	ring->header->cq_head += 100;
	for (int i = 0; i < 8; i++) {
		assert_int_equal(mr_ring_nop(ring, 1), 0);
		turn(server);
	}
	assert_int_equal(mr_ring_nop(ring, 1), 0);
	expect_hang_up(server, ring);

	/* Credit that goes back. */
	assert_int_equal(pair_connect(server, &options, &ring), 0);
	for (int i = 0; i < 8; i++)
		assert_int_equal(mr_ring_nop(ring, 1), 0);
	turn(server);
	ring->header->cq_head = 77 - 1;
	assert_int_equal(mr_ring_nop(ring, 1), 0);
	expect_hang_up(server, ring);
	mr_ring_server_destroy(server);
}

/* A client that takes nothing slows only itself: its SQEs wait, another's go on, nothing is lost. */
static void test_full(void **state)
{
	struct mr_ring_options options = {.sq_entries = 32, .cq_entries = 8};
	struct mr_ring_server *server = start(0);
	uint64_t before = mr_metric_read(MR_M_ring_cq_full);
	struct mr_ring *slow, *quick;
	struct mr_cqe cqe;

	assert_int_equal(pair_connect(server, &options, &slow), 0);
	assert_int_equal(pair_connect(server, &options, &quick), 0);
	for (uint64_t i = 0; i < 32; i++)
		assert_int_equal(mr_ring_nop(slow, i), 0);
	assert_int_equal(mr_ring_nop(slow, 32), MR_E_FULL);
	for (uint64_t i = 0; i < 1000; i++) {
		assert_int_equal(mr_ring_nop(quick, i), 0);
		turn(server);
		assert_int_equal(mr_ring_poll(quick, &cqe), 1);
		assert_int_equal(cqe.key, i);
	}
	assert_int_equal(mr_metric_read(MR_M_ring_cq_full), before + 1);
	for (uint64_t i = 0; i < 32; i++) {
		turn(server);
		assert_int_equal(mr_ring_poll(slow, &cqe), 1);
		assert_int_equal(cqe.key, i);
	}
	mr_ring_disconnect(slow);
	mr_ring_disconnect(quick);
	mr_ring_server_destroy(server);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),   cmocka_unit_test(test_data),
		cmocka_unit_test(test_threads), cmocka_unit_test(test_wakeups),
		cmocka_unit_test(test_broken),  cmocka_unit_test(test_full),
	};

	return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
