/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libmillrace against a whole server (nil device): many clients, slow clients, cancelling, clients that are
 * killed, servers that end or hang, the vocabulary, and the one copy of the prompt.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "driver/model/tokenizer.h"
#include "tests/unit/ring_world.h"

#define SECOND 1000000000

static const struct mr_params PARAMS = {.version = MR_PARAMS_VERSION, .max_tokens = 20};

static struct mr_ring *join(struct world *w, uint32_t cq_entries)
{
	struct mr_ring_options options = {.path = w->path, .cq_entries = cq_entries};
	struct mr_ring *ring = NULL;

	assert_int_equal(mr_ring_connect(&options, &ring), 0);
	return ring;
}

static struct mr_cqe next(struct mr_ring *ring)
{
	struct mr_cqe cqe = {0};

	assert_int_equal(mr_ring_wait(ring, 5ll * SECOND), 0);
	assert_int_equal(mr_ring_poll(ring, &cqe), 1);
	return cqe;
}

static void begin(struct world *w, uint32_t requests)
{
	assert_int_equal(world_make(w, requests), 0);
	world_run(w);
}

/* ---- tokens ---- */

/* Takes one request's CQEs to its end, checking that nothing is missing, twice or out of order. */
static uint32_t take_answer(struct mr_ring *ring, uint64_t key, int status)
{
	uint32_t tokens = 0, first = 0;

	for (;;) {
		struct mr_cqe cqe = next(ring);

		assert_int_equal(cqe.key, key);
		assert_int_equal(cqe.op, MR_OP_SUBMIT);
		if (cqe.type != MR_CQE_TOKEN) {
			assert_int_equal(cqe.status, status);
			assert_int_equal(cqe.type, status ? MR_CQE_ERROR : MR_CQE_DONE);
			assert_int_equal(cqe.index, tokens);
			assert_int_equal(cqe.position, first + tokens);
			return tokens;
		}
		if (!tokens)
			first = cqe.position;
		assert_int_equal(cqe.index, tokens);
		assert_int_equal(cqe.position, first + tokens);
		assert_true(cqe.sequence > 0 && cqe.generation > 0 && cqe.seen_ns > 0);
		tokens++;
	}
}

static void test_one(void **state)
{
	static const uint32_t ids[] = {20, 21, 22};
	uint64_t copied = mr_metric_read(MR_M_copy_prompt_ring);
	struct mr_ring *ring;
	static struct world w;

	begin(&w, 8);
	ring = join(&w, 0);
	assert_int_equal(mr_ring_nop(ring, 5), 0);
	assert_int_equal(next(ring).key, 5);
	assert_int_equal(
		mr_ring_submit_text(ring, 6, "Hello, ring", 11, MR_SUBMIT_IGNORE_EOS, &PARAMS), 0);
	assert_int_equal(take_answer(ring, 6, 0), 20);
	assert_int_equal(mr_ring_submit_text(ring, 7, "chat", 4,
					     MR_SUBMIT_CHAT | MR_SUBMIT_IGNORE_EOS, NULL),
			 0);
	assert_int_equal(take_answer(ring, 7, 0), MR_MAX_TOKENS);
	/* The nil device counts upwards from the last id of the prompt. */
	assert_int_equal(mr_ring_submit_tokens(ring, 8, ids, 3, MR_SUBMIT_IGNORE_EOS, &PARAMS), 0);
	for (uint32_t i = 0; i < 20; i++) {
		struct mr_cqe cqe = next(ring);

		assert_int_equal(cqe.token, 23 + i);
		assert_int_equal(cqe.position, 3 + i);
	}
	assert_int_equal(next(ring).ended, MR_ENDED_LENGTH);
	mr_ring_disconnect(ring);
	assert_int_equal(world_settle(&w.clients, 0), 0);
	world_end(&w);
	/* One copy of each prompt, and no byte more. */
	assert_int_equal(mr_metric_read(MR_M_copy_prompt_ring) - copied, 11 + 4 + 12);
}

