// SPDX-License-Identifier: Apache-2.0
#include "driver/bus/record.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "driver/bus/bus_trace.h"

#define MAPS        512u /* more than an arena has regions */
#define BYTES_MAX   (1ull << 30)
#define BUFFER      (1u << 20)
#define ENTRY_PIECE (16u << 20) /* memory is cut into entries of so much */

struct map {
	uint64_t iova, bytes; /* bytes = 0: free */
	const uint8_t *base;
};

struct recorder {
	struct mr_bus bus;
	struct mr_bus *inner;
	FILE *file; /* NULL = the trace has ended */
	struct mr_bus_record_stats stats, *out;
	uint64_t bytes_max, start_ns;
	struct map map[MAPS];
	struct mr_bus_rings rings;
	struct mr_bus_trace_entry last; /* to leave out reads that repeat */
};

static struct recorder *recorder_of(struct mr_bus *bus)
{
	return (struct recorder *)bus; /* bus is the first member */
}

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void write_entry(struct recorder *r, struct mr_bus_trace_entry *e, const void *payload)
{
	static const uint8_t zeros[8];
	size_t pad = (8 - e->bytes % 8) % 8;

	e->time_ns = clock_ns(CLOCK_MONOTONIC) - r->start_ns;
	if (fwrite(e, sizeof(*e), 1, r->file) != 1 ||
	    (e->bytes && fwrite(payload, 1, e->bytes, r->file) != e->bytes) ||
	    fwrite(zeros, 1, pad, r->file) != pad)
		r->stats.status = MR_E_IO;
	r->stats.entries++;
	r->stats.bytes += sizeof(*e) + e->bytes + pad;
	r->last = *e;
}

/* Ends the trace, with the reason where there is one. */
static void finish(struct recorder *r, int status)
{
	struct mr_bus_trace_entry e = {.kind = MR_BUS_TRACE_END, .value = (uint32_t)-status};

	if (!r->file)
		return;
	write_entry(r, &e, NULL);
	if (fclose(r->file) && !r->stats.status)
		r->stats.status = MR_E_IO;
	r->file = NULL;
	if (!r->stats.status)
		r->stats.status = status;
}

static void put(struct recorder *r, struct mr_bus_trace_entry e, const void *payload)
{
	if (!r->file)
		return;
	/* Room for the entry, its padding and END. */
	if (r->stats.bytes + e.bytes + 8 + 2 * sizeof(e) > r->bytes_max)
		finish(r, MR_E_TOO_LARGE);
	else
		write_entry(r, &e, payload);
	if (r->stats.status == MR_E_IO)
		finish(r, MR_E_IO);
}

static const void *at(void *arg, uint64_t iova, uint64_t bytes)
{
	const struct recorder *r = arg;

	for (uint32_t i = 0; i < MAPS; i++) {
		const struct map *m = &r->map[i];
		if (m->bytes && iova >= m->iova && bytes <= m->bytes &&
		    iova - m->iova <= m->bytes - bytes)
			return m->base + (iova - m->iova);
	}
	return NULL;
}

static void found(void *arg, uint64_t iova, const void *base, uint64_t bytes)
{
	const uint8_t *p = base;

	for (uint64_t done = 0; done < bytes;) {
		uint64_t n = bytes - done < ENTRY_PIECE ? bytes - done : ENTRY_PIECE;
		put(arg,
		    (struct mr_bus_trace_entry){
			    .kind = MR_BUS_TRACE_MEMORY, .bytes = (uint32_t)n, .at = iova + done},
		    p + done);
		done += n;
	}
}

/* The commands that a new tail hands over, and all that they name. */
static void submitted(struct recorder *r, uint32_t queue, uint32_t tail)
{
	struct mr_bus_ring *ring = &r->rings.queue[queue];
	const struct mr_bus_inputs inputs = {at, found, r};
	struct mr_lpu_command c;

	if (!ring->live || tail - ring->sq_tail > ring->entries)
		return;
	while (r->file && ring->sq_tail != tail) {
		uint64_t iova = ring->sq + ring->sq_tail % ring->entries * sizeof(c);
		const void *p = at(r, iova, sizeof(c));

		ring->sq_tail++;
		if (!p)
			continue;
		memcpy(&c, p, sizeof(c));
		found(r, iova, p, sizeof(c));
		int status = mr_bus_inputs(&r->rings, queue, &c, &inputs);
		if (status)
			finish(r, status);
		if (!queue)
			mr_bus_rings_command(&r->rings, &c);
	}
}

