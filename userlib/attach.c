/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ring memory and vocabulary as the client sees them: every size and offset is checked once, here,
 * so that nothing after it needs to.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "userlib/own.h"

_Static_assert(offsetof(struct mr_ring, sq_index) == 128 &&
		       offsetof(struct mr_ring, cq_index) == 256,
	       "each thread's part of a ring has its own pair of lines");

static int power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

static int inside(uint64_t offset, uint64_t bytes, uint64_t total)
{
	return offset >= sizeof(struct mr_ring_header) && !(offset % 64) && offset <= total &&
	       bytes <= total - offset;
}

static int header_ok(const struct mr_ring_header *h, size_t bytes)
{
	return h->magic == MR_RING_MAGIC && h->version == MR_RING_VERSION &&
	       h->header_bytes == sizeof(*h) && h->memory_bytes == bytes &&
	       power_of_two(h->sq_entries) && h->sq_entries <= MR_SQ_ENTRIES_MAX &&
	       power_of_two(h->cq_entries) && h->cq_entries <= MR_CQ_ENTRIES_MAX &&
	       inside(h->sq_offset, h->sq_entries * sizeof(struct mr_sqe), bytes) &&
	       inside(h->cq_offset, h->cq_entries * sizeof(struct mr_cqe), bytes) &&
	       h->data_bytes && !(h->data_bytes % 64) &&
	       inside(h->data_offset, h->data_bytes, bytes);
}

int mr_ring_attach(void *memory, size_t bytes, const int fds[3], struct mr_ring **out)
{
	struct mr_ring_header *header = memory;
	struct mr_ring_private *own;
	struct mr_ring *ring;
	char *base = memory;

	if (bytes < sizeof(*header) || !header_ok(header, bytes))
		return MR_E_PROTOCOL;
	/* One block: the ring on its own lines, its private part, two rounds of data_end. */
	ring = aligned_alloc(128, (sizeof(*ring) + sizeof(*own) +
				   2 * header->sq_entries * sizeof(uint64_t) + 127) &
					  ~(size_t)127);
	if (!ring)
		return MR_E_NO_MEMORY;
	own = (struct mr_ring_private *)(ring + 1);
	memset(ring, 0, sizeof(*ring));
	memset(own, 0, sizeof(*own));
	ring->header = header;
	ring->own = own;
	ring->sq = (struct mr_sqe *)(base + header->sq_offset);
	ring->cq = (const struct mr_cqe *)(base + header->cq_offset);
	ring->data = (unsigned char *)base + header->data_offset;
	ring->data_bytes = header->data_bytes;
	ring->data_end = (uint64_t *)(own + 1);
	memset(ring->data_end, 0, 2 * header->sq_entries * sizeof(uint64_t));
	ring->sq_mask = header->sq_entries - 1;
	ring->cq_mask = header->cq_entries - 1;
	ring->sq_index = ring->sq_done = __atomic_load_n(&header->sq_head, __ATOMIC_ACQUIRE);
	ring->cq_index = ring->cq_returned = __atomic_load_n(&header->cq_head, __ATOMIC_ACQUIRE);
	own->memory = memory;
	own->memory_bytes = bytes;
	own->socket = fds[0];
	own->sq_fd = fds[1];
	own->cq_fd = fds[2];
	own->features = header->features;
	own->spin_ns = 50000;
	own->silent_ns = 10000000000u;
	own->beat_ns = ring_now();
	*out = ring;
	return 0;
}

const char *mr_ring_token(const struct mr_ring *ring, uint32_t token, size_t *bytes,
			  uint32_t *flags)
{
	const struct mr_ring_private *own = ring->own;
	const struct mr_vocab_entry *entry;

	if (token >= own->vocab_count)
		return NULL;
	entry = &own->vocab[token];
	if ((uint64_t)entry->offset + entry->bytes > own->vocab_text_bytes)
		return NULL;
	*bytes = entry->bytes;
	if (flags)
		*flags = entry->flags;
	return own->vocab_text + entry->offset;
}

uint64_t mr_ring_features(const struct mr_ring *ring)
{
	return ring->own->features;
}

void mr_ring_disconnect(struct mr_ring *ring)
{
	struct mr_ring_private *own;

	if (!ring)
		return;
	own = ring->own;
	if (own->socket >= 0)
		close(own->socket);
	if (own->sq_fd >= 0)
		close(own->sq_fd);
	if (own->cq_fd >= 0)
		close(own->cq_fd);
	if (own->vocab_map)
		munmap(own->vocab_map, own->vocab_map_bytes);
	munmap(own->memory, own->memory_bytes);
	free(ring);
}
