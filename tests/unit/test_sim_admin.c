// SPDX-License-Identifier: Apache-2.0
/*
 * The simulated device's admin commands beside queues and programs, by a host that is not the driver:
 * FEATURES, ASYNC_EVENT, FIRMWARE, RESET, function-level reset, crash dump, power and temperature.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "support/lpu_rig.h"

static const struct mr_sim_options tiny = {.chip_path = "tiny"};

static void features_have_ranges_and_reset_values(void **state)
{
	static const struct {
		uint32_t feature, queue, reset, good, bad;
	} f[] = {
		{MR_LPU_FEATURE_COALESCE, 1, 0, MR_LPU_COALESCE(4, 100), MR_LPU_COALESCE(4, 0)},
		{MR_LPU_FEATURE_COALESCE, 1, 0, MR_LPU_COALESCE(1, 1000000), MR_LPU_COALESCE(0, 1)},
		{MR_LPU_FEATURE_COALESCE, 1, 0, 0, MR_LPU_COALESCE(1, 1000001)},
		{MR_LPU_FEATURE_HEARTBEAT_MS, 0, 1000, 10, 9},
		{MR_LPU_FEATURE_HEARTBEAT_MS, 0, 1000, 60000, 60001},
		{MR_LPU_FEATURE_EVENTS, 0, MR_LPU_EVENTS_ALL, 2, 1},
	};
	struct raw_host h;
	uint32_t v;

	raw_open(&h, &tiny, 1);
	for (size_t i = 0; i < sizeof(f) / sizeof(f[0]); i++) {
		v = f[i].good;
		assert_int_equal(raw_feature(&h, f[i].feature, f[i].queue, 1, &v), 0);
		assert_int_equal(v, f[i].good);
		v = f[i].bad;
		assert_int_equal(raw_feature(&h, f[i].feature, f[i].queue, 1, &v), MR_E_RANGE);
		assert_int_equal(raw_feature(&h, f[i].feature, f[i].queue, 0, &v), 0);
		assert_int_equal(v, f[i].good);
	}
	v = 3;
	assert_int_equal(raw_feature(&h, MR_LPU_FEATURE_QUEUES, 0, 1, &v), MR_E_BUSY);
	assert_int_equal(raw_feature(&h, MR_LPU_FEATURE_COALESCE, 2, 0, &v), MR_E_NOT_FOUND);
	assert_int_equal(raw_feature(&h, MR_LPU_FEATURE_COALESCE, 0, 0, &v), MR_E_RANGE);
	assert_int_equal(raw_feature(&h, MR_LPU_FEATURE_COALESCE, 5, 0, &v), MR_E_RANGE);
	assert_int_equal(raw_feature(&h, MR_LPU_FEATURE_EVENTS, 1, 0, &v), MR_E_INVALID);
	assert_int_equal(raw_feature(&h, 0, 0, 0, &v), MR_E_NOT_SUPPORTED);
	assert_int_equal(raw_feature(&h, MR_LPU_FEATURE_SHADOW + 1, 0, 0, &v), MR_E_NOT_SUPPORTED);
	struct mr_lpu_cmd_features c = {
		.head = {MR_LPU_FEATURES, 0, 1}, .feature = MR_LPU_FEATURE_EVENTS, .action = 3};
	assert_int_equal(raw_do(&h, 0, &c, NULL), MR_E_RANGE);
	c.action = MR_LPU_FEATURE_GET;
	c.value = 1;
	assert_int_equal(raw_do(&h, 0, &c, NULL), MR_E_INVALID);
	c.value = 0;
	c.iova = RAW_IOVA;
	assert_int_equal(raw_do(&h, 0, &c, NULL), MR_E_INVALID);
	c = (struct mr_lpu_cmd_features){.head = {MR_LPU_FEATURES, 0, 1},
					 .feature = MR_LPU_FEATURE_SHADOW,
					 .action = MR_LPU_FEATURE_SET,
					 .value = 1,
					 .iova = RAW_RO_IOVA};
	assert_int_equal(raw_do(&h, 0, &c, NULL), MR_E_DMA_FAULT);
	c.iova = RAW_IOVA + 32;
	assert_int_equal(raw_do(&h, 0, &c, NULL), MR_E_RANGE);

	/* A reset puts all back; without queues their number may be set. */
	h.port.ops->reg_write(h.port.ctx, MR_LPU_REG_CONTROL, 0);
	raw_wait_status(&h, 0);
	raw_enable(&h);
	for (size_t i = 3; i < sizeof(f) / sizeof(f[0]); i++) {
		assert_int_equal(raw_feature(&h, f[i].feature, 0, 0, &v), 0);
		assert_int_equal(v, f[i].reset);
	}
	v = 1;
	assert_int_equal(raw_feature(&h, MR_LPU_FEATURE_QUEUES, 0, 1, &v), 0);
	assert_int_equal(raw_queue(&h, 2), MR_E_RANGE);
	assert_int_equal(raw_queue(&h, 1), 0);
	assert_int_equal(raw_feature(&h, MR_LPU_FEATURE_COALESCE, 1, 0, &v), 0);
	assert_int_equal(v, 0);
	raw_close(&h);
}

