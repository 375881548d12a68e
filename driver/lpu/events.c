// SPDX-License-Identifier: Apache-2.0
/*
 * Asynchronous events: a few ASYNC_EVENTs are always with the device. What one tells names a log, which is
 * read by a command that nobody waits for; its page goes to the counters and, as a line, to the operator. The
 * device says no more of that kind until the log was read, so a device that is always unwell costs one log
 * at a time. What comes is checked and copied once.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "driver/lpu/internal.h"
#include "driver/metrics.h"

#define EVENTS_KEPT 2u             /* ASYNC_EVENTs with the device */
#define LINES_NS    10000000000ull /* in so long, */
#define LINES_MAX   20u            /* so many lines a log: a device must not fill a disk */

void mr_lpu_say(const struct lpu *lpu, const char *format, ...)
{
	char line[256];
	va_list args;

	if (!lpu->log)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	lpu->log(lpu->log_arg, line);
}

/* A line about an event that names @log, where there were not too many of late: all of them are counted. */
__attribute__((format(printf, 3, 4))) static void say(struct lpu *lpu, uint32_t log,
						      const char *format, ...)
{
	uint64_t now = mr_lpu_now_ns(lpu);
	char line[224];
	va_list args;

	if (now - lpu->lines_ns > LINES_NS) {
		lpu->lines_ns = now;
		memset(lpu->lines, 0, sizeof(lpu->lines));
	}
	if (lpu->lines[log]++ >= LINES_MAX)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	mr_lpu_say(lpu, "%s: %s", lpu->dev.caps.name, line);
}

static void post_event(struct lpu *lpu)
{
	struct mr_lpu_cmd_async_event cmd = {.head.opcode = MR_LPU_ASYNC_EVENT};

	/* Where the queue is full, one event command fewer is with the device. */
	mr_lpu_admin_post(lpu, &cmd, ADMIN_EVENT);
}

/* One log at a time: its page has one place. */
static void read_next(struct lpu *lpu)
{
	if (!lpu->event_logs || lpu->event_log)
		return;
	uint32_t log = (uint32_t)__builtin_ctz(lpu->event_logs);
	struct mr_lpu_cmd_get_log cmd = {
		.head.opcode = MR_LPU_GET_LOG,
		.iova = lpu->readback->iova + MR_CHIP_BYTES_MAX,
		.bytes = EVENT_BYTES,
		.log = log,
	};
	if (mr_lpu_admin_post(lpu, &cmd, ADMIN_LOG))
		return;
	lpu->event_logs &= ~(1u << log);
	lpu->event_log = log;
}

void mr_lpu_events_start(struct lpu *lpu)
{
	lpu->event_logs = lpu->event_log = 0;
	if (!(lpu->id.opcodes_admin & 1ull << MR_LPU_ASYNC_EVENT))
		return;
	for (uint32_t i = 0; i < EVENTS_KEPT && i < lpu->id.async_max; i++)
		post_event(lpu);
	/* What ECC had to tell when the device was reset, it tells no more; its log still says it. */
	if (lpu->recover.controller_resets && lpu->id.logs & 1ull << MR_LPU_LOG_HEALTH) {
		lpu->event_logs = 1u << MR_LPU_LOG_HEALTH;
		read_next(lpu);
	}
}

static void on_event(struct lpu *lpu, uint32_t result)
{
	uint32_t type = MR_LPU_EVENT_TYPE(result), log = MR_LPU_EVENT_LOG(result);

	/* A log that this driver does not know must not be asked for: its length is not known either. */
	if (!type || type > MR_LPU_EVENT_CRASH || log < MR_LPU_LOG_COUNTERS ||
	    log > MR_LPU_LOG_POWER || log == MR_LPU_LOG_CHIP) {
		mr_count(MR_M_lpu_bad_completion, 1);
		return;
	}
	mr_count(MR_M_lpu_events, 1);
	if (type == MR_LPU_EVENT_DOORBELL || type == MR_LPU_EVENT_ERROR)
		say(lpu, log, "event: %s %u",
		    type == MR_LPU_EVENT_ERROR ? "a command ended with status"
					       : "a senseless doorbell on queue",
		    MR_LPU_EVENT_INFO(result));
	if (type == MR_LPU_EVENT_TEMPERATURE)
		say(lpu, log, "event: temperature went %s its threshold",
		    MR_LPU_EVENT_INFO(result) == MR_LPU_TEMPERATURE_OVER ? "above" : "below");
	lpu->event_logs |= 1u << log;
}

static void count_up(enum mr_metric m, uint64_t was, uint64_t now)
{
	if (now > was)
		mr_count(m, now - was);
}

