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

/*
 * A place for an SQE that makes a request. The last one is left to CANCEL and RELEASE, so that a client whose
 * SQEs wait for room can end what is under way.
 */
static int place_for_request(struct mr_ring *ring)
{
	if (mr_ring_room(ring) < 2)
		reclaim(ring);
	return mr_ring_room(ring) >= 2;
}

/* Room for @bytes of data that go with the next SQE, or NULL and *@rc. */
static void *make_room(struct mr_ring *ring, size_t bytes, uint64_t *offset, int *rc)
{
	void *room = NULL;

	*rc = bytes > ring->data_bytes ? MR_E_TOO_LARGE : MR_E_FULL;
	if (*rc == MR_E_FULL && place_for_request(ring))
		room = mr_ring_data(ring, bytes, offset);
	return room;
}

/* Its parameters, if any, to @room at @offset of the data area; returns how many bytes they take. */
static size_t put_params(struct mr_sqe *sqe, const struct mr_params *params, unsigned char *room,
			 uint64_t offset)
{
	if (!params)
		return 0;
	memcpy(room, params, sizeof(*params));
	sqe->params_offset = offset;
	sqe->params_bytes = sizeof(*params);
	return sizeof(*params);
}

/* SUBMIT and APPEND. */
static int with_input(struct mr_ring *ring, struct mr_sqe *sqe, const void *data, size_t bytes,
		      uint32_t flags, const struct mr_params *params)
{
	size_t head = params ? sizeof(*params) : 0;
	unsigned char *room;
	uint64_t offset;
	int rc;

	if (!bytes || !data || flags > UINT16_MAX)
		return MR_E_INVALID;
	if (bytes > ring->data_bytes)
		return MR_E_TOO_LARGE;
	room = make_room(ring, head + bytes, &offset, &rc);
	if (!room)
		return rc;
	put_params(sqe, params, room, offset);
	memcpy(room + head, data, bytes);
	sqe->flags = (uint16_t)flags;
	sqe->data_offset = offset + head;
	sqe->data_bytes = (uint32_t)bytes;
	return mr_ring_push(ring, sqe);
}

static int with_tokens(struct mr_ring *ring, struct mr_sqe *sqe, const uint32_t *tokens,
		       size_t count, uint32_t flags, const struct mr_params *params)
{
	if (count > MR_DATA_BYTES_MAX / sizeof(*tokens))
		return MR_E_TOO_LARGE;
	return with_input(ring, sqe, tokens, count * sizeof(*tokens), flags | MR_SUBMIT_TOKENS,
			  params);
}

int mr_ring_submit_text(struct mr_ring *ring, uint64_t key, const char *text, size_t bytes,
			uint32_t flags, const struct mr_params *params)
{
	return mr_ring_submit_text_after(ring, key, 0, text, bytes, flags, params);
}

int mr_ring_submit_tokens(struct mr_ring *ring, uint64_t key, const uint32_t *tokens, size_t count,
			  uint32_t flags, const struct mr_params *params)
{
	return mr_ring_submit_tokens_after(ring, key, 0, tokens, count, flags, params);
}

int mr_ring_submit_text_after(struct mr_ring *ring, uint64_t key, uint64_t prefix, const char *text,
			      size_t bytes, uint32_t flags, const struct mr_params *params)
{
	struct mr_sqe sqe = {.op = MR_OP_SUBMIT, .key = key, .target = prefix};

	return with_input(ring, &sqe, text, bytes, flags, params);
}

int mr_ring_submit_tokens_after(struct mr_ring *ring, uint64_t key, uint64_t prefix,
				const uint32_t *tokens, size_t count, uint32_t flags,
				const struct mr_params *params)
{
	struct mr_sqe sqe = {.op = MR_OP_SUBMIT, .key = key, .target = prefix};

	return with_tokens(ring, &sqe, tokens, count, flags, params);
}

int mr_ring_append_text(struct mr_ring *ring, uint64_t key, uint64_t target, const char *text,
			size_t bytes, uint32_t flags, const struct mr_params *params)
{
	struct mr_sqe sqe = {.op = MR_OP_APPEND, .key = key, .target = target};

	return with_input(ring, &sqe, text, bytes, flags, params);
}

int mr_ring_append_tokens(struct mr_ring *ring, uint64_t key, uint64_t target,
			  const uint32_t *tokens, size_t count, uint32_t flags,
			  const struct mr_params *params)
{
	struct mr_sqe sqe = {.op = MR_OP_APPEND, .key = key, .target = target};

	return with_tokens(ring, &sqe, tokens, count, flags, params);
}

int mr_ring_fork(struct mr_ring *ring, uint64_t key, uint64_t target, uint32_t flags,
		 const struct mr_params *params)
{
	struct mr_sqe sqe = {.op = MR_OP_FORK, .key = key, .target = target};
	unsigned char *room;
	uint64_t offset;
	int rc;

	if (flags > UINT16_MAX)
		return MR_E_INVALID;
	sqe.flags = (uint16_t)flags;
	if (params) {
		room = make_room(ring, sizeof(*params), &offset, &rc);
		if (!room)
			return rc;
		put_params(&sqe, params, room, offset);
	} else if (!place_for_request(ring)) {
		return MR_E_FULL;
	}
	return mr_ring_push(ring, &sqe);
}

