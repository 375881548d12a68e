// SPDX-License-Identifier: Apache-2.0
/*
 * The wire end to end in one process: server and client on two memif ports, the orchestrator on the nil device
 * and tests/tiny.gguf between. EAL starts once, so all cases share the ports; each counts what it causes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include <millrace/status.h>

#include "driver/mem/arena.h"
#include "driver/model/model.h"
#include "driver/net/client.h"
#include "driver/net/port.h"
#include "driver/nil/nil.h"
#include "driver/sched/sched.h"

#define SERVER_IP  0x0a4d0001u
#define CLIENT_IP  0x0a4d0002u
#define ANSWER_MAX 200u
#define TURNS      2000000

/* Time is the test's own, so that time limits are reached when a case says so. */
static uint64_t skew_ns;
static uint64_t skewed_now(void *arg)
{
	return mr_clock_monotonic.now_ns(NULL) + skew_ns;
}
static const struct mr_clock test_clock = {skewed_now, NULL};

struct answer {
	uint32_t tokens, first_id, last_id;
	int ended, status, in_order;
	uint32_t limit;
	struct mr_wire_done done;
	uint64_t copies[MR_WIRE_COPY_SITES_MAX];
};

static struct fixture {
	char dir[64];
	struct mr_arena *arena;
	struct mr_model *model;
	struct mr_device *dev;
	struct mr_sched *sched;
	struct mr_net *net;
	struct mr_front front;
	struct mr_net_client *client;
	struct mr_wire_key key;
	struct answer answers[256];
} f;

static void on_token(void *arg, uint64_t tag, uint32_t index, const struct mr_wire_token *token)
{
	struct answer *a = &f.answers[tag];

	a->in_order += index == a->tokens;
	if (index == 0)
		a->first_id = token->id;
	a->last_id = token->id;
	a->tokens++;
}

static void on_end(void *arg, uint64_t tag, int status, uint32_t limit,
		   const struct mr_wire_done *done, const uint64_t *copies)
{
	struct answer *a = &f.answers[tag];

	a->ended++;
	a->status = status;
	a->limit = limit;
	if (!done)
		return;
	a->done = *done;
	memcpy(a->copies, copies, sizeof(a->copies));
}

static const struct mr_net_client_ops client_ops = {on_token, on_end};

static void turn(void)
{
	f.front.poll(f.front.ctx);
	mr_sched_poll(f.sched);
	mr_net_client_poll(f.client);
}

/* Turns until *@flag, with a bound. */
static void until(const int *flag)
{
	for (int i = 0; i < TURNS && !*flag; i++)
		turn();
	assert_int_equal(*flag, 1);
}

static void some_turns(void)
{
	for (int i = 0; i < 2000; i++)
		turn();
}

static void send_prompt(uint64_t tag, const char *text, uint32_t bytes, uint32_t max_tokens)
{
	struct mr_net_prompt prompt = {
		.text = text,
		.bytes = bytes,
		.max_tokens = max_tokens,
		.flags = MR_WIRE_IGNORE_EOS,
		.tag = tag,
	};

	f.answers[tag] = (struct answer){0};
	assert_int_equal(mr_net_client_send(f.client, &prompt), 0);
}