static void on_health(struct lpu *lpu, const struct mr_lpu_health *h)
{
	count_up(MR_M_lpu_ecc_corrected, lpu->health.ecc_corrected, h->ecc_corrected);
	count_up(MR_M_lpu_ecc_uncorrected, lpu->health.ecc_uncorrected, h->ecc_uncorrected);
	if (h->ecc_corrected == lpu->health.ecc_corrected &&
	    h->ecc_uncorrected == lpu->health.ecc_uncorrected)
		return;
	lpu->health = *h;
	say(lpu, MR_LPU_LOG_HEALTH, "event: ECC corrected %llu words of SRAM, and lost %llu",
	    (unsigned long long)h->ecc_corrected, (unsigned long long)h->ecc_uncorrected);
}

static void on_power(struct lpu *lpu, const struct mr_lpu_power *p)
{
	mr_metric_max(MR_M_lpu_temperature_peak, p->temperature_peak_mk);
	say(lpu, MR_LPU_LOG_POWER, "%u.%u K, at most %u.%u K; %u mW", p->temperature_mk / 1000,
	    p->temperature_mk % 1000 / 100, p->temperature_peak_mk / 1000,
	    p->temperature_peak_mk % 1000 / 100, p->power_mw);
}

/* A device's text, for a line: what is not printable becomes a point. */
static void plain(char *to, const char *from, size_t bytes)
{
	size_t i = 0;

	for (; i + 1 < bytes && from[i]; i++)
		to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '.';
	to[i] = 0;
}

static void on_crash(struct lpu *lpu, const struct mr_lpu_crash *c)
{
	char firmware[sizeof(c->firmware)], text[sizeof(c->text)];

	plain(firmware, c->firmware, sizeof(firmware));
	plain(text, c->text, sizeof(text));
	mr_count(MR_M_lpu_crashes, 1);
	say(lpu, MR_LPU_LOG_CRASH,
	    "event: crash %llu of firmware %s: cause %u, queue %u, opcode 0x%x: %s",
	    (unsigned long long)c->number, firmware, c->cause, c->queue, c->opcode, text);
}

static void on_firmware(struct lpu *lpu, const struct mr_lpu_firmware_log *f)
{
	char version[sizeof(f->version[0])] = "?";

	if (f->running && f->running <= MR_LPU_FIRMWARE_SLOTS_MAX)
		plain(version, f->version[f->running - 1], sizeof(version));
	say(lpu, MR_LPU_LOG_FIRMWARE, "event: firmware %s runs, from slot %u", version, f->running);
}

static void on_log(struct lpu *lpu, uint32_t log, const struct mr_lpu_completion *c)
{
	const uint8_t *shared = (const uint8_t *)lpu->readback->base + MR_CHIP_BYTES_MAX;
	union {
		struct mr_lpu_health health;
		struct mr_lpu_power power;
		struct mr_lpu_crash crash;
		struct mr_lpu_firmware_log firmware;
	} page;
	const uint32_t size[] = {
		[MR_LPU_LOG_HEALTH] = sizeof(page.health),
		[MR_LPU_LOG_FIRMWARE] = sizeof(page.firmware),
		[MR_LPU_LOG_CRASH] = sizeof(page.crash),
		[MR_LPU_LOG_POWER] = sizeof(page.power),
	};

	/* COUNTERS and ERRORS say what the event has said: they are read to hear of the next. */
	if (c->status || !size[log])
		return;
	if (c->result < size[log] || c->result > EVENT_BYTES) {
		mr_count(MR_M_lpu_bad_completion, 1);
		return;
	}
	memcpy(&page, shared, size[log]);
	if (log == MR_LPU_LOG_HEALTH)
		on_health(lpu, &page.health);
	else if (log == MR_LPU_LOG_POWER)
		on_power(lpu, &page.power);
	else if (log == MR_LPU_LOG_CRASH)
		on_crash(lpu, &page.crash);
	else
		on_firmware(lpu, &page.firmware);
}

void mr_lpu_events_admin(struct lpu *lpu, enum admin_kind kind, const struct mr_lpu_completion *c)
{
	uint32_t log = lpu->event_log;

	if (kind == ADMIN_LOG) {
		lpu->event_log = 0;
		on_log(lpu, log, c);
	} else if (kind == ADMIN_EVENT && !c->status) {
		on_event(lpu, c->result);
		post_event(lpu);
	}
	/* Where the device knows the target, its completion comes; where not, poll.c knows what that means. */
	if (kind == ADMIN_ABORT && !c->status && !c->result)
		lpu->abort_vain = 1;
	read_next(lpu);
}

void mr_lpu_events_look(struct lpu *lpu)
{
	struct mr_lpu_completion c;
	enum admin_kind kind;

	/* A ring's worth: a device that answers each event command at once must not keep poll here. */
	for (uint32_t i = 0; i < ADMIN_ENTRIES && mr_lpu_admin_take(lpu, &c, &kind); i++)
		mr_lpu_events_admin(lpu, kind, &c);
}
