/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libmillrace: the client's side of the ring ABI (millrace/ring.h, which explains every word used
 * here).
 *
 *   struct mr_ring *ring;
 *   mr_ring_connect(NULL, &ring);
 *   mr_ring_submit_text(ring, 1, "Hello", 5, MR_SUBMIT_CHAT, NULL);
 *   while (mr_ring_wait(ring, 1000000000) == 0) {
 *           const struct mr_cqe *cqe = mr_ring_peek(ring);
 *           ... TOKEN, then DONE or ERROR ...
 *           mr_ring_consume(ring);
 *   }
 *   mr_ring_disconnect(ring);
 *
 * Errors: a call returns 0 or a count, or a negative enum mr_status; what each call can return is
 * said with it. Nothing here prints, exits, takes signals or waits without a bound.
 *
 * Threads: one thread at a time submits (push, submit, append, fork, score, prefix, query,
 * nop, cancel, release, data), one thread at a time takes completions (peek, consume, poll, wait, arm, check); they may be two. Different rings
 * are independent. mr_ring_disconnect needs both to be over.
 *
 * Processes: descriptors are close-on-exec. A ring belongs to the process that connected; a child
 * made by fork must leave it alone.
 *
 * Inline functions are exported by libmillrace.so under the same names, for callers that cannot
 * inline C.
 */
#ifndef MILLRACE_MILLRACE_H
#define MILLRACE_MILLRACE_H

#include <stddef.h>
#include <stdint.h>

#include <millrace/ring.h>
#include <millrace/sampling.h>
#include <millrace/status.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mr_ring_private;

/* A connection. Callers read nothing of it and write nothing: the inline functions below do. */
struct mr_ring {
	struct mr_ring_header *header; /* constant from here ... */
	struct mr_sqe *sq;
	const struct mr_cqe *cq;
	unsigned char *data;
	uint64_t *data_end; /* two rounds of SQEs: data_used as each was pushed */
	struct mr_ring_private *own;
	uint64_t data_bytes;
	uint32_t sq_mask;
	uint32_t cq_mask; /* ... to here */
	uint64_t reserved0[8];

	uint32_t sq_index;  /* the next SQE to push; submitting thread, as all of this part */
	uint32_t sq_done;   /* sq_head as last seen */
	uint64_t data_used; /* free-running count of the data area's bytes handed out */
	uint64_t data_freed;
	uint64_t reserved1[13];

	uint32_t cq_index;    /* the next CQE to take; completing thread, as all of this part */
	uint32_t cq_returned; /* cq_head as last stored */
	uint64_t reserved2[15];
};

/* How to connect; all-zero is allowed, and so is a NULL pointer to it. */
struct mr_ring_options {
	const char *path;    /* NULL = mr_ring_path */
	uint64_t features;   /* MR_FEATURE_* wished for */
	uint64_t required;   /* MR_FEATURE_* without which connecting fails */
	uint64_t data_bytes; /* wish; 0 = the server's default, as the two below */
	uint32_t sq_entries;
	uint32_t cq_entries;
	uint32_t timeout_ms; /* for the handshake; 0 = 5000 */
	uint32_t spin_us;    /* mr_ring_wait looks for so long before it sleeps; 0 = 50 */
	uint32_t silent_ms;  /* a heartbeat that stands still for so long means death; 0 = 10000 */
	uint32_t reserved;   /* 0 */
};

/*
 * The socket's path where none is named: $MILLRACE_SOCKET, else $XDG_RUNTIME_DIR/millrace.sock,
 * else /run/millrace.sock. Returns its length, or MR_E_TOO_LARGE where it does not fit @bytes with
 * its NUL.
 */
int mr_ring_path(char *path, size_t bytes);

/*
 * Connects. May block for timeout_ms. *@ring is NULL unless it returns 0. Else
 *   MR_E_NOT_FOUND    nobody listens there
 *   MR_E_PERMISSION   the socket or the server does not let this user in
 *   MR_E_TIMEOUT      no answer within timeout_ms
 *   MR_E_VERSION      the server lacks a required feature or speaks another version
 *   MR_E_RANGE        a wish is beyond its limit
 *   MR_E_FULL         the server has no connection left; try again later
 *   MR_E_PROTOCOL     its answer makes no sense
 *   MR_E_TOO_LARGE    the path is too long for a socket
 *   MR_E_INVALID      options->reserved is not 0
 *   MR_E_NO_MEMORY, MR_E_IO
 */
