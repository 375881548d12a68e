/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exported twins of millrace.h's inline functions: the same code under the same names, for
 * callers in languages that cannot inline C.
 */
#include <millrace/millrace.h>

#ifdef MR_TSAN
uint32_t mr_ring_fence_word;
#endif

extern inline void mr_ring_fence(void);
extern inline void mr_ring_wake(struct mr_ring *ring, uint32_t what);
extern inline void mr_ring_return(struct mr_ring *ring);
extern inline const struct mr_cqe *mr_ring_peek(struct mr_ring *ring);
extern inline void mr_ring_consume(struct mr_ring *ring);
extern inline int mr_ring_poll(struct mr_ring *ring, struct mr_cqe *out);
extern inline uint32_t mr_ring_room(struct mr_ring *ring);
extern inline int mr_ring_push(struct mr_ring *ring, const struct mr_sqe *sqe);
