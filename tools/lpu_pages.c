// SPDX-License-Identifier: Apache-2.0
#include "tools/lpu_pages.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "driver/bus/bus_trace.h"

const struct lpu_page lpu_pages[7] = {
	{"counters", MR_LPU_LOG_COUNTERS}, {"health", MR_LPU_LOG_HEALTH},
	{"power", MR_LPU_LOG_POWER},       {"firmware", MR_LPU_LOG_FIRMWARE},
	{"errors", MR_LPU_LOG_ERRORS},     {"crash", MR_LPU_LOG_CRASH},
	{"chip", MR_LPU_LOG_CHIP},
};

/* How a number is shown to people; JSON has it as it is, under the name with its unit. */
enum unit { COUNT, BYTES, MS, MW, MK, MJ, IOVA, CAUSE, OPCODE };

struct field {
	const char *name;
	uint16_t at;
	uint8_t bytes; /* 4 or 8 */
	uint8_t unit;
};
#define FIELD(type, field, unit)                                                              \
	{                                                                                     \
#field, offsetof(struct type, field), sizeof(((struct type *)0)->field), unit \
	}

static const struct field counters[] = {
	FIELD(mr_lpu_counters, commands, COUNT),
	FIELD(mr_lpu_counters, completions, COUNT),
	FIELD(mr_lpu_counters, records, COUNT),
	FIELD(mr_lpu_counters, steps, COUNT),
	FIELD(mr_lpu_counters, cycles, COUNT),
	FIELD(mr_lpu_counters, refused, COUNT),
	FIELD(mr_lpu_counters, bad_opcode, COUNT),
	FIELD(mr_lpu_counters, bad_reserved, COUNT),
	FIELD(mr_lpu_counters, bad_range, COUNT),
	FIELD(mr_lpu_counters, bad_kv, COUNT),
	FIELD(mr_lpu_counters, bad_container, COUNT),
	FIELD(mr_lpu_counters, bad_doorbell, COUNT),
	FIELD(mr_lpu_counters, aborted, COUNT),
	FIELD(mr_lpu_counters, credit_stalls, COUNT),
	FIELD(mr_lpu_counters, dma_faults, COUNT),
	FIELD(mr_lpu_counters, dma_read_bytes, BYTES),
	FIELD(mr_lpu_counters, dma_write_bytes, BYTES),
	FIELD(mr_lpu_counters, kv_blocks, COUNT),
	FIELD(mr_lpu_counters, kv_blocks_used, COUNT),
	FIELD(mr_lpu_counters, kv_blocks_shared, COUNT),
	FIELD(mr_lpu_counters, kv_read_blocks, COUNT),
	FIELD(mr_lpu_counters, forks, COUNT),
	FIELD(mr_lpu_counters, fork_copies, COUNT),
	FIELD(mr_lpu_counters, score_passes, COUNT),
	FIELD(mr_lpu_counters, score_records, COUNT),
	FIELD(mr_lpu_counters, masked, COUNT),
	FIELD(mr_lpu_counters, mask_late, COUNT),
	FIELD(mr_lpu_counters, events, COUNT),
	FIELD(mr_lpu_counters, interrupts, COUNT),
	{0},
};
static const struct field health[] = {
	FIELD(mr_lpu_health, uptime_ms, MS),
	FIELD(mr_lpu_health, resets, COUNT),
	FIELD(mr_lpu_health, errors, COUNT),
	FIELD(mr_lpu_health, ecc_corrected, COUNT),
	FIELD(mr_lpu_health, ecc_uncorrected, COUNT),
	FIELD(mr_lpu_health, chips_up, COUNT),
	FIELD(mr_lpu_health, power_mw, MW),
	FIELD(mr_lpu_health, temperature_mk, MK),
	{0},
};
static const struct field power[] = {
	FIELD(mr_lpu_power, power_mw, MW),
	FIELD(mr_lpu_power, power_peak_mw, MW),
	FIELD(mr_lpu_power, energy_mj, MJ),
	FIELD(mr_lpu_power, temperature_mk, MK),
	FIELD(mr_lpu_power, temperature_peak_mk, MK),
	FIELD(mr_lpu_power, over_mk, MK),
	FIELD(mr_lpu_power, under_mk, MK),
	{0},
};
static const struct field firmware[] = {
	FIELD(mr_lpu_firmware_log, slots, COUNT),
	FIELD(mr_lpu_firmware_log, running, COUNT),
	FIELD(mr_lpu_firmware_log, next, COUNT),
	FIELD(mr_lpu_firmware_log, updates, COUNT),
	{0},
};
static const struct field crash[] = {
	FIELD(mr_lpu_crash, number, COUNT),
	FIELD(mr_lpu_crash, time_ms, MS),
	FIELD(mr_lpu_crash, cause, CAUSE),
	FIELD(mr_lpu_crash, queue, COUNT),
	FIELD(mr_lpu_crash, opcode, OPCODE),
	FIELD(mr_lpu_crash, request, COUNT),
	FIELD(mr_lpu_crash, iova, IOVA),
	FIELD(mr_lpu_crash, steps, COUNT),
	{0},
};