int mr_ring_connect(const struct mr_ring_options *options, struct mr_ring **ring);

/* Ends the connection: the server cancels what is under way. NULL is allowed. */
void mr_ring_disconnect(struct mr_ring *ring);

/* What the server granted: MR_FEATURE_*. */
uint64_t mr_ring_features(const struct mr_ring *ring);

/* ---- submitting ---- */

/*
 * Submits a prompt: text of @bytes bytes (UTF-8; NULs are allowed), or @count token ids. @flags:
 * MR_SUBMIT_*; @params: NULL = greedy, MR_MAX_TOKENS tokens. Both are copied before the call
 * returns. Returns 0; MR_E_FULL: no SQE or not enough of the data area free now, take completions
 * and try again; MR_E_TOO_LARGE: would never fit; MR_E_INVALID: nothing to submit. Everything else
 * comes as ERROR. All calls that make requests leave the last free SQE to mr_ring_cancel and
 * mr_ring_release.
 */
int mr_ring_submit_text(struct mr_ring *ring, uint64_t key, const char *text, size_t bytes,
			uint32_t flags, const struct mr_params *params);
int mr_ring_submit_tokens(struct mr_ring *ring, uint64_t key, const uint32_t *tokens, size_t count,
			  uint32_t flags, const struct mr_params *params);

/* The same, with the tokens of the prefix named @prefix before the prompt (MR_FEATURE_PREFIX). */
int mr_ring_submit_text_after(struct mr_ring *ring, uint64_t key, uint64_t prefix, const char *text,
			      size_t bytes, uint32_t flags, const struct mr_params *params);
int mr_ring_submit_tokens_after(struct mr_ring *ring, uint64_t key, uint64_t prefix,
				const uint32_t *tokens, size_t count, uint32_t flags,
				const struct mr_params *params);

/*
 * More input to the paused sequence @target, then another answer, under @key (MR_FEATURE_APPEND).
 * The sequence keeps its name, and ends with the answer unless @flags say MR_SUBMIT_KEEP again. All
 * else as for submitting.
 */
int mr_ring_append_text(struct mr_ring *ring, uint64_t key, uint64_t target, const char *text,
			size_t bytes, uint32_t flags, const struct mr_params *params);
int mr_ring_append_tokens(struct mr_ring *ring, uint64_t key, uint64_t target,
			  const uint32_t *tokens, size_t count, uint32_t flags,
			  const struct mr_params *params);

/*
 * A second sequence, named @key, that goes on from what @target is now with an answer of its own
 * (MR_FEATURE_FORK). @flags: MR_SUBMIT_IGNORE_EOS, MR_SUBMIT_KEEP. @params as for submitting: with
 * other sampling than @target's it takes another way. Returns 0, MR_E_FULL or MR_E_INVALID (@flags).
 */
int mr_ring_fork(struct mr_ring *ring, uint64_t key, uint64_t target, uint32_t flags,
		 const struct mr_params *params);

/*
 * Asks how likely each of @count continuations is after what @target is now, which stays as it is
 * (MR_FEATURE_SCORE): one MR_CQE_SCORE each, in order, then DONE. Texts of @bytes bytes (NULL: they
 * end in NUL), or token ids. @params: NULL, or a block whose max_tokens and sampling are 0. Returns
 * 0, MR_E_FULL, MR_E_TOO_LARGE, or MR_E_INVALID: no continuation, more than MR_CONTINUATIONS_MAX, or
 * an empty one.
 */
int mr_ring_score_text(struct mr_ring *ring, uint64_t key, uint64_t target,
		       const char *const *texts, const size_t *bytes, uint32_t count,
		       const struct mr_params *params);
int mr_ring_score_tokens(struct mr_ring *ring, uint64_t key, uint64_t target,
			 const uint32_t *const *tokens, const size_t *counts, uint32_t count,
			 const struct mr_params *params);

/*
 * The general call behind all of these, for what they have no argument for: *@sqe says op, flags, key and
 * target; @bytes of @data (NULL = none) and @params_bytes of @params (NULL = none) are copied to the data
 * area. The block of parameters may be longer than struct mr_params: stop strings follow it
 * (MR_FEATURE_STOPS). Returns 0, MR_E_FULL, MR_E_TOO_LARGE, or MR_E_INVALID: @params_bytes is no multiple of
 * 8, or data or params without a pointer.
 */
