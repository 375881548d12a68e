// SPDX-License-Identifier: Apache-2.0
/*
 * What the LPU driver does about a device that stalls, gives up, is taken out, or has something to say: the
 * steps of recovery in a time of the test's own, against a device that lies, and events from the simulator.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <sodium.h>

#include "driver/lpu/lpu.h"
#include "driver/lpu/recover.h"
#include "driver/metrics.h"
#include "support/lpu_liar.h"
#include "support/lpu_rig.h"

/* ---- the steps alone ------------------------------------------------------------------------------ */

struct fake {
	uint64_t now;
	uint32_t status, beat, beats;
	int abort_says, controller_says, function_says;
	uint32_t aborts, controllers, functions;
	uint32_t reads; /* of registers */
};

static uint64_t fake_now(void *ctx)
{
	return ((struct fake *)ctx)->now;
}
static uint32_t fake_status(void *ctx)
{
	struct fake *f = ctx;

	f->reads++;
	return f->status;
}
static uint32_t fake_beat(void *ctx)
{
	struct fake *f = ctx;

	f->reads++;
	return f->beat += f->beats;
}
static int fake_abort(void *ctx)
{
	struct fake *f = ctx;

	f->aborts += !f->abort_says;
	return f->abort_says;
}
static int fake_controller(void *ctx)
{
	struct fake *f = ctx;

	f->controllers++;
	return f->controller_says;
}
static int fake_function(void *ctx)
{
	struct fake *f = ctx;

	f->functions++;
	return f->function_says;
}

static const struct mr_recover_ops fake_ops = {
	fake_now, fake_status, fake_beat, fake_abort, fake_controller, fake_function,
};

static struct mr_recover recover(struct fake *f)
{
	*f = (struct fake){.now = 1, .status = MR_LPU_STATUS_READY};
	return (struct mr_recover){
		.ops = &fake_ops, .ctx = f, .stall_ns = 1600, .slow_ns = 10000, .abort_ns = 500};
}

/* Ticks for at most @ns; the status of the tick that gave up, and when, in *took. */
static int run(struct mr_recover *r, struct fake *f, uint64_t ns, uint64_t *took)
{
	uint64_t from = f->now;
	int status = 0;

	while (!status && f->now - from < ns) {
		status = mr_recover_tick(r);
		f->now += 10;
	}
	*took = f->now - from;
	return status;
}

static void each_step_has_its_bound(void **state)
{
	struct fake f;
	uint64_t took;
	struct mr_recover r = recover(&f);

	/* The heart stands still: abort, and without an answer, lost. */
	assert_int_equal(run(&r, &f, 1600, &took), 0);
	assert_int_equal(f.aborts, 0);
	assert_int_equal(run(&r, &f, 10000, &took), MR_E_TIMEOUT);
	assert_int_equal(f.aborts, 1);
	assert_true(took <= 520);
	assert_int_equal(mr_recover_tick(&r), MR_E_DEVICE); /* and it stays so until a reset */
	assert_int_equal(mr_recover_reset(&r), 0);
	assert_int_equal(f.controllers, 1);
	assert_int_equal(f.functions, 0);

	/* An answer in time ends it. */
	assert_int_equal(run(&r, &f, 1700, &took), 0);
	assert_int_equal(f.aborts, 2);
	mr_recover_progress(&r);
	assert_int_equal(run(&r, &f, 1600, &took), 0);
	assert_int_equal(f.aborts, 2);
	mr_recover_progress(&r);

	/* The heart beats: the device is slow, and is left alone for slow_ns. */
	f.beats = 1;
	assert_int_equal(run(&r, &f, 9000, &took), 0);
	assert_int_equal(f.aborts, 2);
	assert_int_equal(run(&r, &f, 3000, &took), MR_E_TIMEOUT);
	assert_int_equal(f.aborts, 3);

	/* One that cannot abort is lost at once. */
	r = recover(&f);
	f.abort_says = MR_E_NOT_SUPPORTED;
	assert_int_equal(run(&r, &f, 10000, &took), MR_E_TIMEOUT);
	assert_true(took <= 1640);
}

