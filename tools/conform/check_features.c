// SPDX-License-Identifier: Apache-2.0
/* FEATURES, ASYNC_EVENT and ABORT. */
#include <string.h>

#include "driver/bus/bus.h"
#include "tools/conform/conform.h"

static const struct {
	uint32_t feature, reset, good, bad;
} features[] = {
	{MR_LPU_FEATURE_QUEUES, 0 /* queues_max */, 1, 0},
	{MR_LPU_FEATURE_HEARTBEAT_MS, 1000, 60000, 60001},
	{MR_LPU_FEATURE_HEARTBEAT_MS, 1000, 10, 9},
	{MR_LPU_FEATURE_TEMP_OVER_MK, 358150, 400000, 0},
	{MR_LPU_FEATURE_TEMP_UNDER_MK, 0, 1, 0},
	{MR_LPU_FEATURE_EVENTS, MR_LPU_EVENTS_ALL, 0x0c, 0x80},
	{MR_LPU_FEATURE_SHADOW, 0, 0, 2},
};

static void check_resets(struct conform *t)
{
	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		uint32_t f = features[i].feature;
		uint32_t want = f == MR_LPU_FEATURE_QUEUES ? t->id.queues_max : features[i].reset;
		if (!(t->id.features >> f & 1))
			continue;
		uint32_t got = conform_feature_get(t, f, 0);
		conform_expect(t, "FE-4", got == want, "feature %u is %u after a reset, not %u", f,
			       got, want);
	}
}

SCENARIO(features_hold, 0, "FE-1 FE-2 FE-3 FE-4 FE-5 FE-6 FE-7")
{
	conform_need(t, MR_LPU_FEATURES);
	STATUS("FE-1", conform_feature(t, 0, 0, 0), MR_E_NOT_SUPPORTED);
	STATUS("FE-1", conform_feature(t, 8, 0, 0), MR_E_NOT_SUPPORTED);
	STATUS("FE-1", conform_feature(t, 0xffffffffu, 0, 0), MR_E_NOT_SUPPORTED);
	check_resets(t);
	for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		uint32_t f = features[i].feature;
		if (!(t->id.features >> f & 1))
			continue;
		STATUS("FE-3", conform_feature(t, f, 0, features[i].good), 0);
		EXPECT("FE-3", t->result == features[i].good);
		EXPECT("FE-3", conform_feature_get(t, f, 0) == features[i].good);
		if (features[i].bad || f == MR_LPU_FEATURE_QUEUES) {
			STATUS("FE-2", conform_feature(t, f, 0, features[i].bad), MR_E_RANGE);
			EXPECT("FE-2", conform_feature_get(t, f, 0) == features[i].good);
		}
	}
	STATUS("FE-2",
	       DO(0, mr_lpu_cmd_features, {MR_LPU_FEATURES}, .feature = MR_LPU_FEATURE_EVENTS,
		  .action = 3),
	       MR_E_RANGE);
	/* QUEUES is 1 now. */
	if (t->id.queues_max > 1 && t->id.features >> MR_LPU_FEATURE_QUEUES & 1) {
		STATUS("FE-6", conform_queue(t, 2, 8, 8), MR_E_RANGE);
		MUST(conform_queue(t, 1, 8, 8) == 0);
		STATUS("FE-5", conform_feature(t, MR_LPU_FEATURE_QUEUES, 0, 1), MR_E_BUSY);
		STATUS("FE-7", conform_feature(t, MR_LPU_FEATURE_COALESCE, 2, 0x0a02),
		       t->id.features >> MR_LPU_FEATURE_COALESCE & 1 ? MR_E_NOT_FOUND
								     : MR_E_NOT_SUPPORTED);
		if (t->id.features >> MR_LPU_FEATURE_COALESCE & 1) {
			STATUS("FE-3", conform_feature(t, MR_LPU_FEATURE_COALESCE, 1, 0x6402), 0);
			EXPECT("FE-3",
			       conform_feature_get(t, MR_LPU_FEATURE_COALESCE, 1) == 0x6402);
			STATUS("FE-2", conform_feature(t, MR_LPU_FEATURE_COALESCE, 1, 2),
			       MR_E_RANGE);
			STATUS("FE-2", conform_feature(t, MR_LPU_FEATURE_COALESCE, 1, 0x6400),
			       MR_E_RANGE);
			STATUS("FE-2",
			       conform_feature(t, MR_LPU_FEATURE_COALESCE, 1,
					       MR_LPU_COALESCE(1, MR_LPU_COALESCE_US_MAX + 1)),
			       MR_E_RANGE);
		}
	} else {
		conform_skip(t, "the device has one I/O queue, or no feature QUEUES");
	}
	conform_again(t);
	check_resets(t);
	MUST(conform_feature(t, MR_LPU_FEATURE_EVENTS, 0, 0) == 0);
	conform_flr(t);
	check_resets(t);
}

