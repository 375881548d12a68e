// SPDX-License-Identifier: Apache-2.0
/*
 * How the host's thread and the compute thread pass jobs and events: two rings, each with one writer and
 * one reader, whose tails are published here. Jobs may end out of their order; a job's place is free again
 * when the host has taken its DONE and those of all before it. Room for its events was reserved when it was
 * posted, so neither side ever waits for room.
 *
 * Sleeping. The sleeper stores its flag (parked, armed) and then reads the other side's word; the waker
 * stores that word and then reads the flag. All four accesses are sequentially consistent, so at least one
 * side sees the other: no wake-up is lost. (With release and acquire alone, both may read the old value.)
 */
#include "driver/cpu/internal.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SPIN_NS 20000 /* about what waking a halted core costs */

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Pairs with park: the caller has stored, sequentially consistent, what the compute thread waits for. */
static void wake(struct cpu *cpu)
{
	struct queue *q = &cpu->queue;

	if (!__atomic_load_n(&q->parked, __ATOMIC_SEQ_CST))
		return;
	__atomic_store_n(&q->parked, 0, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &q->parked, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

void cpu_queue_post(struct cpu *cpu)
{
	if (__atomic_load_n(&cpu->queue.job_tail, __ATOMIC_RELAXED) == cpu->job_tail)
		return; /* the host's own word: nothing new to say */
	/* Also releases the jobs' contents to cpu_queue_wait. */
	__atomic_store_n(&cpu->queue.job_tail, cpu->job_tail, __ATOMIC_SEQ_CST);
	wake(cpu);
}

void cpu_queue_release(struct cpu *cpu)
{
	if (__atomic_load_n(&cpu->queue.released, __ATOMIC_RELAXED) == cpu->logits_taken)
		return; /* the host's own word: nothing new to say */
	__atomic_store_n(&cpu->queue.released, cpu->logits_taken, __ATOMIC_SEQ_CST);
	wake(cpu);
}

void cpu_queue_reset(struct cpu *cpu)
{
	__atomic_store_n(&cpu->queue.epoch, cpu->queue.epoch + 1, __ATOMIC_SEQ_CST);
	wake(cpu);
}

void cpu_queue_stop(struct cpu *cpu)
{
	__atomic_store_n(&cpu->queue.stop, 1, __ATOMIC_SEQ_CST);
	cpu_queue_reset(cpu);
}

uint32_t cpu_queue_events(const struct cpu *cpu)
{
	/* Pairs with cpu_queue_publish, in cpu_poll as acquire and in cpu_arm with the flag. */
	return __atomic_load_n(&cpu->queue.event_tail, __ATOMIC_SEQ_CST) - cpu->event_head;
}

/* Waits until ready says so: spins a little, then sleeps. */
static void park(struct cpu *cpu, int (*ready)(const struct cpu *cpu, uint32_t what), uint32_t what)
{
	struct queue *q = &cpu->queue;
	uint64_t start = now_ns();

	while (!ready(cpu, what)) {
		for (int i = 0; i < 16; i++)
			__builtin_ia32_pause();
		if (now_ns() - start < SPIN_NS)
			continue;
		__atomic_store_n(&q->parked, 1, __ATOMIC_SEQ_CST);
		if (!ready(cpu, what))
			syscall(SYS_futex, &q->parked, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0);
		__atomic_store_n(&q->parked, 0, __ATOMIC_SEQ_CST);
	}
}

static int stopped(const struct cpu *cpu)
{
	return (int)__atomic_load_n(&cpu->queue.stop, __ATOMIC_SEQ_CST);
}

static int job_ready(const struct cpu *cpu, uint32_t first)
{
	return __atomic_load_n(&cpu->queue.job_tail, __ATOMIC_SEQ_CST) != first || stopped(cpu);
}

int cpu_queue_wait(struct cpu *cpu, uint32_t *tail)
{
	park(cpu, job_ready, cpu->job_first);
	*tail = __atomic_load_n(&cpu->queue.job_tail, __ATOMIC_SEQ_CST);
	return stopped(cpu) ? -1 : 0;
}

uint32_t cpu_queue_epoch(const struct cpu *cpu)
{
	return __atomic_load_n(&cpu->queue.epoch, __ATOMIC_SEQ_CST);
}

static int logits_ready(const struct cpu *cpu, uint32_t epoch)
{
	return __atomic_load_n(&cpu->queue.released, __ATOMIC_SEQ_CST) == cpu->logits_made ||
	       __atomic_load_n(&cpu->queue.epoch, __ATOMIC_SEQ_CST) != epoch;
}

int cpu_queue_wait_logits(struct cpu *cpu, uint32_t epoch)
{
	park(cpu, logits_ready, epoch);
	return cpu_queue_epoch(cpu) == epoch ? 0 : -1;
}

void cpu_queue_put(struct cpu *cpu, const struct mr_event *event)
{
	cpu->events[cpu->event_tail++ & (cpu->event_cap - 1)] = *event;
	if (event->logits)
		cpu->logits_made++;
}

void cpu_queue_publish(struct cpu *cpu)
{
	struct queue *q = &cpu->queue;
	uint64_t one = 1;

	/* Releases the events, and what their jobs wrote, to the host's poll. */
	__atomic_store_n(&q->event_tail, cpu->event_tail, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&q->armed, __ATOMIC_SEQ_CST) &&
	    __atomic_exchange_n(&q->armed, 0, __ATOMIC_SEQ_CST) &&
	    write(cpu->dev.wait_fd, &one, sizeof(one)) < 0) {
		/* Only a full counter refuses, and then wait_fd is readable as it should be. */
	}
}