const struct lpu_page *lpu_page_find(const char *name)
{
	for (size_t i = 0; i < sizeof(lpu_pages) / sizeof(lpu_pages[0]); i++)
		if (!strcmp(lpu_pages[i].name, name))
			return &lpu_pages[i];
	return NULL;
}

/* The fields of a page that has some, and its size. */
static const struct field *fields_of(uint32_t log, size_t *bytes)
{
	switch (log) {
	case MR_LPU_LOG_COUNTERS:
		*bytes = sizeof(struct mr_lpu_counters);
		return counters;
	case MR_LPU_LOG_HEALTH:
		*bytes = sizeof(struct mr_lpu_health);
		return health;
	case MR_LPU_LOG_POWER:
		*bytes = sizeof(struct mr_lpu_power);
		return power;
	case MR_LPU_LOG_FIRMWARE:
		*bytes = sizeof(struct mr_lpu_firmware_log);
		return firmware;
	case MR_LPU_LOG_CRASH:
		*bytes = sizeof(struct mr_lpu_crash);
		return crash;
	default:
		return NULL;
	}
}

int lpu_page_check(const struct lpu_page *page, size_t bytes)
{
	size_t whole;

	if (page->log == MR_LPU_LOG_ERRORS)
		return bytes % sizeof(struct mr_lpu_error) ? MR_E_TRUNCATED : 0;
	/* A device that never crashed has no crash page. */
	if (!fields_of(page->log, &whole) || (page->log == MR_LPU_LOG_CRASH && !bytes))
		return 0;
	return bytes == whole ? 0 : MR_E_TRUNCATED;
}

static uint64_t value_of(const struct field *f, const void *data)
{
	const uint8_t *p = (const uint8_t *)data + f->at;
	uint64_t wide;
	uint32_t word;

	if (f->bytes == 8) {
		memcpy(&wide, p, sizeof(wide));
		return wide;
	}
	memcpy(&word, p, sizeof(word));
	return word;
}

const char *lpu_crash_cause(uint32_t cause)
{
	switch (cause) {
	case MR_LPU_CRASH_ADMIN:
		return "ADMIN: the admin registers were not sound when ENABLE was set";
	case MR_LPU_CRASH_RING:
		return "RING: a ring or the shadow doorbells could not be reached";
	case MR_LPU_CRASH_ASSERT:
		return "ASSERT: the firmware found its own state wrong";
	default:
		return "a cause that the specification does not name";
	}
}

