/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of libmillrace share and callers do not see.
 */
#ifndef USERLIB_OWN_H
#define USERLIB_OWN_H

#include <time.h>

#include <millrace/millrace.h>

struct mr_ring_private {
	void *memory; /* the ring memory */
	size_t memory_bytes;
	void *vocab_map; /* the vocabulary, NULL where the mapping is not ours */
	size_t vocab_map_bytes;
	const struct mr_vocab_entry *vocab;
	const char *vocab_text;
	uint64_t vocab_text_bytes;
	uint32_t vocab_count;
	int socket; /* -1 where there is none, as the two below */
	int sq_fd;
	int cq_fd;
	uint64_t features;
	uint64_t spin_ns;
	uint64_t silent_ns;
	/* the completing thread's */
	uint64_t beat;      /* heartbeat as last seen */
	uint64_t beat_ns;   /* when it was last seen to move, or the server to sleep */
	uint64_t looked_ns; /* when the socket was last looked at */
	int gone;
};

/*
 * Makes a ring over memory that is mapped already, checking every size and offset in its header.
 * The mapping and the descriptors (each may be -1) become the ring's only when 0 is returned.
 * MR_E_PROTOCOL, MR_E_NO_MEMORY.
 */
int mr_ring_attach(void *memory, size_t bytes, const int fds[3], struct mr_ring **ring);

static inline uint64_t ring_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif /* USERLIB_OWN_H */