static void the_heartbeat_keeps_its_period(void **state)
{
	struct raw_host h;
	uint32_t v = 10;

	raw_open(&h, &tiny, 0);
	assert_int_equal(raw_feature(&h, MR_LPU_FEATURE_HEARTBEAT_MS, 0, 1, &v), 0);
	/* 100 times a second are asked for; this host may take the core away for most of them. */
	uint32_t beat = h.port.ops->reg_read(h.port.ctx, MR_LPU_REG_HEARTBEAT), changes = 0;
	for (int ms = 0; ms < 1000 && changes < 20; ms++) {
		uint32_t now = h.port.ops->reg_read(h.port.ctx, MR_LPU_REG_HEARTBEAT);
		changes += now != beat;
		beat = now;
		usleep(1000);
	}
	assert_int_equal(changes, 20);
	raw_close(&h);
}

static void post_event(struct raw_host *h, uint32_t request)
{
	struct mr_lpu_command c = {.head = {MR_LPU_ASYNC_EVENT, 0, request}};

	raw_post(h, 0, &c);
}

static void expect_event(struct raw_host *h, uint32_t request, uint32_t type, uint32_t log,
			 uint32_t info)
{
	struct mr_lpu_completion c = raw_complete(h, 0, 1);

	assert_int_equal(c.request, request);
	assert_int_equal(c.status, 0);
	assert_int_equal(MR_LPU_EVENT_TYPE(c.result), type);
	assert_int_equal(MR_LPU_EVENT_LOG(c.result), log);
	assert_int_equal(MR_LPU_EVENT_INFO(c.result), info);
}

