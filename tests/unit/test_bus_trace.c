// SPDX-License-Identifier: Apache-2.0
/*
 * Bus traces: what is recorded of a device plays on another with no difference, each kind of difference is named, and a
 * file is not trusted. Programs and firmware that go to a device as they are.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "driver/bus/bus.h"
#include "driver/bus/bus_trace.h"
#include "driver/bus/record.h"
#include "driver/bus/replay.h"
#include "driver/lpu/lpu.h"
#include "support/lpu_rig.h"

/* ---- recording ---------------------------------------------------------------------------------- */

struct trace {
	uint8_t *data;
	size_t bytes;
	struct mr_bus_record_stats stats;
};

static void read_file(const char *path, struct trace *t)
{
	FILE *f = fopen(path, "rbe");

	assert_non_null(f);
	fseek(f, 0, SEEK_END);
	t->bytes = (size_t)ftell(f);
	rewind(f);
	t->data = malloc(t->bytes);
	assert_int_equal(fread(t->data, 1, t->bytes, f), t->bytes);
	fclose(f);
}

static void decode(struct mr_device *dev, struct mr_slot slot, uint32_t position, uint32_t steps)
{
	const struct mr_decode_entry entry = {.slot = slot, .token = 5, .position = position};
	struct mr_event events[16];

	assert_int_equal(dev->work->decode(dev, &entry, 1, steps, 1), 0);
	assert_int_equal(lpu_rig_wait(dev, 1, events, 16), steps + 1);
	assert_int_equal(events[steps].status, 0);
}

/* Loads tests/tiny.gguf and works: DECODEs, a fork, a score. */
static void record(struct trace *t, uint64_t bytes_max, int shadow)
{
	char path[] = "/tmp/mr-bus-trace-XXXXXX", why[256] = "";
	const struct mr_sim_options sim = {
		.chip_path = "tiny", .why = why, .why_bytes = sizeof(why)};
	const struct mr_arena_options ao = {.node = -1, .no_huge = 1};
	struct mr_slot_config config = {.owner = 7, .positions = 64};
	static const uint32_t scored[] = {3, 4, 5};
	struct mr_event events[8];
	struct mr_lpu_port port;
	struct mr_model *model;
	struct mr_arena *arena;
	struct mr_bus *inner;
	struct mr_device *dev;
	struct mr_slot a, b;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(mr_model_open(MR_TEST_DATA "/tiny.gguf", &model, why, sizeof(why)), 0);
	assert_int_equal(mr_arena_create(&ao, &arena), 0);
	assert_int_equal(mr_sim_create(&sim, &port), 0);
	assert_int_equal(mr_bus_local_open(&port, &inner), 0);
	struct mr_lpu_options o = {.arena = arena, .context = 128, .no_shadow = !shadow};
	assert_int_equal(mr_bus_record_open(path, bytes_max, inner, &t->stats, &o.bus), 0);
	assert_int_equal(mr_lpu_open(&o, &dev), 0);
	assert_int_equal(dev->work->load(dev, model, NULL, NULL), 0);
	a = lpu_rig_slot(dev, 64);
	decode(dev, a, 0, 4);
	decode(dev, a, 4, 3);
	assert_int_equal(dev->mem->kv_fork(dev, a, 5, &config, &b), 0);
	assert_int_equal(dev->work->score(dev, b, scored, 3, 5, 2), 0);
	assert_int_equal(lpu_rig_wait(dev, 2, events, 8), 3);
	assert_int_equal(dev->mem->slot_close(dev, a), 0);
	dev->admin->close(dev);
	mr_arena_destroy(arena);
	mr_model_close(model);
	read_file(path, t);
	unlink(path);
}

/* Recorded once, for all tests that only read it. */
static struct trace whole;

static int record_whole(void **state)
{
	record(&whole, 0, 0);
	return 0;
}

static int drop_whole(void **state)
{
	free(whole.data);
	return 0;
}

/* ---- playing ------------------------------------------------------------------------------------ */

struct player {
	struct mr_bus_replay_options o;
	struct mr_bus_replay_result r;
	const char *fault;
	void *memory[64];
	uint32_t count;
};