int mr_ring_submit(struct mr_ring *ring, const struct mr_sqe *sqe, const void *data, size_t bytes,
		   const void *params, size_t params_bytes);

/*
 * Adds the string of @bytes bytes at @text to *@stops, which was all zero at first. Returns which one it is,
 * from 0; MR_E_TOO_LARGE: it does not fit; MR_E_INVALID: it is empty. Any thread.
 */
int mr_stops_add(struct mr_stops *stops, const char *text, size_t bytes);

/*
 * Each is answered by one DONE or ERROR with @key, or @name. Returns 0 or MR_E_FULL.
 *   prefix   names what sequence @target is now @name, for every client (MR_FEATURE_PREFIX)
 *   query    state and counters of sequence @target, or of the server where it is 0; struct mr_cqe
 *            says which field is which (MR_FEATURE_QUERY)
 *   cancel   ends request @target and the sequence that it works on
 *   release  ends sequence @target, or the request, or the prefix that this client named so
 */
int mr_ring_prefix(struct mr_ring *ring, uint64_t name, uint64_t target);
int mr_ring_query(struct mr_ring *ring, uint64_t key, uint64_t target);
int mr_ring_cancel(struct mr_ring *ring, uint64_t key, uint64_t target);
int mr_ring_release(struct mr_ring *ring, uint64_t key, uint64_t target);
int mr_ring_nop(struct mr_ring *ring, uint64_t key);

/*
 * Room for @bytes of data, for callers that fill in SQEs themselves: 64-byte aligned, named by
 * *@offset. It goes with the next SQE pushed. NULL: not free now; also when @bytes is 0 or would
 * never fit.
 */
void *mr_ring_data(struct mr_ring *ring, size_t bytes, uint64_t *offset);

/*
 * Gives the server a memfd of the caller's as buffer @buffer, from 1 to MR_BUFFERS_MAX, or takes it back
 * (MR_FEATURE_BUFFERS). An SQE pushed with `buffer` set names its data there. May block for five seconds.
 * Returns 0; struct mr_register's statuses; MR_E_INVALID (@fd), MR_E_DISCONNECTED, MR_E_TIMEOUT, MR_E_IO.
 * @fd stays the caller's. Submitting thread.
 */
int mr_ring_register(struct mr_ring *ring, uint32_t buffer, int fd);
int mr_ring_unregister(struct mr_ring *ring, uint32_t buffer);

/* Writes 1 to the server's eventfd. The inline functions call it when the server sleeps. */
void mr_ring_kick(struct mr_ring *ring);

/* ---- completing ---- */

/*
 * Waits until a CQE is there: looks for spin_us, then sleeps. Returns 0; MR_E_TIMEOUT after
 * @timeout_ns (0 = only looks); MR_E_DISCONNECTED: the server is gone and every CQE that it
 * published has been taken; MR_E_INVALID: @timeout_ns is negative; MR_E_IO. Signals do not end it.
 */
int mr_ring_wait(struct mr_ring *ring, int64_t timeout_ns);

/*
 * For callers with an event loop of their own: sleep on mr_ring_fd (readable = woken) after
 * mr_ring_arm returned 0; 1 = CQEs are there, do not sleep. mr_ring_disarm after waking.
 */
int mr_ring_fd(const struct mr_ring *ring);
int mr_ring_arm(struct mr_ring *ring);
void mr_ring_disarm(struct mr_ring *ring);

/*
 * For busy pollers, now and then: 0, or MR_E_DISCONNECTED when the server hung up or its heartbeat
 * has stood still for silent_ms. Makes a system call only while the heartbeat stands still, at most
 * every 10 ms.
 */
int mr_ring_check(struct mr_ring *ring);

/* ---- the vocabulary ---- */

/*
 * The bytes of @token, not NUL-terminated, valid until mr_ring_disconnect; *@flags (may be NULL):
 * MR_VOCAB_*. NULL for an id that is not in the vocabulary. Any thread.
 */
const char *mr_ring_token(const struct mr_ring *ring, uint32_t token, size_t *bytes,
			  uint32_t *flags);

/* ---- the fast path ---- */

/* The full fence of SQ_WAKE, SQ_SLEEP, CQ_WAKE and CQ_SLEEP: orders earlier stores before later
 * loads. */