#define CLIENTS  5u
#define REQUESTS 12u

static void test_many(void **state)
{
	uint32_t indices[CLIENTS][REQUESTS] = {{0}}, ended = 0;
	struct mr_ring *rings[CLIENTS];
	static struct world w;

	begin(&w, CLIENTS * REQUESTS);
	for (uint32_t c = 0; c < CLIENTS; c++)
		rings[c] = join(&w, 16u << c);
	for (uint32_t r = 0; r < REQUESTS; r++)
		for (uint32_t c = 0; c < CLIENTS; c++)
			/* The same keys everywhere: a key is the client's own. */
			assert_int_equal(mr_ring_submit_text(rings[c], r, "some prompt", 11,
							     MR_SUBMIT_IGNORE_EOS, &PARAMS),
					 0);
	while (ended < CLIENTS * REQUESTS) {
		for (uint32_t c = 0; c < CLIENTS; c++) {
			struct mr_cqe cqe;

			if (mr_ring_wait(rings[c], SECOND / 1000) || !mr_ring_poll(rings[c], &cqe))
				continue;
			assert_true(cqe.key < REQUESTS);
			if (cqe.type == MR_CQE_TOKEN) {
				assert_int_equal(cqe.index, indices[c][cqe.key]++);
				continue;
			}
			/* The smallest queues allow four and eight requests at a time. */
			if (c < 2 && cqe.type == MR_CQE_ERROR)
				assert_int_equal(cqe.status, MR_E_QUOTA);
			else
				assert_int_equal(cqe.type, MR_CQE_DONE);
			if (cqe.type == MR_CQE_DONE)
				assert_int_equal(indices[c][cqe.key], 20);
			ended++;
		}
	}
	assert_int_equal(world_settle(&w.active, 0), 0);
	for (uint32_t c = 0; c < CLIENTS; c++)
		mr_ring_disconnect(rings[c]);
	assert_int_equal(world_settle(&w.clients, 0), 0);
	world_end(&w);
}

/* A client that reads nothing holds up nobody, loses nothing, and can still cancel. */
static void test_slow(void **state)
{
	struct mr_params params = PARAMS;
	struct mr_ring *slow, *quick;
	int cancelled = 0, answered = 0;
	uint32_t tokens = 0;
	static struct world w;

	params.max_tokens = 100;
	begin(&w, 8);
	slow = join(&w, 8);
	quick = join(&w, 0);
	/* Both in one turn: were the queue full of the first one's tokens, the second would wait, and a CANCEL behind it. */
	assert_int_equal(world_hold(&w), 0);
	assert_int_equal(mr_ring_submit_text(slow, 1, "one", 3, MR_SUBMIT_IGNORE_EOS, &params), 0);
	assert_int_equal(mr_ring_submit_text(slow, 2, "two", 3, MR_SUBMIT_IGNORE_EOS, &params), 0);
	world_let_go(&w);
	assert_int_equal(world_settle(&w.active, 2), 2);
	for (uint32_t i = 0; i < 50; i++) {
		assert_int_equal(
			mr_ring_submit_text(quick, i, "prompt", 6, MR_SUBMIT_IGNORE_EOS, &PARAMS),
			0);
		assert_int_equal(take_answer(quick, i, 0), 20);
	}
	/* The last quick one's DONE was seen before the loop ends its turn. */
	assert_int_equal(world_settle(&w.active, 2), 2);
	/* Key 1 is cancelled while the queue is full of tokens; key 2 then comes to its end. */
	assert_int_equal(mr_ring_cancel(slow, 9, 1), 0);
	assert_int_equal(world_settle(&w.active, 1), 1); /* before anything is read */
	while (!cancelled || !answered || tokens < 100) {
		struct mr_cqe cqe = next(slow);

		if (cqe.key == 9) {
			assert_int_equal(cqe.type, MR_CQE_DONE);
			answered++;
		} else if (cqe.key == 1 && cqe.type != MR_CQE_TOKEN) {
			assert_int_equal(cqe.status, MR_E_CANCELLED);
			assert_int_equal(cqe.ended, MR_ENDED_CANCEL);
			cancelled++;
		} else if (cqe.key == 2) {
			assert_int_equal(cqe.type, MR_CQE_TOKEN);
			assert_int_equal(cqe.index, tokens++);
		}
	}
	assert_int_equal(next(slow).type, MR_CQE_DONE);
	assert_int_equal(mr_ring_release(slow, 10, 2), 0);
	assert_int_equal(next(slow).status, MR_E_NOT_FOUND);
	assert_int_equal(mr_metric_read(MR_M_ring_overrun), 0);
	mr_ring_disconnect(slow);
	mr_ring_disconnect(quick);
	world_end(&w);
}

