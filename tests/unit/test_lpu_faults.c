// SPDX-License-Identifier: Apache-2.0
/*
 * The simulator's faults by list, script and seed; that one device's leave another alone; and what the driver
 * says of a device that is none of those it knows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "driver/lpu/lpu.h"
#include "driver/metrics.h"
#include "support/lpu_liar.h"
#include "support/lpu_rig.h"

static int create(const char *fault)
{
	const struct mr_sim_options o = {.chip_path = "tiny", .fault = fault, .manual = 1};
	struct mr_lpu_port port;
	int status = mr_sim_create(&o, &port);

	if (!status)
		port.ops->close(port.ctx);
	return status;
}

static void the_language_is_checked(void **state)
{
	static const char *const good[] = {
		"late",
		"late=5",
		"late@7",
		"slow@step:3=100",
		"lost@completion:12,repeated,reordered@command:9",
		"sram-zero=blk.0.ffn_up,ecc,sram-flip=output:3",
		"random=100",
		"random=7:ecc+ecc-lost+removal,dma",
		"off",
		"plug",
	};
	static const char *const bad[] = {
		"",
		"lat",
		"late=",
		"late@",
		"late@step",
		"late@step:",
		"late@epoch:1",
		"late@-1",
		"late,,ecc",
		"late ecc",
		"random",
		"random=0",
		"random=5:",
		"random=5:x",
		"random=5:ecc+",
		"off=1",
		"ecc=9999999999999999999999",
		"sram-zero",
		"@",
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		if (create(good[i]))
			fail_msg("'%s' is refused", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (!create(bad[i]))
			fail_msg("'%s' is taken", bad[i]);
	assert_int_equal(create("@/nowhere"), MR_E_NOT_FOUND);
	assert_int_equal(create("late@1,lat"), MR_E_INVALID);
}

/* Tokens of a DECODE of @steps from position 0, in *tokens; its status. */
static int decode(struct mr_device *dev, uint32_t steps, int *tokens)
{
	struct mr_decode_entry entry = {lpu_rig_slot(dev, 64), 0, 20};
	struct mr_event e[40];

	assert_int_equal(dev->work->decode(dev, &entry, 1, steps, 9), 0);
	uint32_t n = lpu_rig_wait(dev, 9, e, 40);
	*tokens = (int)n - 1;
	assert_int_equal(dev->mem->slot_close(dev, entry.slot), 0);
	return e[n - 1].status;
}

static void each_strikes_at_its_point(void **state)
{
	struct lpu_rig rig;
	int tokens;

	/* A DECODE of 8 is SLOT_SET, DECODE, KV_FREE: three commands. */
	lpu_rig_open(&rig, &(struct lpu_rig_options){
				   .fault = "record@step:11,dma@command:8,ecc-lost@completion:9"});
	assert_int_equal(decode(rig.dev, 8, &tokens), 0);
	assert_int_equal(tokens, 8);
	assert_int_equal(decode(rig.dev, 8, &tokens), MR_E_PROTOCOL);
	assert_int_equal(tokens, 2); /* steps 9 and 10 */
	assert_int_equal(decode(rig.dev, 8, &tokens), MR_E_DMA_FAULT);
	assert_int_equal(decode(rig.dev, 8, &tokens), MR_E_DEVICE);
	assert_int_equal(decode(rig.dev, 8, &tokens), 0);
	assert_int_equal(mr_sim_injected(&rig.port, MR_SIM_FAULT_RECORD), 1);
	assert_int_equal(mr_sim_injected(&rig.port, MR_SIM_FAULT_DMA), 1);
	assert_int_equal(mr_sim_injected(&rig.port, MR_SIM_FAULT_ECC_LOST), 1);
	assert_int_equal(mr_sim_injected(&rig.port, MR_SIM_FAULT_LOST), 0);
	lpu_rig_close(&rig);
}

/* A device that opened a slot, and whose word of it was spoilt, is told to close it. */
static void a_spoilt_answer_leaves_no_slot(void **state)
{
	const struct mr_slot_config config = {.owner = 7, .positions = 64};
	struct mr_lpu_counters c;
	struct mr_slot slot;
	struct lpu_rig rig;
	int tokens;

	lpu_rig_open(&rig, &(struct lpu_rig_options){.slots = 1, .fault = "corrupted"});
	uint64_t bad = mr_metric_read(MR_M_lpu_bad_completion);
	assert_int_equal(decode(rig.dev, 4, &tokens), 0); /* on its way when the answer came */
	assert_int_equal(mr_metric_read(MR_M_lpu_bad_completion), bad + 1);
	assert_int_equal(decode(rig.dev, 4, &tokens), 0);
	assert_int_equal(rig.dev->mem->slot_open(rig.dev, &config, &slot), 0);
	assert_int_equal(rig.dev->mem->slot_close(rig.dev, slot), 0);
	assert_int_equal(decode(rig.dev, 4, &tokens), 0);
	assert_int_equal(mr_lpu_log(rig.dev, MR_LPU_LOG_COUNTERS, &c, sizeof(c)), sizeof(c));
	assert_true(c.kv_blocks_used <= 4); /* the latest KV_FREE may be on its way */
	lpu_rig_close(&rig);
}