SCENARIO(coalescing, CONFORM_QUEUE, "FE-8 FE-9 FE-10")
{
	int fd = conform_irq(t, 1);

	conform_need_feature(t, MR_LPU_FEATURE_COALESCE);
	MUST(conform_feature(t, MR_LPU_FEATURE_COALESCE, 1, MR_LPU_COALESCE(3, 1000000)) == 0);
	conform_bell(t, 1, MR_LPU_DB_ARM, 1);
	conform_reg(t, MR_LPU_REG_STATUS);
	conform_fence(t, 1);
	conform_fence(t, 1);
	EXPECT("FE-8", conform_raised(fd, t->profile.quiet_ms) == 0);
	conform_fence(t, 1);
	EXPECT("FE-9", conform_raised(fd, t->profile.quiet_ms * 10) == 1);
	MUST(conform_feature(t, MR_LPU_FEATURE_COALESCE, 1, MR_LPU_COALESCE(200, 60000)) == 0);
	conform_bell(t, 1, MR_LPU_DB_ARM, 1);
	conform_reg(t, MR_LPU_REG_STATUS);
	uint64_t start = conform_now_us();
	conform_fence(t, 1);
	uint64_t n = conform_raised(fd, t->profile.wait_ms);
	uint64_t took = conform_now_us() - start;
	conform_expect(t, "FE-10", n == 1, "no vector after %llu us", (unsigned long long)took);
	conform_expect(t, "FE-8", !n || took >= 60000, "a vector after %llu us of 60000",
		       (unsigned long long)took);
}

/* ---- events ---------------------------------------------------------------------------------- */

static uint32_t ask(struct conform *t)
{
	return POST(0, mr_lpu_cmd_async_event, {MR_LPU_ASYNC_EVENT});
}

/* An event of type DOORBELL happens. */
static void bad_doorbell(struct conform *t, uint32_t value)
{
	conform_bad_bell(t, 1, t->q[1].tail + 5000 + value, t->q[1].tail);
}

static void dma_fault(struct conform *t)
{
	DO(1, mr_lpu_cmd_slot_set, {MR_LPU_SLOT_SET}, .slot = 1, .param_iova = 0x7f0000000000ull,
	   .param_bytes = 128);
}

static int told(struct conform *t, uint32_t request, uint32_t *result)
{
	struct mr_lpu_completion c;

	if (!conform_completion(t, 0, t->profile.wait_ms, &c))
		return 0;
	conform_credit(t, 0);
	*result = c.result;
	return c.request == request && c.status == 0;
}

