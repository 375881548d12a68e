// SPDX-License-Identifier: Apache-2.0
/* The arena: placement and edges of lookups, access by role, consumers, failures, several nodes. */
#include <fcntl.h>
#include <numa.h>
#include <numaif.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <cmocka.h>

#include <millrace/status.h>

#include "driver/mem/arena.h"
#include "driver/mem/pages.h"
#include "driver/metrics.h"

#define SEEN_MAX 32

/* A consumer that remembers what it has mapped, and refuses the region number fail_at. */
struct consumer {
	struct mr_region mapped[SEEN_MAX];
	uint32_t access[SEEN_MAX];
	int live[SEEN_MAX];
	int maps, unmaps;
	int fail_at;
};

static int consumer_map(void *ctx, const struct mr_region *region, uint32_t access)
{
	struct consumer *c = ctx;

	if ((int)region->id == c->fail_at)
		return MR_E_DMA_FAULT;
	assert_true(region->id < SEEN_MAX);
	assert_false(c->live[region->id]);
	c->mapped[region->id] = *region;
	c->access[region->id] = access;
	c->live[region->id] = 1;
	c->maps++;
	return 0;
}

static void consumer_unmap(void *ctx, const struct mr_region *region)
{
	struct consumer *c = ctx;

	assert_true(c->live[region->id]);
	/* Memory must still be there while it is unmapped. */
	*(volatile char *)region->base;
	c->live[region->id] = 0;
	c->unmaps++;
}

static struct mr_arena_consumer as_consumer(struct consumer *c)
{
	return (struct mr_arena_consumer){consumer_map, consumer_unmap, c};
}

static struct mr_arena *arena_make(void)
{
	struct mr_arena_options options = {.node = -1, .no_huge = 1};
	struct mr_arena *arena;

	assert_int_equal(mr_arena_create(&options, &arena), 0);
	return arena;
}

static void test_regions(void **state)
{
	struct mr_arena *arena = arena_make();
	const struct mr_region *r[3];
	uint64_t bytes_before = mr_metric_read(MR_M_arena_bytes);

	assert_int_equal(mr_arena_region(arena, MR_REGION_KV, 1, &r[0]), 0);
	assert_int_equal(mr_arena_region(arena, MR_REGION_RECORDS, 4096, &r[1]), 0);
	assert_int_equal(mr_arena_region(arena, MR_REGION_KV, 3 << 20, &r[2]), 0);
	assert_int_equal(mr_metric_read(MR_M_arena_bytes) - bytes_before, 4096 + 4096 + (3 << 20));
	for (int i = 0; i < 3; i++) {
		assert_int_equal(r[i]->id, i);
		assert_true(r[i]->iova != 0 && r[i]->iova % 4096 == 0);
		assert_true(r[i]->iova + r[i]->bytes < (uint64_t)1 << 48);
		assert_int_equal((uintptr_t)r[i]->base % r[i]->page_bytes, 0);
		assert_int_equal(r[i]->bytes % r[i]->page_bytes, 0);
		for (size_t at = 0; at < r[i]->bytes; at++)
			assert_int_equal(((char *)r[i]->base)[at], 0);
		/* A page without a mapping lies between regions. */
		if (i)
			assert_true(r[i]->iova >= r[i - 1]->iova + r[i - 1]->bytes + 4096);
	}
	assert_int_equal(mr_arena_region(arena, MR_REGION_KV, 0, &r[0]), MR_E_INVALID);
	assert_null(r[0]);
	assert_int_equal(mr_arena_region(arena, MR_REGION_ROLES, 1, &r[0]), MR_E_INVALID);
	assert_int_equal(mr_arena_region(arena, MR_REGION_KV, (size_t)1 << 50, &r[0]),
			 MR_E_NO_MEMORY);
	mr_arena_destroy(arena);
	mr_arena_destroy(NULL);
}

