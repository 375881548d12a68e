/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Submitting: the data area handed out in order and taken back as the server's sq_head passes, and
 * the operations as calls.
 */
#include <string.h>

#include "userlib/own.h"

#define ALIGN 64u

/* Takes back what the SQEs that the server is done with had used. */
static void reclaim(struct mr_ring *ring)
{
	uint32_t head = __atomic_load_n(&ring->header->sq_head, __ATOMIC_ACQUIRE); /* SQ_ROOM */
	uint64_t end;

	if (ring->sq_index - head > ring->sq_mask + 1)
		return; /* not a head that a server in its senses stores: no room comes of it */
	ring->sq_done = head;
	end = ring->data_end[(head - 1) & (2 * ring->sq_mask + 1)];
	if (end > ring->data_freed)
		ring->data_freed = end;
}

void *mr_ring_data(struct mr_ring *ring, size_t bytes, uint64_t *offset)
{
	uint64_t size = ring->data_bytes;
	uint64_t need, at, skip;

	if (!bytes || bytes > size)
		return NULL;
	need = (bytes + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
	reclaim(ring);
	/* All free: start over, or a block of more than half might never find room. */
	if (ring->data_used == ring->data_freed && ring->data_used % size) {
		ring->data_used += size - ring->data_used % size;
		ring->data_freed = ring->data_used;
	}
	at = ring->data_used % size;
	skip = at + need > size ? size - at : 0;
	if (ring->data_used - ring->data_freed + skip + need > size)
		return NULL;
	*offset = skip ? 0 : at;
	ring->data_used += skip + need;
	return ring->data + *offset;
}

static int submit(struct mr_ring *ring, uint64_t key, const void *data, size_t bytes,
		  uint32_t flags, const struct mr_params *params)
{
	size_t head = params ? sizeof(*params) : 0;
	struct mr_sqe sqe = {.op = MR_OP_SUBMIT, .flags = (uint16_t)flags, .key = key};
	unsigned char *room;
	uint64_t offset;

	if (!bytes || !data || flags > UINT16_MAX)
		return MR_E_INVALID;
	if (bytes > ring->data_bytes - head)
		return MR_E_TOO_LARGE;
	if (!mr_ring_room(ring))
		return MR_E_FULL;
	room = mr_ring_data(ring, head + bytes, &offset);
	if (!room)
		return MR_E_FULL;
	if (params) {
		memcpy(room, params, sizeof(*params));
		sqe.params_offset = offset;
		sqe.params_bytes = sizeof(*params);
	}
	memcpy(room + head, data, bytes);
	sqe.data_offset = offset + head;
	sqe.data_bytes = (uint32_t)bytes;
	return mr_ring_push(ring, &sqe);
}

int mr_ring_submit_text(struct mr_ring *ring, uint64_t key, const char *text, size_t bytes,
			uint32_t flags, const struct mr_params *params)
{
	return submit(ring, key, text, bytes, flags, params);
}

int mr_ring_submit_tokens(struct mr_ring *ring, uint64_t key, const uint32_t *tokens, size_t count,
			  uint32_t flags, const struct mr_params *params)
{
	if (count > MR_DATA_BYTES_MAX / sizeof(*tokens))
		return MR_E_TOO_LARGE;
	return submit(ring, key, tokens, count * sizeof(*tokens), flags | MR_SUBMIT_TOKENS, params);
}

int mr_ring_cancel(struct mr_ring *ring, uint64_t key, uint64_t target)
{
	struct mr_sqe sqe = {.op = MR_OP_CANCEL, .key = key, .target = target};

	return mr_ring_push(ring, &sqe);
}

int mr_ring_release(struct mr_ring *ring, uint64_t key, uint64_t target)
{
	struct mr_sqe sqe = {.op = MR_OP_RELEASE, .key = key, .target = target};

	return mr_ring_push(ring, &sqe);
}

int mr_ring_nop(struct mr_ring *ring, uint64_t key)
{
	struct mr_sqe sqe = {.op = MR_OP_NOP, .key = key};

	return mr_ring_push(ring, &sqe);
}