#ifdef MR_TSAN
extern uint32_t mr_ring_fence_word;
#endif
inline void mr_ring_fence(void)
{
#ifdef MR_TSAN
	/* ThreadSanitizer has no model of fences; it knows read-modify-writes of one word. */
	__atomic_fetch_add(&mr_ring_fence_word, 1, __ATOMIC_SEQ_CST);
#else
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/* SQ_WAKE: after something that the server may wait for was published. */
inline void mr_ring_wake(struct mr_ring *ring, uint32_t what)
{
	mr_ring_fence();
	/* Relaxed: the fence orders it; nothing is read on the strength of it. */
	if (__atomic_load_n(&ring->header->sq_need_wakeup, __ATOMIC_RELAXED) & what)
		mr_ring_kick(ring);
}

/* Gives the room of consumed CQEs back. */
inline void mr_ring_return(struct mr_ring *ring)
{
	ring->cq_returned = ring->cq_index;
	__atomic_store_n(&ring->header->cq_head, ring->cq_index, __ATOMIC_RELEASE); /* CQ_CREDIT */
	mr_ring_wake(ring, MR_WAKEUP_CREDIT);
}

/* The next CQE, or NULL. It stays valid until mr_ring_consume. Never blocks. */
inline const struct mr_cqe *mr_ring_peek(struct mr_ring *ring)
{
	const struct mr_cqe *cqe = &ring->cq[ring->cq_index & ring->cq_mask];

	if (__atomic_load_n(&cqe->published, __ATOMIC_ACQUIRE) == ring->cq_index + 1) /* CQ_TAKE */
		return cqe;
	/* Idle: the time to return what is left of the credit. */
	if (ring->cq_index != ring->cq_returned)
		mr_ring_return(ring);
	return NULL;
}

/* Done with the CQE that mr_ring_peek gave. Credit goes back by quarters of the queue, or when
 * idle. */
inline void mr_ring_consume(struct mr_ring *ring)
{
	ring->cq_index++;
	if (ring->cq_index - ring->cq_returned > ring->cq_mask / 4)
		mr_ring_return(ring);
}

/* Copies the next CQE to *@out and consumes it. Returns 1, or 0 when there is none. */
inline int mr_ring_poll(struct mr_ring *ring, struct mr_cqe *out)
{
	const struct mr_cqe *cqe = mr_ring_peek(ring);

	if (!cqe)
		return 0;
	*out = *cqe;
	mr_ring_consume(ring);
	return 1;
}

/* SQEs that can be pushed now. */
inline uint32_t mr_ring_room(struct mr_ring *ring)
{
	uint32_t used = ring->sq_index - ring->sq_done;

	if (used > ring->sq_mask) {
		ring->sq_done =
			__atomic_load_n(&ring->header->sq_head, __ATOMIC_ACQUIRE); /* SQ_ROOM */
		used = ring->sq_index - ring->sq_done;
	}
	return used > ring->sq_mask ? 0 : ring->sq_mask + 1 - used;
}

/*
 * Publishes *@sqe (its `published` is ignored) and wakes a sleeping server. Returns 0 or MR_E_FULL.
 */
inline int mr_ring_push(struct mr_ring *ring, const struct mr_sqe *sqe)
{
	uint32_t index = ring->sq_index;
	struct mr_sqe *slot = &ring->sq[index & ring->sq_mask];

	if (!mr_ring_room(ring))
		return MR_E_FULL;
	slot->op = sqe->op;
	slot->flags = sqe->flags;
	slot->key = sqe->key;
	slot->data_offset = sqe->data_offset;
	slot->data_bytes = sqe->data_bytes;
	slot->params_bytes = sqe->params_bytes;
	slot->params_offset = sqe->params_offset;
	slot->target = sqe->target;
	slot->buffer = sqe->buffer;
	slot->reserved = sqe->reserved;
	ring->data_end[index & (2 * ring->sq_mask + 1)] = ring->data_used;
	ring->sq_index = index + 1;
	__atomic_store_n(&slot->published, index + 1, __ATOMIC_RELEASE); /* SQ_PUBLISH */
	mr_ring_wake(ring, MR_WAKEUP_ENTRY);
	return 0;
}

#ifdef __cplusplus
}
#endif

#endif /* MILLRACE_MILLRACE_H */