/* Over vfio-user a register is two system calls and a wait: a step that takes a while must not cost them. */
static void a_device_at_work_is_not_asked(void **state)
{
	struct fake f;
	uint64_t took;
	struct mr_recover r = recover(&f);

	for (int i = 0; i < 5; i++) {
		assert_int_equal(run(&r, &f, 90, &took), 0);
		assert_int_equal(f.reads, 0);
		mr_recover_progress(&r);
	}
	assert_int_equal(run(&r, &f, 120, &took), 0);
	assert_int_equal(f.reads, 2);

	/* Looked at rarely: a heart is not said to stand still before it had the time for a beat. */
	r = recover(&f);
	f.beats = 1;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(mr_recover_tick(&r), 0);
		f.now += 2000;
	}
	assert_int_equal(f.aborts, 0);
	r = recover(&f);
	assert_int_equal(mr_recover_tick(&r), 0);
	f.now += 2000;
	assert_int_equal(mr_recover_tick(&r), 0); /* the first look */
	f.now += 10;
	assert_int_equal(mr_recover_tick(&r), 0);
	assert_int_equal(f.aborts, 0);
	f.now += 100;
	assert_int_equal(mr_recover_tick(&r), 0);
	assert_int_equal(f.aborts, 1);
}

static void one_that_gave_up_is_not_waited_for(void **state)
{
	static const uint32_t status[] = {MR_LPU_STATUS_READY | MR_LPU_STATUS_FATAL, 0, UINT32_MAX};
	uint64_t took;
	struct fake f;

	for (size_t i = 0; i < 3; i++) {
		struct mr_recover r = recover(&f);
		f.beats = 1;
		f.status = status[i];
		assert_int_equal(run(&r, &f, 10000, &took), MR_E_DEVICE);
		assert_true(took <= 130);
		assert_int_equal(f.aborts, 0);
		/* The ladder: controller, function, then nothing any more. */
		f.controller_says = MR_E_TIMEOUT;
		assert_int_equal(mr_recover_reset(&r), 0);
		assert_int_equal(f.functions, 1);
		f.function_says = MR_E_IO;
		assert_int_equal(mr_recover_reset(&r), MR_E_IO);
		assert_int_equal(f.controllers, 2);
		assert_int_equal(f.functions, 2);
		assert_int_equal(mr_recover_tick(&r), MR_E_DEVICE); /* given up, */
		f.function_says = 0;
		assert_int_equal(mr_recover_reset(&r), 0); /* and come back */
		assert_int_equal(mr_recover_tick(&r), 0);
	}
}

/* ---- a device that lies --------------------------------------------------------------------------- */

static void silent(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
}
static void honest(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
	for (uint32_t i = 0; i < c->steps; i++)
		liar_put(l, c, i);
	liar_say(l, 1, c->head.request, 0, c->steps);
}
static void one_then_silent(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
	liar_put(l, c, 0);
}

static void ends_it(struct liar *l, const struct mr_lpu_cmd_abort *c)
{
	assert_int_equal(c->queue, 1);
	liar_say(l, 1, c->target, -MR_E_CANCELLED, 1);
}

static uint64_t tick_ms(void *arg)
{
	struct liar *l = arg;

	return l->clock += 1000000;
}

struct world {
	struct liar liar;
	struct mr_arena *arena;
	struct mr_model *model;
	struct mr_device *dev;
};

static void open_world(struct world *w)
{
	struct mr_arena_options o = {.node = -1, .no_huge = 1};
	struct liar probe = {0};

	memset(w, 0, sizeof(*w));
	assert_int_equal(mr_model_open(MR_TEST_DATA "/tiny.gguf", &w->model, NULL, 0), 0);
	assert_int_equal(mr_arena_create(&o, &w->arena), 0);
	/* What the liar says of itself, and then one command more. */
	assert_int_equal(liar_open(&probe, w->arena, &w->dev), 0);
	w->dev->admin->close(w->dev);
	w->liar.id = probe.id;
	w->liar.id.opcodes_admin = 1ull << MR_LPU_ABORT;
	w->liar.now_ns = tick_ms;
	assert_int_equal(liar_open(&w->liar, w->arena, &w->dev), 0);
	assert_int_equal(w->dev->work->load(w->dev, w->model, NULL, NULL), 0);
}

static void close_world(struct world *w)
{
	w->dev->admin->close(w->dev);
	mr_arena_destroy(w->arena);
	mr_model_close(w->model);
}

