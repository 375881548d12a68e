// SPDX-License-Identifier: Apache-2.0
/*
 * The compute threads: the one that runs jobs (jobs.c), which is rank 0 of a team, and the team's own. Where
 * there are as many cores as threads, and more than one thread, each is pinned to a core, the highest first,
 * so that the first is left to the loop as long as possible.
 */
#include "driver/cpu/internal.h"

#include "driver/mem/arena.h"
#include "driver/mem/topology.h"

/* Fills cpus[0 .. threads): where each rank goes, -1 = nowhere in particular. */
static void choose(const struct cpu *cpu, uint32_t threads, int *cpus)
{
	int cores[MR_TEAM_THREADS_MAX];
	unsigned n = 0;

	if (threads > 1)
		n = mr_topology_cores(mr_arena_node(cpu->arena), cores, MR_TEAM_THREADS_MAX);
	for (uint32_t i = 0; i < threads; i++)
		cpus[i] = n >= threads ? cores[threads - 1 - i + (n - threads)] : -1;
	if (cpu->options.cpu >= 0)
		cpus[0] = cpu->options.cpu;
}

int cpu_team_create(struct cpu *cpu)
{
	uint32_t threads = cpu->options.threads ? cpu->options.threads : 1;
	int cpus[MR_TEAM_THREADS_MAX];

	choose(cpu, threads, cpus);
	cpu->cpu = cpus[0];
	return threads == 1 ? 0 : mr_team_create(threads, cpus, &cpu->team);
}

int cpu_thread_start(struct cpu *cpu)
{
	pthread_attr_t attr;
	cpu_set_t set;
	int failed;

	CPU_ZERO(&set);
	if (cpu->cpu >= CPU_SETSIZE)
		return MR_E_INVALID;
	pthread_attr_init(&attr);
	if (cpu->cpu >= 0) {
		CPU_SET(cpu->cpu, &set);
		pthread_attr_setaffinity_np(&attr, sizeof(set), &set);
	}
	failed = pthread_create(&cpu->thread, &attr, cpu_compute, cpu);
	pthread_attr_destroy(&attr);
	cpu->running = !failed;
	return failed ? MR_E_INVALID : 0;
}