static void *give(void *arg, size_t bytes)
{
	struct player *p = arg;
	void *m = p->count < 64 ? aligned_alloc(4096, (bytes + 4095) / 4096 * 4096) : NULL;

	if (m) {
		memset(m, 0, bytes);
		p->memory[p->count++] = m;
	}
	return m;
}

/* Plays @data on a simulated LPU, or on @bus where there is one. */
static int play(struct player *p, const uint8_t *data, size_t bytes, struct mr_bus *bus)
{
	const struct mr_sim_options sim = {.chip_path = "tiny", .fault = p->fault};
	struct mr_lpu_port port;

	p->o.trace = data;
	p->o.bytes = bytes;
	p->o.memory = give;
	p->o.memory_arg = p;
	p->o.bus = bus;
	if (!bus) {
		assert_int_equal(mr_sim_create(&sim, &port), 0);
		assert_int_equal(mr_bus_local_open(&port, &p->o.bus), 0);
	}
	int status = mr_bus_replay(&p->o, &p->r);
	if (!bus)
		p->o.bus->ops->close(p->o.bus);
	while (p->count)
		free(p->memory[--p->count]);
	return status;
}

static void another_device_gives_no_difference(void **state)
{
	struct player p = {.o.exact = 1};

	assert_int_equal(whole.stats.status, 0);
	assert_int_equal(whole.stats.bytes, whole.bytes);
	assert_int_equal(play(&p, whole.data, whole.bytes, NULL), 0);
	assert_string_equal(p.r.first, "");
	assert_int_equal(p.r.differences, 0);
	assert_int_equal(p.r.records, 4 + 3 + 2);
	assert_int_equal(p.r.entries, whole.stats.entries);
	assert_int_equal(p.r.cut, 0);
	/* Two ASYNC_EVENTs never end; the KV_FREE at the end may not have been taken. */
	assert_true(p.r.completions >= 10 && p.r.completions <= p.r.commands - 2);
}

static void a_device_that_computes_otherwise_is_told(void **state)
{
	struct player p = {.fault = "sram-zero=blk.1.ffn_up"};

	assert_int_equal(play(&p, whole.data, whole.bytes, NULL), 0);
	assert_true(p.r.differences > 0);
	assert_non_null(strstr(p.r.first, "record 0 of queue 1 (slot 0, position 1"));
	/* One that ends what should have made records: no waiting for them. */
	struct player q = {.fault = "sram-zero=blk.9.ffn_up", .o.wait_ms = 20000};
	assert_int_equal(play(&q, whole.data, whole.bytes, NULL), MR_E_TIMEOUT);
	assert_non_null(strstr(q.r.first, "PROGRAM"));
	assert_non_null(strstr(q.r.first, "status OK recorded, E_NOT_FOUND here"));
}

/* Records come before their command's completion: where that is there, an error, they are not waited for. */
static void records_of_a_command_that_failed_are_not_waited_for(void **state)
{
	struct player p = {.o.wait_ms = 600000};
	uint8_t *data = malloc(whole.bytes);
	const struct mr_bus_trace_entry *e = NULL;
	struct mr_lpu_cmd_decode c = {0};

	memcpy(data, whole.data, whole.bytes);
	while (c.head.opcode != MR_LPU_DECODE && (e = mr_bus_trace_next(data, e)))
		if (e->kind == MR_BUS_TRACE_MEMORY && e->bytes == sizeof(c))
			memcpy(&c, e + 1, sizeof(c));
	assert_non_null(e);
	c.count = 0;
	memcpy(data + ((const uint8_t *)(e + 1) - data), &c, sizeof(c));
	assert_int_equal(play(&p, data, whole.bytes, NULL), MR_E_TIMEOUT);
	assert_non_null(strstr(p.r.first, "record 0 of queue 1 (slot 0, position 1) does not come: "
					  "DECODE of request 1 ended with E_RANGE here"));
	free(data);
}

/* The last entry of a kind in a copy of the trace. */
static struct mr_bus_trace_entry *last_of(uint8_t *data, uint32_t kind)
{
	const struct mr_bus_trace_entry *e = NULL, *found = NULL;

	while ((e = mr_bus_trace_next(data, e)))
		if (e->kind == kind)
			found = e;
	assert_non_null(found);
	return (struct mr_bus_trace_entry *)(uintptr_t)found;
}

static uint8_t *copy(void)
{
	uint8_t *data = malloc(whole.bytes);

	memcpy(data, whole.data, whole.bytes);
	return data;
}