/* Polls until an event comes or poll fails; how it ended. */
static int poll_long(struct mr_device *dev, struct mr_event *event)
{
	int got = 0;

	for (uint32_t i = 0; !got && i < 4096 * 1000; i++)
		got = dev->work->poll(dev, event, 1);
	return got;
}

static void an_abort_ends_one_command(void **state)
{
	static struct world w;
	struct mr_event e[4];

	open_world(&w);
	uint64_t aborts = mr_metric_read(MR_M_lpu_aborts);
	struct mr_decode_entry entry = {lpu_rig_slot(w.dev, 64), 3, 20};
	w.liar.decode = one_then_silent;
	w.liar.abort = ends_it;
	assert_int_equal(w.dev->work->decode(w.dev, &entry, 1, 3, 7), 0);
	assert_int_equal(poll_long(w.dev, e), 1);
	assert_int_equal(e[0].type, MR_EVENT_TOKEN);
	assert_int_equal(poll_long(w.dev, e), 1);
	assert_int_equal(e[0].type, MR_EVENT_DONE);
	assert_int_equal(e[0].tag, 7);
	assert_int_equal(e[0].status, MR_E_TIMEOUT);
	assert_int_equal(mr_metric_read(MR_M_lpu_aborts), aborts + 1);
	assert_int_equal(w.liar.resets, 0);
	/* The device is as it was. */
	w.liar.decode = honest;
	assert_int_equal(w.dev->work->decode(w.dev, &entry, 1, 2, 8), 0);
	assert_int_equal(lpu_rig_wait(w.dev, 8, e, 4), 3);
	assert_int_equal(e[2].status, 0);
	close_world(&w);
}

/* CANCELLED that nobody asked for is a lie. */
static void cancels(struct liar *l, const struct mr_lpu_cmd_decode *c)
{
	liar_say(l, 1, c->head.request, -MR_E_CANCELLED, 0);
}

static void resets_escalate_and_end(void **state)
{
	static struct world w;
	struct mr_event e[4];

	open_world(&w);
	struct mr_decode_entry entry = {lpu_rig_slot(w.dev, 64), 0, 20};
	w.liar.decode = cancels;
	assert_int_equal(w.dev->work->decode(w.dev, &entry, 1, 1, 1), 0);
	assert_int_equal(poll_long(w.dev, e), 1);
	assert_int_equal(e[0].status, MR_E_PROTOCOL);

	/* Neither the abort nor ENABLE is heard: the function reset, and the program is sent again. */
	w.liar.decode = silent;
	assert_int_equal(w.dev->work->decode(w.dev, &entry, 1, 1, 2), 0);
	assert_int_equal(poll_long(w.dev, e), MR_E_TIMEOUT);
	w.liar.stuck = 1;
	uint32_t loads = w.liar.loads;
	assert_int_equal(w.dev->admin->reset(w.dev), 0);
	assert_int_equal(w.liar.resets, 1);
	assert_int_equal(w.liar.loads, 2 * loads);
	assert_int_equal(poll_long(w.dev, e), 1);
	assert_int_equal(e[0].status, MR_E_DEVICE);
	assert_int_equal(e[0].tag, 2);
	w.liar.decode = honest;
	entry.slot = lpu_rig_slot(w.dev, 64);
	assert_int_equal(w.dev->work->decode(w.dev, &entry, 1, 1, 3), 0);
	assert_int_equal(lpu_rig_wait(w.dev, 3, e, 4), 2);

	/* Taken out: noticed by STATUS, and no reset brings it back. */
	w.liar.decode = silent;
	assert_int_equal(w.dev->work->decode(w.dev, &entry, 1, 1, 4), 0);
	w.liar.gone = 1;
	uint64_t from = w.liar.clock;
	assert_int_equal(poll_long(w.dev, e), MR_E_DEVICE);
	assert_true(w.liar.clock - from < 50 * 1000000);
	from = w.liar.clock;
	assert_int_not_equal(w.dev->admin->reset(w.dev), 0);
	assert_true(w.liar.clock - from < 20 * 1000000);         /* it is not waited for */
	assert_int_equal(w.dev->admin->reset(w.dev), MR_E_BUSY); /* its event waits, */
	assert_int_equal(w.dev->work->poll(w.dev, e, 4), 1);     /* and is told */
	assert_int_equal(e[0].tag, 4);
	assert_int_equal(e[0].status, MR_E_DEVICE);
	assert_true(w.dev->work->poll(w.dev, e, 1) < 0);
	/* Put back, it works again. */
	w.liar.gone = 0;
	assert_int_equal(w.dev->admin->reset(w.dev), 0);
	w.liar.decode = honest;
	entry.slot = lpu_rig_slot(w.dev, 64);
	assert_int_equal(w.dev->work->decode(w.dev, &entry, 1, 1, 5), 0);
	assert_int_equal(lpu_rig_wait(w.dev, 5, e, 4), 2);
	close_world(&w);
}

