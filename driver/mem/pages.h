/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages for a region: mapped, bound to a node, populated, locked, and checked afterwards. The best
 * page size that the host grants is found by trying. Used by driver/mem/arena.c at setup.
 */
#ifndef MR_DRIVER_MEM_PAGES_H
#define MR_DRIVER_MEM_PAGES_H

#include <stddef.h>
#include <stdint.h>

#define MR_PAGE_4K ((size_t)4096)
#define MR_PAGE_2M ((size_t)2 << 20)
#define MR_PAGE_1G ((size_t)1 << 30)

struct mr_pages {
	void *base;        /* zeroed memory */
	size_t bytes;      /* rounded up to page_bytes */
	size_t page_bytes; /* of the page tables that are sure: MR_PAGE_* */
	size_t huge_bytes; /* on huge pages, transparent ones included */
	size_t foreign;    /* pages that lie on another node than the one asked for */
	int bound;         /* 1 = the policy was set and every page checked */
	int locked;        /* 1 = mlock succeeded */
	int transparent;   /* 1 = 4 KiB pages with transparent huge pages asked for */
};

/*
 * Maps at least @bytes on @node with pages of at most @page_max. A page size is tried only where
 * the region fills one, so rounding never doubles a region. Returns 0 or MR_E_NO_MEMORY; binding
 * and locking that the host refuses are in @out, not errors.
 */
int mr_pages_map(size_t bytes, int node, size_t page_max, struct mr_pages *out);
/* The same over a memfd of its own, sealed at its size, so that another process can map it. */
int mr_pages_map_shared(size_t bytes, int node, size_t page_max, struct mr_pages *out);
void mr_pages_unmap(void *base, size_t bytes);
/* The memfd of pages that mr_pages_map_shared put at @base, or -1. It stays theirs. Set-up calls, any thread. */
int mr_pages_fd(const void *base);

#endif /* MR_DRIVER_MEM_PAGES_H */