static void a_script_says_the_same(void **state)
{
	static const char script[] = "# what goes wrong\n\nrecord@step:3\n  dma@command:5  # x\n";
	char path[] = "/tmp/mr-faults-XXXXXX", list[64];
	int fd = mkstemp(path), tokens;
	struct lpu_rig rig;

	assert_true(fd >= 0);
	snprintf(list, sizeof(list), "@%s", path);
	/* A comment behind a fault is not one. */
	assert_int_equal(write(fd, script, sizeof(script) - 1), sizeof(script) - 1);
	assert_int_equal(create(list), MR_E_INVALID);
	assert_int_equal(ftruncate(fd, sizeof(script) - 1 - 6), 0);
	lpu_rig_open(&rig, &(struct lpu_rig_options){.fault = list});
	assert_int_equal(decode(rig.dev, 8, &tokens), MR_E_PROTOCOL);
	assert_int_equal(tokens, 2);
	assert_int_equal(decode(rig.dev, 8, &tokens), MR_E_DMA_FAULT);
	assert_int_equal(decode(rig.dev, 8, &tokens), 0);
	lpu_rig_close(&rig);
	close(fd);
	unlink(path);
}

/* Faults of @kinds by @seed among 60 commands. */
static uint64_t by_seed(uint64_t seed, uint64_t *words)
{
	struct mr_sim_options o = {
		.chip_path = "tiny", .seed = seed, .fault = "random=3:ecc+repeated"};
	struct mr_lpu_cmd_slot_set fence = {.head.opcode = MR_LPU_FENCE};
	struct raw_host h;

	raw_open(&h, &o, 1);
	for (uint32_t i = 0; i < 60; i++) {
		fence.head.request = i;
		raw_post(&h, 1, &fence);
		uint64_t twice = mr_sim_injected(&h.port, MR_SIM_FAULT_REPEATED);
		raw_complete(&h, 1, 1);
		if (mr_sim_injected(&h.port, MR_SIM_FAULT_REPEATED) > twice || i == 59)
			while (raw_completed(&h, 1, 20))
				raw_complete(&h, 1, 1);
	}
	*words = mr_sim_injected(&h.port, MR_SIM_FAULT_ECC);
	uint64_t twice = mr_sim_injected(&h.port, MR_SIM_FAULT_REPEATED);
	raw_close(&h);
	return twice;
}

static void a_seed_names_the_faults(void **state)
{
	uint64_t words[3], twice[3];

	for (int i = 0; i < 3; i++)
		twice[i] = by_seed(i == 1 ? 8 : 7, &words[i]);
	assert_int_equal(words[0], words[2]);
	assert_int_equal(twice[0], twice[2]);
	assert_true(words[0] + twice[0] > 5);
	assert_true(words[0] != words[1] || twice[0] != twice[1]);
}

/* ECC's words are counted although the device gave up before its log was read. */
static void a_reset_loses_no_count(void **state)
{
	uint64_t corrected = mr_metric_read(MR_M_lpu_ecc_corrected);
	time_t until = time(NULL) + 20;
	struct mr_event e[4];
	struct lpu_rig rig;
	int status = 0;

	lpu_rig_open(&rig, &(struct lpu_rig_options){.timeout_ms = 200});
	struct mr_decode_entry entry = {lpu_rig_slot(rig.dev, 64), 0, 20};
	mr_sim_ecc(&rig.port, 3, 0);
	mr_sim_assert(&rig.port);
	while (!(rig.port.ops->reg_read(rig.port.ctx, MR_LPU_REG_STATUS) & MR_LPU_STATUS_FATAL))
		;
	assert_int_equal(rig.dev->work->decode(rig.dev, &entry, 1, 4, 1), 0);
	while (!status && time(NULL) < until)
		status = rig.dev->work->poll(rig.dev, e, 4);
	assert_int_equal(status, MR_E_DEVICE);
	assert_int_equal(mr_metric_read(MR_M_lpu_ecc_corrected), corrected);
	assert_int_equal(rig.dev->admin->reset(rig.dev), 0);
	while (mr_metric_read(MR_M_lpu_ecc_corrected) == corrected && time(NULL) < until)
		rig.dev->work->poll(rig.dev, e, 4);
	assert_int_equal(mr_metric_read(MR_M_lpu_ecc_corrected), corrected + 3);
	lpu_rig_close(&rig);
}