/* A device that writes nothing but what it wrote before makes no progress. */
static void noise_is_no_progress(void **state)
{
	static struct world w;
	uint64_t repeated = mr_metric_read(MR_M_lpu_repeated);
	struct mr_event e[4];
	int status = 0;

	open_world(&w);
	struct mr_decode_entry entry = {lpu_rig_slot(w.dev, 64), 0, 20};
	w.liar.decode = silent;
	assert_int_equal(w.dev->work->decode(w.dev, &entry, 1, 1, 1), 0);
	assert_int_equal(w.dev->work->poll(w.dev, e, 4), 0);
	for (uint32_t i = 0; !status && i < 4096 * 1000; i++) {
		liar_say(&w.liar, 1, 0, 0, 0); /* SLOT_SET's completion */
		status = w.dev->work->poll(w.dev, e, 4);
	}
	assert_int_equal(status, MR_E_TIMEOUT);
	assert_true(mr_metric_read(MR_M_lpu_repeated) > repeated);
	close_world(&w);
}

/* ---- events --------------------------------------------------------------------------------------- */

static char lines[4096];

static void keep(void *arg, const char *line)
{
	strncat(lines, line, sizeof(lines) - strlen(lines) - 2);
	strcat(lines, "\n");
}

static void wait_line(struct mr_device *dev, const char *text)
{
	struct mr_event event;
	time_t until = time(NULL) + 20;

	while (!strstr(lines, text)) {
		assert_true(dev->work->poll(dev, &event, 1) >= 0);
		if (time(NULL) > until)
			fail_msg("no line says %s:\n%s", text, lines);
	}
}

static void events_become_lines_and_counts(void **state)
{
	uint64_t events = mr_metric_read(MR_M_lpu_events);
	uint64_t corrected = mr_metric_read(MR_M_lpu_ecc_corrected);
	struct mr_event event;
	struct lpu_rig rig;
	int status = 0;

	lines[0] = 0;
	lpu_rig_open(&rig, &(struct lpu_rig_options){.log = keep, .timeout_ms = 500});
	struct mr_device *dev = rig.dev;
	mr_sim_sense(&rig.port, 361200, 8000);
	wait_line(dev, "361.2 K, at most 361.2 K; 8000 mW");
	assert_non_null(strstr(lines, "temperature went above its threshold"));
	assert_int_equal(mr_metric_read(MR_M_lpu_temperature_peak), 361200);
	mr_sim_ecc(&rig.port, 5, 1);
	wait_line(dev, "ECC corrected 5 words of SRAM, and lost 1");
	/* The log was read, so the next of its kind is told too. */
	mr_sim_ecc(&rig.port, 2, 0);
	wait_line(dev, "ECC corrected 7 words of SRAM, and lost 1");
	assert_int_equal(mr_metric_read(MR_M_lpu_ecc_corrected), corrected + 7);
	assert_int_equal(mr_metric_read(MR_M_lpu_events), events + 3);

	/* A device that goes on and on is counted, and fills no log. */
	uint32_t count = 0;
	for (uint64_t i = 1; i <= 200; i++) {
		mr_sim_ecc(&rig.port, 1, 0);
		while (mr_metric_read(MR_M_lpu_ecc_corrected) < corrected + 7 + i)
			assert_true(dev->work->poll(dev, &event, 1) == 0);
	}
	for (const char *l = lines; (l = strstr(l, "event: ECC")); l++)
		count++;
	assert_true(count <= 20);

	/* A firmware that asserts: lost, reset, and the dump is told afterwards. */
	struct mr_decode_entry entry = {lpu_rig_slot(dev, 128), 0, 20};
	mr_sim_assert(&rig.port);
	while (!(rig.port.ops->reg_read(rig.port.ctx, MR_LPU_REG_STATUS) & MR_LPU_STATUS_FATAL))
		;
	assert_int_equal(dev->work->decode(dev, &entry, 1, 8, 1), 0);
	while (!status)
		status = dev->work->poll(dev, &event, 1);
	assert_int_equal(status, MR_E_DEVICE);
	assert_int_equal(dev->admin->reset(dev), 0);
	assert_int_equal(dev->work->poll(dev, &event, 1), 1);
	assert_int_equal(event.status, MR_E_DEVICE);
	wait_line(dev, "crash 1 of firmware firmware-sim: cause 3");
	entry.slot = lpu_rig_slot(dev, 128);
	struct mr_event all[16];
	assert_int_equal(dev->work->decode(dev, &entry, 1, 8, 2), 0);
	assert_int_equal(lpu_rig_wait(dev, 2, all, 16), 9);
	assert_int_equal(all[8].status, 0);
	lpu_rig_close(&rig);
}