static void each_field_of_an_answer_counts(void **state)
{
	static const struct {
		uint32_t kind;
		size_t at;
		int exact;
		const char *says; /* NULL = no difference */
	} c[] = {
		{MR_BUS_TRACE_RECORDS, offsetof(struct mr_lpu_record, token), 0, "token "},
		{MR_BUS_TRACE_RECORDS, offsetof(struct mr_lpu_record, position), 0, "position "},
		{MR_BUS_TRACE_RECORDS, offsetof(struct mr_lpu_record, generation), 0,
		 "generation "},
		{MR_BUS_TRACE_RECORDS, offsetof(struct mr_lpu_record, slot), 0, "slot "},
		{MR_BUS_TRACE_RECORDS, offsetof(struct mr_lpu_record, status), 0, "status "},
		{MR_BUS_TRACE_RECORDS, offsetof(struct mr_lpu_record, logprob), 0,
		 "log-probability "},
		{MR_BUS_TRACE_RECORDS, offsetof(struct mr_lpu_record, cycle), 0, NULL},
		{MR_BUS_TRACE_RECORDS, offsetof(struct mr_lpu_record, cycle), 1, "cycle "},
		{MR_BUS_TRACE_COMPLETIONS, offsetof(struct mr_lpu_completion, status), 0,
		 "status E_INVALID recorded, OK here"},
		{MR_BUS_TRACE_COMPLETIONS, offsetof(struct mr_lpu_completion, result), 0,
		 "result "},
		{MR_BUS_TRACE_COMPLETIONS, offsetof(struct mr_lpu_completion, sq_head), 1, NULL},
	};

	for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
		struct player p = {.o.exact = c[i].exact};
		uint8_t *data = copy();
		((uint8_t *)(last_of(data, c[i].kind) + 1))[c[i].at] ^= 1;
		assert_int_equal(play(&p, data, whole.bytes, NULL), 0);
		assert_int_equal(p.r.differences, c[i].says != NULL);
		if (c[i].says && !strstr(p.r.first, c[i].says))
			fail_msg("%s: %s", c[i].says, p.r.first);
		free(data);
	}
	/* Another version of the registers. */
	struct player p = {0};
	uint8_t *data = copy();
	const struct mr_bus_trace_entry *e = NULL;
	while ((e = mr_bus_trace_next(data, e)))
		if (e->kind == MR_BUS_TRACE_REG_READ && e->at == MR_LPU_REG_VERSION)
			((struct mr_bus_trace_entry *)(uintptr_t)e)->value++;
	assert_int_equal(play(&p, data, whole.bytes, NULL), 0);
	assert_non_null(strstr(p.r.first, "register VERSION: 0x10001 recorded, 0x10000 here"));
	free(data);
}

/* ---- a device that does not hear ---------------------------------------------------------------- */

struct deaf {
	struct mr_bus bus;
	uint32_t status, control;
	int ready, resets;
};

static uint32_t deaf_read(struct mr_bus *bus, uint32_t offset)
{
	struct deaf *d = (struct deaf *)bus;

	if (offset == MR_LPU_REG_MAGIC)
		return MR_LPU_MAGIC;
	if (offset == MR_LPU_REG_VERSION)
		return MR_LPU_VERSION;
	return offset == MR_LPU_REG_STATUS ? d->status : 0;
}

static void deaf_write(struct mr_bus *bus, uint32_t offset, uint32_t value)
{
	struct deaf *d = (struct deaf *)bus;

	if (offset == MR_LPU_REG_CONTROL && d->ready)
		d->status = value;
}

static void deaf_doorbell(struct mr_bus *bus, uint32_t queue, uint32_t offset, uint32_t value)
{
}

static int deaf_map(struct mr_bus *bus, uint64_t iova, void *base, size_t bytes, uint32_t access)
{
	return 0;
}

static int deaf_unmap(struct mr_bus *bus, uint64_t iova)
{
	return 0;
}

static int deaf_irq(struct mr_bus *bus, uint32_t vector)
{
	return MR_E_RANGE;
}

static int deaf_reset(struct mr_bus *bus)
{
	((struct deaf *)bus)->resets++;
	return MR_E_NOT_SUPPORTED;
}