static void print_value(FILE *out, const struct field *f, uint64_t v)
{
	switch (f->unit) {
	case BYTES:
		fprintf(out, "%llu bytes", (unsigned long long)v);
		return;
	case MS:
		fprintf(out, "%llu.%03llu s", (unsigned long long)v / 1000,
			(unsigned long long)v % 1000);
		return;
	case MW:
	case MK:
		if (!v)
			fputs(f->at == offsetof(struct mr_lpu_power, over_mk) ||
					      f->at == offsetof(struct mr_lpu_power, under_mk)
				      ? "none"
				      : "not measured",
			      out);
		else if (f->unit == MW)
			fprintf(out, "%llu.%03llu W", (unsigned long long)v / 1000,
				(unsigned long long)v % 1000);
		else
			fprintf(out, "%.1f K (%.1f C)", (double)v / 1000,
				((double)v - 273150) / 1000);
		return;
	case MJ:
		fprintf(out, "%llu.%03llu J", (unsigned long long)v / 1000,
			(unsigned long long)v % 1000);
		return;
	case IOVA:
		fprintf(out, "0x%llx", (unsigned long long)v);
		return;
	case CAUSE:
		fprintf(out, "%llu, %s", (unsigned long long)v, lpu_crash_cause((uint32_t)v));
		return;
	case OPCODE:
		fprintf(out, "0x%02llx %s", (unsigned long long)v,
			v ? mr_bus_opcode_name((uint32_t)v) : "none");
		return;
	default:
		fprintf(out, "%llu", (unsigned long long)v);
	}
}

/* "uptime" for "uptime_ms": people see the unit behind the number. */
static void print_name(FILE *out, const struct field *f)
{
	static const char *const suffix[] = {[MS] = "_ms", [MW] = "_mw",       [MK] = "_mk",
					     [MJ] = "_mj", [BYTES] = "_bytes", [OPCODE] = NULL};
	const char *cut = f->unit < OPCODE ? suffix[f->unit] : NULL;
	size_t n = strlen(f->name), less = cut ? strlen(cut) : 0;
	char name[32];

	snprintf(name, sizeof(name), "%.*s", (int)(n - less), f->name);
	for (char *p = name; *p; p++)
		if (*p == '_')
			*p = ' ';
	fprintf(out, "  %-18s ", name);
}

/* A device's text, for people: what is not printable becomes a point. */
static const char *plain(char *to, size_t room, const char *from, size_t bytes)
{
	size_t i = 0;

	for (; i + 1 < room && i < bytes && from[i]; i++)
		to[i] = from[i] >= ' ' && from[i] <= '~' ? from[i] : '.';
	to[i] = 0;
	return to;
}

static void print_slots(FILE *out, const struct mr_lpu_firmware_log *f)
{
	char text[40];

	for (uint32_t i = 0; i < f->slots && i < MR_LPU_FIRMWARE_SLOTS_MAX; i++)
		fprintf(out, "  slot %u             %s%s%s\n", i + 1,
			f->version[i][0]
				? plain(text, sizeof(text), f->version[i], sizeof(f->version[i]))
				: "empty",
			f->running == i + 1 ? ", runs" : "",
			f->next == i + 1 && f->next != f->running ? ", runs after the next reset"
								  : "");
}

static void print_errors(FILE *out, const uint8_t *data, size_t bytes)
{
	struct mr_lpu_error e;

	if (!bytes)
		fputs("  none\n", out);
	for (size_t at = 0; at < bytes; at += sizeof(e)) {
		memcpy(&e, data + at, sizeof(e));
		fprintf(out,
			"  %-6llu %8llu.%03llu s  queue %-2u  0x%02x %-12s request %-10u  %s\n",
			(unsigned long long)e.number, (unsigned long long)e.time_ms / 1000,
			(unsigned long long)e.time_ms % 1000, e.queue, e.opcode,
			mr_bus_opcode_name(e.opcode), e.request, mr_status_name(-(int)e.status));
	}
}

/* A chip file's text: lines as they are. */
static void print_text(FILE *out, const char *text, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		fputc(text[i] == '\n' || text[i] == '\t' || (text[i] >= ' ' && text[i] <= '~')
			      ? text[i]
			      : '.',
		      out);
}