static void events_are_told_once_until_heard(void **state)
{
	struct mr_lpu_power power;
	struct mr_lpu_health health;
	struct raw_host h;
	uint32_t v;

	raw_open(&h, &tiny, 1);
	for (uint32_t i = 0; i < 4; i++)
		post_event(&h, 100 + i);
	post_event(&h, 104);
	struct mr_lpu_completion full = raw_complete(&h, 0, 1);
	assert_int_equal(full.request, 104);
	assert_int_equal(full.status, -MR_E_FULL);

	/* They hold up nothing. Thresholds are edges. */
	mr_sim_sense(&h.port, 300000, 5000);
	assert_false(raw_completed(&h, 0, 20));
	mr_sim_sense(&h.port, 360000, 7000);
	expect_event(&h, 100, MR_LPU_EVENT_TEMPERATURE, MR_LPU_LOG_POWER, MR_LPU_TEMPERATURE_OVER);
	mr_sim_sense(&h.port, 300000, 6000);
	do
		raw_log(&h, MR_LPU_LOG_HEALTH, &health, sizeof(health));
	while (health.temperature_mk != 300000);
	mr_sim_sense(&h.port, 370000, 6000);
	assert_false(raw_completed(&h, 0, 20)); /* silent until the log is read */
	assert_int_equal(raw_log(&h, MR_LPU_LOG_POWER, &power, sizeof(power)), sizeof(power));
	assert_int_equal(power.temperature_mk, 370000);
	assert_int_equal(power.temperature_peak_mk, 370000);
	assert_int_equal(power.power_mw, 6000);
	assert_int_equal(power.power_peak_mw, 7000);
	assert_int_equal(power.over_mk, 358150);
	assert_true(power.energy_mj > 0);
	expect_event(&h, 101, MR_LPU_EVENT_TEMPERATURE, MR_LPU_LOG_POWER, MR_LPU_TEMPERATURE_OVER);

	/* Other types go on meanwhile. */
	mr_sim_ecc(&h.port, 3, 0);
	expect_event(&h, 102, MR_LPU_EVENT_ECC, MR_LPU_LOG_HEALTH, 1);
	mr_sim_ecc(&h.port, 0, 1);
	raw_log(&h, MR_LPU_LOG_HEALTH, &health, sizeof(health));
	assert_int_equal(health.ecc_corrected, 3);
	assert_int_equal(health.ecc_uncorrected, 1);
	assert_int_equal(health.temperature_mk, 370000);
	expect_event(&h, 103, MR_LPU_EVENT_ECC, MR_LPU_LOG_HEALTH, 2);

	/* Without a command, what happens waits. */
	h.port.ops->doorbell(h.port.ctx, 1, MR_LPU_DB_SQ_TAIL, 99);
	struct mr_lpu_cmd_identify bad = {.head = {MR_LPU_IDENTIFY, 0, 5}, .iova = 64, .bytes = 8};
	assert_int_equal(raw_do(&h, 0, &bad, NULL), MR_E_DMA_FAULT);
	post_event(&h, 200);
	expect_event(&h, 200, MR_LPU_EVENT_DOORBELL, MR_LPU_LOG_COUNTERS, 1);
	post_event(&h, 201);
	expect_event(&h, 201, MR_LPU_EVENT_ERROR, MR_LPU_LOG_ERRORS, -MR_E_DMA_FAULT);

	/* A type that is switched off is not told, and one that is set below is. */
	v = MR_LPU_EVENTS_ALL & ~(1u << MR_LPU_EVENT_ECC);
	assert_int_equal(raw_feature(&h, MR_LPU_FEATURE_EVENTS, 0, 1, &v), 0);
	raw_log(&h, MR_LPU_LOG_HEALTH, &health, sizeof(health));
	raw_log(&h, MR_LPU_LOG_POWER, &power, sizeof(power));
	v = 280000;
	assert_int_equal(raw_feature(&h, MR_LPU_FEATURE_TEMP_UNDER_MK, 0, 1, &v), 0);
	post_event(&h, 202);
	mr_sim_ecc(&h.port, 1, 0);
	assert_false(raw_completed(&h, 0, 20));
	mr_sim_sense(&h.port, 280000, 0);
	expect_event(&h, 202, MR_LPU_EVENT_TEMPERATURE, MR_LPU_LOG_POWER, MR_LPU_TEMPERATURE_UNDER);
	assert_int_equal(raw_counters(&h).events, 7);

	/* One that waits can be taken back. */
	post_event(&h, 203);
	struct mr_lpu_cmd_abort a = {.head = {MR_LPU_ABORT, 0, 204}, .target = 203};
	raw_post(&h, 0, &a);
	struct mr_lpu_completion c = raw_complete(&h, 0, 1);
	assert_int_equal(c.request, 203);
	assert_int_equal(c.status, -MR_E_CANCELLED);
	c = raw_complete(&h, 0, 1);
	assert_int_equal(c.request, 204);
	assert_int_equal(c.result, 1);
	uint32_t result;
	assert_int_equal(raw_do(&h, 0, &a, &result), 0);
	assert_int_equal(result, 0);
	raw_close(&h);
}

/* ---- firmware ------------------------------------------------------------------------------------ */

struct image {
	struct mr_lpu_firmware_image head;
	uint8_t code[3000];
};

static void make_image(struct image *i, const char *version)
{
	memset(i, 0, sizeof(*i));
	i->head.magic = MR_LPU_FIRMWARE_MAGIC;
	i->head.format = MR_LPU_FIRMWARE_FORMAT;
	i->head.bytes = sizeof(i->code);
	strcpy(i->head.product, "tiny");
	strcpy(i->head.version, version);
	for (size_t k = 0; k < sizeof(i->code); k++)
		i->code[k] = (uint8_t)(k * 7);
	crypto_hash_sha256(i->head.sha256, i->code, sizeof(i->code));
}

static int firmware(struct raw_host *h, uint32_t action, uint32_t slot, uint64_t offset,
		    uint64_t bytes)
{
	struct mr_lpu_cmd_firmware c = {
		.head = {MR_LPU_FIRMWARE, 0, 7},
		.action = action,
		.slot = slot,
		.iova = bytes ? RAW_IOVA + 131072 + offset : 0,
		.offset = offset,
		.bytes = bytes,
	};

	return raw_do(h, 0, &c, NULL);
}

