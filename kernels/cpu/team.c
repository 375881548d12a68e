// SPDX-License-Identifier: Apache-2.0
/*
 * The barrier: arrivals are counted in one word; the last one to come resets it and moves `generation` on,
 * which the others wait for. A run is announced by the same kind of word, `round`.
 *
 * Parking. The sleeper counts itself in `sleepers` and then reads the word once more (in the kernel's
 * futex wait); the waker moves the word and then reads `sleepers`. All four are sequentially consistent, so
 * at least one side sees the other, and no wake-up is lost.
 */
#include "kernels/cpu/team.h"

#include <immintrin.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <millrace/status.h>

#include "kernels/cpu/kernels.h"

/* Ticks of the time stamp counter, some 2 to 3 to a nanosecond: how long to spin before sleeping. */
#define SPIN_BARRIER 150000u   /* a few times what waking a halted core costs */
#define SPIN_ROUND   1500000u  /* longer than the sampling between two steps of a decode */
#define SOLO_MIN     10000000u /* about the slice of time that a neighbour gets */
#define SOLO_MAX     640000000u

struct word {
	_Alignas(64) uint32_t value;
	_Alignas(64) uint32_t sleepers;
	uint64_t parks;
};

struct mr_team {
	uint32_t threads;
	uint32_t started; /* of them, our own */
	pthread_t *ids;
	struct seat *seats;
	void (*fn)(void *arg, uint32_t rank);
	void *arg;
	int stop;
	uint32_t active; /* threads of this run; written by rank 0 between runs */
	/* rank 0's own: */
	uint64_t solo_until, solo_ticks; /* time stamps; how long the next time */
	uint64_t solos;
	_Alignas(64) uint32_t arrived;
	struct word generation; /* barriers passed */
	struct word round;      /* runs announced */
};

/* What a thread is started with. */
struct seat {
	struct mr_team *team;
	uint32_t rank;
};

/* Ticks that this thread spent waiting in barriers. */
static __thread uint64_t waited;