static const struct mr_bus_ops deaf_ops = {
	.reg_read = deaf_read,
	.reg_write = deaf_write,
	.doorbell = deaf_doorbell,
	.dma_map = deaf_map,
	.dma_unmap = deaf_unmap,
	.irq_fd = deaf_irq,
	.reset = deaf_reset,
};

static void silence_ends_in_bounded_time(void **state)
{
	struct deaf d = {.bus.ops = &deaf_ops, .ready = 1};
	struct player p = {.o.wait_ms = 30};
	const int stop = 1;

	assert_int_equal(play(&p, whole.data, whole.bytes, &d.bus), MR_E_TIMEOUT);
	assert_int_equal(d.resets, 1);
	assert_string_equal(p.r.first,
			    "completion 0 of queue 0 (IDENTIFY, request 0) does not come: "
			    "E_TIMEOUT");
	/* READY never comes. */
	d.ready = 0;
	struct player q = {.o.wait_ms = 30};
	assert_int_equal(play(&q, whole.data, whole.bytes, &d.bus), MR_E_TIMEOUT);
	assert_string_equal(q.r.first, "STATUS of the trace: 0x1 recorded, still 0x0 here");
	/* The bus gives it up; somebody presses Ctrl-C. */
	d = (struct deaf){.bus = {.ops = &deaf_ops, .lost = MR_E_DISCONNECTED}, .ready = 1};
	assert_int_equal(play(&q, whole.data, whole.bytes, &d.bus), MR_E_DISCONNECTED);
	d.bus.lost = 0;
	q.o.stop = &stop;
	assert_int_equal(play(&q, whole.data, whole.bytes, &d.bus), MR_E_CANCELLED);
}

/* ---- traces that end early ---------------------------------------------------------------------- */

static void the_bound_holds_and_the_device_goes_on(void **state)
{
	struct trace t = {0};
	struct player p = {0};

	record(&t, 4096, 0); /* record() itself demands that all work is done */
	assert_int_equal(t.stats.status, MR_E_TOO_LARGE);
	assert_true(t.bytes <= 4096 && t.bytes > 1024);
	assert_int_equal(play(&p, t.data, t.bytes, NULL), 0);
	assert_int_equal(p.r.differences, 0);
	assert_int_equal(p.r.cut, -MR_E_TOO_LARGE);
	free(t.data);
}

static void shadow_doorbells_end_a_trace(void **state)
{
	struct trace t = {0};

	record(&t, 0, 1);
	assert_int_equal(t.stats.status, MR_E_NOT_SUPPORTED);
	assert_int_equal(mr_bus_trace_check(t.data, t.bytes, NULL, 0), 0);
	assert_int_equal(last_of(t.data, MR_BUS_TRACE_END)->value, -MR_E_NOT_SUPPORTED);
	free(t.data);
}

/* ---- a file is not trusted ---------------------------------------------------------------------- */

static struct mr_bus_trace_entry entry(uint16_t kind, uint64_t at, uint32_t value)
{
	return (struct mr_bus_trace_entry){.kind = kind, .at = at, .value = value};
}

/* A trace of @e, each with a payload of zeros but MAP's, which is @length; and END. */
static size_t make(uint64_t *to, const struct mr_bus_trace_entry *e, size_t n, uint64_t length)
{
	const struct mr_bus_trace_header h = {.magic = MR_BUS_TRACE_MAGIC,
					      .version = MR_BUS_TRACE_VERSION,
					      .header_bytes = sizeof(h)};
	const struct mr_bus_trace_entry end = {.kind = MR_BUS_TRACE_END, .time_ns = 9};
	uint8_t *p = (uint8_t *)to;

	memcpy(p, &h, sizeof(h));
	p += sizeof(h);
	for (size_t i = 0; i < n; i++) {
		memcpy(p, &e[i], sizeof(*e));
		p += sizeof(*e);
		memset(p, 0, (e[i].bytes + 7) / 8 * 8);
		if (e[i].kind == MR_BUS_TRACE_MAP)
			memcpy(p, &length, sizeof(length));
		p += (e[i].bytes + 7) / 8 * 8;
	}
	memcpy(p, &end, sizeof(end));
	return (size_t)(p - (uint8_t *)to) + sizeof(end);
}