static int download(struct raw_host *h, const struct image *image, uint64_t bytes)
{
	int status = 0;

	memcpy(h->mem + 131072, image, sizeof(*image));
	for (uint64_t at = 0; !status && at < bytes; at += 1024)
		status = firmware(h, MR_LPU_FIRMWARE_DOWNLOAD, 0, at,
				  bytes - at < 1024 ? bytes - at : 1024);
	return status;
}

static void a_bad_image_is_refused(struct raw_host *h)
{
	struct image image;

#define IMAGE(change, want)                                                                      \
	do {                                                                                     \
		make_image(&image, "fw 2");                                                      \
		change;                                                                          \
		assert_int_equal(download(h, &image, sizeof(image)), 0);                         \
		assert_int_equal(firmware(h, MR_LPU_FIRMWARE_VERIFY, 2, 0, 0), want);            \
		assert_int_equal(firmware(h, MR_LPU_FIRMWARE_VERIFY, 2, 0, 0), MR_E_NOT_ACTIVE); \
	} while (0)
	IMAGE(image.head.magic++, MR_E_FORMAT);
	IMAGE(image.head.format++, MR_E_VERSION);
	IMAGE(image.head.bytes++, MR_E_TRUNCATED);
	IMAGE(image.head.bytes--, MR_E_FORMAT);
	IMAGE(image.head.version[0] = 0, MR_E_FORMAT);
	IMAGE(memset(image.head.version, 'x', 32), MR_E_FORMAT);
	IMAGE(image.head.reserved[1] = 1, MR_E_FORMAT);
	IMAGE(image.head.product[0] = 'T', MR_E_NOT_SUPPORTED);
	IMAGE(image.code[2999] ^= 1, MR_E_CHECKSUM);
	assert_int_equal(firmware(h, MR_LPU_FIRMWARE_ACTIVATE, 2, 0, 0), MR_E_NOT_FOUND);
	make_image(&image, "fw 2");
	assert_int_equal(download(h, &image, 100), 0);
	assert_int_equal(firmware(h, MR_LPU_FIRMWARE_VERIFY, 2, 0, 0), MR_E_TRUNCATED);
}

static void firmware_runs_from_the_next_reset(void **state)
{
	struct mr_lpu_firmware_log log;
	struct mr_lpu_identify *id;
	struct image image;
	struct raw_host h;

	raw_open(&h, &tiny, 0);
	a_bad_image_is_refused(&h);
	make_image(&image, "fw 2");
	assert_int_equal(download(&h, &image, sizeof(image)), 0);
	assert_int_equal(firmware(&h, MR_LPU_FIRMWARE_VERIFY, 1, 0, 0), MR_E_BUSY);
	assert_int_equal(firmware(&h, MR_LPU_FIRMWARE_DOWNLOAD, 0, 0, 0), MR_E_RANGE);
	assert_int_equal(firmware(&h, MR_LPU_FIRMWARE_DOWNLOAD, 0, 5, 10), MR_E_RANGE);
	assert_int_equal(firmware(&h, MR_LPU_FIRMWARE_DOWNLOAD, 0, 0, (1 << 20) + 1), MR_E_RANGE);
	assert_int_equal(firmware(&h, MR_LPU_FIRMWARE_DOWNLOAD, 1, 0, 10), MR_E_INVALID);
	assert_int_equal(firmware(&h, MR_LPU_FIRMWARE_VERIFY, 2, 0, 10), MR_E_INVALID);
	assert_int_equal(firmware(&h, MR_LPU_FIRMWARE_VERIFY, 3, 0, 0), MR_E_RANGE);
	assert_int_equal(firmware(&h, 4, 1, 0, 0), MR_E_RANGE);
	assert_int_equal(download(&h, &image, sizeof(image)), 0);
	assert_int_equal(firmware(&h, MR_LPU_FIRMWARE_VERIFY, 2, 0, 0), 0);
	assert_int_equal(firmware(&h, MR_LPU_FIRMWARE_ACTIVATE, 2, 0, 0), 0);
	raw_log(&h, MR_LPU_LOG_FIRMWARE, &log, sizeof(log));
	assert_int_equal(log.slots, 2);
	assert_int_equal(log.running, 1);
	assert_int_equal(log.next, 2);
	assert_int_equal(log.updates, 1);
	assert_string_equal(log.version[0], "firmware-sim");
	assert_string_equal(log.version[1], "fw 2");

	/* RESET ends with ENABLE cleared by the device itself; the new firmware says that it runs. */
	struct mr_lpu_cmd_reset reset = {.head = {MR_LPU_RESET, 0, 1}, .kind = 3};
	assert_int_equal(raw_do(&h, 0, &reset, NULL), MR_E_RANGE);
	reset.kind = MR_LPU_RESET_CONTROLLER;
	assert_int_equal(raw_do(&h, 0, &reset, NULL), 0);
	raw_wait_status(&h, 0);
	assert_int_equal(h.port.ops->reg_read(h.port.ctx, MR_LPU_REG_CONTROL), 0);
	raw_enable(&h);
	post_event(&h, 9);
	expect_event(&h, 9, MR_LPU_EVENT_FIRMWARE, MR_LPU_LOG_FIRMWARE, 2);
	id = (void *)(h.mem + 32768);
	struct mr_lpu_cmd_identify c = {
		.head = {MR_LPU_IDENTIFY, 0, 77}, .iova = raw_iova(&h, id), .bytes = sizeof(*id)};
	assert_int_equal(raw_do(&h, 0, &c, NULL), 0);
	assert_string_equal(id->firmware, "fw 2");
	assert_int_equal(id->firmware_slots, 2);
	assert_int_equal(id->logs, 0xfe);
	assert_int_equal(id->features, 0xfe);
	raw_close(&h);
}