static void test_lookup_edges(void **state)
{
	struct mr_arena *arena = arena_make();
	const struct mr_region *r[4];

	assert_null(mr_arena_at(arena, 4096, 1));
	for (int i = 0; i < 4; i++)
		assert_int_equal(
			mr_arena_region(arena, MR_REGION_KV, 4096 * (size_t)(i + 1), &r[i]), 0);
	for (int i = 0; i < 4; i++) {
		uint64_t from = r[i]->iova, n = r[i]->bytes;
		char *base = r[i]->base;

		assert_ptr_equal(mr_arena_at(arena, from, n), base);
		assert_ptr_equal(mr_arena_at(arena, from + n - 1, 1), base + n - 1);
		assert_ptr_equal(mr_arena_at(arena, from + 5, 0), base + 5);
		assert_int_equal(mr_region_iova(r[i], base + 5), from + 5);
		assert_null(mr_arena_at(arena, from - 1, 1));
		assert_null(mr_arena_at(arena, from - 1, 2));
		assert_null(mr_arena_at(arena, from, n + 1));
		assert_null(mr_arena_at(arena, from + n, 0));
		assert_null(mr_arena_at(arena, from + n, 1));
		assert_null(mr_arena_at(arena, from + 1, SIZE_MAX));
	}
	assert_null(mr_arena_at(arena, 0, 1));
	assert_null(mr_arena_at(arena, UINT64_MAX, 1));
	mr_arena_destroy(arena);
}

static void test_access_by_role(void **state)
{
	static const uint32_t want[MR_REGION_ROLES] = {
		[MR_REGION_COMMANDS] = MR_DMA_READ,
		[MR_REGION_WEIGHTS] = MR_DMA_READ,
		[MR_REGION_KV] = MR_DMA_READ,
		[MR_REGION_RECORDS] = MR_DMA_READ | MR_DMA_WRITE,
		[MR_REGION_READBACK] = MR_DMA_READ | MR_DMA_WRITE,
		[MR_REGION_PACKETS] = 0,
	};
	struct mr_arena *arena = arena_make();
	struct consumer early = {.fail_at = -1}, late = {.fail_at = -1};
	struct mr_arena_consumer c = as_consumer(&early);
	const struct mr_region *r;

	assert_int_equal(mr_arena_add_consumer(arena, &c), 0);
	for (unsigned role = 0; role < MR_REGION_ROLES; role++) {
		assert_int_equal(mr_role_access(role), want[role]);
		assert_int_equal(mr_arena_region(arena, role, 100, &r), 0);
	}
	c = as_consumer(&late);
	assert_int_equal(mr_arena_add_consumer(arena, &c), 0);
	for (unsigned role = 0; role < MR_REGION_ROLES; role++) {
		assert_int_equal(early.live[role], role != MR_REGION_PACKETS);
		assert_int_equal(late.live[role], role != MR_REGION_PACKETS);
		assert_int_equal(early.access[role], want[role]);
		assert_int_equal(late.access[role], want[role]);
		assert_memory_equal(&early.mapped[role], &late.mapped[role],
				    sizeof(struct mr_region));
	}
	mr_arena_remove_consumer(arena, &early);
	mr_arena_remove_consumer(arena, &early); /* unknown by now: allowed */
	assert_int_equal(early.unmaps, MR_REGION_ROLES - 1);
	assert_int_equal(late.unmaps, 0);
	mr_arena_destroy(arena);
	assert_int_equal(late.unmaps, MR_REGION_ROLES - 1);
	assert_int_equal(early.unmaps, MR_REGION_ROLES - 1);
}

static void test_consumer_refuses(void **state)
{
	struct mr_arena *arena = arena_make();
	struct consumer first = {.fail_at = -1}, second = {.fail_at = 2}, third = {.fail_at = 1};
	struct mr_arena_consumer c = as_consumer(&first);
	const struct mr_region *r;

	assert_int_equal(mr_arena_add_consumer(arena, &c), 0);
	c = as_consumer(&second);
	assert_int_equal(mr_arena_add_consumer(arena, &c), 0);
	assert_int_equal(mr_arena_region(arena, MR_REGION_KV, 4096, &r), 0);
	assert_int_equal(mr_arena_region(arena, MR_REGION_KV, 4096, &r), 0);
	assert_int_equal(mr_arena_region(arena, MR_REGION_KV, 4096, &r), MR_E_DMA_FAULT);
	assert_null(r);
	assert_int_equal(first.maps, 3);
	assert_int_equal(first.unmaps, 1);
	assert_int_equal(second.maps, 2);
	assert_int_equal(second.unmaps, 0);

	c = as_consumer(&third);
	assert_int_equal(mr_arena_add_consumer(arena, &c), MR_E_DMA_FAULT);
	assert_int_equal(third.maps, 1);
	assert_int_equal(third.unmaps, 1);
	/* The id of the refused region is used again. */
	second.fail_at = -1;
	assert_int_equal(mr_arena_region(arena, MR_REGION_KV, 4096, &r), 0);
	assert_int_equal(r->id, 2);
	assert_ptr_equal(mr_arena_at(arena, r->iova, 1), r->base);
	mr_arena_destroy(arena);
	assert_int_equal(first.maps, first.unmaps);
	assert_int_equal(second.maps, second.unmaps);
}