/* A ring's entries up to @to, which the device may write again only after the doorbell says so. */
static void taken(struct recorder *r, uint32_t queue, uint32_t kind, uint32_t to)
{
	struct mr_bus_ring *ring = &r->rings.queue[queue];
	int of_records = kind == MR_BUS_TRACE_RECORDS;
	uint32_t *head = of_records ? &ring->record_head : &ring->cq_head;
	uint32_t entries = of_records ? ring->record_entries : ring->entries;
	uint64_t base = of_records ? ring->records : ring->cq;
	uint64_t size =
		of_records ? sizeof(struct mr_lpu_record) : sizeof(struct mr_lpu_completion);

	if (!ring->live || !entries || to - *head > entries)
		return;
	while (*head != to) {
		uint32_t first = *head % entries, n = to - *head;
		if (n > entries - first)
			n = entries - first;
		const void *p = at(r, base + first * size, n * size);
		if (p)
			put(r,
			    (struct mr_bus_trace_entry){.kind = (uint16_t)kind,
							.queue = (uint16_t)queue,
							.bytes = (uint32_t)(n * size),
							.value = *head},
			    p);
		*head += n;
	}
}

/* How far the device has filled a ring, by the phase of each entry from the head on. */
static uint32_t filled(struct recorder *r, uint32_t head, uint32_t entries, uint64_t base,
		       size_t size, int of_records)
{
	for (uint32_t n = 0; n < entries; n++, head++) {
		const uint8_t *p = at(r, base + head % entries * size, size);
		uint32_t lap = head / entries, want = of_records ? lap + 1 : !(lap & 1), phase;

		if (!p)
			break;
		phase = __atomic_load_n((const uint32_t *)(p + size - sizeof(phase)),
					__ATOMIC_ACQUIRE);
		if ((of_records ? phase : phase & 1) != want)
			break;
	}
	return head;
}

/*
 * All answers of an I/O queue that are there: what the host does next may rest on them, though it gives their
 * places back later and several at a time. Completions are looked at first, as their records are visible then.
 */
static void answered(struct recorder *r, uint32_t queue)
{
	struct mr_bus_ring *ring = &r->rings.queue[queue];
	uint32_t completions;

	if (!r->file || !queue || !ring->live)
		return;
	completions = filled(r, ring->cq_head, ring->entries, ring->cq,
			     sizeof(struct mr_lpu_completion), 0);
	if (ring->record_entries)
		taken(r, queue, MR_BUS_TRACE_RECORDS,
		      filled(r, ring->record_head, ring->record_entries, ring->records,
			     sizeof(struct mr_lpu_record), 1));
	taken(r, queue, MR_BUS_TRACE_COMPLETIONS, completions);
}

static void mirror(struct recorder *r)
{
	__atomic_store_n(&r->bus.lost, __atomic_load_n(&r->inner->lost, __ATOMIC_RELAXED),
			 __ATOMIC_RELAXED);
}

static uint32_t record_reg_read(struct mr_bus *bus, uint32_t offset)
{
	struct recorder *r = recorder_of(bus);
	uint32_t value = r->inner->ops->reg_read(r->inner, offset);

	mirror(r);
	if (r->last.kind != MR_BUS_TRACE_REG_READ || r->last.at != offset || r->last.value != value)
		put(r,
		    (struct mr_bus_trace_entry){
			    .kind = MR_BUS_TRACE_REG_READ, .at = offset, .value = value},
		    NULL);
	return value;
}

static void record_reg_write(struct mr_bus *bus, uint32_t offset, uint32_t value)
{
	struct recorder *r = recorder_of(bus);

	for (uint32_t q = 1; offset == MR_LPU_REG_CONTROL && q < MR_BUS_TRACE_QUEUES; q++)
		answered(r, q);
	put(r,
	    (struct mr_bus_trace_entry){
		    .kind = MR_BUS_TRACE_REG_WRITE, .at = offset, .value = value},
	    NULL);
	mr_bus_rings_register(&r->rings, offset, value);
	r->inner->ops->reg_write(r->inner, offset, value);
	mirror(r);
}

