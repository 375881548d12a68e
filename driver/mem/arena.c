// SPDX-License-Identifier: Apache-2.0
/*
 * See arena.h. Regions are kept in order of IOVA in a fixed table, so that pointers to them stay
 * good and a lookup is a binary search that any thread may do while the setup thread adds one.
 */
#include "driver/mem/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <millrace/status.h>

#include "driver/mem/pages.h"
#include "driver/mem/topology.h"
#include "driver/metrics.h"

#define REGIONS_MAX   256
#define CONSUMERS_MAX 16

/*
 * IOVAs of node n start at n * 2^40 + 4 GiB: above the MSI window of x86 at 0xfee00000, and on node
 * 0 inside the 39 bits that small IOMMUs translate. Between regions one page at least is left out,
 * so that a device that runs over the end of one faults.
 */
#define IOVA_NODE_SHIFT 40
#define IOVA_FIRST      ((uint64_t)4 << 30)
#define IOVA_NODES      256

struct mr_arena {
	struct mr_arena_options options;
	int node;
	int physical;   /* 0 = the topology is a made-up one, so pages cannot be bound as asked */
	uint32_t count; /* published by release after the entry is complete */
	uint32_t consumer_count;
	uint64_t next_iova;
	struct mr_region regions[REGIONS_MAX];
	struct mr_arena_consumer consumers[CONSUMERS_MAX];
};

static const char *const role_names[MR_REGION_ROLES] = {
	[MR_REGION_COMMANDS] = "commands",
	[MR_REGION_WEIGHTS] = "weights",
	[MR_REGION_KV] = "kv",
	[MR_REGION_RECORDS] = "records",
	[MR_REGION_READBACK] = "readback",
	[MR_REGION_PACKETS] = "packets",
};

__attribute__((format(printf, 2, 3))) static void say(const struct mr_arena *arena,
						      const char *format, ...)
{
	char line[256];
	va_list args;

	if (!arena->options.log)
		return;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	arena->options.log(arena->options.log_arg, line);
}

uint32_t mr_role_access(enum mr_region_role role)
{
	switch (role) {
	case MR_REGION_COMMANDS:
	case MR_REGION_WEIGHTS:
	case MR_REGION_KV:
		return MR_DMA_READ;
	case MR_REGION_RECORDS:
	case MR_REGION_READBACK:
		return MR_DMA_READ | MR_DMA_WRITE;
	default:
		return 0;
	}
}

int mr_arena_create(const struct mr_arena_options *options, struct mr_arena **arena)
{
	struct mr_topology topology;
	struct mr_arena *a;
	int status = mr_topology_read(options->node, &topology);

	*arena = NULL;
	if (status != 0)
		return status;
	if (options->node >= IOVA_NODES)
		return MR_E_INVALID;
	a = calloc(1, sizeof(*a));
	if (!a)
		return MR_E_NO_MEMORY;
	a->options = *options;
	a->node = options->node >= 0 ? options->node : topology.local;
	a->physical = topology.physical;
	a->next_iova = ((uint64_t)a->node << IOVA_NODE_SHIFT) + IOVA_FIRST;
	*arena = a;
	return 0;
}

static int consumer_map(const struct mr_arena_consumer *c, const struct mr_region *region)
{
	if (region->role == MR_REGION_PACKETS)
		return 0;
	return c->map(c->ctx, region, mr_role_access(region->role));
}

static void consumer_unmap(const struct mr_arena_consumer *c, const struct mr_region *region)
{
	if (region->role != MR_REGION_PACKETS)
		c->unmap(c->ctx, region);
}

static void consumer_unmap_first(const struct mr_arena *arena, const struct mr_arena_consumer *c,
				 uint32_t regions)
{
	while (regions--)
		consumer_unmap(c, &arena->regions[regions]);
}

void mr_arena_destroy(struct mr_arena *arena)
{
	if (!arena)
		return;
	while (arena->consumer_count)
		consumer_unmap_first(arena, &arena->consumers[--arena->consumer_count],
				     arena->count);
	for (uint32_t i = 0; i < arena->count; i++)
		mr_pages_unmap(arena->regions[i].base, arena->regions[i].bytes);
	free(arena);
}