static void what_cannot_be_is_refused(void **state)
{
	const struct {
		struct mr_bus_trace_entry e;
		int status;
	} c[] = {
		{entry(MR_BUS_TRACE_REG_READ, 0x14, 0), 0},
		{entry(MR_BUS_TRACE_REG_READ, 0x15, 0), MR_E_RANGE},
		{entry(MR_BUS_TRACE_REG_WRITE, 4096, 0), MR_E_RANGE},
		{entry(MR_BUS_TRACE_DOORBELL, 0x10, 0), MR_E_RANGE},
		{entry(MR_BUS_TRACE_UNMAP, 0x1000, 0), 0},
		{entry(0, 0, 0), MR_E_FORMAT},
		{entry(MR_BUS_TRACE_KINDS, 0, 0), MR_E_FORMAT},
		{entry(MR_BUS_TRACE_MEMORY, 0, 0), MR_E_FORMAT},
		{entry(MR_BUS_TRACE_MAP, 0x1000, 1), MR_E_FORMAT},
		{{.kind = MR_BUS_TRACE_REG_READ, .bytes = 8}, MR_E_FORMAT},
		{{.kind = MR_BUS_TRACE_REG_READ, .reserved = 1}, MR_E_RANGE},
		{{.kind = MR_BUS_TRACE_REG_READ, .queue = 1}, MR_E_RANGE},
		{{.kind = MR_BUS_TRACE_REG_READ, .time_ns = 10}, MR_E_RANGE},
		{{.kind = MR_BUS_TRACE_DOORBELL, .queue = MR_BUS_TRACE_QUEUES}, MR_E_RANGE},
		{{.kind = MR_BUS_TRACE_COMPLETIONS, .bytes = 8}, MR_E_FORMAT},
		{{.kind = MR_BUS_TRACE_RECORDS, .bytes = 16}, MR_E_FORMAT},
		{{.kind = MR_BUS_TRACE_MEMORY, .bytes = 8, .at = UINT64_MAX - 4}, MR_E_RANGE},
		{{.kind = MR_BUS_TRACE_MAP, .bytes = 8, .at = 0x1000, .value = 3}, 0},
		{{.kind = MR_BUS_TRACE_MAP, .bytes = 8, .at = 0x1000, .value = 4}, MR_E_RANGE},
		{{.kind = MR_BUS_TRACE_MAP, .bytes = 8, .at = 0x1001, .value = 3}, MR_E_RANGE},
	};
	uint64_t data[64];
	char why[200];

	for (size_t i = 0; i < sizeof(c) / sizeof(c[0]); i++) {
		size_t bytes = make(data, &c[i].e, 1, 4096);
		int got = mr_bus_trace_check(data, bytes, why, sizeof(why));
		if (got != c[i].status)
			fail_msg("case %zu: %s: %s", i, mr_status_name(got), why);
	}
	/* Cut anywhere it has no end; with more behind the end it is none. */
	size_t bytes = make(data, &c[17].e, 1, 4096);
	for (size_t n = 8; n < bytes; n++)
		assert_int_equal(mr_bus_trace_check(data, n, NULL, 0), MR_E_TRUNCATED);
	assert_int_equal(mr_bus_trace_check(data, bytes + 8, NULL, 0), MR_E_FORMAT);
	((struct mr_bus_trace_header *)data)->version = 2;
	assert_int_equal(mr_bus_trace_check(data, bytes, why, sizeof(why)), MR_E_VERSION);
	assert_string_equal(why, "byte 8: version 2; version 1 is understood");
	data[0]++;
	assert_int_equal(mr_bus_trace_check(data, bytes, NULL, 0), MR_E_FORMAT);
}

