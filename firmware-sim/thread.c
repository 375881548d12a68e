// SPDX-License-Identifier: Apache-2.0
/*
 * The device's thread. It looks for work for spin_us, then sleeps on a futex. No wake-up is lost: the
 * sleeper sets `parked`, then looks at every word once more; the waker writes its word, then looks at
 * `parked`. Both orders are between sequentially consistent accesses, so at least one side sees the other.
 */
#include <linux/futex.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "firmware-sim/device.h"
#include "firmware-sim/mutant.h"
#include "kernels/cpu/kernels.h"

#define IDLE_TURNS 16u /* between two looks at the clock */
#define ADMIN_TURNS \
	8u /* between two looks at the admin queue; divides the other, so that one comes before each sleep */

static long futex(uint32_t *word, int op, uint32_t value, const struct timespec *timeout)
{
	return syscall(SYS_futex, word, op, value, timeout, NULL, 0);
}

void mr_sim_wake(struct sim *sim)
{
	/* [A] pairs with [B]: the caller's store came before this load, both seq_cst. */
	if (__atomic_load_n(&sim->parked, __ATOMIC_SEQ_CST)) {
		__atomic_store_n(&sim->parked, 0, __ATOMIC_SEQ_CST);
		futex(&sim->parked, FUTEX_WAKE_PRIVATE, 1, NULL);
	}
}

int mr_sim_thread_turn(struct sim *sim)
{
	int faults = mr_sim_inject_turn(sim);
	/* Hung, or out of reach: a function-level reset is all that is felt. */
	if (faults < 0)
		return mr_sim_mail_poll(sim) | (mr_sim_reset_asked(sim) && mr_sim_regs_poll(sim));
	int work = faults | mr_sim_mail_poll(sim) | mr_sim_regs_poll(sim) | mr_sim_sense_run(sim);

	/* While nothing happens the admin queue, which is in no hurry, has but some of the turns. */
	for (uint32_t i = sim->idle % ADMIN_TURNS != 0;
	     i <= SIM_IO_QUEUES && (!sim->fatal || MUTANT(R_11)); i++) {
		if (mr_sim_queue_ready(sim, &sim->queue[i]))
			work |= mr_sim_queue_run(sim, &sim->queue[i]);
		if (MUTANT(Q_10) && i && sim->queue[i].live && sim->queue[i].decode.stalled)
			break;
	}
	if (!sim->fatal)
		mr_sim_events_run(sim);
	__atomic_store_n(&sim->regs.heartbeat, sim->regs.heartbeat + !MUTANT(R_9),
			 __ATOMIC_RELAXED);
	return work;
}

static int must_run(struct sim *sim)
{
	uint32_t want = __atomic_load_n(&sim->regs.control, __ATOMIC_SEQ_CST);
	uint32_t status = __atomic_load_n(&sim->regs.status, __ATOMIC_SEQ_CST);

	if (sim->inject.hung || sim_inject_gone(&sim->inject))
		return __atomic_load_n(&sim->stop, __ATOMIC_SEQ_CST) ||
		       __atomic_load_n(&sim->mail.kind, __ATOMIC_SEQ_CST) ||
		       mr_sim_reset_asked(sim);
	if (mr_sim_inject_ready(sim))
		return 1;
	if (__atomic_load_n(&sim->stop, __ATOMIC_SEQ_CST) || !want != !status ||
	    __atomic_load_n(&sim->mail.kind, __ATOMIC_SEQ_CST) ||
	    __atomic_load_n(&sim->function_reset, __ATOMIC_SEQ_CST) || sim->reset_asked ||
	    __atomic_load_n(&sim->sense.changed, __ATOMIC_SEQ_CST) ||
	    (sim->fatal && !(status & MR_LPU_STATUS_FATAL)))
		return 1;
	if (!sim->fatal && mr_sim_events_ready(sim))
		return 1;
	for (uint32_t i = 0; i <= SIM_IO_QUEUES && !sim->fatal; i++)
		if (mr_sim_queue_ready(sim, &sim->queue[i]))
			return 1;
	return 0;
}