/* ---- resets and crashes -------------------------------------------------------------------------- */

static void a_crash_leaves_a_dump(void **state)
{
	struct mr_lpu_crash crash;
	struct raw_host h;

	raw_open(&h, &tiny, 1);
	const struct mr_lpu_port_ops *ops = h.port.ops;
	assert_int_equal(raw_log(&h, MR_LPU_LOG_CRASH, &crash, sizeof(crash)), 0);
	mr_sim_assert(&h.port);
	raw_wait_status(&h, MR_LPU_STATUS_READY | MR_LPU_STATUS_FATAL);
	assert_int_equal(ops->reg_read(h.port.ctx, MR_LPU_REG_FATAL_CODE), MR_LPU_CRASH_ASSERT);
	ops->reg_write(h.port.ctx, MR_LPU_REG_CONTROL, 0);
	raw_wait_status(&h, 0);
	assert_int_equal(ops->reg_read(h.port.ctx, MR_LPU_REG_FATAL_CODE), 0);
	raw_enable(&h);
	post_event(&h, 1);
	expect_event(&h, 1, MR_LPU_EVENT_CRASH, MR_LPU_LOG_CRASH, MR_LPU_CRASH_ASSERT);
	assert_int_equal(raw_log(&h, MR_LPU_LOG_CRASH, &crash, sizeof(crash)), sizeof(crash));
	assert_int_equal(crash.number, 1);
	assert_int_equal(crash.cause, MR_LPU_CRASH_ASSERT);
	assert_string_equal(crash.firmware, "firmware-sim");

	/* A ring that goes away: where, and under which command. */
	assert_int_equal(raw_queue(&h, 1), 0);
	assert_int_equal(ops->dma_unmap(h.port.ctx, RAW_IOVA), 0);
	struct mr_lpu_command fence = {.head = {MR_LPU_FENCE, 0, 31}};
	raw_post(&h, 1, &fence);
	raw_wait_status(&h, MR_LPU_STATUS_READY | MR_LPU_STATUS_FATAL);
	assert_int_equal(ops->reg_read(h.port.ctx, MR_LPU_REG_FATAL_CODE), MR_LPU_CRASH_RING);
	assert_int_equal(ops->dma_map(h.port.ctx, RAW_IOVA, h.mem, RAW_BYTES, 3), 0);
	assert_int_equal(ops->reset(h.port.ctx), 0);
	assert_int_equal(ops->reg_read(h.port.ctx, MR_LPU_REG_STATUS), 0);
	raw_enable(&h);
	raw_log(&h, MR_LPU_LOG_CRASH, &crash, sizeof(crash));
	assert_int_equal(crash.number, 2);
	assert_int_equal(crash.cause, MR_LPU_CRASH_RING);
	assert_int_equal(crash.queue, 1);
	assert_int_equal(crash.iova, raw_iova(&h, h.sq[1]));

	/* Registers that make no sense. */
	ops->reg_write(h.port.ctx, MR_LPU_REG_CONTROL, 0);
	raw_wait_status(&h, 0);
	ops->reg_write(h.port.ctx, MR_LPU_REG_ADMIN_ENTRIES, 3);
	ops->reg_write(h.port.ctx, MR_LPU_REG_CONTROL, 1);
	raw_wait_status(&h, MR_LPU_STATUS_FATAL);
	assert_int_equal(ops->reg_read(h.port.ctx, MR_LPU_REG_FATAL_CODE), MR_LPU_CRASH_ADMIN);
	ops->reg_write(h.port.ctx, MR_LPU_REG_CONTROL, 0);
	raw_wait_status(&h, 0);
	raw_enable(&h);
	raw_log(&h, MR_LPU_LOG_CRASH, &crash, sizeof(crash));
	assert_int_equal(crash.number, 3);
	raw_close(&h);
}

