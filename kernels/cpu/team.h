/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A team of compute threads that run one function together, and the barrier between its parts. The caller
 * of mr_team_run is rank 0; the others are the team's own, pinned where asked, and sleep when nothing
 * comes for a while. driver/cpu makes a team and gives it to a workspace (layer.h); the layer's parts are
 * shared out by rank. Only rank 0's thread calls run; nothing here allocates or locks after create.
 *
 * Waiting is spin, then park: a thread that waits for one whose core was taken away (milliseconds, on a
 * shared host) gives its own core up instead of burning it. And where rank 0 waited so long in a run that it
 * had been faster alone, it goes on alone for a while (4 ms, doubling up to a quarter of a second) before it
 * tries the others again.
 */
#ifndef MR_KERNELS_CPU_TEAM_H
#define MR_KERNELS_CPU_TEAM_H

#include <stdint.h>

#define MR_TEAM_THREADS_MAX 256u

struct mr_team;

/*
 * @cpus[rank]: the OS index to pin that rank to, -1 = nowhere; NULL = none is pinned. Rank 0 is whoever
 * calls run, and is pinned by its owner. Returns 0, MR_E_INVALID (no threads, too many, or a CPU that
 * cannot be had) or MR_E_NO_MEMORY.
 */
int mr_team_create(uint32_t threads, const int *cpus, struct mr_team **team);
void mr_team_destroy(struct mr_team *team); /* NULL is allowed */

/* Threads of the team, rank 0 included; 1 for NULL. */
uint32_t mr_team_threads(const struct mr_team *team);

/* Threads of the run under way: all, or 1. What shares work out inside a run divides by this. */
uint32_t mr_team_active(const struct mr_team *team);

/* fn(arg, rank) on every active thread; returns when all have. With NULL, or one thread, it is a plain call. */
void mr_team_run(struct mr_team *team, void (*fn)(void *arg, uint32_t rank), void *arg);

/*
 * Inside run, by every rank the same number of times: what any rank wrote before it, all read after it.
 * Between two threads on quiet cores it costs two transfers of a cache line.
 */
void mr_team_barrier(struct mr_team *team);

/* How often rank 0 began to go on alone, since create. */
uint64_t mr_team_solos(const struct mr_team *team);

/* How often a thread gave up spinning and slept, since create: the host's noise, or idleness. */
uint64_t mr_team_parks(const struct mr_team *team);

/* The part [*first, *end) of @units for one of @threads: contiguous, sizes differ by at most 1. */
static inline void mr_team_part(uint32_t units, uint32_t rank, uint32_t threads, uint32_t *first,
				uint32_t *end)
{
	*first = (uint32_t)((uint64_t)units * rank / threads);
	*end = (uint32_t)((uint64_t)units * (rank + 1) / threads);
}

#endif /* MR_KERNELS_CPU_TEAM_H */