static void doorbells_are_avoided(void **state)
{
	uint64_t avoided = mr_metric_read(MR_M_lpu_doorbells_avoided);
	struct mr_event all[80];
	struct lpu_rig rig;

	lpu_rig_open(&rig, &(struct lpu_rig_options){0});
	struct mr_slot slot = lpu_rig_slot(rig.dev, 128);
	for (uint64_t i = 0; i < 20; i++) {
		struct mr_decode_entry entry = {slot, 0, 20};
		assert_int_equal(rig.dev->work->decode(rig.dev, &entry, 1, 64, i), 0);
		assert_int_equal(lpu_rig_wait(rig.dev, i, all, 80), 65);
	}
	/* Of 20 x 64 records, most are given back while the device is at its next step. */
	assert_true(mr_metric_read(MR_M_lpu_doorbells_avoided) - avoided > 100);
	/* A device that sleeps is rung: else each of these would wait for its next heartbeat, some 50 ms. */
	uint64_t rung = mr_metric_read(MR_M_lpu_doorbells);
	struct timespec from, to;
	clock_gettime(CLOCK_MONOTONIC, &from);
	for (uint64_t i = 0; i < 20; i++) {
		struct mr_decode_entry entry = {slot, 0, 20};
		nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
		assert_int_equal(rig.dev->work->decode(rig.dev, &entry, 1, 1, i), 0);
		assert_int_equal(lpu_rig_wait(rig.dev, i, all, 80), 2);
	}
	clock_gettime(CLOCK_MONOTONIC, &to);
	assert_true(mr_metric_read(MR_M_lpu_doorbells) - rung >= 10);
	assert_true((to.tv_sec - from.tv_sec) * 1000 + (to.tv_nsec - from.tv_nsec) / 1000000 < 700);
	lpu_rig_close(&rig);
}

/* ---- features and firmware ------------------------------------------------------------------------ */