/*
 * Microseconds to sleep at most after @idle_us without work: the heartbeat goes on beating, and held vectors are
 * raised in time. Doorbells that another process stores to BAR2 wake nobody: there the device sleeps an eighth of
 * the time that it has had nothing to do, so that a wait grows by no more than that, and 1 ms at most.
 */
static uint64_t bound_us(struct sim *sim, uint64_t idle_us)
{
	uint64_t bound = sim->features.heartbeat_ms * 500ull, now = mr_sim_now_us();

	if (bound > 100000)
		bound = 100000;
	uint64_t nap = idle_us < 8000 ? idle_us / 8 : 1000;
	if (__atomic_load_n(&sim->regs.polled, __ATOMIC_RELAXED) && bound > nap)
		bound = nap;
	uint64_t held = mr_sim_inject_wait_us(sim);
	if (held && held < bound)
		bound = held;
	for (uint32_t i = 0; i <= SIM_IO_QUEUES; i++) {
		uint64_t left = mr_sim_queue_timer(sim, &sim->queue[i], now);
		if (left && left < bound)
			bound = left;
		left = mr_sim_decode_wait(sim, &sim->queue[i], now);
		if (left && left < bound)
			bound = left;
	}
	return bound;
}

static void park(struct sim *sim, uint64_t idle_us)
{
	uint64_t us = bound_us(sim, idle_us);
	const struct timespec bound = {.tv_nsec = (long)us * 1000};

	__atomic_store_n(&sim->parked, 1, __ATOMIC_SEQ_CST); /* [B] */
	mr_sim_shadow_asleep(sim, 1);
	if (!must_run(sim))
		futex(&sim->parked, FUTEX_WAIT_PRIVATE, 1, &bound);
	__atomic_store_n(&sim->parked, 0, __ATOMIC_SEQ_CST);
	if (!MUTANT(W_4))
		mr_sim_shadow_asleep(sim, 0);
}

uint64_t mr_sim_now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void *run(void *arg)
{
	struct sim *sim = arg;
	uint64_t worked = mr_sim_now_us();

	prctl(PR_SET_TIMERSLACK, 1000ul); /* naps of microseconds, not of 50 more */
	mr_numerics_enter();
	while (!__atomic_load_n(&sim->stop, __ATOMIC_SEQ_CST)) {
		if (mr_sim_thread_turn(sim)) {
			worked = sim->idle = 0;
			continue;
		}
		/* A host that polls sees how long this turn takes, so the clock is looked at now and then. */
		__builtin_ia32_pause();
		if (++sim->idle % IDLE_TURNS)
			continue;
		uint64_t now = mr_sim_now_us();
		if (!worked)
			worked = now;
		if (now - worked < sim->spin_us)
			continue;
		park(sim, now - worked);
	}
	return NULL;
}

int mr_sim_thread_start(struct sim *sim, int cpu)
{
	if (sim->manual) {
		mr_numerics_enter();
		return 0;
	}
	if (pthread_create(&sim->thread, NULL, run, sim))
		return MR_E_NO_MEMORY;
	pthread_setname_np(sim->thread, "lpu-sim");
	if (cpu > 0 && cpu <= CPU_SETSIZE) {
		cpu_set_t set;
		CPU_ZERO(&set);
		CPU_SET(cpu - 1, &set);
		pthread_setaffinity_np(sim->thread, sizeof(set), &set);
	}
	return 0;
}

void mr_sim_thread_stop(struct sim *sim)
{
	if (sim->manual)
		return;
	__atomic_store_n(&sim->stop, 1, __ATOMIC_SEQ_CST);
	mr_sim_wake(sim);
	pthread_join(sim->thread, NULL);
}