static int lines_seen;
static void log_line(void *arg, const char *line)
{
	assert_ptr_equal(arena_make, arg);
	if (strstr(line, "not locked") || strstr(line, "not bound"))
		lines_seen++;
}

/* What an unprivileged host refuses is a line and a counter. */
static void test_lock_refused(void **state)
{
	struct mr_arena_options options = {.node = -1, .log = log_line, .log_arg = arena_make};
	uint64_t before = mr_metric_read(MR_M_arena_lock_failed);
	struct rlimit old, none = {0, 0};
	struct mr_arena *arena;
	const struct mr_region *r;
	int privileged = 1;

	getrlimit(RLIMIT_MEMLOCK, &old);
	none.rlim_max = old.rlim_max;
	setrlimit(RLIMIT_MEMLOCK, &none);
	lines_seen = 0;
	assert_int_equal(mr_arena_create(&options, &arena), 0);
	assert_int_equal(mr_arena_region(arena, MR_REGION_KV, 4 << 20, &r), 0);
	setrlimit(RLIMIT_MEMLOCK, &old);
	if (mr_metric_read(MR_M_arena_lock_failed) != before) {
		privileged = 0; /* no CAP_IPC_LOCK: the limit holds */
		assert_int_equal(mr_metric_read(MR_M_arena_lock_failed), before + 1);
	}
	assert_int_equal(lines_seen > 0, !privileged);
	((char *)r->base)[(4 << 20) - 1] = 1;
	mr_arena_destroy(arena);
}

/* A made-up host with two nodes: both exist, a third does not, and binding there is reported. */
static void test_nodes(void **state)
{
	struct mr_arena_options options = {.node = 1, .no_huge = 1};
	struct mr_arena *arena, *other;
	const struct mr_region *r, *s;
	uint64_t failed = mr_metric_read(MR_M_arena_bind_failed);

	setenv("HWLOC_SYNTHETIC", "node:2 core:2 pu:1", 1);
	assert_int_equal(mr_arena_create(&options, &arena), 0);
	assert_int_equal(mr_arena_node(arena), 1);
	options.node = 2;
	assert_int_equal(mr_arena_create(&options, &other), MR_E_INVALID);
	assert_null(other);
	options.node = 0;
	assert_int_equal(mr_arena_create(&options, &other), 0);
	assert_int_equal(mr_arena_region(arena, MR_REGION_KV, 4096, &r), 0);
	assert_int_equal(mr_arena_region(other, MR_REGION_KV, 4096, &s), 0);
	assert_int_equal(mr_metric_read(MR_M_arena_bind_failed), failed + 2);
	/* Arenas of two nodes never share an IOVA. */
	assert_true(r->iova >> 40 != s->iova >> 40);
	assert_null(mr_arena_at(arena, s->iova, 1));
	mr_arena_destroy(arena);
	mr_arena_destroy(other);
	unsetenv("HWLOC_SYNTHETIC");
	options.node = 200;
	assert_int_equal(mr_arena_create(&options, &arena), MR_E_INVALID);
}