static int setup(void **state)
{
	struct mr_arena_options arena = {.node = -1, .no_huge = 1};
	struct mr_sched_options sched = {.requests = 16, .clock = &test_clock};
	struct mr_net_options net = {
		.ip = SERVER_IP, .requests = 24, .answer_max = ANSWER_MAX, .clock = &test_clock};
	struct mr_net_client_options client = {.ip = CLIENT_IP,
					       .server_ip = SERVER_IP,
					       .requests = 200,
					       .clock = &test_clock,
					       .ops = &client_ops};
	struct mr_nil_options nil = {.context = 60000};
	char vdev[256], path[128], why[MR_NET_WHY_BYTES];

	snprintf(f.dir, sizeof(f.dir), "/tmp/millrace-test-XXXXXX");
	assert_non_null(mkdtemp(f.dir));
	snprintf(path, sizeof(path), "%s/key", f.dir);
	assert_int_equal(mr_key_create(path, &f.key), 0);
	assert_int_equal(mr_arena_create(&arena, &f.arena), 0);
	assert_int_equal(mr_model_open("tests/tiny.gguf", &f.model, NULL, 0), 0);
	assert_int_equal(mr_nil_open(&nil, &f.dev), 0);
	assert_int_equal(f.dev->work->load(f.dev, f.model, NULL, NULL), 0);
	sched.model = f.model;
	sched.prefill = sched.decode = f.dev;
	assert_int_equal(mr_sched_create(&sched, &f.sched), 0);

	net.sched = f.sched;
	net.arena = f.arena;
	net.key = client.key = f.key;
	snprintf(vdev, sizeof(vdev), "net_memif0,role=server,id=0,socket=%s/m,socket-abstract=no",
		 f.dir);
	net.vdev = vdev;
	if (mr_net_create(&net, &f.net, why) != 0)
		fail_msg("%s", why);
	f.front = mr_net_front(f.net);
	snprintf(vdev, sizeof(vdev), "net_memif1,role=client,id=0,socket=%s/m,socket-abstract=no",
		 f.dir);
	client.vdev = vdev;
	if (mr_net_client_open(&client, &f.client, why) != 0)
		fail_msg("%s", why);
	for (int i = 0; i < 3000 && !mr_net_client_ready(f.client); i++) {
		turn();
		usleep(1000);
	}
	assert_int_equal(mr_net_client_ready(f.client), 1);
	return 0;
}

static int teardown(void **state)
{
	char path[128];

	mr_net_client_close(f.client);
	mr_net_destroy(f.net);
	mr_sched_destroy(f.sched);
	f.dev->admin->close(f.dev);
	mr_model_close(f.model);
	mr_arena_destroy(f.arena);
	for (const char *const *name = (const char *const[]){"key", "m", NULL}; *name; name++) {
		snprintf(path, sizeof(path), "%s/%s", f.dir, *name);
		unlink(path);
	}
	return rmdir(f.dir);
}

static void test_one_answer(void **state)
{
	uint64_t copied = mr_metric_read(MR_M_copy_prompt_wire);
	const struct answer *a = &f.answers[1];

	send_prompt(1, "Hello there", 11, 20);
	until(&f.answers[1].ended);
	assert_int_equal(a->status, 0);
	assert_int_equal(a->tokens, 20);
	assert_int_equal(a->in_order, 20);
	assert_int_equal(a->last_id - a->first_id, 19); /* the nil device counts */
	assert_int_equal(a->done.finish, MR_WIRE_FINISH_LENGTH);
	assert_int_equal(a->done.tokens, 20);
	assert_true(a->done.prompt_tokens > 0);
	assert_true(a->done.total_ns >= a->done.first_ns && a->done.first_ns > 0);
	/* One copy of the prompt, and each token once into a datagram. */
	assert_int_equal(a->done.copy_sites, MR_COPY_SITES);
	assert_int_equal(a->copies[MR_COPY_PROMPT_WIRE - MR_COPY_SITES_FIRST], 11);
	assert_int_equal(a->copies[MR_COPY_PROMPT_RING - MR_COPY_SITES_FIRST], 0);
	assert_int_equal(a->copies[MR_COPY_TOKEN_WIRE - MR_COPY_SITES_FIRST], 20 * 16);
	assert_int_equal(mr_metric_read(MR_M_copy_prompt_wire) - copied, 11);
}

/* Prompts of 1 and 2 fragments, answered at once, some answers longer than a datagram. */
static void test_many(void **state)
{
	static char text[2 * MR_WIRE_FRAGMENT];

	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = "the prompt and "[i % 15];
	for (uint64_t tag = 0; tag < 8; tag++)
		send_prompt(tag, text, (uint32_t)(tag * 150 + 1),
			    (uint32_t)(ANSWER_MAX - 10 * tag));
	for (uint64_t tag = 0; tag < 8; tag++)
		until(&f.answers[tag].ended);
	for (uint64_t tag = 0; tag < 8; tag++) {
		assert_int_equal(f.answers[tag].status, 0);
		assert_int_equal(f.answers[tag].tokens, ANSWER_MAX - 10 * tag);
		assert_int_equal(f.answers[tag].in_order, f.answers[tag].tokens);
		assert_int_equal(f.answers[tag].copies[MR_COPY_PROMPT_WIRE - MR_COPY_SITES_FIRST],
				 tag * 150 + 1);
	}
}