/* Counts and says what the host granted. */
static void account(const struct mr_arena *arena, const struct mr_region *region,
		    const struct mr_pages *pages)
{
	const char *name = role_names[region->role];
	const char *unit = pages->page_bytes == MR_PAGE_1G   ? "1 GiB"
			   : pages->page_bytes == MR_PAGE_2M ? "2 MiB"
							     : "4 KiB";

	mr_count(MR_M_arena_bytes, pages->bytes);
	mr_count(MR_M_arena_huge_bytes, pages->huge_bytes);
	say(arena, "arena: region %u (%s): %zu KiB on %s pages, node %d, IOVA 0x%llx%s", region->id,
	    name, pages->bytes >> 10, unit, arena->node, (unsigned long long)region->iova,
	    pages->transparent && pages->huge_bytes ? ", transparent huge pages" : "");
	if (!pages->locked) {
		mr_count(MR_M_arena_lock_failed, 1);
		say(arena, "arena: region %u (%s) is not locked in memory: raise RLIMIT_MEMLOCK",
		    region->id, name);
	}
	if (!pages->bound) {
		mr_count(MR_M_arena_bind_failed, 1);
		say(arena, "arena: region %u (%s) is not bound to node %d (%zu pages elsewhere)",
		    region->id, name, arena->node, pages->foreign);
	}
}

static int place(struct mr_arena *arena, size_t bytes, struct mr_region *region,
		 struct mr_pages *pages)
{
	size_t page_max = arena->options.page_max ? arena->options.page_max : MR_PAGE_1G;
	uint64_t end = ((uint64_t)arena->node + 1) << IOVA_NODE_SHIFT;
	uint64_t iova;
	int status;

	if (bytes > end - arena->next_iova)
		return MR_E_NO_MEMORY;
	if (arena->options.no_huge)
		page_max = MR_PAGE_4K;
	status = arena->options.shareable ? mr_pages_map_shared(bytes, arena->node, page_max, pages)
					  : mr_pages_map(bytes, arena->node, page_max, pages);
	if (status != 0)
		return status;
	iova = (arena->next_iova + pages->page_bytes - 1) & ~(uint64_t)(pages->page_bytes - 1);
	if (iova + pages->bytes + MR_PAGE_4K > end) {
		mr_pages_unmap(pages->base, pages->bytes);
		return MR_E_NO_MEMORY;
	}
	region->base = pages->base;
	region->bytes = pages->bytes;
	region->page_bytes = (uint32_t)pages->page_bytes;
	region->iova = iova;
	return 0;
}

int mr_arena_region(struct mr_arena *arena, enum mr_region_role role, size_t bytes,
		    const struct mr_region **region)
{
	struct mr_region *r = &arena->regions[arena->count];
	struct mr_pages pages;
	uint32_t told;
	int status;

	*region = NULL;
	if (bytes == 0 || (unsigned)role >= MR_REGION_ROLES)
		return MR_E_INVALID;
	if (arena->count == REGIONS_MAX)
		return MR_E_NO_MEMORY;
	r->id = arena->count;
	r->role = role;
	status = place(arena, bytes, r, &pages);
	if (status != 0)
		return status;
	for (told = 0; told < arena->consumer_count && status == 0; told++)
		status = consumer_map(&arena->consumers[told], r);
	if (status != 0) {
		/* The one that refused has nothing to unmap. */
		for (told--; told > 0; told--)
			consumer_unmap(&arena->consumers[told - 1], r);
		mr_pages_unmap(pages.base, pages.bytes);
		return status;
	}
	if (!arena->physical)
		pages.bound = 0;
	account(arena, r, &pages);
	arena->next_iova = r->iova + r->bytes + MR_PAGE_4K;
	/* Pairs with the acquire in mr_arena_at: who sees the count sees the entry. */
	__atomic_store_n(&arena->count, r->id + 1, __ATOMIC_RELEASE);
	*region = r;
	return 0;
}

int mr_arena_add_consumer(struct mr_arena *arena, const struct mr_arena_consumer *consumer)
{
	if (arena->consumer_count == CONSUMERS_MAX)
		return MR_E_FULL;
	for (uint32_t i = 0; i < arena->count; i++) {
		int status = consumer_map(consumer, &arena->regions[i]);

		if (status != 0) {
			consumer_unmap_first(arena, consumer, i);
			return status;
		}
	}
	arena->consumers[arena->consumer_count++] = *consumer;
	return 0;
}

void mr_arena_remove_consumer(struct mr_arena *arena, const void *ctx)
{
	for (uint32_t i = 0; i < arena->consumer_count; i++) {
		if (arena->consumers[i].ctx != ctx)
			continue;
		consumer_unmap_first(arena, &arena->consumers[i], arena->count);
		arena->consumers[i] = arena->consumers[--arena->consumer_count];
		return;
	}
}

void *mr_arena_at(const struct mr_arena *arena, uint64_t iova, size_t bytes)
{
	uint32_t low = 0, high = __atomic_load_n(&arena->count, __ATOMIC_ACQUIRE);
	const struct mr_region *r;

	/* The last region that starts at or below iova. */
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (arena->regions[middle].iova <= iova)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0)
		return NULL;
	r = &arena->regions[low - 1];
	if (iova - r->iova >= r->bytes || bytes > r->bytes - (iova - r->iova))
		return NULL;
	return (char *)r->base + (iova - r->iova);
}

int mr_arena_node(const struct mr_arena *arena)
{
	return arena->node;
}