/* Whatever pages the host grants, the region is whole, zeroed and said to be what it is. */
static void test_best_pages(void **state)
{
	struct mr_pages pages;

	for (size_t max = MR_PAGE_4K; max <= MR_PAGE_1G; max <<= 9) {
		size_t want = ((size_t)5 << 20) + 1;

		assert_int_equal(mr_pages_map(want, 0, max, &pages), 0);
		assert_true(pages.page_bytes <= max && pages.page_bytes <= want);
		assert_true(pages.bytes >= want && pages.bytes < want + pages.page_bytes);
		assert_int_equal(pages.bytes % pages.page_bytes, 0);
		assert_true(pages.huge_bytes <= pages.bytes);
		if (max == MR_PAGE_4K)
			assert_int_equal(pages.huge_bytes, 0);
		for (size_t at = 0; at < pages.bytes; at++)
			assert_int_equal(((char *)pages.base)[at], 0);
		printf("up to %zu KiB: pages of %zu KiB, %zu KiB huge, locked %d, bound %d\n",
		       max >> 10, pages.page_bytes >> 10, pages.huge_bytes >> 10, pages.locked,
		       pages.bound);
		mr_pages_unmap(pages.base, pages.bytes);
	}
}

/* Regions that another process can map: a descriptor each, of the whole region, that cannot be cut short. */
static void test_shareable(void **state)
{
	const struct mr_arena_options o = {.node = -1, .shareable = 1};
	const struct mr_region *r[2];
	struct mr_arena *arena;
	struct stat st;
	int fd;

	assert_int_equal(mr_arena_create(&o, &arena), 0);
	assert_int_equal(mr_arena_region(arena, MR_REGION_KV, 5000, &r[0]), 0);
	assert_int_equal(mr_arena_region(arena, MR_REGION_RECORDS, 5 << 20, &r[1]), 0);
	for (int i = 0; i < 2; i++) {
		fd = mr_pages_fd(r[i]->base);
		assert_true(fd >= 0);
		assert_int_equal(fstat(fd, &st), 0);
		assert_true((size_t)st.st_size >= r[i]->bytes);
		assert_int_equal(ftruncate(fd, 0), -1);
		uint8_t *other = mmap(NULL, r[i]->bytes, PROT_READ, MAP_SHARED, fd, 0);
		assert_true(other != MAP_FAILED);
		((uint8_t *)r[i]->base)[4999] = 77;
		assert_int_equal(other[4999], 77);
		munmap(other, r[i]->bytes);
	}
	assert_int_equal(mr_pages_fd((uint8_t *)r[0]->base + 1), -1);
	assert_int_equal(mr_pages_fd(NULL), -1);
	const void *base = r[0]->base;
	fd = mr_pages_fd(base);
	mr_arena_destroy(arena);
	assert_int_equal(mr_pages_fd(base), -1);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

/*
 * Where the kernel says that every page lies, asked here once more: on the node that was asked for, or not
 * said to be. A node that is not there gives memory all the same, and says so.
 */
static void test_pages_lie_where_they_say(void **state)
{
	static void *at[1280];
	static int where[1280];
	struct mr_pages pages;
	size_t foreign = 0;

	assert_int_equal(mr_pages_map((size_t)5 << 20, 0, MR_PAGE_4K, &pages), 0);
	assert_int_equal(pages.bytes, sizeof(at) / sizeof(at[0]) * MR_PAGE_4K);
	for (size_t i = 0; i < pages.bytes / MR_PAGE_4K; i++)
		at[i] = (char *)pages.base + i * MR_PAGE_4K;
	if (numa_available() < 0 || move_pages(0, 1280, at, NULL, where, 0) != 0) {
		printf("skipped: this kernel tells no page's node\n");
		assert_int_equal(pages.bound, 0);
	} else {
		for (size_t i = 0; i < 1280; i++)
			foreign += where[i] != 0;
		assert_int_equal(pages.foreign, foreign);
		assert_int_equal(pages.bound, foreign == 0);
		assert_int_equal(foreign, 0); /* a host has a node 0, and room there */
	}
	mr_pages_unmap(pages.base, pages.bytes);

	assert_int_equal(mr_pages_map((size_t)5 << 20, 900, MR_PAGE_4K, &pages), 0);
	assert_int_equal(pages.bound, 0);
	memset(pages.base, 1, pages.bytes);
	mr_pages_unmap(pages.base, pages.bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shareable),
		cmocka_unit_test(test_regions),
		cmocka_unit_test(test_lookup_edges),
		cmocka_unit_test(test_access_by_role),
		cmocka_unit_test(test_consumer_refuses),
		cmocka_unit_test(test_lock_refused),
		cmocka_unit_test(test_nodes),
		cmocka_unit_test(test_best_pages),
		cmocka_unit_test(test_pages_lie_where_they_say),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
