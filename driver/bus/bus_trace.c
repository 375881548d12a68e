// SPDX-License-Identifier: Apache-2.0
#include "driver/bus/bus_trace.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "userlib/spec/container.h"

#define COMMAND_PIECES_MAX (1ull << 30) /* bytes that one command may name in a piece */

/* ---- the file ---------------------------------------------------------------------------------- */

__attribute__((format(printf, 5, 6))) static int refuse(char *why, size_t why_bytes, size_t at,
							int status, const char *format, ...)
{
	va_list args;

	if (!why || !why_bytes)
		return status;
	int n = snprintf(why, why_bytes, "byte %zu: ", at);
	va_start(args, format);
	if (n > 0 && (size_t)n < why_bytes)
		vsnprintf(why + n, why_bytes - (size_t)n, format, args);
	va_end(args);
	return status;
}

static size_t padded(uint32_t bytes)
{
	return ((size_t)bytes + 7) / 8 * 8;
}

/* Is the payload of a length that its kind has? */
static int length_ok(const struct mr_bus_trace_entry *e)
{
	switch (e->kind) {
	case MR_BUS_TRACE_MAP:
		return e->bytes == sizeof(uint64_t);
	case MR_BUS_TRACE_MEMORY:
		return e->bytes != 0;
	case MR_BUS_TRACE_COMPLETIONS:
		return e->bytes && e->bytes % sizeof(struct mr_lpu_completion) == 0;
	case MR_BUS_TRACE_RECORDS:
		return e->bytes && e->bytes % sizeof(struct mr_lpu_record) == 0;
	default:
		return e->bytes == 0;
	}
}

/* Are the fields of an entry within what its kind has? */
static int fields_ok(const struct mr_bus_trace_entry *e)
{
	int of_queue = e->kind == MR_BUS_TRACE_DOORBELL || e->kind == MR_BUS_TRACE_COMPLETIONS ||
		       e->kind == MR_BUS_TRACE_RECORDS;
	uint64_t length = e->bytes;

	if (e->reserved || (of_queue ? e->queue >= MR_BUS_TRACE_QUEUES : e->queue))
		return 0;
	switch (e->kind) {
	case MR_BUS_TRACE_REG_READ:
	case MR_BUS_TRACE_REG_WRITE:
		return e->at < MR_LPU_BAR0_BYTES && e->at % 4 == 0;
	case MR_BUS_TRACE_DOORBELL:
		return e->at <= MR_LPU_DB_ARM && e->at % 4 == 0;
	case MR_BUS_TRACE_MAP:
		memcpy(&length, e + 1, sizeof(length));
		return length && e->value && e->value <= 3 && e->at % 4096 == 0 &&
		       e->at <= UINT64_MAX - length;
	case MR_BUS_TRACE_MEMORY:
		return e->at <= UINT64_MAX - length;
	default:
		return 1;
	}
}

int mr_bus_trace_check(const void *trace, size_t bytes, char *why, size_t why_bytes)
{
	static const uint64_t none[5];
	const struct mr_bus_trace_header *h = trace;
	size_t at = sizeof(*h);
	uint64_t time_ns = 0;

	if (bytes >= sizeof(h->magic) && h->magic != MR_BUS_TRACE_MAGIC)
		return refuse(why, why_bytes, 0, MR_E_FORMAT, "this is no bus trace");
	if (bytes < sizeof(*h))
		return refuse(why, why_bytes, bytes, MR_E_TRUNCATED, "the header is cut short");
	if (h->version != MR_BUS_TRACE_VERSION)
		return refuse(why, why_bytes, 8, MR_E_VERSION,
			      "version %u; version %u is understood", h->version,
			      MR_BUS_TRACE_VERSION);
	if (h->header_bytes != sizeof(*h) || memcmp(h->reserved, none, sizeof(none)))
		return refuse(why, why_bytes, 12, MR_E_FORMAT, "a header that cannot be");
	for (;;) {
		const struct mr_bus_trace_entry *e = (const void *)((const uint8_t *)trace + at);
		if (bytes - at < sizeof(*e) || bytes - at - sizeof(*e) < padded(e->bytes))
			return refuse(why, why_bytes, at, MR_E_TRUNCATED,
				      "the trace is cut short: it has no end");
		if (!e->kind || e->kind >= MR_BUS_TRACE_KINDS)
			return refuse(why, why_bytes, at, MR_E_FORMAT, "entry of unknown kind %u",
				      e->kind);
		if (!length_ok(e))
			return refuse(why, why_bytes, at, MR_E_FORMAT,
				      "entry of kind %u with a payload of %u bytes", e->kind,
				      e->bytes);
		if (!fields_ok(e))
			return refuse(why, why_bytes, at, MR_E_RANGE,
				      "entry of kind %u with a field out of range", e->kind);
		if (e->time_ns < time_ns)
			return refuse(why, why_bytes, at, MR_E_RANGE, "time goes back");
		time_ns = e->time_ns;
		at += sizeof(*e) + padded(e->bytes);
		if (e->kind != MR_BUS_TRACE_END)
			continue;
		return at == bytes ? 0
				   : refuse(why, why_bytes, at, MR_E_FORMAT,
					    "%zu bytes after the end", bytes - at);
	}
}