static void features_and_firmware_by_the_driver(void **state)
{
	static struct {
		struct mr_lpu_firmware_image head;
		uint8_t code[5 << 17];
	} image = {.head = {.magic = MR_LPU_FIRMWARE_MAGIC,
			    .format = MR_LPU_FIRMWARE_FORMAT,
			    .bytes = sizeof(image.code),
			    .product = "tiny",
			    .version = "by the driver"}};
	struct mr_lpu_firmware_log log;
	struct lpu_rig rig;
	uint32_t value;

	lines[0] = 0;
	lpu_rig_open(&rig, &(struct lpu_rig_options){.log = keep});
	struct mr_device *dev = rig.dev;
	assert_int_equal(mr_lpu_feature_get(dev, MR_LPU_FEATURE_SHADOW, &value), 0);
	assert_int_equal(value, 1); /* the driver took them */
	assert_int_equal(mr_lpu_feature_set(dev, MR_LPU_FEATURE_SHADOW, 0), MR_E_NOT_SUPPORTED);
	assert_int_equal(mr_lpu_feature_get(dev, 40, &value), MR_E_NOT_SUPPORTED);
	assert_int_equal(mr_lpu_feature_set(dev, MR_LPU_FEATURE_HEARTBEAT_MS, 1), MR_E_RANGE);
	assert_int_equal(mr_lpu_feature_set(dev, MR_LPU_FEATURE_COALESCE, MR_LPU_COALESCE(8, 50)),
			 0);
	assert_int_equal(mr_lpu_feature_get(dev, MR_LPU_FEATURE_COALESCE, &value), 0);
	assert_int_equal(value, MR_LPU_COALESCE(8, 50));

	assert_int_equal(mr_lpu_firmware_update(dev, &image, sizeof(image), 2), MR_E_CHECKSUM);
	crypto_hash_sha256(image.head.sha256, image.code, sizeof(image.code));
	assert_int_equal(mr_lpu_firmware_update(dev, &image, sizeof(image), 1), MR_E_BUSY);
	assert_int_equal(mr_lpu_firmware_update(dev, &image, 2 << 20, 2), MR_E_TOO_LARGE);
	assert_int_equal(mr_lpu_firmware_update(dev, &image, sizeof(image), 2), 0);
	assert_int_equal(mr_lpu_log(dev, MR_LPU_LOG_FIRMWARE, &log, sizeof(log)), sizeof(log));
	assert_int_equal(log.running, 1);
	assert_int_equal(dev->admin->reset(dev), 0);
	wait_line(dev, "firmware by the driver runs, from slot 2");
	assert_int_equal(mr_lpu_feature_get(dev, MR_LPU_FEATURE_COALESCE, &value), 0);
	assert_int_equal(value, 0);
	lpu_rig_close(&rig);

	/* What the options ask for is there again after each reset. */
	lpu_rig_open(&rig, &(struct lpu_rig_options){.coalesce = MR_LPU_COALESCE(2, 100)});
	for (int i = 0; i < 2; i++) {
		assert_int_equal(mr_lpu_feature_get(rig.dev, MR_LPU_FEATURE_COALESCE, &value), 0);
		assert_int_equal(value, MR_LPU_COALESCE(2, 100));
		assert_int_equal(rig.dev->admin->reset(rig.dev), 0);
	}
	lpu_rig_close(&rig);
}

/* A device whose events are nonsense. */
static void mad(struct liar *l, const struct mr_lpu_command *c)
{
	static const uint32_t said[] = {0, MR_LPU_EVENT(9, MR_LPU_LOG_HEALTH, 0),
					MR_LPU_EVENT(MR_LPU_EVENT_ECC, MR_LPU_LOG_CHIP, 0),
					MR_LPU_EVENT(MR_LPU_EVENT_ECC, 200, 0),
					MR_LPU_EVENT(MR_LPU_EVENT_CRASH, MR_LPU_LOG_CRASH, 1)};

	/* A log that is shorter, or longer, than any can be. */
	if (c->head.opcode == MR_LPU_GET_LOG)
		liar_say(l, 0, c->head.request, 0, l->beats++ % 2 ? 1 : UINT32_MAX);
	else if (l->beat < 5)
		liar_say(l, 0, c->head.request, 0, said[l->beat++]);
}

static void mad_events_are_counted(void **state)
{
	uint64_t bad = mr_metric_read(MR_M_lpu_bad_completion);
	static struct world w;
	struct mr_event e[4];

	open_world(&w);
	w.dev->admin->close(w.dev);
	memset(w.liar.map, 0, sizeof(w.liar.map));
	w.liar.id.opcodes_admin |= 1ull << MR_LPU_ASYNC_EVENT;
	w.liar.id.async_max = 4;
	w.liar.event = mad;
	assert_int_equal(liar_open(&w.liar, w.arena, &w.dev), 0);
	for (int i = 0; i < 100; i++)
		assert_int_equal(w.dev->work->poll(w.dev, e, 1), 0);
	assert_int_equal(mr_metric_read(MR_M_lpu_bad_completion), bad + 5);
	/* An answer to nothing at all. */
	liar_say(&w.liar, 0, 12345, 0, 0);
	assert_int_equal(w.dev->work->poll(w.dev, e, 1), 0);
	assert_int_equal(mr_metric_read(MR_M_lpu_bad_completion), bad + 6);
	close_world(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_step_has_its_bound),
		cmocka_unit_test(a_device_at_work_is_not_asked),
		cmocka_unit_test(one_that_gave_up_is_not_waited_for),
		cmocka_unit_test(an_abort_ends_one_command),
		cmocka_unit_test(resets_escalate_and_end),
		cmocka_unit_test(noise_is_no_progress),
		cmocka_unit_test(events_become_lines_and_counts),
		cmocka_unit_test(doorbells_are_avoided),
		cmocka_unit_test(features_and_firmware_by_the_driver),
		cmocka_unit_test(mad_events_are_counted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