static void a_trace_cannot_reach_beyond_its_maps(void **state)
{
	struct deaf d = {.bus.ops = &deaf_ops, .ready = 1};
	struct mr_bus_trace_entry e[2] = {
		{.kind = MR_BUS_TRACE_MAP, .bytes = 8, .at = 0x1000, .value = 3},
		{.kind = MR_BUS_TRACE_MEMORY, .bytes = 16, .at = 0x1ff8},
	};
	struct player p = {.o.wait_ms = 1};
	uint64_t data[64];

	assert_int_equal(play(&p, (void *)data, make(data, e, 2, 4096), &d.bus), MR_E_RANGE);
	assert_non_null(strstr(p.r.first, "IOVA 0x1ff8, which it did not map"));
	e[1].at = 0x1ff0;
	assert_int_equal(play(&p, (void *)data, make(data, e, 2, 4096), &d.bus), 0);
	/* More than there is for it; answers of a queue that is none. */
	p.o.memory_max = 8192;
	assert_int_equal(play(&p, (void *)data, make(data, e, 2, 8193), &d.bus), MR_E_RANGE);
	e[1] = (struct mr_bus_trace_entry){
		.kind = MR_BUS_TRACE_RECORDS, .queue = 3, .bytes = sizeof(struct mr_lpu_record)};
	assert_int_equal(play(&p, (void *)data, make(data, e, 2, 4096), &d.bus), MR_E_RANGE);
	assert_non_null(strstr(p.r.first, "queue 3, which was not created"));
}

/* ---- what commands name ------------------------------------------------------------------------- */

static uint8_t host[8192] __attribute__((aligned(64)));
static char told[256];

static const void *host_at(void *arg, uint64_t iova, uint64_t bytes)
{
	return iova <= sizeof(host) && bytes <= sizeof(host) - iova ? host + iova : NULL;
}

static void host_found(void *arg, uint64_t iova, const void *base, uint64_t bytes)
{
	size_t n = strlen(told);

	assert_ptr_equal(base, host + iova);
	snprintf(told + n, sizeof(told) - n, "%s%llu+%llu", n ? " " : "", (unsigned long long)iova,
		 (unsigned long long)bytes);
}

/* The ranges that @command of @queue names, as "at+bytes ...". */
static const char *names(struct mr_bus_rings *r, uint32_t queue, const void *command, int status)
{
	const struct mr_bus_inputs in = {host_at, host_found, NULL};

	told[0] = 0;
	assert_int_equal(mr_bus_inputs(r, queue, command, &in), status);
	return told;
}

static void all_that_a_command_names_is_told(void **state)
{
	struct mr_bus_rings r = {0};
	const struct mr_lpu_slot_param param = {.history_iova = 1000, .history_count = 3};
	const struct mr_kv_desc descs[2] = {{.iova = 4096}, {.iova = 6144}};
	struct mr_lpu_decode_entry entries[2] = {{.forced_iova = 2048, .forced_count = 5}};

	memcpy(host, &param, sizeof(param));
	memcpy(host + 512, descs, sizeof(descs));
	memcpy(host + 3072, entries, sizeof(entries));
	const struct mr_lpu_cmd_slot_set set = {.head.opcode = MR_LPU_SLOT_SET,
						.param_bytes = sizeof(param)};
	assert_string_equal(names(&r, 1, &set, 0), "0+128 1000+12");
	const struct mr_lpu_cmd_kv_fork fork = {.head.opcode = MR_LPU_KV_FORK,
						.param_bytes = sizeof(param)};
	assert_string_equal(names(&r, 1, &fork, 0), "0+128 1000+12");
	const struct mr_lpu_cmd_kv_write write = {
		.head.opcode = MR_LPU_KV_WRITE, .descs_iova = 512, .count = 2};
	assert_string_equal(names(&r, 1, &write, MR_E_NOT_SUPPORTED), "512+64");
	r.kv_bytes = 1024;
	assert_string_equal(names(&r, 1, &write, 0), "512+64 4096+1024 6144+1024");
	struct mr_lpu_cmd_decode dec = {
		.head.opcode = MR_LPU_DECODE, .entries_iova = 3072, .count = 2, .steps = 6};
	assert_string_equal(names(&r, 1, &dec, 0), "3072+128 2048+20");
	entries[1].mask_iova = 64;
	memcpy(host + 3072, entries, sizeof(entries));
	names(&r, 1, &dec, MR_E_NOT_SUPPORTED);
	dec.entries_iova = 8190; /* not mapped: the device refuses it */
	assert_string_equal(names(&r, 1, &dec, 0), "");
	const struct mr_lpu_cmd_score score = {
		.head.opcode = MR_LPU_SCORE, .tokens_iova = 256, .count = 7};
	assert_string_equal(names(&r, 1, &score, 0), "256+28");
	const struct mr_lpu_cmd_exec exec = {
		.head.opcode = MR_LPU_EXEC, .rows = 2, .in_iova = 64, .in_stride = 128};
	assert_string_equal(names(&r, 1, &exec, 0), "64+256");
	const struct mr_lpu_cmd_firmware fw = {.head.opcode = MR_LPU_FIRMWARE,
					       .action = MR_LPU_FIRMWARE_DOWNLOAD,
					       .iova = 128,
					       .bytes = 99};
	assert_string_equal(names(&r, 0, &fw, 0), "128+99");
	const struct mr_lpu_cmd_program prog = {.head.opcode = MR_LPU_PROGRAM,
						.action = MR_LPU_PROGRAM_WRITE,
						.iova = 128,
						.bytes = 77};
	assert_string_equal(names(&r, 0, &prog, 0), "128+77");
	assert_int_equal(r.kv_bytes, 0); /* another program, which is none that is known */
}