static void advance(struct word *w, uint32_t value)
{
	__atomic_store_n(&w->value, value, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&w->sleepers, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, &w->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Waits until the word is no longer @old. */
static void await(struct word *w, uint32_t old, uint64_t spin)
{
	uint64_t start = __rdtsc();

	while (__atomic_load_n(&w->value, __ATOMIC_ACQUIRE) == old) {
		for (int i = 0; i < 8; i++) {
			_mm_pause();
			if (__atomic_load_n(&w->value, __ATOMIC_ACQUIRE) != old)
				return;
		}
		if (__rdtsc() - start < spin)
			continue;
		__atomic_fetch_add(&w->sleepers, 1, __ATOMIC_SEQ_CST);
		__atomic_fetch_add(&w->parks, 1, __ATOMIC_RELAXED);
		while (__atomic_load_n(&w->value, __ATOMIC_SEQ_CST) == old)
			syscall(SYS_futex, &w->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
		__atomic_fetch_sub(&w->sleepers, 1, __ATOMIC_SEQ_CST);
		return;
	}
}

void mr_team_barrier(struct mr_team *team)
{
	uint32_t now, active = team ? team->active : 1;
	uint64_t start;

	/* Read before this thread has arrived: after that the next run may begin, of fewer. */
	if (active == 1)
		return;
	/* Cannot move before this thread has arrived. */
	now = __atomic_load_n(&team->generation.value, __ATOMIC_RELAXED);
	if (__atomic_add_fetch(&team->arrived, 1, __ATOMIC_ACQ_REL) == active) {
		__atomic_store_n(&team->arrived, 0, __ATOMIC_RELAXED);
		advance(&team->generation, now + 1);
	} else {
		start = __rdtsc();
		await(&team->generation, now, SPIN_BARRIER);
		waited += __rdtsc() - start;
	}
}

static void *work(void *arg)
{
	const struct seat *seat = arg;
	struct mr_team *team = seat->team;

	mr_numerics_enter();
	for (uint32_t round = 0;; round++) {
		await(&team->round, round, SPIN_ROUND);
		if (team->stop)
			return NULL;
		team->fn(team->arg, seat->rank);
		mr_team_barrier(team);
	}
}

/*
 * After a run of all that took @took ticks, @wait of them rank 0's waiting: alone it had taken threads times
 * what it worked.
 */
static void judge(struct mr_team *team, uint64_t now, uint64_t took, uint64_t wait)
{
	if ((took - wait) * team->threads >= took) {
		team->solo_ticks =
			team->solo_ticks / 2 > SOLO_MIN ? team->solo_ticks / 2 : SOLO_MIN;
		return;
	}
	team->solo_until = now + team->solo_ticks;
	if (team->solo_ticks < SOLO_MAX)
		team->solo_ticks *= 2;
	__atomic_store_n(&team->solos, team->solos + 1, __ATOMIC_RELAXED);
}

void mr_team_run(struct mr_team *team, void (*fn)(void *arg, uint32_t rank), void *arg)
{
	uint64_t start = team ? __rdtsc() : 0, before = waited, now;

	if (team)
		team->active = start < team->solo_until ? 1 : team->threads;
	if (!team || team->active == 1) {
		fn(arg, 0);
		return;
	}
	team->fn = fn;
	team->arg = arg;
	advance(&team->round, team->round.value + 1);
	fn(arg, 0);
	mr_team_barrier(team);
	now = __rdtsc();
	judge(team, now, now - start, waited - before);
}

static int start(struct mr_team *team, uint32_t rank, int cpu)
{
	pthread_attr_t attr;
	cpu_set_t set;
	int failed;

	if (cpu >= CPU_SETSIZE)
		return MR_E_INVALID;
	team->seats[rank] = (struct seat){team, rank};
	pthread_attr_init(&attr);
	if (cpu >= 0) {
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	}
	failed = pthread_create(&team->ids[rank], &attr, work, &team->seats[rank]);
	pthread_attr_destroy(&attr);
	team->started += !failed;
	return failed ? MR_E_INVALID : 0;
}

int mr_team_create(uint32_t threads, const int *cpus, struct mr_team **out)
{
	struct mr_team *team;
	int status = 0;

	if (!threads || threads > MR_TEAM_THREADS_MAX)
		return MR_E_INVALID;
	team = aligned_alloc(64, sizeof(*team));
	if (!team)
		return MR_E_NO_MEMORY;
	*team = (struct mr_team){.threads = threads, .active = threads, .solo_ticks = SOLO_MIN};
	team->ids = calloc(threads, sizeof(*team->ids));
	team->seats = calloc(threads, sizeof(*team->seats));
	if (!team->ids || !team->seats)
		status = MR_E_NO_MEMORY;
	for (uint32_t rank = 1; rank < threads && !status; rank++)
		status = start(team, rank, cpus ? cpus[rank] : -1);
	if (status)
		mr_team_destroy(team);
	else
		*out = team;
	return status;
}

void mr_team_destroy(struct mr_team *team)
{
	if (!team)
		return;
	team->stop = 1;
	advance(&team->round, team->round.value + 1);
	for (uint32_t i = 1; i <= team->started; i++)
		pthread_join(team->ids[i], NULL);
	free(team->ids);
	free(team->seats);
	free(team);
}

uint32_t mr_team_threads(const struct mr_team *team)
{
	return team ? team->threads : 1;
}

uint32_t mr_team_active(const struct mr_team *team)
{
	return team ? team->active : 1;
}

uint64_t mr_team_solos(const struct mr_team *team)
{
	return team ? __atomic_load_n(&team->solos, __ATOMIC_RELAXED) : 0;
}

uint64_t mr_team_parks(const struct mr_team *team)
{
	return team ? __atomic_load_n(&team->generation.parks, __ATOMIC_RELAXED) +
			       __atomic_load_n(&team->round.parks, __ATOMIC_RELAXED)
		    : 0;
}