SCENARIO(events_are_told, CONFORM_PROGRAM | CONFORM_QUEUE, "EV-1 EV-2 EV-3 EV-4 EV-5 EV-6")
{
	struct mr_lpu_completion c;
	struct mr_lpu_error errors[MR_LPU_ERRORS_MAX];
	uint32_t request[17], event = 0, most = t->id.async_max > 14 ? 14 : t->id.async_max;

	conform_need(t, MR_LPU_ASYNC_EVENT);
	if (t->id.logs >> MR_LPU_LOG_CRASH & 1) { /* what earlier scenarios left to tell */
		struct mr_lpu_crash crash;
		conform_log(t, MR_LPU_LOG_CRASH, &crash, sizeof(crash));
		conform_again(t);
		MUST(conform_queue(t, 1, 8, 8) == 0);
	}
	for (uint32_t i = 0; i < most; i++)
		request[i] = ask(t);
	EXPECT("EV-1", !conform_completion(t, 0, t->profile.quiet_ms, &c));
	if (most == t->id.async_max) {
		STATUS("EV-1", DO(0, mr_lpu_cmd_async_event, {MR_LPU_ASYNC_EVENT}), MR_E_FULL);
	}
	EXPECT("EV-2", conform_counters(t).commands > 0);
	bad_doorbell(t, 1);
	int came = told(t, request[0], &event);
	conform_expect(t, "EV-3", came, "an event is not told");
	MUST(came);
	conform_expect(t, "EV-6",
		       MR_LPU_EVENT_TYPE(event) == MR_LPU_EVENT_DOORBELL &&
			       MR_LPU_EVENT_LOG(event) == MR_LPU_LOG_COUNTERS &&
			       MR_LPU_EVENT_INFO(event) == 1,
		       "a bad doorbell of queue 1 is told as %#x", event);
	/* The same again is silent until the log has been read; another type is not. */
	bad_doorbell(t, 2);
	EXPECT("EV-4", !conform_completion(t, 0, t->profile.quiet_ms, &c));
	uint32_t next = 1;
	if (t->id.logs >> MR_LPU_LOG_ERRORS & 1) {
		dma_fault(t);
		MUST(told(t, request[next++], &event));
		conform_expect(t, "EV-6",
			       event == MR_LPU_EVENT(MR_LPU_EVENT_ERROR, MR_LPU_LOG_ERRORS,
						     -MR_E_DMA_FAULT),
			       "a DMA fault is told as %#x", event);
		conform_log(t, MR_LPU_LOG_ERRORS, errors, sizeof(errors));
	}
	uint8_t *room = conform_take(t, 256);
	uint32_t reads =
		POST(0, mr_lpu_cmd_get_log, {MR_LPU_GET_LOG}, .iova = conform_iova(t, room),
		     .bytes = 256, .log = MR_LPU_LOG_COUNTERS);
	int log_came = 0, event_came = 0;
	for (int i = 0; i < 2 && conform_completion(t, 0, t->profile.wait_ms, &c); i++) {
		conform_credit(t, 0);
		log_came |= c.request == reads;
		event_came |= c.request == request[next];
	}
	MUST(log_came);
	conform_expect(t, "EV-4", event_came, "no event after its log was read");
	/* The latest of several: all are kept back by the mask, or told later. */
	conform_again(t);
	MUST(conform_queue(t, 1, 8, 8) == 0);
	if (t->id.queues_max > 1) {
		MUST(conform_queue(t, 2, 8, 8) == 0);
		bad_doorbell(t, 3);
		conform_bad_bell(t, 2, 7000, 0);
		EXPECT("EV-3", told(t, ask(t), &event) && MR_LPU_EVENT_INFO(event) == 2);
	}
	if (t->id.features >> MR_LPU_FEATURE_EVENTS & 1) {
		conform_again(t);
		MUST(conform_queue(t, 1, 8, 8) == 0);
		MUST(conform_feature(t, MR_LPU_FEATURE_EVENTS, 0, 1u << MR_LPU_EVENT_ERROR) == 0);
		uint32_t waiting = ask(t);
		bad_doorbell(t, 4);
		EXPECT("EV-5", !conform_completion(t, 0, t->profile.quiet_ms, &c));
		dma_fault(t);
		EXPECT("EV-5",
		       told(t, waiting, &event) && MR_LPU_EVENT_TYPE(event) == MR_LPU_EVENT_ERROR);
	} else {
		conform_lacks(t, "EV-5", "the device does not have feature EVENTS");
	}
}

SCENARIO(thresholds, 0, "FE-11 EV-6")
{
	struct mr_lpu_completion c;
	struct mr_lpu_power power;
	uint32_t event;

	conform_need_feature(t, MR_LPU_FEATURE_TEMP_OVER_MK);
	conform_need(t, MR_LPU_ASYNC_EVENT);
	conform_need_log(t, MR_LPU_LOG_POWER);
	if (!t->stimulus.temperature)
		conform_skip(t, "nothing here can heat the device");
	t->stimulus.temperature(t->stimulus.arg, 300000);
	conform_nap_us(2000);
	MUST(conform_feature(t, MR_LPU_FEATURE_TEMP_OVER_MK, 0, 310000) == 0);
	MUST(conform_feature(t, MR_LPU_FEATURE_TEMP_UNDER_MK, 0, 280000) == 0);
	MUST(conform_feature(t, MR_LPU_FEATURE_EVENTS, 0, 1u << MR_LPU_EVENT_TEMPERATURE) == 0);
	uint32_t request = ask(t);
	t->stimulus.temperature(t->stimulus.arg, 309999);
	EXPECT("FE-11", !conform_completion(t, 0, t->profile.quiet_ms, &c));
	t->stimulus.temperature(t->stimulus.arg, 310000);
	MUST(told(t, request, &event));
	EXPECT("FE-11", MR_LPU_EVENT_INFO(event) == MR_LPU_TEMPERATURE_OVER);
	EXPECT("EV-6", MR_LPU_EVENT_TYPE(event) == MR_LPU_EVENT_TEMPERATURE &&
			       MR_LPU_EVENT_LOG(event) == MR_LPU_LOG_POWER);
	conform_log(t, MR_LPU_LOG_POWER, &power, sizeof(power));
	EXPECT("FE-11", power.temperature_mk == 310000 && power.over_mk == 310000);
	request = ask(t);
	t->stimulus.temperature(t->stimulus.arg, 320000);
	EXPECT("FE-11", !conform_completion(t, 0, t->profile.quiet_ms, &c));
	t->stimulus.temperature(t->stimulus.arg, 280000);
	MUST(told(t, request, &event));
	EXPECT("FE-11", MR_LPU_EVENT_INFO(event) == MR_LPU_TEMPERATURE_UNDER);
}

