// SPDX-License-Identifier: Apache-2.0
/*
 * See pages.h. Order matters: the policy must stand before the first touch, and populating goes
 * through MADV_POPULATE_WRITE, because a touch of a hugetlb page that the node cannot give is
 * SIGBUS, while the call returns an error and the next page size is tried.
 */
#include "driver/mem/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <numa.h>
#include <numaif.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <millrace/status.h>

#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT 26
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define NODES_MAX   1024
#define CHECK_BATCH 512
#define SHARED_MAX  1024
#define PRIVATE     (-1) /* instead of a memfd: anonymous memory of this process */

/* Pages over a memfd, by where they lie: few, and looked up at set-up only. */
static struct shared {
	const void *base;
	int fd;
} shared_pages[SHARED_MAX];
static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;

static size_t round_up(size_t n, size_t to)
{
	return (n + to - 1) & ~(to - 1);
}

static int bind_to(void *base, size_t bytes, int node, int mode)
{
	unsigned long mask[NODES_MAX / (8 * sizeof(unsigned long))] = {0};

	if (node < 0 || node >= NODES_MAX || numa_available() < 0)
		return -1;
	mask[(size_t)node / (8 * sizeof(*mask))] |= 1ul << ((size_t)node % (8 * sizeof(*mask)));
	return (int)mbind(base, bytes, mode, mask, NODES_MAX, 0);
}

/* Huge pages from the pool. The pool is counted over all nodes, so only populating shows the truth.
 */
static int map_hugetlb(size_t bytes, int node, size_t page, int fd, struct mr_pages *out)
{
	int flags = fd != PRIVATE
			    ? MAP_SHARED
			    : MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB |
				      (int)((unsigned)__builtin_ctzll(page) << MAP_HUGE_SHIFT);
	size_t size = round_up(bytes, page);
	void *base = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (base == MAP_FAILED)
		return MR_E_NO_MEMORY;
	out->bound = bind_to(base, size, node, MPOL_BIND) == 0;
	if (madvise(base, size, MADV_POPULATE_WRITE) != 0) {
		munmap(base, size);
		return MR_E_NO_MEMORY;
	}
	out->base = base;
	out->bytes = size;
	out->page_bytes = page;
	out->huge_bytes = size;
	return 0;
}

/* Base pages. PREFERRED rather than BIND: a full node costs latency, not the process's life. */
static int map_base(size_t bytes, int node, int transparent, int fd, struct mr_pages *out)
{
	int flags = fd != PRIVATE ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
	size_t size = round_up(bytes, MR_PAGE_4K);
	/* A file's pages begin where it does: no room to move about in. */
	size_t align = transparent && size >= MR_PAGE_2M && fd == PRIVATE ? MR_PAGE_2M : MR_PAGE_4K;
	size_t room = size + align - MR_PAGE_4K;
	char *base = mmap(NULL, room, PROT_READ | PROT_WRITE, flags, fd, 0);
	size_t skip;

	if (base == MAP_FAILED)
		return MR_E_NO_MEMORY;
	skip = round_up((uintptr_t)base, align) - (uintptr_t)base;
	if (skip)
		munmap(base, skip);
	if (room - skip > size)
		munmap(base + skip + size, room - skip - size);
	base += skip;

	out->transparent = align == MR_PAGE_2M && madvise(base, size, MADV_HUGEPAGE) == 0;
	out->bound = bind_to(base, size, node, MPOL_PREFERRED) == 0;
	if (madvise(base, size, MADV_POPULATE_WRITE) != 0) {
		if (errno != EINVAL) {
			munmap(base, size);
			return MR_E_NO_MEMORY;
		}
		/* Before Linux 5.14: touch each page. */
		for (size_t at = 0; at < size; at += MR_PAGE_4K)
			*(volatile char *)(base + at) = 0;
	}
	out->base = base;
	out->bytes = size;
	out->page_bytes = MR_PAGE_4K;
	out->huge_bytes = 0;
	return 0;
}

/* How much of [base, base + bytes) the kernel backs by transparent huge pages, from its own
 * account. */
static size_t transparent_bytes(const void *base, size_t bytes)
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	uintptr_t from = (uintptr_t)base;
	uint64_t low = 0, high = 0, kib;
	size_t sum = 0;
	char line[512];

	if (!smaps)
		return 0;
	while (fgets(line, sizeof(line), smaps)) {
		uint64_t a, b;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " ", &a, &b) == 2) {
			low = a;
			high = b;
		} else if (low >= from && high <= from + bytes &&
			   sscanf(line, "AnonHugePages: %" SCNu64 " kB", &kib) == 1) {
			sum += (size_t)kib << 10;
		}
	}
	fclose(smaps);
	return sum;
}