/* ---- as they are -------------------------------------------------------------------------------- */

static void on_percent(void *arg, unsigned percent)
{
	unsigned *last = arg;

	assert_true(percent >= *last && percent <= 100);
	*last = percent;
}

static void a_container_goes_to_the_device_untouched(void **state)
{
	const struct lpu_rig_options o = {.no_load = 1};
	struct mr_compile_options compile = {.chips = 2, .batch = 4, .context = 128};
	struct mr_lpu_counters counters;
	struct mr_program program;
	struct mr_chip chip;
	struct lpu_rig rig;
	char text[65536];
	unsigned percent = 0;

	lpu_rig_open(&rig, &o);
	int bytes = mr_lpu_log(rig.dev, MR_LPU_LOG_CHIP, text, sizeof(text));
	assert_true(bytes > 0);
	assert_int_equal(mr_chip_parse(text, (size_t)bytes, &chip, NULL, 0), 0);
	compile.chip = &chip;
	assert_int_equal(mr_compile(rig.model, &compile, &program, NULL, 0), 0);
	assert_int_equal(mr_lpu_load_container(rig.dev, program.container, program.bytes,
					       on_percent, &percent),
			 0);
	assert_int_equal(percent, 100);
	assert_int_equal(mr_lpu_log(rig.dev, MR_LPU_LOG_COUNTERS, &counters, sizeof(counters)),
			 sizeof(counters));
	assert_true(counters.kv_blocks > 0);
	/* This driver's slots are not for it. */
	const struct mr_slot_config config = {.owner = 7, .positions = 16};
	struct mr_slot slot;
	assert_int_equal(rig.dev->mem->slot_open(rig.dev, &config, &slot), MR_E_NOT_ACTIVE);
	/* A vendor's payload: the driver asks nothing, the device says no. */
	struct mr_prog_header *h = program.container;
	h->payload_kind = 0x1234;
	mr_container_seal(program.container);
	assert_int_equal(
		mr_lpu_load_container(rig.dev, program.container, program.bytes, NULL, NULL),
		MR_E_NOT_SUPPORTED);
	/* What the driver makes runs afterwards; with a slot open nothing is sent. */
	assert_int_equal(rig.dev->work->load(rig.dev, rig.model, NULL, NULL), 0);
	slot = lpu_rig_slot(rig.dev, 64);
	decode(rig.dev, slot, 0, 2);
	assert_int_equal(
		mr_lpu_load_container(rig.dev, program.container, program.bytes, NULL, NULL),
		MR_E_BUSY);
	decode(rig.dev, slot, 2, 2);
	mr_program_free(&program);
	lpu_rig_close(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(another_device_gives_no_difference),
		cmocka_unit_test(a_device_that_computes_otherwise_is_told),
		cmocka_unit_test(records_of_a_command_that_failed_are_not_waited_for),
		cmocka_unit_test(each_field_of_an_answer_counts),
		cmocka_unit_test(silence_ends_in_bounded_time),
		cmocka_unit_test(the_bound_holds_and_the_device_goes_on),
		cmocka_unit_test(shadow_doorbells_end_a_trace),
		cmocka_unit_test(what_cannot_be_is_refused),
		cmocka_unit_test(a_trace_cannot_reach_beyond_its_maps),
		cmocka_unit_test(all_that_a_command_names_is_told),
		cmocka_unit_test(a_container_goes_to_the_device_untouched),
	};

	return cmocka_run_group_tests(tests, record_whole, drop_whole);
}