static void what_each_reset_keeps(void **state)
{
	struct mr_lpu_cmd_reset reset = {.head = {MR_LPU_RESET, 0, 1},
					 .kind = MR_LPU_RESET_CONTROLLER};
	struct mr_lpu_health health;
	struct raw_loaded l;

	raw_load(&l, 2);
	const struct mr_lpu_port_ops *ops = l.h.port.ops;
	assert_int_equal(raw_slot_set(&l, 0, 1, 64), 0);
	uint64_t commands = raw_counters(&l.h).commands;
	assert_int_equal(raw_do(&l.h, 0, &reset, NULL), 0);
	raw_wait_status(&l.h, 0);
	raw_enable(&l.h);
	assert_int_equal(raw_queue(&l.h, 1), 0);
	assert_int_equal(raw_counters(&l.h).kv_blocks_used, 0); /* the slot is gone, */
	assert_int_equal(raw_slot_set(&l, 0, 2, 64), 0);        /* the program is not */
	/* A function-level reset takes it. */
	assert_int_equal(ops->reset(l.h.port.ctx), 0);
	raw_enable(&l.h);
	assert_int_equal(raw_queue(&l.h, 1), 0);
	assert_int_equal(raw_slot_set(&l, 0, 3, 64), MR_E_NOT_ACTIVE);
	uint32_t action;
	assert_int_equal(raw_program(&l.h, l.program.container, l.program.bytes, &action), 0);
	assert_int_equal(raw_slot_set(&l, 0, 3, 64), 0);
	reset.kind = MR_LPU_RESET_ALL;
	assert_int_equal(raw_do(&l.h, 0, &reset, NULL), 0);
	raw_wait_status(&l.h, 0);
	raw_enable(&l.h);
	assert_int_equal(raw_queue(&l.h, 1), 0);
	assert_int_equal(raw_slot_set(&l, 0, 3, 64), MR_E_NOT_ACTIVE);
	/* Of a running device: all but the counts is as after power-on. */
	assert_int_equal(ops->reset(l.h.port.ctx), 0);
	assert_int_equal(ops->reg_read(l.h.port.ctx, MR_LPU_REG_STATUS), 0);
	assert_int_equal(ops->reg_read(l.h.port.ctx, MR_LPU_REG_CONTROL), 0);
	assert_int_equal(ops->reg_read(l.h.port.ctx, MR_LPU_REG_ADMIN_ENTRIES), 0);
	assert_int_equal(ops->reg_read(l.h.port.ctx, MR_LPU_REG_ADMIN_SQ_LO), 0);
	raw_enable(&l.h);
	assert_true(raw_counters(&l.h).commands > commands);
	raw_log(&l.h, MR_LPU_LOG_HEALTH, &health, sizeof(health));
	assert_int_equal(health.resets, 4);
	raw_unload(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(features_have_ranges_and_reset_values),
		cmocka_unit_test(the_heartbeat_keeps_its_period),
		cmocka_unit_test(events_are_told_once_until_heard),
		cmocka_unit_test(firmware_runs_from_the_next_reset),
		cmocka_unit_test(a_crash_leaves_a_dump),
		cmocka_unit_test(what_each_reset_keeps),
	};

	return sodium_init() < 0 || cmocka_run_group_tests(tests, NULL, NULL);
}