/* ---- ABORT ------------------------------------------------------------------------------------- */

#define ABORT(q, request) DO(0, mr_lpu_cmd_abort, {MR_LPU_ABORT}, .queue = (q), .target = (request))

SCENARIO(aborts, CONFORM_PROGRAM | CONFORM_QUEUE, "AB-1 AB-2 AB-3 AB-4 AB-5 AB-6 AB-7 AB-8 E-3")
{
	struct mr_lpu_completion c;
	struct mr_lpu_record r;
	struct mr_lpu_slot_param *p = conform_param(t, 16);
	struct mr_lpu_decode_entry *e = conform_entries(t, 1);

	conform_need(t, MR_LPU_ABORT);
	if (t->id.queues_max > 1)
		STATUS("AB-7", ABORT(2, 1), MR_E_NOT_FOUND);
	else
		conform_lacks(t, "AB-7", "the device has one I/O queue");
	MUST(conform_slot(t, 1, 0, 5, 128) == 0);
	*e = (struct mr_lpu_decode_entry){.generation = 5, .token = 20};
	/* It waits for record credit after 8; a SLOT_SET and a FENCE wait behind it. */
	uint32_t runs = conform_decode_post(t, 1, e, 1, 100);
	uint32_t opens = POST(1, mr_lpu_cmd_slot_set, {MR_LPU_SLOT_SET}, .slot = 1, .generation = 6,
			      .param_iova = conform_iova(t, p), .param_bytes = sizeof(*p));
	uint32_t fence = POST(1, mr_lpu_command, {MR_LPU_FENCE});
	for (int i = 0; i < 8; i++)
		MUST(conform_record(t, 1, t->profile.wait_ms, &r));
	STATUS("AB-2", ABORT(1, 0x7fffffffu), 0);
	EXPECT("AB-2", t->result == 0);
	STATUS("AB-3", ABORT(1, opens), 0);
	EXPECT("AB-1", t->result == 1);
	EXPECT("AB-5", !conform_completion(t, 1, t->profile.quiet_ms, &c));
	STATUS("AB-4", ABORT(1, runs), 0);
	EXPECT("AB-4", t->result == 1);
	int ended = conform_completion(t, 1, t->profile.wait_ms, &c);
	conform_expect(t, "AB-4", ended, "an aborted DECODE that waits for credit does not end");
	MUST(ended);
	EXPECT("AB-5", c.request == runs);
	EXPECT("AB-1", c.request != runs || c.status == -MR_E_CANCELLED);
	conform_expect(t, "AB-4", c.result == 8, "8 records made, the result is %u", c.result);
	conform_expect(t, "E-3", c.result == 8, "8 records made, the result is %u", c.result);
	MUST(conform_completion(t, 1, t->profile.wait_ms, &c));
	EXPECT("AB-5", c.request == opens);
	conform_expect(t, "AB-1", c.status == -MR_E_CANCELLED, "%s after an ABORT with result 1",
		       mr_status_name(-(int)c.status));
	MUST(conform_completion(t, 1, t->profile.wait_ms, &c));
	conform_expect(t, "AB-2", c.request == fence && c.status == 0,
		       "a command that nobody aborted ends with %s",
		       mr_status_name(-(int)c.status));
	conform_credit(t, 1);
	conform_record_credit(t, 1);
	EXPECT("AB-1", !conform_completion(t, 1, 2, &c));
	STATUS("AB-3", conform_free(t, 1, 6), MR_E_STALE);
	/* KV of the eight that were fed is there, and the slot free. */
	STATUS("AB-6", conform_decode(t, 0, 5, 8, 20, 1, NULL), 0);
	STATUS("AB-6", conform_free(t, 0, 5), 0);
	STATUS("AB-2", ABORT(1, runs), 0);
	EXPECT("AB-2", t->result == 0);
	if (conform_has(t, MR_LPU_ASYNC_EVENT)) {
		uint32_t waits = POST(0, mr_lpu_cmd_async_event, {MR_LPU_ASYNC_EVENT});
		uint32_t abort = POST(0, mr_lpu_cmd_abort, {MR_LPU_ABORT}, .target = waits);
		int event = 0, result = 0;
		for (int i = 0; i < 2 && conform_completion(t, 0, t->profile.wait_ms, &c); i++) {
			event |= c.request == waits && c.status == -MR_E_CANCELLED;
			result |= c.request == abort && c.status == 0 && c.result == 1;
			conform_credit(t, 0);
		}
		conform_expect(t, "AB-8", event && result, "ABORT of an ASYNC_EVENT: %s, result %s",
			       event ? "ended" : "not ended", result ? "1" : "not 1");
	} else {
		conform_lacks(t, "AB-8", "the device does not have ASYNC_EVENT");
	}
}