const struct mr_bus_trace_entry *mr_bus_trace_next(const void *trace,
						   const struct mr_bus_trace_entry *e)
{
	if (!e)
		return (const void *)((const uint8_t *)trace + sizeof(struct mr_bus_trace_header));
	if (e->kind == MR_BUS_TRACE_END)
		return NULL;
	return (const void *)((const uint8_t *)(e + 1) + padded(e->bytes));
}

/* ---- rings ------------------------------------------------------------------------------------- */

static int power_of_two(uint32_t n)
{
	return n >= 2 && n <= MR_LPU_RING_ENTRIES_MAX && !(n & (n - 1));
}

/* Rings are 64-byte aligned, or the device refuses them. */
static int aligned(uint64_t a, uint64_t b, uint64_t c)
{
	return !((a | b | c) % 64);
}

void mr_bus_rings_reset(struct mr_bus_rings *r)
{
	memset(r, 0, sizeof(*r));
}

int mr_bus_rings_register(struct mr_bus_rings *r, uint32_t offset, uint32_t value)
{
	switch (offset) {
	case MR_LPU_REG_ADMIN_ENTRIES:
		r->entries = value;
		return 0;
	case MR_LPU_REG_ADMIN_SQ_LO:
		r->sq_lo = value;
		return 0;
	case MR_LPU_REG_ADMIN_SQ_HI:
		r->sq_hi = value;
		return 0;
	case MR_LPU_REG_ADMIN_CQ_LO:
		r->cq_lo = value;
		return 0;
	case MR_LPU_REG_ADMIN_CQ_HI:
		r->cq_hi = value;
		return 0;
	case MR_LPU_REG_CONTROL:
		memset(r->queue, 0, sizeof(r->queue));
		if (!(value & MR_LPU_CONTROL_ENABLE) || !power_of_two(r->entries) ||
		    !aligned(r->sq_lo, r->cq_lo, 0))
			return 0;
		r->queue[0] = (struct mr_bus_ring){
			.live = 1,
			.sq = (uint64_t)r->sq_hi << 32 | r->sq_lo,
			.cq = (uint64_t)r->cq_hi << 32 | r->cq_lo,
			.entries = r->entries,
		};
		return 1;
	default:
		return 0;
	}
}

uint32_t mr_bus_rings_command(struct mr_bus_rings *r, const struct mr_lpu_command *c)
{
	struct mr_lpu_cmd_queue_create create;
	struct mr_lpu_cmd_queue_delete delete;

	if (c->head.opcode == MR_LPU_QUEUE_DELETE) {
		memcpy(&delete, c, sizeof(delete));
		if (delete.queue && delete.queue < MR_BUS_TRACE_QUEUES)
			r->queue[delete.queue].live = 0;
	}
	if (c->head.opcode != MR_LPU_QUEUE_CREATE)
		return 0;
	memcpy(&create, c, sizeof(create));
	/* One that is there stays as it is: the device says E_EXISTS. */
	if (!create.queue || create.queue >= MR_BUS_TRACE_QUEUES || r->queue[create.queue].live ||
	    !power_of_two(create.entries) || !power_of_two(create.record_entries) ||
	    !aligned(create.sq_iova, create.cq_iova, create.record_iova))
		return 0;
	r->queue[create.queue] = (struct mr_bus_ring){
		.live = 1,
		.sq = create.sq_iova,
		.cq = create.cq_iova,
		.records = create.record_iova,
		.entries = create.entries,
		.record_entries = create.record_entries,
	};
	return create.queue;
}

/* ---- what commands name ------------------------------------------------------------------------ */

static const void *tell(const struct mr_bus_inputs *in, uint64_t iova, uint64_t bytes)
{
	const void *p = bytes && bytes <= COMMAND_PIECES_MAX ? in->at(in->arg, iova, bytes) : NULL;

	if (p)
		in->found(in->arg, iova, p, bytes);
	return p;
}

static void learn_program(struct mr_bus_rings *r, const void *piece, uint64_t bytes)
{
	struct mr_container c;

	r->kv_bytes = 0;
	if (!piece || (uintptr_t)piece % 8 || mr_container_open(piece, bytes, &c, NULL, 0) ||
	    !c.ref || !c.ref->kv_heads || !c.ref->head_dim || c.ref->kv_heads > 65536 ||
	    c.ref->head_dim > 65536)
		return;
	r->kv_bytes = 2ull * MR_KV_BLOCK_TOKENS * c.ref->kv_heads * c.ref->head_dim * 2;
}