/* Removed, given up, put back; all the while the other one works. */
static void other_devices_go_on(void **state)
{
	struct lpu_rig one, other;
	struct mr_event e[4];
	int tokens, status = 0;
	time_t until = time(NULL) + 20;

	lpu_rig_open(&one, &(struct lpu_rig_options){.timeout_ms = 200});
	lpu_rig_open(&other, &(struct lpu_rig_options){.timeout_ms = 200});
	uint64_t gone = mr_metric_read(MR_M_lpu_gone), given_up = mr_metric_read(MR_M_lpu_given_up);
	struct mr_decode_entry entry = {lpu_rig_slot(one.dev, 64), 0, 20};
	assert_int_equal(mr_sim_fault(&one.port, "removal"), 0);
	assert_int_equal(one.dev->work->decode(one.dev, &entry, 1, 8, 1), 0);
	while (!status && time(NULL) < until) {
		status = one.dev->work->poll(one.dev, e, 4);
		assert_int_equal(decode(other.dev, 4, &tokens), 0);
	}
	assert_int_equal(status, MR_E_DEVICE);
	assert_int_equal(mr_metric_read(MR_M_lpu_gone), gone + 1);
	assert_int_equal(one.dev->admin->reset(one.dev), MR_E_DISCONNECTED);
	assert_int_equal(mr_metric_read(MR_M_lpu_given_up), given_up + 1);
	assert_int_equal(decode(other.dev, 8, &tokens), 0);
	assert_int_equal(tokens, 8);
	assert_int_equal(one.dev->work->poll(one.dev, e, 4), 1);
	assert_int_equal(e[0].status, MR_E_DEVICE);
	assert_int_equal(one.dev->work->poll(one.dev, e, 4), MR_E_DISCONNECTED);
	assert_int_equal(mr_sim_fault(&one.port, "plug"), 0);
	assert_int_equal(one.dev->admin->reset(one.dev), 0);
	assert_int_equal(decode(one.dev, 8, &tokens), 0);
	assert_int_equal(tokens, 8);
	lpu_rig_close(&one);
	lpu_rig_close(&other);
}

static void a_foreign_device_is_refused_by_name(void **state)
{
	struct mr_arena_options arena_options = {.node = -1, .no_huge = 1};
	static struct liar liar;
	struct mr_arena *arena;
	struct mr_device *dev;

	assert_int_equal(mr_arena_create(&arena_options, &arena), 0);
	memset(&liar, 0, sizeof(liar));
	assert_int_equal(liar_open(&liar, arena, &dev), 0);
	struct mr_lpu_identify good = liar.id;
	dev->admin->close(dev);
#define DEVICE(change, want)                                                  \
	do {                                                                  \
		mr_arena_destroy(arena);                                      \
		assert_int_equal(mr_arena_create(&arena_options, &arena), 0); \
		memset(&liar, 0, sizeof(liar));                               \
		liar.id = good;                                               \
		change;                                                       \
		assert_int_equal(liar_open(&liar, arena, &dev), want);        \
	} while (0)
	DEVICE(liar.magic = 0x10de, MR_E_VERSION);
	DEVICE(liar.version = 2 << 16, MR_E_VERSION);
	DEVICE(liar.gone = 1, MR_E_VERSION);
	DEVICE(liar.id.magic = 1, MR_E_VERSION);
	DEVICE(liar.id.ring_entries_max = 1, MR_E_PROTOCOL);
	DEVICE(liar.id.ring_entries_max = 1u << 20, MR_E_PROTOCOL);
	DEVICE(liar.id.ring_entries_max = 16, MR_E_NOT_SUPPORTED); /* CAPS says more */
	DEVICE(liar.id.queues_max = 0, MR_E_PROTOCOL);
	DEVICE((liar.ready = 1, liar.stuck = 2), MR_E_TIMEOUT);
	DEVICE(liar.fatal = MR_LPU_STATUS_FATAL, MR_E_DEVICE);
	DEVICE(liar.hash = 1, MR_E_CHECKSUM);
	DEVICE((void)0, 0);
	dev->admin->close(dev);
	mr_arena_destroy(arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_language_is_checked),
		cmocka_unit_test(each_strikes_at_its_point),
		cmocka_unit_test(a_spoilt_answer_leaves_no_slot),
		cmocka_unit_test(a_script_says_the_same),
		cmocka_unit_test(a_seed_names_the_faults),
		cmocka_unit_test(a_reset_loses_no_count),
		cmocka_unit_test(other_devices_go_on),
		cmocka_unit_test(a_foreign_device_is_refused_by_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