/* All 64 fragments arrive, and the orchestrator's own refusal comes back by name. */
static void test_largest(void **state)
{
	static char text[MR_WIRE_PROMPT_MAX];
	uint64_t copied = mr_metric_read(MR_M_copy_prompt_wire);

	memset(text, '7', sizeof(text)); /* one token a digit: more than tiny.gguf's context */
	send_prompt(1, text, sizeof(text), 5);
	until(&f.answers[1].ended);
	assert_int_equal(f.answers[1].status, MR_E_CONTEXT_FULL);
	assert_int_equal(mr_metric_read(MR_M_copy_prompt_wire) - copied, sizeof(text));
}

static void test_refusals(void **state)
{
	static char text[MR_WIRE_PROMPT_MAX + 1];
	uint64_t large = mr_metric_read(MR_M_wire_too_large);

	memset(text, 'a', sizeof(text));
	send_prompt(1, text, sizeof(text), 5);
	until(&f.answers[1].ended);
	assert_int_equal(f.answers[1].status, MR_E_TOO_LARGE);
	assert_int_equal(f.answers[1].limit, MR_WIRE_PROMPT_MAX);
	send_prompt(2, text, 10, ANSWER_MAX + 1);
	until(&f.answers[2].ended);
	assert_int_equal(f.answers[2].status, MR_E_TOO_LARGE);
	assert_int_equal(f.answers[2].limit, ANSWER_MAX);
	assert_int_equal(mr_metric_read(MR_M_wire_too_large) - large, 2);
	send_prompt(3, text, 10, 3);
	until(&f.answers[3].ended);
	assert_int_equal(f.answers[3].status, 0);
}

/* More requests than the pool has: those above are refused by name and counted, the others answered. */
static void test_pool_full(void **state)
{
	uint64_t refused = mr_metric_read(MR_M_wire_no_request);
	int good = 0, full = 0;

	/* All arrive before the orchestrator has a turn. */
	for (uint64_t tag = 0; tag < 24; tag++)
		send_prompt(tag, "abc", 3, 2);
	for (uint64_t tag = 0; tag < 24; tag++)
		until(&f.answers[tag].ended);
	for (uint64_t tag = 0; tag < 24; tag++) {
		good += f.answers[tag].status == 0 && f.answers[tag].tokens == 2;
		full += f.answers[tag].status == MR_E_FULL;
	}
	assert_int_equal(good, 16);
	assert_int_equal(full, 8);
	assert_int_equal(mr_metric_read(MR_M_wire_no_request) - refused, 8);
}

static void test_cancel(void **state)
{
	/* Both arrive in one burst: the request is under way, and its first token not yet made. */
	send_prompt(1, "abc", 3, ANSWER_MAX);
	assert_int_equal(mr_net_client_cancel(f.client, 1), 0);
	until(&f.answers[1].ended);
	assert_int_equal(f.answers[1].status, MR_E_CANCELLED);
	assert_int_equal(f.answers[1].done.finish, MR_WIRE_FINISH_CANCEL);
	assert_int_equal(f.answers[1].tokens, 0);
	assert_int_equal(mr_net_client_cancel(f.client, 1), MR_E_NOT_FOUND);
}

/* Ended answers are forgotten after their time; nothing is left. */
static void test_forgotten(void **state)
{
	assert_true(mr_net_known(f.net) > 0);
	skew_ns += 3000000000ull;
	some_turns();
	assert_int_equal(mr_net_known(f.net), 0);
	assert_int_equal(mr_sched_active(f.sched), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_answer), cmocka_unit_test(test_many),
		cmocka_unit_test(test_largest),    cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_pool_full),  cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_forgotten),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