/* ---- ends of either side ---- */

/* In a child: requests under way, a full queue, and then SIGKILL. Each step is told, and waits to be let on. */
static void doomed(const char *path, int go, int ready)
{
	struct mr_ring_options options = {.path = path, .cq_entries = 16};
	struct mr_ring *ring;
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL); /* with a test that fails, too */
	if (read(go, &c, 1) != 1 || mr_ring_connect(&options, &ring) || write(ready, "c", 1) != 1)
		_exit(1);
	if (read(go, &c, 1) != 1)
		_exit(1);
	for (uint64_t key = 0; key < 4; key++)
		if (mr_ring_submit_text(ring, key, "doomed", 6, MR_SUBMIT_IGNORE_EOS, NULL))
			_exit(2);
	if (write(ready, "s", 1) != 1 || mr_ring_wait(ring, 5ll * SECOND) ||
	    write(ready, "r", 1) != 1)
		_exit(3);
	pause();
	_exit(4);
}

static void test_killed(void **state)
{
	uint64_t before = mr_metric_read(MR_M_ring_disconnects);
	int go[2], ready[2], status;
	struct mr_ring *ring;
	static struct world w;
	pid_t child;
	char c;

	assert_int_equal(world_make(&w, 8), 0);
	assert_int_equal(pipe(go) | pipe(ready), 0);
	child = fork(); /* before there are threads */
	if (child == 0)
		doomed(w.path, go[0], ready[1]);
	world_run(&w);
	ring = join(&w, 0);
	assert_int_equal(write(go[1], "g", 1), 1);
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	/* All at once, as in test_slow. */
	__atomic_store_n(&w.hung, 1, __ATOMIC_RELEASE);
	usleep(20000);
	assert_int_equal(write(go[1], "g", 1), 1);
	assert_int_equal(read(ready[0], &c, 1), 1);
	__atomic_store_n(&w.hung, 0, __ATOMIC_RELEASE);
	assert_int_equal(read(ready[0], &c, 1), 1);
	assert_int_equal(world_settle(&w.active, 4), 4);
	assert_int_equal(kill(child, SIGKILL), 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	/* Its requests are given back, and the other client goes on. */
	assert_int_equal(world_settle(&w.active, 0), 0);
	assert_int_equal(world_settle(&w.clients, 1), 1);
	for (uint64_t key = 0; key < 8; key++)
		assert_int_equal(
			mr_ring_submit_text(ring, key, "well", 4, MR_SUBMIT_IGNORE_EOS, &PARAMS),
			0);
	for (uint32_t done = 0; done < 8;) {
		struct mr_cqe cqe = next(ring);

		assert_int_equal(cqe.status, 0);
		done += cqe.type == MR_CQE_DONE;
	}
	assert_int_equal(mr_metric_read(MR_M_ring_disconnects), before + 1);
	mr_ring_disconnect(ring);
	world_end(&w);
	close(go[0]);
	close(go[1]);
	close(ready[0]);
}

static void test_server_ends(void **state)
{
	struct mr_ring *ring;
	static struct world w;
	uint64_t start;

	begin(&w, 8);
	ring = join(&w, 0);
	assert_int_equal(mr_ring_wait(ring, 0), MR_E_TIMEOUT);
	start = ring_now();
	assert_int_equal(mr_ring_wait(ring, SECOND / 50), MR_E_TIMEOUT);
	assert_true(ring_now() - start >= SECOND / 50);
	assert_int_equal(mr_ring_wait(ring, -1), MR_E_INVALID);
	assert_int_equal(mr_ring_nop(ring, 1), 0);
	assert_int_equal(mr_ring_wait(ring, SECOND), 0);
	world_end(&w);
	/* What was published is still to be had, then the end is told, again and again. */
	assert_int_equal(next(ring).key, 1);
	assert_int_equal(mr_ring_wait(ring, 5ll * SECOND), MR_E_DISCONNECTED);
	assert_int_equal(mr_ring_wait(ring, 5ll * SECOND), MR_E_DISCONNECTED);
	assert_int_equal(mr_ring_check(ring), MR_E_DISCONNECTED);
	mr_ring_disconnect(ring);
}

/* A server that hangs keeps its socket; only the heartbeat tells. One that sleeps is well. */
static void test_server_hangs(void **state)
{
	struct mr_ring_options options = {.silent_ms = 100};
	struct mr_ring *ring;
	static struct world w;
	uint64_t start;

	begin(&w, 8);
	options.path = w.path;
	assert_int_equal(mr_ring_connect(&options, &ring), 0);
	assert_int_equal(mr_ring_wait(ring, SECOND / 2), MR_E_TIMEOUT);
	__atomic_store_n(&w.hung, 1, __ATOMIC_RELEASE);
	assert_int_equal(mr_ring_nop(ring, 1), 0); /* wakes it, so that it hangs awake */
	assert_int_equal(next(ring).key, 1);       /* ... after this turn */
	start = ring_now();
	assert_int_equal(mr_ring_wait(ring, 5ll * SECOND), MR_E_DISCONNECTED);
	assert_true(ring_now() - start >= SECOND / 20 && ring_now() - start < 3ll * SECOND);
	assert_int_equal(mr_ring_check(ring), MR_E_DISCONNECTED);
	mr_ring_disconnect(ring);
	world_end(&w);
}

/* ---- vocabulary, paths ---- */

static void test_vocabulary(void **state)
{
	uint32_t flags, controls = 0, id = 0;
	struct mr_ring *ring;
	static struct world w;
	size_t n, m;

	begin(&w, 8);
	ring = join(&w, 0);
	for (; id < mr_tokenizer_vocab(w.model->tokenizer); id++) {
		const char *want = mr_token_bytes(w.model->tokenizer, id, &n);
		const char *got = mr_ring_token(ring, id, &m, &flags);

		assert_non_null(got);
		assert_int_equal(n, m);
		assert_memory_equal(got, want, n);
		assert_int_equal(!!(flags & MR_VOCAB_CONTROL),
				 !!mr_token_is_control(w.model->tokenizer, id));
		controls += flags & MR_VOCAB_CONTROL;
	}
	assert_true(id > 100 && controls > 0);
	assert_null(mr_ring_token(ring, id, &m, &flags));
	mr_ring_disconnect(ring);
	world_end(&w);
}

static void test_path(void **state)
{
	char path[128];

	setenv("MILLRACE_SOCKET", "/a/b", 1);
	assert_int_equal(mr_ring_path(path, sizeof(path)), 4);
	assert_string_equal(path, "/a/b");
	assert_int_equal(mr_ring_path(path, 4), MR_E_TOO_LARGE);
	unsetenv("MILLRACE_SOCKET");
	setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
	assert_true(mr_ring_path(path, sizeof(path)) > 0);
	assert_string_equal(path, "/run/user/7/millrace.sock");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one),         cmocka_unit_test(test_many),
		cmocka_unit_test(test_slow),        cmocka_unit_test(test_killed),
		cmocka_unit_test(test_server_ends), cmocka_unit_test(test_server_hangs),
		cmocka_unit_test(test_vocabulary),  cmocka_unit_test(test_path),
	};

	return cmocka_run_group_tests_name("userlib", tests, NULL, NULL);
}