int mr_ring_submit(struct mr_ring *ring, const struct mr_sqe *sqe, const void *data, size_t bytes,
		   const void *params, size_t params_bytes)
{
	struct mr_sqe own = *sqe;
	unsigned char *room;
	uint64_t offset;
	int rc;

	if ((bytes && !data) || (params_bytes && !params) || params_bytes % 8)
		return MR_E_INVALID;
	if (bytes > ring->data_bytes || params_bytes > ring->data_bytes)
		return MR_E_TOO_LARGE;
	if (!bytes && !params_bytes)
		return place_for_request(ring) ? mr_ring_push(ring, &own) : MR_E_FULL;
	room = make_room(ring, params_bytes + bytes, &offset, &rc);
	if (!room)
		return rc;
	if (params_bytes) {
		memcpy(room, params, params_bytes);
		own.params_offset = offset;
		own.params_bytes = (uint32_t)params_bytes;
	}
	if (bytes) {
		memcpy(room + params_bytes, data, bytes);
		own.data_offset = offset + params_bytes;
		own.data_bytes = (uint32_t)bytes;
	}
	return mr_ring_push(ring, &own);
}

int mr_stops_add(struct mr_stops *stops, const char *text, size_t bytes)
{
	uint32_t n = stops->count, from = n && n <= MR_STOP_STRINGS_MAX ? stops->ends[n - 1] : 0;

	if (!bytes)
		return MR_E_INVALID;
	if (n >= MR_STOP_STRINGS_MAX || from > MR_STOP_BYTES_MAX ||
	    bytes > MR_STOP_BYTES_MAX - from)
		return MR_E_TOO_LARGE;
	memcpy(stops->text + from, text, bytes);
	stops->ends[n] = (uint16_t)(from + bytes);
	stops->count = n + 1;
	return (int)n;
}

/* The block of @count parts of @sizes units each; returns the units of all, or 0 where one has none. */
static uint64_t describe(struct mr_continuations *block, const size_t *sizes, uint32_t count)
{
	uint64_t end = 0;

	*block = (struct mr_continuations){
		.version = MR_CONTINUATIONS_VERSION, .bytes = sizeof(*block), .count = count};
	for (uint32_t i = 0; i < count; i++) {
		if (!sizes[i])
			return 0;
		if (sizes[i] > MR_DATA_BYTES_MAX)
			return MR_DATA_BYTES_MAX; /* with the block too much for any ring */
		end += sizes[i];
		block->ends[i] = (uint32_t)end;
	}
	return end;
}

/* @parts: @count pointers to @sizes units of @unit bytes each. */
static int score(struct mr_ring *ring, struct mr_sqe *sqe, const void *const *parts,
		 const size_t *sizes, uint32_t count, size_t unit, const struct mr_params *params)
{
	size_t head = params ? sizeof(*params) : 0;
	struct mr_continuations block;
	unsigned char *room, *to;
	uint64_t offset, units;
	int rc;

	if (!count || count > MR_CONTINUATIONS_MAX)
		return MR_E_INVALID;
	units = describe(&block, sizes, count);
	if (!units)
		return MR_E_INVALID;
	room = make_room(ring, head + sizeof(block) + units * unit, &offset, &rc);
	if (!room)
		return rc;
	to = room + put_params(sqe, params, room, offset);
	memcpy(to, &block, sizeof(block));
	to += sizeof(block);
	for (uint32_t i = 0; i < count; i++) {
		memcpy(to, parts[i], sizes[i] * unit);
		to += sizes[i] * unit;
	}
	sqe->data_offset = offset + head;
	sqe->data_bytes = (uint32_t)(sizeof(block) + units * unit);
	return mr_ring_push(ring, sqe);
}

int mr_ring_score_text(struct mr_ring *ring, uint64_t key, uint64_t target,
		       const char *const *texts, const size_t *bytes, uint32_t count,
		       const struct mr_params *params)
{
	struct mr_sqe sqe = {.op = MR_OP_SCORE, .key = key, .target = target};
	size_t lengths[MR_CONTINUATIONS_MAX];

	if (!count || count > MR_CONTINUATIONS_MAX)
		return MR_E_INVALID;
	for (uint32_t i = 0; !bytes && i < count; i++)
		lengths[i] = strlen(texts[i]);
	return score(ring, &sqe, (const void *const *)texts, bytes ? bytes : lengths, count, 1,
		     params);
}

int mr_ring_score_tokens(struct mr_ring *ring, uint64_t key, uint64_t target,
			 const uint32_t *const *tokens, const size_t *counts, uint32_t count,
			 const struct mr_params *params)
{
	struct mr_sqe sqe = {
		.op = MR_OP_SCORE, .flags = MR_SUBMIT_TOKENS, .key = key, .target = target};

	return score(ring, &sqe, (const void *const *)tokens, counts, count, sizeof(**tokens),
		     params);
}

/* An SQE that is an operation, a key and a target. */
static int push_simple(struct mr_ring *ring, uint16_t op, uint64_t key, uint64_t target)
{
	struct mr_sqe sqe = {.op = op, .key = key, .target = target};

	return mr_ring_push(ring, &sqe);
}

int mr_ring_prefix(struct mr_ring *ring, uint64_t name, uint64_t target)
{
	return push_simple(ring, MR_OP_PREFIX, name, target);
}

int mr_ring_query(struct mr_ring *ring, uint64_t key, uint64_t target)
{
	return push_simple(ring, MR_OP_QUERY, key, target);
}

int mr_ring_cancel(struct mr_ring *ring, uint64_t key, uint64_t target)
{
	return push_simple(ring, MR_OP_CANCEL, key, target);
}

int mr_ring_release(struct mr_ring *ring, uint64_t key, uint64_t target)
{
	return push_simple(ring, MR_OP_RELEASE, key, target);
}

int mr_ring_nop(struct mr_ring *ring, uint64_t key)
{
	return push_simple(ring, MR_OP_NOP, key, 0);
}