/* Asks the kernel where every page lies. */
static void check_nodes(struct mr_pages *pages, int node)
{
	void *at[CHECK_BATCH];
	int where[CHECK_BATCH];
	size_t count = pages->bytes / pages->page_bytes;

	for (size_t done = 0; done < count;) {
		size_t n = count - done < CHECK_BATCH ? count - done : CHECK_BATCH;

		for (size_t i = 0; i < n; i++)
			at[i] = (char *)pages->base + (done + i) * pages->page_bytes;
		if (move_pages(0, n, at, NULL, where, 0) != 0) {
			pages->bound = 0;
			return;
		}
		for (size_t i = 0; i < n; i++)
			pages->foreign += where[i] != node;
		done += n;
	}
	if (pages->foreign)
		pages->bound = 0;
}

/* A memfd of whole @page pages that hold @bytes, sealed; or -1. */
static int make_file(size_t bytes, size_t page)
{
	unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd;

	if (page != MR_PAGE_4K)
		flags |= MFD_HUGETLB | (unsigned)__builtin_ctzll(page) << MAP_HUGE_SHIFT;
	fd = memfd_create("millrace-arena", flags);
	if (fd >= 0 && (ftruncate(fd, (off_t)round_up(bytes, page)) ||
			fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW))) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int keep_shared(const void *base, int fd)
{
	int status = MR_E_NO_MEMORY;

	pthread_mutex_lock(&shared_lock);
	for (int i = 0; status && i < SHARED_MAX; i++) {
		if (shared_pages[i].base)
			continue;
		shared_pages[i] = (struct shared){base, fd};
		status = 0;
	}
	pthread_mutex_unlock(&shared_lock);
	return status;
}

int mr_pages_fd(const void *base)
{
	int fd = -1;

	pthread_mutex_lock(&shared_lock);
	for (int i = 0; i < SHARED_MAX; i++)
		if (shared_pages[i].base == base && base)
			fd = shared_pages[i].fd;
	pthread_mutex_unlock(&shared_lock);
	return fd;
}

/* With pages of @page, over a memfd where @shared. */
static int map_size(size_t bytes, int node, size_t page, size_t page_max, int shared,
		    struct mr_pages *out)
{
	int fd = shared ? make_file(bytes, page) : PRIVATE;
	int status;

	if (shared && fd < 0)
		return MR_E_NO_MEMORY;
	status = page != MR_PAGE_4K ? map_hugetlb(bytes, node, page, fd, out)
				    : map_base(bytes, node, page_max >= MR_PAGE_2M, fd, out);
	if (!status && shared) {
		status = keep_shared(out->base, fd);
		if (status)
			munmap(out->base, out->bytes);
	}
	if (status && shared)
		close(fd);
	return status;
}

static int map_best(size_t bytes, int node, size_t page_max, int shared, struct mr_pages *out)
{
	static const size_t sizes[] = {MR_PAGE_1G, MR_PAGE_2M};
	int status = MR_E_NO_MEMORY;

	memset(out, 0, sizeof(*out));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && status != 0; i++)
		if (sizes[i] <= page_max && bytes >= sizes[i])
			status = map_size(bytes, node, sizes[i], page_max, shared, out);
	if (status != 0)
		status = map_size(bytes, node, MR_PAGE_4K, page_max, shared, out);
	if (status != 0)
		return status;

	/* A child of fork must not make the parent's pinned pages copy-on-write under a device. */
	madvise(out->base, out->bytes, MADV_DONTFORK);
	out->locked = mlock(out->base, out->bytes) == 0;
	if (out->transparent)
		out->huge_bytes = transparent_bytes(out->base, out->bytes);
	if (out->bound)
		check_nodes(out, node);
	return 0;
}

int mr_pages_map(size_t bytes, int node, size_t page_max, struct mr_pages *out)
{
	return map_best(bytes, node, page_max, 0, out);
}

int mr_pages_map_shared(size_t bytes, int node, size_t page_max, struct mr_pages *out)
{
	return map_best(bytes, node, page_max, 1, out);
}

void mr_pages_unmap(void *base, size_t bytes)
{
	if (!base)
		return;
	pthread_mutex_lock(&shared_lock);
	for (int i = 0; i < SHARED_MAX; i++)
		if (shared_pages[i].base == base) {
			close(shared_pages[i].fd);
			shared_pages[i].base = NULL;
		}
	pthread_mutex_unlock(&shared_lock);
	munmap(base, bytes);
}