void lpu_page_print(FILE *out, const struct lpu_page *page, const void *data, size_t bytes)
{
	size_t whole;
	const struct field *f = fields_of(page->log, &whole);
	char text[160];

	fprintf(out, "%s\n", page->name);
	if (page->log == MR_LPU_LOG_ERRORS)
		print_errors(out, data, bytes);
	else if (!f)
		print_text(out, data, bytes);
	else if (!bytes)
		fputs("  none since power-on\n", out);
	for (; f && bytes && f->name; f++) {
		print_name(out, f);
		print_value(out, f, value_of(f, data));
		fputc('\n', out);
	}
	if (page->log == MR_LPU_LOG_FIRMWARE)
		print_slots(out, data);
	if (page->log == MR_LPU_LOG_CRASH && bytes) {
		const struct mr_lpu_crash *c = data;
		fprintf(out, "  %-18s %s\n", "firmware",
			plain(text, sizeof(text), c->firmware, sizeof(c->firmware)));
		fprintf(out, "  %-18s %s\n", "text",
			plain(text, sizeof(text), c->text, sizeof(c->text)));
	}
}

static struct json_object *errors_json(const uint8_t *data, size_t bytes)
{
	struct json_object *list = json_object_new_array();
	struct mr_lpu_error e;

	for (size_t at = 0; at < bytes; at += sizeof(e)) {
		struct json_object *o = json_object_new_object();
		memcpy(&e, data + at, sizeof(e));
		json_object_object_add(o, "number", json_object_new_uint64(e.number));
		json_object_object_add(o, "time_ms", json_object_new_uint64(e.time_ms));
		json_object_object_add(o, "queue", json_object_new_int64(e.queue));
		json_object_object_add(o, "opcode", json_object_new_int64(e.opcode));
		json_object_object_add(o, "request", json_object_new_int64(e.request));
		json_object_object_add(o, "status",
				       json_object_new_string(mr_status_name(-(int)e.status)));
		json_object_array_add(list, o);
	}
	return list;
}

static struct json_object *string_json(const char *text, size_t bytes)
{
	char plainly[160];

	return json_object_new_string(plain(plainly, sizeof(plainly), text, bytes));
}

static struct json_object *chip_json(const char *text, size_t bytes)
{
	struct json_object *o;
	char *copy = NULL;
	size_t n = 0;
	FILE *f = open_memstream(&copy, &n);

	if (!f)
		return NULL;
	print_text(f, text, bytes);
	fclose(f);
	o = json_object_new_string_len(copy, (int)n);
	free(copy);
	return o;
}

struct json_object *lpu_page_json(const struct lpu_page *page, const void *data, size_t bytes)
{
	size_t whole;
	const struct field *f = fields_of(page->log, &whole);
	struct json_object *o;

	if (page->log == MR_LPU_LOG_ERRORS)
		return errors_json(data, bytes);
	if (!f)
		return chip_json(data, bytes);
	if (!bytes)
		return NULL; /* null: there was no crash */
	o = json_object_new_object();
	for (; f->name; f++)
		json_object_object_add(o, f->name, json_object_new_uint64(value_of(f, data)));
	if (page->log == MR_LPU_LOG_FIRMWARE) {
		const struct mr_lpu_firmware_log *log = data;
		struct json_object *list = json_object_new_array();
		for (uint32_t i = 0; i < log->slots && i < MR_LPU_FIRMWARE_SLOTS_MAX; i++)
			json_object_array_add(
				list, string_json(log->version[i], sizeof(log->version[i])));
		json_object_object_add(o, "version", list);
	}
	if (page->log == MR_LPU_LOG_CRASH) {
		const struct mr_lpu_crash *c = data;
		json_object_object_add(o, "cause_text",
				       json_object_new_string(lpu_crash_cause(c->cause)));
		json_object_object_add(o, "firmware",
				       string_json(c->firmware, sizeof(c->firmware)));
		json_object_object_add(o, "text", string_json(c->text, sizeof(c->text)));
	}
	return o;
}