static void record_doorbell(struct mr_bus *bus, uint32_t queue, uint32_t offset, uint32_t value)
{
	struct recorder *r = recorder_of(bus);

	if (r->file && queue < MR_BUS_TRACE_QUEUES) {
		answered(r, queue);
		if (offset == MR_LPU_DB_SQ_TAIL)
			submitted(r, queue, value);
		else if (offset == MR_LPU_DB_CQ_HEAD)
			taken(r, queue, MR_BUS_TRACE_COMPLETIONS, value);
		else if (offset == MR_LPU_DB_RECORD_HEAD)
			taken(r, queue, MR_BUS_TRACE_RECORDS, value);
		put(r,
		    (struct mr_bus_trace_entry){.kind = MR_BUS_TRACE_DOORBELL,
						.queue = (uint16_t)queue,
						.at = offset,
						.value = value},
		    NULL);
	}
	r->inner->ops->doorbell(r->inner, queue, offset, value);
	mirror(r);
}

static int record_dma_map(struct mr_bus *bus, uint64_t iova, void *base, size_t bytes,
			  uint32_t access)
{
	struct recorder *r = recorder_of(bus);
	int status = r->inner->ops->dma_map(r->inner, iova, base, bytes, access);
	uint64_t length = bytes;
	uint32_t i = 0;

	mirror(r);
	if (status)
		return status;
	while (i < MAPS && r->map[i].bytes)
		i++;
	if (i == MAPS) {
		finish(r, MR_E_FULL);
		return 0;
	}
	r->map[i] = (struct map){iova, bytes, base};
	put(r,
	    (struct mr_bus_trace_entry){
		    .kind = MR_BUS_TRACE_MAP, .bytes = sizeof(length), .at = iova, .value = access},
	    &length);
	return 0;
}

static int record_dma_unmap(struct mr_bus *bus, uint64_t iova)
{
	struct recorder *r = recorder_of(bus);
	int status = r->inner->ops->dma_unmap(r->inner, iova);

	mirror(r);
	for (uint32_t i = 0; i < MAPS; i++)
		if (r->map[i].bytes && r->map[i].iova == iova) {
			r->map[i].bytes = 0;
			put(r, (struct mr_bus_trace_entry){.kind = MR_BUS_TRACE_UNMAP, .at = iova},
			    NULL);
		}
	return status;
}

static int record_irq_fd(struct mr_bus *bus, uint32_t vector)
{
	struct recorder *r = recorder_of(bus);

	put(r, (struct mr_bus_trace_entry){.kind = MR_BUS_TRACE_IRQ, .value = vector}, NULL);
	return r->inner->ops->irq_fd(r->inner, vector);
}

static int record_reset(struct mr_bus *bus)
{
	struct recorder *r = recorder_of(bus);
	int status = r->inner->ops->reset(r->inner);

	mirror(r);
	mr_bus_rings_reset(&r->rings);
	put(r, (struct mr_bus_trace_entry){.kind = MR_BUS_TRACE_RESET, .value = (uint32_t)-status},
	    NULL);
	return status;
}

static void record_close(struct mr_bus *bus)
{
	struct recorder *r = recorder_of(bus);

	r->inner->ops->close(r->inner);
	finish(r, 0);
	if (r->out)
		*r->out = r->stats;
	free(r);
}

static const struct mr_bus_ops record_ops = {
	.reg_read = record_reg_read,
	.reg_write = record_reg_write,
	.doorbell = record_doorbell,
	.dma_map = record_dma_map,
	.dma_unmap = record_dma_unmap,
	.irq_fd = record_irq_fd,
	.reset = record_reset,
	.close = record_close,
};

int mr_bus_record_open(const char *path, uint64_t bytes_max, struct mr_bus *inner,
		       struct mr_bus_record_stats *stats, struct mr_bus **bus)
{
	struct mr_bus_trace_header h = {
		.magic = MR_BUS_TRACE_MAGIC,
		.version = MR_BUS_TRACE_VERSION,
		.header_bytes = sizeof(h),
		.start_ns = clock_ns(CLOCK_REALTIME),
	};
	struct recorder *r = calloc(1, sizeof(*r));

	if (!r)
		return MR_E_NO_MEMORY;
	/* A trace holds prompts and weights: no other user's to read. */
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	r->file = fd < 0 ? NULL : fdopen(fd, "w");
	if (!r->file) {
		if (fd >= 0)
			close(fd);
		free(r);
		return MR_E_IO;
	}
	setvbuf(r->file, NULL, _IOFBF, BUFFER);
	r->bus.ops = &record_ops;
	r->inner = inner;
	r->out = stats;
	r->bytes_max = bytes_max ? bytes_max : BYTES_MAX;
	r->start_ns = clock_ns(CLOCK_MONOTONIC);
	r->stats.bytes = sizeof(h);
	mirror(r);
	if (fwrite(&h, sizeof(h), 1, r->file) != 1)
		finish(r, MR_E_IO);
	*bus = &r->bus;
	return 0;
}