static void slot_param(uint64_t iova, uint32_t bytes, const struct mr_bus_inputs *in)
{
	struct mr_lpu_slot_param param;
	const void *p = tell(in, iova, bytes);

	if (!p || bytes < sizeof(param))
		return;
	memcpy(&param, p, sizeof(param));
	if (param.history_count <= MR_LPU_HISTORY_MAX)
		tell(in, param.history_iova, 4ull * param.history_count);
}

static int kv_write(const struct mr_bus_rings *r, const struct mr_lpu_cmd_kv_write *c,
		    const struct mr_bus_inputs *in)
{
	const uint8_t *descs;
	struct mr_kv_desc d;

	if (!c->count || c->count > MR_KV_DESCS_MAX)
		return 0;
	descs = tell(in, c->descs_iova, c->count * sizeof(d));
	if (descs && !r->kv_bytes)
		return MR_E_NOT_SUPPORTED;
	for (uint32_t i = 0; descs && i < c->count; i++) {
		memcpy(&d, descs + i * sizeof(d), sizeof(d));
		tell(in, d.iova, r->kv_bytes);
	}
	return 0;
}

static int decode(const struct mr_lpu_cmd_decode *c, const struct mr_bus_inputs *in)
{
	const uint8_t *entries = tell(in, c->entries_iova, c->count * 64ull);
	struct mr_lpu_decode_entry e;

	for (uint32_t i = 0; entries && i < c->count; i++) {
		memcpy(&e, entries + i * sizeof(e), sizeof(e));
		if (e.mask_iova)
			return MR_E_NOT_SUPPORTED;
		tell(in, e.forced_iova, 4ull * e.forced_count);
	}
	return 0;
}

static int admin_inputs(struct mr_bus_rings *r, const struct mr_lpu_command *c,
			const struct mr_bus_inputs *in)
{
	union {
		struct mr_lpu_cmd_program program;
		struct mr_lpu_cmd_firmware firmware;
		struct mr_lpu_cmd_features features;
	} u;

	memcpy(&u, c, sizeof(u));
	if (c->head.opcode == MR_LPU_PROGRAM && u.program.action == MR_LPU_PROGRAM_WRITE) {
		const void *p = tell(in, u.program.iova, u.program.bytes);
		if (!u.program.offset)
			learn_program(r, p, u.program.bytes);
	}
	if (c->head.opcode == MR_LPU_FIRMWARE && u.firmware.action == MR_LPU_FIRMWARE_DOWNLOAD)
		tell(in, u.firmware.iova, u.firmware.bytes);
	return c->head.opcode == MR_LPU_FEATURES && u.features.feature == MR_LPU_FEATURE_SHADOW &&
			       u.features.action == MR_LPU_FEATURE_SET && u.features.value
		       ? MR_E_NOT_SUPPORTED
		       : 0;
}

int mr_bus_inputs(struct mr_bus_rings *r, uint32_t queue, const struct mr_lpu_command *c,
		  const struct mr_bus_inputs *in)
{
	union {
		struct mr_lpu_cmd_slot_set set;
		struct mr_lpu_cmd_kv_fork fork;
		struct mr_lpu_cmd_kv_write write;
		struct mr_lpu_cmd_decode decode;
		struct mr_lpu_cmd_score score;
		struct mr_lpu_cmd_exec exec;
	} u;

	if (!queue)
		return admin_inputs(r, c, in);
	memcpy(&u, c, sizeof(u));
	switch (c->head.opcode) {
	case MR_LPU_SLOT_SET:
		slot_param(u.set.param_iova, u.set.param_bytes, in);
		return 0;
	case MR_LPU_KV_FORK:
		slot_param(u.fork.param_iova, u.fork.param_bytes, in);
		return 0;
	case MR_LPU_KV_WRITE:
		return kv_write(r, &u.write, in);
	case MR_LPU_DECODE:
		return decode(&u.decode, in);
	case MR_LPU_SCORE:
		tell(in, u.score.tokens_iova, 4ull * u.score.count);
		return 0;
	case MR_LPU_EXEC:
		tell(in, u.exec.in_iova, (uint64_t)u.exec.rows * u.exec.in_stride);
		return 0;
	default:
		return 0;
	}
}

const char *mr_bus_opcode_name(uint32_t opcode)
{
	static const char *const admin[] = {
		NULL,          "IDENTIFY", "QUEUE_CREATE", "QUEUE_DELETE", "GET_LOG", "FEATURES",
		"ASYNC_EVENT", "ABORT",    "PROGRAM",      "FIRMWARE",     "RESET",
	};
	static const char *const io[] = {
		NULL,      "SLOT_SET", "KV_WRITE", "KV_READ", "KV_FORK",
		"KV_FREE", "DECODE",   "SCORE",    "EXEC",    "FENCE",
	};

	if (opcode && opcode < sizeof(admin) / sizeof(admin[0]))
		return admin[opcode];
	if (opcode > 0x80 && opcode < 0x80 + sizeof(io) / sizeof(io[0]))
		return io[opcode - 0x80];
	return "opcode";
}
